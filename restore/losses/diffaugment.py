"""DiffAugment: differentiable augmentation of D's inputs, against overfitting on small sets (Zhao et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from restore.hashed_random import uniform

KINDS = ("color", "translation", "cutout")
_STREAM = 2001  # of the hash


def diff_augment(x: Tensor, keys: Tensor, kinds: Sequence[str], rgb_at: Sequence[int], channels: int = 3) -> Tensor:
    """Augment D's inputs. The same key gives the same augmentation, for a clean and for a restored image.

    Args:
        x: B×C×H×W in [-1, 1], all input channels of D.
        keys: int64[B], one per image.
        kinds: some of `KINDS`: `color` (brightness ± 0.5, saturation × 0 to 2, contrast × 0.5 to 1.5), `translation`
            (by up to an eighth of the size, padded with zeros), `cutout` (a square of half the size is set to zero).
        rgb_at: first channel of each image in `x`. `color` changes the channels of images only, all in the same way.
        channels: of an image: 3, or 1 for gray.

    Returns:
        The same shape; gradients flow through.
    """
    # By key instead of by a generator: D must see the same change for both images, also after a resume.
    chance = uniform(keys, _STREAM, 7).float().to(x.device)
    draw = [chance[:, i].reshape(-1, 1, 1, 1) for i in range(chance.shape[1])]
    if "color" in kinds:
        changed: list[Tensor] = []
        for first in rgb_at:
            rgb = x[:, first : first + channels] + draw[0] - 0.5
            gray = rgb.mean(dim=1, keepdim=True)
            rgb = gray + (rgb - gray) * (draw[1] * 2)
            mean = rgb.mean(dim=(1, 2, 3), keepdim=True)
            changed.append(mean + (rgb - mean) * (draw[2] + 0.5))
        x = _replace_images(x, changed, rgb_at)
    height, width = x.shape[-2:]
    if "translation" in kinds:
        dy = (2 * draw[3] - 1) * (height // 8)
        dx = (2 * draw[4] - 1) * (width // 8)
        x = _translate(x, dy.round().flatten().long(), dx.round().flatten().long())
    if "cutout" in kinds:
        rows = torch.arange(height, device=x.device).reshape(1, 1, -1, 1) - (draw[5] * height).floor()
        columns = torch.arange(width, device=x.device).reshape(1, 1, 1, -1) - (draw[6] * width).floor()
        x = x * ~((rows.abs() < height / 4) & (columns.abs() < width / 4))
    return x


def _replace_images(x: Tensor, images: list[Tensor], rgb_at: Sequence[int]) -> Tensor:
    parts, at = [], 0
    for first, image in sorted(zip(rgb_at, images), key=lambda pair: pair[0]):
        parts += [x[:, at:first], image]
        at = first + image.shape[1]
    return torch.cat([*parts, x[:, at:]], dim=1)


def _translate(x: Tensor, dy: Tensor, dx: Tensor) -> Tensor:
    """Shift each image by whole pixels, padded with zeros."""
    batch, channels, height, width = x.shape
    # One pixel of zeros around the image is enough: all positions outside are clamped to it. A gather, because each
    # image moves by another distance.
    padded = F.pad(x, (1, 1, 1, 1))
    rows = (torch.arange(height, device=x.device) + dy[:, None] + 1).clamp(0, height + 1)
    columns = (torch.arange(width, device=x.device) + dx[:, None] + 1).clamp(0, width + 1)
    index = (rows[:, :, None] * (width + 2) + columns[:, None, :]).reshape(batch, 1, -1).expand(-1, channels, -1)
    return padded.flatten(2).gather(2, index).reshape(batch, channels, height, width)
