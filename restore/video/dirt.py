"""Dirt on film: found by comparing a frame with the frames before and after it.

Dirt, hairs and most scratches stand in one frame only. Where a frame differs from both of its neighbors, moved along
with the scene, and these agree, the frame is damaged. The detection is the simplified rank-order detector, after
Nadenau and Mitra (1997).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from restore.video.motion import (
    BoolArray,
    FloatArray,
    Motion,
    Seen,
    flow_around,
    grown_to,
    places,
    remapped,
    small_share,
    smooth,
    span,
    taken,
    taken_from_small,
)

Part = tuple[slice, slice]
Places = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]

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
#: The share of the contrast by which a mark that neighbors show may differ.
_MARK_CONTRAST = 0.25
#: A mark of a detector is part of the scene if neighbors show more than this share of its edge.
_MOSTLY = 0.9
#: What moves less from frame to frame stands still.
_STILL_PX = 0.5
#: How far from its motion a mark of the scene may be in a neighbor, and how far from the middle of the motions around
#: it, in pixels of the frames in which motion is estimated.
_ASTRAY_PX, _FARTHEST_PX = 2, 12
#: A neighbor shows a mark if it differs there by less than this share of how it differs along the motion. The second is
#: for marks at the end of a frame, and where the motions around a mark differ by more than the third, in pixels.
_SHOWN, _SHOWN_UNSURE, _STRAIGHT_PX = 0.35, 0.6, 1.5
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
        hidden = small_share(widened(dirt, 3), one.flow.shape)
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
    return widened(_unseen_nearby(frame, [one, other], dirt), _MARGIN_PX)


def _unseen_nearby(frame: Seen, motions: list[Motion], dirt: BoolArray) -> BoolArray:
    """Dirt without what a neighbor shows a little farther off: that belongs to the scene, and its motion is not exact.

    Motion is not exact where one thing covers another, at the edges of frames, and for what is small.
    """
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(dirt.astype(np.uint8), connectivity=8)
    kept = np.zeros(count, bool)
    # The dirt itself may seem to move.
    hidden = small_share(widened(dirt, 3), frame.small.shape)
    flows = [flow_around(one.flow, hidden) for one in motions]
    for number in range(1, count):
        left, top, width, height = (int(value) for value in boxes[number, :4])
        box = _inside((top - 2, top + height + 2), (left - 2, left + width + 2), frame.size)
        mark = cv2.dilate((labels[box] == number).astype(np.uint8), np.ones((3, 3), np.uint8))  # with its edge
        kept[number] = not any(_shows_nearby(one, flow, frame, mark, box) for one, flow in zip(motions, flows))
    unseen: BoolArray = kept[labels]
    return unseen


def _shows_nearby(one: Motion, flow: FloatArray, frame: Seen, mark: npt.NDArray[Any], box: Part) -> bool:
    """Whether a neighbor shows a mark of a frame, in a box, where one of the motions of a flow around it leads."""
    scale, step = frame.size[1] / one.flow.shape[1], frame.size[1] / flow.shape[1]
    near = _NEAR_PX * scale
    around = [slice(max(0, int((side.start - near) / step)), math.ceil((side.stop + near) / step)) for side in box]
    ways = flow[around[0], around[1]].reshape(-1, 2)
    least, most, middle = ways.min(axis=0), ways.max(axis=0), np.median(ways, axis=0)
    first = np.floor(np.maximum(least, middle - _FARTHEST_PX * scale) - _ASTRAY_PX * scale).astype(int)
    last = np.ceil(np.minimum(most, middle + _FARTHEST_PX * scale) + _ASTRAY_PX * scale).astype(int)
    rows, columns = ((side.start + first[axis], side.stop + last[axis]) for side, axis in zip(box, (1, 0)))
    own, seen = frame.luma[box], one.neighbor.luma[_inside(rows, columns, frame.size)]
    if seen.shape[0] < own.shape[0] or seen.shape[1] < own.shape[1]:
        return False
    own, seen = smooth(own), smooth(seen)
    at_end = any(side.start == 0 or side.stop == end for side, end in zip(box, frame.size))
    unsure = at_end or float((most - least).max()) > _STRAIGHT_PX * scale
    errors = cv2.matchTemplate(seen, own, cv2.TM_SQDIFF, mask=mark.astype(np.float32))
    difference = (own - smooth(one.luma[box]))[mark > 0]
    return float(errors.min()) < (_SHOWN_UNSURE if unsure else _SHOWN) ** 2 * float((difference**2).sum())


def _inside(rows: tuple[int, int], columns: tuple[int, int], size: tuple[int, int]) -> Part:
    """The part of a box that is inside a frame."""
    (top, bottom), (left, right) = rows, columns
    return slice(max(0, top), max(0, min(bottom, size[0]))), slice(max(0, left), max(0, min(right, size[1])))


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
    wide = widened(frame.found, 1)
    inner = cv2.erode(frame.found.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    rows, columns = indices(wide & ~inner)  # the inside of a spot agrees with itself
    few = _few(size)
    sigma = max(_noise((frame.luma[few] - one.luma[few])[one.inside[few]]) for one in motions)
    shown = still = np.ones(len(rows), bool)
    hidden = small_share(widened(frame.found, 3), frame.small.shape)
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


def indices(mask: BoolArray) -> Places:
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


def widened(mask: BoolArray, pixels: int) -> BoolArray:
    """A mask with a margin."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * pixels + 1, 2 * pixels + 1))
    return cv2.dilate(mask.astype(np.uint8), kernel) > 0
