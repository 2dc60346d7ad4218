"""What the tools of the page paint: strokes and polygons as coverage, and masks that grow or shrink.

Coordinates are pixels of the upright image, as continuous numbers: the first pixel reaches from 0 to 1, its center lies
at 0.5. Coverage and masks are uint8, 255 = covered.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from restore.errors import RestoreError
from restore.serve.page.tiles import Box, put, tile_box

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Tiles = dict[tuple[int, int], Bytes]

#: Limits of what one request may paint.
MAX_POINTS, MAX_RADIUS_PX, MAX_GROWTH_PX = 20_000, 5_000.0, 200

#: Points of a stroke are left out where the stroke without them deviates by less, in pixels.
_TOLERANCE_PX = 0.1
#: Radius of one pass of growing; a larger one consists of several.
_STEP_PX = 8
#: Polygons are drawn this much larger, then reduced; and fractional bits of their coordinates there.
_FINER, _SHIFT = 4, 4


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
        RestoreError: a value that is out of range.
    """
    line = _checked(points, 3)
    if not 0 <= softness <= 1:
        raise RestoreError(f"must be a number between 0 and 1, not {softness}", where="softness")
    if not (line[:, 2].min() > 0 and line[:, 2].max() <= MAX_RADIUS_PX):
        raise RestoreError(f"a radius must be above 0 and at most {MAX_RADIUS_PX:g}", where="points")
    line = simplified(line)
    covered: dict[tuple[int, int], npt.NDArray[np.float32]] = {}
    for start, end in zip(line, line[1:] if len(line) > 1 else line):
        reach = max(start[2], end[2]) + 0.5
        box = Box.around(
            min(start[0], end[0]) - reach,
            min(start[1], end[1]) - reach,
            max(start[0], end[0]) + reach,
            max(start[1], end[1]) + reach,
        ).within(width, height)
        for x, y in box.tiles():
            tile = tile_box(x, y, width, height)
            part = Box(
                max(box.left, tile.left), max(box.top, tile.top),
                min(box.right, tile.right), min(box.bottom, tile.bottom),
            )  # fmt: skip
            if (x, y) not in covered:
                covered[x, y] = np.zeros((tile.height, tile.width), np.float32)
            rows = slice(part.top - tile.top, part.bottom - tile.top)
            columns = slice(part.left - tile.left, part.right - tile.left)
            target = covered[x, y][rows, columns]
            if start[2] == end[2] and _is_inside(start, end, softness, part):
                target[:] = 1
            elif target.min() < 1:
                np.maximum(target, _segment(start, end, softness, part), out=target)
    return {place: np.asarray(np.rint(values * 255), np.uint8) for place, values in covered.items() if values.max() > 0}


def _is_inside(start: Floats, end: Floats, softness: float, part: Box) -> bool:
    """Whether a piece of one radius covers all pixels of a box: it is convex, so the corners decide."""
    corners = (Box(x, y, x + 1, y + 1) for x in (part.left, part.right - 1) for y in (part.top, part.bottom - 1))
    return all(_segment(start, end, softness, corner)[0, 0] == 1 for corner in corners)


def _segment(start: Floats, end: Floats, softness: float, part: Box) -> npt.NDArray[np.float32]:
    """The coverage by one piece of a stroke, of the pixels of a box."""
    x = (np.arange(part.left, part.right, dtype=np.float32) + np.float32(0.5 - start[0]))[None, :]
    y = (np.arange(part.top, part.bottom, dtype=np.float32) + np.float32(0.5 - start[1]))[:, None]
    along_x, along_y, wider = (np.float32(value) for value in end - start)
    length = along_x * along_x + along_y * along_y
    if length > 0:
        at = np.clip((x * along_x + y * along_y) / length, 0, 1)
        distance = np.hypot(x - at * along_x, y - at * along_y)
        radius = np.asarray(np.float32(start[2]) + at * wider, np.float32)
    else:
        distance = np.hypot(x, y)
        radius = np.full((1, 1), max(start[2], end[2]), np.float32)
    edge = np.maximum(np.float32(1), np.float32(softness) * radius)
    return np.asarray(np.clip((radius + np.float32(0.5) - distance) / edge, 0, 1), np.float32)


def simplified(line: Floats) -> Floats:
    """A stroke without the points that hardly change it, by the algorithm of Ramer, Douglas and Peucker."""
    keep = np.zeros(len(line), bool)
    keep[[0, -1]] = True
    waiting = [(0, len(line) - 1)]
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


