"""The wide parts of masks: chips and lost corners, but no scratches."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]

_RADIUS = 8.0, 4  # of a disc, in pixels at one megapixel, and the least: what it fits into is wide


def wide_parts(mask: BoolArray) -> BoolArray:
    """The parts of a mask into which a disc fits, H×W: its opening. The radius is 8 pixels at one megapixel."""
    radius = max(_RADIUS[1], round(_RADIUS[0] * math.sqrt(mask.size / 1e6)))
    centers = distance_to(~mask) > radius
    return centers if not centers.any() else distance_to(centers) <= radius


def connected_to(seeds: BoolArray, mask: BoolArray) -> BoolArray:
    """The connected parts of a mask that have a pixel of `seeds`, H×W."""
    import cv2

    labels = cv2.connectedComponents(mask.astype(np.uint8))[1]
    return np.isin(labels, labels[seeds & mask])


def distance_to(what: BoolArray) -> npt.NDArray[np.float32]:
    """How far each pixel is from the next one of `what`, H×W: 0 on it; far more than any side if there is none."""
    import cv2

    distance = cv2.distanceTransform((~what).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(distance, np.float32)
