"""The learning rate range test (Smith 2017, "Cyclical learning rates", section 3.3), as part of a dry run."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from restore.data.loader import Batch
from restore.plotting import COLORS, INK, PanelSize, new_figure, save_figure, style_axes
from restore.training.step import StepContext
from restore.training.steps import STEPS as STEPS_OF_TASKS
from restore.training.trainable_network import TrainableNetwork

RATES = (1e-6, 1.0)
STEPS = 100
_SMOOTHING = 0.9  # of the loss: single batches differ by a factor of ten
_DIVERGED = 4.0  # times the lowest loss: higher rates would tell nothing more
_FIRST = 10  # steps before which the smoothed loss means little


@dataclass(frozen=True)
class RateTest:
    """The loss at rising learning rates.

    Attributes:
        rates: one per step.
        losses: smoothed, at these rates.
        suggestion: the rate at which the loss falls most steeply; None if it never falls.
    """

    rates: list[float]
    losses: list[float]
    suggestion: float | None

    def draw(self, path: Path) -> None:
        """Plot the loss over the rate as PNG.

        Raises:
            RestoreError: the file cannot be written.
        """
        figure, ((axes,),) = new_figure(1, 1, PanelSize(5.4, 3.2))
        style_axes(axes, "loss at rising learning rates")
        axes.set_xscale("log")
        axes.set_xlabel("learning rate", fontsize=8.5, color=INK)
        axes.plot(self.rates, self.losses, color=COLORS[0])
        if self.suggestion is not None:
            axes.axvline(self.suggestion, color=COLORS[1], linestyle="--")
        save_figure(path, figure)


def rising_rates(g: TrainableNetwork, next_batch: Callable[[], Batch], parts: int, context: StepContext) -> RateTest:
    """Train G alone for up to `STEPS` steps, each at a higher rate than the one before. Changes its weights.

    Args:
        g: the generator, with initial weights.
        next_batch: gives the batch of each step.
        parts: of a batch, over which gradients are accumulated.
        context: of the run.
    """
    low, high = RATES
    rates: list[float] = []
    losses: list[float] = []
    average = 0.0
    for step in range(STEPS):
        rate = low * (high / low) ** (step / (STEPS - 1))
        for group in g.param_groups:
            # Of several optimizers, the rates keep their proportion.
            own = rate * group["full_rate"] / g.optimizer.param_groups[0]["full_rate"]
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(own)
            else:
                group["lr"] = own
        terms = STEPS_OF_TASKS[context.task](g, None, next_batch().parts(parts), context)
        loss = float(next(terms[name] for name in ("pixel", "cycle", "cross_entropy") if name in terms))
        average = _SMOOTHING * average + (1 - _SMOOTHING) * loss
        smoothed = average / (1 - _SMOOTHING ** (step + 1))
        if not math.isfinite(smoothed) or (step >= _FIRST and smoothed > _DIVERGED * min(losses)):
            break
        rates.append(rate)
        losses.append(smoothed)
    return RateTest(rates, losses, steepest(rates, losses))


def steepest(rates: list[float], losses: list[float]) -> float | None:
    """The rate at which the loss falls most per factor of the rate, before its minimum; None if it never falls."""
    end = int(np.argmin(losses)) + 1 if losses else 0
    if end <= _FIRST:
        return None
    slope = np.gradient(np.array(losses[:end]), np.log(rates[:end]))[_FIRST:]
    at = int(np.argmin(slope)) + _FIRST
    return rates[at] if slope.min() < 0 else None
