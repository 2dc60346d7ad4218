"""What a step of training and a pass of validation see, and where it is made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from restore.datasets.sampler import CropPlan, make_wish, shrink
from restore.datasets.store import Store
from restore.degrade import Damage
from restore.degrade.device import to_device
from restore.degrade.random import key

_VALIDATION = 3  # what a key is for: apart from those of training steps


@dataclass(frozen=True)
class Batch:
    """Float32 on one device: `damaged` and `clean` B×3×H×W in [0, 1], `mask` B×1×H×W with 1 = missing.

    `keys`, int64[B], are what everything random about each image hangs on: with the rest on a CUDA device, so that a
    step waits for nothing; else on the CPU.
    """

    damaged: Tensor
    mask: Tensor
    clean: Tensor
    keys: Tensor

    def parts(self, count: int) -> list[Batch]:
        """The same images in `count` equal batches, in order; nothing is copied.

        Raises:
            ValueError: they cannot be parted equally.
        """
        size, rest = divmod(len(self.keys), count)
        if rest:
            raise ValueError(f"{len(self.keys)} images in {count} parts")
        tensors = (self.damaged, self.mask, self.clean, self.keys)
        return [Batch(*one) for one in zip(*(t.split(size) for t in tensors))]


class Source:
    """Where training batches come from; (seed, step, index) alone decide every image.

    Args:
        store: clean pictures of three channels; or pairs of six, damaged, then clean.
        plan: how crops are drawn; both halves of a pair are cut alike.
        damage: what happens to clean pictures, on their device; None for pairs.
        fingerprint: of the files; see `folder.fingerprint`.
    """

    def __init__(self, store: Store, plan: CropPlan, damage: Damage | None, fingerprint: str = "") -> None:
        self.store, self.plan, self.damage, self.fingerprint = store, plan, damage, fingerprint

    def batch(self, seed: int, step: int, count: int, first: int = 0) -> Batch:
        """Images `first` … `first + count - 1` of a step.

        Raises:
            RestoreError: a file has vanished, or cannot be read in time.
        """
        return self.start(seed, [step], count, first)()[0]

    def start(self, seed: int, steps: Sequence[int], count: int, first: int = 0) -> Callable[[], list[Batch]]:
        """`batch` for several steps, damaged together: files are asked for now; calling the result finishes them."""
        wishes = [make_wish(self.plan, seed, step, count, first) for step in steps]
        crops = [self.store.start(wish) for wish in wishes]

        def finish() -> list[Batch]:
            pixels = torch.cat([shrink(get(), self.plan.patch) for get in crops])
            return self._batch(pixels, torch.cat([wish.keys for wish in wishes])).parts(len(steps))

        return finish

    def _batch(self, pixels: Tensor, keys: Tensor) -> Batch:
        there = to_device(keys, pixels.device) if pixels.is_cuda else keys
        if self.damage is None:
            return Batch(pixels[:, :3], torch.zeros_like(pixels[:, :1]), pixels[:, 3:], there)
        damaged, mask = self.damage.apply(pixels, self.damage.sample(keys, (self.plan.patch, self.plan.patch)))
        return Batch(damaged, mask, pixels, there)


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
        names, pictures: files and their H×W×3 (clean) or H×W×6 (damaged, then clean) uint8 pixels, no side shorter
            than `multiple`.
        size: largest side of the crop.
        multiple: sides are cut to a multiple of this.
        damage: None for real pairs.
        device: where the batches are made and stay.
    """
    batches = []
    for name, picture in zip(names, pictures):
        height, width = (min(size, side) // multiple * multiple for side in picture.shape[:2])
        top, left = (picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2
        cut = np.ascontiguousarray(picture[top : top + height, left : left + width])
        pixels = torch.from_numpy(cut).permute(2, 0, 1)[None].to(device).float().div_(255)
        key_ = torch.tensor([key(_VALIDATION, name.stem)])
        if damage is None:
            batches.append(Batch(pixels[:, :3], torch.zeros_like(pixels[:, :1]), pixels[:, 3:], key_))
        else:
            damaged, mask = damage.apply(pixels, damage.sample(key_, (height, width)))
            batches.append(Batch(damaged, mask, pixels, key_))
    return batches
