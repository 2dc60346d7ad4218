"""Measures the speed of training: a common loop beside `restore train`, with the same networks and degradations.

    python benchmarks/train_speed.py [FOLDER] [--device auto] [--seconds S] [--rounds N] [--only PART ...]

The common loop uses float32, contiguous tensors, a DataLoader with one worker per core that decodes and degrades files
one by one on the CPU, and Adam and the running average tensor by tensor (PyTorch's defaults, including TF32 in
convolutions). `restore train` runs with its own loop, log, collapse monitor and default settings; on a GPU also with
`compile: true`. Both train the published pix2pix at 256² (U-Net-256 and PatchGAN), and the `unet` of `photo` at 128²
without a discriminator, on clean photographs degraded as for `photo`.

Images/s are the median over log lines (every 20 steps, on a CPU every step) after a warm-up. Peak memory is that of the
process (without the workers of the common loop), on a GPU that of its tensors. Start is from the call to the first log
line. On a CPU each measurement runs in its own process, and the two loops alternate, `--rounds` times; medians are
printed. Without FOLDER, images are cut from the photographs that come with scikit-image. Prints Markdown.

Parts: `models` (batch 1, 8, on a GPU 64), `growth` (batch, patch, number of images), `live` (a step with new images and
degradations over one with a repeated batch, alternating within one process); on a CPU also `load`: a step beside none,
one and two busy processes, over the time that the fair share of the processors takes. With n processors and b busy
processes, the fair share is n - b processors, but at least n / (b + 1); its time is that of the same number of threads
on an idle machine. `load` is only valid on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from restore.data.loader import BatchStream
from restore.degradations import Degradation, key
from restore.devices import pick_device, usable_cpus
from restore.images import find_images
from restore.training.compute import choose_settings
from restore.training.config import TrainConfig, load_train_config
from restore.training.cuda_graph import make_stepper
from restore.training.dry_run import StepBenchmark, synchronize
from restore.training.ema import Ema
from restore.training.loop import TrainCallbacks, train
from restore.training.setup import (
    build_networks,
    make_trainable,
    open_damage,
    open_data,
    open_fabric,
)
from restore.training.step import StepContext

PATCH = {"pix2pix": 256, "unet": 128}
LOG_EVERY = {"cpu": 1, "cuda": 20}
#: What every command sets at its start (`restore/cli/main.py`).
COMMAND = {
    "GOMP_SPINCOUNT": "1000", "MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str((1 << 31) - 1)
}  # fmt: skip


class Enough(Exception):
    """Raised when the measurement has lasted as long as requested."""


def settings(model: str, folder: Path, out: Path, device: str, **changes: Any) -> TrainConfig:
    """The shipped config of a model, on clean photographs with `photo`'s damage, without end and without stops."""
    photo = load_train_config("photo", [])
    values = (photo if model == "unet" else load_train_config("pix2pix", [])).model_dump()
    values |= {"out": out, "device": device, "precision": "auto", "damage": photo.damage, "total_steps": 10**6}
    values |= {"lpips_net": "none", "validate_every": 10**7, "save_every": 10**7}
    values |= {"log_every": LOG_EVERY[torch.device(device).type], "ema": 0.999}
    data = {"folders": [str(folder)], "scale": (0.5, 1.0), "patch": PATCH[model], "validation_count": 1}
    values["data"] = data | {name: changes.pop(name) for name in ("batch", "patch") if name in changes}
    return TrainConfig.model_validate(values | changes)


class Photographs(Dataset):
    """Files, decoded, cut, mirrored and damaged one by one, as a worker of a DataLoader does."""

    def __init__(self, folder: Path, damage: Degradation, patch: int) -> None:
        self.files = [folder / name for name in find_images(folder)]
        self.damage, self.patch = damage, patch

    def __len__(self) -> int:
        return 10**6

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        random = np.random.default_rng(index)
        image = cv2.cvtColor(cv2.imread(str(self.files[random.integers(len(self.files))])), cv2.COLOR_BGR2RGB)
        scale = random.uniform(0.5, 1)
        side = round(self.patch / scale)
        if min(image.shape[:2]) < side:
            grow = side / min(image.shape[:2])
            size = (max(side, round(image.shape[1] * grow)), max(side, round(image.shape[0] * grow)))
            image = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)
        y, x = (random.integers(length - side + 1) for length in image.shape[:2])
        crop = cv2.resize(image[y : y + side, x : x + side], (self.patch, self.patch), interpolation=cv2.INTER_AREA)
        crop = crop[:, ::-1] if random.random() < 0.5 else crop
        clean = torch.from_numpy(np.ascontiguousarray(crop)).permute(2, 0, 1).float() / 255
        damaged, mask = self.damage(clean[None], torch.tensor([key(0, index)]))
        return damaged[0], mask[0], clean


