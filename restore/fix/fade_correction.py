"""Fading correction: one smooth curve per channel for the whole image, estimated from a thumbnail.

A faded print has lost its black (fog lifts it) and its white (the paper yellows), by different amounts in each channel.
The darkest and brightest values of the image measure the loss: first of all channels together, then of each channel
relative to the others. A shift larger than fading can cause belongs to the scene (a sunset, snow, a night) and stays.
So does any cast of an image whose black and white points are in place. Nothing is clipped: beyond its black and white
point a curve bends towards 0 and 1. Changes of gamma and saturation leave no trace in these points, so they are not
corrected.

The constants were chosen on 80 photographs, faded by `restore.degradations.color`, and on the same photographs unfaded,
with equal weight.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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
_TOE = 0.01  # distance from 0 of a corrected black point, and of a white point from 1, so that nothing is clipped
_ONE_TONE = 0.1  # an image whose points are closer than this has too little contrast for an estimate
_KNOTS = 4096


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
    new_black = black - lifted - faded * _cast(black, _MAX_CAST_BLACK)
    new_white = white + lowered + faded * _cast(1 - white, _MAX_CAST_WHITE)
    new_black = np.maximum(new_black, np.minimum(black, _TOE))
    new_white = np.minimum(new_white, np.maximum(white, 1 - _TOE))
    steps = np.linspace(0, 1, _KNOTS)
    return Curves(np.stack([_curve(steps, *points) for points in zip(black, white, new_black, new_white)]))


def _cast(distances: FloatArray64, maximum: float) -> FloatArray64:
    """The shift of each channel's point relative to the nearest one, from the distances of the points to 0 or 1."""
    return np.array([_plausible(distance - distances.min(), maximum) for distance in distances])


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
