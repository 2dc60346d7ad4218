"""Dirt on film: found and filled by comparing a frame with the frames before and after it.

Dirt, hairs and most scratches stand in one frame only. Where a frame differs from both of its neighbors, moved along
with the scene, and these agree, the frame is damaged, and the neighbors show what was there. The detection is the
simplified rank-order detector, after Nadenau and Mitra (1997).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from restore.video import line_scratches
from restore.video.ahead import ahead
from restore.video.line_scratches import Traces, find_lines, sideways, traces_of
from restore.video.motion import (
    RGB16,
    BoolArray,
    FloatArray,
    Motion,
    Seen,
    flow_around,
    grown_to,
    motion,
    places,
    remapped,
    small_share,
    smooth,
    span,
    spread,
    taken,
    taken_from_small,
)

T = TypeVar("T")
Part = tuple[slice, slice]
Places = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]

_WHITE = 65535.0
#: Frames before and after one that have a say in it: one more than lines are followed through.
AROUND = 5
#: What differs by less than this (of 1) is the same, on film without grain.
_LEAST_SPIKE = 0.03
#: The same for the standard deviation of the difference between frames, in pixels and in means of windows.
_LEAST_SIGMA, _LEAST_MEAN = 0.01, 0.0042
#: Dirt differs by more than this number of standard deviations, in pixels and in means of windows; by so much more
#: where motion is unsure.
_SPIKE_SIGMAS, _MEAN_SIGMAS, _UNSURE = 4.7, 6.0, 1.5
#: Where the scene itself changes from pixel to pixel, motion is not exact, and this share of the contrast is added.
_CONTRAST, _MEAN_CONTRAST, _WEAKER_CONTRAST = 0.35, 0.25, 0.2
#: Pixels next to found ones are dirt, too, if they differ by this number of standard deviations.
_WEAKER_SIGMAS = 1.0
#: Standard deviations are estimated from about N values.
_SAMPLES = 30_000
#: How near another motion makes what is seen unsure, in pixels of the frames in which motion is estimated.
_NEAR_PX, _APART_PX = 5, 9
#: Two neighbors that differ by more than this (or by this number of standard deviations) do not agree.
_AGREE, _AGREE_SIGMAS = 0.06, 4.0
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
#: Frames from this side on are compared around holes at a quarter of their size.
_COARSE_FROM_PX = 256
#: Widens what was found: the edges of dirt are soft.
_MARGIN_PX = 2
#: More than this share of a frame is never dirt: it is a flash, a cut, or a motion that was not understood.
_MOST_DIRT = 0.2
#: The side of the parts of a frame that are compared again, and what is seen around them.
_PART_PX, _AROUND_PX = 256, 8


def find_dirt(frame: Seen, before: Motion | None, after: Motion | None, second: Motion | None = None) -> BoolArray:
    """The mask of a frame: dirt that only it shows, lines that stay, and of what a detector found, what its neighbors
    do not show.

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
    if frame.lines is not None:
        dirt |= frame.lines
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
    inside, size = one.inside & other.inside, frame.luma.shape
    seeds, weak, noise = _differing(frame.luma, one.luma, other.luma, inside, unsure=one_sided)
    if not seeds.any():
        return seeds
    alike = _moves_alike([one], _APART_PX, 1.0, size) if one_sided else _moves_alike([one, other], _NEAR_PX, 2.5, size)
    dirt = _grown(seeds, weak)
    if one_sided:
        dirt = _grown(seeds & alike, weak & alike)
    elif (astray := seeds & ~alike).any():
        # The dirt itself may be what seems to move another way. Then the others agree if it moves as all around.
        hidden = small_share(_widened(dirt, 3), one.flow.shape)
        ways = [(part.neighbor.luma, places(flow_around(part.flow, hidden), size)) for part in (one, other)]
        also, weak_also = alike.copy(), alike
        for part, wide, own in _parts(astray):
            (luma, there), (other_luma, other_there) = (remapped(values, x[wide], y[wide]) for values, (x, y) in ways)
            found, near, _ = _differing(frame.luma[wide], luma, other_luma, there & other_there, noise, unsure=True)
            also[part] |= found[own]
            weak_also[part] |= near[own]
        dirt = _grown(seeds & also, weak & weak_also)
    if np.count_nonzero(dirt) > _MOST_DIRT * dirt.size:
        return np.zeros_like(dirt)
    return _widened(dirt, _MARGIN_PX)


