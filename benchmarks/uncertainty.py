"""Fits and scores the maps of `restore fix --uncertainty`, and scores the fills of `--fills`, on holes with known
truth.

    python benchmarks/uncertainty.py fit PHOTOGRAPHS [--damage NAME ...]
    python benchmarks/uncertainty.py score IMAGES [--fills 4] [--lpips-net squeeze --lpips-weights FILE]

`fit` uses the photographs that `restore train` sets aside. It prints how well each feature, and several together,
predict the errors of holes, fitted on one half of the photographs and scored on the other: the correlation over holes,
and over pixels AUSE and the mean deviance in levels of 255. Then it prints the constants of `restore.fix.uncertainty`,
fitted on all. The logarithm of the expected error is linear in the features, fitted by quasi-likelihood with the
variance of a Poisson distribution (McCullagh and Nelder 1989, chapter 9), so that the mean expected error is the mean
true error.

`score` compares the errors expected by those constants with the true errors, and prints Markdown: the correlation over
holes (connected components of at least 25 pixels), a reliability table over ten bins with the same number of pixels,
and AUSE. AUSE is the area between two curves, as a share of the mean error: the remaining mean error when the pixels
with the largest expected errors are removed, and when those with the largest true errors are removed. With `--fills`,
it also compares fills with each other and with the truth.

Every repair is kept in the folder `--work`, so that a second run is fast.
"""

from __future__ import annotations

import argparse
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import torch

from restore.benchmark.degradations import find_degradations
from restore.data.config import Folder
from restore.data.discovery import split_files
from restore.fix import uncertainty
from restore.fix.steps import repair
from restore.images import find_images, read_rgb8
from restore.metrics import score_batch
from restore.metrics.lpips import open_lpips
from restore.restorers.registry import open_restorer

FEATURES = ("spread", "depth", "contrast")
SMALLEST_HOLE_PX = 25
STEPS = np.linspace(0, 0.95, 20)


