"""Measures `restore fix --correct-fading` on faded photographs, and on photographs that are not faded.

    python benchmarks/fade.py FOLDER [--count 40]

Fades images with the degradation `fade` (default settings, seeded by the image's number), corrects the fading, and
compares with the original by PSNR and CIEDE2000. Does the same with strong casts from a model of the dyes of a color
print, and with unfaded images. Prints Markdown.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from restore.degradations import key
from restore.degradations.color import Fade
from restore.fix.fade_correction import unfaded
from restore.images import find_images, read_rgb8
from restore.metrics import score_batch

# Density in red, green and blue light (rows) per unit of cyan, magenta and yellow dye: about those of color paper.
ABSORPTION = np.array([[1, 0.1, 0.01], [0.2, 1, 0.06], [0.08, 0.2, 1]])
# Ranges of what is left of each dye (cyan, magenta, yellow), and of the stain's density in red, green and blue light.
CASTS = {
    "magenta (cyan lost)": (((0.2, 0.55), (0.75, 1), (0.6, 0.95)), ((0, 0), (0, 0.04), (0.03, 0.15))),
    "amber (all lost, stained)": (((0.35, 0.7), (0.45, 0.8), (0.6, 0.95)), ((0, 0.04), (0.04, 0.15), (0.15, 0.45))),
    "yellowed paper": (((0.7, 1), (0.7, 1), (0.7, 1)), ((0, 0.04), (0.02, 0.12), (0.1, 0.35))),
    "cyan (magenta, yellow lost)": (((0.8, 1), (0.3, 0.6), (0.35, 0.75)), ((0, 0), (0, 0), (0, 0.06))),
}


def decayed(image: np.ndarray, cast: str, seed: int) -> np.ndarray:
    """A print (H×W×3, sRGB in [0, 1]) whose dyes have decayed, scanned at 8 bits, with a little stray light."""
    rng = np.random.default_rng(seed)
    kept, stain = (np.array([rng.uniform(*ends) for ends in ranges]) for ranges in CASTS[cast])
    linear = np.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4)
    density = -np.log10(np.maximum(linear, 10 ** -rng.uniform(1.9, 2.4)))
    dyes = np.maximum(density @ np.linalg.inv(ABSORPTION).T, 0)
    stray = rng.uniform(0.002, 0.015)
    linear = stray + (1 - stray) * 10 ** -((dyes * kept) @ ABSORPTION.T + stain)
    out = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return (np.rint(out * 255) / 255).astype(np.float32)


def scores(image: np.ndarray, true: np.ndarray) -> tuple[float, float]:
    """PSNR in dB and mean ΔE2000 of two H×W×3 in [0, 1]."""
    a, b = (torch.from_numpy(np.ascontiguousarray(x.transpose(2, 0, 1)))[None] for x in (image, true))
    found = score_batch(a, b, None, None, metrics=("psnr", "delta_e"))
    return float(found["psnr"]), float(found["delta_e"])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=40, help="number of images, evenly spread over the folder")
    args = parser.parse_args()
    names = find_images(args.folder)
    names = names[:: max(len(names) // args.count, 1)][: args.count]
    fade, untouched = Fade(), []
    faded: dict[str, list[tuple[float, float]]] = {title: [] for title in ("`fade`", *CASTS)}
    undone: dict[str, list[tuple[float, float]]] = {title: [] for title in faded}
    for number, name in enumerate(names):
        clean = read_rgb8(args.folder / name).astype(np.float32) / 255
        tensor = torch.from_numpy(np.ascontiguousarray(clean.transpose(2, 0, 1)))[None]
        params = fade.sample(torch.tensor([key(0, str(number))]), clean.shape[:2])
        before = np.rint(fade.apply(tensor, params)[0][0].numpy().transpose(1, 2, 0).clip(0, 1) * 255) / 255
        images = {"`fade`": before.astype(np.float32)} | {cast: decayed(clean, cast, number) for cast in CASTS}
        for title, image in images.items():
            faded[title].append(scores(image, clean))
            undone[title].append(scores(unfaded(image), clean))
        untouched.append(scores(unfaded(clean), clean)[1])
    print("| | PSNR, dB: faded | corrected | ΔE2000: faded | corrected | closer to the original in ΔE |")
    print("|---|---|---|---|---|---|")
    for title, rows in faded.items():
        (psnr, delta), (new_psnr, new_delta) = np.mean(rows, axis=0), np.mean(undone[title], axis=0)
        nearer = sum(after[1] < before[1] for before, after in zip(rows, undone[title]))
        print(f"| {title} | {psnr:.1f} | {new_psnr:.1f} | {delta:.1f} | {new_delta:.1f} | {nearer} of {len(names)} |")
    print("\nImages that were not faded change by ΔE", end=" ")
    print(f"{np.median(untouched):.2f} (median), {np.mean(untouched):.2f} (mean), {np.max(untouched):.2f} (maximum).")


if __name__ == "__main__":
    main()
