"""Losses that compare pixel with pixel."""

from __future__ import annotations

import math

from torch import Tensor


def pixel_loss(kind: str, output: Tensor, clean: Tensor, mask: Tensor, hole_weight: float) -> Tensor:
    """Mean error over all pixels, those in the hole counting `hole_weight` times.

    Args:
        kind: `l1` |d|, or `charbonnier` √(d² + 10⁻⁶) (Lai et al. 2017), smooth at zero.
        output, clean: B×3×H×W.
        mask: B×1×H×W, 1 = missing.
        hole_weight: 1 treats hole and rest alike, infinity looks at the hole alone.

    Returns:
        A scalar: every picture's error divided by the sum of its weights, so that its size does not depend on how
        much is missing, averaged over the batch, so that it does not depend on how a batch is split.
    """
    difference = output - clean
    error = difference.abs() if kind == "l1" else (difference.square() + 1e-6).sqrt()
    if hole_weight == 1:
        return error.mean()
    weight = mask if math.isinf(hole_weight) else 1 + (hole_weight - 1) * mask
    per_picture = (error.mean(dim=1, keepdim=True) * weight).sum(dim=(1, 2, 3)) / weight.sum(dim=(1, 2, 3)).clamp(min=1)
    return per_picture.mean()
