"""The seam: whether a filled hole continues its surroundings, measured across the hole's edge alone."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from restore.metrics.preprocessing import HOLE_THRESHOLD, check, exact, float64_zeros

CONVENTION: dict[str, object] = {
    "colour": "sRGB, all channels",
    "data_range": 1.0,
    "region": f"pairs of neighbouring pixels of which one is in the hole (mask at least {HOLE_THRESHOLD})",
    "error": "mean |step in the restored picture - step in the true one| over pairs and channels, per image",
}
"""For reports."""

RATIO_CONVENTION: dict[str, object] = CONVENTION | {
    "error": "the seam, divided by the mean |step in the true picture| over the same pairs, per image"
}
"""For reports."""


@torch.no_grad()
def seam(restored: Tensor, clean: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient mismatch across the hole's edge, and the true picture's own gradient there.

    A step is the finite difference of two pixels that are neighbours in a row or in a column, in one channel. Only
    pairs that straddle the hole's edge count: one pixel in the hole, the other outside. The mismatch is the mean over
    pairs and channels of |step in `restored` − step in `clean`|; where pixels outside the hole are the true ones, that
    is the error of the hole's outermost pixels. The gradient is the mean of |step in `clean`| over the same pairs:
    a mismatch well below it cannot be told from the picture's own texture.

    Args:
        restored: float, B×C×H×W, sRGB, [0, 1].
        clean: the same shape.
        mask: float, B×1×H×W, 1 = missing; a pixel is in the hole from 0.5 on.

    Returns:
        Mismatch and gradient, each float64, B, on the device of `restored`, in parts of the range from black to
        white. NaN where no pair straddles an edge: no hole, or nothing but hole.
    """
    check(restored, clean, mask)
    hole = mask.to(restored.device) >= HOLE_THRESHOLD
    mismatch, gradient, pairs = (float64_zeros(restored) for _ in range(3))
    for dim in (-2, -1):
        straddles = hole.diff(dim=dim)
        true_step = clean.diff(dim=dim)
        wrong = torch.where(straddles, (restored.diff(dim=dim) - true_step).abs(), 0.0)
        mismatch += exact(wrong).sum(dim=(1, 2, 3))
        gradient += exact(torch.where(straddles, true_step.abs(), 0.0)).sum(dim=(1, 2, 3))
        pairs += exact(straddles).sum(dim=(1, 2, 3)) * restored.shape[1]
    pairs[pairs == 0] = math.nan
    return mismatch / pairs, gradient / pairs


def seam_ratio(mismatch: Tensor, gradient: Tensor) -> Tensor:
    """The two of `seam` as one number per image; NaN where the true picture is flat across the edge."""
    return torch.where(gradient > 0, mismatch / gradient, math.nan)
