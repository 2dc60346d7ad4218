"""Losses for detectors, where damaged pixels are rare."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def weighted_cross_entropy(logits: Tensor, mask: Tensor, positive_weight: float) -> Tensor:
    """Binary cross-entropy with a weight of `positive_weight` for damaged pixels, a scalar.

    As for edges, which are as rare, in Xie & Tu 2015 ("Holistically-Nested Edge Detection", eq. 2), but with one weight
    for all images instead of one that follows from each image's share of edges: a clean image has no damaged pixels.

    Args:
        logits, mask: float, B×1×H×W; mask in [0, 1], 1 = damaged.
        positive_weight: above 0; 1: all pixels count alike.
    """
    # A tensor made on the device: a Python number would be copied there, which a CUDA graph cannot record.
    weight = torch.full_like(logits[0, :, :1, :1], positive_weight)
    return F.binary_cross_entropy_with_logits(logits, mask, pos_weight=weight)


def soft_dice(logits: Tensor, mask: Tensor) -> Tensor:
    """1 - the Dice coefficient of probabilities and mask, per image, averaged over the batch: a scalar in [0, 1].

    Milletari et al. 2016 ("V-Net", section 3), with the sums of Sudre et al. 2017 in place of squares, and one
    added to numerator and denominator: without damage, the loss then grows with every pixel that is detected.

    Args:
        logits, mask: as for `weighted_cross_entropy`.
    """
    probability = logits.sigmoid()
    both, either = (x.sum((1, 2, 3)) for x in (probability * mask, probability + mask))
    return (1 - (2 * both + 1) / (either + 1)).mean()
