"""SSIM and MS-SSIM of image pairs: batched, on any device, one score per image, under a named convention."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from restore.metrics.conventions import CONVENTIONS, K1, K2, SCALE_WEIGHTS, Convention
from restore.metrics.preprocessing import channels, check, cropped, exact, float64_zeros, strips

SSIM_MINIMUM_PX = 11
"""Minimum side of an image: a smaller one does not contain the Gaussian window."""

MS_SSIM_MINIMUM_PX = 176
"""Minimum side of an image: the coarsest of five scales of a smaller one does not contain the window."""


@torch.no_grad()
def ssim(a: Tensor, b: Tensor, *, convention: Convention = CONVENTIONS["skimage"]) -> Tensor:
    """Structural similarity, per image: the mean of Wang et al. 2004, eq. 13, over pixels and channels.

    Args:
        a: float, B×C×H×W with C 1 or 3, sRGB, [0, 1].
        b: the same shape; the order of the two does not matter.
        convention: color, window, covariance and border.

    Returns:
        float64, B, on the device of `a`: 1 for identical images. NaN if the window does not fit
        (`SSIM_MINIMUM_PX`).
    """
    check(a, b, None)
    a, b = cropped(a, convention.border_px), cropped(b, convention.border_px)
    return _mean(a, b, convention, convention.ssim_color)


@torch.no_grad()
def ms_ssim(a: Tensor, b: Tensor, *, convention: Convention = CONVENTIONS["skimage"]) -> Tensor:
    """Structural similarity over five scales, per image: Wang, Simoncelli, Bovik 2003, eq. 7.

    Contrast and structure of every scale, and luminance of the coarsest, are averaged over pixels and channels and then
    raised to the exponents of the paper. The next scale is the mean of 2×2 pixels; an odd last row or column is
    dropped. A negative mean counts as 0, because its power is undefined.

    Args:
        a: float, B×C×H×W with C 1 or 3, sRGB, [0, 1].
        b: the same shape; the order of the two does not matter.
        convention: color, window, covariance and border, as for `ssim`.

    Returns:
        float64, B, on the device of `a`: 1 for identical images. NaN if the window does not fit into the
        coarsest scale (`MS_SSIM_MINIMUM_PX`).
    """
    check(a, b, None)
    a, b = cropped(a, convention.border_px), cropped(b, convention.border_px)
    if min(a.shape[-2:]) < MS_SSIM_MINIMUM_PX:
        return float64_zeros(a) * math.nan
    a, b = (channels(x.float(), convention.ssim_color) for x in (a, b))
    score = float64_zeros(a) + 1
    for scale, weight in enumerate(SCALE_WEIGHTS, 1):
        last = scale == len(SCALE_WEIGHTS)
        if last and convention.reflected:
            reach = len(_window_taps(convention)) // 2
            a, b = (F.pad(x, (reach,) * 4, mode="reflect") for x in (a, b))
        part = _mean(a, b, convention, "rgb", luminance=last)
        score *= part.clamp(min=0) ** weight
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return score


def _mean(a: Tensor, b: Tensor, convention: Convention, color: str, *, luminance: bool = True) -> Tensor:
    """SSIM, or only its contrast and structure, averaged per image; NaN if the window does not fit."""
    taps = _window_taps(convention)
    margin = len(taps) - 1
    if min(a.shape[-2:]) <= margin:
        return float64_zeros(a) * math.nan
    total, count = float64_zeros(a), 0
    for rows in strips(a, margin):
        x, y = (channels(t[..., rows, :].float(), color) for t in (a, b))
        similarity = _map(x, y, taps, convention.sample_covariance, luminance)
        total += exact(similarity).sum(dim=(1, 2, 3))
        count += similarity[0].numel()
    return total / count


def _map(x: Tensor, y: Tensor, taps: list[float], sample_covariance: bool, luminance: bool) -> Tensor:
    """Contrast and structure, times luminance if set, where the window lies inside: B×C×(H − 10)×(W − 10)."""
    # Uses the sum s and the difference d of x and y: var(x) + var(y) = (var(s) + var(d)) / 2 and 2 cov(x, y) =
    # (var(s) − var(d)) / 2, likewise for the means. This takes four filters instead of five, and near 1 the score
    # depends only on the small d, so float32 is precise enough. The shift avoids cancellation in E[s²] − E[s]².
    maps = x.new_empty(4, *x.shape)
    torch.add(x, y, out=maps[0])
    torch.sub(x, y, out=maps[1])
    shift = maps[0].mean(dim=(-2, -1), keepdim=True)
    maps[0] -= shift
    torch.mul(maps[:2], maps[:2], out=maps[2:])
    mean_total, mean_difference, square_total, square_difference = _filtered(maps, taps)
    count = len(taps) ** 2
    norm = count / (count - 1) if sample_covariance else 1.0
    var_total = square_total.addcmul_(mean_total, mean_total, value=-1).mul_(norm)
    var_difference = square_difference.addcmul_(mean_difference, mean_difference, value=-1).mul_(norm)
    similarity = _share(var_total, var_difference, K2**2)
    if luminance:
        mean_total += shift
        similarity *= _share(mean_total.square_(), mean_difference.square_(), K1**2)
    return similarity


def _share(total: Tensor, difference: Tensor, constant: float) -> Tensor:
    """1 − d / ((t + d) / 2 + c), in place."""
    return total.add_(difference).div_(2).add_(constant).reciprocal_().mul_(difference).neg_().add_(1)


def _window_taps(convention: Convention) -> list[float]:
    if convention.window == "uniform":
        return [1 / 7] * 7
    weights = [math.exp(-(offset**2) / (2 * 1.5**2)) for offset in range(-5, 6)]
    return [weight / sum(weights) for weight in weights]


def _filtered(x: Tensor, taps: list[float]) -> Tensor:
    """Valid separable filter by shifted sums, which avoids TF32 and does not depend on the batch size."""
    radius = len(taps) // 2
    for dim in (-2, -1):
        length = x.shape[dim] - 2 * radius
        out = x.narrow(dim, radius, length) * taps[radius]
        pair = torch.empty_like(out)
        for near in range(radius):
            torch.add(x.narrow(dim, near, length), x.narrow(dim, 2 * radius - near, length), out=pair)
            out.add_(pair, alpha=taps[near])
        x = out
    return x
