"""Tiles of images for the browser: their geometry, and files that hold all tiles of an image on all levels.

Level 0 is the full size, and each further level half of the one before, until the last fits into one tile.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from restore.errors import RestoreError
from restore.files import replace_atomically

Bytes = npt.NDArray[np.uint8]

#: The side of a tile in pixels. Those at the right and lower border of an image are smaller.
TILE_PX = 512

_MAGIC = b"RESTORETILES\x00\x00\x00\x01"
_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True)
class Box:
    """A part of an image: pixels from (`left`, `top`) up to, not including, (`right`, `bottom`)."""

    left: int
    top: int
    right: int
    bottom: int

    @classmethod
    def around(cls, left: float, top: float, right: float, bottom: float) -> Box:
        """The smallest box that holds these coordinates."""
        return cls(math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom))

    def within(self, width: int, height: int) -> Box:
        """The part of it that lies in an image of this size; it may be empty."""
        left, top = min(max(self.left, 0), width), min(max(self.top, 0), height)
        return Box(left, top, max(min(self.right, width), left), max(min(self.bottom, height), top))

    def grown(self, px: int) -> Box:
        """The box with a border of this many pixels."""
        return Box(self.left - px, self.top - px, self.right + px, self.bottom + px)

    def union(self, other: Box) -> Box:
        """The smallest box that holds both."""
        return Box(
            min(self.left, other.left),
            min(self.top, other.top),
            max(self.right, other.right),
            max(self.bottom, other.bottom),
        )

    @property
    def empty(self) -> bool:
        """It holds no pixel."""
        return self.right <= self.left or self.bottom <= self.top

    @property
    def width(self) -> int:
        """In pixels."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """In pixels."""
        return self.bottom - self.top

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def tiles(self) -> list[tuple[int, int]]:
        """The tiles (x, y) of level 0 that it touches."""
        if self.empty:
            return []
        across = range(self.left // TILE_PX, (self.right - 1) // TILE_PX + 1)
        down = range(self.top // TILE_PX, (self.bottom - 1) // TILE_PX + 1)
        return [(x, y) for y in down for x in across]

    def to_list(self) -> list[int]:
        """As JSON holds it: [left, top, right, bottom]."""
        return [self.left, self.top, self.right, self.bottom]


def level_sizes(width: int, height: int) -> list[tuple[int, int]]:
    """(width, height) of every level of an image."""
    sizes = [(width, height)]
    while max(sizes[-1]) > TILE_PX:
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    return sizes


def tile_box(x: int, y: int, width: int, height: int) -> Box:
    """The pixels of a tile in a level of this size."""
    return Box(x * TILE_PX, y * TILE_PX, (x + 1) * TILE_PX, (y + 1) * TILE_PX).within(width, height)


def all_tiles(width: int, height: int) -> list[tuple[int, int]]:
    """The tiles (x, y) of a level of this size."""
    return Box(0, 0, width, height).tiles()


def has_tile(x: int, y: int, width: int, height: int) -> bool:
    """Whether a level of this size has this tile."""
    return 0 <= x * TILE_PX < width and 0 <= y * TILE_PX < height


def halved_by_maximum(pixels: Bytes) -> Bytes:
    """Half the size, rounded up: each pixel is the largest of four."""
    height, width = pixels.shape
    padded = np.pad(pixels, ((0, height % 2), (0, width % 2)))
    rows: Bytes = np.maximum(padded[::2], padded[1::2])
    return np.asarray(np.maximum(rows[:, ::2], rows[:, 1::2]), np.uint8)


@dataclass(frozen=True)
class TileFile:
    """A file of encoded tiles. It is written once, atomically, and then only read.

    Attributes:
        path: the file.
        levels: (width, height) of every level.
        facts: what else is known of the image, as JSON holds it.
    """

    path: Path
    levels: tuple[tuple[int, int], ...]
    facts: dict[str, Any]
    _places: dict[str, list[int]] = field(repr=False)

    @classmethod
    def open(cls, path: Path) -> TileFile:
        """Read the index of a file.

        Raises:
            RestoreError: exit code 1; it is no such file, or was cut short.
            OSError: it cannot be read.
        """
        with open(path, "rb") as file:
            try:
                magic = file.read(len(_MAGIC))
                file.seek(-_LENGTH.size, 2)
                end = file.tell()
                (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
                file.seek(end - length)
                index = json.loads(file.read(length))
                if magic != _MAGIC:
                    raise ValueError
                levels = tuple((int(width), int(height)) for width, height in index["levels"])
                return cls(path, levels, index["facts"], index["tiles"])
            except (ValueError, KeyError, OSError, struct.error) as error:
                raise RestoreError("this file of tiles is damaged", where=path, exit_code=1) from error

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the image."""
        return self.levels[0]

    def read(self, level: int, x: int, y: int) -> bytes | None:
        """An encoded tile; None: it is empty, or there is no such tile."""
        place = self._places.get(f"{level}/{x}/{y}")
        if place is None:
            return None
        with open(self.path, "rb") as file:
            file.seek(place[0])
            return file.read(place[1])

    def read_box(self, box: Box, level: int = 0, channels: int = 3) -> Bytes:
        """The pixels of a part of a level, H×W×3 (RGB) or H×W; empty tiles are 0."""
        import cv2

        width, height = self.levels[level]
        box = box.within(width, height)
        out = np.zeros((box.height, box.width, 3) if channels == 3 else (box.height, box.width), np.uint8)
        flag = cv2.IMREAD_COLOR if channels == 3 else cv2.IMREAD_GRAYSCALE
        for x, y in box.tiles():
            data = self.read(level, x, y)
            if data is not None:
                place = tile_box(x, y, width, height)
                pixels = np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), flag), np.uint8)
                put(out, box, pixels[:, :, ::-1] if channels == 3 else pixels, place)
        return out


