"""Measures masks that are painted on a copy of the photograph: `restore fix --masks COPY`.

    python benchmarks/painted_masks.py FOLDER [--count 24]

Paints strokes of 4 to 19 pixels in nine colors on photographs, saves the copies as PNG and as JPEG, and compares the
masks read from the copies with the strokes. Prints Markdown: intersection over union (median), the fraction of masks
with at least 0.97, and the number of false holes, which touch no stroke. Strokes in a color of the photograph, such as
black on a dark area, cannot be recovered, so the median is more informative than the mean. The last line counts
photographs that are mistaken for a copy of another one.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from restore.fix.painted_copies import equal_fraction, painted
from restore.images import find_images, read_rgb8

COLORS = {
    "red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "magenta": (255, 0, 255), "yellow": (255, 255, 0),
    "white": (255, 255, 255), "black": (0, 0, 0), "gray": (128, 128, 128), "skin": (224, 172, 138),
}  # fmt: skip
FORMATS = {
    "PNG": None,
    "JPEG 95, 4:2:0": (95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420),
    "JPEG 85, 4:2:0": (85, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420),
    "JPEG 85, 4:4:4": (85, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
    "JPEG 60, 4:2:0": (60, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420),
}


def brushed(shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """Five strokes, as bool H×W."""
    mask = np.zeros(shape[:2], np.uint8)
    for _ in range(5):
        points = np.cumsum(random.normal(0, 35, (6, 2)), 0) + random.uniform(0, 1, 2) * shape[1::-1]
        cv2.polylines(mask, [points.round().astype(np.int32)], False, 255, int(random.integers(4, 20)))
    return mask > 0


def stored(image: np.ndarray, how: tuple[int, int] | None) -> np.ndarray:
    """H×W×3 through a JPEG of (quality, subsampling)."""
    if how is None:
        return image
    options = [cv2.IMWRITE_JPEG_QUALITY, how[0], cv2.IMWRITE_JPEG_SAMPLING_FACTOR, how[1]]
    file = cv2.imencode(".jpg", image[:, :, ::-1], options)[1]
    return np.ascontiguousarray(cv2.imdecode(file, cv2.IMREAD_COLOR)[:, :, ::-1])


def false_holes(found: np.ndarray, strokes: np.ndarray) -> int:
    """The number of connected parts that are not within 3 pixels of a stroke."""
    near = cv2.dilate(strokes.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    count, labels = cv2.connectedComponents(found.astype(np.uint8))
    return count - 1 - len(set(np.unique(labels[near & found])))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=24, help="number of images, evenly spread over the folder")
    args = parser.parse_args()
    names = find_images(args.folder)
    names = names[:: max(len(names) // args.count, 1)][: args.count]
    photos = [read_rgb8(args.folder / name) for name in names]
    print("| copy | " + " | ".join(COLORS) + " | at least 0.97 | false holes |\n" + "|---" * (len(COLORS) + 3) + "|")
    for title, how in FORMATS.items():
        scores: dict[str, list[float]] = {name: [] for name in COLORS}
        false, missed = 0, 0
        for number, photo in enumerate(photos):
            for index, (name, color) in enumerate(COLORS.items()):
                strokes = brushed(photo.shape, np.random.default_rng([number, index]))
                copy = photo.copy()
                copy[strokes] = color
                copy = stored(copy, how)
                missed += not equal_fraction(photo, copy)[0]
                found = painted(photo, copy, lossy=how is not None) >= 0.5
                scores[name].append(float((found & strokes).sum() / max((found | strokes).sum(), 1)))
                false += false_holes(found, strokes)
        every = np.concatenate(list(scores.values()))
        medians = " | ".join(f"{np.median(values):.3f}" for values in scores.values())
        note = f" ({missed} copies not recognized)" if missed else ""
        print(f"| {title}{note} | {medians} | {np.mean(every >= 0.97):.0%} | {false} |", flush=True)
    wrong = 0
    for photo, other in zip(photos, photos[1:] + photos[:1]):
        turned, mirrored = photo[::-1, ::-1], photo[:, ::-1]
        for given in (turned, mirrored, cv2.resize(other, photo.shape[1::-1])):
            wrong += equal_fraction(photo, np.ascontiguousarray(given))[0]
    print(f"\nOther photographs, mirrored and turned ones taken for copies: {wrong} of {3 * len(photos)}")


if __name__ == "__main__":
    main()
