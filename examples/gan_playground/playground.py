"""Train DCGAN with every adversarial loss on the 8×8 digits of scikit-learn, and compare samples from the same noise.

    pip install scikit-learn
    python examples/gan_playground/playground.py OUT [STEPS] [NAME ...]

`OUT/NAME.png` shows the final samples of each run, and `OUT/NAME.gif` their development. `OUT/table.md` compares the
runs. With 600 steps, all together take about ten minutes on two CPU cores. The same command continues a stopped run.
"""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from restore.restorers.sampler import SampleOptions, open_sampler, sheet

FRAMES = 10
#: The filters of a discriminator this small grow fast from their start, N(0, 0.02), without harm.
GROWS = "collapse.max_d_growth=0"
PLAIN = ["discriminator.args={ndf: 8, norm: none}", GROWS]
COMMON = [
    "data.patch=32", "data.resize=32", "data.channels=gray", "data.flip=false", "data.batch=16", "data.classes=folders",
    "data.validation_percent=20", "data.validation_count=64", "model.args={ngf: 8, latents: 16}",
    "optimizer.lr=1e-3", "ema=0.98", "log_every=10", "device=cpu", "threads=1",
]  # fmt: skip
#: What differs from the config `dcgan`. In the last two, one network learns much faster.
ADVERSARIES = {
    "vanilla": ["loss.adversarial=vanilla", "discriminator.args={ndf: 8, norm: none, spectral_norm: true}"],
    "vanilla-r1": ["loss.adversarial=vanilla", "loss.r1=1", "loss.r1_interval=4", *PLAIN],
    "lsgan": ["loss.adversarial=lsgan", "discriminator.args={ndf: 8, norm: none, spectral_norm: true}"],
    "hinge": ["loss.adversarial=hinge", "discriminator.args={ndf: 8, norm: none, spectral_norm: true}"],
    "wgan-gp": ["loss.adversarial=wgan-gp", "optimizer.betas=[0,0.9]", "discriminator.steps=2", *PLAIN],
    "strong-d": ["loss.adversarial=vanilla", "optimizer.lr_discriminator=4e-3", "discriminator.args={ndf: 8}", GROWS],
    "strong-g": ["loss.adversarial=vanilla", "optimizer.lr=2e-2", "optimizer.lr_discriminator=1e-4", *PLAIN],
}


def write_digits(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The digits, enlarged to 32×32, in a folder for each class; uint8 N×32×32, and their classes."""
    digits = load_digits()
    images = []
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target)):
        small = Image.fromarray((pixels * 255 / 16).round().astype(np.uint8))
        large = small.resize((32, 32), Image.Resampling.BICUBIC)
        path = folder / str(label) / f"{number:04}.png"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            large.save(path)
        images.append(np.asarray(large))
    return np.stack(images), np.asarray(digits.target)


def train(name: str, out: Path, steps: int) -> tuple[float, str]:
    """Train one network. Returns the seconds that it took, and how it ended."""
    every = max(1, steps // FRAMES)
    command = [sys.executable, "-m", "restore.cli", "train", "dcgan", *COMMON, *ADVERSARIES[name]]
    command += [f"data.folders=[{out / 'digits'}]", f"out={out / 'runs' / name}", f"total_steps={steps}"]
    command += [f"validate_every={every}", f"save_every={every}"]
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode not in (0, 3):  # 3: the collapse monitor has stopped it
        raise SystemExit(f"{name}: {done.stderr}")
    stopped = [line for line in done.stderr.splitlines() if "stopped at step" in line]
    return time.monotonic() - started, stopped[0].partition("stopped at ")[2] if stopped else "finished"


def film(run: Path, file: Path) -> None:
    """Write an animated GIF of the grids of samples that the run wrote at its validations, each from the same noise."""
    frames = [Image.open(grid).convert("L") for grid in sorted((run / "samples").glob("*.png"))]
    times = [150] * (len(frames) - 1) + [2000]
    frames[0].save(file, save_all=True, append_images=frames[1:], duration=times, loop=0)


def features(images: np.ndarray) -> np.ndarray:
    """64 numbers for each image: the means of its blocks of 4×4 pixels, in [0, 1]."""
    return np.asarray(images.reshape(-1, 8, 4, 8, 4).mean((2, 4)).reshape(-1, 64) / 255)


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """The Fréchet distance of two sets, as FID has it (Heusel et al. 2017, eq. 6), but of `features`."""
    means, covariances = [x.mean(0) for x in (a, b)], [np.cov(x.T) for x in (a, b)]
    root = np.sqrt(np.linalg.eigvals(covariances[0] @ covariances[1]).real.clip(0)).sum()
    return float(((means[0] - means[1]) ** 2).sum() + sum(np.trace(c) for c in covariances) - 2 * root)


def measure(run: Path, images: np.ndarray, labels: np.ndarray, grid: Path) -> list[float]:
    """Draw 500 samples, and the first 80 into a grid with a column for each class.

    Returns:
        Their Fréchet distance from the digits; the share that a nearest-neighbor classifier assigns to the requested
        class; their diversity, relative to that of the digits; and the same within each class.
    """
    drawn = open_sampler(str(run), "cpu").draw(SampleOptions(500, seed=1))
    Image.fromarray(sheet(drawn[:80], 10)[..., 0]).save(grid)
    asked, found, real = np.arange(500) % 10, features(np.stack(drawn)[..., 0]), features(images)
    read = KNeighborsClassifier(3).fit(real, labels).predict(found)
    within = np.mean([found[asked == k].std(0).mean() / real[labels == k].std(0).mean() for k in range(10)])
    return [
        frechet(found, real),
        float((read == asked).mean()),
        found.std(0).mean() / real.std(0).mean(),
        float(within),
    ]


def main() -> None:
    """Train all networks, or the named ones, two at a time, and write the table."""
    out, steps = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 600
    names = sys.argv[3:] or list(ADVERSARIES)
    images, labels = write_digits(out / "digits")
    rows = ["| adversary | Fréchet distance | read as asked | diversity | within a class | seconds | end |"]
    rows += ["|---|---|---|---|---|---|---|"]
    with ThreadPoolExecutor(2) as pool:
        for name, (seconds, end) in zip(names, pool.map(lambda name: train(name, out, steps), names)):
            run = out / "runs" / name
            film(run, out / f"{name}.gif")
            scores = " | ".join(f"{value:.2f}" for value in measure(run, images, labels, out / f"{name}.png"))
            rows.append(f"| {name} | {scores} | {seconds:.0f} | {end} |")
            print(rows[-1], flush=True)
            (out / "table.md").write_text("\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
