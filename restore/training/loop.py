"""The training loop, from top to bottom."""

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

from restore.checkpoints import save_weights
from restore.data.loader import BatchStream
from restore.degradations import key
from restore.devices import restored_cuda_flags
from restore.errors import RestoreError
from restore.models import count_parameters
from restore.training.collapse_monitor import CollapseMonitor
from restore.training.config import TrainConfig
from restore.training.cuda_graph import stepper
from restore.training.distributed import any_rank, mean_over_processes, on_rank_zero, sync_buffers
from restore.training.dry_run import StepBenchmark
from restore.training.ema import Ema
from restore.training.run_dir import Follower, RunFolder, Savable
from restore.training.setup import (
    build_networks,
    describe,
    make_player,
    open_data,
    open_fabric,
    open_perceptual,
    set_rates,
    settle_precision,
)
from restore.training.step import StepContext, TrainableNetwork
from restore.training.validation import better, open_exam, save_grid

_SHOWN = 6  # validation pictures in a grid
_DROPOUT = 4  # what a key is for: apart from those of pictures
_ASK_EVERY = 10  # steps between two questions to all processes whether one was asked to stop


@dataclass
class TrainCallbacks:
    """Where a run tells what it does; the command line shows it, a script may ignore it."""

    on_event: Callable[[str], None] = lambda line: None
    logged: Callable[[int, int, dict[str, float]], None] = lambda step, total, values: None
    validated: Callable[[int, dict[str, float], bool], None] = lambda step, scores, best: None


@dataclass
class Result:
    """How a run ended.

    Attributes:
        out: its folder.
        step: the last one.
        finished: all steps were made, or `early_stop` ended it; otherwise a signal did, with the state saved.
        best: step and scores of `best.safetensors`.
        leads: this process is the one that writes and speaks.
    """

    out: Path
    step: int
    finished: bool
    best: dict[str, float] = field(default_factory=dict)
    leads: bool = True


