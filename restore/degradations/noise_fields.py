"""Fields over a picture: random ones, which make edges ragged and blots uneven, and sums over neighbours."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from restore.hashed_random import field_uniform


def smooth(keys: Tensor, stream: int, pitch: float, size: tuple[int, int], device: torch.device | str) -> Tensor:
    """Value noise of one octave: random numbers on a lattice, joined by lines; see `rough`."""
    return rough(keys, stream, pitch, size, device, octaves=1)


def rough(
    keys: Tensor, stream: int, pitch: float, size: tuple[int, int], device: torch.device | str, *, octaves: int = 3
) -> Tensor:
    """Value noise in octaves: coarse and strong, then twice as fine and half as strong, and so on.

    Each octave's numbers are added to the lattice of the one before, refined by cubics; the finest lattice is joined
    by lines. What is finer than a pixel is left out.

    Args:
        keys: int64[B], on the CPU.
        stream: different streams of one key are independent.
        pitch: distance of the coarsest lattice's points, in pixels (about: the lattice is fitted to the picture).
        size: (height, width).
        device: where the field is made and stays.
        octaves: at most so many.

    Returns:
        float32, B×1×H×W, about [−1, 1] (cubics overshoot a little).
    """
    pitch = max(pitch, 1.0)
    octaves = min(octaves, 1 + int(math.log2(pitch)))
    spans = [max(1, math.ceil((side - 1) / pitch)) for side in size]
    lattices = [(spans[0] * 2**k + 1, spans[1] * 2**k + 1) for k in range(octaves)]
    numbers = field_uniform(keys, stream, (1, 1, sum(map(math.prod, lattices))), device) * 2 - 1
    parts = numbers.split([math.prod(lattice) for lattice in lattices], dim=3)
    field = parts[0].unflatten(3, lattices[0])[:, 0]
    for k in range(1, octaves):
        finer = F.interpolate(field, lattices[k], mode="bicubic", align_corners=True)
        field = finer + 2.0**-k * parts[k].unflatten(3, lattices[k])[:, 0]
    if lattices[-1] != size:
        field = F.interpolate(field, size, mode="bilinear", align_corners=True)
    return field / (2 - 2.0 ** (1 - octaves))


def positions(size: tuple[int, int], device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Coordinates of the pixels, float32: y as H×1, x as W; pixel centres at whole numbers."""
    height, width = size
    y = torch.arange(height, device=device, dtype=torch.float32)[:, None]
    return y, torch.arange(width, device=device, dtype=torch.float32)


def smoothstep(x: Tensor) -> Tensor:
    """0 below 0, 1 above 1, and 3x² − 2x³ between, which leaves and arrives level."""
    x = x.clamp(0, 1)
    return x * x * (3 - 2 * x)


def mean_around(maps: Tensor, side: int) -> Tensor:
    """Mean over the side×side pixels around each, of those that lie inside; same shape."""
    rows, columns = (_sum_along(maps.new_ones(length), side, 0) for length in maps.shape[-2:])
    return sum_around(maps, side) / (rows[:, None] * columns)


def sum_around(maps: Tensor, side: int) -> Tensor:
    """Sum over the side×side pixels around each, of those that lie inside; same shape; `side` is odd."""
    return _sum_along(_sum_along(maps, side, maps.ndim - 2), side, maps.ndim - 1)


def _sum_along(values: Tensor, side: int, dim: int) -> Tensor:
    """Sum over `side` neighbours along one dimension, of windows doubled and put together: few additions."""
    length = values.shape[dim]
    ends = list(values.shape)
    ends[dim] = side // 2
    blank = values.new_zeros(ends)
    window, width = torch.cat([blank, values, blank], dim), 1
    total, done = window.narrow(dim, 0, length), 1
    while done < side:
        rest = window.shape[dim] - width
        window = window.narrow(dim, 0, rest) + window.narrow(dim, width, rest)
        width *= 2
        if side & width:
            total = total + window.narrow(dim, done, length)
            done += width
    return total
