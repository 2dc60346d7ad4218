"""What metrics of pixels do to a batch before they compare: colour, border, strips of rows, double precision."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

HOLE_THRESHOLD = 0.5
"""A pixel belongs to the hole where the mask is at least this."""


# Pixels that are worked on at once: on a processor they should fit its cache, on a GPU fill it.
_STRIP_PX_CPU, _STRIP_PX_GPU = 2**14, 2**23


def channels(x: Tensor, colour: str) -> Tensor:
    """What is compared of B×C×H×W, [0, 1], C 1 or 3: all of it for `rgb`, or one channel of luma."""
    if colour == "rgb":
        return x
    red, green, blue = x.expand(-1, 3, -1, -1).unbind(1) if x.shape[1] == 1 else x.unbind(1)
    if colour == "gray-8bit":  # the coefficients of MATLAB's rgb2gray; halves round up there
        gray = 0.298936021293775 * red + 0.587043074451121 * green + 0.114020904255103 * blue
        return (torch.floor(gray * 255 + 0.5) / 255)[:, None]
    # ITU-R BT.601: Y' in 16..235 for R'G'B' in 0..1
    return ((16 + 65.481 * red + 128.553 * green + 24.966 * blue) / 255)[:, None]


def cropped(x: Tensor, border_px: int) -> Tensor:
    """Without so many rows and columns at every side; empty where nothing is left."""
    inner = slice(border_px, -border_px or None)
    return x[..., inner, inner]


def strips(x: Tensor, margin: int) -> Iterator[slice]:
    """Ranges of rows that cover the picture, each with `margin` rows of the next: memory stays bounded."""
    pixels = _STRIP_PX_CPU if x.device.type == "cpu" else _STRIP_PX_GPU
    step = max(margin, 1, pixels // max(x.shape[-1], 1))
    for top in range(0, x.shape[-2] - margin, step):
        yield slice(top, min(top + step + margin, x.shape[-2]))


def float64_zeros(x: Tensor) -> Tensor:
    """A sum for every image of a batch, to begin with."""
    return exact(x.new_zeros(x.shape[0]))


def exact(x: Tensor) -> Tensor:
    """In float64; Apple's GPUs have none, so there it comes to the CPU."""
    return (x.cpu() if x.device.type == "mps" else x).double()


def check(a: Tensor, b: Tensor, mask: Tensor | None) -> None:
    """That two batches, and a mask, can be compared: a mistake of the caller's is a ValueError."""
    if a.shape != b.shape or a.ndim != 4 or a.shape[1] not in (1, 3):
        raise ValueError(f"two batches B×C×H×W of equal shape, C 1 or 3: {tuple(a.shape)}, {tuple(b.shape)}")
    if not (a.is_floating_point() and b.is_floating_point()):
        raise ValueError(f"pictures are floating point in [0, 1], not {a.dtype} and {b.dtype}")
    if mask is not None and mask.shape != (a.shape[0], 1, *a.shape[2:]):
        raise ValueError(f"a mask is B×1×H×W: {tuple(mask.shape)} for {tuple(a.shape)}")
