"""ΔE2000 of picture pairs: how far colours are apart as people see them; batched, on any device."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from restore.metrics.conventions import CONVENTIONS, Convention
from restore.metrics.preprocessing import check, cropped, exact, float64_zeros, strips


@torch.no_grad()
def delta_e(a: Tensor, b: Tensor, *, convention: Convention = CONVENTIONS["skimage"]) -> Tensor:
    """CIEDE2000, the mean over pixels, per image: CIELAB of sRGB, white D65, 2° observer.

    Args:
        a: float, B×C×H×W with C 1 or 3, sRGB, [0, 1].
        b: the same shape; the order of the two does not matter.
        convention: how much border is left out; the rest of it is not this metric's.

    Returns:
        float64, B, on the device of `a`: 0 for identical pictures, about 1 where a difference can just be seen. NaN
        where nothing is left within the border.
    """
    from kornia.color import rgb_to_lab

    check(a, b, None)
    a, b = (cropped(x, convention.border_px).expand(-1, 3, -1, -1) for x in (a, b))
    total = float64_zeros(a)
    for rows in strips(a, 0):
        x, y = (rgb_to_lab(exact(t[..., rows, :])) for t in (a, b))
        total += ciede2000(x, y).sum(dim=(1, 2))
    return total / (a.shape[-2] * a.shape[-1] or math.nan)


def ciede2000(a: Tensor, b: Tensor) -> Tensor:
    """Colour difference, with kL = kC = kH = 1.

    Sharma, Wu, Dalal, "The CIEDE2000 color-difference formula: implementation notes, supplementary test data, and
    mathematical observations", Color Research & Application 30 (2005), eq. 2 to 22; their signs in comments.

    Args:
        a: float64, B×3×H×W, CIELAB with L* in [0, 100].
        b: the same shape; the order of the two does not matter.

    Returns:
        float64, B×H×W.
    """
    (l1, a1, b1), (l2, a2, b2) = a.unbind(1), b.unbind(1)
    stretch = 1 + 0.5 * (1 - _chroma_weight((torch.hypot(a1, b1) + torch.hypot(a2, b2)) / 2))  # 1 + G
    a1, a2 = stretch * a1, stretch * a2
    chroma1, chroma2 = torch.hypot(a1, b1), torch.hypot(a2, b2)  # C'
    hue1, hue2 = torch.atan2(b1, a1) % math.tau, torch.atan2(b2, a2) % math.tau  # h'
    gray = chroma1 * chroma2 == 0

    turn = hue2 - hue1
    around = turn.abs() > math.pi
    turn = torch.where(around, turn - math.tau * turn.sign(), turn).masked_fill_(gray, 0)  # Δh'
    sum_of_hues = hue1 + hue2
    hue = torch.where(around, sum_of_hues + math.tau * torch.where(sum_of_hues < math.tau, 1, -1), sum_of_hues) / 2
    hue = torch.where(gray, sum_of_hues, hue)  # mean h'
    light, chroma = (l1 + l2) / 2, (chroma1 + chroma2) / 2

    tone = (
        1
        - 0.17 * torch.cos(hue - math.radians(30))
        + 0.24 * torch.cos(2 * hue)
        + 0.32 * torch.cos(3 * hue + math.radians(6))
        - 0.20 * torch.cos(4 * hue - math.radians(63))
    )  # T
    middle = (light - 50).square()
    of_light = (l2 - l1) / (1 + 0.015 * middle / (20 + middle).sqrt())
    of_chroma = (chroma2 - chroma1) / (1 + 0.045 * chroma)
    of_hue = 2 * (chroma1 * chroma2).sqrt() * torch.sin(turn / 2) / (1 + 0.015 * chroma * tone)
    blue = math.radians(30) * torch.exp(-((hue.rad2deg() - 275) / 25).square())  # Δθ
    rotation = -torch.sin(2 * blue) * 2 * _chroma_weight(chroma)  # RT
    squares = of_light.square() + of_chroma.square() + of_hue.square() + rotation * of_chroma * of_hue
    return squares.clamp(min=0).sqrt()


def _chroma_weight(chroma: Tensor) -> Tensor:
    """√(C⁷ / (C⁷ + 25⁷)): 0 for gray, towards 1 for pure colours."""
    power = chroma**7
    return (power / (power + 25.0**7)).sqrt()
