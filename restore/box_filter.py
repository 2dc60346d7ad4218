"""Sums and means over square windows, quick for any window size."""

from __future__ import annotations

import torch
from torch import Tensor


def box_sum(maps: Tensor, side: int) -> Tensor:
    """Sum over the side×side window around each pixel, zeros outside; same shape; `side` is odd."""
    return _sum_along(_sum_along(maps, side, maps.ndim - 2), side, maps.ndim - 1)


def box_mean(maps: Tensor, side: int) -> Tensor:
    """Mean over those pixels of the side×side window around each pixel that are inside; same shape; `side` is odd."""
    rows, columns = (_sum_along(maps.new_ones(length), side, 0) for length in maps.shape[-2:])
    return box_sum(maps, side) / (rows[:, None] * columns)


def _sum_along(values: Tensor, side: int, dim: int) -> Tensor:
    """Sum over `side` neighbors along one dimension.

    Windows of 1, 2, 4, … elements come from one another, and those that make up `side` in binary are added: about
    2·log2(side) additions. Running sums would be as quick, but lose precision along the image.
    """
    length = values.shape[dim]
    ends = list(values.shape)
    ends[dim] = side // 2
    padding = values.new_zeros(ends)
    window, width = torch.cat([padding, values, padding], dim), 1
    total, done = window.narrow(dim, 0, length), 1
    while done < side:
        rest = window.shape[dim] - width
        window = window.narrow(dim, 0, rest) + window.narrow(dim, width, rest)
        width *= 2
        if side & width:
            total = total + window.narrow(dim, done, length)
            done += width
    return total
