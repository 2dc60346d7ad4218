"""A run that ends within a given time: the speed of its own steps decides how many there are.

The config's `total_steps`, stages and `loss.adversarial_start` say which share of the run each part has. When steps
begin to cost something else, because a stage begins or D joins, the rest of the run is fitted again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lightning_fabric import Fabric

from restore.errors import RestoreError
from restore.training.config import TrainConfig
from restore.training.dry_run import format_duration, synchronize
from restore.training.run_dir import RunFolder
from restore.training.stages import StagePlan, plan_stages

_RESERVE = 0.03  # share of the time, for steps that become slower
_MEASURED_SHARE, _MEASURED_STEPS = 0.02, 8  # at least this share of the time, and this many steps
_WARM_UP_STEPS = {"cuda": 25}  # until steps are recorded as a CUDA graph and replayed
_FEW_WARM_UP_STEPS = 2
_COST_WITH_D = 2.0  # of a step with D, compared with one without, until it can be measured


@dataclass(frozen=True)
class Costs:
    """What a run costs now, in seconds.

    Attributes:
        step: of a step.
        validation: of a validation.
        left: until the time is over.
    """

    step: float
    validation: float
    left: float


class Budget:
    """Fits a run into `config.budget`. Without one, all methods do nothing.

    Args:
        config: of the run, after `with_fitted_steps`.
        facts: of the state that the run resumes from; empty for a new run.
        fabric: devices and processes. Rank 0 measures.
        began: when the time began to run, by `time.perf_counter`.
    """

    def __init__(self, config: TrainConfig, facts: dict[str, Any], fabric: Fabric, began: float) -> None:
        self._seconds, self._fabric = config.budget_seconds, fabric
        kept = facts.get("budget") or {}
        self._spent = float(kept.get("spent", 0.0))
        self._fitted = kept.get("fitted") if kept.get("seconds") == self._seconds else None
        self._began = began
        self._validation = 0.0
        self._part: list[Any] | None = None
        self._steps, self._since, self._is_warm = 0, 0.0, False

    def state(self, config: TrainConfig) -> dict[str, Any] | None:
        """What a resumed run needs, as plain values."""
        if self._seconds is None:
            return None
        spent = self._spent + time.perf_counter() - self._began
        return {"seconds": self._seconds, "spent": spent, "fitted": self._fitted, "steps": _steps_of(config)}

    def validated(self, seconds: float) -> None:
        """Count a validation, whose time is not that of steps."""
        self._validation = seconds
        self._since += seconds

    def after_step(
        self, config: TrainConfig, step: int, stage: int, has_d: bool, on_event: Callable[[str], None]
    ) -> TrainConfig | None:
        """Count a step. Call it after every step, on all processes.

        Args:
            config: of the run.
            step: number of steps so far.
            stage: number of the stage.
            has_d: whether D was trained in it.
            on_event: called with a line if the run has been fitted.

        Returns:
            The config with other steps, once these have been measured; otherwise None.
        """
        part = [stage, has_d]
        if self._seconds is None or self._fitted == part or step >= config.total_steps:
            return None
        if self._part != part:
            self._part, self._is_warm = part, False
            self._restart()
        self._steps += 1
        if not self._is_warm and self._steps > _WARM_UP_STEPS.get(self._fabric.device.type, _FEW_WARM_UP_STEPS):
            self._is_warm = True
            self._restart()
        ends = step + 1 >= _end_of_part(config, step)
        if self._steps < _MEASURED_STEPS and not ends:
            return None
        synchronize(self._fabric.device)
        now = time.perf_counter()
        measured = now - self._since
        enough = ends or (self._is_warm and measured >= _MEASURED_SHARE * self._seconds)
        left = self._seconds * (1 - _RESERVE) - self._spent - (now - self._began)
        costs = self._fabric.broadcast(
            Costs(measured / max(self._steps, 1), self._validation, left) if enough else None
        )
        if costs is None:
            return None
        self._fitted = part
        fitted = fit(config, step, costs, has_d=has_d)
        on_event(_describe(config, fitted, step, costs))
        return fitted

    def _restart(self) -> None:
        synchronize(self._fabric.device)
        self._steps, self._since = 0, time.perf_counter()


def with_fitted_steps(config: TrainConfig) -> TrainConfig:
    """The config with the steps that the run in its folder was fitted to; unchanged for a new run, or without a budget.

    A run that has finished goes on if the budget is larger than then, by as many steps as its time so far suggests.

    Raises:
        RestoreError: the config has another number of stages.
    """
    if config.budget is None or config.out is None:
        return config
    facts = RunFolder.facts(config.out)
    kept = facts.get("budget")
    if not kept:
        return config
    steps = kept["steps"]
    if len(steps["stages"]) != len(config.stages):
        raise RestoreError(
            f"the run in this folder has {len(steps['stages'])} stages, which a budget keeps",
            where=config.out,
            hint="set total_steps instead of a budget, or use another out=",
        )
    ratio = config.budget_seconds * (1 - _RESERVE) / kept["spent"] if config.budget_seconds else 0.0
    if config.budget_seconds != kept["seconds"] and facts["step"] >= steps["total_steps"]:
        steps["total_steps"] = max(steps["total_steps"], int(facts["step"] * ratio))
    return _with_steps(config, steps)


def fit(config: TrainConfig, step: int, costs: Costs, *, has_d: bool) -> TrainConfig:
    """Stretch or shorten what is left of a run, so that it ends when its time is over.

    Args:
        config: of the run.
        step: number of steps so far.
        costs: measured now.
        has_d: whether they include D.

    Returns:
        The config with `total_steps`, later stages and a later start of D moved; there is at least a step of each.
    """
    plans = plan_stages(config)
    current = next(plan for plan in plans if step - 1 in plan.steps)
    seconds = costs.validation * (config.total_steps - step) / config.validate_every
    for plan in plans:
        loss = plan.config.loss
        remaining = range(max(plan.steps.start, step), plan.steps.stop)
        joined = (
            0
            if loss.adversarial == "none"
            else len(range(max(remaining.start, loss.adversarial_start), plan.steps.stop))
        )
        with_d = 1.0 if has_d else _COST_WITH_D
        seconds += costs.step * (len(remaining) - joined + with_d * joined) * _pixels(plan) / _pixels(current)
    scale = max(costs.left - costs.validation, 0.0) / seconds  # the last validation comes after the last step

    def moved(at: int) -> int:
        return at if at <= step else step + max(round((at - step) * scale), 1)

    starts, before = [], 0
    for stage in config.stages:
        before = max(moved(stage.start), before + 1)
        starts.append(before)
    steps = {
        "total_steps": max(moved(config.total_steps), before + 1),
        "adversarial_start": moved(config.loss.adversarial_start),
        "stages": [
            {"start": start, "adversarial_start": _moved_or_none(moved, stage.loss.get("adversarial_start"))}
            for start, stage in zip(starts, config.stages)
        ],
    }
    return _with_steps(config, steps)


def _moved_or_none(moved: Callable[[int], int], at: int | None) -> int | None:
    return None if at is None else moved(at)


def _pixels(plan: StagePlan) -> int:
    return plan.config.data.batch * plan.config.data.patch**2


def _end_of_part(config: TrainConfig, step: int) -> int:
    """The step at which steps will next cost something else, or the run ends."""
    at = [config.total_steps, config.loss.adversarial_start, *(stage.start for stage in config.stages)]
    return min(one for one in at if one > step)


def _steps_of(config: TrainConfig) -> dict[str, Any]:
    return {
        "total_steps": config.total_steps,
        "adversarial_start": config.loss.adversarial_start,
        "stages": [
            {"start": stage.start, "adversarial_start": stage.loss.get("adversarial_start")} for stage in config.stages
        ],
    }


def _with_steps(config: TrainConfig, steps: dict[str, Any]) -> TrainConfig:
    stages = []
    for stage, kept in zip(config.stages, steps["stages"]):
        start = {} if kept["adversarial_start"] is None else {"adversarial_start": kept["adversarial_start"]}
        stages.append(stage.model_copy(update={"start": kept["start"], "loss": {**stage.loss, **start}}))
    loss = config.loss.model_copy(update={"adversarial_start": steps["adversarial_start"]})
    return config.model_copy(update={"total_steps": steps["total_steps"], "loss": loss, "stages": tuple(stages)})


def _describe(before: TrainConfig, now: TrainConfig, step: int, costs: Costs) -> str:
    parts = [f"budget of {now.budget}: {now.total_steps} steps, at {costs.step:.3g} s each from step {step}"]
    if costs.validation:
        parts.append(f"{costs.validation:.2g} s per validation")
    if any(stage.start > step for stage in now.stages):
        parts.append(f"stages from {', '.join(str(stage.start) for stage in now.stages)}")
    if now.loss.adversarial != "none" and now.loss.adversarial_start > step:
        parts.append(f"D from {now.loss.adversarial_start}")
    return f"{'; '.join(parts)} (the config has {before.total_steps}); {format_duration(max(costs.left, 0))} left"
