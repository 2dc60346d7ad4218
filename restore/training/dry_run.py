"""A look ahead (`restore train --dry-run`): what a config means, costs, and shows its networks. Nothing is trained."""

from __future__ import annotations

import contextlib
import math
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from torch import Tensor, nn

from restore.data.loader import Batch, BatchStream, Source
from restore.devices import is_out_of_memory, restored_cuda_flags
from restore.errors import RestoreError, printable
from restore.models import count_parameters
from restore.models.profiling import count_macs
from restore.training.config import TrainConfig
from restore.training.cuda_graph import Step, stepper
from restore.training.ema import Ema
from restore.training.run_dir import resolved
from restore.training.setup import (
    build_networks,
    make_player,
    open_data,
    open_fabric,
    open_perceptual,
    set_rates,
    settle_precision,
)
from restore.training.step import StepContext, TrainableNetwork, shown_to_discriminator, train_step
from restore.training.validation import open_exam, save_grid

# Steps that are made to be measured, and what is said where a batch does not fit.


MEASURED_SECONDS = 2.0
_MOST_STEPS, _LEAST_STEPS = 100, 2
_WARM_UP_STEPS = 20  # on a GPU: past the steps that are made one by one, and the recording


@dataclass
class StepBenchmark:
    """Steps of a run that are made to be measured, and forgotten.

    Attributes:
        config, source, rules, g, d, ema: of the run; networks and optimizers are changed.
        part: how many images are held at a time.
    """

    config: TrainConfig
    source: Source
    rules: StepContext
    g: TrainableNetwork
    d: TrainableNetwork | None
    ema: Ema
    part: int

    def step(self, step: int, d: TrainableNetwork | None, batch: Batch, make_step: Step | None = None) -> None:
        """One step as the loop makes it; by `train_step` where nothing else is given."""
        config = self.config
        batches = batch.parts(config.grad_accumulation)
        set_rates(self.g, d, config.optimizer, step, config.total_steps, fresh=config.init is not None)
        penalise = step % config.loss.r1_interval == 0
        (make_step or train_step)(self.g, d, batches, self.rules, d_steps=config.discriminator.steps, penalise=penalise)
        self.ema.update(self.g.network, step)

    def seconds(self, d: TrainableNetwork | None) -> float:
        """The time of one step, after some that warm up caches, allocators and compilers."""
        count, device = self.part * self.config.grad_accumulation, self.source.store.device
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
                self.step(0, self.d, self.source.batch(self.config.seed, 0, part * self.config.grad_accumulation))
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
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
            if not is_out_of_memory(error):
                raise
            _let_go(error)
            cause = error
        for player in (self.g, self.d):
            if player is not None:
                player.optimizer.zero_grad(set_to_none=True)
        # Several processes run out one by one: a step of one alone would wait for the others.
        alone = self.rules.fabric.world_size == 1
        fits, side = self.largest() if alone else 0, self.config.data.patch
        tried = self.part * self.config.grad_accumulation
        parts = next((n for n in range(-(-tried // max(fits, 1)), tried) if tried % n == 0), tried)
        hint = f"{fits} at a time would: set grad_accumulation={parts}, or a smaller data.batch"
        if not fits:
            hint = "not even one image does: set a smaller data.patch" if alone else "set a larger grad_accumulation"
        raise RestoreError(
            f"a batch of {self.part} × {side}² does not fit on {self.rules.fabric.device}",
            where=f"data.batch = {self.config.data.batch}, data.patch = {side}",
            hint=hint,
            exit_code=exit_code,
        ) from cause


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


_SHOWN = 16


@dataclass(frozen=True)
class Preview:
    """What a run would be.

    Attributes:
        config: the resolved config as YAML, every default written out.
        facts: lines on networks, data, memory and time.
        picture: the PNG with a batch: damaged | mask | clean, one image a row.
        seconds: estimate of the whole run.
    """

    config: str
    facts: list[str]
    picture: Path
    seconds: float

    def text(self) -> str:
        """The config, with the facts as comments below it: all of it is a config that can be trained."""
        return self.config + "".join(f"# {line}\n" for line in self.facts)


@restored_cuda_flags()
def preview(config: TrainConfig, on_event: Callable[[str], None] = lambda line: None) -> Preview:
    """Build everything that training builds, make a few steps on the device, and forget them.

    Args:
        config: with `out` settled; `out/dry_run.png` is all that is written.
        say: told what is left out, and why.

    Returns:
        The resolved config, and what was found. Memory and time are estimates, from steps at this batch and patch.

    Raises:
        RestoreError: as `train`; or the batch does not fit (what would fit is named).
    """
    assert config.out is not None
    processes = config.devices * config.nodes
    alone = config.model_copy(update={"devices": 1, "nodes": 1})
    fabric = open_fabric(alone)
    device = fabric.device
    precision = settle_precision(config, device)
    generator, discriminator = build_networks(config)
    source, validation = open_data(config, generator, device, on_event)
    exam = open_exam(config, precision, device, on_event)
    perceptual = open_perceptual(config, device)
    augment = config.discriminator.augment
    rules = StepContext(fabric, config.loss, precision, generator.takes_mask, augment, perceptual, config.task)
    g = make_player(generator, fabric, alone, precision, is_discriminator=False)
    d = None if discriminator is None else make_player(discriminator, fabric, alone, precision, is_discriminator=True)

    share = config.data.batch // processes
    first = source.batch(config.seed, 0, min(share, _SHOWN))
    picture = config.out / "dry_run.png"
    _make_folder(config.out)
    _draw(first, picture)

    one = Batch(first.damaged[:1], first.mask[:1], first.clean[:1], first.keys[:1])
    side = config.data.patch
    told = one.mask if rules.with_mask else None
    facts = [_network_line("G", config.model.builder, generator, lambda: generator(one.damaged, told), side)]
    if discriminator is not None:
        seen = shown_to_discriminator(one, one.clean, rules)
        facts.append(_network_line("D", config.discriminator.builder, discriminator, lambda: discriminator(seen), side))
    where = f"{device}, {precision}" + (f" (one of {processes} processes)" if processes > 1 else "")
    facts.append(
        f"data: {len(source.store)} pictures, {_megabytes(source.store.nbytes)}; {len(validation)} to validate on"
    )

    ema = Ema(generator, config.ema)
    trial = StepBenchmark(config, source, rules, g, d, ema, share // config.grad_accumulation)
    before, playing = _timed(trial, min(config.loss.adversarial_start, config.total_steps) if d else 0)
    started = time.perf_counter()
    exam.scores(ema.model, validation[:1], fabric)
    scored = (time.perf_counter() - started) * len(validation)

    alone_steps = min(config.loss.adversarial_start, config.total_steps) if d else 0
    validations = math.ceil(config.total_steps / config.validate_every)
    seconds = alone_steps * before + (config.total_steps - alone_steps) * playing + validations * scored
    steps = f"{playing:.3g} s a step of {share} × {side}²" + (
        f" ({before:.3g} s before D joins)" if alone_steps else ""
    )
    facts += [
        f"measured on {where}: {steps}, {scored:.3g} s a validation",
        f"memory, about: {_peak_memory(device)}",
        f"time, about: {duration(seconds)} for {config.total_steps} steps and {validations} validations, "
        "if the machine stays as busy as it is now",
        f"a batch, damaged | mask | clean: {printable(picture)}",
    ]
    text = yaml.safe_dump(resolved(config), sort_keys=False, allow_unicode=True)
    return Preview(text, facts, picture, seconds)


def duration(seconds: float) -> str:
    """Seconds in words that fit their size: 40 s, 12 min, 3 h 20 min, 2 d 5 h."""
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 90:
        return f"{minutes} min"
    if hours < 48:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{hours // 24} d {hours % 24} h"


def _timed(trial: StepBenchmark, steps_alone: int) -> tuple[float, float]:
    """Seconds of a step before D joins (0 where it plays at once), and of one with D."""
    with trial.fits(exit_code=2):
        return (trial.seconds(None) if steps_alone else 0.0), trial.seconds(trial.d)


def _network_line(name: str, builder: str, network: nn.Module, forward: Callable[[], Tensor], side: int) -> str:
    training = network.training
    network.eval()
    macs = count_macs(forward)
    network.train(training)
    return f"{name}: {builder}, {count_parameters(network) / 1e6:.2f} M parameters, {macs / 1e9:.2f} GMACs at {side}²"


def _draw(batch: Batch, path: Path) -> None:
    shape = (-1, 3, -1, -1)
    columns = zip(batch.damaged.split(1), batch.mask.expand(*shape).split(1), batch.clean.split(1))
    save_grid(path, [list(row) for row in columns])


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RestoreError(f"cannot be written: {error.strerror}", where=path) from error


def _peak_memory(device: torch.device) -> str:
    """The most that was held until now: on the GPU by tensors, on the CPU by the whole process."""
    if device.type == "cuda":
        return f"{_megabytes(torch.cuda.max_memory_reserved(device))} on the GPU"
    try:
        import resource
    except ImportError:  # Windows
        return "not known on this system"
    unit = 1 if sys.platform == "darwin" else 1024
    return _megabytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def _megabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
