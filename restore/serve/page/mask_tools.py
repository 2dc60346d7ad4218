"""What the tools of the page paint: polygons as coverage, and masks that grow or shrink. Strokes: see `strokes`.

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
MAX_POINTS, MAX_GROWTH_PX = 20_000, 200
#: Of a polygon's edges inside an image: where thousands cross, filling takes minutes.
MAX_EDGES_PX = 1_000_000

#: Radius of one pass of growing; a larger one consists of several.
_STEP_PX = 8
#: Polygons are drawn this much larger, then reduced; and fractional bits of their coordinates there.
_FINER, _SHIFT = 4, 4


def polygon(points: Sequence[Sequence[float]], width: int, height: int) -> Tiles:
    """The coverage of a polygon (even-odd) with antialiased edges, by tile.

    Args:
        points: (x, y), at least three.
        width, height: of the image; what lies outside is left out.

    Raises:
        RestoreError: a value that is out of range.
    """
    import cv2

    corners = checked_points(points, 2)
    if len(corners) < 3:
        raise RestoreError("a polygon must have at least three points", where="points")
    inside = np.clip(corners, 0, (width, height))
    if np.hypot(*(inside - np.roll(inside, 1, axis=0)).T).sum() > MAX_EDGES_PX:
        raise RestoreError(f"the edges must be shorter than {MAX_EDGES_PX} pixels", where="points")
    low, high = corners.min(axis=0), corners.max(axis=0)
    box = Box.around(low[0] - 1, low[1] - 1, high[0] + 1, high[1] + 1).within(width, height)
    tiles: Tiles = {}
    for x, y in box.tiles():
        tile = tile_box(x, y, width, height)
        near = _near(corners, tile)
        if not _crosses(near, tile):
            if _holds(near, tile.left + 0.5, tile.top + 0.5):
                tiles[x, y] = np.full((tile.height, tile.width), 255, np.uint8)
            continue
        # OpenCV's pixel centers are integers, and its own antialiasing widens polygons by a pixel.
        local = (near - (tile.left, tile.top)) * _FINER - 0.5
        fine = np.zeros((tile.height * _FINER, tile.width * _FINER), np.uint8)
        cv2.fillPoly(fine, [np.rint(local * (1 << _SHIFT)).astype(np.int32)], 255, shift=_SHIFT)
        covered = np.asarray(cv2.resize(fine, (tile.width, tile.height), interpolation=cv2.INTER_AREA), np.uint8)
        if covered.any():
            tiles[x, y] = covered
    return tiles


def _near(corners: Floats, tile: Box) -> Floats:
    """A polygon with the same coverage of a tile, and few corners elsewhere.

    Of corners in a row that all lie on the same side of the tile, the first and the last do: the edge between them
    passes the tile on that side, too.
    """
    for axis, start, end in ((0, tile.left, tile.right), (1, tile.top, tile.bottom)):
        for sign, border in ((-1, start), (1, end)):
            beyond = sign * (corners[:, axis] - border) > 2
            between = beyond & np.roll(beyond, 1) & np.roll(beyond, -1)
            if between.all():  # the polygon does not reach the tile
                return corners[:1]
            corners = corners[~between]
    return corners


def _crosses(corners: Floats, tile: Box) -> bool:
    """Whether an edge may cross a tile, or come so near that it matters."""
    ends = np.roll(corners, 1, axis=0)
    low, high = np.minimum(corners, ends), np.maximum(corners, ends)
    is_near = (low < (tile.right + 2, tile.bottom + 2)) & (high > (tile.left - 2, tile.top - 2))
    return bool(is_near.all(axis=1).any())


def _holds(corners: Floats, x: float, y: float) -> bool:
    """Whether a point lies in a polygon: a line from it to the right crosses an odd number of edges."""
    (start_x, start_y), (end_x, end_y) = corners.T, np.roll(corners, 1, axis=0).T
    crossed = (start_y > y) != (end_y > y)
    start_x, start_y, end_x, end_y = start_x[crossed], start_y[crossed], end_x[crossed], end_y[crossed]
    at = start_x + (y - start_y) / (end_y - start_y) * (end_x - start_x)
    return int(np.count_nonzero(at > x)) % 2 == 1


def checked_points(points: Sequence[Sequence[float]], numbers: int) -> Floats:
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
