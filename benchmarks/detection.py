"""Measures the detector: precision and recall on known damage, false alarms on clean images, and the gain of its masks.

    python benchmarks/detection.py FOLDER [--model NAME|FILE] [--damage NAME ...] [--limit N]

Clean images are degraded at their full size, seeded by their names, and rounded to 8 bits. Masks are those of `restore
detect`, with the threshold and dilation of the weights. Precision, recall and F1 cover the pixels of all images, with a
tolerance of one pixel (Euclidean). For clean images, the table has the detected fraction of their pixels. `gain kept`
is the gain in PSNR as a fraction of the gain from the true masks (filled by `inpaint`, as `restore fix --masks
FOLDER`), both averaged over images: once for filling the detected masks only, and once for `restore fix --masks auto`,
which also cleans up with `photo` where needed. Prints Markdown.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from restore.degradations import key, load_degradation
from restore.devices import limit_threads
from restore.fix.pages import MemoryPage
from restore.fix.steps import Models, Steps, repair, run_steps, tiles_of
from restore.images import find_images, read_rgb8
from restore.metrics import psnr
from restore.metrics.segmentation import precision_recall_f1, tolerant_counts
from restore.restorers.detector import Detector, open_detector
from restore.restorers.registry import open_restorer


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="detector", help="name or weights file of a detector")
    parser.add_argument("--damage", nargs="+", default=["scratch"], help="names of damages with masks")
    parser.add_argument("--limit", type=int, help="use only the first N images")
    args = parser.parse_args()

    limit_threads()
    models = Models(open_restorer("inpaint"), open_restorer("photo"), open_detector(args.model))
    names = find_images(args.folder)[: args.limit]
    images = [torch.from_numpy(read_rgb8(args.folder / n)).permute(2, 0, 1)[None].float() / 255 for n in names]
    clean(models.detector, names, images)
    print("\n| damage | damaged pixels | precision | recall | F1 | gain kept by filling | by `--masks auto` |")
    print("|---|---|---|---|---|---|---|")
    for damage in args.damage:
        damaged(damage, models, names, images)


def clean(detector: Detector, names: list[Path], images: list[Tensor]) -> None:
    """Print the table of false alarms and time on clean images."""
    shares, seconds = [], 0.0
    for image in images:
        start = time.perf_counter()
        shares.append(float(detector.detect(as_array(image)).mean()))
        seconds += time.perf_counter() - start
    megapixels = sum(image[0, 0].numel() for image in images) / 1e6
    worst = int(np.argmax(shares))
    print("| detected in clean images, mean | median | worst | s/megapixel |\n|---|---|---|---|")
    print(
        f"| {np.mean(shares):.3%} | {np.median(shares):.3%} | {shares[worst]:.2%} ({names[worst].stem}) "
        f"| {seconds / megapixels:.2f} |",
        flush=True,
    )


def damaged(name: str, models: Models, names: list[Path], images: list[Tensor]) -> None:
    """Print one row: detection of one kind of damage."""
    damage, tiles = load_degradation(name), tiles_of([models], "auto")
    steps = Steps(detect=True, restore=True, clean_up=True, masked=True, spare_clean=True)
    counts, gains, shares = [], {"found": [], "auto": [], "true": []}, []
    for relative, image in zip(names, images):
        size = (image.shape[-2], image.shape[-1])
        shown, mask = damage.apply(image, damage.sample(torch.tensor([key(0, relative.stem)]), size))
        shown = rounded(shown)
        true = mask[0, 0].numpy()
        seen = as_array(shown)
        page = MemoryPage(lambda seen=seen: seen)
        run_steps(page, steps, models, tile_of=lambda model: tiles[id(model)], on_event=print)
        found = page.mask
        counts.append(tolerant_counts(torch.from_numpy(found)[None, None] > 0, mask > 0)[0])
        shares.append(true.mean())
        before = float(psnr(shown, image))
        results = {kind: repair(models.restorer, seen, holes) for kind, holes in (("found", found), ("true", true))}
        results["auto"] = seen if page.repaired is None else page.repaired
        for kind, result in results.items():
            repaired = rounded(torch.from_numpy(result).permute(2, 0, 1)[None])
            gains[kind].append(float(psnr(repaired, image)) - before)
    precision, recall, f1 = (float(x) for x in precision_recall_f1(torch.stack(counts).sum(0)))
    kept, auto = (np.mean(gains[kind]) / np.mean(gains["true"]) for kind in ("found", "auto"))
    print(
        f"| {name} | {np.mean(shares):.2%} | {precision:.3f} | {recall:.3f} | {f1:.3f} "
        f"| {kept:.1%} of {np.mean(gains['true']):.2f} dB | {auto:.1%} |",
        flush=True,
    )


def as_array(image: Tensor) -> np.ndarray:
    """1×3×H×W -> H×W×3."""
    return np.ascontiguousarray(image[0].permute(1, 2, 0).numpy())


def rounded(image: Tensor) -> Tensor:
    """Round to 8 bits."""
    return (image.clamp(0, 1) * 255).round() / 255


if __name__ == "__main__":
    main()