def _differing(
    luma: FloatArray,
    one: FloatArray,
    other: FloatArray,
    inside: BoolArray,
    noise: list[float] | None = None,
    *,
    unsure: bool,
) -> tuple[BoolArray, BoolArray, list[float]]:
    """Where a luma surely differs from two others that agree, and where it may, H×W; and the noise of the differences.

    Args:
        luma, one, other: H×W.
        inside: where there are others.
        noise: of the differences and of their means over each window; None: it is estimated.
        unsure: the others may be of other places.
    """
    to_one, to_other = cv2.subtract(luma, one), cv2.subtract(luma, other)
    few = _few(luma.shape)
    known, estimated = inside[few], noise is None
    if noise is None:
        noise = [_noise((to_one[few] + to_other[few])[known] / 2)]
    sigma = noise[0]
    signed = _nearest(to_one, to_other)
    del to_one, to_other  # large, like all arrays here
    nearest = np.abs(signed)
    apart = smooth(cv2.subtract(one, other))
    np.abs(apart, out=apart)
    floor = max(_LEAST_SIGMA, sigma)
    limit = 0.5 * nearest
    limit += 1.5 * floor
    agree: BoolArray = apart < np.minimum(limit, max(_AGREE, _AGREE_SIGMAS * sigma), out=limit)
    agree &= inside
    del apart
    contrast: FloatArray = cv2.max(span(one), span(other))  # that of nine values of noise is about 3 σ
    contrast -= 3 * sigma
    np.maximum(contrast, 0, out=contrast)
    sigmas, mean_sigmas = (one * (_UNSURE if unsure else 1) for one in (_SPIKE_SIGMAS, _MEAN_SIGMAS))
    np.multiply(contrast, _CONTRAST, out=limit)
    limit += sigmas * floor
    seeds: BoolArray = nearest > limit
    # What stands out by itself must not spread.
    np.clip(signed, -sigmas * floor, sigmas * floor, out=signed)
    most: FloatArray | None = None
    for number, window in enumerate(_WINDOWS, 1):
        mean: FloatArray = window(signed)
        np.abs(mean, out=mean)
        if estimated:
            noise.append(max(_LEAST_MEAN, _noise(mean[few][known])))
        mean -= mean_sigmas * noise[number]
        most = mean if most is None else cv2.max(most, mean, dst=most)
    assert most is not None
    seeds |= most > np.multiply(contrast, _MEAN_CONTRAST, out=limit)
    seeds &= agree
    contrast *= _WEAKER_CONTRAST
    contrast += max(_LEAST_SPIKE / 2, _WEAKER_SIGMAS * sigma)
    agree &= nearest > contrast
    return seeds, agree, noise


def _nearest(one: FloatArray, other: FloatArray) -> FloatArray:
    """The smaller of two differences; 0 where they have different signs."""
    low, high = cv2.min(one, other), cv2.max(one, other)
    return cv2.add(np.maximum(low, 0, out=low), np.minimum(high, 0, out=high), dst=low)


def _moves_alike(motions: list[Motion], pixels: int, limit: float, size: tuple[int, ...]) -> BoolArray:
    """Where all motion within some pixels differs by less than `limit`: nothing covers what moves another way, H×W."""
    kernel = np.ones((2 * pixels + 1, 2 * pixels + 1), np.uint8)
    parts = [np.ascontiguousarray(one.flow[:, :, axis]) for one in motions for axis in (0, 1)]
    most = [cv2.subtract(cv2.dilate(part, kernel), cv2.erode(part, kernel)) for part in parts]
    alike: BoolArray = grown_to(np.maximum.reduce(most), size) < limit
    return alike


def _parts(where: BoolArray) -> Iterator[tuple[Part, Part, Part]]:
    """The parts of a frame that hold any of `where`; what is seen around each; and its place in that."""
    high, wide = where.shape
    for top in range(0, high, _PART_PX):
        for left in range(0, wide, _PART_PX):
            part = slice(top, min(top + _PART_PX, high)), slice(left, min(left + _PART_PX, wide))
            if where[part].any():
                first = [max(0, one.start - _AROUND_PX) for one in part]
                last = [min(one.stop + _AROUND_PX, end) for one, end in zip(part, where.shape)]
                seen = [slice(start, stop) for start, stop in zip(first, last)]
                own = [slice(one.start - start, one.stop - start) for start, one in zip(first, part)]
                yield part, (seen[0], seen[1]), (own[0], own[1])


