"""The dirty rim of a hole: pixels next to it that damage beneath the mask has changed.

The edge of real damage rises over several pixels, and sharpening and JPEG put a halo around it. A mask that ends where
the damage seems to end leaves this rim outside. If the rim is continued, the whole filling turns dark or light.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

#: The widest rim that is looked for, in an image whose smaller side is 600 pixels; it grows in proportion to the side,
#: up to the last value. The next constant is the width of the surroundings that it is compared with.
REACH_PX, LARGEST_REACH_PX = 5, 8
AROUND_PX = 5
#: A hole has a dirty rim if a ring of pixels near it has steps outward that are this many times as large as those in
#: its surroundings, and larger by at least `LEAST_STEP`; or steps whose median differs from the surroundings' by
#: as many standard errors as the second value. Lower values lose intact pixels next to a hole more often, and these
#: tell most about it.
STEEP, CERTAIN = 2.5, 6.0
#: Of the range [0, 1].
LEAST_STEP = 2 / 255
#: A dirty rim ends where its rings differ from the surroundings by less than this, of the range [0, 1], or by less than
#: this share of the usual step: texture hides it.
LEAST_CHANGE, HIDDEN = 1.5 / 255, 0.5
#: Holes with fewer pixels along their edge than the second number are judged together, too: fewer steps have no
#: reliable median. Alone they are judged from the first number on. Of drawn spots with radii of 2.5 to 9 pixels, 2 %
#: have a dirty rim where nothing is damaged, and 87 % where the damage is soft.
FEWEST_PIXELS, FEW_PIXELS = 24, 80


def reach_px(height: int, width: int) -> int:
    """The widest rim that is looked for in an image of this size."""
    return min(max(REACH_PX, round(REACH_PX * min(height, width) / 600)), LARGEST_REACH_PX)


def dirty_rims(image: FloatArray, holes: BoolArray) -> BoolArray:
    """The pixels around holes that the damage beneath the holes has changed.

    A mask knows nothing of the image around it: next to a hole that fits, steps from pixel to pixel, away from the
    hole, are as large as farther out. They are larger in a rim that the damage has changed. So each hole gets the
    median step from ring to ring, and its rim ends where the steps are no longer large.

    Args:
        image: float32, H×W×3, [0, 1]; values in holes are ignored.
        holes: H×W.

    Returns:
        H×W, disjoint from the holes.
    """
    rims = np.zeros_like(holes)
    if not holes.any() or holes.all():
        return rims
    outside = (~holes).astype(np.uint8)
    distance = cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE).astype(np.float32)
    reach = reach_px(*holes.shape)
    rows, columns = np.nonzero((distance > 0) & (distance <= reach + AROUND_PX))
    ring = np.ceil(distance[rows, columns]).astype(np.int64)
    step, valid = _steps_outward(image, distance, rows, columns)
    hole = _nearest_hole(holes, rows, columns)
    count = np.bincount(hole[ring == 1], minlength=int(hole.max()) + 1)
    width = np.zeros(len(count), np.int64)
    order = np.flatnonzero(valid & (count[hole] >= FEWEST_PIXELS))
    order = order[np.argsort(hole[order], kind="stable")]
    for part in np.split(order, np.flatnonzero(np.diff(hole[order])) + 1):
        if len(part):
            width[hole[part[0]]] = _rim_px(step[part], ring[part], reach)
    few = count < FEW_PIXELS
    together = valid & few[hole]
    if (ring[together] == 1).sum() >= FEW_PIXELS:
        width[few] = np.maximum(width[few], _rim_px(step[together], ring[together], reach))
    rims[rows, columns] = ring <= width[hole]
    return rims & ~holes


def _nearest_hole(
    holes: BoolArray, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """The number of the hole that is nearest to each of N pixels: N. Holes that almost touch are one."""
    _, labels = cv2.connectedComponents(cv2.dilate(holes.astype(np.uint8), np.ones((3, 3), np.uint8)))
    inside = labels > 0
    _, nearest = cv2.distanceTransformWithLabels(
        (~inside).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    hole_of = np.zeros(int(nearest.max()) + 1, np.int64)
    hole_of[nearest[inside]] = labels[inside]
    return np.asarray(hole_of[nearest[rows, columns]])


def _steps_outward(
    image: FloatArray, distance: FloatArray, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]
) -> tuple[FloatArray, BoolArray]:
    """The step from each pixel to the one next to it away from the hole: N, the mean over channels; which exist: N."""
    padded = cv2.copyMakeBorder(distance, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    here = (rows, columns)
    best, value = np.zeros(len(rows), np.int64), np.full(len(rows), -np.inf, np.float32)
    ways = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
    for number, (dy, dx) in enumerate(ways):
        rise = (padded[rows + 1 + dy, columns + 1 + dx] - distance[here]) / np.float32(np.hypot(dy, dx))
        better = rise > value
        best[better], value[better] = number, rise[better]
    down, right = np.array(ways).T
    y, x = rows + down[best], columns + right[best]
    # Steps do not exist at a ridge between two holes, or beyond the image's border.
    valid = (value > 0.7) & (y >= 0) & (x >= 0) & (y < image.shape[0]) & (x < image.shape[1])
    y, x = y.clip(0, image.shape[0] - 1), x.clip(0, image.shape[1] - 1)
    return (image[y, x] - image[here]).mean(axis=1), valid


def _rim_px(step: FloatArray, ring: npt.NDArray[np.int64], reach: int) -> int:
    """The width of a hole's dirty rim, from the steps outward (N) from the pixels of each ring (N)."""
    far = ring > reach
    if far.sum() < FEWEST_PIXELS:
        return 0
    size = np.abs(step)
    usual, drift = float(np.median(size[far])), float(np.median(step[far]))
    limit = max(STEEP * usual, usual + LEAST_STEP)
    width, signed = 0, []
    for number in range(1, reach + 1):
        here = ring == number
        if not here.any():
            break
        signed.append(float(np.median(step[here])) - drift)
        # Damage is lighter than all of its surroundings, or darker: its steps have one sign, also where texture is
        # stronger. The standard error of a median, of steps of which one in four is independent.
        error = 1.25 * 1.48 * usual / np.sqrt(here.sum() / 4)
        steep = abs(signed[-1]) > max(CERTAIN * error, LEAST_STEP) or float(np.median(size[here])) > limit
        if steep and number <= width + 2:
            width = number
    # Large steps out to the reach belong to the image, not to a rim.
    if width in (0, reach):
        return 0
    change = np.abs(np.cumsum(signed[::-1])[::-1])  # of each ring, relative to the last
    return max(width, int(np.flatnonzero(change > max(LEAST_CHANGE, HIDDEN * usual)).max(initial=-1)) + 1)
