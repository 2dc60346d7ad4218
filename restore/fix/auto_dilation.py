"""Automatic dilation: masks that are too tight are widened to the end of the damage."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

_REACH_PX = 6  # search radius at one megapixel
_MIN_REACH_PX = 3
_MARGIN_PX = 1  # added to the result, because lenses, JPEG and brushes soften the end of damage
_WHITE = 0.5  # a pixel is in the hole from this value of the mask on
_EDGE_PX = 2  # depth of the soft edge left by an antialiased brush
_SOFT = 0.1  # an edge is deliberately soft if more than this fraction of pixels from 3 px outside on exceeds this value
_MIN_RING_PIXELS = 40  # holes with a smaller ring around them are not widened
_MIN_CONTRAST = 0.035  # of the range [0, 1]; a hole that differs less from its surroundings is not widened
_CONTRAST_RATIO = 1.5  # minimum squared contrast of a hole, relative to that among its surroundings
_MIN_FALL = 0.55  # the damage ends where its share T falls by at least this much within two pixels
_MIN_STEP = 0.25  # a pixel belongs to the damage if at least this much of the fall lies beyond it


def auto_reach_px(height: int, width: int) -> int:
    """Search radius for damage around holes in an image of this size: 6 pixels at a megapixel, and at least 3."""
    return max(_MIN_REACH_PX, round(_REACH_PX * math.sqrt(height * width / 1e6)))


def widen_holes(mask: FloatArray, image: FloatArray) -> FloatArray:
    """Widen holes that are too tight to the end of the damage.

    Each hole is treated separately; holes closer than the search radius count as one. Around a pixel p at distance d
    from the hole, let s be the mean of the hole at its edge, b the mean of the surroundings beyond the search radius,
    and c = s − b. The damage share T(d) is the least-squares fit of p = b + T c over all pixels at that distance:
    Σ⟨p − b, c⟩ / Σ⟨c, c⟩, with the term of each pixel limited to between −1 and 1.5.

    - A tight mask: T is near 1 up to the end of the damage, then near 0.
    - A mask that fits: T is near 0 from the first pixel on.
    - A generous mask, or an undamaged image: T falls slowly, like image content.

    So a hole is widened to the steepest fall of T within two pixels, plus one pixel, if T falls by more than half there
    and the fall is not at the edge of the hole. It stays unchanged if it hardly differs from its surroundings, if it
    differs hardly more than the surroundings do among themselves, or if its edge is soft.

    Args:
        mask: H×W in [0, 1], 1 = repair.
        image: H×W×3, sRGB, [0, 1].

    Returns:
        H×W in [0, 1]: `mask`, with the maximum value of each hole in the pixels that it gained.
    """
    import cv2

    reach = auto_reach_px(*mask.shape)
    hole = mask >= _WHITE
    if not hole.any():
        return mask
    # Pixels further away have no influence, so only this part is processed.
    around = 6 * reach + 10
    rows, columns = np.flatnonzero(hole.any(axis=1)), np.flatnonzero(hole.any(axis=0))
    part = np.s_[
        max(rows[0] - around, 0) : rows[-1] + 1 + around, max(columns[0] - around, 0) : columns[-1] + 1 + around
    ]
    hole = hole[part]
    outside, depth = _distance(~hole), _distance(hole)
    group = np.asarray(cv2.connectedComponents((outside <= reach + 2).astype(np.uint8))[1], np.int64)
    width = _widths(image[part], mask[part], outside, depth, group, reach)
    strongest = np.zeros(len(width), np.float32)
    np.maximum.at(strongest, group[hole], mask[part][hole])
    wider = mask.copy()
    # The soft edge of the original hole is now inside, so it becomes opaque as well.
    rim = (width[group] > 0) & (outside <= width[group]) & (depth <= _EDGE_PX)
    wider[part][rim] = np.maximum(mask[part], strongest[group])[rim]
    return wider


def over_dirty_rims(mask: FloatArray, wider: FloatArray, image: FloatArray) -> FloatArray:
    """Extend the holes that `widen_holes` left as they are over their dirty rims.

    Rims and the soft edges inside them get the maximum value of the mask nearby.
    """
    import cv2

    from restore.restorers import hole_rims

    rims = hole_rims.dirty_rims(image, mask > 0)
    if not rims.any():
        return wider
    labels = cv2.connectedComponents((rims | (wider > 0)).astype(np.uint8))[1]
    rims &= ~np.isin(labels, np.unique(labels[wider > mask]))
    nearby = cv2.dilate(mask, np.ones((2 * (hole_rims.LARGEST_REACH_PX + _EDGE_PX) + 1,) * 2, np.uint8))
    edge = cv2.dilate(rims.astype(np.uint8), np.ones((2 * _EDGE_PX + 1,) * 2, np.uint8)) > 0
    return np.where(rims | (edge & (mask > 0)), nearby, wider)


def _widths(
    image: FloatArray,
    mask: FloatArray,
    outside: FloatArray,
    depth: FloatArray,
    group: npt.NDArray[np.int64],
    reach: int,
) -> npt.NDArray[np.int64]:
    """The number of pixels by which each group of holes is widened; group 0 is the area far from all holes."""
    near, far = reach + 2, 2 * reach + 4
    zones = [  # the hole at its edge; its surroundings; the area beyond
        (depth > 0) & (depth <= reach),
        (outside > near) & (outside <= far),
        (outside > far) & (outside <= far + near),
    ]
    counts = [_around(zone.astype(np.float32), reach) for zone in zones]
    defined = [count > 1e-4 for count in counts]
    contrast, own, share = (np.zeros(mask.shape, np.float32) for _ in range(3))
    for channel in np.moveaxis(image, 2, 0):
        inner, outer, beyond = (
            _around(np.where(zone, channel, np.float32(0)), reach) / np.maximum(count, 1e-6)
            for zone, count in zip(zones, counts)
        )
        contrast += (inner - outer) ** 2
        own += (outer - beyond) ** 2
        share += (channel - outer) * (inner - outer)
    usable = defined[0] & defined[1]
    contrast *= usable
    own *= usable & defined[2]
    share = np.clip(share, -contrast, 1.5 * contrast)

    ring = np.ceil(outside).astype(np.int64)
    in_rings = (ring <= near) & ((ring > 0) | (depth <= 1))  # ring 0 is the outermost pixels of the hole
    groups = int(group.max()) + 1
    bins = group[in_rings] * (near + 1) + ring[in_rings]

    def total(values: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
        """Sums by group and ring, groups×(near + 1)."""
        sums = np.bincount(bins, values[in_rings].astype(np.float64), groups * (near + 1))
        return np.asarray(sums, np.float64).reshape(groups, near + 1)

    number, strength = total(np.ones(mask.shape)), total(contrast)
    shares = total(share) / np.maximum(strength, 1e-9)
    first = np.maximum(number[:, 1], 1)
    distinct = (number[:, 1] >= _MIN_RING_PIXELS) & (strength[:, 1] >= first * _MIN_CONTRAST**2)
    distinct &= strength[:, 1] >= _CONTRAST_RATIO * total(own)[:, 1]
    distinct &= total(mask > _SOFT)[:, 3:].sum(1) <= _SOFT * number[:, 1]
    fall = shares[:, :reach] - shares[:, 2 : reach + 2]  # across each of the rings 1 to `reach`
    ends = fall.argmax(1) + 1
    at = np.arange(groups)
    ends -= shares[at, ends] - shares[at, ends + 1] < _MIN_STEP
    found = distinct & (fall.max(1) >= _MIN_FALL) & (ends > 0)
    widths: npt.NDArray[np.int64] = np.where(found, ends + _MARGIN_PX, 0)
    widths[0] = 0
    return widths


def _distance(where: npt.NDArray[np.bool_]) -> FloatArray:
    """Distance from each true pixel to the nearest false one, center to center; 0 at false pixels."""
    import cv2

    return np.asarray(cv2.distanceTransform(where.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE), np.float32)


def _around(values: FloatArray, reach: int) -> FloatArray:
    """Mean over a square window that reaches 3 search radii from each pixel, with zeros beyond the border."""
    import cv2

    side = 6 * reach + 1
    return np.asarray(cv2.blur(values, (side, side), borderType=cv2.BORDER_CONSTANT), np.float32)
