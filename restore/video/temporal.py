"""Dirt on film: found and filled by comparing a frame with the frames before and after it.

Dirt, hairs and most scratches stand in one frame only. Where a frame differs from both of its neighbors, moved along
with the scene, and these agree, the frame is damaged, and the neighbors show what was there. The detection is the
simplified rank-order detector, after Nadenau and Mitra (1997); the motion is the optical flow of Kroeger et al., "Fast
Optical Flow using Dense Inverse Search" (ECCV 2016).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[Any]  # float32; the stubs of OpenCV do not tell
BoolArray = npt.NDArray[np.bool_]
T = TypeVar("T")

_WHITE = 65535.0
#: Motion is estimated in frames of this longer side at most.
_FLOW_SIDE_PX = 640
#: What differs by less than this (of 1) is the same, on film without grain.
_LEAST_SPIKE = 0.03
#: The same for the standard deviation of the difference between frames, in pixels and in means of windows.
_LEAST_SIGMA, _LEAST_MEAN = 0.01, 0.006
#: Dirt differs by more than this number of standard deviations; by so much more where motion is unsure.
_SPIKE_SIGMAS, _UNSURE = 4.7, 1.5
#: Where the scene itself changes from pixel to pixel, motion is not exact, and this share of the contrast is added.
_CONTRAST, _MEAN_CONTRAST, _WEAKER_CONTRAST = 0.35, 0.25, 0.2
#: Pixels next to found ones are dirt, too, if they differ by this number of standard deviations.
_WEAKER_SIGMAS = 1.0
#: Standard deviations are estimated from about N values.
_SAMPLES = 100_000
#: How near another motion makes what is seen unsure, in pixels of the frames in which motion is estimated.
_NEAR_PX, _APART_PX = 5, 9
#: Two neighbors that differ by more than this (or by this number of standard deviations) do not agree.
_AGREE, _AGREE_SIGMAS = 0.06, 4.0
#: A scene ends where more than this share of the pixels does not go on in the next frame.
_CUT_SHARE = 0.4
_CUT_DIFFERENCE = 0.08
#: A neighbor knows what is in a hole if it differs by less than this around it.
_KNOWS = 0.06
#: The share of the contrast by which a mark that neighbors show may differ.
_MARK_CONTRAST = 0.25
#: A mark of a detector is part of the scene if neighbors show more than this share of its edge.
_MOSTLY = 0.9
#: What moves less from frame to frame stands still.
_STILL_PX = 0.5
#: Flicker from frame to frame changes less than this.
_FLICKER = 0.1
#: Frames from this side on are searched for motion around holes at a quarter of their size.
_COARSE_FROM_PX = 256
#: Widens what was found: the edges of dirt are soft.
_MARGIN_PX = 2
#: More than this share of a frame is never dirt: it is a flash, a cut, or a motion that was not understood.
_MOST_DIRT = 0.2


@dataclass
class Seen:
    """A frame as its neighbors see it.

    Attributes:
        rgb: H×W×3, uint16; 65535 is white.
        found: H×W, damage that a detector found; None: there is no detector.
        luma: H×W, float32.
        dirt: H×W, the mask of the frame; None: not known yet.
    """

    rgb: npt.NDArray[np.uint16]
    found: BoolArray | None
    luma: FloatArray = field(init=False)
    small: npt.NDArray[Any] = field(init=False)
    dirt: BoolArray | None = None

    def __post_init__(self) -> None:
        self.luma = cv2.cvtColor(self.rgb, cv2.COLOR_RGB2GRAY).astype(np.float32) * np.float32(1 / _WHITE)
        scale = min(1.0, _FLOW_SIDE_PX / max(self.luma.shape))
        small = (
            cv2.resize(self.luma, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else self.luma
        )
        # Small dirt would pull the motion with it.
        self.small = cv2.medianBlur(np.clip(np.rint(small * 255), 0, 255).astype(np.uint8), 5)

    @property
    def mask(self) -> BoolArray:
        """`dirt`, once it is known."""
        assert self.dirt is not None
        return self.dirt


@dataclass
class Motion:
    """Where the pixels of a frame are in one of its neighbors.

    Attributes:
        neighbor: the other frame.
        flow: h×w×2, x and y from a pixel to its place there, in pixels of the frame; of the size of `Seen.small`.
        luma: the luma of the neighbor, moved to this frame.
        inside: where the neighbor shows the pixel at all.
    """

    neighbor: Seen
    flow: FloatArray
    luma: FloatArray
    inside: BoolArray


def motion(frame: Seen, neighbor: Seen) -> Motion | None:
    """The motion from a frame to a neighbor; None: a scene ends between them."""
    estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    high, wide = frame.luma.shape
    if min(frame.small.shape) < 16:
        return None
    flow: FloatArray = estimator.calc(frame.small, neighbor.small, np.zeros((*frame.small.shape, 2), np.float32))
    if flow.shape[:2] != (high, wide):
        flow *= np.array((wide / flow.shape[1], high / flow.shape[0]), np.float32)
    moved, inside = _moved(neighbor.luma, _grown_to(flow, (high, wide)))
    difference = np.abs(_smooth(frame.luma) - _smooth(moved))[inside]
    if difference.size < inside.size // 4 or np.mean(difference > _CUT_DIFFERENCE) > _CUT_SHARE:
        return None
    return Motion(neighbor, flow, moved, inside)


def find_dirt(frame: Seen, before: Motion | None, after: Motion | None, second: Motion | None = None) -> BoolArray:
    """The mask of a frame: dirt that only it shows, and of what a detector found, what its neighbors do not show.

    Args:
        frame: the frame.
        before, after: its motion to its neighbors; None: it has none in its scene.
        second: at an end of its scene, the motion to the frame behind its only neighbor; None: there is none.
    """
    dirt = np.zeros(frame.luma.shape, bool)
    one, other = before or second, after or second
    if one is not None and other is not None and one is not other:
        dirt = _spikes(frame, one, other, one_sided=second is not None)
    if frame.found is not None:
        dirt |= _without_content(frame, [one for one in (before, after) if one is not None])
    return dirt


def _spikes(frame: Seen, one: Motion, other: Motion, *, one_sided: bool) -> BoolArray:
    """Where a frame differs from two others in one direction, while these agree.

    Grain hides faint dirt in single pixels, so differences are also judged by their means over small windows: square
    ones for specks, thin ones in several directions for scratches and hairs.

    Args:
        frame: the frame.
        one, other: its motion to the others.
        one_sided: both follow it, or both precede it. What moves may then cover a part of the scene in both.
    """
    seeds, weak = _differing(frame.luma, one.luma, other.luma, one.inside & other.inside, unsure=one_sided)
    alike = _moves_alike([one], _APART_PX, 1.0) if one_sided else _moves_alike([one, other], _NEAR_PX, 2.5)
    if one_sided:
        seeds, weak = seeds & alike, weak & alike
    elif (seeds & ~alike).any():
        # The dirt itself may be what seems to move another way. Then the others agree if it moves as all around.
        around = ~_widened(_grown(seeds, weak), 3)
        moved = [_moved(part.neighbor.luma, _flow_around(part.flow, around)) for part in (one, other)]
        (luma, inside), (other_luma, other_inside) = moved
        also, weak_also = _differing(frame.luma, luma, other_luma, inside & other_inside, unsure=True)
        seeds, weak = seeds & (alike | also), weak & (alike | weak_also)
    dirt = _grown(seeds, weak)
    if np.count_nonzero(dirt) > _MOST_DIRT * dirt.size:
        return np.zeros_like(dirt)
    return _widened(dirt, _MARGIN_PX)


def _differing(
    luma: FloatArray, one: FloatArray, other: FloatArray, inside: BoolArray, *, unsure: bool
) -> tuple[BoolArray, BoolArray]:
    """Where a luma surely differs from two others that agree, and where it may, H×W.

    Args:
        luma, one, other: H×W.
        inside: where there are others.
        unsure: the others may be of other places.
    """
    to_one, to_other = luma - one, luma - other
    apart = np.abs(_smooth(one) - _smooth(other))
    sigma = _noise((to_one + to_other)[inside] / 2)
    contrast = np.maximum(_contrast(one, sigma), _contrast(other, sigma))
    nearest = _nearest(to_one, to_other)
    floor = max(_LEAST_SIGMA, sigma)
    agree = inside & (apart < max(_AGREE, _AGREE_SIGMAS * sigma)) & (apart < 0.5 * nearest + 1.5 * floor)
    sigmas = _SPIKE_SIGMAS * (_UNSURE if unsure else 1)
    seeds = nearest > sigmas * floor + _CONTRAST * contrast
    # What stands out by itself must not spread.
    clipped = [np.clip(values, -sigmas * floor, sigmas * floor) for values in (to_one, to_other)]
    for window in _WINDOWS:
        means = [cv2.filter2D(values, -1, window, borderType=cv2.BORDER_REFLECT) for values in clipped]
        least = max(_LEAST_MEAN, _noise((means[0] + means[1])[inside] / 2))
        seeds |= _nearest(*means) > sigmas * least + _MEAN_CONTRAST * contrast
    weak: BoolArray = agree & (nearest > max(_LEAST_SPIKE / 2, _WEAKER_SIGMAS * sigma) + _WEAKER_CONTRAST * contrast)
    return seeds & agree, weak


def _nearest(one: FloatArray, other: FloatArray) -> FloatArray:
    """The smaller of two differences, without its sign; 0 where they have different signs."""
    nearest: FloatArray = np.where(one * other > 0, np.minimum(np.abs(one), np.abs(other)), 0)
    return nearest


def _moves_alike(motions: list[Motion], pixels: int, limit: float) -> BoolArray:
    """Where all motion within some pixels differs by less than `limit`: nothing covers what moves another way."""
    size = motions[0].luma.shape
    alike = np.ones(size, bool)
    kernel = np.ones((2 * pixels + 1, 2 * pixels + 1), np.uint8)
    for one in motions:
        for axis in (0, 1):
            part = np.ascontiguousarray(one.flow[:, :, axis])
            alike &= _grown_to(cv2.dilate(part, kernel) - cv2.erode(part, kernel), size) < limit
    return alike


def _mean_windows() -> list[FloatArray]:
    """The windows over which differences are averaged: two squares, and lines in eight directions."""
    windows = [np.full((side, side), 1 / side**2, np.float32) for side in (3, 5)]
    half = _LINE_PX // 2
    for number in range(8):
        x, y = (round(half * f(np.pi * number / 8)) for f in (np.cos, np.sin))
        line = cv2.line(np.zeros((_LINE_PX, _LINE_PX), np.float32), (half - x, half - y), (half + x, half + y), 1, 1)
        windows.append(line / line.sum())
    return windows


#: The length of thin windows.
_LINE_PX = 11
_WINDOWS = _mean_windows()


def _without_content(frame: Seen, motions: list[Motion]) -> BoolArray:
    """What a detector found, without marks that the neighbors show as well: they belong to the scene.

    A scratch may stay for many frames. It does not move with the scene around it, so neighbors do not show it where the
    scene moves; where nothing moves, upright lines are left to the detector.
    """
    assert frame.found is not None
    if not motions or not frame.found.any():
        return frame.found
    kernel = np.ones((3, 3), np.uint8)
    wide = _widened(frame.found, 1)
    edge = wide & (cv2.erode(frame.found.astype(np.uint8), kernel) == 0)  # the inside of a spot agrees with itself
    sigma = max(_noise((frame.luma - one.luma)[one.inside]) for one in motions)
    shown = still = np.ones(frame.found.shape, bool)
    around = ~_widened(frame.found, 3)
    for one in motions:
        flow = _flow_around(one.flow, around)
        luma, inside = _moved(one.neighbor.luma, flow)
        limit = max(_LEAST_SPIKE, 1.5 * sigma) + _MARK_CONTRAST * _contrast(luma, sigma)
        shown = shown & inside & (np.abs(_smooth(frame.luma) - _smooth(luma)) < limit)
        still = still & (np.hypot(flow[:, :, 0], flow[:, :, 1]) < _STILL_PX)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(wide.astype(np.uint8), connectivity=8)
    area = np.maximum(np.bincount(labels[edge], minlength=count), 1)
    agreeing = np.bincount(labels[shown & edge], minlength=count) / area
    resting = np.bincount(labels[still & edge], minlength=count) / area > 0.5
    high = stats[:, cv2.CC_STAT_HEIGHT] > 0.4 * frame.found.shape[0]
    line = high & (stats[:, cv2.CC_STAT_WIDTH] < 0.05 * frame.found.shape[1])
    damage = (agreeing < _MOSTLY) | (line & resting)
    damage[0] = False
    kept: BoolArray = damage[labels] & frame.found
    return kept


def fill_dirt(frame: Seen, motions: list[Motion]) -> tuple[FloatArray, BoolArray]:
    """Fill the mask of a frame from its neighbors where they know what was there.

    Args:
        frame: with its `dirt`.
        motions: to neighbors in its scene, whose `dirt` is known.

    Returns:
        The frame, H×W×3, and the part of the mask that no neighbor knows.
    """
    unknown = frame.mask.copy()
    if not motions or not unknown.any():
        return _as_float(frame.rgb), unknown
    around = ~_widened(unknown, 3)
    rows, columns = np.nonzero(unknown)
    total = np.zeros((len(rows), 3), np.float32)
    weights = np.zeros(len(rows), np.float32)
    for one in motions:
        clean = one.inside & ~unknown
        difference = frame.luma - one.luma
        error = cv2.boxFilter(np.where(clean, np.abs(difference), 0), -1, (15, 15))
        share = cv2.boxFilter(clean.astype(np.float32), -1, (15, 15))
        error = _spread_coarsely(error / np.maximum(share, 1e-6), share > 0.05)[rows, columns]
        # What is brighter or darker there by a little, as in flickering film, is taken over from around the hole.
        offset = _spread_coarsely(difference, clean & (np.abs(difference) < _FLICKER))[rows, columns]
        flow = _flow_around(one.flow, around)[rows, columns]
        moved, inside = _taken(one.neighbor.rgb, columns + flow[:, 0], rows + flow[:, 1])
        moved = _as_float(moved)
        if one.neighbor.mask.any():
            dirty = _widened(one.neighbor.mask, 1).astype(np.float32)
            inside &= _taken(dirty, columns + flow[:, 0], rows + flow[:, 1])[0] < 0.01
        weight = np.where(inside & (error < _KNOWS), 1 / (error + 0.003) ** 2, 0).astype(np.float32)
        total += weight[:, None] * (moved + offset[:, None])
        weights += weight
    known = weights > 0
    filled = _as_float(frame.rgb)
    filled[rows[known], columns[known]] = np.clip(total[known] / weights[known][:, None], 0, 1)
    unknown[rows[known], columns[known]] = False
    return filled, unknown


def steadily(
    frames: Iterator[tuple[T, npt.NDArray[np.uint16]]],
    detect: Callable[[FloatArray], BoolArray | None],
) -> Iterator[tuple[T, FloatArray, BoolArray, BoolArray]]:
    """Find and fill the dirt of frames, each by what its two neighbors show.

    What comes out for a frame depends on it and on the two frames before and after it, not on where the frames begin.

    Args:
        frames: anything, with the pixels of a frame, H×W×3, uint16; in the order of display.
        detect: finds damage in a frame alone, H×W×3 in [0, 1]; returns None if nothing does.

    Yields:
        What came with the frame; the frame in [0, 1], filled where its neighbors know what was there; its mask; and the
        part of the mask that is still to be filled.
    """
    # Each with its motion to the frame before and to the one after.
    held: deque[tuple[T, Seen, Motion | None, Motion | None]] = deque()

    def settle(place: int) -> None:
        """Find the dirt of a frame, at an end of its scene with the help of the next but one."""
        _, seen, before, after = held[place]
        if seen.dirt is not None:
            return
        second: Motion | None = None
        step = 1 if before is None else -1
        if (before is None) != (after is None) and -len(held) <= place + 2 * step < 0:
            _, _, *onward = held[place + step]
            if onward[1 if before is None else 0] is not None:
                second = motion(seen, held[place + 2 * step][1])
        seen.dirt = find_dirt(seen, before, after, second)

    def filled(place: int) -> tuple[T, FloatArray, BoolArray, BoolArray]:
        item, seen, before, after = held[place]
        rgb, unknown = fill_dirt(seen, [one for one in (before, after) if one is not None])
        return item, rgb, seen.mask, unknown

    for item, rgb in frames:
        seen = Seen(rgb, detect(_as_float(rgb)))
        back: Motion | None = None
        if held:
            last, before_it, to_last, _ = held[-1]
            forth, back = motion(before_it, seen), motion(seen, before_it)
            if forth is None or back is None:  # a scene ends for both
                forth = back = None
            held[-1] = (last, before_it, to_last, forth)
        held.append((item, seen, back, None))
        if len(held) > 2:
            settle(-3)  # the first of a scene waits for the next but one
        if len(held) > 1 and (held[-2][2] is not None or held[-2][3] is None):
            settle(-2)
        if len(held) > 2:
            yield filled(-3)
            held[-3] = (held[-3][0], held[-3][1], None, held[-3][3])  # flows are large
        if len(held) > 3:
            held.popleft()
    for place in range(-min(2, len(held)), 0):
        settle(place)
    for place in range(-min(2, len(held)), 0):
        yield filled(place)


def spread(values: FloatArray, valid: BoolArray) -> FloatArray:
    """Values, H×W×C, with those that are not valid interpolated from all around, coarsely where they are far away.

    Pull and push on an image pyramid (Gortler et al., "The Lumigraph", 1996, section 3.4).
    """
    if valid.all():
        return values
    weight = valid.astype(np.float32)
    levels: list[tuple[FloatArray, FloatArray]] = [(values * weight[:, :, None], weight)]
    while min(levels[-1][1].shape) > 2 and not (levels[-1][1] > 0.01).all():
        weighted, weight = levels[-1]
        down = cv2.pyrDown(weighted)
        levels.append((down[:, :, None] if down.ndim == 2 else down, cv2.pyrDown(weight)))
    weighted, weight = levels.pop()
    mean = weighted.sum(axis=(0, 1)) / max(float(weight.sum()), 1e-6)
    coarse = np.where(weight[:, :, None] > 1e-4, weighted / np.maximum(weight, 1e-4)[:, :, None], mean)
    for weighted, weight in reversed(levels):
        up = cv2.resize(coarse, weight.shape[::-1], interpolation=cv2.INTER_LINEAR)
        up = up[:, :, None] if up.ndim == 2 else up
        share = np.clip(weight, 0, 1)[:, :, None]
        coarse = weighted / np.maximum(weight, 1e-4)[:, :, None] * share + up * (1 - share)
    return np.where(valid[:, :, None], values, coarse).astype(np.float32)


def _spread_coarsely(values: FloatArray, valid: BoolArray) -> FloatArray:
    """As `spread`, for values H×W or H×W×C that change slowly: at a quarter of the size, if frames are large."""
    high, wide = valid.shape
    deep = values if values.ndim == 3 else values[:, :, None]
    if min(high, wide) < _COARSE_FROM_PX:
        out = spread(deep, valid)
    else:
        size = (-(-wide // 4), -(-high // 4))
        weight = cv2.resize(valid.astype(np.float32), size, interpolation=cv2.INTER_AREA)
        small = cv2.resize(deep * valid[:, :, None].astype(np.float32), size, interpolation=cv2.INTER_AREA)
        small = small.reshape(*weight.shape, -1) / np.maximum(weight, 1e-4)[:, :, None]
        out = cv2.resize(spread(small, weight > 0.25), (wide, high), interpolation=cv2.INTER_LINEAR)
        out = out.reshape(high, wide, -1)
        out = np.where(valid[:, :, None], deep, out)
    return out if values.ndim == 3 else out[:, :, 0]


def _flow_around(flow: FloatArray, around: BoolArray) -> FloatArray:
    """The flow at the size of the frame, H×W×2, with that of what is not `around` taken from around it."""
    weight = cv2.resize(around.astype(np.float32), flow.shape[1::-1], interpolation=cv2.INTER_AREA)
    return _grown_to(spread(flow, weight > 0.99), around.shape)


def _grown_to(values: FloatArray, size: tuple[int, ...]) -> FloatArray:
    if values.shape[:2] == tuple(size):
        return values
    grown: FloatArray = cv2.resize(values, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    return grown


def _as_float(rgb: npt.NDArray[np.uint16]) -> FloatArray:
    scaled: FloatArray = rgb.astype(np.float32) * np.float32(1 / _WHITE)
    return scaled


def _taken(values: FloatArray, x: FloatArray, y: FloatArray) -> tuple[FloatArray, BoolArray]:
    """The values at N places, N or N×C, and which of these are inside."""
    high, wide = values.shape[:2]
    inside = (x >= 0) & (y >= 0) & (x <= wide - 1) & (y <= high - 1)
    columns = 1 << 14  # OpenCV takes maps of less than 32768 pixels a side
    padded = -len(x) % columns
    across, down = (np.pad(axis.astype(np.float32), (0, padded)).reshape(-1, columns) for axis in (x, y))
    taken = cv2.remap(values, across, down, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return taken.reshape(-1, *values.shape[2:])[: len(x)], inside


def _moved(values: FloatArray, flow: FloatArray) -> tuple[FloatArray, BoolArray]:
    """The values of a neighbor at the places of a frame's pixels, and where these are inside it."""
    high, wide = flow.shape[:2]
    x = np.arange(wide, dtype=np.float32)[None, :] + flow[:, :, 0]
    y = np.arange(high, dtype=np.float32)[:, None] + flow[:, :, 1]
    inside = (x >= 0) & (y >= 0) & (x <= wide - 1) & (y <= high - 1)
    moved = cv2.remap(values, x, y, cv2.INTER_CUBIC,
                      borderMode=cv2.BORDER_REPLICATE)  # fmt: skip
    return moved, inside


