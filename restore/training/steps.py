"""The step of each task."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from restore.training.step import train_step
from restore.training.unpaired import cycle_step

Step = Callable[..., dict[str, Tensor]]

STEPS: dict[str, Step] = {
    "restoration": train_step,
    "detection": train_step,
    "unpaired": cycle_step,
    "generation": train_step,
}
