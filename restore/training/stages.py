"""Running a config in stages. What a stage sets follows from the step alone, so a resume across stages is exact."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType

from restore.data.build import crop_plan
from restore.data.loader import BatchStream, Source
from restore.training.config import TrainConfig
from restore.training.cuda_graph import make_stepper
from restore.training.ema import Ema
from restore.training.setup import set_learning_rates, set_optimizer
from restore.training.step import StepContext
from restore.training.steps import Step
from restore.training.trainable_network import TrainableNetwork


@dataclass(frozen=True)
class StagePlan:
    """A stage of a run, or the whole run if it has none.

    Attributes:
        number: from 0, which is the config before the first stage.
        steps: those of the stage.
        config: the values in this stage; without stages.
        schedule: the steps over which its learning rate schedule runs.
    """

    number: int
    steps: range
    config: TrainConfig
    schedule: range


def plan_stages(config: TrainConfig) -> list[StagePlan]:
    """The stages of a config in order, from the one before the first of `stages`."""
    starts = [0, *(stage.start for stage in config.stages), config.total_steps]
    own_schedule = [0, *(stage.start for stage in config.stages if stage.optimizer), config.total_steps]
    plans = []
    for number, values in enumerate(config.stage_configs()):
        first = max(start for start in own_schedule[:-1] if start <= starts[number])
        last = min(start for start in own_schedule[1:] if start > starts[number])
        steps = range(starts[number], starts[number + 1])
        plans.append(StagePlan(number, steps, values, range(first, last)))
    return plans


def largest_patch(config: TrainConfig) -> int:
    """The largest patch of all stages. Images must be at least as large."""
    return max(values.data.patch for values in config.stage_configs())


@dataclass(frozen=True)
class RunningStage:
    """The parts of a run that depend on its stage.

    Attributes:
        plan: the stage.
        source: makes its batches.
        stream: the batches in order.
        context: what its steps share.
        make_step: does a step.
        images_at_a_time: of a batch, in this process.
    """

    plan: StagePlan
    source: Source
    stream: BatchStream
    context: StepContext
    make_step: Step
    images_at_a_time: int

    def set_learning_rates(self, g: TrainableNetwork, d: TrainableNetwork | None, step: int) -> None:
        """Set the rates of a step of this stage."""
        config, schedule = self.plan.config, self.plan.schedule
        from_init = config.init is not None and schedule.start == 0
        set_learning_rates(g, d, config.optimizer, step - schedule.start, len(schedule), from_init=from_init)


def parts_of(plan: StagePlan, source: Source, context: StepContext) -> tuple[Source, StepContext]:
    """The source and the context of a stage, from those of another one."""
    staged = copy.copy(source)
    staged.plan = crop_plan(plan.config.data)
    return staged, replace(context, loss=plan.config.loss)


class Stages:
    """Enters the stages of a run, one after the other. A context manager, because each stage has a stream of batches.

    Args:
        config: of the run.
        source: of the first stage.
        context: of the first stage.
        g: the generator.
        d: the discriminator, or None.
        ema: the average of the generator's weights.
        on_event: called with a line when a stage begins, and by what depends on it.
    """

    def __init__(
        self,
        config: TrainConfig,
        source: Source,
        context: StepContext,
        g: TrainableNetwork,
        d: TrainableNetwork | None,
        ema: Ema,
        on_event: Callable[[str], None],
    ) -> None:
        self._config, self._source, self._context, self._on_event = config, source, context, on_event
        self._ema = ema
        self._trained = (g, d)
        self._plans = plan_stages(config)
        self._running: RunningStage | None = None

    def __enter__(self) -> Stages:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def at(self, step: int, drawn: int) -> RunningStage:
        """The stage of a step.

        Args:
            step: from 0.
            drawn: how many batches the run has used before this step.
        """
        if self._running is None or step not in self._running.plan.steps:
            self._close()
            self._running = self._enter(next(plan for plan in self._plans if step in plan.steps), drawn)
            if self._config.stages:
                data = self._running.plan.config.data
                self._on_event(f"stage {self._running.plan.number} from step {step}: {data.batch} × {data.patch}²")
        return self._running

    def follow(self, config: TrainConfig) -> None:
        """Go on by a config that differs in the steps at which stages to come start, and in the last one."""
        self._config, self._plans = config, plan_stages(config)
        if self._running is not None:
            self._running = replace(self._running, plan=self._plans[self._running.plan.number])

    def _enter(self, plan: StagePlan, drawn: int) -> RunningStage:
        config, fabric = plan.config, self._context.fabric
        for network, is_discriminator in zip(self._trained, (False, True)):
            if network is not None:
                set_optimizer(network, config, is_discriminator=is_discriminator)
        self._ema.decay = config.ema
        source, context = parts_of(plan, self._source, self._context)
        share = config.data.batch // fabric.world_size
        stream = BatchStream(source, seed=config.seed, start=drawn, count=share, first=fabric.global_rank * share)
        g = self._trained[0]
        cuda_graph = config.cuda_graph and g is not None and g.is_recordable
        make_step = make_stepper(
            context, fabric.device, cuda_graph=cuda_graph, paused=stream.paused, on_event=self._on_event
        )
        return RunningStage(plan, source, stream, context, make_step, share // config.grad_accumulation)

    def _close(self) -> None:
        if self._running is not None:
            self._running.stream.close()
        self._running = None
