"""Measures the detector on drawn shapes of dirt, laid over undamaged photographs.

    python benchmarks/drawn_shapes.py SHAPES PHOTOGRAPHS [--model NAME|FILE] [--count 4]

SHAPES has a subfolder for each kind of shape; every fifth file of a kind is used, so the others may train a detector.
`--count` photographs per kind get light shapes, and as many get dark ones. They are cut to 400 pixels around the
middle, and rounded to 8 bits. Precision, recall and F1 cover the pixels of all images, with a tolerance of one pixel
(Euclidean). Prints Markdown.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch

from restore.degradations import key
from restore.degradations.pipeline import degradation_from
from restore.devices import limit_threads
from restore.images import find_images, read_rgb8
from restore.metrics.segmentation import precision_recall_f1, tolerant_counts
from restore.restorers.detector import Detector, open_detector

SIDE_PX = 400
EVERY = 5


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shapes", type=Path)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--model", default="detector", help="name or weights file of a detector")
    parser.add_argument(
        "--count", type=int, default=4, help="photographs per kind with light shapes, and with dark ones"
    )
    args = parser.parse_args()

    limit_threads()
    detector, names = open_detector(args.model), find_images(args.photographs)
    print("| shapes | damaged pixels | precision | recall | F1 |\n|---|---|---|---|---|")
    totals = []
    for index, kind in enumerate(sorted({file.parts[0] for file in find_images(args.shapes) if len(file.parts) > 1})):
        files = [args.shapes / kind / file for file in find_images(args.shapes / kind)][::EVERY]
        counts, shares = [], []
        for number in range(2 * args.count):
            name = names[(2 * args.count * index + number) % len(names)]
            found, true = detect(detector, args.photographs / name, files, bright=number < args.count)
            counts.append(tolerant_counts(found, true)[0])
            shares.append(float(true.float().mean()))
        totals.append(torch.stack(counts).sum(0))
        row(kind, f"{sum(shares) / len(shares):.2%}", totals[-1])
    row("all", "", torch.stack(totals).sum(0))


def detect(
    detector: Detector, photograph: Path, shapes: list[Path], *, bright: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """The detected and the true mask of the photograph with shapes over it, bool, 1×1×H×W."""
    image = torch.from_numpy(read_rgb8(photograph)).permute(2, 0, 1)[None].float() / 255
    top, left = (max(side - SIDE_PX, 0) // 2 for side in image.shape[-2:])
    image = image[..., top : top + SIDE_PX, left : left + SIDE_PX]
    with tempfile.TemporaryDirectory() as folder:
        chosen = Path(folder) / "shapes.txt"
        chosen.write_text("\n".join(str(file.resolve()) for file in shapes), encoding="utf-8")
        step = {"name": "overlay", "folder": str(chosen), "count": [1, 3], "zoom": [0.8, 1], "opacity": [0.5, 1]}
        damage = degradation_from([step | {"scale_with_image": False, "bright": float(bright)}], "shapes")
        damaged, mask = damage(image, torch.tensor([key(0, photograph.name, int(bright))]))
    pixels = ((damaged.clamp(0, 1) * 255).round() / 255)[0].permute(1, 2, 0).contiguous().numpy()
    return torch.from_numpy(detector.detect(pixels))[None, None] > 0, mask > 0


def row(kind: str, share: str, counts: torch.Tensor) -> None:
    """Print one row."""
    precision, recall, f1 = (float(value) for value in precision_recall_f1(counts))
    print(f"| {kind} | {share} | {precision:.2f} | {recall:.2f} | {f1:.2f} |", flush=True)


if __name__ == "__main__":
    main()
