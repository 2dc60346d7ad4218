"""Measures `restore fix --mask-dilate auto` on masks that are too tight, that fit, and that are too wide.

    python benchmarks/mask_fit.py FOLDER [--count 100]

Degrades photographs (resized to at most 800 pixels) seeded by their numbers, saves them as JPEG of quality 90, erodes
the exact masks by up to three pixels or dilates them by three, and applies automatic dilation. Does the same with the
exact masks on undamaged photographs. Prints Markdown: for tight masks, the recovered fraction of the eroded rim; for
the others, the number of unchanged masks, and the area added to all of them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch

from restore.degradations import key, load_degradation
from restore.fix.auto_dilation import widen_holes
from restore.images import find_images, read_rgb8

DAMAGES = ("inpaint-text", "inpaint-thin", "inpaint-blobs", "scratch")
TIGHT = (-1, -2, -3)
FITS, GENEROUS, UNDAMAGED = 0, 3, None
SIDE_PX = 800


def stored(image: np.ndarray) -> np.ndarray:
    """H×W×3 in [0, 1] through a JPEG of quality 90."""
    pixels = np.rint(image[:, :, ::-1] * 255).clip(0, 255).astype(np.uint8)
    file = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
    return np.asarray(cv2.imdecode(file, cv2.IMREAD_COLOR)[:, :, ::-1], np.float32) / 255


def moved(mask: np.ndarray, by_px: int) -> np.ndarray:
    """Dilate a mask by N pixels, or erode it by −N."""
    across = np.arange(-abs(by_px), abs(by_px) + 1)
    disc = (across[:, None] ** 2 + across[None] ** 2 <= by_px**2).astype(np.uint8)
    change = cv2.dilate if by_px > 0 else cv2.erode
    return change(mask.astype(np.uint8), disc) > 0 if by_px else mask


def judged(mask: np.ndarray, given: np.ndarray, image: np.ndarray) -> tuple[float, ...]:
    """Whether the mask is unchanged; pixels recovered of the rim, of the rim, beyond the true mask, of the mask."""
    added = (widen_holes(given.astype(np.float32), image) > 0) & ~given
    rim = mask & ~given
    return float(not added.any()), (added & rim).sum(), rim.sum(), (added & ~mask).sum(), given.sum()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=100, help="number of images, evenly spread over the folder")
    args = parser.parse_args()
    names = find_images(args.folder)
    names = names[:: max(len(names) // args.count, 1)][: args.count]
    print("| degradation | 1 / 2 / 3 px too tight | exact | 3 px too wide | undamaged image |\n|---|---|---|---|---|")
    for title in DAMAGES:
        damage = load_degradation(title)
        found: dict[int | None, list[tuple[float, ...]]] = {}
        for number, name in enumerate(names):
            clean = read_rgb8(args.folder / name).astype(np.float32) / 255
            share = min(1.0, SIDE_PX / max(clean.shape))
            clean = cv2.resize(clean, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
            image = torch.from_numpy(np.ascontiguousarray(clean.transpose(2, 0, 1)))[None]
            damaged, marked = damage(image, torch.tensor([key(0, str(number))]))
            mask, image = marked[0, 0].numpy() > 0, stored(damaged[0].numpy().transpose(1, 2, 0))
            for by_px in (*TIGHT, FITS, GENEROUS):
                given = moved(mask, by_px)
                if given.any():
                    found.setdefault(by_px, []).append(judged(mask, given, image))
            if mask.any():
                found.setdefault(UNDAMAGED, []).append(judged(mask, mask, stored(clean)))
        totals = {case: np.sum(rows, axis=0) for case, rows in found.items()}
        rims = " / ".join(
            f"{again / rim:.0%}" for _, again, rim, *_ in (totals[case] for case in TIGHT if case in totals)
        )
        others = (
            f"{stayed:.0f} of {len(found[case])}, {beyond / given:.1%}"
            for case, (stayed, _, _, beyond, given) in totals.items()
            if case not in TIGHT
        )
        print(f"| {title} | {rims} | {' | '.join(others)} |")


if __name__ == "__main__":
    main()
