"""How well marked damage agrees with the true one: precision, recall and F1, a pixel's width forgiven."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

TOLERANCE_PX = 1


def grown(mask: Tensor, radius_px: int) -> Tensor:
    """A mask dilated by a disc: every pixel at most `radius_px` from a marked one (Euclidean, centre to centre).

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
    """What precision and recall are made of, as for contours (Martin et al. 2004; Perazzi et al. 2016, "DAVIS").

    A marked pixel is right where a true one is at most `tolerance_px` away, a true one is found where a marked one is:
    where soft damage ends is a matter of taste.

    Args:
        predicted, true: bool, B×1×H×W; one of the two may have B = 1.
        tolerance_px: 0 or more.

    Returns:
        float64[B, 4]: pixels marked, of these right, pixels true, of these found. Sums of several pictures' counts are
        their counts together.
    """
    right = predicted & grown(true, tolerance_px)
    found = true & grown(predicted, tolerance_px)
    counts = [x.expand(right.shape).sum((1, 2, 3), dtype=torch.float64) for x in (predicted, right, true, found)]
    return torch.stack(counts, dim=1)


def precision_recall_f1(counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scores of counts (float64[..., 4], see `tolerant_counts`): float64[...] each, in [0, 1].

    Over pixels of many pictures together, not per picture: one without damage has no F1 of its own. Precision is 1
    where nothing is marked, recall is 1 where nothing is damaged, and F1 is their harmonic mean.
    """
    marked, right, true, found = counts.unbind(-1)
    precision = torch.where(marked == 0, 1.0, right / marked)
    recall = torch.where(true == 0, 1.0, found / true)
    together = precision + recall
    return precision, recall, torch.where(together == 0, 0.0, 2 * precision * recall / together)
