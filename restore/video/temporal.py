"""Dirt on film: filled by what the frames before and after show."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

import cv2
import numpy as np

from restore.video import line_scratches
from restore.video.ahead import ahead
from restore.video.dirt import Places, find_dirt, indices, widened
from restore.video.line_scratches import Traces, find_lines, sideways, traces_of
from restore.video.motion import (
    RGB16,
    BoolArray,
    FloatArray,
    Motion,
    Seen,
    flow_around,
    motion,
    small_share,
    spread,
    taken,
    taken_from_small,
)

T = TypeVar("T")

_WHITE = 65535.0
#: Frames before and after one that have a say in it: one more than lines are followed through.
AROUND = 5
#: A neighbor knows what is in a hole if it differs by less than this around it.
_KNOWS = 0.06
#: Flicker from frame to frame changes less than this.
_FLICKER = 0.1
#: Frames from this side on are compared around holes at a quarter of their size.
_COARSE_FROM_PX = 256


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
    hidden = small_share(widened(unknown, 3), frame.small.shape)
    rows, columns = indices(unknown)
    total = np.zeros((len(rows), 3), np.float32)
    weights = np.zeros(len(rows), np.float32)
    for one in motions:
        error, offset = (taken_from_small(one, rows, columns, size) for one in _around_holes(frame, one))
        flow = taken_from_small(flow_around(one.flow, hidden), rows, columns, size)
        x, y = columns + flow[:, 0], rows + flow[:, 1]
        values, inside = taken(one.neighbor.rgb, x, y)
        values = _as_float(values)
        if one.neighbor.mask.any():
            dirty = widened(one.neighbor.mask, 1).astype(np.uint8) * np.uint8(255)
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
