"""Probabilities of damage, adjusted to how much of an image is damaged."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

_FOUND = 0.5  # pixels of at least this probability look damaged
_WEIGHT = 1.5  # the share that looks damaged varies less between images than the true share
_SHARES = 1e-3, 0.5  # the range that shares are clipped to
_FACTORS = 1 / 3, 4.0  # of the odds, the least and the largest: a single scratch has to be found, too


def share_found(probability: FloatArray) -> float:
    """The share of the pixels that look damaged, with a probability of at least 0.5."""
    return float((probability >= _FOUND).mean())


def with_prior(probability: FloatArray, share: float, expected_share: float) -> FloatArray:
    """Adjust probabilities of damage to the share of the image that looks damaged.

    A network learns how much damage there is in its training data, and expects that in every image. A cracked print has
    more: where it hesitates there, it is usually right. A photograph that is nearly clean has less, and what it takes
    for damage there is usually a wire or a branch. The odds o of each pixel change with the ratio of the prior odds:
    o' = o · (s / (1 − s) / (e / (1 − e)))^w, with s the share of the image that looks damaged and e the expected share.

    With w = 1 this is Bayes' rule for a changed prior: Saerens, Latinne and Decaestecker, "Adjusting the Outputs of a
    Classifier to New a Priori Probabilities: A Simple Procedure", Neural Computation 14(1), 2002. They estimate s by
    expectation maximization, which does not converge on outputs as uncertain as these. Here s is counted
    (`share_found`), w is 1.5, and the odds change by a factor of 1/3 to 4.

    Args:
        probability: H×W, in [0, 1].
        share: the share of the image that looks damaged.
        expected_share: an image with this share keeps its probabilities.

    Returns:
        H×W, in [0, 1]; pixels keep their order, and 0.5 becomes 0.25 to 0.8.
    """
    share = float(np.clip(share, *_SHARES))
    factor = np.float32(np.clip((_odds(share) / _odds(expected_share)) ** _WEIGHT, *_FACTORS))
    return (factor * probability / (factor * probability + 1 - probability)).astype(np.float32)


def _odds(share: float) -> float:
    return share / (1 - share)
