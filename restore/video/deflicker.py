"""Flicker of old film: brightness and color that jump from frame to frame by a gain and an offset.

From each frame to the next, the gain and the offset of every channel are estimated by a robust regression over pixels
that match along the motion, after Roosmalen, Lagendijk and Biemond, "Correction of intensity flicker in old film
sequences" (IEEE Transactions on Circuits and Systems for Video Technology 9(7), 1999) and Pitié, Dahyot, Kelly and
Kokaram, "A new robust technique for stabilizing brightness fluctuations in image sequences" (SMVP 2004). Each frame is
then brought to the brightness that it has in a Gaussian mean over its neighborhood in time, which keeps slow changes,
as in Delon, "Movie and video scale-time equalization application to flicker reduction" (IEEE Transactions on Image
Processing 15(1), 2006). The mean here is a local line, so that a fade stays at the ends of a scene, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[Any]  # float32, or float64 for parameters; the stubs of OpenCV do not tell
T = TypeVar("T")

#: Frames before and after one that have a say in its brightness.
REACH = 12
#: The longer side of the frames in which changes are estimated.
SIDE_PX = 160
#: The standard deviation of the Gaussian, in frames.
_SIGMA = 5.0
#: Flicker with a smaller standard deviation (white = 1) is left as it is, a larger one is removed; in part between.
_UNSEEN, _SEEN = 0.0012, 0.0024
#: The largest relative change that is removed; of a larger one ever less, and nothing from 1.5 times this on.
_LARGEST = 0.25
#: Relative changes are told as of a frame of at least this mean.
_LEAST_MEAN = 0.1
#: The largest change of contrast.
_LARGEST_GAIN = 1.4
#: Scenes with fewer frames are left as they are: flicker is not known from what happens in them.
_LEAST_FRAMES = 7
#: Values closer to black or white may be clipped.
_CLIPPED = 0.02
#: A channel with a smaller share of other values says nothing.
_LEAST_SHARE = 0.05
#: In a frame with less contrast (standard deviation), a change is taken for one of the gain.
_FLAT = 0.03
#: A scene ends where more than this share of the pixels differs by more than this after the change.
_CUT_SHARE, _CUT_DIFFERENCE, _LEAST_DIFFERENCE = 0.4, 0.06, 0.015
#: No change of a scene from frame to frame has a larger gain.
_CUT_GAIN = 2.5
_WHITE = 65535


@dataclass(frozen=True)
class Tone:
    """A gain and an offset for each channel, for values in [0, 1].

    Attributes:
        gain, offset: 3.
    """

    gain: FloatArray
    offset: FloatArray

    def scaled(self, strength: float) -> Tone:
        """The same change in part: not at all (0) to as it is (1)."""
        return Tone(1 + (self.gain - 1) * strength, self.offset * strength)

    def to_deep(self, rgb: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
        """The change of a frame, H×W×3; 65535 is white."""
        codes = np.arange(_WHITE + 1, dtype=np.float64)
        out = np.empty_like(rgb)
        for channel in range(3):
            values = codes * self.gain[channel] + self.offset[channel] * _WHITE
            out[:, :, channel] = np.clip(np.rint(values), 0, _WHITE).astype(np.uint16)[rgb[:, :, channel]]
        return out

    def to_unit(self, rgb: FloatArray) -> FloatArray:
        """The change of a frame, H×W×3 in [0, 1]."""
        out: FloatArray = np.clip(rgb * self.gain.astype(np.float32) + self.offset.astype(np.float32), 0, 1)
        return out


@dataclass
class _Held(Generic[T]):
    """A frame in the window.

    Attributes:
        item: what came with it; None once it is out.
        mean: of each channel.
        change: from the frame before to this one; None: a scene begins.
    """

    item: T | None
    mean: FloatArray
    change: Tone | None


def small_of(rgb: FloatArray) -> FloatArray:
    """A frame, H×W×3 in [0, 1], at the size in which changes are estimated."""
    scale = SIDE_PX / max(rgb.shape[:2])
    if scale >= 1:
        return rgb
    size = tuple(max(1, round(side * scale)) for side in rgb.shape[1::-1])
    small: FloatArray = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    return small


def deflickered(frames: Iterator[tuple[T, FloatArray]]) -> Iterator[tuple[T, Tone | None]]:
    """The change of each frame that removes its flicker.

    The change depends on the frame and on `REACH` frames before and after it, not on where the frames begin. Frames are
    taken `REACH` ahead of the one that comes out.

    Args:
        frames: anything, with the frame as of `small_of`, float32; in the order of display.

    Yields:
        What came with the frame, and its change; None: it has no flicker.
    """
    held: list[_Held[T]] = []
    last: FloatArray | None = None
    due = 0

    def out() -> tuple[T, Tone | None]:
        nonlocal due
        item, held[due].item = held[due].item, None
        tone = _correction(held, due)
        due += 1
        if due > REACH:
            del held[0]
            due -= 1
        return item, tone  # type: ignore[return-value]

    for item, rgb in frames:
        change = None if last is None else change_between(last, rgb)
        held.append(_Held(item, rgb.reshape(-1, 3).mean(axis=0, dtype=np.float64), change))
        last = rgb
        if len(held) - due > REACH:
            yield out()
    while due < len(held):
        yield out()


def change_between(one: FloatArray, other: FloatArray) -> Tone | None:
    """The gains and offsets that take a small frame to the next one, h×w×3 each; None: a scene ends between them."""
    if one.shape != other.shape:
        return None
    moved, inside = _matched(one, other)
    one, moved = cv2.blur(one, (3, 3)), cv2.blur(moved, (3, 3))
    gain, offset = np.ones(3), np.zeros(3)
    known = np.zeros(3, bool)
    for channel in range(3):
        x, y = one[:, :, channel], moved[:, :, channel]
        valid = inside & (np.minimum(x, y) > _CLIPPED) & (np.maximum(x, y) < 1 - _CLIPPED)
        if np.count_nonzero(valid) >= _LEAST_SHARE * valid.size:
            gain[channel], offset[channel] = _line(x[valid].astype(np.float64), y[valid].astype(np.float64))
            known[channel] = True
    if not known.any() or gain.max() > _CUT_GAIN or gain.min() < 1 / _CUT_GAIN:
        return None
    change = Tone(gain, offset)
    difference = np.abs(change.to_unit(one) - moved)[:, :, known].mean(axis=2)[inside]
    limit = max(_LEAST_DIFFERENCE, min(_CUT_DIFFERENCE, 0.5 * float(moved.std(axis=(0, 1)).mean())))
    if 4 * difference.size < inside.size or np.mean(difference > limit) > _CUT_SHARE:
        return None
    return change


def _matched(one: FloatArray, other: FloatArray) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """The next frame moved to the places of the pixels of a frame, and where it shows them at all."""
    high, wide = one.shape[:2]
    inside = np.ones((high, wide), bool)
    if min(high, wide) < 16:
        return other, inside
    estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow = estimator.calc(_normalized(one), _normalized(other), np.zeros((high, wide, 2), np.float32))
    x = np.arange(wide, dtype=np.float32)[None, :] + flow[:, :, 0]
    y = np.arange(high, dtype=np.float32)[:, None] + flow[:, :, 1]
    inside = (x >= 0) & (y >= 0) & (x <= wide - 1) & (y <= high - 1)
    return cv2.remap(other, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), inside


def _normalized(rgb: FloatArray) -> npt.NDArray[Any]:
    """The luma of a frame for the estimation of motion, uint8, whatever its brightness and contrast are."""
    luma = rgb.mean(axis=2)
    low, middle, high = np.percentile(luma, (10, 50, 90))
    levels: npt.NDArray[Any] = np.clip((luma - middle) * (90 / max(high - low, 0.02)) + 128, 0, 255).astype(np.uint8)
    return levels


def _line(x: FloatArray, y: FloatArray) -> tuple[float, float]:
    """The gain and the offset from x to y, N values each in [0, 1], whatever some of them are.

    Noise is in both, so the gain is the ratio of their standard deviations (reduced major axis): a least squares fit
    would be too flat, and the gains of many frames are multiplied.
    """
    (x_low, x_middle, x_high), (y_low, y_middle, y_high) = (np.percentile(values, (10, 50, 90)) for values in (x, y))
    gain = (y_high - y_low) / (x_high - x_low) if x_high - x_low > 2 * _FLAT else y_middle / x_middle
    offset = y_middle - gain * x_middle
    for _ in range(4):
        residual = np.abs(y - gain * x - offset)
        kept = residual <= max(3 * 1.4826 * float(np.median(residual)), 0.004)
        x_mean, y_mean = float(x[kept].mean()), float(y[kept].mean())
        x_spread, y_spread = float(x[kept].std()), float(y[kept].std())
        structured = x_spread**2 / (x_spread**2 + _FLAT**2)
        gain = structured * y_spread / max(x_spread, 1e-6) + (1 - structured) * y_mean / x_mean
        offset = y_mean - gain * x_mean
    return float(gain), float(offset)


def _correction(held: list[_Held[T]], at: int) -> Tone | None:
    """The change that removes the flicker of a frame in the window; None: there is none."""
    numbers, gains, offsets = _brightness_around(held, at)
    if len(numbers) < _LEAST_FRAMES:
        return None
    mean = held[at].mean
    levels = gains * mean + offsets
    # Flicker goes up and down all the time. A fade, its ends, or one flash have no second difference in the median.
    second = levels[:-2] - 2 * levels[1:-1] + levels[2:]
    flicker = float(np.median(np.abs(second), axis=0).max()) * 1.4826 / 6**0.5
    amount = (flicker - _UNSEEN) / (_SEEN - _UNSEEN)
    if amount <= 0:
        return None
    weights = np.exp(-0.5 * (numbers / _SIGMA) ** 2)
    kept = np.ones(len(numbers), bool)
    scale = np.maximum(mean, _LEAST_MEAN)
    for _ in range(3):
        shares, slopes = _local_line(numbers, weights * kept)
        line = shares @ levels + np.outer(numbers, slopes @ levels)
        near = (np.abs(levels - line) / scale).max(axis=1) < 1.5 * _LARGEST
        if np.count_nonzero(near) < _LEAST_FRAMES or (near == kept).all():
            break
        kept = near
    distance = float((np.abs(shares @ levels - mean) / scale).max())
    amount = min(amount, 1.0) * min(max((1.5 * _LARGEST - distance) / (0.5 * _LARGEST), 0.0), 1.0)
    if amount <= 0:
        return None
    target = shares @ levels
    gain = np.clip(shares @ gains, 1 / _LARGEST_GAIN, _LARGEST_GAIN)
    return Tone(gain, target - gain * mean).scaled(amount)


def _brightness_around(held: list[_Held[T]], at: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """How the content of a frame looks in the frames around it in its scene, in the order of display.

    Returns:
        The place of each frame, 0 for the frame itself (N); and the gain and the offset from the frame to it (N×3).
    """
    found = [(0.0, np.ones(3), np.zeros(3))]
    gain, offset = np.ones(3), np.zeros(3)
    for step in range(1, min(REACH, len(held) - 1 - at) + 1):
        change = held[at + step].change
        if change is None:
            break
        gain, offset = change.gain * gain, change.gain * offset + change.offset
        found.append((float(step), gain, offset))
    gain, offset = np.ones(3), np.zeros(3)
    for step in range(1, min(REACH, at) + 1):
        change = held[at - step + 1].change
        if change is None:
            break
        gain, offset = gain / change.gain, (offset - change.offset) / change.gain
        found.insert(0, (float(-step), gain, offset))
    numbers, gains, offsets = zip(*found)
    return np.array(numbers), np.array(gains), np.array(offsets)


def _local_line(numbers: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """What N values count for in their weighted line: for its value at 0, and for its slope."""
    total, first, second = weights.sum(), weights @ numbers, weights @ numbers**2
    scale = total * second - first**2
    return weights * (second - first * numbers) / scale, weights * (total * numbers - first) / scale
