"""Measures the filling of portraits with a third of the face covered.

    python benchmarks/portraits.py FOLDER [--model inpaint telea] [--count 20] [--lpips-net squeeze] [--lpips-weights F]
        [--sheet portraits.png]

Faces are found by scikit-image's cascade of local binary patterns; photographs without exactly one face are skipped. A
third of the face is covered from the left, from above, from the right and from below in turn, with a ragged edge. The
table in Markdown has PSNR and LPIPS in the hole, and the ratio of each model's LPIPS to that of the last model. The
sheet has a row for each photograph: covered, filled by each model, true.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from skimage import data
from skimage.feature import Cascade

from restore.fix.steps import repair
from restore.hashed_random import key
from restore.images import find_images, read_rgb8
from restore.metrics import score_batch
from restore.metrics.lpips import open_lpips
from restore.restorers.registry import open_restorer

SIDE_PX = 400
SIDES = ("left", "above", "right", "below")


def portraits(folder: Path, count: int) -> Iterator[tuple[str, np.ndarray, tuple[int, int, int, int]]]:
    """The first photographs with one face: name, H×W×3 in [0, 1], and the face as y, x, height, width."""
    cascade = Cascade(data.lbp_frontal_face_cascade_filename())
    for name in find_images(folder):
        image = read_rgb8(folder / name)
        share = SIDE_PX / min(image.shape[:2])
        image = cv2.resize(image, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
        small, large = (SIDE_PX // 5, SIDE_PX // 5), (SIDE_PX, SIDE_PX)
        faces = cascade.detect_multi_scale(image, scale_factor=1.2, step_ratio=1, min_size=small, max_size=large)
        if len(faces) == 1:
            face = faces[0]
            yield str(name), image.astype(np.float32) / 255, (face["r"], face["c"], face["height"], face["width"])
            count -= 1
        if count == 0:
            return


def covered(
    size: tuple[int, int], face: tuple[int, int, int, int], side: str, random: np.random.Generator
) -> np.ndarray:
    """The hole: a third of the face, with a ragged edge, H×W."""
    y, x, height, width = face
    hole = np.zeros(size, np.float32)
    if side in ("above", "below"):
        start = y if side == "above" else y + height - height // 3
        hole[start : start + height // 3, x : x + width] = 1
    else:
        start = x if side == "left" else x + width - width // 3
        hole[y : y + height, start : start + width // 3] = 1
    coarse = random.normal(size=(size[0] // 12 + 2, size[1] // 12 + 2)).astype(np.float32)
    ragged = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)
    return cv2.GaussianBlur(hole, (0, 0), 5) + 0.1 * ragged > 0.5


def tensor(image: np.ndarray) -> torch.Tensor:
    """H×W×3 -> 1×3×H×W."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", nargs="+", default=["inpaint", "telea"], help="the last one is the reference")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--lpips-net", default="alex", choices=("alex", "squeeze", "vgg"))
    parser.add_argument("--lpips-weights", type=Path)
    parser.add_argument("--sheet", type=Path, help="write the images there")
    args = parser.parse_args()
    lpips = open_lpips(args.lpips_net, args.lpips_weights)
    models = [open_restorer(name, device="cpu", precision="fp32") for name in args.model]
    scores: list[list[tuple[float, float]]] = [[] for _ in models]
    rows = []
    for number, (name, clean, face) in enumerate(portraits(args.folder, args.count)):
        random = np.random.default_rng(key(0, name) % 2**63)
        hole = covered(clean.shape[:2], face, SIDES[number % len(SIDES)], random)
        shown = np.where(hole[..., None], np.float32(1), clean)
        row = [shown]
        for model, found in zip(models, scores):
            filled = repair(model, shown, hole.astype(np.float32), tile_px=512)
            row.append(filled)
            mask = torch.from_numpy(hole[None, None].astype(np.float32))
            one = score_batch(tensor(filled), tensor(clean), mask, lpips, metrics=("psnr",))
            found.append((float(one["psnr_hole"]), float(one["lpips_hole"])))
        y, x, height, width = face
        top, left = max(y - height // 4, 0), max(x - width // 4, 0)
        parts = [image[top : top + height * 3 // 2, left : left + width * 3 // 2] for image in (*row, clean)]
        rows.append(np.concatenate([cv2.resize(part, (200, 200), interpolation=cv2.INTER_AREA) for part in parts], 1))
    means = [np.mean(found, axis=0) for found in scores]
    print(f"{len(rows)} portraits\n\n| model | PSNR | LPIPS | relative |\n|---|---|---|---|")
    for model, (psnr, distance) in zip(models, means):
        print(f"| {model.name} | {psnr:.2f} | {distance:.4f} | {distance / means[-1][1]:.3f} |")
    if args.sheet is not None:
        half = (len(rows) + 1) // 2
        blank = [np.ones_like(rows[0])] * (2 * half - len(rows))
        columns = [np.concatenate(part) for part in (rows[:half], [*rows[half:], *blank])]
        sheet = np.rint(np.concatenate(columns, 1)[..., ::-1] * 255).clip(0, 255).astype(np.uint8)
        cv2.imwrite(str(args.sheet), sheet)


if __name__ == "__main__":
    main()
