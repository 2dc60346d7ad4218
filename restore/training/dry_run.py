"""The dry run (`restore train --dry-run`): the networks, memory and time of a config, without training."""

from __future__ import annotations

import contextlib
import math
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import yaml
from lightning_fabric import Fabric
from torch import Tensor, nn

from restore.data.build import format_bytes
from restore.data.layout import as_rgb
from restore.data.loader import Batch, BatchStream, Source, in_srgb
from restore.devices import is_out_of_memory, restored_cuda_flags, restored_threads
from restore.errors import RestoreError, printable
from restore.files import check_writable, make_folder
from restore.models.profiling import count_macs
from restore.models.registry import count_parameters
from restore.training.compute import ComputeSettings, choose_settings
from restore.training.config import TrainConfig
from restore.training.cuda_graph import make_stepper
from restore.training.draws import draw, fresh_d_batches
from restore.training.ema import Ema
from restore.training.lr_finder import rising_rates
from restore.training.resume import resolved
from restore.training.setup import (
    build_networks,
    make_step_context,
    make_trainable,
    open_data,
    open_fabric,
    set_learning_rates,
    with_condition_channels,
)
from restore.training.stages import StagePlan, parts_of, plan_stages
from restore.training.step import StepContext, discriminator_input, generator_input, labels_of
from restore.training.steps import STEPS, Step
from restore.training.trackers import check_trackers
from restore.training.trainable_network import TrainableNetwork
from restore.training.validation import open_validator, save_grid

_SHOWN_IMAGES = 16


@dataclass(frozen=True)
class Preview:
    """The result of a dry run.

    Attributes:
        config: the resolved config as YAML, with every default.
        facts: lines on networks, data, memory and time.
        image: a PNG of a batch: damaged | mask | clean, one image per row.
        seconds: estimated time of the whole run.
    """

    config: str
    facts: list[str]
    image: Path
    seconds: float

    def text(self) -> str:
        """The config, followed by the facts as comments. It is a valid config file."""
        return self.config + "".join(f"# {line}\n" for line in self.facts)


@restored_cuda_flags()
@restored_threads()
def preview(
    config: TrainConfig, on_event: Callable[[str], None] = lambda line: None, *, lr_finder: bool = False
) -> Preview:
    """Build everything that training builds, do a few steps on the device, and discard them.

    Args:
        config: `out` must be set; only `out/dry_run.png` is written, and with `lr_finder` `out/lr_finder.png`.
        on_event: called with a line for each image or score that is left out.
        lr_finder: also train G alone for up to 100 steps at rising learning rates, and suggest one.

    Returns:
        The resolved config and the results. Memory and time are estimates, from steps with this batch and patch.

    Raises:
        RestoreError: as `train`; or the batch does not fit in memory (the message names a size that does).
    """
    config = with_condition_channels(config)
    assert config.out is not None
    if lr_finder and config.task == "generation":
        raise RestoreError("G alone has no loss with task: generation", where="--lr-finder", hint="leave it out")
    processes = config.devices * config.nodes
    alone = config.model_copy(update={"devices": 1, "nodes": 1})
    check_trackers(config)
    fabric = open_fabric(alone)
    device = fabric.device
    generator, discriminator = build_networks(config, on_event=on_event)
    compute = choose_settings(alone, fabric, generator, on_event)
    precision = compute.precision
    source, validation = open_data(config, generator, device, on_event)
    validator = open_validator(config, precision, device, on_event, generator.scale)
    context = make_step_context(config, fabric, precision, generator)
    g = make_trainable(generator, fabric, alone, compute, is_discriminator=False)
    d = None
    if discriminator is not None:
        d = make_trainable(discriminator, fabric, alone, compute, is_discriminator=True)

    share = config.data.batch // processes
    batch = source.batch(config.seed, 0, min(share, _SHOWN_IMAGES))
    image = config.out / "dry_run.png"
    check_writable(config.out)
    make_folder(config.out)
    _save_batch(in_srgb(batch) if config.data.is_linear else batch, image)

    one = batch.map(lambda tensor: tensor[:1])
    side = one.seen.shape[-1]
    g_input = generator_input(generator, one, context)
    facts = [_network_line("G", config.model.builder, generator, lambda: generator(*g_input), side)]
    if discriminator is not None:
        d_input = discriminator_input(one, one.clean, context)
        labels = [labels_of(one)] if context.task == "generation" else []
        builder = config.discriminator.builder
        facts.append(
            _network_line("D", builder, discriminator, lambda: discriminator(d_input, *labels), d_input.shape[-1])
        )
    cached = format_bytes(sum(store.nbytes for store in source.stores))
    count = " and ".join(str(len(store)) for store in source.stores)
    at_most = "at most " if source.store.threads else ""  # files that were not read yet may be unusable
    facts.append(f"data: {at_most}{count} images, {cached} cached; {len(validation)} for validation")

    ema = Ema(generator, config.ema)
    plans = plan_stages(config)
    costs = [_stage_cost(plan, source, context, g, d, ema, processes) for plan in plans]
    started = time.perf_counter()
    validator.scores(ema.model, validation[:1], fabric)
    validation_seconds = (time.perf_counter() - started) * len(validation)

    validations = math.ceil(config.total_steps / config.validate_every)
    seconds = sum(cost for cost, _ in costs) + validations * validation_seconds
    where = f"{device}, {precision}" + (f" (one of {processes} processes)" if processes > 1 else "")
    stages = [f"stage {p.number}, from step {p.steps.start}: {line}" for p, (_, line) in zip(plans, costs)]
    facts += [
        f"measured on {where}: {costs[0][1]}, {validation_seconds:.3g} s per validation",
        *stages[1:],
        f"memory, about: {_peak_memory(device)}",
        f"time, about: {format_duration(seconds)} for {config.total_steps} steps and {validations} validations, "
        "with the current load of the machine",
        f"a batch, damaged | mask | clean: {printable(image)}",
    ]
    if config.budget_seconds is not None:
        about = round(config.total_steps * config.budget_seconds / seconds)
        facts.append(f"budget of {config.budget}: about {about} steps")
    if lr_finder:
        facts.append(_find_rate(config, source, context, fabric, compute))
    text = yaml.safe_dump(resolved(config), sort_keys=False, allow_unicode=True)
    return Preview(text, facts, image, seconds)