def usual_loop(config: TrainConfig, seconds: float, device: torch.device) -> dict[str, float]:
    """Train with the common loop. Returns the measurement."""
    begun = time.perf_counter()
    g, d = (None if network is None else network.to(device) for network in build_networks(config))
    assert g is not None
    average = [p.detach().clone() for p in g.parameters()]
    plain: Any = {"lr": 2e-4, "betas": (0.5, 0.999), "foreach": False, "fused": False}
    descent_g = torch.optim.Adam(g.parameters(), **plain)
    descent_d = None if d is None else torch.optim.Adam(d.parameters(), **plain)
    damage = open_damage(config)
    assert damage is not None
    loader = DataLoader(
        Photographs(config.data.folders[0].path, damage, config.data.patch),
        batch_size=config.data.batch, num_workers=os.cpu_count() or 1, pin_memory=device.type == "cuda",
    )  # fmt: skip
    marks: list[tuple[int, float]] = []
    first = 0.0
    for step, batch in enumerate(loader, 1):
        damaged, mask, clean = (t.to(device, non_blocking=True) for t in batch)
        output = g(damaged, mask)
        if d is not None and descent_d is not None:
            d.requires_grad_(True)
            descent_d.zero_grad()
            fake = d(torch.cat([damaged, output.detach()], dim=1))
            real = d(torch.cat([damaged, clean], dim=1))
            loss_d = 0.5 * (bce(fake, 0.0) + bce(real, 1.0))
            loss_d.backward()
            descent_d.step()
            d.requires_grad_(False)
        descent_g.zero_grad()
        loss = config.loss.pixel_weight * F.l1_loss(output, clean)
        if d is not None:
            loss = loss + bce(d(torch.cat([damaged, output], dim=1)), 1.0)
        loss.backward()
        descent_g.step()
        with torch.no_grad():
            for own, theirs in zip(average, g.parameters()):
                own.mul_(0.999).add_(theirs, alpha=0.001)
        if step % config.log_every == 0:
            loss.item()
            marks.append((step, time.perf_counter()))
            first = first or marks[0][1] - begun
            if enough(marks, seconds):
                break
    return result(marks, config, first, device)


def bce(logits: Tensor, label: float) -> Tensor:
    """Binary cross-entropy against one label, as pix2pix's GANLoss."""
    return nn.functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))


def our_loop(config: TrainConfig, seconds: float) -> dict[str, float]:
    """Run `restore train`. Returns the measurement."""
    begun = time.perf_counter()
    marks: list[tuple[int, float]] = []
    first: list[float] = []

    def logged(step: int, total: int, values: dict[str, float]) -> None:
        first.append(time.perf_counter() - begun)
        marks.append((step, time.perf_counter()))
        if enough(marks, seconds):
            raise Enough

    with contextlib.suppress(Enough):
        train(config, TrainCallbacks(logged=logged))
    return result(marks, config, first[0], torch.device(config.device))


def enough(marks: list[tuple[int, float]], seconds: float) -> bool:
    """Whether the run after the warm-up (the first log lines) has lasted as long as requested."""
    return len(marks) > 5 and marks[-1][1] - marks[2][1] > seconds


def result(marks: list[tuple[int, float]], config: TrainConfig, first: float, device: torch.device) -> dict[str, float]:
    """Images/s after the warm-up, and the peak of memory."""
    speeds = [
        (s2 - s1) * config.data.batch / (t2 - t1) for (s1, t1), (s2, t2) in itertools.pairwise(marks[2:]) if t2 > t1
    ]
    return {"images_per_second": statistics.median(speeds), "peak_bytes": peak(device), "first_line_seconds": first}


