"""The training loop, from top to bottom."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from restore.checkpoints import Description, find_weights, load_strictly, read_weights, save_weights
from restore.datasets.batch import Batch, RealPairs, SyntheticPairs, validation_batches
from restore.datasets.folder import PictureFiles, PictureStore, read_pictures, split_files
from restore.datasets.pairs import match_folders, pair_reader, picture_reader, side_by_side_reader
from restore.datasets.sampler import CropPlan
from restore.degrade import Damage, damage_from, load_damage
from restore.devices import autocast, pick_device, pick_precision
from restore.errors import RestoreError
from restore.images import save_png
from restore.metrics import score_batch
from restore.metrics.perceptual import Lpips, open_lpips
from restore.models import build, count_parameters
from restore.models.overlap import measure_overlap_px
from restore.train.config import OptimizerConfig, TrainConfig
from restore.train.ema import Ema
from restore.train.run import RunFolder, Savable
from restore.train.step import Player, train_step


@dataclass
class Report:
    """Where a run tells what it does; the command line shows it, a script may ignore it."""

    say: Callable[[str], None] = lambda line: None
    logged: Callable[[int, int, dict[str, float]], None] = lambda step, total, values: None
    validated: Callable[[int, dict[str, float], bool], None] = lambda step, scores, best: None


@dataclass
class Result:
    """How a run ended: `finished`, or stopped by a signal (`interrupted`) with its state saved."""

    out: Path
    step: int
    finished: bool
    best: dict[str, float] = field(default_factory=dict)


def train(config: TrainConfig, report: Report | None = None) -> Result:
    """Run a training config to its end, from wherever its folder stands.

    Args:
        config: with `out` settled (see `load_train_config`).
        report: called as the run goes.

    Returns:
        How it ended; `best.safetensors` and `last/` lie in `config.out`.

    Raises:
        RestoreError: wrong data or settings (exit code 2), training diverged (3).
    """
    assert config.out is not None
    report = report or Report()
    device = pick_device(config.device)
    precision = pick_precision(config.precision, device)
    memory_format = torch.channels_last if device.type == "cuda" or precision == "bf16" else torch.contiguous_format
    torch.manual_seed(config.seed)

    # The networks. Only weights start from torch's generator; everything that a step draws hangs on its number.
    generator = build(config.model.builder, config.model.args, where="model")
    sees_mask = bool(getattr(generator, "mask", False))
    if config.init is not None:
        initialise(generator, config.init)
    plays = config.loss.adversarial != "none"
    channels = 7 if sees_mask else 6
    discriminator = (
        build(
            config.discriminator.builder,
            {"in_channels": channels, **config.discriminator.args},
            where="discriminator",
        )
        if plays
        else None
    )
    multiple = int(getattr(generator, "multiple", 1))
    if config.data.patch % multiple:
        raise RestoreError(f"must divide by {multiple} for this model", where=f"data.patch = {config.data.patch}")

    # The pictures, as uint8 on the device, and the fixed validation set.
    damage = open_damage(config)
    source, validation = open_data(config, damage, multiple, device, report.say)
    lpips = open_perceptual(config, device, report.say)

    # Optimizers, the running average, and the state of an earlier start.
    generator.to(device).to(memory_format=memory_format)
    ema = Ema(generator, config.ema)
    g = player(generator, config.optimizer, config.optimizer.lr, device, precision)
    d = None
    if discriminator is not None:
        discriminator.to(device).to(memory_format=memory_format)
        rate = config.optimizer.lr_discriminator or config.optimizer.lr
        d = player(discriminator, config.optimizer, rate, device, precision)
    run = RunFolder(config.out)
    try:
        run.check(config)
        parts: dict[str, Savable] = {"g": g.model, "g_optimizer": g.optimizer, "g_scaler": g.scaler, "ema": ema.model}
        if d is not None:
            parts |= {"d": d.model, "d_optimizer": d.optimizer, "d_scaler": d.scaler}
        facts = run.load(parts) or {"step": 0, "best": {}}
        start, best = int(facts["step"]), dict(facts["best"])
        run.forget_after(start)
        report.say(
            f"{'resumed at step ' + str(start) if start else 'new run'} in {config.out}: "
            f"{count_parameters(generator) / 1e6:.2f} M parameters, {len(source.store)} pictures, {device}, {precision}"
        )

        with stop_requests() as stop_requested:
            step, clock, timed_from = start, time.perf_counter(), start
            while step < config.total_steps:
                batch = source.batch(config.seed, step, config.data.batch)
                set_rates(g, d, config.optimizer, step, config.total_steps)
                playing = d if step >= config.loss.adversarial_start else None
                terms = train_step(
                    g, playing, batch,
                    loss=config.loss, optimizer=config.optimizer, precision=precision, with_mask=sees_mask,
                )  # fmt: skip
                ema.update(g.model, step)
                step += 1

                last = step == config.total_steps
                stopping = stop_requested.is_set()
                if step % config.log_every == 0 or last:
                    values = finite({name: float(value) for name, value in terms.items()}, step, run.path)
                    speed = (step - timed_from) * config.data.batch / (time.perf_counter() - clock)
                    values |= {"images_per_second": speed, "lr": g.optimizer.param_groups[0]["lr"]}
                    run.log({"step": step, **values})
                    report.logged(step, config.total_steps, values)
                if (step % config.validate_every == 0 and not stopping) or last:
                    pause = time.perf_counter()
                    scores = validate(
                        ema.model, validation, lpips, run.path / "samples" / f"step_{step:07d}.png", precision
                    )
                    is_best = better(scores, best, config.best_by)
                    if is_best:
                        best = {"step": step, **scores}
                        save_weights(
                            run.best,
                            ema.model.state_dict(),
                            describe(config, ema.model, sees_mask, validation),
                        )
                    run.log({"step": step, **{f"validation_{k}": v for k, v in scores.items()}})
                    report.validated(step, scores, is_best)
                    clock += time.perf_counter() - pause
                if step % config.save_every == 0 or last or stopping:
                    finite({name: float(value) for name, value in terms.items()}, step, run.path)
                    run.save(parts, {"step": step, "best": best})
                if stopping and not last:
                    return Result(run.path, step, finished=False, best=best)
        return Result(run.path, step, finished=True, best=best)
    finally:
        run.close()


def player(model: nn.Module, config: OptimizerConfig, rate: float, device: torch.device, precision: str) -> Player:
    """A network with AdamW (fused where the device has it) and a scaler that works only in fp16."""
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=rate,
        betas=config.betas,
        weight_decay=config.weight_decay,
        fused=device.type in ("cpu", "cuda"),
    )
    optimizer.param_groups[0]["full_rate"] = rate
    return Player(model, optimizer, torch.amp.GradScaler(device.type, enabled=precision == "fp16"))


def set_rates(g: Player, d: Player | None, config: OptimizerConfig, step: int, total: int) -> None:
    """The learning rates of a step: a function of its number, so there is no schedule to save."""
    factor = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    share = step / total
    if config.schedule == "cosine":
        factor *= 0.5 * (1 + math.cos(math.pi * share))
    elif config.schedule == "linear":
        factor *= min(1.0, 2 * (1 - share))
    for one in (g, d):
        if one is not None:
            for group in one.optimizer.param_groups:
                group["lr"] = group["full_rate"] * factor


def initialise(model: nn.Module, name_or_path: str) -> None:
    """Fill a new network from a model's name or a weights file."""
    path = find_weights(name_or_path)
    load_strictly(model, read_weights(path)[1], path)