@restored_cuda_flags()
def train(config: TrainConfig, report: TrainCallbacks | None = None) -> Result:
    """Run a training config to its end, from wherever its folder stands.

    Args:
        config: with `out` settled (see `load_train_config`).
        report: called as the run goes, in the process that leads.

    Returns:
        How it ended; `best.safetensors` and `last/` lie in `config.out`.

    Raises:
        RestoreError: wrong data or settings (exit code 2), a batch that does not fit or a full disk (1), training
            diverged (3).
    """
    assert config.out is not None
    out = config.out

    # The devices. With several, every process runs all of this; the first one writes and speaks.
    fabric = open_fabric(config)
    fabric.launch()
    device, leads = fabric.device, fabric.is_global_zero
    precision = settle_precision(config, device)
    report = report if report is not None and leads else TrainCallbacks()

    # The networks, the pictures, and the fixed validation set.
    generator, discriminator = build_networks(config, begins=not RunFolder.has_state(config.out))
    source, validation = open_data(config, generator, device, report.on_event)
    exam = open_exam(config, precision, device, report.on_event)
    perceptual = open_perceptual(config, device)
    augment = config.discriminator.augment
    rules = StepContext(fabric, config.loss, precision, generator.takes_mask, augment, perceptual, config.task)
    g = make_player(generator, fabric, config, precision, is_discriminator=False)
    d = None
    if discriminator is not None:
        d = make_player(discriminator, fabric, config, precision, is_discriminator=True)
    ema = Ema(generator, config.ema, from_trained=config.init is not None)

    with on_rank_zero(fabric, lambda: RunFolder(out)) or Follower(out) as run:
        # Where the folder stands.
        on_rank_zero(fabric, lambda: run.check(config))
        parts: dict[str, Savable] = {"g": g.network, "g_optimizer": g.optimizer, "g_scaler": g.scaler, "ema": ema.model}
        if d is not None:
            parts |= {"d": d.network, "d_optimizer": d.optimizer, "d_scaler": d.scaler}
        facts = run.load(parts) or {"step": 0, "best": {}, "without_better": 0}
        if facts.get("pictures", source.fingerprint) != source.fingerprint:
            raise RestoreError(
                "the training pictures are not those that this run began with",
                where=config.out,
                hint="choose another out=",
            )
        start, best, without_better = int(facts["step"]), dict(facts["best"]), int(facts.get("without_better", 0))
        if fabric.broadcast(start) != start:
            raise RestoreError("not every machine sees this run's state", where=out, hint="put out= on a shared disk")
        run.forget_after(start)
        begins = max(start, config.loss.adversarial_start)
        watch = CollapseMonitor(config.collapse, config.loss.adversarial, out, discriminator, begins)
        report.on_event(
            f"{'resumed at step ' + str(start) if start else 'new run'} in {config.out}: "
            f"{count_parameters(generator) / 1e6:.2f} M parameters, {fabric.world_size} × {device.type}, {precision}"
        )

        share = config.data.batch // fabric.world_size
        stream = BatchStream(source, seed=config.seed, start=start, count=share, first=fabric.global_rank * share)
        make_step = stepper(rules, device, wanted=config.cuda_graph, paused=stream.paused, on_event=report.on_event)
        step, clock, timed_from = start, time.perf_counter(), start
        last = start >= config.total_steps or should_stop_early(config, without_better)
        trial = StepBenchmark(config, source, rules, g, d, ema, share // config.grad_accumulation)
        with stop_requests() as stop_requested, stream:
            if not start:  # what there is to improve upon
                scores = exam.scores(ema.model, validation, fabric)
                run.log({"step": 0, **validation_line(scores)})
                report.validated(0, scores, False)
            while not last:
                # D steps, then G (see step.py), on this process's share of the images, in parts; the average follows.
                torch.manual_seed(key(config.seed, _DROPOUT, step, fabric.global_rank))
                set_rates(g, d, config.optimizer, step, config.total_steps, fresh=config.init is not None)
                adversary = d if step >= config.loss.adversarial_start else None
                with trial.fits(exit_code=1):
                    terms = make_step(
                        g, adversary, next(stream).parts(config.grad_accumulation), rules,
                        d_steps=config.discriminator.steps, penalise=step % config.loss.r1_interval == 0,
                    )  # fmt: skip
                ema.update(g.network, step)
                if config.task == "restoration":  # most masks are almost empty, and alike by right
                    watch.see(terms.pop("output_thumbnail"), terms.pop("clean_thumbnail"))
                step += 1

                last = step == config.total_steps
                ask = fabric.world_size == 1 or step % _ASK_EVERY == 0 or last
                stopping = ask and any_rank(fabric, stop_requested.is_set())
                to_validate = step % config.validate_every == 0 or last
                if step % config.log_every == 0 or to_validate:
                    terms |= watch.diversity() | ({} if adversary is None else watch.growth(step))
                    values = mean_over_processes(fabric, terms | skipped_steps(g, d))
                    watch.look(step, values, int(values.pop("skipped_in_a_row")))
                    values["lr"] = g.optimizer.param_groups[0]["rate"]
                    values["images_per_second"] = (
                        (step - timed_from) * config.data.batch / (time.perf_counter() - clock)
                    )
                    run.log({"step": step, **{k: v for k, v in values.items() if math.isfinite(v)}})
                    report.logged(step, config.total_steps, values)
                if to_validate:
                    pause = time.perf_counter()
                    sync_buffers(fabric, g.network, ema.model)
                    scores = exam.scores(ema.model, validation, fabric)
                    is_best = better(scores, best, config.best_by)
                    without_better = 0 if is_best else without_better + 1
                    if is_best:
                        best = {"step": step, **scores}

                    def show(step: int = step, scores: dict[str, float] = scores, is_best: bool = is_best) -> None:
                        rows = [exam.row(ema.model, batch) for batch in validation[:_SHOWN]]
                        save_grid(run.path / "samples" / f"step_{step:07d}.png", rows)
                        if is_best:
                            description = describe(config, ema.model, validation, scores)
                            save_weights(run.best, ema.model.state_dict(), description)
                        run.log({"step": step, **validation_line(scores)})
                        run.draw_curves()

                    on_rank_zero(fabric, show)
                    report.validated(step, scores, is_best)
                    clock += time.perf_counter() - pause
                    if should_stop_early(config, without_better) and not last:
                        report.on_event(
                            f"stopped early: {without_better} validations without a better {config.best_by}"
                        )
                        last = True
                # Best weights never lie in a folder without a state that they belong to.
                due = step % config.save_every == 0 or (bool(best) and not run.saved)
                # While steps are skipped, the state before is the good one, unless this is the end.
                if last or stopping or (due and all(p.skipped[1] == 0 for p in (g, d) if p is not None)):
                    sync_buffers(fabric, ema.model, *(player.network for player in (g, d) if player is not None))
                    facts = {
                        "step": step,
                        "best": best,
                        "without_better": without_better,
                        "pictures": source.fingerprint,
                    }
                    on_rank_zero(fabric, partial(run.save, parts, facts))
                if stopping:
                    break
        return Result(run.path, step, last, best, leads)


def skipped_steps(g: TrainableNetwork, d: TrainableNetwork | None) -> dict[str, torch.Tensor]:
    """How many steps did nothing, in all and in a row until now, of the network of which there were more."""
    most = torch.stack([player.skipped for player in (g, d) if player is not None]).amax(dim=0)
    return {"skipped": most[0], "skipped_in_a_row": most[1]}


def validation_line(scores: dict[str, float]) -> dict[str, float]:
    """What `metrics.jsonl` says of a validation."""
    return {f"validation_{name}": value for name, value in scores.items() if math.isfinite(value)}


def should_stop_early(config: TrainConfig, without_better: int) -> bool:
    """Whether `early_stop` ends the run."""
    return config.early_stop is not None and without_better >= config.early_stop


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set: the step in progress ends, the state is saved, then the run stops."""
    requested = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield requested
        return

    def request(signum: int, frame: object) -> None:
        if requested.is_set():  # a second Ctrl-C means: now
            raise KeyboardInterrupt
        requested.set()

    before = {s: signal.signal(s, request) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield requested
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)
