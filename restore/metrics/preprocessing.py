"""Preparation of batches for pixel metrics: color, border, strips of rows, double precision."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

HOLE_THRESHOLD = 0.5
"""A pixel belongs to the hole if its mask value is at least this."""


# Pixels processed at once: few enough for the cache of a CPU, many enough to keep a GPU busy.
_STRIP_PX_CPU, _STRIP_PX_GPU = 2**14, 2**23


def channels(x: Tensor, color: str) -> Tensor:
    """The channels to compare of B×C×H×W, [0, 1], C 1 or 3: all of them for `rgb`, or one channel of luma."""
    if color == "rgb":
        return x
    red, green, blue = x.expand(-1, 3, -1, -1).unbind(1) if x.shape[1] == 1 else x.unbind(1)
    if color == "gray-8bit":  # coefficients and rounding (halves up) of MATLAB's rgb2gray
        gray = 0.298936021293775 * red + 0.587043074451121 * green + 0.114020904255103 * blue
        return (torch.floor(gray * 255 + 0.5) / 255)[:, None]
    # ITU-R BT.601: Y' in 16..235 for R'G'B' in 0..1
    return ((16 + 65.481 * red + 128.553 * green + 24.966 * blue) / 255)[:, None]


def cropped(x: Tensor, border_px: int) -> Tensor:
    """Crop `border_px` rows and columns at every side; empty if nothing is left."""
    inner = slice(border_px, -border_px or None)
    return x[..., inner, inner]


def strips(x: Tensor, margin: int) -> Iterator[slice]:
    """Ranges of rows that cover the image and overlap by `margin` rows; they bound the memory."""
    pixels = _STRIP_PX_CPU if x.device.type == "cpu" else _STRIP_PX_GPU
    step = max(margin, 1, pixels // max(x.shape[-1], 1))
    for top in range(0, x.shape[-2] - margin, step):
        yield slice(top, min(top + step + margin, x.shape[-2]))


def float64_zeros(x: Tensor) -> Tensor:
    """One accumulator, set to zero, per image of a batch."""
    return exact(x.new_zeros(x.shape[0]))


def exact(x: Tensor) -> Tensor:
    """Convert to float64; a tensor on MPS, which has no float64, moves to the CPU."""
    return (x.cpu() if x.device.type == "mps" else x).double()


def check(a: Tensor, b: Tensor, mask: Tensor | None) -> None:
    """Raise ValueError unless two batches, and a mask, can be compared."""
    if a.shape != b.shape or a.ndim != 4 or a.shape[1] not in (1, 3):
        raise ValueError(
            f"the two batches must be B×C×H×W of equal shape, C 1 or 3: {tuple(a.shape)}, {tuple(b.shape)}"
        )
    if not (a.is_floating_point() and b.is_floating_point()):
        raise ValueError(f"images must be floating point in [0, 1], not {a.dtype} and {b.dtype}")
    if mask is not None and mask.shape != (a.shape[0], 1, *a.shape[2:]):
        raise ValueError(f"the mask must be B×1×H×W: {tuple(mask.shape)} for {tuple(a.shape)}")
