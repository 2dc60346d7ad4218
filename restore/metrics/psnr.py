"""PSNR of image pairs: batched, on any device, one score per image, under a named convention."""

from __future__ import annotations

import torch
from torch import Tensor

from restore.metrics.conventions import CONVENTIONS, Convention
from restore.metrics.preprocessing import HOLE_THRESHOLD, channels, check, cropped, exact, float64_zeros, strips


@torch.no_grad()
def psnr(
    a: Tensor, b: Tensor, *, mask: Tensor | None = None, convention: Convention = CONVENTIONS["skimage"]
) -> Tensor:
    """Peak signal-to-noise ratio in dB, per image, with the errors summed in double precision.

    Args:
        a: float, B×C×H×W with C 1 or 3, sRGB, [0, 1].
        b: the same shape; the order of the two does not matter.
        mask: float, B×1×H×W: only the hole, where the mask is at least 0.5, is scored; values outside are ignored, even
            NaN or Inf. None: the whole image is scored.
        convention: color channels and border.

    Returns:
        float64, B, on the device of `a`. Infinite for identical images; NaN if the mask has no hole.
    """
    check(a, b, mask)
    a, b = cropped(a, convention.border_px), cropped(b, convention.border_px)
    hole = None if mask is None else cropped(mask, convention.border_px).to(a.device) >= HOLE_THRESHOLD
    total, count = float64_zeros(a), float64_zeros(a)
    for rows in strips(a, 0):
        x, y = (exact(channels(t[..., rows, :], convention.psnr_color)) for t in (a, b))
        error = (x - y).square()
        inside = torch.ones_like(error[:, :1]) if hole is None else exact(hole[..., rows, :])
        total += torch.where(inside > 0, error, 0.0).sum(dim=(1, 2, 3))
        count += inside.sum(dim=(1, 2, 3)) * error.shape[1]
    mse = total / count
    return -10 * torch.log10(mse)
