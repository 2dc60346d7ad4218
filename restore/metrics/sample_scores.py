"""Scores of images that were drawn from noise, against real ones: two sets without pairs."""

from __future__ import annotations

import torch
from torch import Tensor

from restore.metrics.fid import FrechetDistance, Inception
from restore.metrics.lpips import Lpips

_BATCH = 32
_NEIGHBORS = 3  # Kynkäänniemi et al. 2019, section 3.1


def sample_scores(drawn: Tensor, real: Tensor, inception: Inception, lpips: Lpips | None = None) -> dict[str, float]:
    """Scores of drawn images, N×3×H×W in [0, 1], against real ones, M×3×H×W.

    Returns:
        `fid` (see `restore.metrics.fid`), `kid`, `inception_score`, `precision`, `recall`, and with `lpips`
        `lpips_diversity`, the mean LPIPS of two samples. FID and Inception Score depend on the number of images.
    """
    features, of_real = (
        torch.cat([inception.features(part) for part in images.split(_BATCH)]) for images in (drawn, real)
    )
    distance = FrechetDistance(features.shape[1])
    distance.add(features, of_real)
    scores = {"fid": distance.value(), "kid": kernel_distance(features, of_real)}
    scores["inception_score"] = inception_score(inception.logits(features))
    scores["precision"], scores["recall"] = covered(of_real, features), covered(features, of_real)
    if lpips is not None and len(drawn) > 1:
        half = len(drawn) // 2
        pairs = zip(drawn[:half].split(1), drawn[half : 2 * half].split(1))
        scores["lpips_diversity"] = float(torch.stack([lpips(a, b).mean() for a, b in pairs]).mean())
    return scores


def kernel_distance(a: Tensor, b: Tensor) -> float:
    """KID of two sets of features, N×D and M×D (Binkowski et al. 2018, eq. 4): the unbiased squared MMD of all of them.

    NaN for fewer than two images.
    """

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T / x.shape[1] + 1) ** 3

    def within(x: Tensor) -> Tensor:
        own = kernel(x, x)
        return (own.sum() - own.diagonal().sum()) / (len(x) * (len(x) - 1) or torch.nan)

    return float(within(a) + within(b) - 2 * kernel(a, b).mean())


def inception_score(logits: Tensor) -> float:
    """Inception Score (Salimans et al. 2016) of N×classes logits, in one split."""
    log_p = logits.log_softmax(1)
    mean = log_p.exp().mean(0, keepdim=True).log()
    return float((log_p.exp() * (log_p - mean)).sum(1).mean().exp())


def covered(manifold: Tensor, points: Tensor) -> float:
    """The share of points, M×D, within the distance of a point of the manifold, N×D, to its third neighbor.

    Kynkäänniemi et al. 2019, eq. 2: the precision of samples in the manifold of real images, the recall the reverse.
    NaN for fewer than four points in the manifold.
    """
    if len(manifold) <= _NEIGHBORS:
        return float("nan")
    radius = torch.cdist(manifold, manifold).kthvalue(_NEIGHBORS + 1).values
    return float((torch.cdist(points, manifold) <= radius).any(1).double().mean())
