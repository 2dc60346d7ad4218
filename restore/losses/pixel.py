"""Losses that compare pixel with pixel."""

from __future__ import annotations

import torch
from torch import Tensor


def pixel_loss(kind: str, output: Tensor, clean: Tensor, mask: Tensor, hole_weight: float) -> Tensor:
    """Mean error over all pixels, those in the hole counting `hole_weight` times.

    Args:
        kind: `l1` |d|, or `charbonnier` √(d² + 10⁻⁶) (Lai et al. 2017), smooth at zero.
        output, clean: B×3×H×W.
        mask: B×1×H×W, 1 = missing.
        hole_weight: 1 treats hole and rest alike.

    Returns:
        A scalar, divided by the sum of the weights: its size does not depend on how much is missing.
    """
    difference = output - clean
    error = difference.abs() if kind == "l1" else (difference.square() + 1e-6).sqrt()
    if hole_weight == 1:
        return error.mean()
    weight = 1 + (hole_weight - 1) * mask
    return (error * weight).sum() / (weight.sum() * error.shape[1]).clamp(min=torch.finfo(error.dtype).tiny)