def peak(device: torch.device) -> float:
    """Peak memory of this process: on a GPU, that of its tensors there, otherwise all of it."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated())
    import resource

    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * (1 if sys.platform == "darwin" else 1024)


def live(config: TrainConfig, seconds: float) -> dict[str, float]:
    """A step with live images and damage over one with a repeated batch, in turn, several times each."""
    fabric = open_fabric(config)
    device = fabric.device
    generator, discriminator = build_networks(config)
    compute = choose_settings(config, fabric, generator)
    source, _ = open_data(config, generator, device, lambda line: None)
    context = StepContext(fabric, config.loss, compute.precision, generator.takes_mask, config.discriminator.augment)
    g = make_trainable(generator, fabric, config, compute, is_discriminator=False)
    d = None
    if discriminator is not None:
        d = make_trainable(discriminator, fabric, config, compute, is_discriminator=True)
    benchmark = StepBenchmark(config, source, context, g, d, Ema(generator, config.ema), config.data.batch)
    with BatchStream(source, seed=0, start=0, count=config.data.batch) as stream:
        make_step = make_stepper(context, device, cuda_graph=config.cuda_graph, paused=stream.paused)
        same = next(stream)
        for step in range(2 if device.type == "cpu" else 40):
            benchmark.step(step, d, stream.__next__, make_step)
        ratios, steps, speeds = [], 1, []
        for turn in range(9):
            times = []
            for repeated in (True, False) if turn % 2 else (False, True):
                synchronize(device)
                start = time.perf_counter()
                for step in range(steps):
                    benchmark.step(step + 1, d, (lambda: same) if repeated else stream.__next__, make_step)
                synchronize(device)
                times.append((repeated, (time.perf_counter() - start) / steps))
            by = dict(times)
            if turn:  # the first settles how many steps a turn has
                ratios.append(by[False] / by[True])
                speeds.append(config.data.batch / by[False])
            else:
                steps = max(1, round(seconds / 8 / max(by.values())))
    return {"ratio": statistics.median(ratios), "images_per_second": statistics.median(speeds)}


def measure(cell: dict[str, Any], folder: Path, device: str, seconds: float) -> dict[str, float]:
    """One measurement, in this process."""
    values = dict(cell)
    kind, model = values.pop("kind"), values.pop("model")
    if images := values.pop("images", None):
        folder = subset(folder, images)
    with tempfile.TemporaryDirectory() as out:
        config = settings(model, folder, Path(out), device, **values)
        if torch.device(device).type == "cuda":
            fresh()
        if kind == "usual":
            return usual_loop(config, seconds, torch.device(device))
        return live(config, seconds) if kind == "live" else our_loop(config, seconds)


def fresh() -> None:
    """Reset the GPU to the state of a new process: PyTorch's own defaults, no tensors, nothing compiled."""
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = True, False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.compiler.reset()
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()


def subset(folder: Path, images: int) -> Path:
    """A folder with links to this number of images, repeated where there are not enough."""
    files = [(folder / name).resolve() for name in find_images(folder)]
    linked = folder.parent / f"{folder.name}_{images}"
    if not linked.exists():
        linked.mkdir()
        for i in range(images):
            (linked / f"{i:06d}{files[i % len(files)].suffix}").symlink_to(files[i % len(files)])
    return linked


