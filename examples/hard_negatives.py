"""Cut crops with false alarms of a detector out of undamaged photographs, to train it on them as undamaged.

python examples/hard_negatives.py photographs/ hard_negatives/ [MODEL]

The name of a crop ends with its number of detected pixels. Look at the crops before training, and remove those that
show real damage, such as scratches on a plate or writing on a negative. Do not use photographs that validate or test
the detector.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from restore.images import find_images, read_rgb8, write_png
from restore.restorers.detector import open_detector

#: Larger photographs are downscaled first, so that the detector sees whole objects.
SMALLER_SIDE = 512
#: Side of a crop, and the most crops of one photograph.
CROP, PER_PHOTOGRAPH = 224, 3
#: Probability that counts, below the detector's threshold; and how many such pixels make a crop.
DOUBTFUL, LEAST = 0.35, 25


def crops(image: NDArray[np.uint8], doubtful: NDArray[np.bool_]) -> Iterator[tuple[NDArray[np.uint8], int]]:
    """Crops with the most doubtful pixels, the fullest first, and their number of such pixels."""
    left = doubtful.astype(np.float32)
    for _ in range(PER_PHOTOGRAPH):
        if min(left.shape) < CROP:
            return
        # The sum of every crop, by the position of its corner.
        sums = cv2.boxFilter(left, -1, (CROP, CROP), anchor=(0, 0), normalize=False, borderType=cv2.BORDER_CONSTANT)
        sums = sums[: left.shape[0] - CROP + 1, : left.shape[1] - CROP + 1]
        y, x = np.unravel_index(sums.argmax(), sums.shape)
        count = int(left[y : y + CROP, x : x + CROP].sum())
        if count < LEAST:
            return
        yield np.ascontiguousarray(image[y : y + CROP, x : x + CROP]), count
        left[y : y + CROP, x : x + CROP] = 0


def main() -> None:
    """Write the crops of all photographs of a folder."""
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    detector = open_detector(sys.argv[3] if len(sys.argv) > 3 else "detector")
    target.mkdir(parents=True, exist_ok=True)
    written = 0
    for name in find_images(source):
        image = read_rgb8(source / name)
        factor = SMALLER_SIDE / min(image.shape[:2])
        if factor < 1:
            image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA).astype(np.uint8)
        doubtful = detector.probability(np.divide(image, 255, dtype=np.float32)) >= DOUBTFUL
        for number, (crop, count) in enumerate(crops(image, doubtful)):
            write_png(target / f"{'_'.join(name.with_suffix('').parts)}_{number}_{count}.png", crop)
            written += 1
    print(f"{written} crops in {target}")


if __name__ == "__main__":
    main()