def open_damage(config: TrainConfig) -> Damage | None:
    """The damage that a config names or spells out; None for real pairs."""
    if config.damage is None:
        return None
    return load_damage(config.damage) if isinstance(config.damage, str) else damage_from(config.damage, "damage")


def open_data(
    config: TrainConfig,
    damage: Damage | None,
    multiple: int,
    device: torch.device,
    say: Callable[[str], None],
) -> tuple[SyntheticPairs | RealPairs, list[Batch]]:
    """Read the pictures: the source of training batches, and the validation batches."""
    data = config.data
    if data.folders:
        folders, read = list(data.folders), picture_reader(data.resize)
    elif data.side_by_side is not None:
        folders, read = [data.side_by_side], side_by_side_reader(data.direction, data.resize)
    else:
        assert data.input is not None
        assert data.target is not None
        folders, read = [data.input], pair_reader(match_folders(data.input, data.target), data.resize)
    files: PictureFiles = split_files(folders, data.validation_percent)
    trained_on, pictures = read_pictures(files.training, read, on_error=data.on_error, report=say)
    names, held_out = read_pictures(files.validation[: data.validation_count], read, on_error=data.on_error, report=say)
    if not names:  # a handful of pictures: score on the training set rather than not at all, and say so
        names, held_out = trained_on[: data.validation_count], pictures[: data.validation_count]
        say("no picture fell to validation: scores are on training pictures (more pictures would help)")
    store = PictureStore(pictures, device)
    say(f"{len(store)} pictures to train on, {store.nbytes / 2**20:.0f} MB on {device}; {len(names)} to validate on")
    plan = CropPlan(data.patch, data.scale, data.flip, data.rotate)
    source = RealPairs(store, plan) if damage is None else SyntheticPairs(store, plan, damage)
    return source, validation_batches(names, held_out, data.validation_size, multiple, damage, device)


