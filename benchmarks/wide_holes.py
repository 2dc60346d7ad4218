"""Measures how `inpaint` fills lost corners and borders, tears across the image, and blobs.

    python benchmarks/wide_holes.py FOLDER [FOLDER ...] [--count 12] [--weights squeezenet1_1.safetensors] [--out DIR]

Every photograph gets one hole of each kind, drawn from its number; sizes are in proportion to a smaller side of 600
pixels. Three cases:

- exact: the photograph outside the hole is intact.
- soft: the damage is paper white with an edge that rises over 1.2 to 2.7 pixels, and the whole image is sharpened and
  saved as JPEG, as scans are. The hole ends where the damage is half visible, so its rim is neither clean nor fully
  damaged.
- widened: as soft, and the hole is dilated by 2 pixels.

The truth of the last two is the photograph without the damage, sharpened and saved alike. Prints Markdown: PSNR and
LPIPS in the hole, the seam ratio, the fine detail in the hole relative to the true detail, and how many patches of the
filling have a copy elsewhere in the image, relative to the truth.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from restore.fix.steps import repair
from restore.hashed_random import key
from restore.images import find_images, read_rgb8
from restore.metrics import score_batch
from restore.restorers.registry import open_restorer

KINDS = ("corner", "border", "tear", "blobs")
CASES = ("exact", "soft", "widened")
MEASURES = ("psnr", "lpips", "seam", "detail", "copies")


def noise(random: np.random.Generator, shape: tuple[int, ...], period_px: float) -> np.ndarray:
    """Smooth noise of standard deviation 1: one or two dimensions."""
    coarse = random.normal(size=[int(side / period_px) + 4 for side in shape]).astype(np.float32)
    if len(shape) == 1:
        return np.interp(np.arange(shape[0]) / period_px, np.arange(len(coarse)), coarse).astype(np.float32)
    large = cv2.resize(coarse, None, fx=period_px, fy=period_px, interpolation=cv2.INTER_CUBIC)
    return np.asarray(large[: shape[0], : shape[1]])


def signed_distance(kind: str, size: tuple[int, int], random: np.random.Generator) -> np.ndarray:
    """The distance of every pixel to the edge of the hole, negative inside, H×W."""
    height, width = size
    unit = min(size) / 600
    y, x = np.mgrid[:height, :width].astype(np.float32)
    ragged = 3 * unit * noise(random, size, 12 * unit + 1) + 1.5 * unit * noise(random, size, 4)
    if kind == "corner":
        reach = random.uniform(70, 140, 2) * unit
        y, x = (y if random.random() < 0.5 else height - 1 - y), (x if random.random() < 0.5 else width - 1 - x)
        inside = (y / reach[0] + x / reach[1] - 1) * reach.min() * 0.7
    elif kind == "border":
        depth = random.uniform(25, 60) * unit
        across = (y, height - 1 - y, x, width - 1 - x)[random.integers(4)]
        inside = across - depth
        ragged = 8 * unit * noise(random, size, 60 * unit) + ragged
    elif kind == "tear":
        along, across = (y, x) if random.random() < 0.5 else (x, y)
        span = along.shape[0] if along is y else along.shape[1]
        path = np.linspace(*random.uniform(0.3, 0.7, 2), span) * (size[1] if along is y else size[0])
        path = path + 15 * unit * noise(random, (span,), 60 * unit)
        inside = np.abs(across - path[along.astype(int)]) - random.uniform(6, 9) * unit
        ragged *= 0.4
    else:
        inside = np.full(size, np.inf, np.float32)
        for _ in range(2):
            radius = random.uniform(20, 60) * unit
            center = random.uniform(0.2, 0.8, 2) * size
            inside = np.minimum(inside, np.hypot(y - center[0], x - center[1]) - radius)
        ragged = 6 * unit * noise(random, size, 30 * unit) + ragged
    hole = (inside + ragged < 0).astype(np.uint8)
    return np.asarray(
        cv2.distanceTransform(1 - hole, cv2.DIST_L2, 5) - cv2.distanceTransform(hole, cv2.DIST_L2, 5)
    ) + np.where(hole, 0.5, -0.5).astype(np.float32)


def scanned(image: np.ndarray) -> np.ndarray:
    """H×W×3 in [0, 1], sharpened, and through a JPEG of quality 88."""
    sharp = image + 0.7 * (image - cv2.GaussianBlur(image, (0, 0), 1.2))
    pixels = np.rint(sharp[..., ::-1] * 255).clip(0, 255).astype(np.uint8)
    file = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 88])[1]
    return np.asarray(cv2.imdecode(file, cv2.IMREAD_COLOR)[..., ::-1], np.float32) / 255


def case_of(
    case: str, clean: np.ndarray, distance: np.ndarray, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The damaged image, the truth and the hole."""
    hole = distance < 0
    paper = (0.85 + 0.03 * noise(random, hole.shape, 6))[..., None] * np.float32([1, 0.98, 0.95])
    rise = random.uniform(1.2, 2.7)
    if case == "exact":
        return np.where(hole[..., None], np.float32(1), clean), clean, hole
    share = np.clip(0.5 - distance / rise, 0, 1)[..., None]
    if case == "widened":
        hole = distance < 2
    return scanned(clean + share * (paper.astype(np.float32) - clean)), scanned(clean), hole


