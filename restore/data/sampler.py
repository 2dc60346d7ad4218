"""Which crops a training step uses. Every choice is a hash of (seed, step, index), so resuming needs no saved state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from restore.hashed_random import fold_in, key, keys, uniform

# Streams of the hash. Degradations use other numbers.
_CROP, _SCALE, _FOLDER = 1011, 1012, 1013
# First part of a key: for images of a step, or for what all images of a step share.
_STEPS, _SHARED = 1, 2


@dataclass(frozen=True)
class CropPlan:
    """How crops are sampled.

    Attributes:
        patch: side of a crop in pixels, after downscaling.
        scale: (low, high): images are downscaled by a factor from this range, one factor per step.
        flip: mirror half of the crops left to right.
        rotate: rotate crops by multiples of 90°.
    """

    patch: int
    scale: tuple[float, float] = (1.0, 1.0)
    flip: bool = True
    rotate: bool = False


@dataclass(frozen=True)
class CropSpec:
    """The B crops of a step: everything random about them that is independent of the images. All on the CPU.

    Attributes:
        keys: int64[B], from which the image is chosen.
        offset: float64[B, 2] in [0, 1): position of the crop from the top and from the left, relative to the room that
            the image leaves.
        flip: bool[B]: mirrored left to right.
        rotation: int64[B], 0 … 3: quarter turns, after the mirror.
        side: side of the crop in pixels of the image, before downscaling.
    """

    keys: Tensor
    offset: Tensor
    flip: Tensor
    rotation: Tensor
    side: int


class FolderSampler:
    """Chooses a file for each key.

    Args:
        counts: number of files of each folder. Files are numbered folder after folder.
        weights: share of the draws of each folder; None: every file is equally likely.
    """

    def __init__(self, counts: Sequence[int], weights: Sequence[float] | None = None) -> None:
        if weights is None:
            counts, weights = [sum(counts)], [1.0]
        self._counts = torch.tensor(list(counts))
        self._starts = self._counts.cumsum(0) - self._counts
        shares = torch.tensor(list(weights), dtype=torch.float64) * (self._counts > 0)
        self._cumulative = shares.cumsum(0) / shares.sum()
        self.folders = [range(s, s + n) for s, n in zip(self._starts.tolist(), self._counts.tolist())]

    def pick(self, keys_: Tensor, attempt: int) -> Tensor:
        """Choose a file for each key.

        A file that turns out to be unusable is replaced by the next attempt, in the same folder. So unusable files do
        not change which files the other keys choose.

        Args:
            keys_: int64[B].
            attempt: 0 for the first choice.

        Returns:
            int64[B], numbers of files.
        """
        chance = uniform(fold_in(keys_, attempt) if attempt else keys_, _CROP, 1)[:, 0]
        folder = torch.searchsorted(self._cumulative, uniform(keys_, _FOLDER, 1)[:, 0], right=True)
        return self._starts[folder] + (chance * self._counts[folder]).long()


def sample_crops(plan: CropPlan, seed: int, step: int, count: int, first: int = 0) -> CropSpec:
    """Sample the crops `first` … `first + count - 1` of a step.

    Args:
        plan: how crops are sampled.
        seed: of the run.
        step: of the run, from 0.
        count: number of crops.
        first: index of the first crop in the batch of all processes.
    """
    low, high = plan.scale
    # One scale for the whole step, so that all crops have one size and can be stacked before they are resized.
    share = float(uniform(torch.tensor([key(seed, _SHARED, step)]), _SCALE, 1)[0, 0])
    keys_ = keys(seed, _STEPS, step, last=range(first, first + count))
    chance = uniform(keys_, _CROP, 5)  # column 0 is `FolderSampler.pick`'s
    return CropSpec(
        keys=keys_,
        offset=chance[:, 1:3],
        flip=(chance[:, 3] < 0.5) & plan.flip,
        rotation=(chance[:, 4] * 4).long() * plan.rotate,
        side=round(plan.patch / (low + (high - low) * share)),
    )


def resize_crops(crops: Tensor, size: int) -> Tensor:
    """Resize crops B×C×S×S of any depth to float32 B×C×size×size in [0, 1], by antialiased bicubic filtering."""
    images = in_unit_range(crops)
    if images.shape[-1] == size:
        return images
    # One by one on the CPU, where the last bits of an image depend on its position in the batch.
    parts = [images[i : i + 1] for i in range(len(images))] if images.device.type == "cpu" else [images]
    resized = [F.interpolate(p, size=(size, size), mode="bicubic", antialias=True, align_corners=False) for p in parts]
    return (torch.cat(resized) if len(resized) > 1 else resized[0]).clamp_(0, 1)


def in_unit_range(pixels: Tensor) -> Tensor:
    """Pixels as float32 in [0, 1], as floats are. Equal values give equal results in all depths on a CPU."""
    if pixels.is_floating_point():
        return pixels
    return pixels.float().div_(255 if pixels.dtype == torch.uint8 else 65535)
