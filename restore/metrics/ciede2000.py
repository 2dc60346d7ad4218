"""ΔE2000 of image pairs: color difference as people perceive it; through scikit-image."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from restore.metrics.conventions import CONVENTIONS, Convention
from restore.metrics.preprocessing import check, cropped, exact, float64_zeros, strips


@torch.no_grad()
def delta_e(a: Tensor, b: Tensor, *, convention: Convention = CONVENTIONS["skimage"]) -> Tensor:
    """CIEDE2000, averaged over pixels, per image: CIELAB of sRGB, white D65, 2° observer, kL = kC = kH = 1.

    Sharma, Wu, Dalal, "The CIEDE2000 color-difference formula: implementation notes, supplementary test data, and
    mathematical observations", Color Research & Application 30 (2005), eq. 2 to 22.

    Args:
        a: float, B×C×H×W with C 1 or 3, sRGB, [0, 1].
        b: the same shape; the order of the two does not matter.
        convention: only its `border_px` applies to this metric.

    Returns:
        float64, B, on the device of `a` (computed on the CPU): 0 for identical images; a difference of about 1 is
        just noticeable. NaN if the border leaves nothing.
    """
    from skimage.color import deltaE_ciede2000, rgb2lab

    check(a, b, None)
    total = float64_zeros(a)
    a, b = (cropped(x, convention.border_px).expand(-1, 3, -1, -1).cpu() for x in (a, b))
    for rows in strips(a, 0):
        x, y = (rgb2lab(exact(t[..., rows, :]).permute(0, 2, 3, 1).numpy()) for t in (a, b))
        total += torch.from_numpy(deltaE_ciede2000(x, y)).sum(dim=(1, 2)).to(total.device)
    return total / (a.shape[-2] * a.shape[-1] or math.nan)