def detail(image: np.ndarray, hole: np.ndarray) -> float:
    """The standard deviation, in the hole, of the detail that a Gaussian of 2 pixels removes."""
    gray = image.mean(axis=2)
    return float((gray - cv2.GaussianBlur(gray, (0, 0), 2))[hole].std())


def copies(image: np.ndarray, hole: np.ndarray, random: np.random.Generator, side: int = 13) -> float:
    """The mean over patches centered in the hole of their highest correlation with any patch elsewhere."""
    gray = image.mean(axis=2).astype(np.float32)
    high = gray - cv2.GaussianBlur(gray, (0, 0), 4)
    reach = side // 2
    inner = np.zeros_like(hole)
    inner[reach:-reach, reach:-reach] = hole[reach:-reach, reach:-reach]
    places = np.argwhere(inner)
    found = []
    for y, x in places[random.permutation(len(places))[:25]]:
        patch = high[y - reach : y + reach + 1, x - reach : x + reach + 1]
        if patch.std() < 1.5 / 255:
            continue
        alike = cv2.matchTemplate(high, patch, cv2.TM_CCOEFF_NORMED)
        alike[max(y - 2 * reach, 0) : y + 1, max(x - 2 * reach, 0) : x + 1] = 0
        found.append(float(alike.max()))
    return float(np.mean(found)) if found else np.nan


def tensor(image: np.ndarray) -> torch.Tensor:
    """H×W×3 -> 1×3×H×W."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]


def write(file: Path, *images: np.ndarray) -> None:
    """Write images side by side."""
    row = np.concatenate(images, axis=1)
    cv2.imwrite(str(file), np.rint(row[..., ::-1] * 255).clip(0, 255).astype(np.uint8))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--count", type=int, default=12, help="photographs of each folder, evenly spread")
    parser.add_argument("--weights", type=Path, help="SqueezeNet for LPIPS")
    parser.add_argument("--out", type=Path, help="write damaged | filled | true there")
    parser.add_argument("--cases", nargs="+", default=CASES, choices=CASES)
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    args = parser.parse_args()
    lpips = None
    if args.weights is not None:
        from restore.metrics.lpips import open_lpips

        lpips = open_lpips("squeeze", args.weights)
    inpaint = open_restorer("inpaint", device="cpu", precision="fp32")
    files = []
    for folder in args.folders:
        usable = find_images(folder)
        files += [folder / name for name in usable[:: max(len(usable) // args.count, 1)][: args.count]]
    found: dict[tuple[str, str], list[tuple[float, ...]]] = {}
    seconds: dict[str, float] = dict.fromkeys(args.kinds, 0.0)
    for number, file in enumerate(files):
        clean = read_rgb8(file).astype(np.float32) / 255
        share = min(1.0, 600 / min(clean.shape[:2]))
        clean = cv2.resize(clean, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
        for kind in args.kinds:
            seed = key(number, kind) % 2**63
            distance = signed_distance(kind, clean.shape[:2], np.random.default_rng(seed))
            for case in args.cases:
                damaged, truth, hole = case_of(case, clean, distance, np.random.default_rng(seed + 1))
                start = time.perf_counter()
                filled = repair(inpaint, damaged, hole.astype(np.float32), tile_px=512)
                seconds[kind] += time.perf_counter() - start
                mask = torch.from_numpy(hole[None, None].astype(np.float32))
                metrics = ("psnr", "seam", "seam_ratio")
                scores = score_batch(tensor(filled), tensor(truth), mask, lpips, metrics=metrics)
                one = (
                    float(scores["psnr_hole"]),
                    float(scores["lpips_hole"]) if lpips else np.nan,
                    float(scores["seam_ratio"]),
                    np.log2(max(detail(filled, hole), 1e-4) / max(detail(truth, hole), 1e-4)),
                    copies(filled, hole, np.random.default_rng(0)) - copies(truth, hole, np.random.default_rng(0)),
                )
                found.setdefault((kind, case), []).append(one)
                if args.out is not None:
                    args.out.mkdir(parents=True, exist_ok=True)
                    write(args.out / f"{number:02}_{kind}_{case}.png", damaged, filled, truth)
    print("| hole | case | PSNR | LPIPS | seam ratio | detail, log2 | copies |\n|---|---|---|---|---|---|---|")
    for kind in args.kinds:
        for case in args.cases:
            psnr, lpips_hole, seam, fine, alike = np.nanmean(found[kind, case], axis=0)
            print(f"| {kind} | {case} | {psnr:.2f} | {lpips_hole:.4f} | {seam:.2f} | {fine:+.2f} | {alike:+.3f} |")
    for case in args.cases:
        rows = [np.nanmean(found[kind, case], axis=0) for kind in args.kinds]
        psnr, lpips_hole, seam, fine, alike = np.mean(rows, axis=0)
        print(f"| mean | {case} | {psnr:.2f} | {lpips_hole:.4f} | {seam:.2f} | {fine:+.2f} | {alike:+.3f} |")
    print(", ".join(f"{kind} {total:.1f} s" for kind, total in seconds.items()))


if __name__ == "__main__":
    main()