def put(target: Bytes, target_box: Box, source: Bytes, source_box: Box) -> None:
    """Copy the pixels that two parts of an image share from one array to the other."""
    left, top = max(target_box.left, source_box.left), max(target_box.top, source_box.top)
    right, bottom = min(target_box.right, source_box.right), min(target_box.bottom, source_box.bottom)
    if right <= left or bottom <= top:
        return
    target[top - target_box.top : bottom - target_box.top, left - target_box.left : right - target_box.left] = source[
        top - source_box.top : bottom - source_box.top, left - source_box.left : right - source_box.left
    ]


def write_tile_file(
    path: Path,
    levels: Iterable[Bytes],
    encode: Callable[[Bytes], bytes | None],
    facts: dict[str, Any] | None = None,
    progress: Callable[[float], object] = lambda share: None,
) -> TileFile:
    """Write all tiles of an image.

    Args:
        path: the file.
        levels: the pixels of each level, the largest first.
        encode: gives the bytes of a tile; None: it is empty.
        facts: see `TileFile`.
        progress: called with the share that is done, in [0, 1].

    Raises:
        RestoreError: exit code 1; it cannot be written.
    """
    places: dict[str, list[int]] = {}
    sizes: list[tuple[int, int]] = []
    done, total = 0.0, 4 / 3
    with replace_atomically(path) as temporary, open(temporary, "xb") as file:
        file.write(_MAGIC)
        for level, pixels in enumerate(levels):
            height, width = pixels.shape[:2]
            sizes.append((width, height))
            tiles = all_tiles(width, height)
            for x, y in tiles:
                data = encode(pixels[tile_box(x, y, width, height).slices])
                if data is not None:
                    places[f"{level}/{x}/{y}"] = [file.tell(), len(data)]
                    file.write(data)
                done += 0.25**level / len(tiles)
                progress(min(done / total, 1))
        index = {"levels": sizes, "facts": facts or {}, "tiles": places}
        data = json.dumps(index, separators=(",", ":")).encode()
        file.write(data + _LENGTH.pack(len(data)))
    return TileFile(path, tuple(sizes), facts or {}, places)


def halves(pixels: Bytes, halve: Callable[[Bytes], Bytes]) -> Iterator[Bytes]:
    """An image and its further levels."""
    height, width = pixels.shape[:2]
    for number, _ in enumerate(level_sizes(width, height)):
        if number:
            pixels = halve(pixels)
        yield pixels
