"""Strokes as coverage. Their time depends on the area that they reach, and hardly on how often they cross it.

A tile is searched in blocks, from coarse to fine. For every piece of a stroke, the distance of a block's center gives
bounds of its coverage in the whole block: pieces that another one exceeds everywhere are left out, and blocks that one
piece fills are done. Only what remains is computed pixel by pixel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from restore.errors import RestoreError
from restore.serve.page.mask_tools import Tiles, checked_points
from restore.serve.page.tiles import TILE_PX, Box, tile_box

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

MAX_RADIUS_PX = 5_000.0
#: Of one request. The page sends longer strokes in pieces, so that none takes more than a second or two.
MAX_LENGTH_PX = 1_000_000

#: Points of a stroke are left out where the stroke without them deviates by less, in pixels.
_TOLERANCE_PX = 0.1
#: Points that are looked at together for that: the time grows with the square of their number.
_TOGETHER = 512

#: The sides of the blocks, in pixels; each divides the one before.
_BLOCKS = (TILE_PX, 128, 32, 8)
#: A block in which so few pieces remain is not divided further.
_FEW = 12
#: Bounds are widened by so much, in pixels, for rounding.
_SLACK_PX = 1e-3


@dataclass(frozen=True)
class _Pieces:
    """Straight pieces: where they start, how far they reach, their first radius, and by how much it grows."""

    x: Floats
    y: Floats
    along_x: Floats
    along_y: Floats
    radius: Floats
    wider: Floats
    softness: float

    @classmethod
    def of(cls, line: Floats, softness: float) -> _Pieces:
        start, end = (line[:-1], line[1:]) if len(line) > 1 else (line, line)
        along = end - start
        point = ~along[:, :2].any(axis=1)
        radius = np.where(point, np.maximum(start[:, 2], end[:, 2]), start[:, 2])
        return cls(
            start[:, 0], start[:, 1], along[:, 0], along[:, 1], radius, np.where(point, 0, along[:, 2]), softness
        )  # fmt: skip

    def reaching(self, box: Box) -> Indices:
        """The pieces whose bounding boxes touch a box."""
        reach = np.maximum(self.radius, self.radius + self.wider) + 1
        far_x, far_y = self.x + self.along_x, self.y + self.along_y
        return np.flatnonzero(
            (np.minimum(self.x, far_x) - reach < box.right)
            & (np.maximum(self.x, far_x) + reach > box.left)
            & (np.minimum(self.y, far_y) - reach < box.bottom)
            & (np.maximum(self.y, far_y) + reach > box.top)
        )

    def measured(self, which: Indices, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """The distance of points from some pieces, and the radius there: for points of shape S, len(which)×S."""
        ends = (slice(None), *(None,) * x.ndim)
        along_x, along_y = self.along_x[which][ends], self.along_y[which][ends]
        from_x, from_y = x - self.x[which][ends], y - self.y[which][ends]
        at = (from_x * along_x + from_y * along_y) / np.maximum(along_x**2 + along_y**2, 1e-30)
        np.clip(at, 0, 1, out=at)
        distance = np.hypot(from_x - at * along_x, from_y - at * along_y)
        return distance, self.radius[which][ends] + at * self.wider[which][ends]

    def coverage(self, distance: Floats, radius: Floats) -> Floats:
        """It grows with the radius, and falls with the distance."""
        return np.asarray(np.clip((radius + 0.5 - distance) / np.maximum(1, self.softness * radius), 0, 1))

    def bounds(self, which: Indices, x: Floats, y: Floats, reach: float) -> tuple[Floats, Floats]:
        """The least and the most that pieces may cover of pixels that lie within a distance of points."""
        distance, radius = self.measured(which, x, y)
        length = np.hypot(self.along_x[which], self.along_y[which])
        change = np.abs(self.wider[which]) * np.minimum(1, reach / np.maximum(length, 1e-30))
        change = change[(slice(None), *(None,) * x.ndim)]
        least = self.coverage(distance + reach, np.maximum(radius - change, 0))
        return least, self.coverage(np.maximum(distance - reach, 0), radius + change)


def stroke(points: Sequence[Sequence[float]], softness: float, width: int, height: int) -> Tiles:
    """The coverage of a stroke.

    A pixel at distance d from the center line, where the brush has radius r, is covered by
    (r + 0.5 − d) / max(1, softness · r), limited to [0, 1]: a hard brush has an edge of one pixel, a soft one falls off
    over this share of its radius. Between two points, the radius changes linearly.

    Args:
        points: (x, y, r), at least one.
        softness: in [0, 1].
        width, height: of the image; what lies outside is left out.

    Returns:
        The coverage of each tile (x, y) that the stroke reaches.

    Raises:
        RestoreError: a value that is out of range, or a stroke that is too long.
    """
    line = checked_points(points, 3)
    if not 0 <= softness <= 1:
        raise RestoreError(f"must be a number between 0 and 1, not {softness}", where="softness")
    if not (line[:, 2].min() > 0 and line[:, 2].max() <= MAX_RADIUS_PX):
        raise RestoreError(f"a radius must be above 0 and at most {MAX_RADIUS_PX:g}", where="points")
    if np.hypot(*np.diff(line[:, :2], axis=0).T).sum() > MAX_LENGTH_PX:
        raise RestoreError(
            f"a stroke must be at most {MAX_LENGTH_PX} pixels long", where="points", hint="paint it in several strokes"
        )
    line = simplified(line)
    pieces = _Pieces.of(line, softness)
    reach = line[:, 2].max() + 1
    box = Box.around(
        line[:, 0].min() - reach, line[:, 1].min() - reach, line[:, 0].max() + reach, line[:, 1].max() + reach
    ).within(width, height)
    tiles: Tiles = {}
    for x, y in box.tiles():
        place = tile_box(x, y, width, height)
        which = pieces.reaching(place)
        if not len(which):
            continue
        covered = np.zeros((TILE_PX, TILE_PX), np.float64)
        _cover(covered, pieces, which, float(place.left), float(place.top), 0)
        pixels = np.rint(covered[: place.height, : place.width] * 255).astype(np.uint8)
        if pixels.any():
            tiles[x, y] = pixels
    return tiles


def _cover(out: Floats, pieces: _Pieces, which: Indices, left: float, top: float, level: int) -> None:
    """Write the coverage of the pixels of a square, by the pieces that may reach it."""
    side = _BLOCKS[level]
    count = len(out) // side
    centers: Floats = np.asarray((np.arange(count) + 0.5) * side, np.float64)
    x: Floats = left + centers[None, :].repeat(count, axis=0)
    y: Floats = top + centers[:, None].repeat(count, axis=1)
    reach = (side - 1) * math.sqrt(0.5) + _SLACK_PX  # to the centers of the pixels in the corners
    least, most = pieces.bounds(which, x, y, reach)
    best = least.max(axis=0)
    matters = (most > 0) & (most > best)
    for row in range(count):
        for column in range(count):
            block = out[row * side : (row + 1) * side, column * side : (column + 1) * side]
            if best[row, column] >= 1:
                block[:] = 1
                continue
            few = which[matters[:, row, column]]
            if not len(few):  # one piece covers all of it alike, which is not at all
                block[:] = best[row, column]
                continue
            block_left, block_top = left + column * side, top + row * side
            if level + 1 < len(_BLOCKS) and (side > _BLOCKS[-2] or len(few) > _FEW):
                _cover(block, pieces, few, block_left, block_top, level + 1)
            else:
                across: Floats = np.asarray(np.arange(side) + 0.5, np.float64)
                covered = pieces.coverage(
                    *pieces.measured(few, block_left + across[None, :], block_top + across[:, None])
                )
                covered.max(axis=0, out=block)


def simplified(line: Floats) -> Floats:
    """A stroke without the points that hardly change it, by the algorithm of Ramer, Douglas and Peucker."""
    keep = np.zeros(len(line), bool)
    bounds = [*range(0, len(line) - 1, _TOGETHER), len(line) - 1]
    keep[bounds] = True
    waiting = list(pairwise(bounds))
    while waiting:
        first, last = waiting.pop()
        if last - first < 2:
            continue
        start, along = line[first], line[last] - line[first]
        between = line[first + 1 : last] - start
        length = float(along[0] ** 2 + along[1] ** 2)
        at = np.clip(between[:, :2] @ along[:2] / length, 0, 1) if length > 0 else np.zeros(len(between))
        deviation = np.abs(between - at[:, None] * along).max(axis=1)
        worst = int(deviation.argmax())
        if deviation[worst] > _TOLERANCE_PX:
            middle = first + 1 + worst
            keep[middle] = True
            waiting += [(first, middle), (middle, last)]
    return line[keep]
