"""The networks of the restore toolkit, with the parameter names of its weights files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from spandrel.util import store_hyperparameters
from torch import Tensor, nn

#: The optional tensor of a weights file (uint8, JSON) with those hyperparameters that no shape tells and that differ
#: from the defaults. It is a buffer of the network, so it survives being saved and loaded.
HYPERPARAMETERS = "stated_hyperparameters"

#: Jacobi sweeps per scale of `harmonic_fill`.
_SWEEPS = 6

#: The logit of the level above the coarsest one: no damage.
_NOTHING = -8.0


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x))), with batch norms after the convolutions or without."""

    def __init__(self, width: int, dilation: int, batch_norm: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation)
        self.conv2 = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation)
        self.norm1, self.norm2 = (nn.BatchNorm2d(width) if batch_norm else nn.Identity() for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """B×C×H×W -> B×C×H×W."""
        return x + self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))


class _UNet(nn.Module):
    """The convolutions that both networks share: an encoder and a decoder of residual blocks, skips added."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        widths: Sequence[int],
        blocks: Sequence[int],
        dilations: Sequence[int],
        norm: str,
        stored: Mapping[str, Any],
    ) -> None:
        super().__init__()
        if len(widths) != len(blocks) or not widths or not dilations:
            raise ValueError(f"widths and blocks need one number per level, not {len(widths)} and {len(blocks)}")
        if norm not in ("none", "batch"):
            raise ValueError(f"norm must be none or batch, not {norm!r}")
        batch_norm = norm == "batch"
        self.multiple = 2 ** (len(widths) - 1)
        self.head = nn.Conv2d(in_channels, widths[0], 3, padding=1)
        self.encoder, self.downs, self.ups, self.decoder = (nn.ModuleList() for _ in range(4))
        for level, (width, count) in enumerate(zip(widths[:-1], blocks[:-1])):
            wider = widths[level + 1]
            self.encoder.append(nn.Sequential(*(ResidualBlock(width, 1, batch_norm) for _ in range(count))))
            self.downs.append(nn.Conv2d(width, wider, 2, stride=2))
            self.ups.append(nn.Sequential(nn.Conv2d(wider, width * 4, 1), nn.PixelShuffle(2)))
            self.decoder.append(nn.Sequential(*(ResidualBlock(width, 1, batch_norm) for _ in range(count))))
        self.bottom = nn.Sequential(
            *(ResidualBlock(widths[-1], dilations[i % len(dilations)], batch_norm) for i in range(blocks[-1]))
        )
        self.tail = nn.Conv2d(widths[0], out_channels, 3, padding=1)
        if stored:
            text = json.dumps(stored, sort_keys=True).encode()
            self.register_buffer(HYPERPARAMETERS, torch.frombuffer(bytearray(text), dtype=torch.uint8))

    def convolve(self, x: Tensor) -> Tensor:
        """The output of the last convolution, float32, for input channels of any size and type."""
        height, width = x.shape[-2:]
        out: Tensor = self._levels(pad(x, self.multiple).to(self.head.weight.dtype))
        # Half precision has steps of 1/256 or 1/2048 near 1: what follows must not be rounded to them.
        return out[..., :height, :width].float()

    def _levels(self, x: Tensor) -> Tensor:
        x = self.head(x)
        skips = []
        for blocks, shrink in zip(self.encoder, self.downs):
            x = blocks(x)
            skips.append(x)
            x = shrink(x)
        x = self.bottom(x)
        for level in reversed(range(len(skips))):
            x = self.decoder[level](self.ups[level](x) + skips[level])
        return self.tail(x)


@store_hyperparameters()
class RestoreUNet(_UNet):
    """`photo` and `inpaint`: an image, and for some a mask, to an image of the same size.

    Args:
        widths: channels per level, from full size down.
        blocks: residual blocks per level; the last is the bottom's, all others count once down and once up.
        dilations: of the bottom's blocks in turn.
        norm: `none` or `batch`.
        channels: of the image: 3, or 1 for gray.
        mask: whether the network sees a mask, and fills holes.
        prefill: whether holes are filled smoothly first, instead of with 0.5. Always True without a mask.
    """

    hyperparameters: dict[str, Any] = {}  # noqa: RUF012 - as spandrel's own networks have it

    def __init__(
        self,
        *,
        widths: Sequence[int] = (32, 64, 128, 256),
        blocks: Sequence[int] = (1, 1, 1, 3),
        dilations: Sequence[int] = (1,),
        norm: str = "none",
        channels: int = 3,
        mask: bool = False,
        prefill: bool = True,
    ) -> None:
        stored: dict[str, Any] = {} if tuple(dilations) == (1,) else {"dilations": list(dilations)}
        if not prefill:
            stored["prefill"] = False
        super().__init__(channels + mask, channels, widths, blocks, dilations, norm, stored)
        self.takes_mask, self.prefill = mask, prefill

    def fill(self, image: Tensor, mask: Tensor) -> Tensor:
        """The image that the network starts from: its holes hold a first guess.

        A guess depends on the whole image, so it is made before the image is cut into tiles.

        Args:
            image: B×C×H×W, [0, 1].
            mask: B×1×H×W; above 0 is a hole.

        Returns:
            float32, the same shape.
        """
        if not self.prefill:
            return torch.where(mask > 0, 0.5, image.float())
        return harmonic_fill(image.float(), mask)

    def repair(self, start: Tensor, mask: Tensor | None = None) -> Tensor:
        """The network's output for an image whose holes are filled (`fill`), or for a part of one.

        Returns:
            float32, B×C×H×W, not clamped.
        """
        # Zero-centered input, so that zero padding at the border is mid-gray.
        x = start - 0.5
        if self.takes_mask:
            x = torch.cat([x, torch.zeros_like(x[:, :1]) if mask is None else mask.to(x.dtype)], dim=1)
        return start.float() + self.convolve(x)

    def forward(self, image: Tensor, mask: Tensor | None = None) -> Tensor:
        """Repair a batch of any size.

        Args:
            image: B×C×H×W, [0, 1]; values under the mask are ignored.
            mask: B×1×H×W, 1 = fill; a value between blends. None: there are no holes.

        Returns:
            Shape and type of the image. Pixels where the mask is 0 are those of the image.
        """
        if mask is None:
            return self.repair(image).to(image.dtype)
        out = self.repair(self.fill(image, mask), mask).clamp(0, 1)
        blend, given = mask.float(), image.float()
        return torch.where(blend > 0, blend * out + (1 - blend) * given, given).to(image.dtype)


@store_hyperparameters()
class RestorePyramidUNet(_UNet):
    """`detector`: an image to the probability that a pixel is damaged, from coarse to fine on an image pyramid.

    Args:
        widths, blocks, dilations, norm: see `RestoreUNet`.
        coarsest_px: smaller side below which the image is not halved again.

    Attributes:
        threshold: pixels of at least this probability count as damaged.
        monochrome_contrast: monochrome photographs are best searched at this share of their contrast.
        expected_share: the share of an image that is likely damaged, to which the threshold applies; None: any.
            `spandrel_restore.load` takes all three from the file.
    """

    threshold = 0.5
    monochrome_contrast = 1.0
    expected_share: float | None = None
    hyperparameters: dict[str, Any] = {}  # noqa: RUF012 - as spandrel's own networks have it

    def __init__(
        self,
        *,
        widths: Sequence[int] = (24, 48, 96, 192),
        blocks: Sequence[int] = (1, 1, 2, 4),
        dilations: Sequence[int] = (1, 2),
        norm: str = "batch",
        coarsest_px: int = 48,
    ) -> None:
        stored: dict[str, Any] = {} if tuple(dilations) == (1, 2) else {"dilations": list(dilations)}
        if coarsest_px != 48:
            stored["coarsest_px"] = coarsest_px
        super().__init__(4, 2, widths, blocks, dilations, norm, stored)
        self.coarsest_px = coarsest_px

    def forward(self, image: Tensor) -> Tensor:
        """B×3×H×W in [0, 1] -> B×1×H×W in [0, 1], of the image's type: how likely each pixel is damaged."""
        return self.logits(image.float()).sigmoid().to(image.dtype)

    def logits(self, image: Tensor) -> Tensor:
        """The logits of this level and all levels above it: float32, B×3×H×W -> B×1×H×W."""
        height, width = image.shape[-2:]
        if min(height, width) // 2 < self.coarsest_px:
            above = torch.full_like(image[:, :1], _NOTHING)
        else:
            half = F.interpolate(image, (height // 2, width // 2), mode="area")
            above = F.interpolate(self.logits(half), (height, width), mode="bilinear", align_corners=False)
        x = torch.cat([image - 0.5, above.sigmoid()], 1)
        own, weight = self.convolve(x).split(1, dim=1)
        return torch.logaddexp(own, above + weight)


def pad(x: Tensor, multiple: int) -> Tensor:
    """Extend B×C×H×W to the right and below until both sides are multiples."""
    height, width = x.shape[-2:]
    below, right = -height % multiple, -width % multiple
    if not below and not right:
        return x
    # Reflection cannot reach further than the image is large.
    return F.pad(x, (0, right, 0, below), mode="reflect" if below < height and right < width else "replicate")


def harmonic_fill(image: Tensor, mask: Tensor) -> Tensor:
    """Fill holes by harmonic interpolation (Laplace's equation), from coarse to fine.

    Averages of the pixels outside the mask on ever coarser grids give the start (the "pull" of Gortler et al. 1996,
    "The Lumigraph", section 3.4). On the way back, every grid is smoothed by a few Jacobi sweeps.

    Args:
        image: float32, B×C×H×W; values under the mask are ignored.
        mask: B×1×H×W; above 0 is a hole.

    Returns:
        B×C×H×W: `image` outside the mask, smooth inside holes; 0.5 where an image is all hole.
    """
    outside = mask <= 0
    colors, weights = [torch.where(outside, image, 0.0)], [outside.to(image.dtype)]
    while max(weights[-1].shape[-2:]) > 1:
        colors.append(F.avg_pool2d(colors[-1], 2, ceil_mode=True, count_include_pad=False))
        weights.append(F.avg_pool2d(weights[-1], 2, ceil_mode=True, count_include_pad=False))
    guess = torch.zeros_like(colors[-1])
    for color, weight in zip(reversed(colors), reversed(weights)):
        average = color / weight.clamp(min=1e-8)
        if weight.shape[-2:] == (1, 1):
            guess = torch.where(weight > 0, average, 0.5)
            continue
        # A cell that is mostly outside the mask keeps its own average, which is closer than that of its neighbors.
        free = weight < 0.25
        guess = F.interpolate(guess, size=color.shape[-2:], mode="bilinear", align_corners=False)
        guess = torch.where(free, guess, average)
        for _ in range(_SWEEPS):
            around = F.pad(guess, (1, 1, 1, 1), mode="replicate")
            mean = around[..., :-2, 1:-1] + around[..., 2:, 1:-1] + around[..., 1:-1, :-2] + around[..., 1:-1, 2:]
            guess = torch.where(free, mean / 4, average)
    return torch.where(outside, image, guess)
