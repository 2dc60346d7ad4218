"""What a step of training and a pass of validation see, and where it is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from restore.datasets.folder import PictureStore
from restore.datasets.sampler import CropPlan, draw, shared_key, step_keys
from restore.degrade import Damage
from restore.degrade.random import key

_VALIDATION = 3  # what a key is for: apart from those of training steps


@dataclass(frozen=True)
class Batch:
    """Float32 on one device: `damaged` and `clean` B×3×H×W in [0, 1], `mask` B×1×H×W with 1 = missing."""

    damaged: Tensor
    mask: Tensor
    clean: Tensor


class SyntheticPairs:
    """Clean pictures, damaged on their device in a way that (seed, step, index) alone decide.

    Args:
        store: the clean pictures, three channels.
        plan: how crops are drawn.
        damage: what happens to them.
    """

    def __init__(self, store: PictureStore, plan: CropPlan, damage: Damage) -> None:
        self.store, self.plan, self.damage = store, plan, damage

    def batch(self, seed: int, step: int, count: int, first: int = 0) -> Batch:
        """Images `first` … `first + count - 1` of a step."""
        keys_ = step_keys(seed, step, count, first)
        clean = draw(self.store, self.plan, keys_, shared_key(seed, step))
        damaged, mask = self.damage.apply(clean, self.damage.sample(keys_, (self.plan.patch, self.plan.patch)))
        return Batch(damaged, mask, clean)


class RealPairs:
    """Pictures that come as pairs, held as six channels: damaged, then clean.

    Args:
        store: the pairs, six channels.
        plan: how crops are drawn; both halves are cut alike.
    """

    def __init__(self, store: PictureStore, plan: CropPlan) -> None:
        self.store, self.plan = store, plan

    def batch(self, seed: int, step: int, count: int, first: int = 0) -> Batch:
        """Images `first` … `first + count - 1` of a step; nothing is missing."""
        both = draw(self.store, self.plan, step_keys(seed, step, count, first), shared_key(seed, step))
        return Batch(both[:, :3], torch.zeros_like(both[:, :1]), both[:, 3:])


def validation_batches(
    names: Sequence[Path],
    pictures: Sequence[np.ndarray],
    size: int,
    multiple: int,
    damage: Damage | None,
    device: torch.device,
) -> list[Batch]:
    """The fixed validation set, one picture a batch: centre crops, damaged by a key of the file's name alone.

    Args:
        names, pictures: files and their H×W×3 (clean) or H×W×6 (damaged, then clean) uint8 pixels.
        size: largest side of the crop.
        multiple: sides are cut to a multiple of this.
        damage: None for real pairs.
        device: where the batches are made and stay.
    """
    batches = []
    for name, picture in zip(names, pictures):
        height, width = (min(size, side) // multiple * multiple for side in picture.shape[:2])
        if not height or not width:
            continue
        top, left = (picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2
        cut = np.ascontiguousarray(picture[top : top + height, left : left + width])
        pixels = torch.from_numpy(cut).permute(2, 0, 1)[None].to(device).float().div_(255)
        if damage is None:
            batches.append(Batch(pixels[:, :3], torch.zeros_like(pixels[:, :1]), pixels[:, 3:]))
        else:
            key_ = torch.tensor([key(_VALIDATION, name.stem)])
            damaged, mask = damage.apply(pixels, damage.sample(key_, (height, width)))
            batches.append(Batch(damaged, mask, pixels))
    return batches
