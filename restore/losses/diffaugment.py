"""Differentiable augmentation of what the discriminator sees, so that a small data set lasts (Zhao et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from restore.hashed_random import uniform

KINDS = ("color", "translation", "cutout")
_STREAM = 2001


def augmented(shown: Tensor, keys: Tensor, kinds: Sequence[str], pictures: Sequence[int]) -> Tensor:
    """Change what D is shown, the same way for a real and a repaired picture of the same key.

    Args:
        shown: B×C×H×W in [-1, 1], all of D's input channels.
        keys: int64[B], one per image.
        kinds: of `KINDS`: `color` (brightness ± 0.5, saturation × 0 to 2, contrast × 0.5 to 1.5), `translation` (up to
            an eighth of the size, zeros come in), `cutout` (a square of half the size becomes zero).
        pictures: first channels of the RGB pictures in it; colour changes them alone, all in the same way.

    Returns:
        The same shape; gradients flow through.
    """
    chance = uniform(keys, _STREAM, 7).float().to(shown.device)
    draw = [chance[:, i].reshape(-1, 1, 1, 1) for i in range(chance.shape[1])]
    if "color" in kinds:
        changed = [shown]
        for first in pictures:
            picture = shown[:, first : first + 3] + draw[0] - 0.5
            gray = picture.mean(dim=1, keepdim=True)
            picture = gray + (picture - gray) * (draw[1] * 2)
            mean = picture.mean(dim=(1, 2, 3), keepdim=True)
            changed.append(mean + (picture - mean) * (draw[2] + 0.5))
        shown = _with_pictures(changed[0], changed[1:], pictures)
    height, width = shown.shape[-2:]
    if "translation" in kinds:
        dy = (2 * draw[3] - 1) * (height // 8)
        dx = (2 * draw[4] - 1) * (width // 8)
        shown = _moved(shown, dy.round().flatten().long(), dx.round().flatten().long())
    if "cutout" in kinds:
        y = torch.arange(height, device=shown.device).reshape(1, 1, -1, 1) - (draw[5] * height).floor()
        x = torch.arange(width, device=shown.device).reshape(1, 1, 1, -1) - (draw[6] * width).floor()
        shown = shown * ~((y.abs() < height / 4) & (x.abs() < width / 4))
    return shown


def _with_pictures(shown: Tensor, pictures: list[Tensor], firsts: Sequence[int]) -> Tensor:
    parts, at = [], 0
    for first, picture in sorted(zip(firsts, pictures), key=lambda pair: pair[0]):
        parts += [shown[:, at:first], picture]
        at = first + 3
    return torch.cat([*parts, shown[:, at:]], dim=1)


def _moved(x: Tensor, dy: Tensor, dx: Tensor) -> Tensor:
    """Shift every image of the batch by whole pixels; zeros come in."""
    batch, channels, height, width = x.shape
    padded = F.pad(x, (1, 1, 1, 1))
    rows = (torch.arange(height, device=x.device) + dy[:, None] + 1).clamp(0, height + 1)
    columns = (torch.arange(width, device=x.device) + dx[:, None] + 1).clamp(0, width + 1)
    index = (rows[:, :, None] * (width + 2) + columns[:, None, :]).reshape(batch, 1, -1).expand(-1, channels, -1)
    return padded.flatten(2).gather(2, index).reshape(batch, channels, height, width)
