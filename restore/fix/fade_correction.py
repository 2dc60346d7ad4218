"""Fading correction: one smooth curve per channel for the whole image, estimated from a thumbnail.

A faded print has lost its black (fog lifts it) and its white (the paper yellows), by different amounts in each channel.
The darkest and brightest values of the image measure the loss: first of all channels together, then of each channel
relative to the others. A shift larger than fading can cause belongs to the scene (snow, a night) and stays. So does any
cast of an image whose black and white points are in place. Nothing is clipped: beyond its black and white point a curve
bends towards 0 and 1.

Dyes that decay at different rates leave a strong cast: magenta where cyan is lost, amber where the stain of decayed
dyes is added. The density of a dye falls by a factor, so the cast is strongest in the shadows, and it covers neutral
objects of every brightness. Colored light (a sunset, candles) leaves the deepest shadows black. A strong cast is
corrected as far as shadows that have lost their black, by different amounts in each channel, and a lack of neutral
pixels show that age caused it. The correction bends the middle of a channel as well, because it is in density, not in
display values, that a faded channel is proportional to the original. Casts that age does not cause stay: paper does not
turn blue or green, and toned photographs of a single hue have no colors to recover.

The constants of the tone were chosen on 80 photographs, faded by `restore.degradations.color`, and on the same
photographs unfaded, with equal weight; those of strong casts on 560 photographs, faded by seven models, one of them of
dyes with unwanted absorptions, and unfaded ones with four times the weight.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
FloatArray64 = npt.NDArray[np.float64]

_THUMBNAIL_PX = 256  # maximum length of its longer side
_PERCENT = 0.3  # percentage of pixels beyond a black or white point: dust, and noise that the thumbnail keeps
_UNFADED = 0.03  # distance of the points from 0 and 1 in images that have not faded
# Maximum distance by which fading moves points: all channels together, and one relative to the others. Beyond it the
# correction decreases, to zero at twice the distance, because such a distance belongs to the scene.
_MAX_SHIFT, _MAX_CAST_BLACK, _MAX_CAST_WHITE = 0.3, 0.05, 0.1
# A low white point alone is weak evidence, because many scenes have no white. The first factor applies to it alone; the
# second applies if black is lifted by at least `_LIFTED`.
_WHITE_ALONE, _WHITE_WITH_BLACK, _LIFTED = 0.2, 0.9, 0.1
_FADED = 0.3  # combined shift of both points from which on the cast is corrected in full
# Evidence that a strong cast is one of age: lifted black, its differences between channels, and the cast of the most
# neutral tenth of the pixels in the brightness class where it is least. Weight of each, and the threshold of the sum;
# the cast is corrected in full at a sum of 1 above the threshold.
_LIFT_WEIGHT, _CAST_WEIGHT, _CONSISTENCY_WEIGHT, _THRESHOLD = 1.6, 1.6, 5.3, 1.6
_FULL_LIFT, _FULL_CAST = 0.12, 0.2  # from these on, more of either is no further evidence
_BRIGHTNESS_CLASSES = (0.005, 0.03, 0.15, 0.35, 0.65, 0.85, 0.97, 0.995)  # bounds, as quantiles of the luminance
# Share of a strong cast that is corrected, at black and white, and the logarithm of gamma per cast at black.
_STRONG_BLACK, _STRONG_WHITE, _STRONG_GAMMA = 0.92, 0.8, 1.1
# Up to the first value, age can be the cause. From the second value on, a strong cast is not corrected.
_LIMITS = {
    "lift": (0.3, 0.5),
    "lowering": (0.3, 0.45),
    "cast_black": (0.32, 0.48),
    "cast_white": (0.4, 0.6),
    "green_shadows": (0.1, 0.2),  # leaves: the magenta dye does not decay alone
    "blue_shadows": (0.08, 0.18),  # the sea: nor does the yellow one
    "yellow_shadows": (0.18, 0.3),  # a meadow: where magenta decays, cyan has decayed further
    "cold_paper": (0.05, 0.2),  # stains absorb blue most and red least
}
_TONED = (0.03, 0.06)  # variation of color at equal luminance: of toned photographs, and of those with colors
_TONE_CLASSES = 32
_TOE = 0.01  # distance from 0 of a corrected black point, and of a white point from 1, so that nothing is clipped
_ONE_TONE = 0.1  # a channel whose points are closer than this stays as it is: too little contrast
_KNOTS = 4096
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


@dataclass(frozen=True)
class Curves:
    """Tone curves that correct fading.

    Attributes:
        tables: 3×knots, increasing values at equal steps from 0 to 1.
    """

    tables: FloatArray64

    def __call__(self, image: FloatArray) -> FloatArray:
        """Correct an image: H×W×3, sRGB, clipped to [0, 1] -> the same, without rounding to 8 bits."""
        steps = np.linspace(0, 1, self.tables.shape[1])
        out = np.empty_like(image)
        for row in range(image.shape[0]):  # row by row, because `interp` returns float64, twice the memory
            for channel, table in enumerate(self.tables):
                out[row, :, channel] = np.interp(image[row, :, channel], steps, table)
        return out


def unfaded(image: FloatArray) -> FloatArray:
    """An image (H×W×3, sRGB, [0, 1]) with its fading corrected; gray stays gray."""
    return estimated(thumbnail(lambda rows: image[rows], (image.shape[0], image.shape[1])))(image)


def thumbnail(read: Callable[[slice], FloatArray], size: tuple[int, int]) -> FloatArray:
    """Reduce an image to the means of squares. Incomplete squares at the edges are left out.

    Args:
        read: returns a range of rows, h×W×3; called from the top down, for a few rows at a time.
        size: (H, W).
    """
    height, width = size
    step = max(-(-max(size) // _THUMBNAIL_PX), 1)
    down, across = min(step, height), min(step, width)
    small = []
    for top in range(0, height - down + 1, down):
        rows = read(slice(top, top + down))[:, : width // across * across]
        small.append(rows.reshape(down, width // across, across, 3).mean(axis=(0, 2)))
    return np.stack(small).astype(np.float32)


def estimated(small: FloatArray) -> Curves:
    """Estimate the curves that correct fading, from a thumbnail (h×w×3)."""
    pixels = np.clip(small.reshape(-1, 3).astype(np.float64), 0, 1)
    black, white = np.percentile(pixels, [_PERCENT, 100 - _PERCENT], axis=0)
    lifted = max(_plausible(black.min(), _MAX_SHIFT) - _UNFADED, 0.0)
    lowered = max(_plausible(1 - white.max(), _MAX_SHIFT) - _UNFADED, 0.0)
    lowered *= np.interp(lifted, (0, _LIFTED), (_WHITE_ALONE, _WHITE_WITH_BLACK))
    faded = min((lifted + lowered) / _FADED, 1.0)
    aged = _aged(pixels, black, white)
    cast_black, cast_white = black - black.min(), white.max() - white
    new_black = black - lifted - aged * _STRONG_BLACK * cast_black
    new_black -= (1 - aged) * faded * _plausible_each(cast_black, _MAX_CAST_BLACK)
    new_white = white + lowered + aged * _STRONG_WHITE * cast_white
    new_white += (1 - aged) * faded * _plausible_each(cast_white, _MAX_CAST_WHITE)
    new_black = np.maximum(new_black, np.minimum(black, _TOE))
    new_white = np.minimum(new_white, np.maximum(white, 1 - _TOE))
    gamma = np.exp(aged * _STRONG_GAMMA * cast_black)
    steps = np.linspace(0, 1, _KNOTS)
    points = zip(black, white, new_black, new_white, gamma)
    return Curves(np.stack([_curve(steps, *ends) ** exponent for *ends, exponent in points]))


def _aged(pixels: FloatArray64, black: FloatArray64, white: FloatArray64) -> float:
    """Degree from 0 to 1 to which age explains a strong cast of the pixels (n×3) with these black and white points."""
    lift, cast = black.min(), np.ptp(black)
    by_luminance = pixels[np.argsort(pixels @ _LUMA, kind="stable")]
    evidence = (
        _LIFT_WEIGHT * min(lift / _FULL_LIFT, 1)
        + _CAST_WEIGHT * min(cast / _FULL_CAST, 1)
        + _CONSISTENCY_WEIGHT * _least_cast(by_luminance)
        - _THRESHOLD
    )
    red, green, blue = black
    quantities = {
        "lift": lift,
        "lowering": 1 - white.max(),
        "cast_black": cast,
        "cast_white": np.ptp(white),
        "green_shadows": green - max(red, blue),
        "blue_shadows": blue - green,
        "yellow_shadows": min(red, green) - blue,
        "cold_paper": max(white[2] - white[1], 0) + max(white[1] - white[0], 0),
    }
    limits = [np.interp(quantities[name], limit, (1, 0)) for name, limit in _LIMITS.items()]
    toned = 1 - np.interp(_color_variation(by_luminance), _TONED, (0, 1))
    evidence = min(max(evidence, 0.0), 1.0)
    return float(evidence * evidence * (3 - 2 * evidence) * np.prod(limits) * (1 - toned))


def _opponents(pixels: FloatArray64) -> FloatArray64:
    """Two color differences of the pixels (n×3 -> n×2), both 0 where the pixel is gray."""
    red, green, blue = pixels.T
    return np.stack([red - blue, 2 * green - red - blue], axis=1)


def _least_cast(by_luminance: FloatArray64) -> float:
    """The cast that the most neutral tenth of the pixels keeps, in the brightness class where it is least."""
    bounds = [int(part * len(by_luminance)) for part in _BRIGHTNESS_CLASSES]
    casts = []
    for start, end in pairwise(bounds):
        low, high = np.percentile(_opponents(by_luminance[start : max(end, start + 1)]), [10, 90], axis=0)
        casts.append(np.hypot(*(np.maximum(low, 0) + np.minimum(high, 0))))
    return float(min(casts))


def _color_variation(by_luminance: FloatArray64) -> float:
    """Standard deviation of the color among pixels of equal luminance, relative to the range of the luminance."""
    count = len(by_luminance) // _TONE_CLASSES * _TONE_CLASSES
    if count == 0:
        return 0.0
    classes = _opponents(by_luminance[:count]).reshape(_TONE_CLASSES, -1, 2)
    luminance = by_luminance[[len(by_luminance) // 100, -1 - len(by_luminance) // 100]] @ _LUMA
    return float(np.sqrt(classes.var(axis=1).sum(axis=1).mean()) / max(luminance[1] - luminance[0], _ONE_TONE / 2))


def _plausible_each(distances: FloatArray64, maximum: float) -> FloatArray64:
    """`_plausible` of each distance."""
    return np.array([_plausible(distance, maximum) for distance in distances])


def _plausible(distance: float, maximum: float) -> float:
    """The part of a distance that fading explains: all of it up to `maximum`, falling to 0 at twice that."""
    return distance * min(max(2 - distance / maximum, 0.0), 1.0)


def _curve(values: FloatArray64, black: float, white: float, new_black: float, new_white: float) -> FloatArray64:
    """Move the black and white points: linear between them, power curves of matching slope beyond, down to 0 and 1."""
    if white - black < _ONE_TONE:
        return values
    slope = (new_white - new_black) / (white - black)
    out = new_black + slope * (values - black)
    for end, distance, point, new in ((0.0, values, black, new_black), (1.0, 1 - values, 1 - white, 1 - new_white)):
        if point > 0:
            beyond = np.clip(distance / point, 0, 1)
            out = np.where(beyond < 1, np.abs(end - new * beyond ** (slope * point / new)), out)
    return out