class Repairs:
    """Repairs of damaged images, kept in a folder."""

    def __init__(self, folder: Path, crop: int) -> None:
        self.folder, self.crop, self.inpaint = folder, crop, open_restorer("inpaint", device="cpu")
        folder.mkdir(parents=True, exist_ok=True)

    def sample(self, file: Path, damage: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The truth and the damaged image, H×W×3 in [0, 1], and the holes, H×W."""
        clean = read_rgb8(file)
        if self.crop:
            tall, wide = (min(side, self.crop) for side in clean.shape[:2])
            top, left = (clean.shape[0] - tall) // 2, (clean.shape[1] - wide) // 2
            clean = clean[top : top + tall, left : left + wide]
        sample = find_degradations([damage], 0)[0].degrade(clean, file.stem)
        assert sample.mask is not None
        arrays = [np.ascontiguousarray(one[0].permute(1, 2, 0).numpy()) for one in (sample.clean, sample.degraded)]
        return arrays[0], arrays[1], sample.mask[0, 0].numpy() > 0

    def repair(self, file: Path, damage: str, seed: int, rows: bool = False, columns: bool = False) -> np.ndarray:
        """A repair of the image in a mirror, mirrored back, rounded to 16 bits."""
        kept = self.folder / f"{file.stem}_{damage}_{self.crop}_{seed}{rows:d}{columns:d}.png"
        if not kept.exists():
            _, damaged, holes = self.sample(file, damage)
            flip = (slice(None, None, -1 if rows else 1), slice(None, None, -1 if columns else 1))
            mask = np.ascontiguousarray(holes[flip]).astype(np.float32)
            filled = repair(self.inpaint.with_seed(seed), np.ascontiguousarray(damaged[flip]), mask)[flip]
            cv2.imwrite(str(kept), np.rint(filled[..., ::-1] * 65535).astype(np.uint16))
        return np.asarray(cv2.imread(str(kept), cv2.IMREAD_UNCHANGED)[..., ::-1], np.float32) / 65535

    def mirrored(self, file: Path, damage: str) -> list[np.ndarray]:
        """The repairs that `restore fix --uncertainty` compares."""
        ways = enumerate(uncertainty.MIRRORS, start=1)
        return [self.repair(file, damage, 0), *(self.repair(file, damage, seed, *mirror) for seed, mirror in ways)]


def regions(holes: np.ndarray) -> list[np.ndarray]:
    """The connected components of the holes, each as indices of the pixels in holes."""
    count, labels = cv2.connectedComponents(holes.astype(np.uint8))
    inside = labels[holes]
    found = [np.flatnonzero(inside == label) for label in range(1, count)]
    return [one for one in found if len(one) >= SMALLEST_HOLE_PX]


def fitted(columns: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """The weights of 1 and each column, by iteratively reweighted least squares."""
    columns = np.column_stack([np.ones(len(columns)), columns]).astype(np.float64)
    weights = np.linalg.lstsq(columns, np.log(errors + 1 / 255), rcond=None)[0]
    for _ in range(30):
        mean = np.exp(columns @ weights)
        working = columns @ weights + (errors - mean) / mean
        weights = np.linalg.solve((columns * mean[:, None]).T @ columns, (columns * mean[:, None]).T @ working)
    return weights


def fit(args: argparse.Namespace) -> None:
    """Compare the features, and print the constants."""
    files = split_files([Folder(path=args.folder)], args.percent).validation
    files = files[: args.limit or None]
    repairs = Repairs(args.work, args.crop)
    columns, errors, groups = [], [], []
    for number, file in enumerate(files):
        for damage in args.damage or ["inpaint-medium", "inpaint-thin"]:
            truth, _, holes = repairs.sample(file, damage)
            if not holes.any():
                continue
            found = repairs.mirrored(file, damage)
            columns.append(uncertainty.features(found, holes))
            errors.append(np.abs(found[0] - truth).mean(axis=2)[holes])
            groups.append((number % 2, regions(holes)))
    print(f"{len(files)} photographs, {sum(map(len, errors)):,} pixels\n")
    print("| features | correlation over holes | mean expected / true | AUSE | deviance |\n|---|---|---|---|---|")
    subsets = [chosen for size in (1, 2, 3) for chosen in combinations(range(len(FEATURES)), size)]
    for chosen in subsets:
        means: list[tuple[float, float]] = []
        areas, deviances = [], []
        for half in (0, 1):
            own = [at for at, (group, _) in enumerate(groups) if group == half]
            weights = fitted(
                np.concatenate([columns[at][:, chosen] for at in own]), np.concatenate([errors[at] for at in own])
            )
            for at in (at for at, (group, _) in enumerate(groups) if group != half):
                expected = np.exp(weights[0] + columns[at][:, chosen] @ weights[1:])
                means += [(expected[one].mean(), errors[at][one].mean()) for one in groups[at][1]]
                areas.append(ause(expected, errors[at])[0])
                rest = np.maximum(errors[at], 1e-9)
                deviances.append(510 * (rest * np.log(rest / expected) - rest + expected).mean())
        expected, true = np.transpose(means)
        names = ", ".join(FEATURES[one] for one in chosen)
        found = (np.corrcoef(expected, true)[0, 1], expected.mean() / true.mean(), np.mean(areas), np.mean(deviances))
        print("| {} | {:.3f} | {:.2f} | {:.3f} | {:.2f} |".format(names, *found))
    weights = fitted(np.concatenate(columns), np.concatenate(errors))
    print(f"\nCOEFFICIENTS = ({', '.join(f'{weight:.3f}' for weight in weights)})")


def ause(expected: np.ndarray, errors: np.ndarray) -> tuple[float, float]:
    """AUSE, and that of pixels taken away at random."""
    starts = (STEPS * len(errors)).astype(int)
    curves = []
    for order in (np.argsort(-expected), np.argsort(-errors)):
        sums = np.cumsum(errors[order][::-1])[::-1]
        curves.append(sums[starts] / (len(errors) - starts) / errors.mean())
    return float((curves[0] - curves[1]).mean()), float((1 - curves[1]).mean())


def score(args: argparse.Namespace) -> None:
    """Print how well expected errors agree with true ones, and the scores of fills."""
    files = [args.folder / name for name in find_images(args.folder)]
    # Every fifth, then those after them: spread over the folder, and a larger number has those of a smaller one.
    files = [files[at] for at in sorted(range(len(files)), key=lambda at: (at % 5, at))][: args.limit or None]
    repairs, (damage,) = Repairs(args.work, args.crop), args.damage or ["inpaint-medium"]
    lpips = open_lpips(args.lpips_net, args.lpips_weights) if args.fills > 1 else None
    holes_found, areas, fills = [], [], []
    all_expected, all_errors = [], []
    for file in files:
        truth, _, holes = repairs.sample(file, damage)
        found = repairs.mirrored(file, damage)
        expected = uncertainty.expected_error(found, holes)[holes]
        errors = np.abs(found[0] - truth).mean(axis=2)[holes]
        holes_found += [(expected[one].mean(), errors[one].mean()) for one in regions(holes)]
        areas.append(ause(expected, errors))
        all_expected.append(expected)
        all_errors.append(errors)
        if lpips is not None:
            tensors = [tensor(found[0]), *(tensor(repairs.repair(file, damage, seed)) for seed in range(1, args.fills))]
            mask, true = torch.from_numpy(holes[None, None].astype(np.float32)), tensor(truth)
            each = [score_batch(one, true, mask, lpips, metrics=("psnr",)) for one in tensors]
            middle = score_batch(torch.stack(tensors).mean(dim=0), true, mask, metrics=("psnr",))
            apart = [lpips.scores(one, other, mask)[1] for one, other in combinations(tensors, 2)]
            fills.append(
                [float(one["psnr_hole"]) for one in each] + [float(one["lpips_hole"]) for one in each]
                + [float(middle["psnr_hole"]), float(torch.stack(apart).mean()), float(torch.stack(apart).min())]
            )  # fmt: skip
    expected, true = np.transpose(holes_found)
    print(f"{len(files)} images, {len(expected)} holes, {sum(map(len, all_errors)):,} pixels\n")
    print("| | |\n|---|---|")
    print(f"| correlation over holes (Pearson) | {np.corrcoef(expected, true)[0, 1]:.3f} |")
    ranks = [np.argsort(np.argsort(values)) for values in (expected, true)]
    print(f"| of their ranks (Spearman) | {np.corrcoef(*ranks)[0, 1]:.3f} |")
    own, random = np.mean(areas, axis=0)
    print(f"| AUSE; of pixels taken at random | {own:.3f}; {random:.3f} |")
    expected, true = np.concatenate(all_expected), np.concatenate(all_errors)
    print(f"| mean expected and true error, levels of 255 | {expected.mean() * 255:.2f}, {true.mean() * 255:.2f} |")
    print("\n| bin of pixels | expected, levels of 255 | true |\n|---|---|---|")
    for number, chosen in enumerate(np.array_split(np.argsort(expected), 10), start=1):
        print(f"| {number} | {expected[chosen].mean() * 255:.2f} | {true[chosen].mean() * 255:.2f} |")
    if fills:
        table, count = np.array(fills), args.fills
        means = table.mean(axis=0)
        print(
            "\n| fill | PSNR in the hole, dB | LPIPS in the hole | of the first, ± standard error |\n|---|---|---|---|"
        )
        for number in range(count):
            more = table[:, count + number] - table[:, count]
            share, error = means[count + number] / means[count], more.std() / len(more) ** 0.5 / means[count]
            print(f"| {number + 1} | {means[number]:.2f} | {means[count + number]:.4f} | {share:.3f} ± {error:.3f} |")
        print(f"| mean of the fills | {means[2 * count]:.2f} | | |")
        least = min(row[-1] for row in fills)
        print(f"\nLPIPS between two fills in the hole: mean {means[-2]:.4f}, least of all {least:.4f}")


def tensor(image: np.ndarray) -> torch.Tensor:
    """H×W×3 -> 1×3×H×W, rounded to 8 bits."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None].mul(255).round().div(255)


def main() -> None:
    """Fit or score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, function in (("fit", fit), ("score", score)):
        command = commands.add_parser(name)
        command.set_defaults(run=function)
        command.add_argument("folder", type=Path)
        command.add_argument("--damage", action="append", help="of `restore bench`; repeatable for fit")
        command.add_argument("--limit", type=int, default=0, help="number of images; 0: all")
        command.add_argument("--crop", type=int, default=0, help="center crops of this side; 0: whole images")
        command.add_argument("--work", type=Path, default=Path("uncertainty-work"), help="folder of the repairs")
        if name == "fit":
            command.add_argument("--percent", type=float, default=3.0, help="data.validation_percent of the training")
        else:
            command.add_argument("--fills", type=int, default=1)
            command.add_argument("--lpips-net", default="alex")
            command.add_argument("--lpips-weights", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.run(args)


if __name__ == "__main__":
    main()
