"""Steps that are made to be measured, and what is said where a batch does not fit."""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from restore.datasets.batch import Batch, Source
from restore.datasets.stream import BatchStream
from restore.errors import RestoreError
from restore.train.config import TrainConfig
from restore.train.ema import Ema
from restore.train.graph import Step, stepper
from restore.train.setup import set_rates
from restore.train.step import Player, Rules, train_step

MEASURED_SECONDS = 2.0
_MOST_STEPS, _LEAST_STEPS = 100, 2
_WARM_UP_STEPS = 20  # on a GPU: past the steps that are made one by one, and the recording


@dataclass
class Trial:
    """Steps of a run that are made to be measured, and forgotten.

    Attributes:
        config, source, rules, g, d, ema: of the run; networks and optimizers are changed.
        part: how many images are held at a time.
    """

    config: TrainConfig
    source: Source
    rules: Rules
    g: Player
    d: Player | None
    ema: Ema
    part: int

    def step(self, step: int, d: Player | None, batch: Batch, make_step: Step | None = None) -> None:
        """One step as the loop makes it; by `train_step` where nothing else is given."""
        config = self.config
        batches = batch.parts(config.accumulate)
        set_rates(self.g, d, config.optimizer, step, config.total_steps, fresh=config.init is not None)
        penalise = step % config.loss.r1_every == 0
        (make_step or train_step)(self.g, d, batches, self.rules, d_steps=config.discriminator.steps, penalise=penalise)
        self.ema.update(self.g.network, step)

    def seconds(self, d: Player | None) -> float:
        """The time of one step, after some that warm up caches, allocators and compilers."""
        count, device = self.part * self.config.accumulate, self.source.store.device
        with BatchStream(self.source, seed=self.config.seed, start=0, count=count) as stream:
            make_step = stepper(self.rules, device, wanted=self.config.cuda_graph, paused=stream.paused)
            warm_up = _WARM_UP_STEPS if device.type == "cuda" else 1
            for step in range(warm_up):
                self.step(step, d, next(stream), make_step)
            wait(device)
            made, start = 0, time.perf_counter()
            while made < _LEAST_STEPS or (made < _MOST_STEPS and time.perf_counter() - start < MEASURED_SECONDS):
                self.step(warm_up + made, d, next(stream), make_step)
                made += 1
                wait(device)
            return (time.perf_counter() - start) / made

    def largest(self) -> int:
        """How many images at a time do fit, by halving; 0 where not even one does."""
        part = self.part // 2
        while part:
            try:
                self.step(0, self.d, self.source.batch(self.config.seed, 0, part * self.config.accumulate))
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                _let_go(error)
                part //= 2
            else:
                return part
        return 0

    @contextlib.contextmanager
    def fits(self, exit_code: int) -> Iterator[None]:
        """Where the block runs out of memory, find out what would not.

        Args:
            exit_code: of the error.

        Raises:
            RestoreError: it did; batch and patch are named, and how many images at a time fit.
        """
        try:
            yield
            return
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            _let_go(error)
            cause = error
        for player in (self.g, self.d):
            if player is not None:
                player.optimizer.zero_grad(set_to_none=True)
        # Several processes run out one by one: a step of one alone would wait for the others.
        alone = self.rules.fabric.world_size == 1
        fits, side = self.largest() if alone else 0, self.config.data.patch
        tried = self.part * self.config.accumulate
        parts = next((n for n in range(-(-tried // max(fits, 1)), tried) if tried % n == 0), tried)
        hint = f"{fits} at a time would: set accumulate={parts}, or a smaller data.batch"
        if not fits:
            hint = "not even one image does: set a smaller data.patch" if alone else "set a larger accumulate"
        raise RestoreError(
            f"a batch of {self.part} × {side}² does not fit on {self.rules.fabric.device}",
            where=f"data.batch = {self.config.data.batch}, data.patch = {side}",
            hint=hint,
            exit_code=exit_code,
        ) from cause


def out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed; PyTorch has no class of its own for that on a CPU."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


def _let_go(error: BaseException) -> None:
    """Free what the failed calls hold: an error keeps their frames, and these keep the tensors."""
    traceback.clear_frames(error.__traceback__)
    error.__traceback__ = None


def wait(device: torch.device) -> None:
    """Until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