def _stage_cost(
    plan: StagePlan,
    source: Source,
    context: StepContext,
    g: TrainableNetwork,
    d: TrainableNetwork | None,
    ema: Ema,
    processes: int,
) -> tuple[float, str]:
    """Seconds of all steps of a stage, and a line about one of them."""
    now = plan.config
    share = now.data.batch // processes
    staged, its_context = parts_of(plan, source, context)
    benchmark = StepBenchmark(now, staged, its_context, g, d, ema, share // now.grad_accumulation)
    steps_without_d = len(range(plan.steps.start, min(plan.steps.stop, now.loss.adversarial_start))) if d else 0
    with benchmark.explain_out_of_memory(exit_code=2):
        seconds_without_d = benchmark.seconds(None) if steps_without_d else 0.0
        seconds_with_d = benchmark.seconds(d)
    seconds = steps_without_d * seconds_without_d + (len(plan.steps) - steps_without_d) * seconds_with_d
    before_d = f" ({seconds_without_d:.3g} s before D joins)" if steps_without_d else ""
    return seconds, f"{seconds_with_d:.3g} s per step of {share} × {now.data.patch}²{before_d}"


def _find_rate(
    config: TrainConfig, source: Source, context: StepContext, fabric: Fabric, compute: ComputeSettings
) -> str:
    """A line about the learning rates at which the loss of G alone falls; the curve is drawn into the run's folder."""
    assert config.out is not None
    generator, _ = build_networks(config)  # the measured steps have changed the other one
    g = make_trainable(generator, fabric, config, compute, is_discriminator=False)
    with BatchStream(source, seed=config.seed, start=0, count=config.data.batch) as stream:
        found = rising_rates(g, stream.__next__, config.grad_accumulation, context)
    curve = config.out / "lr_finder.png"
    found.draw(curve)
    if found.suggestion is None:
        return f"learning rate: the loss of G does not fall within {len(found.rates)} steps: {printable(curve)}"
    lowest = found.rates[found.losses.index(min(found.losses))]
    return (
        f"learning rate, for G alone: the loss falls most steeply at {found.suggestion:.1e} and is lowest at "
        f"{lowest:.1e} (optimizer.lr is {config.optimizer.lr:g}): {printable(curve)}"
    )


def format_duration(seconds: float) -> str:
    """A duration in units that suit it: 40 s, 12 min, 3 h 20 min, 2 d 5 h."""
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 90:
        return f"{minutes} min"
    if hours < 48:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{hours // 24} d {hours % 24} h"


def _network_line(name: str, builder: str, network: nn.Module, forward: Callable[[], Tensor], side: int) -> str:
    training = network.training
    network.eval()
    macs = count_macs(forward)
    network.train(training)
    return f"{name}: {builder}, {count_parameters(network) / 1e6:.2f} M parameters, {macs / 1e9:.2f} GMACs at {side}²"


def _save_batch(batch: Batch, path: Path) -> None:
    columns = [as_rgb(image) for image in (batch.damaged, batch.mask, batch.clean)]
    save_grid(path, [[column[i : i + 1] for column in columns] for i in range(len(batch.keys))])


def _peak_memory(device: torch.device) -> str:
    """Peak memory until now: on a GPU of the tensors, on a CPU of the whole process."""
    if device.type == "cuda":
        return f"{format_bytes(torch.cuda.max_memory_reserved(device))} on the GPU"
    try:
        import resource
    except ImportError:  # Windows
        return "unknown on this system"
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return format_bytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


# Steps for measurements, here and when a run is out of memory

MEASURED_SECONDS = 2.0
_MAX_STEPS, _MIN_STEPS = 100, 2
_WARM_UP_STEPS = 20  # on a GPU: until the steps are recorded as a CUDA graph and replayed


@dataclass
class StepBenchmark:
    """Measures the time and memory of steps. It changes the networks and optimizers.

    Attributes:
        config, source, context, g, d, ema: of the run.
        part: images that are held in memory at a time.
    """

    config: TrainConfig
    source: Source
    context: StepContext
    g: TrainableNetwork
    d: TrainableNetwork | None
    ema: Ema
    part: int

    def step(
        self, step: int, d: TrainableNetwork | None, next_batch: Callable[[], Batch], make_step: Step | None = None
    ) -> None:
        """Do one step as the training loop does, by the task's own step if `make_step` is None."""
        config = self.config
        updates = 0 if d is None else fresh_d_batches(config, config.loss.adversarial_start)
        batches, d_batches = draw(next_batch, config.grad_accumulation, updates)
        set_learning_rates(self.g, d, config.optimizer, step, config.total_steps, from_init=config.init is not None)
        apply_r1 = step % config.loss.r1_interval == 0
        step_function = make_step or STEPS[self.context.task]
        step_function(self.g, d, batches, self.context, d_batches=d_batches, apply_r1=apply_r1)
        self.ema.update(self.g.network, step)

    def seconds(self, d: TrainableNetwork | None) -> float:
        """Measure the time of a step, after a warm-up of caches, allocators and compilers."""
        count, device = self.part * self.config.grad_accumulation, self.source.store.device
        with BatchStream(self.source, seed=self.config.seed, start=0, count=count) as stream:
            cuda_graph = self.config.cuda_graph and self.g.is_recordable
            make_step = make_stepper(self.context, device, cuda_graph=cuda_graph, paused=stream.paused)
            warm_up = _WARM_UP_STEPS if device.type == "cuda" else 1
            for step in range(warm_up):
                self.step(step, d, stream.__next__, make_step)
            synchronize(device)
            done, start = 0, time.perf_counter()
            while done < _MIN_STEPS or (done < _MAX_STEPS and time.perf_counter() - start < MEASURED_SECONDS):
                self.step(warm_up + done, d, stream.__next__, make_step)
                done += 1
                synchronize(device)
            return (time.perf_counter() - start) / done

    def largest_part(self) -> int:
        """The largest number of images at a time that fits in memory, by halving; 0 if a single image does not."""
        part = self.part // 2
        while part:
            count = part * self.config.grad_accumulation
            try:
                self.step(0, self.d, partial(self.source.batch, self.config.seed, 0, count))
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                _release_tensors(error)
                part //= 2
            else:
                return part
        return 0

    @contextlib.contextmanager
    def explain_out_of_memory(self, exit_code: int) -> Iterator[None]:
        """If the block runs out of memory, find out which batch fits.

        Args:
            exit_code: of the error.

        Raises:
            RestoreError: the block ran out of memory. It names batch and patch, and how many images at a time fit.
        """
        try:
            yield
            return
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            _release_tensors(error)
            cause = error
        for network in (self.g, self.d):
            if network is not None:
                network.network.zero_grad(set_to_none=True)
        # With several processes, only one may be out of memory. A step of that one alone would wait for the others.
        alone = self.context.fabric.world_size == 1
        fits, side = self.largest_part() if alone else 0, self.config.data.patch
        tried = self.part * self.config.grad_accumulation
        parts = next((n for n in range(-(-tried // max(fits, 1)), tried) if tried % n == 0), tried)
        hint = f"{fits} at a time would fit: set grad_accumulation={parts}, or lower data.batch"
        if not fits:
            hint = "a single image does not fit either: lower data.patch" if alone else "raise grad_accumulation"
        raise RestoreError(
            f"out of memory: a batch of {self.part} × {side}² does not fit on {self.context.fabric.device}",
            where=f"data.batch = {self.config.data.batch}, data.patch = {side}",
            hint=hint,
            exit_code=exit_code,
        ) from cause


def _release_tensors(error: BaseException) -> None:
    """Release the tensors of failed calls: the error holds their frames, and these hold the tensors."""
    traceback.clear_frames(error.__traceback__)
    error.__traceback__ = None


def synchronize(device: torch.device) -> None:
    """Wait until the device is idle."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
