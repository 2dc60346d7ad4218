"""Seam: the gradient error of a filled hole across its edge."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from restore.metrics.preprocessing import HOLE_THRESHOLD, check, exact, float64_zeros

CONVENTION: dict[str, object] = {
    "colour": "sRGB, all channels",
    "data_range": 1.0,
    "region": f"pairs of neighbouring pixels of which one is in the hole (mask at least {HOLE_THRESHOLD})",
    "error": "mean |step in the restored image - step in the true one| over pairs and channels, per image",
}
"""For reports."""

RATIO_CONVENTION: dict[str, object] = CONVENTION | {
    "error": "the seam, divided by the mean |step in the true image| over the same pairs, per image"
}
"""For reports."""


@torch.no_grad()
def seam(restored: Tensor, clean: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient mismatch across the edge of the hole, and the gradient of the clean image there.

    A step is the difference of two neighbouring pixels of a row or column, in one channel. Only pairs across the edge
    count: one pixel in the hole, the other outside. The mismatch is the mean over pairs and channels of |step in
    `restored` − step in `clean`|; if the pixels outside the hole are unchanged, that is the error of the outermost
    pixels of the hole. The gradient is the mean of |step in `clean`| over the same pairs: a mismatch well below it
    cannot be distinguished from the texture of the image.

    Args:
        restored: float, B×C×H×W, sRGB, [0, 1].
        clean: the same shape.
        mask: float, B×1×H×W; a pixel is in the hole if its value is at least 0.5.

    Returns:
        Mismatch and gradient, each float64, B, on the device of `restored`, as a fraction of the range from black
        to white. NaN if the hole has no edge: the mask is empty or full.
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
    """The mismatch relative to the gradient, per image; NaN if the clean image is flat across the edge."""
    return torch.where(gradient > 0, mismatch / gradient, math.nan)
