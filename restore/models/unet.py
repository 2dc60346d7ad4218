"""The default generator: a residual U-Net for images of any size, with or without a mask, and its blocks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore.models.base import RestorationNetwork
from restore.models.receptive_field import measure_reach_px

Norm = Literal["none", "batch"]

#: The share of pixels that an untrained detector takes for damaged; see `UNet`.
_PRIOR = 0.02

#: Jacobi sweeps per scale. The coarser scales have carried colors across the hole already, so a few are enough.
SWEEPS = 6

#: Pixels that are smoothed at once on a CPU, so that a band of rows stays in the processor's cache during all sweeps.
_BAND_PX = 1 << 18


class UNet(RestorationNetwork):
    """Residual U-Net: RGB or gray (+ mask) in, RGB, gray or logits out, fully convolutional.

    Encoder and decoder have the same number of residual blocks on each level; skips are added, not concatenated, as
    in DRUNet (Zhang et al. 2021), which halves the cost of the decoder. The network predicts a residual, which is added
    to the input (with 0.5 under the mask) in float32. With `prefill`, holes are first filled smoothly from their
    surroundings (`harmonic_fill`), so that the network only adds what a smooth filling lacks: it learns several times
    faster, and colors reach across holes that are larger than its receptive field.

    Args:
        widths: channels per level, from full size down; each level is half the size of the one before.
        blocks: residual blocks per level; the last is the bottom's, all others count once down and once up.
        dilations: of the bottom's blocks in turn (repeated if shorter); above 1 to see across large holes.
        norm: `batch` for logits, which are learned several times faster with it; `none` for images.
        mask: whether the mask is an input channel after those of the image.
        prefill: whether holes are filled smoothly first, instead of with 0.5.
        out_channels: 3 is an image (of `channels`), to which the input is added; anything else are logits, to which it
            is not. Logits start at a probability of 0.02, so that the many undamaged pixels do not dominate the first
            steps (Lin et al. 2017, section 4.1).
        channels: of the image: 3, or 1 for gray.
        conditions: channels of condition images: input channels after all others.

    Raises:
        ValueError: an argument out of range.
    """

    can_detect = has_features = True

    def __init__(
        self,
        widths: Sequence[int] = (32, 64, 128, 256),
        blocks: Sequence[int] = (1, 1, 1, 3),
        dilations: Sequence[int] = (1,),
        norm: Norm = "none",
        mask: bool = True,
        prefill: bool = False,
        out_channels: int = 3,
        channels: int = 3,
        conditions: int = 0,
    ) -> None:
        super().__init__()
        if len(widths) != len(blocks) or not widths or not dilations:
            raise ValueError(f"widths and blocks need one number per level, not {len(widths)} and {len(blocks)}")
        if norm not in ("none", "batch"):
            raise ValueError(f"norm must be none or batch, not {norm!r}")
        if min(*widths, *blocks, *dilations, out_channels) < 1:
            raise ValueError("widths, blocks, dilations and out_channels must be at least 1")
        if len(widths) > 12 or max(*blocks, *dilations) > 256:
            raise ValueError("there are at most 12 levels, 256 blocks on each, and dilations of 256")
        if channels not in (1, 3) or not 0 <= conditions <= 256:
            raise ValueError(f"channels must be 1 or 3, and conditions 0 to 256, not {channels} and {conditions}")
        self.takes_mask, self.prefill, self.conditions = mask, prefill, conditions
        self.gives_image = out_channels == 3
        self.multiple = self.minimum = 2 ** (len(widths) - 1)
        self.head = nn.Conv2d(channels + mask + conditions, widths[0], 3, padding=1)
        self.encoder, self.downs, self.ups, self.decoder = (nn.ModuleList() for _ in range(4))
        for level, (width, count) in enumerate(zip(widths[:-1], blocks[:-1])):
            self.encoder.append(nn.Sequential(*(ResidualBlock(width, norm=norm) for _ in range(count))))
            self.downs.append(down(width, widths[level + 1]))
            self.ups.append(up(widths[level + 1], width))
            self.decoder.append(nn.Sequential(*(ResidualBlock(width, norm=norm) for _ in range(count))))
        self.bottom = nn.Sequential(
            *(ResidualBlock(widths[-1], dilations[i % len(dilations)], norm) for i in range(blocks[-1]))
        )
        self.tail = nn.Conv2d(widths[0], channels if self.gives_image else out_channels, 3, padding=1)
        # An untrained network starts near the identity (or, as a detector, near `_PRIOR` everywhere).
        self.tail.weight.data.mul_(0.1)
        self.tail.get_parameter("bias").data.fill_(0.0 if self.gives_image else math.log(_PRIOR / (1 - _PRIOR)))

    @classmethod
    def args_for(cls, channels: int, conditions: int) -> dict[str, Any]:
        """See `RestorationNetwork.args_for`."""
        args = {"channels": channels} if channels != 3 else {}
        return args | ({"conditions": conditions} if conditions else {})

    def _fill(self, image: Tensor, mask: Tensor) -> Tensor:
        """Holes filled smoothly (with `prefill`; the result is float32) or with 0.5. See `RestorationNetwork.fill`."""
        if not self.prefill:
            return super()._fill(image, mask)
        # Means over large holes need more than the 8 significant bits of bf16.
        with torch.autocast(image.device.type, enabled=False):
            return harmonic_fill(image.float(), mask)

    def measure_overlap_px(
        self, image: Tensor, mask: Tensor | None, shown: Callable[[Tensor], Tensor] = lambda output: output
    ) -> int:
        """See `RestorationNetwork.measure_overlap_px`; of a detector's probabilities, not of its logits."""
        if self.gives_image:
            return super().measure_overlap_px(image, mask, shown)
        # Differences between logits mean nothing if the probability is near 0 or 1.
        return measure_reach_px(lambda image, _: self(image).sigmoid(), image, None)

    def forward(self, image: Tensor, mask: Tensor | None = None, filled: bool = False) -> Tensor:
        """Repair a batch.

        Args:
            image: B×(channels + conditions)×H×W, [0, 1] (noise may leave it), H and W divide by `multiple`. The image
                is ignored where mask > 0.
            mask: B×1×H×W, 1 = repair; None: there are no holes. A network built with `mask=False` only fills it.
            filled: `image` comes from `fill`.

        Returns:
            float32, B×channels×H×W, not clamped; or logits, B×out_channels×H×W.
        """
        if mask is not None and not filled:
            image = self.fill(image, mask)
        x = image - 0.5  # zero-centered input, so that zero padding at the border is mid-gray
        if self.conditions:
            x, condition = x[:, : -self.conditions], x[:, -self.conditions :]
            image = image[:, : -self.conditions]
        if self.takes_mask:
            x = torch.cat([x, torch.zeros_like(x[:, :1]) if mask is None else mask.to(x.dtype)], dim=1)
        if self.conditions:
            x = torch.cat([x, condition], dim=1)
        # bf16 has steps of 1/256 near 1: the sum must not be rounded to it.
        out = self._convolve(x).float()
        return image.float() + out if self.gives_image else out

    def features(self, image: Tensor) -> list[Tensor]:
        """See `RestorationNetwork.features`: the pixels, the input of each lower level, and the bottom's output."""
        x = image - 0.5
        found = [x]
        x = self.head(torch.cat([x, torch.zeros_like(x[:, :1])], dim=1) if self.takes_mask else x)
        for blocks, shrink in zip(self.encoder, self.downs):
            x = shrink(blocks(x))
            found.append(x)
        return [*found, self.bottom(x)]

    def _convolve(self, x: Tensor) -> Tensor:
        """The output of the last convolution for the input channels."""
        x = self.head(x)
        skips = []
        for blocks, shrink in zip(self.encoder, self.downs):
            x = blocks(x)
            skips.append(x)
            x = shrink(x)
        x = self.bottom(x)
        for level in reversed(range(len(skips))):
            x = self.decoder[level](self.ups[level](x) + skips[level])
        out: Tensor = self.tail(x)
        return out


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x))), 3×3, without statistics of the image: tiles give what the whole image gives.

    Normalization is left out by default, as in EDSR (Lim et al. 2017) and DRUNet (Zhang et al. 2021): it costs a
    regression fidelity. A classifier of pixels learns several times faster with it (Ioffe & Szegedy 2015), and batch
    normalization is one scale and one offset after training, the same in every tile. Either way the second
    convolution starts at a tenth of the usual size, so that a deep stack begins close to the identity.

    Args:
        width: channels in and out.
        dilation: of both convolutions; larger ones see further at the same cost.
        norm: `batch` normalizes after each convolution.
    """

    def __init__(self, width: int, dilation: int = 1, norm: Norm = "none") -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation)
        self.act = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation)
        nn.init.kaiming_normal_(self.conv1.weight, nonlinearity="relu")
        nn.init.kaiming_normal_(self.conv2.weight, nonlinearity="relu")
        for name, values in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(values)
        self.norm1, self.norm2 = (nn.BatchNorm2d(width) if norm == "batch" else nn.Identity() for _ in range(2))
        # A normalization cancels the size of the weights before it: its own scale is set instead.
        last = self.conv2 if norm == "none" else self.norm2
        last.get_parameter("weight").data.mul_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        """B×C×H×W -> B×C×H×W."""
        residual: Tensor = self.norm2(self.conv2(self.act(self.norm1(self.conv1(x)))))
        return x + residual


def down(wide_in: int, wide_out: int) -> nn.Module:
    """Half the size by a 2×2 convolution of stride 2: every input pixel counts once."""
    return nn.Conv2d(wide_in, wide_out, 2, stride=2)


def up(wide_in: int, wide_out: int) -> nn.Module:
    """Twice the size by a 1×1 convolution and a pixel shuffle (Shi et al. 2016): no checkerboard from overlaps.

    The four pixels made from one start with equal weights, so that training starts without a lattice (Aitken et al.
    2017, "Checkerboard artifact free sub-pixel convolution").
    """
    expand = nn.Conv2d(wide_in, wide_out * 4, 1)
    for values in (expand.weight.data, expand.get_parameter("bias").data):
        values.copy_(values[::4].repeat_interleave(4, dim=0))
    return nn.Sequential(expand, nn.PixelShuffle(2))


def harmonic_fill(image: Tensor, mask: Tensor) -> Tensor:
    """Fill holes by harmonic interpolation (Laplace's equation), from coarse to fine.

    Averages of the pixels outside the mask on ever coarser grids give the start (the "pull" of Gortler et al. 1996,
    "The Lumigraph", section 3.4). On the way back, every grid is smoothed by a few Jacobi sweeps wherever less than a
    quarter of a cell lies outside the mask. It costs a few per cent of one convolution of a network, whatever the size
    of the hole.

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
        guess = _smooth(torch.where(free, guess, average), average, free)
    return torch.where(outside, image, guess)


def _smooth(guess: Tensor, average: Tensor, free: Tensor) -> Tensor:
    """Jacobi sweeps: every free cell becomes the mean of its four neighbors, the others keep their average.

    Beyond the border a cell is its own neighbor.
    """
    before, after = (F.pad(guess, (1, 1, 1, 1), mode="replicate") for _ in range(2))
    height, width = guess.shape[-2:]
    band = max(1, _BAND_PX // (width * guess.shape[0])) if guess.device.type == "cpu" else height
    for _ in range(SWEEPS):
        for top in range(0, height, band):
            rows = slice(top, min(top + band, height))
            around = before[..., rows.start : rows.stop + 2, :]
            mean = around[..., :-2, 1:-1] + around[..., 2:, 1:-1]
            mean += around[..., 1:-1, :-2]
            mean += around[..., 1:-1, 2:]
            mean /= 4
            inner = after[..., rows.start + 1 : rows.stop + 1, 1:-1]
            inner.copy_(torch.where(free[..., rows, :], mean, average[..., rows, :]))
        # The padding follows the sweep: the border's replicas become those of the new values.
        for edge, nearest in ((0, 1), (-1, -2)):
            after[..., edge, :] = after[..., nearest, :]
            after[..., edge] = after[..., nearest]
        before, after = after, before
    return before[..., 1:-1, 1:-1]
