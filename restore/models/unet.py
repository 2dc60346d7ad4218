"""The default conditional generator: a residual U-Net that takes a picture of any size, with or without a mask."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from restore.models.blocks import Norm, ResidualBlock, down, up
from restore.models.harmonic_fill import membrane

_RARE = 0.02  # what share of the pixels a detector that knows nothing yet takes for damaged


class UNet(nn.Module):
    """Residual U-Net: RGB (+ mask) in, RGB or logits out, fully convolutional.

    Encoder and decoder have the same number of residual blocks on each level; skips are added, not concatenated, as
    in DRUNet (Zhang et al. 2021), which halves the cost of the decoder. The output is the input (with 0.5 under the
    mask) plus what the network says, added in float32. With `prefill`, holes are first filled smoothly from their
    surroundings (`membrane`), so that the network only adds what a smooth filling lacks: it learns several times
    faster, and colours reach across holes that are larger than its field.

    Args:
        widths: channels per level, from full size down; each level is half the size of the one before.
        blocks: residual blocks per level; the last is the bottom's, all others count once down and once up.
        dilations: of the bottom's blocks in turn (repeated if shorter); above 1 where large holes are to be crossed.
        norm: `batch` for logits, which are learned several times faster with it; `none` for pictures.
        mask: whether the network is shown a mask as its fourth channel.
        prefill: whether holes are filled smoothly first, instead of with 0.5.
        out_channels: 3 is a picture, to which the input is added; anything else are logits, to which it is not. These
            start at a share of 0.02, so that the rare class is not drowned at first (Lin et al. 2017, section 4.1).

    Attributes:
        multiple: height and width must divide by it.
        minimum: smallest side, in pixels.
    """

    def __init__(
        self,
        widths: Sequence[int] = (32, 64, 128, 256),
        blocks: Sequence[int] = (1, 1, 1, 3),
        dilations: Sequence[int] = (1,),
        norm: Norm = "none",
        mask: bool = True,
        prefill: bool = False,
        out_channels: int = 3,
    ) -> None:
        super().__init__()
        if len(widths) != len(blocks) or not widths or not dilations:
            raise ValueError(f"widths and blocks need one number per level, not {len(widths)} and {len(blocks)}")
        if norm not in ("none", "batch"):
            raise ValueError(f"norm is none or batch, not {norm!r}")
        if min(*widths, *blocks, *dilations, out_channels) < 1:
            raise ValueError("widths, blocks, dilations and out_channels are numbers from 1 up")
        self.mask, self.prefill, self.out_channels = mask, prefill, out_channels
        self.multiple = self.minimum = 2 ** (len(widths) - 1)
        self.head = nn.Conv2d(4 if mask else 3, widths[0], 3, padding=1)
        self.encoder, self.downs, self.ups, self.decoder = (nn.ModuleList() for _ in range(4))
        for level, (width, count) in enumerate(zip(widths[:-1], blocks[:-1])):
            self.encoder.append(nn.Sequential(*(ResidualBlock(width, norm=norm) for _ in range(count))))
            self.downs.append(down(width, widths[level + 1]))
            self.ups.append(up(widths[level + 1], width))
            self.decoder.append(nn.Sequential(*(ResidualBlock(width, norm=norm) for _ in range(count))))
        self.bottom = nn.Sequential(
            *(ResidualBlock(widths[-1], dilations[i % len(dilations)], norm) for i in range(blocks[-1]))
        )
        self.tail = nn.Conv2d(widths[0], out_channels, 3, padding=1)
        # A network that has not learned yet leaves the picture almost as it is, and finds almost nothing.
        self.tail.weight.data.mul_(0.1)
        self.tail.get_parameter("bias").data.fill_(0.0 if out_channels == 3 else math.log(_RARE / (1 - _RARE)))

    def fill(self, image: Tensor, mask: Tensor) -> Tensor:
        """What the network starts from: B×3×H×W, float32, holes filled smoothly (`prefill`) or with 0.5.

        It looks across the whole picture and costs little; `forward` does it unless told that it was done, so that a
        picture can be filled whole and then repaired in tiles.
        """
        if not self.prefill:
            return torch.where(mask > 0, 0.5, image)
        with torch.autocast(image.device.type, enabled=False):
            return membrane(torch.where(mask > 0, 0.5, image).float(), (mask <= 0).float())

    def forward(self, image: Tensor, mask: Tensor | None = None, filled: bool = False) -> Tensor:
        """Repair a batch.

        Args:
            image: B×3×H×W, [0, 1] (noise may leave it), H and W divide by `multiple`. Ignored where mask > 0.
            mask: B×1×H×W, 1 = missing; None means nothing is missing. Not used by a network built with `mask=False`.
            filled: `image` comes from `fill`.

        Returns:
            float32, B×3×H×W, not clamped; or logits, B×out_channels×H×W.
        """
        if mask is not None and not filled:
            image = self.fill(image, mask)
        x = image - 0.5
        if self.mask:
            x = torch.cat([x, torch.zeros_like(x[:, :1]) if mask is None else mask.to(x.dtype)], dim=1)
        x = self.head(x)
        skips = []
        for blocks, shrink in zip(self.encoder, self.downs):
            x = blocks(x)
            skips.append(x)
            x = shrink(x)
        x = self.bottom(x)
        for level in reversed(range(len(skips))):
            x = self.decoder[level](self.ups[level](x) + skips[level])
        out: Tensor = self.tail(x).float()
        return image.float() + out if self.out_channels == 3 else out
