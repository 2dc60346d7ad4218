"""Enlarging: residual convolutions at the size of the small image, and a pixel shuffle at the end."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore.models.base import RestorationNetwork
from restore.models.unet import ResidualBlock

#: How far bicubic interpolation sees, in pixels of the small image.
_BICUBIC_PX = 2

#: Of Keys' cubic, as `F.interpolate` has it.
_A = -0.75


class Enlarge(RestorationNetwork):
    """Enlarges images by a whole factor: RGB or gray in, `scale` times as high and as wide out.

    All convolutions run at the size of the small image, as in ESPCN (Shi et al. 2016) and EDSR (Lim et al. 2017): at
    full size, one costs `scale`² times as much. The network predicts what bicubic interpolation lacks. It starts at
    almost nothing, so an untrained network gives the bicubic image. There is no normalization (see `ResidualBlock`).

    Args:
        scale: output side / input side.
        width: channels. Multiples of 16 suit the processors' vector units.
        blocks: residual blocks of two convolutions.
        channels: of the image: 3, or 1 for gray.

    Raises:
        ValueError: an argument out of range.
    """

    enlarges: ClassVar[bool] = True

    def __init__(self, scale: int = 2, width: int = 32, blocks: int = 8, channels: int = 3) -> None:
        super().__init__()
        if scale not in (2, 3, 4):
            raise ValueError(f"scale must be 2, 3 or 4, not {scale}")
        if width < 1 or blocks < 1:
            raise ValueError(f"width and blocks must be at least 1, not {width} and {blocks}")
        self.scale, self._blocks = scale, blocks
        self.head = nn.Conv2d(channels, width, 3, padding=1)
        self.body = nn.Sequential(*(ResidualBlock(width) for _ in range(blocks)))
        self.tail = nn.Conv2d(width, channels * scale**2, 3, padding=1)
        self.tail.weight.data.mul_(0.1)
        self.tail.get_parameter("bias").data.zero_()

    @classmethod
    def args_for(cls, channels: int, conditions: int) -> dict[str, Any]:
        """See `RestorationNetwork.args_for`."""
        if conditions:
            raise ValueError("it sees the image alone, without condition images")
        return {} if channels == 3 else {"channels": channels}

    @property
    def reach_px(self) -> int:
        """How far an output pixel depends on input pixels, in pixels of the input: exactly."""
        return max(2 + 2 * self._blocks, _BICUBIC_PX)

    def forward(self, image: Tensor, mask: Tensor | None = None, filled: bool = False) -> Tensor:
        """Enlarge a batch.

        Args:
            image: B×channels×H×W, nominally [0, 1].
            mask, filled: without effect; a mask only fills holes with 0.5.

        Returns:
            float32, B×channels×(H·scale)×(W·scale), not clamped.
        """
        if mask is not None and not filled:
            image = self.fill(image, mask)
        x = self.head(image - 0.5)  # zero-centered, so that zero padding at the border is mid-gray
        x = self.tail(x + self.body(x))
        # bf16 has steps of 1/256 near 1: neither the interpolation nor the sum must be rounded to it.
        return F.pixel_shuffle(_bicubic(image.float(), self.scale) + x.float(), self.scale)

    def measure_overlap_px(
        self, image: Tensor, mask: Tensor | None, shown: Callable[[Tensor], Tensor] = lambda output: output
    ) -> int:
        """The whole reach, so that tiles give what the whole image gives: it is small, unlike that of a U-Net."""
        return self.reach_px

    def adapted(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights of a network of another scale: the same body, and a tail that repeats or leaves out pixels.

        Each pixel of the new block of scale × scale starts with the weights of the nearest one of the old block.
        """
        found = dict(state)
        weight, bias = state.get("tail.weight"), state.get("tail.bias")
        own = self.tail.weight
        if weight is None or bias is None or weight.shape == own.shape or weight.shape[1:] != own.shape[1:]:
            return found
        channels = own.shape[0] // self.scale**2
        before = round((weight.shape[0] / channels) ** 0.5)
        if weight.shape[0] != channels * before**2:
            return found
        nearest = [(2 * i + 1) * before // (2 * self.scale) for i in range(self.scale)]
        for name, values in (("tail.weight", weight), ("tail.bias", bias)):
            block = values.unflatten(0, (channels, before, before))[:, nearest][:, :, nearest]
            found[name] = block.flatten(0, 2).contiguous()
        return found


def _bicubic(image: Tensor, scale: int) -> Tensor:
    """What `F.interpolate(mode="bicubic")` gives, as `pixel_shuffle` takes it: B×C×H×W -> B×(C·scale²)×H×W.

    By sums of shifted images: engines round the inputs of an interpolation to bf16 where they compute in it, but not
    those of sums.
    """
    padded = F.pad(image, (_BICUBIC_PX,) * 4, mode="replicate")
    rows = [_weighted(padded, phase, scale, -2) for phase in range(scale)]
    phases = [_weighted(row, phase, scale, -1) for row in rows for phase in range(scale)]
    return torch.stack(phases, dim=2).flatten(1, 2)


def _weighted(padded: Tensor, phase: int, scale: int, dim: int) -> Tensor:
    """One of the `scale` pixels that a pixel becomes along a dimension, which loses its padding."""
    at = (phase + 0.5) / scale - 0.5
    first = math.floor(at) - 1
    total = None
    for tap in range(first, first + 4):
        x = abs(tap - at)
        near = (_A + 2) * x**3 - (_A + 3) * x**2 + 1
        weight = near if x <= 1 else _A * (x**3 - 5 * x**2 + 8 * x - 4)
        start = tap + _BICUBIC_PX
        window = slice(start, (start - 2 * _BICUBIC_PX) or None)  # from the end: a trace must not keep the size
        shifted = weight * (padded[..., window, :] if dim == -2 else padded[..., window])
        total = shifted if total is None else total + shifted
    assert total is not None
    return total
