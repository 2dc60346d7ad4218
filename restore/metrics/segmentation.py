"""Precision, recall and F1 of detected damage, with a tolerance of one pixel at its edges."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

TOLERANCE_PX = 1
"""Scratches and dust have soft edges, so their extent is uncertain by one pixel."""


def grown(mask: Tensor, radius_px: int) -> Tensor:
    """Dilate a mask by a disc: all pixels within `radius_px` of a masked one (Euclidean, centre to centre).

    Args:
        mask: bool, B×1×H×W.
        radius_px: 0 or more; meant for a few pixels.
    """
    height, width = mask.shape[-2:]
    padded = F.pad(mask, (radius_px,) * 4)
    reached = torch.zeros_like(mask)
    for down in range(2 * radius_px + 1):
        for across in range(2 * radius_px + 1):
            if (down - radius_px) ** 2 + (across - radius_px) ** 2 <= radius_px**2:
                reached |= padded[..., down : down + height, across : across + width]
    return reached


def tolerant_counts(predicted: Tensor, true: Tensor, tolerance_px: int = TOLERANCE_PX) -> Tensor:
    """Pixel counts for precision and recall, as for contours (Martin et al. 2004; Perazzi et al. 2016, "DAVIS").

    A predicted pixel is correct if a true one is within `tolerance_px`. A true pixel is detected if a predicted one is
    within `tolerance_px`.

    Args:
        predicted, true: bool, B×1×H×W; one of the two may have B = 1.
        tolerance_px: 0 or more.

    Returns:
        float64[B, 4]: predicted pixels, correct ones among them, true pixels, detected ones among them. The counts of
        several images can be summed.
    """
    right = predicted & grown(true, tolerance_px)
    found = true & grown(predicted, tolerance_px)
    counts = [x.expand(right.shape).sum((1, 2, 3), dtype=torch.float64) for x in (predicted, right, true, found)]
    return torch.stack(counts, dim=1)


def precision_recall_f1(counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scores from counts (float64[..., 4], see `tolerant_counts`): float64[...] each, in [0, 1].

    Sum the counts of many images first, because a single image without damage has no meaningful F1. Precision is 1 if
    nothing is predicted, recall is 1 if nothing is damaged, and F1 is their harmonic mean.
    """
    predicted, right, true, found = counts.unbind(-1)
    precision = torch.where(predicted == 0, 1.0, right / predicted)
    recall = torch.where(true == 0, 1.0, found / true)
    together = precision + recall
    return precision, recall, torch.where(together == 0, 0.0, 2 * precision * recall / together)