def apart(cell: dict[str, Any], folder: Path, device: str, seconds: float) -> dict[str, float]:
    """One measurement in a process of its own, beside `busy` others."""
    cell = dict(cell)
    call = [sys.executable, __file__, str(folder), "--device", device, "--seconds", str(seconds)]
    environment = os.environ | ({} if cell["kind"] == "usual" else COMMAND)
    with beside(cell.pop("busy", 0)):
        done = subprocess.run(
            [*call, "--cell", json.dumps(cell)], capture_output=True, text=True, check=False, env=environment
        )
    if done.returncode:
        raise RuntimeError(f"{cell}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


@contextlib.contextmanager
def beside(busy: int) -> Iterator[None]:
    """Run this number of processes that each keep a processor busy."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def several(
    cells: list[dict[str, Any]], folder: Path, device: str, seconds: float, rounds: int
) -> list[dict[str, float]]:
    """Measure the cells in turn, this number of times. Returns the median of each figure."""
    found: list[list[dict[str, float]]] = [[] for _ in cells]
    for _ in range(rounds):
        for cell, its in zip(cells, found):
            its.append((apart if device == "cpu" else measure)(cell, folder, device, seconds))
    return [{name: statistics.median(one[name] for one in its) for name in its[0]} for its in found]


def row(label: str, usual: dict[str, float], ours: dict[str, float], compiled: dict[str, float] | None) -> str:
    """One line of a table."""
    cells = [f"{usual['images_per_second']:.3g}", f"{ours['images_per_second']:.3g}"]
    cells += [f"**{ours['images_per_second'] / usual['images_per_second']:.2f} ×**"]
    if compiled is not None:
        cells += [f"{compiled['images_per_second'] / usual['images_per_second']:.2f} ×" if compiled else ""]
    cells += [f"{usual['peak_bytes'] / 2**30:.2f}", f"{ours['peak_bytes'] / 2**30:.2f}"]
    cells += [f"{usual['first_line_seconds']:.1f}", f"{ours['first_line_seconds']:.1f}"]
    return f"| {label} | " + " | ".join(cells) + " |"


def header(label: str, with_compile: bool) -> str:
    """The head of a table."""
    names = [label, "usual, images/s", "restore", "ratio", *(["ratio, compiled"] if with_compile else [])]
    names += ["usual, GB", "restore", "usual, s to first line", "restore"]
    return "| " + " | ".join(names) + " |\n" + "|---" * len(names) + "|"


def sample_pictures(folder: Path, count: int = 100) -> None:
    """Photographs of 512 px as JPEG, cut from those that scikit-image ships."""
    from skimage import data

    sources = [
        getattr(data, name)() for name in ("astronaut", "coffee", "chelsea", "rocket", "cat", "immunohistochemistry")
    ]
    random = np.random.default_rng(0)
    for i in range(count):
        image = sources[i % len(sources)]
        y, x = (int(random.integers(length // 8 + 1)) for length in image.shape[:2])
        cut = cv2.resize(image[y:, x:], (512, 512), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{i:04d}.jpg"), cut[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])


def cases(parts: set[str], cuda: bool) -> Iterator[tuple[str, str, dict[str, Any], bool]]:
    """The table, the label, the cell, and whether it is also measured compiled."""
    if "models" in parts:
        for model in PATCH:
            for batch in (1, 8, 64) if cuda else (1, 8):
                yield "model, batch", f"{model}, {batch}", {"model": model, "batch": batch}, cuda and batch == 8
    if "growth" in parts:
        for batch in (16, 256) if cuda else (2, 4, 16):
            yield "unet, batch", f"{batch} × 128²", {"model": "unet", "batch": batch}, False
        for patch in (64, 256):
            yield "unet, patch", f"8 × {patch}²", {"model": "unet", "batch": 8, "patch": patch}, False
        for images in (100, 1000):
            cell = {"model": "unet", "batch": 8, "images": images}
            yield "unet, 8 × 128², number of images", f"{images}", cell, False


def report(folder: Path, device: str, seconds: float, rounds: int, parts: set[str]) -> None:
    """Measure and print all tables."""
    cuda = torch.device(device).type == "cuda"
    name = (
        torch.cuda.get_device_name() if cuda else f"{os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"
    )
    print(f"torch {torch.__version__}, {name}, {len(find_images(folder))} images\n", flush=True)
    shown = ""
    for table, label, cell, compiled in cases(parts, cuda):
        if table != shown:
            print(("\n" if shown else "") + header(table, cuda), flush=True)
            shown = table
        kinds = [cell | {"kind": "usual"}, cell | {"kind": "ours"}]
        kinds += [cell | {"kind": "ours", "compile": True}] if compiled else []
        found = several(kinds, folder, device, seconds, rounds)
        print(row(label, found[0], found[1], (found[2] if compiled else {}) if cuda else None), flush=True)
    if "load" in parts and not cuda:
        report_load(folder, seconds, rounds)
    if "live" in parts:
        print(
            "\n| model, batch | live images/s | live step over one with a repeated batch |\n|---|---|---|", flush=True
        )
        for model in PATCH:
            for batch in (1, 8, 64) if cuda else (1, 8):
                cell = {"kind": "live", "model": model, "batch": batch}
                (found_live,) = several([cell], folder, device, seconds, rounds)
                figures = f"{found_live['images_per_second']:.3g} | {found_live['ratio']:.3f}"
                print(f"| {model}, {batch} | {figures} |", flush=True)


def report_load(folder: Path, seconds: float, rounds: int) -> None:
    """Measure and print steps beside busy processes."""
    print(
        "\n| unet, 4 × 96²: busy processes | s per step | with the fair share | ratio |\n|---|---|---|---|", flush=True
    )
    cell = {"kind": "ours", "model": "unet", "batch": 4, "patch": 96}
    cpus = usable_cpus()
    shares = [max(cpus - busy, cpus / (busy + 1)) for busy in (0, 1, 2)]
    counts = sorted({max(1, int(share)) for share in shares})
    cells = [cell | {"threads": count} for count in counts] + [cell | {"busy": busy} for busy in (0, 1, 2)]
    steps = [4 / found["images_per_second"] for found in several(cells, folder, "cpu", seconds, rounds)]
    alone = dict(zip(counts, steps))
    for busy, share, step in zip((0, 1, 2), shares, steps[len(counts) :]):
        fair = alone[max(1, int(share))] / min(1, share)
        print(f"| {busy} | {step:.3f} | {fair:.3f} | {step / fair:.2f} |", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="clean photographs; default: cut from scikit-image's")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seconds", type=float, help="of each measurement after the warm-up (CPU 12, GPU 2)")
    parser.add_argument("--rounds", type=int, default=1, help="how often each is repeated, in turn")
    parser.add_argument("--only", nargs="+", choices=("models", "growth", "live", "load"))
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    args = parser.parse_args()
    device = str(pick_device(args.device))
    seconds = args.seconds or (12.0 if device == "cpu" else 2.0)
    if args.cell:
        print(json.dumps(measure(json.loads(args.cell), args.folder, device, seconds)))
        return
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / "pictures"
        if args.folder is None:
            folder.mkdir()
            sample_pictures(folder)
        else:
            folder.symlink_to(args.folder.resolve())
        report(folder, device, seconds, args.rounds, set(args.only or ("models", "growth", "live", "load")))


if __name__ == "__main__":
    main()
