"""Measures the speed of `restore eval` for PSNR and SSIM, beside a loop over scikit-image.

    python benchmarks/eval_speed.py [--pairs 1000] [--side 512] [--distinct 100]

The images are photographs that come with scikit-image, cropped and resized to squares, with and without noise, as PNG:
`--distinct` pairs under `--pairs` names. Each program runs in its own process, and the times include decoding and
start:

- `restore eval --metrics psnr,ssim`, also on a tenth of the pairs, which shows how memory grows.
- a loop that reads with scikit-image and calls its `peak_signal_noise_ratio` and `structural_similarity` (RGB, Gaussian
  weights), one pair after the other.

Prints Markdown, and fails if the scores differ.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

AGREE = {"psnr": 1e-4, "ssim": 1e-4}


@dataclass(frozen=True)
class Run:
    """One process: seconds by the clock and of the processors, peak memory, and mean scores."""

    pairs: int
    seconds: float
    processor_seconds: float
    peak_bytes: int
    means: dict[str, float]


def make_pictures(folder: Path, pairs: int, distinct: int, side: int) -> None:
    """`clean/` and `noisy/`, the latter with σ from 5 to 50."""
    import numpy as np
    from skimage import data, io, transform

    photos = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket()]
    random = np.random.default_rng(0)
    for part in ("clean", "noisy"):
        (folder / part).mkdir()
    for number in range(min(distinct, pairs)):
        photo = photos[number % len(photos)]
        short = min(photo.shape[:2])
        size = int(random.integers(short // 2, short))
        top, left = (int(random.integers(0, length - size)) for length in photo.shape[:2])
        clean = transform.resize(photo[top : top + size, left : left + size], (side, side), order=3, clip=True)
        noisy = clean + random.normal(0, random.uniform(5, 50) / 255, clean.shape)
        for part, pixels in (("clean", clean), ("noisy", noisy)):
            rounded = (pixels.clip(0, 1) * 255).round().astype(np.uint8)
            io.imsave(folder / part / f"{number:04}.png", rounded, check_contrast=False)
    for number in range(distinct, pairs):
        for part in ("clean", "noisy"):
            os.link(folder / part / f"{number % distinct:04}.png", folder / part / f"{number:04}.png")


def usual_loop(folder: Path) -> dict[str, float]:
    """Mean scores by scikit-image."""
    from skimage.io import imread
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    scores = []
    for path in sorted((folder / "clean").iterdir()):
        clean, noisy = imread(path), imread(folder / "noisy" / path.name)
        psnr = peak_signal_noise_ratio(clean, noisy, data_range=255)
        ssim = structural_similarity(
            clean, noisy, data_range=255, channel_axis=-1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        scores.append((psnr, ssim))
    return {name: sum(column) / len(scores) for name, column in zip(("psnr", "ssim"), zip(*scores))}


def measured(command: list[str], pairs: int, answer: Path) -> Run:
    """Run a command that writes its means to a file."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command} ended with {process.returncode}")
    found = json.loads(answer.read_text())
    means = {name: line["mean"] for name, line in found["summary"].items()} if "summary" in found else found
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Run(pairs, seconds, usage.ru_utime + usage.ru_stime, peak, means)


def restore_eval(folder: Path, pairs: int, scratch: Path) -> Run:
    """`restore eval` on the first so many pairs."""
    parts = [scratch / f"{part}{pairs}" for part in ("noisy", "clean")]
    for part in parts:
        part.mkdir()
        for number in range(pairs):
            os.link(folder / part.name[:5] / f"{number:04}.png", part / f"{number:04}.png")
    answer = scratch / f"{pairs}.json"
    command = [sys.executable, "-m", "restore.cli", "eval", *map(str, parts)]
    return measured([*command, "--metrics", "psnr,ssim", "--device", "cpu", "--json", str(answer)], pairs, answer)


def main() -> None:
    """Make the images, run both ways, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--side", type=int, default=512, help="of the images, in pixels")
    parser.add_argument("--distinct", type=int, default=100, help="pairs that are made; the others are links to them")
    parser.add_argument("--loop", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.loop:
        (options.loop / "loop.json").write_text(json.dumps(usual_loop(options.loop)))
        return
    with tempfile.TemporaryDirectory(prefix="restore-eval-speed-") as scratch:
        folder = Path(scratch)
        make_pictures(folder, options.pairs, options.distinct, options.side)
        few = restore_eval(folder, max(options.pairs // 10, 1), folder)
        ours = restore_eval(folder, options.pairs, folder)
        usual = measured(
            [sys.executable, __file__, "--loop", str(folder)], options.pairs, folder / "loop.json"
        )  # fmt: skip
    for name, tolerance in AGREE.items():
        if abs(ours.means[name] - usual.means[name]) > tolerance:
            raise SystemExit(f"mean {name}: {ours.means[name]} here, {usual.means[name]} by scikit-image")
    print(f"{options.pairs} pairs of {options.side}×{options.side}, {os.cpu_count()} cores\n")
    print("| | pairs | seconds | pairs/s | processor seconds | peak memory, MB | mean PSNR | mean SSIM |")
    print("|---|---|---|---|---|---|---|---|")
    for name, run in (("loop over scikit-image", usual), ("`restore eval`", ours), ("`restore eval`", few)):
        speed = f"{run.seconds:.1f} | {run.pairs / run.seconds:.1f} | {run.processor_seconds:.1f}"
        means = f"{run.means['psnr']:.4f} | {run.means['ssim']:.5f}"
        print(f"| {name} | {run.pairs} | {speed} | {run.peak_bytes / 1e6:.0f} | {means} |")
    print(f"\n`restore eval` is {usual.seconds / ours.seconds:.1f} times as fast.")


if __name__ == "__main__":
    main()
