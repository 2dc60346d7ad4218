"""What step k sees: every choice is a hash of (seed, step, index), so nothing has to be saved to resume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from restore.hashed_random import fold_in, key, keys, uniform

_CROP, _SCALE, _FOLDER = 1011, 1012, 1013  # streams of the hash; degradations use their own
_STEPS, _SHARED = 1, 2  # what a key of a run is for


@dataclass(frozen=True)
class CropPlan:
    """How crops are drawn.

    Attributes:
        patch: side of a crop in pixels, after rescaling.
        scale: (low, high): pictures are made smaller by a factor drawn from this range, one a step.
        flip: mirror left-right half of the time.
        rotate: quarter turns and upside-down too: for textures more than for pictures with a sky.
    """

    patch: int
    scale: tuple[float, float] = (1.0, 1.0)
    flip: bool = True
    rotate: bool = False


@dataclass(frozen=True)
class CropSpec:
    """The B crops of a step as far as chance decides them before a picture is opened. All on the CPU.

    Attributes:
        keys: int64[B], which the choice of the picture hangs on.
        place: float64[B, 2] in [0, 1): how far down and right in the picture a crop lies.
        flip: bool[B]: mirrored left-right.
        turn: int64[B], 0 … 3: quarter turns, after the mirror.
        side: of a crop in the picture's own pixels.
    """

    keys: Tensor
    place: Tensor
    flip: Tensor
    turn: Tensor
    side: int


class FolderSampler:
    """Which picture a key draws.

    Args:
        counts: pictures of each folder, as they lie one folder after the other.
        weights: share of the draws of each folder; None: every picture counts alike.
    """

    def __init__(self, counts: Sequence[int], weights: Sequence[float] | None = None) -> None:
        if weights is None:
            counts, weights = [sum(counts)], [1.0]
        self._counts = torch.tensor(list(counts))
        self._starts = self._counts.cumsum(0) - self._counts
        shares = torch.tensor(list(weights), dtype=torch.float64) * (self._counts > 0)
        self._up_to = shares.cumsum(0) / shares.sum()
        self.folders = [range(s, s + n) for s, n in zip(self._starts.tolist(), self._counts.tolist())]

    def pick(self, keys_: Tensor, attempt: int) -> Tensor:
        """int64[B]: the picture that each key draws at its first (0), second, ... attempt, in one and the same folder.

        A picture that turns out to be of no use is drawn again, so that what is drawn else does not depend on it.
        """
        chance = uniform(fold_in(keys_, attempt) if attempt else keys_, _CROP, 1)[:, 0]
        folder = torch.searchsorted(self._up_to, uniform(keys_, _FOLDER, 1)[:, 0], right=True)
        return self._starts[folder] + (chance * self._counts[folder]).long()


def step_keys(seed: int, step: int, batch: int, first: int = 0) -> Tensor:
    """int64[batch]: one key per image of a step; `first` is the rank's offset into the global batch."""
    return keys(seed, _STEPS, step, last=range(first, first + batch))


def make_wish(plan: CropPlan, seed: int, step: int, count: int, first: int = 0) -> CropSpec:
    """What images `first` … `first + count - 1` of a step are to be."""
    low, high = plan.scale
    share = float(uniform(torch.tensor([key(seed, _SHARED, step)]), _SCALE, 1)[0, 0])
    keys_ = step_keys(seed, step, count, first)
    chance = uniform(keys_, _CROP, 5)
    return CropSpec(
        keys=keys_,
        place=chance[:, 1:3],
        flip=(chance[:, 3] < 0.5) & plan.flip,
        turn=(chance[:, 4] * 4).long() * plan.rotate,
        side=round(plan.patch / (low + (high - low) * share)),
    )


def shrink(crops: Tensor, size: int) -> Tensor:
    """uint8 B×C×S×S -> float32 B×C×size×size in [0, 1], antialiased bicubic where the size differs."""
    pictures = crops.float().div_(255)
    if pictures.shape[-1] == size:
        return pictures
    # On the CPU one by one: there, the last bits of a picture depend on its place in the batch.
    parts = pictures.split(1) if pictures.device.type == "cpu" else (pictures,)
    resized = [F.interpolate(p, size=(size, size), mode="bicubic", antialias=True, align_corners=False) for p in parts]
    return (torch.cat(resized) if len(resized) > 1 else resized[0]).clamp_(0, 1)
