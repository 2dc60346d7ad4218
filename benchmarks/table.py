"""Quality of the default models beside the classical methods, on a folder of clean pictures.

    python benchmarks/table.py FOLDER [--lpips-weights FILE] [--limit N] [--only inpaint|photo]

Restorers are called directly: noisy inputs stay unclipped, outputs are rounded to 8 bits, PSNR is over RGB and
averaged over pictures. Holes come from the named damages, seeded by the picture's name; Gaussian noise is drawn by
numpy's legacy generator with seed 0 for every picture, as in the literature. LPIPS is whole-picture, SqueezeNet.
Prints Markdown.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from restore.degrade import key, load_damage
from restore.errors import RestoreError
from restore.images import find_pictures, read_rgb8
from restore.metrics import score_batch
from restore.metrics.perceptual import Lpips, open_lpips
from restore.restorers.base import Restorer
from restore.restorers.open import open_restorer

INPAINTERS = ("inpaint", "telea", "navier-stokes", "biharmonic")
CLEANERS = ("photo", "nlmeans", "tv")


def awgn(sigma: float) -> Callable[[Tensor], Tensor]:
    """Additive white Gaussian noise, σ in 8-bit steps, neither clipped nor rounded."""

    def add(clean: Tensor) -> Tensor:
        shape = clean[0].permute(1, 2, 0).shape
        noise = np.random.RandomState(0).normal(0, sigma / 255, shape)
        return clean + torch.from_numpy(noise).float().permute(2, 0, 1)[None]

    return add


def jpeg(quality: int) -> Callable[[Tensor], Tensor]:
    """Through a real JPEG file (Pillow, 4:2:0)."""

    def through(clean: Tensor) -> Tensor:
        pixels = (clean[0] * 255).round().byte().permute(1, 2, 0).numpy()
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=2)
        return torch.from_numpy(np.asarray(Image.open(file)).copy()).permute(2, 0, 1)[None].float() / 255

    return through


def rounded(picture: Tensor) -> Tensor:
    """To 8 bits and back."""
    return (picture.clamp(0, 1) * 255).round() / 255


def score(restored: Tensor, clean: Tensor, mask: Tensor | None, lpips: Lpips | None) -> dict[str, float]:
    """All scores of one picture."""
    return {name: float(v) for name, v in score_batch(rounded(restored), clean, mask, lpips).items()}


def mean(rows: list[dict[str, float]], name: str) -> str:
    """Mean of a column over pictures, identical pictures (infinite PSNR) left out."""
    values = [row[name] for row in rows if name in row and np.isfinite(row[name])]
    return f"{np.mean(values):.4f}" if name == "lpips" and values else f"{np.mean(values):.2f}" if values else "-"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--lpips-weights", type=Path, help="SqueezeNet 1.1 backbone, where it cannot be downloaded")
    parser.add_argument("--limit", type=int, help="only the first N pictures")
    parser.add_argument("--only", choices=("inpaint", "photo"))
    parser.add_argument("--inpaint", default="inpaint", help="model in place of the shipped one")
    parser.add_argument("--photo", default="photo", help="model in place of the shipped one")
    args = parser.parse_args()

    names = find_pictures(args.folder)[: args.limit]
    clean = [torch.from_numpy(read_rgb8(args.folder / n)).permute(2, 0, 1)[None].float() / 255 for n in names]
    try:
        lpips = open_lpips("squeeze", args.lpips_weights)
    except RestoreError as error:
        lpips = None
        print(f"(no LPIPS: {error})\n")
    if args.only != "photo":
        inpainting([args.inpaint, *INPAINTERS[1:]], names, clean, lpips)
    if args.only != "inpaint":
        cleaning([args.photo, *CLEANERS[1:]], clean, lpips)


def inpainting(models: list[str], names: list[Path], clean: list[Tensor], lpips: Lpips | None) -> None:
    """One table: masks × models."""
    print("| holes | model | PSNR in the hole | PSNR | LPIPS | s/megapixel |\n|---|---|---|---|---|---|")
    restorers = [open_restorer(m) for m in models]
    for kind in ("inpaint-thin", "inpaint-medium"):
        damage = load_damage(kind)
        cases = []
        for name, picture in zip(names, clean):
            size = (picture.shape[-2], picture.shape[-1])
            cases.append((picture, *damage.apply(picture, damage.sample(torch.tensor([key(0, name.stem)]), size))))
        for model, restorer in zip(models, restorers):
            run(
                f"| {kind.removeprefix('inpaint-')} | {model} |",
                restorer,
                cases,
                lpips,
                ("psnr_hole", "psnr", "lpips"),
            )


def cleaning(models: list[str], clean: list[Tensor], lpips: Lpips | None) -> None:
    """One table: damages × models, and the clean pictures themselves."""
    print("\n| damage | model | PSNR | SSIM | LPIPS | s/megapixel |\n|---|---|---|---|---|---|")
    damages: dict[str, Callable[[Tensor], Tensor]] = {f"σ = {s}": awgn(s) for s in (15, 25, 50)}
    damages |= {f"JPEG {q}": jpeg(q) for q in (10, 20, 40)} | {"none": lambda c: c}
    restorers = [open_restorer(m) for m in models]
    for label, damage in damages.items():
        cases = [(picture, damage(picture), None) for picture in clean]
        rows = [score(damaged, picture, None, lpips) for picture, damaged, _ in cases]
        print(
            f"| {label} | (input) | {mean(rows, 'psnr')} | {mean(rows, 'ssim')} | {mean(rows, 'lpips')} | |",
            flush=True,
        )
        for model, restorer in zip(models, restorers):
            rows = run(f"| {label} | {model} |", restorer, cases, lpips, ("psnr", "ssim", "lpips"))
            if label == "none":
                values = sorted(row["psnr"] for row in rows)
                print(
                    f"| {label} | {model}: median {np.median(values):.2f}, worst {values[0]:.2f} | | | | |",
                    flush=True,
                )


def run(
    head: str, restorer: Restorer, cases: list, lpips: Lpips | None, columns: tuple[str, ...]
) -> list[dict[str, float]]:
    """Restore and score all cases of one table row, and print it."""
    rows, seconds, megapixels = [], 0.0, 0.0
    for picture, damaged, mask in cases:
        start = time.perf_counter()
        restored = restorer(damaged, mask)
        seconds += time.perf_counter() - start
        megapixels += picture.shape[-1] * picture.shape[-2] / 1e6
        rows.append(score(restored, picture, mask, lpips))
    cells = " | ".join(mean(rows, column) for column in columns)
    print(f"{head} {cells} | {seconds / megapixels:.2f} |", flush=True)
    return rows


if __name__ == "__main__":
    main()
