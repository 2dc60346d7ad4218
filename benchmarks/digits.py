"""Trains DCGAN on the digits of scikit-learn, and scores its samples at the start, in the middle and at the end.

    pip install scikit-learn
    python benchmarks/digits.py --work DIR --weights squeezenet1_1.safetensors [--steps 400]

The 1,797 digits, 8×8 pixels, are enlarged to 32×32. The network is the small one in the header of
`configs/train/dcgan.yaml`, trained on 80 % of them. After 1 step, half of the steps and all of them, 500 samples are
drawn from the same noise, 50 of each class. The score is the Fréchet distance to all digits, in the features of
SqueezeNet 1.1 (as in `unpaired.py`) at 64×64 pixels. It is not the FID. The last row has the distance of 500 real
digits to all digits.

DIR gets the digits, the run, and `step_N.png` with 80 samples, a column for each class. A run that was stopped is
resumed. Prints Markdown.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from unpaired import features

from restore.metrics.fid import FrechetDistance
from restore.metrics.lpips import Lpips, open_lpips
from restore.restorers.sampler import SampleOptions, open_sampler, sheet
from restore.training.config import load_train_config
from restore.training.loop import train

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "gan_playground"))
from playground import write_digits

SAMPLES = 500
NETWORK = [
    "data.patch=32", "data.resize=32", "data.channels=gray", "data.flip=false", "data.batch=32", "data.classes=folders",
    "data.validation_percent=20", "data.validation_count=64",
    "model.args={ngf: 16, latents: 32}", "discriminator.args={ndf: 16, norm: none, spectral_norm: true}",
    "loss.adversarial=hinge", "optimizer.lr=1e-3", "ema=0.98", "log_every=10", "device=cpu", "threads=1",
]  # fmt: skip


def seen(images: np.ndarray, squeeze: Lpips) -> Tensor:
    """The features of uint8 N×32×32, enlarged to 64×64 pixels: float64, N×512."""
    pixels = torch.from_numpy(images)[:, None].float() / 255
    return features(F.interpolate(pixels, scale_factor=2, mode="bilinear").expand(-1, 3, -1, -1), squeeze)


def distance(images: Tensor, real: Tensor) -> float:
    """The Fréchet distance of two sets of features."""
    frechet = FrechetDistance(real.shape[1])
    frechet.add(images, real)
    return frechet.value()


def main() -> None:
    """Train, score and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=400)
    args = parser.parse_args()
    digits, _ = write_digits(args.work / "digits")
    squeeze = open_lpips("squeeze", args.weights)
    real = seen(digits, squeeze)
    print("| images | Fréchet distance to the digits (SqueezeNet) | diversity within a class |\n|---|---|---|")
    run = args.work / "run"
    sources = [f"data.folders=[{args.work / 'digits'}]", f"out={run}"]
    for steps in (1, args.steps // 2, args.steps):
        result = train(load_train_config("dcgan", [*NETWORK, *sources, f"total_steps={steps}", "save_every=100"]))
        drawn = open_sampler(str(run), "cpu").draw(SampleOptions(SAMPLES, seed=1))
        Image.fromarray(sheet(drawn[:80], 10)[..., 0]).save(args.work / f"step_{steps}.png")
        far = distance(seen(np.stack(drawn)[..., 0], squeeze), real)
        print(f"| samples at step {steps} | {far:.1f} | {result.best['diversity']:.2f} |", flush=True)
    some = np.random.default_rng(0).choice(len(digits), SAMPLES, replace=False)
    print(f"| {SAMPLES} real digits | {distance(real[some], real):.1f} | |")


if __name__ == "__main__":
    main()
