"""Fading undone: one smooth curve per channel for the whole image, estimated from a thumbnail.

A faded print has lost its black (fog lifts it) and its white (the paper yellows), and not in all channels alike. Its
darkest and brightest values tell how much: all channels together first, then each beside the others. What goes further
than fading does is the scene's own (a sunset, snow, a night) and stays, and so does every cast of an image whose black
and white are where they should be. Nothing is clipped: beyond its black and white point a curve bends towards 0 and 1.
What `restore.degradations.color` does to the middle (gamma) and to saturation leaves no such trace, and is not undone.

The numbers were chosen on 80 photographs faded by `restore.degradations.color` and, as much, on the same unfaded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
FloatArray64 = npt.NDArray[np.float64]

_THUMBNAIL_PX = 256  # its longer side, at most
_PERCENT = 0.3  # of the thumbnail's pixels may lie beyond a black or white point: dust, and noise that is left
_SURE = 0.03  # so far from 0 and 1 points lie in images that have not faded
# How far fading moves points: all channels together, and one beside the others. What lies further off is more and more
# the scene's own, and at twice that wholly.
_MOST, _MOST_APART_BLACK, _MOST_APART_WHITE = 0.3, 0.05, 0.1
# A white that is low says little by itself: many scenes have none. It is moved by the first share, and by the second
# where black is lifted so much.
_WHITE_ALONE, _WHITE_WITH_BLACK, _LIFTED = 0.2, 0.9, 0.1
_FADED = 0.3  # both moved so far together: faded, and a cast beyond doubt
_TOE = 0.01  # what is left between 0 and a black point that is moved there, and likewise at 1
_ONE_TONE = 0.1  # an image whose points lie so near each other has nothing to go by
_KNOTS = 4096


@dataclass(frozen=True)
class Curves:
    """Tone curves that correct fading.

    Attributes:
        tables: 3×(knots): values at equal steps from 0 to 1; rising.
    """

    tables: FloatArray64

    def __call__(self, shown: FloatArray) -> FloatArray:
        """H×W×3, sRGB, clipped to [0, 1] -> the same image unfaded, at full depth."""
        steps = np.linspace(0, 1, self.tables.shape[1])
        out = np.empty_like(shown)
        for row in range(shown.shape[0]):  # what `interp` makes is twice as wide
            for channel, table in enumerate(self.tables):
                out[row, :, channel] = np.interp(shown[row, :, channel], steps, table)
        return out


def unfaded(image: FloatArray) -> FloatArray:
    """An image (H×W×3, sRGB, [0, 1]) with its fading corrected; gray stays gray."""
    return estimated(thumbnail(lambda rows: image[rows], (image.shape[0], image.shape[1])))(image)


def thumbnail(read: Callable[[slice], FloatArray], size: tuple[int, int]) -> FloatArray:
    """A small version of an image: the means of squares. Incomplete squares at the edges are left out.

    Args:
        read: rows -> these, h×W×3; asked for from the top down, a few at a time.
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
    """The curves that correct the fading of a thumbnail (h×w×3)."""
    pixels = np.clip(small.reshape(-1, 3).astype(np.float64), 0, 1)
    black, white = np.percentile(pixels, [_PERCENT, 100 - _PERCENT], axis=0)
    lifted = max(_believed(black.min(), _MOST) - _SURE, 0.0)
    lowered = max(_believed(1 - white.max(), _MOST) - _SURE, 0.0)
    lowered *= np.interp(lifted, (0, _LIFTED), (_WHITE_ALONE, _WHITE_WITH_BLACK))
    faded = min((lifted + lowered) / _FADED, 1.0)
    new_black = black - lifted - faded * _apart(black, _MOST_APART_BLACK)
    new_white = white + lowered + faded * _apart(1 - white, _MOST_APART_WHITE)
    new_black = np.maximum(new_black, np.minimum(black, _TOE))
    new_white = np.minimum(new_white, np.maximum(white, 1 - _TOE))
    steps = np.linspace(0, 1, _KNOTS)
    return Curves(np.stack([_curve(steps, *points) for points in zip(black, white, new_black, new_white)]))


def _apart(distances: FloatArray64, most: float) -> FloatArray64:
    """How far each channel's point is moved beyond the others', by its distance from 0 or 1."""
    return np.array([_believed(distance - distances.min(), most) for distance in distances])


def _believed(distance: float, most: float) -> float:
    """A distance as far as fading explains it: all of it up to `most`, and nothing from twice that on."""
    return distance * min(max(2 - distance / most, 0.0), 1.0)


def _curve(values: FloatArray64, black: float, white: float, new_black: float, new_white: float) -> FloatArray64:
    """Black and white points moved: straight between them, and beyond them powers that reach 0 and 1 as steep."""
    if white - black < _ONE_TONE:
        return values
    slope = (new_white - new_black) / (white - black)
    out = new_black + slope * (values - black)
    for end, distance, point, new in ((0.0, values, black, new_black), (1.0, 1 - values, 1 - white, 1 - new_white)):
        if point > 0:
            beyond = np.clip(distance / point, 0, 1)
            out = np.where(beyond < 1, np.abs(end - new * beyond ** (slope * point / new)), out)
    return out
