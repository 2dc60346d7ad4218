"""Measures `restore fix --correct-fading` on faded photographs, and on photographs that are not faded.

    python benchmarks/fade.py FOLDER [--count 40]

Fades images with the degradation `fade` (default settings, keyed by the image's number), corrects the fading, and
compares with the original: PSNR, CIEDE2000. The same without fading first. Prints Markdown.
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
    fade, faded, undone, untouched = Fade(), [], [], []
    for number, name in enumerate(names):
        clean = read_rgb8(args.folder / name).astype(np.float32) / 255
        tensor = torch.from_numpy(np.ascontiguousarray(clean.transpose(2, 0, 1)))[None]
        params = fade.sample(torch.tensor([key(0, str(number))]), clean.shape[:2])
        before = np.rint(fade.apply(tensor, params)[0][0].numpy().transpose(1, 2, 0).clip(0, 1) * 255) / 255
        before = before.astype(np.float32)
        faded.append(scores(before, clean))
        undone.append(scores(unfaded(before), clean))
        untouched.append(scores(unfaded(clean), clean)[1])
    nearer = sum(after[1] < before[1] for before, after in zip(faded, undone))
    print("| | PSNR, dB | ΔE2000 |\n|---|---|---|")
    for title, rows in (("faded", faded), ("undone", undone)):
        print("| {} | {:.2f} | {:.2f} |".format(title, *np.mean(rows, axis=0)))
    print(f"\nCloser to the original in ΔE: {nearer} of {len(names)}. Images that were not faded change by ΔE", end=" ")
    print(f"{np.median(untouched):.2f} (median), {np.max(untouched):.2f} (maximum).")


if __name__ == "__main__":
    main()