def open_perceptual(config: TrainConfig, device: torch.device, say: Callable[[str], None]) -> Lpips | None:
    """LPIPS for validation where its backbone can be had; otherwise None, and said (unless `best_by` rests on it)."""
    if config.lpips_net == "none":
        return None
    try:
        return open_lpips(config.lpips_net, weights=config.lpips_weights, device=device)
    except RestoreError as error:
        if config.best_by == "lpips" or config.lpips_weights is not None:
            raise
        say(f"validating without LPIPS: {error}")
        return None


@torch.inference_mode()
def validate(
    model: nn.Module, batches: list[Batch], lpips: Lpips | None, grid: Path, precision: str, shown: int = 6
) -> dict[str, float]:
    """Mean per-picture scores of the averaged weights, and a PNG of damaged | output | clean for the first pictures."""
    totals: dict[str, list[float]] = {}
    rows: list[list[Tensor]] = []
    for batch in batches:
        with autocast(batch.clean.device, precision):
            output = model(batch.damaged, batch.mask).float().clamp(0, 1)
        if getattr(model, "mask", False):
            output = torch.where(batch.mask > 0, output, batch.damaged)
        output = (output * 255).round() / 255
        for name, values in score_batch(output, batch.clean, lpips=lpips).items():
            totals.setdefault(name, []).extend(values.tolist())
        if len(rows) < shown:
            rows.append([batch.damaged, output, batch.clean])
    save_grid(grid, rows)
    return {name: float(np.mean([v for v in values if math.isfinite(v)])) for name, values in totals.items()}


def save_grid(path: Path, rows: list[list[Tensor]]) -> None:
    """Pictures of 1×3×H×W in rows, on white, as a PNG."""
    height = max(p.shape[-2] for row in rows for p in row) + 4
    width = max(p.shape[-1] for row in rows for p in row) + 4
    sheet = np.full((height * len(rows), width * len(rows[0]), 3), 255, np.uint8)
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            pixels = (picture[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
            sheet[y * height : y * height + pixels.shape[0], x * width : x * width + pixels.shape[1]] = pixels
    save_png(path, sheet)


def better(scores: dict[str, float], best: dict[str, float], by: str) -> bool:
    """Whether these scores beat the best so far (a first score beats nothing, a NaN never does)."""
    now, before = scores.get(by, math.nan), best.get(by)
    if before is None or by == "last":
        return True
    return now < before if by == "lpips" else now > before


def describe(config: TrainConfig, model: nn.Module, sees_mask: bool, validation: list[Batch]) -> Description:
    """What the weights file says of itself; how far the network sees is measured on validation pictures."""
    widest = max(validation, key=lambda b: b.clean.shape[-1])
    mask = widest.mask if sees_mask else None
    return Description(
        builder=config.model.builder,
        args=config.model.args,
        purpose=config.model.purpose or f"trained on {config.damage if isinstance(config.damage, str) else 'pairs'}",
        needs_mask=sees_mask,
        multiple=int(getattr(model, "multiple", 1)),
        minimum=int(getattr(model, "minimum", 1)),
        overlap_px=measure_overlap_px(model, widest.damaged.float(), mask),
    )


def finite(values: dict[str, float], step: int, out: Path) -> dict[str, float]:
    """The values as they are.

    Raises:
        RestoreError: one of them is not a number any more (exit code 3); the last saved state is untouched.
    """
    wrong = [name for name, value in values.items() if not math.isfinite(value)]
    if wrong:
        raise RestoreError(
            f"training diverged at step {step}: {', '.join(wrong)} is not a number",
            where=out,
            hint="start again from the last state with a lower optimizer.lr, or with optimizer.clip_norm=1",
            exit_code=3,
        )
    return values


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
