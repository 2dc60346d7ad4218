"""Wide detected marks, completed up to their edges.

A detector often stops a few pixels before the edge of a chip or a lost corner. The rim of white paper that remains
makes the filling white, too.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from restore.restorers.wide_parts import distance_to, wide_parts

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

_REACH = 6, 2  # how far an edge may be beyond the mask: in pixels at one megapixel, and the least
_MARGIN_PX = 2  # beyond what was added, for the dark line along the edge of torn paper

_MIN_CONTRAST = 0.2  # RMS over the channels, of the range [0, 1]: less is no clear edge
_MIN_SHARE = 0.5  # a pixel closer in color to the mark than to its surroundings belongs to the mark


def complete_wide_marks(mask: FloatArray, image: FloatArray) -> FloatArray:
    """Add to wide marks what is next to them and has their color.

    Let s be the mean color of the mark nearby, b that of its surroundings beyond the reach, and c = s − b. A pixel p
    within the reach belongs to the mark if ⟨p − b, c⟩ / ⟨c, c⟩ > 1/2, and such pixels lead from it to the mark. Thin
    marks stay as they are: widening them by a pixel costs more than it gains.

    Args:
        mask: H×W of 0 and 1, 1 = damaged.
        image: H×W×3, sRGB, [0, 1].

    Returns:
        H×W of 0 and 1; `mask` itself if no mark is wide.
    """
    import cv2

    damaged = mask > 0
    core = wide_parts(damaged)
    if not core.any():
        return mask
    reach = max(_REACH[1], round(_REACH[0] * math.sqrt(mask.size / 1e6)))
    completed = mask.copy()
    around = 4 * reach + 4  # pixels farther away have no influence
    for left, top, width, height, _ in cv2.connectedComponentsWithStats(core.astype(np.uint8))[2][1:]:
        part = np.s_[
            max(top - around, 0) : top + height + around,
            max(left - around, 0) : left + width + around,
        ]
        added = _beyond(core[part], damaged[part], image[part], reach)
        if added.any():
            completed[part][distance_to(added) <= _MARGIN_PX] = 1
    return completed


def _beyond(core: BoolArray, damaged: BoolArray, image: FloatArray, reach: int) -> BoolArray:
    """The pixels beyond the mask that belong to a wide mark."""
    import cv2

    distance = distance_to(core)
    zones = core, ~damaged & (distance > reach + 1) & (distance <= 2 * reach + 3)
    windows = reach + 1, 2 * reach + 2
    counts = [_sum_around(zone.astype(np.float32), window) for zone, window in zip(zones, windows)]
    known = (counts[0] > 0.5) & (counts[1] > 0.5)
    contrast, projection = np.zeros(core.shape, np.float32), np.zeros(core.shape, np.float32)
    for channel in np.moveaxis(image, 2, 0):
        inner, outer = (
            _sum_around(np.where(zone, channel, np.float32(0)), window) / np.maximum(count, 0.5)
            for zone, window, count in zip(zones, windows, counts)
        )
        contrast += (inner - outer) ** 2
        projection += (channel - outer) * (inner - outer)
    clear = known & (contrast > image.shape[2] * _MIN_CONTRAST**2)
    alike = clear & (distance <= reach) & (projection > _MIN_SHARE * contrast)
    labels = cv2.connectedComponents((alike | core).astype(np.uint8))[1]
    return np.asarray(alike & ~damaged & np.isin(labels, np.unique(labels[core])))


def _sum_around(values: FloatArray, radius: int) -> FloatArray:
    """The sum over the square of 2·radius + 1 pixels around each pixel; 0 beyond the border."""
    import cv2

    size = (2 * radius + 1, 2 * radius + 1)
    return np.asarray(cv2.boxFilter(values, -1, size, normalize=False, borderType=cv2.BORDER_CONSTANT), np.float32)
