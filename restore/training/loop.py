"""The training loop."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from lightning_fabric import Fabric

from restore.checkpoints import save_weights
from restore.devices import restored_cuda_flags, restored_threads
from restore.errors import RestoreError
from restore.hashed_random import key
from restore.models.registry import count_parameters
from restore.training.budget import Budget, with_fitted_steps
from restore.training.collapse_monitor import CollapseMonitor
from restore.training.compute import choose_settings
from restore.training.config import TrainConfig
from restore.training.distributed import any_rank, mean_over_processes, on_rank_zero, sync_buffers
from restore.training.draws import draw, fresh_d_batches
from restore.training.dry_run import StepBenchmark
from restore.training.ema import Ema
from restore.training.process_failures import connected
from restore.training.resume import find_changes
from restore.training.run_dir import Follower, RunFolder, Savable
from restore.training.schedule_free import averaged_weights, counters
from restore.training.setup import (
    build_networks,
    describe,
    make_step_context,
    make_trainable,
    open_data,
    open_fabric,
    to_save,
    with_condition_channels,
)
from restore.training.stages import Stages
from restore.training.trackers import check_trackers
from restore.training.trainable_network import TrainableNetwork
from restore.training.validation import is_better, open_validator, save_grid

_GRID_IMAGES = 6  # validation images in samples/
_DROPOUT = 4  # first part of a key, different from those of images
_STOP_CHECK_STEPS = 10  # between checks whether any process was asked to stop; a check makes all processes wait


@dataclass
class TrainCallbacks:
    """Called during a run.

    Attributes:
        on_event: with a line for each event, such as a resume or an early stop.
        logged: with step, total steps and values, at every log line.
        validated: with step, scores, and whether they are the best so far.
    """

    on_event: Callable[[str], None] = lambda line: None
    logged: Callable[[int, int, dict[str, float]], None] = lambda step, total, values: None
    validated: Callable[[int, dict[str, float], bool], None] = lambda step, scores, best: None


@dataclass
class Result:
    """How a run ended.

    Attributes:
        out: its folder.
        step: the last step.
        finished: all steps were done, or `early_stop` ended the run. Otherwise a signal stopped it; the state is saved.
        best: step and scores of `best.safetensors`.
        leads: this is the process that writes files and calls the callbacks.
    """

    out: Path
    step: int
    finished: bool
    best: dict[str, float] = field(default_factory=dict)
    leads: bool = True


@restored_cuda_flags()
@restored_threads()
def train(config: TrainConfig, callbacks: TrainCallbacks | None = None, *, began: float | None = None) -> Result:
    """Start a run, or resume it from the state in its folder.

    Args:
        config: `out` must be set (see `load_train_config`).
        callbacks: called during the run, in the process that leads.
        began: when the time of `config.budget` began to run, by `time.perf_counter`. None: now.

    Returns:
        How the run ended. `best.safetensors` and `last/` are in `config.out`.

    Raises:
        RestoreError: invalid data or settings (exit code 2), a batch that does not fit in memory or a full disk (1),
            training diverged (3), or another process of the run was lost (4).
    """
    began = time.perf_counter() if began is None else began
    config = with_fitted_steps(with_condition_channels(config))
    assert config.out is not None
    find_changes(config.out, config)  # refuses another run's folder before anything is read
    check_trackers(config)
    fabric = open_fabric(config)
    with connected(config, fabric):
        return _train(config, config.out, fabric, callbacks, began)


def _train(config: TrainConfig, out: Path, fabric: Fabric, callbacks: TrainCallbacks | None, began: float) -> Result:
    # Devices. With several processes, each runs all of this; rank 0 writes files and calls the callbacks.
    device, leads = fabric.device, fabric.is_global_zero
    callbacks = callbacks if callbacks is not None and leads else TrainCallbacks()

    # Networks, images, and the fixed validation set.
    generator, discriminator = build_networks(
        config, use_init=not RunFolder.has_state(out), on_event=callbacks.on_event
    )
    source, validation = open_data(config, generator, device, callbacks.on_event)
    compute = choose_settings(config, fabric, generator, callbacks.on_event)
    precision = compute.precision
    validator = open_validator(config, precision, device, callbacks.on_event, generator.scale)
    context = make_step_context(config, fabric, precision, generator)
    g = make_trainable(generator, fabric, config, compute, is_discriminator=False)
    d = None
    if discriminator is not None:
        d = make_trainable(discriminator, fabric, config, compute, is_discriminator=True)
    trained = [g] if d is None else [g, d]
    ema = Ema(generator, config.ema, from_trained=config.init is not None)

    with on_rank_zero(fabric, lambda: RunFolder(out)) or Follower(out) as run:
        # Resume from the state in the folder.
        changes = on_rank_zero(fabric, lambda: run.check(config, compute)) or []
        parts: dict[str, Savable] = {"g": g.network, "g_optimizer": g.optimizer, "g_scaler": g.scaler, "ema": ema.model}
        if g.kernels is not None:
            parts["g_kernels"] = g.kernels.optimizer
        if d is not None:
            parts |= {"d": d.network, "d_optimizer": d.optimizer, "d_scaler": d.scaler}
        facts = run.load(parts) or {"step": 0, "best": {}, "without_better": 0}
        start, best, without_better = int(facts["step"]), dict(facts["best"]), int(facts.get("without_better", 0))
        if fabric.broadcast(start) != start:
            raise RestoreError("not visible on every machine", where=out, hint="put out= on a shared disk")
        g.optimizer.param_groups[0].update(facts.get("counters", {}))
        run.truncate_log(start)
        on_rank_zero(fabric, lambda: run.open_trackers(config, start, callbacks.on_event))
        if start and changes:
            run.log({"step": start, "changed": {c.key: {"was": c.before, "is": c.now} for c in changes}})
        d_start = max(start, config.loss.adversarial_start)
        monitor = CollapseMonitor(config.collapse, config.loss.adversarial, out, discriminator, d_start)
        if "monitor" in facts:
            monitor.load(facts["monitor"], fabric)
        for network, counts in zip(trained, facts.get("skipped", ())):
            network.skipped.copy_(torch.tensor(counts))
        callbacks.on_event(
            f"{f'resumed at step {start}' if start else 'new run'} in {out}: "
            f"{count_parameters(generator) / 1e6:.2f} M parameters, {fabric.world_size} × {device.type}, {precision}"
        )
        if start:
            for change in changes:
                callbacks.on_event(f"changed at step {start}: {change}")

        drawn = int(facts.get("batches", start))  # states of earlier versions: every step used one batch
        budget = Budget(config, facts, fabric, began)
        stages = Stages(config, source, context, g, d, ema, callbacks.on_event)
        step, images, clock = start, 0, time.perf_counter()
        last = start >= config.total_steps or _should_stop_early(config, without_better)
        has_saved = start > 0

        def save_best() -> None:
            for name, (network, shown) in to_save(ema.model, validation).items():
                description = describe(config, network, shown, best)
                save_weights(run.path / name, network.state_dict(), description)

        if has_saved and best.get("step") == start:  # it may have been killed between this state and its best weights
            on_rank_zero(fabric, lambda: None if run.best.exists() else save_best())
        with _stop_requests() as stop_requested, stages:
            if not start:  # the scores of the initial weights, for comparison
                scores = validator.scores(ema.model, validation, fabric)
                budget.validated(time.perf_counter() - clock)
                run.log({"step": 0, **_validation_values(scores)})
                callbacks.validated(0, scores, False)
            while not last:
                # A step of D and G on this process's share of the batch (see step.py), and the average of the weights.
                torch.manual_seed(key(config.seed, _DROPOUT, step, fabric.global_rank))
                stage = stages.at(step, drawn)
                now = stage.plan.config
                stage.set_learning_rates(g, d, step)
                active_d = d if step >= now.loss.adversarial_start else None
                benchmark = StepBenchmark(now, stage.source, stage.context, g, d, ema, stage.images_at_a_time)
                with benchmark.explain_out_of_memory(exit_code=1):
                    batches, d_batches = draw(stage.stream.__next__, now.grad_accumulation, fresh_d_batches(now, step))
                    drawn += 1 + len(d_batches)
                    terms = stage.make_step(
                        g, active_d, batches, stage.context,
                        d_batches=d_batches, apply_r1=step % now.loss.r1_interval == 0,
                    )  # fmt: skip
                images += now.data.batch
                ema.update(g.network, step, averaged_weights(g.optimizer))
                if config.task != "detection":  # most masks are almost empty, so a detector's outputs may be alike
                    monitor.add_thumbnails(terms.pop("output_thumbnail"), terms.pop("clean_thumbnail"))
                step += 1

                fitted = budget.after_step(config, step, stage.plan.number, active_d is not None, callbacks.on_event)
                if fitted is not None:
                    config = fitted
                    stages.follow(config)
                    on_rank_zero(fabric, partial(run.write_config, config))
                last = step == config.total_steps
                check_stop = fabric.world_size == 1 or step % _STOP_CHECK_STEPS == 0 or last
                stopping = check_stop and any_rank(fabric, stop_requested.is_set())
                to_validate = step % config.validate_every == 0 or last
                if step % config.log_every == 0 or to_validate:
                    terms |= monitor.diversity() | ({} if active_d is None else monitor.d_growth(step))
                    values = mean_over_processes(fabric, terms | _skipped_steps(trained))
                    monitor.check(step, values, int(values.pop("skipped_in_a_row")))
                    values["lr"] = g.optimizer.param_groups[0]["rate"]
                    seconds = time.perf_counter() - clock
                    values["images_per_second"] = images / seconds
                    run.log({"step": step, **{k: v for k, v in values.items() if math.isfinite(v)}})
                    callbacks.logged(step, config.total_steps, values)
                if to_validate:
                    pause = time.perf_counter()
                    sync_buffers(fabric, g.network, ema.model)
                    scores = validator.scores(ema.model, validation, fabric)
                    is_best = is_better(scores, best, config.best_by)
                    without_better = 0 if is_best else without_better + 1
                    if is_best:
                        best = {"step": step, **scores}
                    replace_best = is_best and has_saved

                    def write(
                        step: int = step, scores: dict[str, float] = scores, replace: bool = replace_best
                    ) -> None:
                        rows = [validator.row(ema.model, batch) for batch in validation[:_GRID_IMAGES]]
                        save_grid(run.path / "samples" / f"step_{step:07d}.png", rows)
                        if replace:
                            save_best()
                        run.log({"step": step, **_validation_values(scores)})
                        run.draw_curves()

                    on_rank_zero(fabric, write)
                    callbacks.validated(step, scores, is_best)
                    pause = time.perf_counter() - pause
                    clock += pause
                    budget.validated(pause)
                    if _should_stop_early(config, without_better) and not last:
                        callbacks.on_event(f"stopped early: no better {config.best_by} in {without_better} validations")
                        last = True
                # The state comes first: best.safetensors must not exist without one of the run that it belongs to.
                first_best = bool(best) and not has_saved
                # While steps are skipped, the previous state is the better one, except at the end.
                due = step % config.save_every == 0 and all(network.skipped[1] == 0 for network in trained)
                if last or stopping or first_best or due or fitted is not None:
                    sync_buffers(fabric, ema.model, *(network.network for network in trained))
                    facts = {
                        "step": step,
                        "batches": drawn,
                        "counters": counters(g.optimizer),
                        "best": best,
                        "budget": budget.state(config),
                        "without_better": without_better,
                        "monitor": monitor.state(fabric),
                        "skipped": [network.skipped.tolist() for network in trained],
                        "pictures": source.fingerprint,  # the key of states that exist already
                        "damage_files": None if source.damage is None else source.damage.fingerprint,
                    }
                    on_rank_zero(fabric, partial(run.save, parts, facts))
                    has_saved = True
                if first_best:
                    on_rank_zero(fabric, save_best)
                if stopping:
                    break
        return Result(run.path, step, last, best, leads)


def _skipped_steps(trained: list[TrainableNetwork]) -> dict[str, torch.Tensor]:
    """Number of skipped steps, in total and since the last that was not, of the network with the most."""
    most = torch.stack([network.skipped for network in trained]).amax(dim=0)
    return {"skipped": most[0], "skipped_in_a_row": most[1]}


def _validation_values(scores: dict[str, float]) -> dict[str, float]:
    """Scores under the names that they have in `metrics.jsonl`."""
    return {f"validation_{name}": value for name, value in scores.items() if math.isfinite(value)}


def _should_stop_early(config: TrainConfig, without_better: int) -> bool:
    return config.early_stop is not None and without_better >= config.early_stop


@contextmanager
def _stop_requests() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set. The run then finishes its step, saves its state, and stops."""
    requested = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only the main thread may handle signals
        yield requested
        return

    def request(signum: int, frame: object) -> None:
        if requested.is_set():  # a second Ctrl-C stops at once
            raise KeyboardInterrupt
        requested.set()

    before = {s: signal.signal(s, request) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield requested
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)
