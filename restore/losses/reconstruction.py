"""Pixel losses."""

from __future__ import annotations

import math

from torch import Tensor


def pixel_loss(kind: str, output: Tensor, clean: Tensor, mask: Tensor, hole_weight: float) -> Tensor:
    """Mean error over all pixels, with a weight of `hole_weight` for those in the hole.

    Args:
        kind: `l1` |d|, or `charbonnier` √(d² + 10⁻⁶) (Lai et al. 2017, also on values in [0, 1]), smooth at zero.
        output, clean: B×3×H×W in [0, 1].
        mask: B×1×H×W, 1 = repair.
        hole_weight: relative to a pixel outside the hole; infinity: only the hole counts.

    Returns:
        A scalar. Each image's error is divided by the sum of its weights, so that it does not depend on the size of
        the hole, and then averaged over the batch, so that it does not depend on how a batch is split.
    """
    difference = output - clean
    error = difference.abs() if kind == "l1" else (difference.square() + 1e-6).sqrt()
    if hole_weight == 1:  # the same as below, without its cost
        return error.mean()
    weight = mask if math.isinf(hole_weight) else 1 + (hole_weight - 1) * mask
    per_image = (error.mean(dim=1, keepdim=True) * weight).sum(dim=(1, 2, 3)) / weight.sum(dim=(1, 2, 3)).clamp(min=1)
    return per_image.mean()
