"""Trains without pairs on photographs with drawn damage, and scores the outputs against the unseen truth.

    python benchmarks/unpaired.py PHOTOGRAPHS --work DIR --weights DIR [--config cyclegan] [--count 300] [--side 128]
        [--damage print] [--score-only] [KEY=VALUE ...]      # --config cut: one way alone

Two disjoint sets of COUNT photographs are drawn by their names: A is damaged (`restore degrade --seed 1`), B is clean.
Each photograph is the central square of its file, at 143/128 of SIDE, of which `restore train` crops SIDE. KEY=VALUE
are overrides of the config.

All images of A are scored, at their central SIDE pixels, before and after:

- the Fréchet distance to B of SqueezeNet 1.1's features (the last layer that LPIPS uses, 512 channels, averaged over
  the image). It is not the FID, which uses Inception's features and more images. It is comparable only within one
  table.
- PSNR and LPIPS (AlexNet) against the hidden truth, means over images.

The last row compares the truth with B; a perfect repair has these scores. DIR gets the sets, the run, `sheet.png` (A,
output, truth) and `scores.json`. A run that was stopped is resumed. `--weights` names a folder with `squeezenet1_1*`
and `alexnet*`. Prints Markdown.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from restore.degradations.write import write_degraded
from restore.metrics import score_batch
from restore.metrics.fid import FrechetDistance
from restore.metrics.lpips import Lpips, open_lpips
from restore.restorers.registry import open_restorer
from restore.training.config import load_train_config
from restore.training.loop import TrainCallbacks, train

SHOWN = 12


def make_sets(photographs: Path, work: Path, count: int, side: int, damage: str) -> None:
    """Write `b/`, `truth/`, and its damaged images in `a/damaged/`, unless they are there."""
    if (work / "sets.json").exists():
        return
    files = [path for path in photographs.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp")]
    files.sort(key=lambda path: hashlib.sha256(path.relative_to(photographs).as_posix().encode()).digest())
    if len(files) < 2 * count:
        raise SystemExit(f"{photographs} has {len(files)} photographs; {2 * count} are needed")
    names: dict[str, str] = {}
    for i, path in enumerate(files[: 2 * count]):
        name = f"{'truth' if i < count else 'b'}/{i:04d}.png"
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            edge = min(image.size)
            left, top = (image.width - edge) // 2, (image.height - edge) // 2
            square = image.convert("RGB").crop((left, top, left + edge, top + edge))
        large = round(side * 143 / 128)
        square.resize((large, large), Image.Resampling.LANCZOS).save(work / name)
        names[name] = path.relative_to(photographs).as_posix()
    summary = write_degraded(work / "truth", work / "a", damage, seed=1, overwrite=True, workers=1)
    print("\n".join(summary.format()), flush=True)
    (work / "sets.json").write_text(json.dumps(names, indent=1))


def read(files: Sequence[Path], side: int) -> Tensor:
    """The central squares, N×3×side×side in [0, 1]."""
    images = []
    for file in files:
        pixels = torch.from_numpy(np.array(Image.open(file).convert("RGB"))).permute(2, 0, 1).float() / 255
        top, left = ((size - side) // 2 for size in pixels.shape[1:])
        images.append(pixels[:, top : top + side, left : left + side])
    return torch.stack(images)


@torch.no_grad()
def features(images: Tensor, squeeze: Lpips) -> Tensor:
    """float64, N×512."""
    net = squeeze.module
    parts = [net.net(net.scaling_layer(2 * part - 1))[-1].mean((2, 3)) for part in images.split(32)]
    return torch.cat(parts).double()


def distance(images: Tensor, clean: Tensor, squeeze: Lpips) -> float:
    """The Fréchet distance of two sets."""
    of_images, of_clean = features(images, squeeze), features(clean, squeeze)
    frechet = FrechetDistance(of_images.shape[1])
    frechet.add(of_images, of_clean)
    return frechet.value()


def main() -> None:
    """Make the sets, train, score and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--config", default="cyclegan")
    parser.add_argument("--name", default=None, help="of the run's folder in DIR; default: that of the config")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--damage", default="print")
    parser.add_argument("--score-only", action="store_true", help="score the run as it is")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    args = parser.parse_intermixed_args()
    work, run = args.work, args.work / (args.name or args.config)
    make_sets(args.photographs, work, args.count, args.side, args.damage)
    if not args.score_only:
        own = [
            f"data.a=[{work / 'a' / 'damaged'}]", f"data.b=[{work / 'b'}]", f"out={run}", "data.resize=null",
            f"data.patch={args.side}", f"data.validation_size={args.side}", "data.validation_percent=0",
            "data.validation_count=6", "data.near_duplicates=0", "validate_every=300", "save_every=300",
        ]  # fmt: skip
        report = TrainCallbacks(
            on_event=lambda line: print(line, flush=True),
            logged=lambda step, total, values: step % 100 == 0 and print(step, total, values, flush=True),
        )
        started = time.monotonic()
        train(load_train_config(args.config, [*own, *args.overrides]), report)
        print(f"{(time.monotonic() - started) / 60:.0f} minutes")

    weights = {net: next(args.weights.glob(f"{net}*")) for net in ("squeezenet1_1", "alexnet")}
    squeeze, alex = (
        open_lpips(net, file) for net, file in zip(("squeeze", "alex"), (weights["squeezenet1_1"], weights["alexnet"]))
    )
    names = sorted(path.name for path in (work / "truth").iterdir())
    damaged, truth = (
        read([folder / name for name in names], args.side) for folder in (work / "a/damaged", work / "truth")
    )
    clean = read(sorted((work / "b").iterdir()), args.side)
    restorer = open_restorer(str(run), device="cpu", precision="fp32", engine="torch")
    output = torch.cat([(restorer(image, None).clamp(0, 1) * 255).round() / 255 for image in damaged.split(1)])
    rows = {}
    for what, images in (("damaged", damaged), ("output", output), ("truth", truth)):
        row = {"distance": distance(images, clean, squeeze)}
        if what != "truth":
            pairs = zip(images.split(1), truth.split(1))
            scores = [score_batch(x, y, lpips=alex, metrics=("psnr",)) for x, y in pairs]
            row |= {name: float(torch.cat([s[name] for s in scores]).mean()) for name in ("psnr", "lpips")}
        rows[what] = row
    (run / "scores.json").write_text(json.dumps(rows, indent=1))
    print("| images | Fréchet distance to B (SqueezeNet) | PSNR | LPIPS (AlexNet) |\n|---|---|---|---|")
    for what, row in rows.items():
        print(f"| {what} | {row['distance']:.3f} | {row.get('psnr', float('nan')):.2f} | {row.get('lpips', 0):.4f} |")
    sheet = torch.cat([torch.cat([*images], 2) for images in (damaged[:SHOWN], output[:SHOWN], truth[:SHOWN])], 1)
    Image.fromarray((sheet * 255).round().byte().permute(1, 2, 0).numpy()).save(run / "sheet.png")


if __name__ == "__main__":
    main()
