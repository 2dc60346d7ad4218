"""Measures the time of each default model, and of `--masks auto`, on an image of 12 megapixels.

    python benchmarks/model_speed.py [--megapixels 12] [--detector NAME|FILE] [--device auto] [--repeat 2]

All models process an enlarged photograph with some grain. For `inpaint`, strokes cover a fifth of it. For the detector
and for all steps of `restore fix --masks auto` (detector, `inpaint` inside the detected mask, `photo`), it has
scratches, hairs and dust. Tiles and precision are those that `fix` chooses; reading and writing are not included. The
fastest of `--repeat` runs counts. Prints Markdown.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import cv2
import numpy as np
import torch
from skimage import data

from restore.degradations import Degradation, degradation_from, key, load_degradation
from restore.devices import limit_threads
from restore.fix.pages import MemoryPage
from restore.fix.steps import Models, Steps, run_steps, tiles_of
from restore.restorers.base import Restorer
from restore.restorers.detector import open_detector
from restore.restorers.registry import open_restorer

GRAIN = 4 / 255
#: Strokes that cover a fifth (20.5 % of 12 megapixels) with the key below.
FIFTH = [{"name": "strokes", "count": [6, 6], "max_width": 60, "max_length": 220}]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megapixels", type=float, default=12.0)
    parser.add_argument("--detector", default="detector", help="name or weights file of a detector")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeat", type=int, default=2)
    args = parser.parse_args()

    limit_threads()
    photo, inpaint = (open_restorer(name, device=args.device) for name in ("photo", "inpaint"))
    detector = open_detector(args.detector, device=args.device)
    everything = Models(inpaint, photo, detector)
    tiles = tiles_of([everything], "auto")
    image = photograph(args.megapixels)
    holes, fifth = damaged(image, degradation_from(FIFTH, "a fifth"))
    scratched, true = damaged(image, load_degradation("scratch"))

    def chain(steps: Steps, image: np.ndarray, mask: np.ndarray | None, models: Models = everything) -> np.ndarray:
        page = MemoryPage(lambda: image, mask)
        run_steps(page, steps, models, tile_of=lambda one: tiles[id(one)], on_event=print)
        return np.zeros(1) if page.mask is None else page.mask

    def found() -> np.ndarray:
        return detector.detect(scratched, tile_px=tiles[id(detector)])

    def cleaned() -> np.ndarray:
        return chain(Steps(restore=True), image, None, Models(photo))

    def filled() -> np.ndarray:
        return chain(Steps(restore=True, masked=True), holes, fifth)

    def automatic() -> np.ndarray:
        return chain(Steps(detect=True, restore=True, clean_up=True, masked=True), scratched, None)

    print(f"{image.shape[1]}×{image.shape[0]}, {torch.get_num_threads()} threads, {describe(photo)}\n")
    print("| | repaired pixels | s/megapixel |\n|---|---|---|")
    runs: tuple[tuple[str, Callable[[], np.ndarray], float | None], ...] = (
        ("`photo`", cleaned, 1.0),
        ("`detector`", found, None),
        ("`inpaint`", filled, None),
        ("`--masks auto`", automatic, None),
    )
    for name, run, share in runs:
        seconds, mask = best_of(args.repeat, run)
        print(f"| {name} | {share or (mask > 0).mean():.1%} | {seconds / image[..., 0].size * 1e6:.2f} |", flush=True)
    print(f"\nPixels with scratches: {(true > 0).mean():.1%}")


def describe(restorer: Restorer) -> str:
    """Device and precision."""
    return f"{restorer.device.type}, {getattr(restorer, 'precision', 'fp32')}"


def photograph(megapixels: float) -> np.ndarray:
    """H×W×3 in [0, 1], 4:3."""
    width = round((megapixels * 1e6 * 4 / 3) ** 0.5)
    large = cv2.resize(data.astronaut(), (width, round(width * 3 / 4)), interpolation=cv2.INTER_CUBIC) / 255
    return (large + np.random.default_rng(0).normal(0, GRAIN, large.shape)).clip(0, 1).astype(np.float32)


def damaged(image: np.ndarray, damage: Degradation) -> tuple[np.ndarray, np.ndarray]:
    """The degraded image, H×W×3, and its mask, H×W."""
    image = torch.from_numpy(image).permute(2, 0, 1)[None]
    size = (image.shape[-2], image.shape[-1])
    shown, mask = damage.apply(image, damage.sample(torch.tensor([key(0, "picture")]), size))
    return np.ascontiguousarray(shown[0].permute(1, 2, 0).numpy()), mask[0, 0].numpy()


def best_of(repeat: int, run: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    """Seconds of the fastest run, and what it returned."""
    seconds = []
    for _ in range(repeat):
        started = time.perf_counter()
        mask = run()
        seconds.append(time.perf_counter() - started)
    return min(seconds), mask


if __name__ == "__main__":
    main()
