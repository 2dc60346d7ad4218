"""Masks that are painted on a copy of the photograph: the difference is the mask, also after JPEG."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]

_EQUAL = 12  # levels of luma (of 255) by which a pixel of a copy may differ, for dithering and JPEG of low quality
_DETAIL = 40  # levels among the 5×5 pixels around a pixel with details
_MIN_DETAILS = 0.001  # of all pixels
_MOSTLY_EQUAL = 0.6  # of the pixels around a detail
#: The fraction of details that a copy has in common with its photograph, at least. Copies of 61 photographs without
#: strokes had 0.61 at JPEG quality 40 and 0.84 at 60; the photographs mirrored or turned 0.37, other photographs 0.10.
_MIN_COMMON = 0.4
_MIDTONES = (24, 231)  # a photograph without details has these, if it can be told from a mask at all


def equal_fraction(photo: Bytes, mask: Bytes, opaque: BoolArray | None = None) -> tuple[bool, float]:
    """Whether a mask is a copy of a photograph with strokes on it: the details of both agree in most places.

    Args:
        photo: H×W×3.
        mask: H×W×3.
        opaque: H×W, where the mask is not transparent; None: everywhere.

    Returns:
        The answer, and the fraction of pixels that are equal.
    """
    import cv2

    before, after = (np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8) for image in (photo, mask))
    equal = np.asarray(cv2.absdiff(before, after) <= _EQUAL)
    if opaque is not None:
        equal &= opaque
    fraction = float(equal.mean())
    square = np.ones((5, 5), np.uint8)
    detailed = cv2.subtract(cv2.dilate(before, square), cv2.erode(before, square)) >= _DETAIL
    if np.count_nonzero(detailed) < _MIN_DETAILS * detailed.size:
        midtones = (before > _MIDTONES[0]) & (before < _MIDTONES[1])
        return bool(midtones.any() and equal[midtones].mean() >= 0.5), fraction
    common = cv2.blur(equal.view(np.uint8) * np.uint8(100), (5, 5)) >= 100 * _MOSTLY_EQUAL
    return bool(common[detailed].mean() >= _MIN_COMMON), fraction


# The difference

_SMALL = 4  # levels; only lossy copies differ by so little in many pixels of many colors
_EXACT_SMALL = 0.005  # of the pixels far from strokes; more of them mean a lossy copy
_EXACT_STRONG = 0.6  # of all pixels; where more of them differ, these are not only strokes
_EXACT_SOFT = 0.1  # likewise, of all pixels outside strokes
_CONTRASTS = (3, 6, 12, 24, 48, 96)  # noise is measured apart for pixels with these ranges of values around them
_NOISE_FACTOR = 6.0  # threshold of a difference, relative to the 75th percentile of the noise
_MIN_THRESHOLD = 5.0  # levels, for lossy copies
_HALO_PX = 16  # artifacts of JPEG reach across a block of chroma
_HALO = 0.35  # of the difference of a stroke, that artifacts around it stay below
_CHROMA_WEIGHT = 0.5  # JPEG stores half the resolution of chroma
_COLORS = 8  # that strokes may have
_COLOR_SHARE = 0.02  # of all strokes, from which on a color is one of them
_SPREAD = 20  # levels by which a flat color varies in a lossy copy
_OWN_CONTRAST = 24.0  # levels between stroke and photograph; a pixel with less is judged with its neighbors
_MIN_SPECK = 8  # pixels; smaller differences are noise in a lossy copy
_MIN_OTHER = 16  # likewise, of strokes without a flat color
_MIN_OTHER_PEAK = 40.0  # levels that the difference of such strokes reaches
_SOFT_PX = 24  # from a flat color to the end of its soft edge
_MAX_CLOSING_PX = 40


def painted(photo: Bytes, mask: Bytes, *, lossy: bool = False) -> FloatArray:
    """The strokes that turn a photograph into a copy with strokes.

    Where both are equal, the noise of the copy is measured, apart for flat and detailed areas. Strokes are where the
    difference, averaged over 3×3 pixels, is larger. Most have a flat color S. A pixel P of the photograph and M of the
    copy give the share α of the color by least squares, M = P + α (S − P). The edge of a stroke is at α = 1/2, which
    artifacts around it do not reach. Where the photograph has the color of the strokes, α is undefined; such pixels
    belong to a stroke if it encloses them, or if they are between its parts.

    Args:
        photo: H×W×3.
        mask: H×W×3, a copy (`equal_fraction`).
        lossy: the copy is known to be stored with loss; otherwise that is measured.

    Returns:
        H×W in [0, 1], with the soft edges of strokes; 0 or 1 if the copy is lossy.
    """
    changed = _largest(photo, mask) > 0
    if not changed.any():
        return np.zeros(changed.shape, np.float32)
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    strokes = np.zeros(changed.shape, np.float32)
    if lossy or not _is_exact(photo, mask, changed):
        strokes[part] = _lossy_strokes(photo[part], mask[part])
    else:
        strokes[part] = _exact_strokes(photo[part], mask[part], changed[part])
    return strokes


def _is_exact(photo: Bytes, mask: Bytes, changed: BoolArray) -> bool:
    """Whether a copy differs only in its strokes, so that most pixels are identical."""
    small = _largest(photo, mask) <= _SMALL
    strong, small = ~small, small & changed
    if np.count_nonzero(strong) > _EXACT_STRONG * strong.size or np.count_nonzero(small) > np.count_nonzero(~changed):
        return False
    # Strokes of a color that the photograph almost has differ little.
    colors = mask[small].astype(np.int64)
    _, inverse, counts = np.unique(
        colors[:, 0] << 16 | colors[:, 1] << 8 | colors[:, 2], return_inverse=True, return_counts=True
    )
    small[small] = ~np.isin(inverse, np.argsort(counts)[-3:])
    # So do the edges of soft brushes.
    far = ~_dilated(strong, _SOFT_PX) if strong.any() else np.ones_like(changed)
    return bool(
        np.count_nonzero(small & far) <= _EXACT_SMALL * np.count_nonzero(far)
        and np.count_nonzero(small) <= _EXACT_SOFT * np.count_nonzero(~strong)
    )


def _exact_strokes(photo: Bytes, mask: Bytes, changed: BoolArray) -> FloatArray:
    """Every changed pixel; at the soft edges of flat colors, the share of the color."""
    strokes = changed.astype(np.float32)
    same = np.zeros(changed.shape, bool)
    left = changed
    for _ in range(_COLORS):
        color = commonest_color(mask, left, int(np.count_nonzero(changed)), reach=0)
        if color is None:
            break
        flat = has_color(mask, color, 0)
        own = flat & changed
        edge = _dilated(own, _SOFT_PX) & left & ~own
        before = photo[edge].astype(np.float32)
        given, full = mask[edge] - before, color - before
        share = (given * full).sum(axis=1) / np.maximum((full * full).sum(axis=1), 1e-6)
        # A pixel off the line between both colors is no mixture of them.
        rest = np.abs(given - share[:, None] * full).max(axis=1)
        mixed = rest <= 2
        strokes[edge] = np.where(mixed, np.clip(share, 1 / 255, 1), 1)
        edge[edge] = mixed
        left = left & ~own & ~edge
        same |= flat & ~changed
    strokes[_between(changed, same)] = 1
    return strokes


def _lossy_strokes(photo: Bytes, mask: Bytes) -> FloatArray:
    """As `painted`, for a copy with noise."""
    import cv2

    before = np.asarray(cv2.cvtColor(photo, cv2.COLOR_RGB2YCrCb), np.uint8)
    after = np.asarray(cv2.cvtColor(mask, cv2.COLOR_RGB2YCrCb), np.uint8)
    difference, seeds, noise = _differences(before, after)
    total = int(np.count_nonzero(seeds))
    strokes, same = np.zeros(seeds.shape, bool), np.zeros(seeds.shape, bool)
    left = seeds
    for _ in range(_COLORS):
        color = commonest_color(after, left, total, reach=_SPREAD)
        if color is None:
            break
        own, alike = _strokes_of_color(before, after, seeds, color, noise)
        strokes |= own
        same |= alike
        strongest = cv2.dilate(np.where(own, difference, np.float32(0)), np.ones((2 * _HALO_PX + 1,) * 2, np.uint8))
        covered = _dilated(own, 5) | (difference < _HALO * strongest)
        covered |= has_color(after, color, _SPREAD)
        left = left & ~covered
    strokes = _without_specks(strokes, _MIN_SPECK)
    same &= ~strokes
    strokes |= _between(strokes, same) | _other_strokes(left, difference)
    return strokes.astype(np.float32)


def _differences(before: Bytes, after: Bytes) -> tuple[FloatArray, BoolArray, float]:
    """The difference of each pixel in levels, where it is larger than the noise, and the threshold in flat areas."""
    import cv2

    luma, *chroma = cv2.split(cv2.absdiff(before, after))
    equal = np.asarray((luma <= _EQUAL) & (cv2.max(*chroma) <= 2 * _EQUAL))
    largest, seeds, noise = np.zeros(equal.shape, np.float32), np.zeros(equal.shape, bool), _MIN_THRESHOLD
    for channel in range(3):
        own = np.ascontiguousarray(before[:, :, channel])
        # Averaged with their signs, the artifacts of JPEG mostly cancel out.
        difference = cv2.subtract(np.ascontiguousarray(after[:, :, channel]), own, dtype=cv2.CV_32F)
        difference = np.abs(cv2.blur(difference, (3, 3)))
        square = np.ones((5, 5), np.uint8)
        contrast = cv2.subtract(cv2.dilate(own, square), cv2.erode(own, square))
        bins = cv2.LUT(contrast, np.digitize(np.arange(256), _CONTRASTS).astype(np.uint8))
        limits = np.full(len(_CONTRASTS) + 1, _MIN_THRESHOLD, np.float32)
        for number in range(len(limits)):
            values = difference[(bins == number) & equal]
            if values.size >= 200:
                limits[number] = max(_MIN_THRESHOLD, _NOISE_FACTOR * float(np.quantile(values, 0.75)))
        limits = np.maximum.accumulate(limits)
        noise = max(noise, float(limits[1]))
        seeds |= difference > limits[np.asarray(bins, np.uint8)]
        np.maximum(largest, difference, out=largest)
    return largest, seeds, noise


def _largest(photo: Bytes, mask: Bytes) -> Bytes:
    """The largest difference of the channels of two images, H×W."""
    import cv2

    red, green, blue = cv2.split(cv2.absdiff(photo, mask))
    return np.asarray(cv2.max(cv2.max(red, green), blue), np.uint8)


def commonest_color(image: Bytes, where: BoolArray, total: int, *, reach: int) -> Bytes | None:
    """The commonest color of some pixels; None if no color is common.

    Args:
        image: H×W×3.
        where: the pixels.
        total: the number of pixels of all strokes.
        reach: levels by which one color varies.
    """
    inside = eroded(where, 1)
    if np.count_nonzero(inside) < 0.1 * np.count_nonzero(where):
        inside = where
    pixels = image[inside].astype(np.int32)
    if len(pixels) < 4:
        return None
    bits = 8 if reach == 0 else 5
    levels = pixels >> (8 - bits)
    _, inverse, counts = np.unique(
        levels[:, 0] << (2 * bits) | levels[:, 1] << bits | levels[:, 2], return_inverse=True, return_counts=True
    )
    center = np.median(pixels[inverse == counts.argmax()], axis=0)
    member = (np.abs(pixels - center) <= reach).all(axis=1)
    if np.count_nonzero(member) < max(_COLOR_SHARE * total, 4):
        return None
    return np.asarray(np.rint(np.median(pixels[member], axis=0)), np.uint8)


def has_color(image: Bytes, color: Bytes, reach: int) -> BoolArray:
    """Where an image, H×W×3, has a color, up to a number of levels in each channel."""
    import cv2

    low, high = (tuple(float(value) + sign * reach for value in color) for sign in (-1, 1))
    return np.asarray(cv2.inRange(image, low, high) > 0)


def _strokes_of_color(
    before: Bytes, after: Bytes, seeds: BoolArray, color: Bytes, noise: float
) -> tuple[BoolArray, BoolArray]:
    """Where a color was painted, and where the photograph has it already; YCrCb."""
    import cv2

    colored = has_color(after, color, _SPREAD)
    core = colored & seeds
    near = _dilated(core, 5)
    product, power = np.zeros(seeds.shape, np.float32), np.zeros(seeds.shape, np.float32)
    for channel, weight in enumerate((1, _CHROMA_WEIGHT**2, _CHROMA_WEIGHT**2)):
        own = before[:, :, channel].astype(np.float32)
        full = float(color[channel]) - own
        power += weight * full * full
        product += weight * full * (after[:, :, channel] - own)
    # Where a color differs little from the photograph, the pixels around help to decide.
    around = cv2.blur(product, (5, 5)), cv2.blur(power, (5, 5))
    clear = power >= max(_OWN_CONTRAST, 2 * noise) ** 2
    known = clear | (around[1] >= noise**2)
    share = np.where(clear, product, around[0]) >= 0.5 * np.where(clear, power, around[1])
    return near & known & share, ~known & colored


def _other_strokes(left: BoolArray, difference: FloatArray) -> BoolArray:
    """Strokes without a flat color: transparent, blurred or copied from elsewhere."""
    import cv2

    if not left.any():
        return left
    closed = cv2.morphologyEx(left.view(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    count, labels = cv2.connectedComponents(closed)
    peaks = np.zeros(count, np.float32)
    np.maximum.at(peaks, np.asarray(labels[left], np.int64), difference[left])
    keep = (peaks >= _MIN_OTHER_PEAK) & (np.bincount(labels.ravel(), minlength=count) >= _MIN_OTHER)
    keep[0] = False
    return np.asarray(keep[labels])


def _dilated(where: BoolArray, radius: int) -> BoolArray:
    """Where a pixel is within a distance, H×W."""
    import cv2

    return np.asarray(cv2.distanceTransform((~where).view(np.uint8), cv2.DIST_L2, 5) <= radius)


def eroded(where: BoolArray, radius: int) -> BoolArray:
    """Without the pixels at the edge, H×W."""
    import cv2

    return np.asarray(cv2.erode(where.view(np.uint8), np.ones((2 * radius + 1,) * 2, np.uint8)) > 0)


def _without_specks(hole: BoolArray, smallest: int) -> BoolArray:
    import cv2

    _, labels, stats, _ = cv2.connectedComponentsWithStats(hole.view(np.uint8), connectivity=8)
    keep = stats[:, cv2.CC_STAT_AREA] >= smallest
    keep[0] = False
    return np.asarray(keep[labels])


def _between(hole: BoolArray, same: BoolArray) -> BoolArray:
    """Pixels of the strokes' color in the photograph that are enclosed by strokes, or between their parts."""
    import cv2

    if not same.any() or not hole.any():
        return np.zeros_like(hole)
    count, labels = cv2.connectedComponents((~hole).astype(np.uint8), connectivity=4)
    open_to = np.zeros(count, bool)  # regions between strokes with pixels of other colors, or the whole background
    open_to[np.unique(labels[~hole & ~same])] = True
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    open_to[np.unique(edge)] = True
    enclosed = ~open_to[labels]
    # A closing by the width of the strokes, by distances, because a large disc is slow.
    depth = cv2.distanceTransform(hole.astype(np.uint8), cv2.DIST_L2, 5)
    ridge = hole & (depth >= cv2.dilate(depth, np.ones((3, 3), np.uint8)))
    radius = min(2 * float(np.median(depth[ridge])), _MAX_CLOSING_PX)
    far = cv2.distanceTransform((~hole).astype(np.uint8), cv2.DIST_L2, 5) > radius
    closed = cv2.distanceTransform((~far).astype(np.uint8), cv2.DIST_L2, 5) > radius - 0.5 if far.any() else ~hole
    return np.asarray(same & (enclosed | closed))