def _windows() -> list[Callable[[FloatArray], FloatArray]]:
    """The windows over which differences are averaged: two squares, and lines in eight directions."""
    boxes = [(3, 3), (5, 5), (_LINE_PX, 1), (1, _LINE_PX)]
    windows: list[Callable[[FloatArray], FloatArray]] = [partial(cv2.blur, ksize=box) for box in boxes]
    half = _LINE_PX // 2
    for number in (1, 2, 3, 5, 6, 7):
        x, y = (round(half * f(np.pi * number / 8)) for f in (np.cos, np.sin))
        line = cv2.line(np.zeros((_LINE_PX, _LINE_PX), np.float32), (half - x, half - y), (half + x, half + y), 1, 1)
        windows.append(partial(cv2.filter2D, ddepth=-1, kernel=line / line.sum()))
    return windows


#: The length of thin windows.
_LINE_PX = 11
_WINDOWS = _windows()


def _without_content(frame: Seen, motions: list[Motion]) -> BoolArray:
    """What a detector found, without marks that the neighbors show as well: they belong to the scene.

    A scratch may stay for many frames. It does not move with the scene around it, so neighbors do not show it where the
    scene moves; where nothing moves, upright lines are left to the detector.
    """
    assert frame.found is not None
    if not motions or not frame.found.any():
        return frame.found
    size = frame.found.shape
    wide = _widened(frame.found, 1)
    inner = cv2.erode(frame.found.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    rows, columns = _places(wide & ~inner)  # the inside of a spot agrees with itself
    few = _few(size)
    sigma = max(_noise((frame.luma[few] - one.luma[few])[one.inside[few]]) for one in motions)
    shown = still = np.ones(len(rows), bool)
    hidden = small_share(_widened(frame.found, 3), frame.small.shape)
    own = frame.smooth[rows, columns]
    for one in motions:
        flow = taken_from_small(flow_around(one.flow, hidden), rows, columns, size)
        x, y = columns + flow[:, 0], rows + flow[:, 1]
        luma, inside = taken(one.neighbor.smooth, x, y)
        contrast = np.maximum(taken(one.neighbor.span, x, y, interpolation=cv2.INTER_LINEAR)[0] - 3 * sigma, 0)
        limit = max(_LEAST_SPIKE, 1.5 * sigma) + _MARK_CONTRAST * contrast
        shown = shown & inside & (np.abs(own - luma) < limit)
        still = still & (np.hypot(flow[:, 0], flow[:, 1]) < _STILL_PX)
    count, labels = cv2.connectedComponents(wide.astype(np.uint8), connectivity=8)
    mark = labels[rows, columns]
    area = np.maximum(np.bincount(mark, minlength=count), 1)
    agreeing = np.bincount(mark[shown], minlength=count) / area
    resting = np.bincount(mark[still], minlength=count) / area > 0.5
    line = (_extent(rows, mark, count) > 0.4 * size[0]) & (_extent(columns, mark, count) < 0.05 * size[1])
    damage = (agreeing < _MOSTLY) | (line & resting)
    damage[0] = False
    kept: BoolArray = damage[labels] & frame.found
    return kept


def fill_dirt(frame: Seen, motions: list[Motion]) -> tuple[Places, FloatArray, BoolArray]:
    """What the neighbors of a frame know of the pixels in its mask.

    Args:
        frame: with its `dirt`.
        motions: to neighbors in its scene, whose `dirt` is known.

    Returns:
        The rows and columns of N pixels, their values, N×3, and the part of the mask that no neighbor knows.
    """
    unknown = frame.mask.copy()
    if not motions or not unknown.any():
        nowhere = np.zeros(0, np.intp)
        return (nowhere, nowhere), np.zeros((0, 3), np.float32), unknown
    size = unknown.shape
    hidden = small_share(_widened(unknown, 3), frame.small.shape)
    rows, columns = _places(unknown)
    total = np.zeros((len(rows), 3), np.float32)
    weights = np.zeros(len(rows), np.float32)
    for one in motions:
        error, offset = (taken_from_small(one, rows, columns, size) for one in _around_holes(frame, one))
        flow = taken_from_small(flow_around(one.flow, hidden), rows, columns, size)
        x, y = columns + flow[:, 0], rows + flow[:, 1]
        values, inside = taken(one.neighbor.rgb, x, y)
        values = _as_float(values)
        if one.neighbor.mask.any():
            dirty = _widened(one.neighbor.mask, 1).astype(np.uint8) * np.uint8(255)
            inside &= taken(dirty, x, y, interpolation=cv2.INTER_LINEAR)[0] < 3
        weight = np.where(inside & (error < _KNOWS), 1 / (error + 0.003) ** 2, 0).astype(np.float32)
        total += weight[:, None] * (values + offset[:, None])
        weights += weight
    known = weights > 0
    places = rows[known], columns[known]
    unknown[places] = False
    return places, np.clip(total[known] / weights[known][:, None], 0, 1), unknown


def _around_holes(frame: Seen, one: Motion) -> tuple[FloatArray, FloatArray]:
    """How far a neighbor differs around holes, and by how much it is darker, h×w; coarsely if frames are large."""
    high, wide = frame.mask.shape
    step = 1 if min(high, wide) < _COARSE_FROM_PX else 4
    window = (15, 15) if step == 1 else (5, 5)
    size = (-(-wide // step), -(-high // step))

    def small(values: FloatArray) -> FloatArray:
        return values if step == 1 else cv2.resize(values, size, interpolation=cv2.INTER_AREA)

    difference: FloatArray = cv2.subtract(frame.luma, one.luma)
    apart = np.abs(difference)
    clean = one.inside & ~frame.mask
    share = clean.astype(np.float32)
    apart *= share
    around = cv2.blur(small(share), window)
    error = cv2.blur(small(apart), window) / np.maximum(around, 1e-6)
    error = spread(error[:, :, None], around > 0.05)[:, :, 0]
    # What is brighter or darker there by a little, as in flickering film, is taken over from around the hole.
    share *= apart < _FLICKER
    difference *= share
    around = small(share)
    offset = small(difference) / np.maximum(around, 1e-4)
    return error, spread(offset[:, :, None], around > 0.25)[:, :, 0]


@dataclass
class _Frame(Generic[T]):
    """A frame with its motion to the frame before and to the one after; None: a scene ends there."""

    item: T
    seen: Seen
    traces: Traces
    before: Motion | None = None
    after: Motion | None = None

    @property
    def motions(self) -> list[Motion]:
        return [one for one in (self.before, self.after) if one is not None]


@dataclass
class Filled(Generic[T]):
    """A frame with what its neighbors know of its dirt.

    Attributes:
        item: the frame as it came.
        pixels: as it was, H×W×3; 65535 is white.
        mask: all of its dirt, H×W.
        unknown: the part of the mask that is still to be filled.
        places, values: the rows and columns of the N filled pixels, and these, N×3 in [0, 1].
    """

    item: T
    pixels: RGB16
    mask: BoolArray
    unknown: BoolArray
    places: Places
    values: FloatArray

    def rgb(self) -> FloatArray:
        """The filled frame, H×W×3 in [0, 1]."""
        rgb = _as_float(self.pixels)
        rgb[self.places] = self.values
        return rgb


def steadily(
    frames: Iterator[T], pixels: Callable[[T], RGB16], detect: Callable[[FloatArray], BoolArray | None]
) -> Generator[Filled[T], None, None]:
    """Find and fill the dirt of frames, each by what its neighbors show.

    What comes out for a frame depends on it and on `AROUND` frames before and after it, not on where the frames begin.
    Frames are taken, and their motion estimated, in one thread, and dirt is found and filled in another, while the
    caller's runs `detect` and does what it does with the results.

    Args:
        frames: anything that stands for a frame, in the order of display.
        pixels: makes the pixels of a frame, H×W×3; 65535 is white. It is called twice for each, so that frames which
            wait for others need little memory.
        detect: finds damage in a frame alone, H×W×3 in [0, 1]; returns None if nothing does.

    Yields:
        Each frame, filled where its neighbors know what was there.
    """

    def detected(prepared: Iterator[_Frame[T]]) -> Iterator[_Frame[T]]:
        for frame in prepared:
            frame.seen.found = detect(_as_float(frame.seen.rgb))
            yield frame

    waiting: Future[Filled[T]] | None = None
    with closing(ahead(_with_lines(_linked(frames, pixels)), 1)) as prepared, ThreadPoolExecutor(1) as thread:
        for held, place in _around(detected(prepared), 1, 2):
            job = thread.submit(_repaired, list(held), place)
            if waiting is not None:
                yield waiting.result()
            waiting = job
        if waiting is not None:
            yield waiting.result()


def _linked(frames: Iterator[T], pixels: Callable[[T], RGB16]) -> Iterator[_Frame[T]]:
    """Frames with their motion."""
    last: _Frame[T] | None = None
    for item in frames:
        seen = Seen(partial(pixels, item))
        frame = _Frame(item, seen, traces_of(seen.bands, seen.size))
        if last is not None:
            forth, back = motion(last.seen, seen), motion(seen, last.seen)
            if forth is not None and back is not None:  # else a scene ends for both
                last.after, frame.before = forth, back
                last.traces.sideways = sideways(forth.flow, last.traces, len(seen.bands))
            yield last
        last = frame
    if last is not None:
        yield last


def _with_lines(frames: Iterator[_Frame[T]]) -> Iterator[_Frame[T]]:
    """Frames with the scratches that stay. Of frames before and after one, only traces are needed."""
    reach = line_scratches.REACH
    for held, place in _around(((frame.traces, [frame]) for frame in frames), reach, reach):
        frame = held[place][1].pop()
        frame.seen.lines = find_lines([traces for traces, _ in held], place)
        yield frame


def _around(items: Iterable[T], before: int, after: int) -> Iterator[tuple[deque[T], int]]:
    """For each item, up to `before` items before it and `after` items after it, and its place among them."""
    held: deque[T] = deque()
    place = 0
    for item in items:
        held.append(item)
        if len(held) > place + after:
            yield held, place
            if place == before:
                held.popleft()
            else:
                place += 1
    while place < len(held):
        yield held, place
        if place == before:
            held.popleft()
        else:
            place += 1


def _repaired(held: Sequence[_Frame[T]], place: int) -> Filled[T]:
    """A frame, filled by its neighbors."""
    frame = held[place]
    for number in (place - 1, place, place + 1):
        if 0 <= number < len(held):
            _settle(held, number)
    places, values, unknown = fill_dirt(frame.seen, frame.motions)
    # They are large, and nobody needs them any more.
    frame.before = frame.after = None
    if place > 0:
        held[place - 1].seen.forget()
    return Filled(frame.item, frame.seen.rgb, frame.seen.mask, unknown, places, values)


def _settle(held: Sequence[_Frame[T]], place: int) -> None:
    """Find the dirt of a frame, at an end of its scene with the help of the next but one."""
    frame = held[place]
    if frame.seen.dirt is not None:
        return
    second: Motion | None = None
    if (frame.before is None) != (frame.after is None):
        step = 1 if frame.before is None else -1
        onward = held[place + step].after if step > 0 else held[place + step].before
        if onward is not None:
            second = motion(frame.seen, onward.neighbor)
    frame.seen.dirt = find_dirt(frame.seen, frame.before, frame.after, second)


def _as_float(rgb: RGB16) -> FloatArray:
    return np.multiply(rgb, np.float32(1 / _WHITE), dtype=np.float32)


def _places(mask: BoolArray) -> Places:
    """The rows and columns of a mask; faster than `np.nonzero`."""
    rows, columns = np.divmod(np.flatnonzero(mask), mask.shape[1])
    return rows, columns


def _extent(at: npt.NDArray[np.intp], label: npt.NDArray[Any], count: int) -> npt.NDArray[np.intp]:
    """The largest less the smallest of the values of each label, and 1."""
    low, high = np.full(count, np.iinfo(np.intp).max // 2), np.zeros(count, np.intp)
    np.minimum.at(low, label, at)
    np.maximum.at(high, label, at)
    extent: npt.NDArray[np.intp] = high - low + 1
    return extent


def _few(size: tuple[int, ...]) -> Part:
    """About `_SAMPLES` pixels of a frame of a size (H, W), as rows and columns."""
    step = slice(None, None, max(1, math.isqrt(size[0] * size[1] // _SAMPLES)))
    return step, step


def _noise(difference: FloatArray) -> float:
    """The standard deviation of a difference, whatever a few large values are."""
    if not difference.size:
        return 0.0
    return 1.4826 * float(np.median(np.abs(difference)))


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
    return cv2.dilate(mask.astype(np.uint8), kernel) > 0