def polygon(points: Sequence[Sequence[float]], width: int, height: int) -> Tiles:
    """The coverage of a polygon (even-odd) with antialiased edges, by tile.

    Args:
        points: (x, y), at least three.
        width, height: of the image; what lies outside is left out.

    Raises:
        RestoreError: a value that is out of range.
    """
    import cv2

    corners = _checked(points, 2)
    if len(corners) < 3:
        raise RestoreError("a polygon must have at least three points", where="points")
    low, high = corners.min(axis=0), corners.max(axis=0)
    box = Box.around(low[0] - 1, low[1] - 1, high[0] + 1, high[1] + 1).within(width, height)
    tiles: Tiles = {}
    for x, y in box.tiles():
        tile = tile_box(x, y, width, height)
        # OpenCV's pixel centers are integers, and its own antialiasing widens polygons by a pixel.
        local = (corners - (tile.left, tile.top)) * _FINER - 0.5
        fine = np.zeros((tile.height * _FINER, tile.width * _FINER), np.uint8)
        cv2.fillPoly(fine, [np.rint(local * (1 << _SHIFT)).astype(np.int32)], 255, shift=_SHIFT)
        covered = np.asarray(cv2.resize(fine, (tile.width, tile.height), interpolation=cv2.INTER_AREA), np.uint8)
        if covered.any():
            tiles[x, y] = covered
    return tiles


def _checked(points: Sequence[Sequence[float]], numbers: int) -> Floats:
    """The points as an array with this number of columns."""
    if not 1 <= len(points) <= MAX_POINTS:
        raise RestoreError(f"must be 1 to {MAX_POINTS} points, not {len(points)}", where="points")
    if any(len(point) != numbers for point in points):
        raise RestoreError(f"each point must be {numbers} numbers", where="points")
    array: Floats = np.asarray(points, np.float64)
    if not (np.isfinite(array).all() and np.abs(array).max() < 1e6):
        raise RestoreError("the numbers must be finite, and below a million", where="points")
    return array


def painted(before: Bytes, coverage: Bytes, *, erase: bool) -> Bytes:
    """A mask with coverage painted onto it, or erased from it."""
    if erase:
        return np.asarray(np.minimum(before, 255 - coverage), np.uint8)
    return np.asarray(np.maximum(before, coverage), np.uint8)


def grown(mask: Bytes, px: int) -> Bytes:
    """A mask that reaches this many pixels farther in all directions; negative: less far. Soft edges stay soft.

    What touches the border of the array does not shrink from there.

    Raises:
        RestoreError: more than `MAX_GROWTH_PX`.
    """
    import cv2

    if abs(px) > MAX_GROWTH_PX:
        raise RestoreError(f"must be between -{MAX_GROWTH_PX} and {MAX_GROWTH_PX}, not {px}", where="px")
    left = abs(px)
    while left:
        step = min(left, _STEP_PX)
        across = np.arange(-step, step + 1)
        disc = (across[:, None] ** 2 + across[None, :] ** 2 <= step**2 + 1e-9).astype(np.uint8)
        mask = np.asarray((cv2.dilate if px > 0 else cv2.erode)(mask, disc), np.uint8)
        left -= step
    return mask


def connected(mask: Bytes, x: float, y: float) -> Bytes:
    """The part of a mask (0 and 255) that is connected with the pixel at a point; nothing if that is 0."""
    import cv2

    height, width = mask.shape
    if not (0 <= x < width and 0 <= y < height) or not mask[math.floor(y), math.floor(x)]:  # also if one is NaN
        return np.zeros_like(mask)
    _, labels = cv2.connectedComponents(mask, connectivity=8)
    return np.where(np.asarray(labels) == labels[math.floor(y), math.floor(x)], np.uint8(255), np.uint8(0))


def in_tiles(array: Bytes, box: Box, width: int, height: int) -> Tiles:
    """The pixels of a part of an image by tile; what lies outside of the part is 0."""
    tiles: Tiles = {}
    for x, y in box.within(width, height).tiles():
        tile = tile_box(x, y, width, height)
        pixels = np.zeros((tile.height, tile.width), np.uint8)
        put(pixels, tile, array, box)
        tiles[x, y] = pixels
    return tiles
