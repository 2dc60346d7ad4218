"""Masks that were drawn too tight: each hole is widened to where the damage ends, if that can be seen."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

_REACH_PX = 6  # at a megapixel: as far as damage is looked for
_LEAST_REACH_PX = 3
_MARGIN_PX = 1  # beyond where the damage ends, since lenses, JPEG and brushes let it end softly
_WHITE = 0.5  # of a mask: from here on a pixel is in the hole
_EDGE_PX = 2  # of a brush that is smooth by a pixel
_SOFT = 0.1  # whiter than this three pixels outside, in more than this share, an edge is meant to be soft
_FEW = 40  # pixels around a hole say nothing
_FAINT = 0.035  # of 1: a hole that differs by less from what is around it
_OWN = 1.5  # times the square of what the surroundings differ by among themselves
_FALL = 0.55  # the damage ends where its share falls by so much within two pixels
_STEP = 0.25  # of that, so much beyond a pixel: then that pixel is damaged, too


def reach_px(height: int, width: int) -> int:
    """As far as damage is looked for around holes of such a picture: 6 pixels at a megapixel, and at least 3."""
    return max(_LEAST_REACH_PX, round(_REACH_PX * math.sqrt(height * width / 1e6)))


def widened(weight: FloatArray, shown: FloatArray) -> FloatArray:
    """A mask whose holes reach as far as what they are to hide.

    The rule looks at each hole by itself; holes nearer to each other than it looks are one. Around a pixel p at a
    distance d from the hole, let s be the mean of the hole at its edge, b that of the surroundings further out than the
    mask may be wrong, and c = s − b. The damage's share T(d) of all pixels p at that distance is what fits best in
    p = b + T c (least squares: Σ⟨p − b, c⟩ / Σ⟨c, c⟩, each pixel's part between −1 and 1.5). Where a mask is too tight,
    T is near 1 up to where the damage ends and near 0 from there on; where it fits, T is near 0 from the first pixel
    on; where it is generous, or nothing is wrong with the picture, T falls slowly, as pictures do. So a hole is widened
    to where T falls most within two pixels, and one pixel more, if it falls by more than half there and not at the
    hole's own edge; otherwise it stays as it is. It also stays where it hardly differs from its surroundings, or hardly
    more than these do among themselves, and where its edge is soft.

    Args:
        weight: H×W in [0, 1], 1 = repair.
        shown: the picture, H×W×3, sRGB, [0, 1].

    Returns:
        H×W in [0, 1]: `weight`, and as white as the hole is where one was widened to.
    """
    import cv2

    reach = reach_px(*weight.shape)
    hole = weight >= _WHITE
    if not hole.any():
        return weight
    # further than this nothing is looked at
    around = 6 * reach + 10
    rows, columns = np.flatnonzero(hole.any(axis=1)), np.flatnonzero(hole.any(axis=0))
    part = np.s_[
        max(rows[0] - around, 0) : rows[-1] + 1 + around, max(columns[0] - around, 0) : columns[-1] + 1 + around
    ]
    hole = hole[part]
    outside, depth = _distance(~hole), _distance(hole)
    group = np.asarray(cv2.connectedComponents((outside <= reach + 2).astype(np.uint8))[1], np.int64)
    width = _widths(shown[part], weight[part], outside, depth, group, reach)
    strongest = np.zeros(len(width), np.float32)
    np.maximum.at(strongest, group[hole], weight[part][hole])
    grown = weight.copy()
    # a brush's smooth edge, now inside, is no edge any more
    rim = (width[group] > 0) & (outside <= width[group]) & (depth <= _EDGE_PX)
    grown[part][rim] = np.maximum(weight[part], strongest[group])[rim]
    return grown


def _widths(
    shown: FloatArray,
    weight: FloatArray,
    outside: FloatArray,
    depth: FloatArray,
    group: npt.NDArray[np.int64],
    reach: int,
) -> npt.NDArray[np.int64]:
    """By how many pixels each group of holes is widened; group 0 is what is far from all."""
    near, far = reach + 2, 2 * reach + 4
    zones = [  # the hole at its edge; the surroundings; what lies around these
        (depth > 0) & (depth <= reach),
        (outside > near) & (outside <= far),
        (outside > far) & (outside <= far + near),
    ]
    counts = [_around(zone.astype(np.float32), reach) for zone in zones]
    known = [count > 1e-4 for count in counts]
    contrast, own, share = (np.zeros(weight.shape, np.float32) for _ in range(3))
    for channel in np.moveaxis(shown, 2, 0):
        inner, outer, beyond = (
            _around(np.where(zone, channel, np.float32(0)), reach) / np.maximum(count, 1e-6)
            for zone, count in zip(zones, counts)
        )
        contrast += (inner - outer) ** 2
        own += (outer - beyond) ** 2
        share += (channel - outer) * (inner - outer)
    usable = known[0] & known[1]
    contrast *= usable
    own *= usable & known[2]
    share = np.clip(share, -contrast, 1.5 * contrast)

    ring = np.ceil(outside).astype(np.int64)
    looked_at = (ring <= near) & ((ring > 0) | (depth <= 1))  # with the outermost pixels of the hole as ring 0
    groups = int(group.max()) + 1
    places = group[looked_at] * (near + 1) + ring[looked_at]

    def total(values: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
        sums = np.bincount(places, values[looked_at].astype(np.float64), groups * (near + 1))
        return np.asarray(sums, np.float64).reshape(groups, near + 1)

    number, strength = total(np.ones(weight.shape)), total(contrast)
    shares = total(share) / np.maximum(strength, 1e-9)
    first = np.maximum(number[:, 1], 1)
    plain = (number[:, 1] >= _FEW) & (strength[:, 1] >= first * _FAINT**2)
    plain &= strength[:, 1] >= _OWN * total(own)[:, 1]
    plain &= total(weight > _SOFT)[:, 3:].sum(1) <= _SOFT * number[:, 1]
    fall = shares[:, :reach] - shares[:, 2 : reach + 2]  # around the rings 1 to `reach`
    ends = fall.argmax(1) + 1
    at = np.arange(groups)
    ends -= shares[at, ends] - shares[at, ends + 1] < _STEP
    found = plain & (fall.max(1) >= _FALL) & (ends > 0)
    widths: npt.NDArray[np.int64] = np.where(found, ends + _MARGIN_PX, 0)
    widths[0] = 0
    return widths


def _distance(where: npt.NDArray[np.bool_]) -> FloatArray:
    """From each of these pixels to the nearest other one, centre to centre; 0 at the others."""
    import cv2

    return np.asarray(cv2.distanceTransform(where.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE), np.float32)


def _around(values: FloatArray, reach: int) -> FloatArray:
    """Mean over the neighbourhood that is looked at, with zeros beyond the border."""
    import cv2

    side = 6 * reach + 1
    return np.asarray(cv2.blur(values, (side, side), borderType=cv2.BORDER_CONSTANT), np.float32)
