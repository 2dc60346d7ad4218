"""Losses on edges, frequencies and structure, beside the pixel loss: images B×3×H×W in [0, 1] to a scalar."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from restore.metrics.conventions import K1, K2, SCALE_WEIGHTS

_WINDOW_PX, _SIGMA_PX = 11, 1.5


def gradient_loss(output: Tensor, clean: Tensor) -> Tensor:
    """Mean absolute error of the differences between neighbors, in rows and in columns: of edges.

    After Mathieu et al. 2016 ("Deep multi-scale video prediction", eq. 6, α = 1), with signed differences.
    """
    difference = output - clean
    rows, columns = difference.diff(dim=-2).abs(), difference.diff(dim=-1).abs()
    return rows.mean() + columns.mean()


def frequency_loss(output: Tensor, clean: Tensor) -> Tensor:
    """Mean absolute error of the real and imaginary parts of the 2-D Fourier transform, per channel.

    Cho et al. 2021 ("MIMO-UNet", eq. 6), at full size. The transform is not normalized, as there: the loss of noise
    grows with the side of the patch.
    """
    spectrum = torch.fft.fft2(output.float() - clean.float())
    return torch.view_as_real(spectrum).abs().mean()


def ms_ssim_loss(output: Tensor, clean: Tensor) -> Tensor:
    """1 - MS-SSIM, averaged over the batch (Zhao et al. 2017, "Loss functions for image restoration", eq. 10).

    The scores are those of `restore.metrics.ssim.ms_ssim` (Gaussian window, RGB), with gradients. A patch of less than
    176 px holds fewer than five scales; the exponents of those that fit are then raised to the same sum.

    Raises:
        ValueError: a side is shorter than the window, 11 px.
    """
    side = min(output.shape[-2:])
    if side < _WINDOW_PX:
        raise ValueError(f"MS-SSIM needs {_WINDOW_PX} px, not {side}")
    scales = min(len(SCALE_WEIGHTS), 1 + int(math.log2(side / _WINDOW_PX)))
    weights = [weight / sum(SCALE_WEIGHTS[:scales]) * sum(SCALE_WEIGHTS) for weight in SCALE_WEIGHTS[:scales]]
    a, b = output.float(), clean.float()
    score = torch.ones_like(a[:, 0, 0, 0])
    for scale, weight in enumerate(weights, 1):
        similarity = _similarity(a, b, luminance=scale == scales)
        # Not 0, where the power has no gradient.
        score = score * similarity.mean(dim=(1, 2, 3)).clamp(min=1e-4) ** weight
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return 1 - score.mean()


def _similarity(a: Tensor, b: Tensor, luminance: bool) -> Tensor:
    """Contrast and structure, times luminance if set, where the window lies inside (Wang et al. 2004, eq. 13)."""
    mean_a, mean_b, square_a, square_b, product = _blurred(torch.stack([a, b, a * a, b * b, a * b])).unbind(0)
    covariance = product - mean_a * mean_b
    variances = square_a - mean_a.square() + square_b - mean_b.square()
    similarity = (2 * covariance + K2**2) / (variances + K2**2)
    if not luminance:
        return similarity
    return similarity * (2 * mean_a * mean_b + K1**2) / (mean_a.square() + mean_b.square() + K1**2)


def _blurred(x: Tensor) -> Tensor:
    """N×B×C×H×W convolved with the Gaussian window, without padding."""
    offsets = torch.arange(_WINDOW_PX, dtype=x.dtype, device=x.device) - _WINDOW_PX // 2
    taps = torch.exp(-offsets.square() / (2 * _SIGMA_PX**2))
    taps = taps / taps.sum()
    planes = x.reshape(-1, 1, *x.shape[-2:])
    planes = F.conv2d(F.conv2d(planes, taps.view(1, 1, -1, 1)), taps.view(1, 1, 1, -1))
    return planes.reshape(*x.shape[:-2], *planes.shape[-2:])
