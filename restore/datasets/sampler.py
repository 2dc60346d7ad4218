"""What step k sees: every choice is a hash of (seed, step, index), so nothing has to be saved to resume."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from restore.datasets.folder import PictureStore, shrink
from restore.degrade.random import key, keys, uniform

_CROP, _SCALE = 1011, 1012  # streams of the hash; degradations use their own
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


def step_keys(seed: int, step: int, batch: int, first: int = 0) -> Tensor:
    """int64[batch]: one key per image of a step; `first` is the rank's offset into the global batch."""
    return keys(seed, _STEPS, step, last=range(first, first + batch))


def draw(store: PictureStore, plan: CropPlan, keys_: Tensor, step_key: int) -> Tensor:
    """The clean crops of one step.

    Args:
        store: the pictures.
        plan: how to cut.
        keys_: int64[B], from `step_keys`.
        step_key: what the images of one step share (their scale).

    Returns:
        float32, B×C×patch×patch, [0, 1], on the store's device.
    """
    low, high = plan.scale
    share = float(uniform(torch.tensor([step_key]), _SCALE, 1)[0, 0])
    side = round(plan.patch / (low + (high - low) * share))
    chance = uniform(keys_, _CROP, 5)
    index = (chance[:, 0] * len(store)).long()
    y = (chance[:, 1] * (store.heights[index] - side + 1).clamp(min=1)).long()
    x = (chance[:, 2] * (store.widths[index] - side + 1).clamp(min=1)).long()
    crops = shrink(store.crops(index, y, x, side), plan.patch)
    if plan.flip:
        crops = _where(chance[:, 3] < 0.5, crops.flip(-1), crops)
    if plan.rotate:
        turn = (chance[:, 4] * 4).long()
        for quarter in (1, 2, 3):
            crops = _where(turn == quarter, crops.rot90(quarter, (-2, -1)), crops)
    return crops


def _where(choose: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(choose.to(a.device)[:, None, None, None], a, b)


def shared_key(seed: int, step: int) -> int:
    """The key of what all images of a step share."""
    return key(seed, _SHARED, step)