def _smooth(luma: FloatArray) -> FloatArray:
    return cv2.blur(luma, (3, 3))


def _contrast(luma: FloatArray, sigma: float) -> FloatArray:
    """How far the scene changes around each pixel, without what grain adds: the range of nine values is about 3 σ."""
    kernel = np.ones((3, 3), np.uint8)
    contrast: FloatArray = np.maximum(cv2.dilate(luma, kernel) - cv2.erode(luma, kernel) - 3 * sigma, 0)
    return contrast


def _noise(difference: FloatArray) -> float:
    """The standard deviation of a difference, whatever a few large values are."""
    if not difference.size:
        return 0.0
    step = max(1, difference.size // _SAMPLES)
    return 1.4826 * float(np.median(np.abs(difference[::step])))


def _grown(seeds: BoolArray, weak: BoolArray) -> BoolArray:
    """The connected parts of `weak` and `seeds` that hold a seed."""
    count, labels = cv2.connectedComponents((weak | seeds).astype(np.uint8), connectivity=8)
    holds = np.zeros(count, bool)
    holds[labels[seeds]] = True
    holds[0] = False
    grown: BoolArray = holds[labels]
    return grown


def _widened(mask: BoolArray, pixels: int) -> BoolArray:
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * pixels + 1, 2 * pixels + 1))
    wide: BoolArray = cv2.dilate(mask.astype(np.uint8), kernel) > 0
    return wide
