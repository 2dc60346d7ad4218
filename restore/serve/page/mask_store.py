"""Masks at full size, in tiles in the database, with every operation on them, so that all can be undone and redone."""

from __future__ import annotations

import json
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from restore.serve.page.database import Database
from restore.serve.page.mask_tools import MAX_GROWTH_PX, Tiles, grown, painted
from restore.serve.page.tiles import TILE_PX, Box, all_tiles, halved_by_maximum, has_tile, level_sizes, put, tile_box

Bytes = npt.NDArray[np.uint8]

#: Reduced tiles that are kept in memory, for all images together: at most 64 MiB.
_KEPT_TILES = 256

_TILE = "SELECT tile, data FROM mask_tiles JOIN tiles ON tiles.id = tile WHERE file = ? AND x = ? AND y = ?"


@dataclass(frozen=True)
class Change:
    """What an operation did to a mask, for the page.

    Attributes:
        revision: number of the mask's state; it never comes again.
        tiles: the tiles (x, y) of level 0 that changed.
        box: the pixels that may have changed.
        undo, redo: how many operations can be undone and redone.
        empty: nothing is masked.
        kind: of the operation.
        even: (level, x, y, value) of tiles all of whose pixels are 0 or 255; of those that changed, if asked for.
    """

    revision: int
    tiles: list[tuple[int, int]]
    box: Box
    undo: int
    redo: int
    empty: bool
    kind: str = ""
    even: list[tuple[int, int, int, int]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "revision": self.revision,
            "tiles": [list(tile) for tile in self.tiles],
            "box": self.box.to_list(),
            "undo": self.undo,
            "redo": self.redo,
            "empty": self.empty,
            "kind": self.kind,
            "even": [list(tile) for tile in self.even],
        }


class MaskStore:
    """The masks of all files of a work folder.

    The caller knows the size (width, height) of each image, and lets only one thread at a time change a mask.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._reduced: OrderedDict[tuple[int, int, int, int], Bytes | None] = OrderedDict()
        self._changes = 0  # of any mask, so that what was read during one is not kept

    # Reading.

    def state(self, file: int) -> Change:
        """The state of a mask, as a change of nothing."""
        return self._changed(file, [], Box(0, 0, 0, 0), "")

    def is_empty(self, file: int) -> bool:
        """Whether nothing is masked."""
        return self._database.row("SELECT 1 FROM mask_tiles WHERE file = ? LIMIT 1", file) is None

    def tile(self, file: int, x: int, y: int, size: tuple[int, int]) -> Bytes | None:
        """The pixels of a tile of level 0; None: it is empty."""
        row = self._database.row(_TILE, file, x, y)
        return None if row is None else _unpacked(row["data"], tile_box(x, y, *size))

    def reduced(self, file: int, level: int, x: int, y: int, size: tuple[int, int]) -> Bytes | None:
        """The pixels of a tile of any level: the maximum of the pixels that each stands for; None: it is empty."""
        sizes, changes = level_sizes(*size), self._changes
        if not 0 <= level < len(sizes) or not has_tile(x, y, *sizes[level]):
            return None
        if level == 0:
            return self.tile(file, x, y, size)
        key = (file, level, x, y)
        if key in self._reduced:
            return self._reduced[key]
        place = tile_box(x, y, *sizes[level])
        masked, full, tiles = self._counts_in(file, level, x, y, sizes[0])
        if not masked:
            return None
        if full == tiles:  # as after inverting a mask
            return np.full((place.height, place.width), 255, np.uint8)
        above = sizes[level - 1]
        whole = Box(2 * place.left, 2 * place.top, 2 * place.right, 2 * place.bottom).within(*above)
        pixels = np.zeros((whole.height, whole.width), np.uint8)
        for child_x, child_y in whole.tiles():
            child = self.reduced(file, level - 1, child_x, child_y, size)
            if child is not None:
                put(pixels, whole, child, tile_box(child_x, child_y, *above))
        result = halved_by_maximum(pixels) if pixels.any() else None
        if changes == self._changes:
            self._reduced[key] = result
            while len(self._reduced) > _KEPT_TILES:
                self._reduced.popitem(last=False)
        return result

    def _counts_in(self, file: int, level: int, x: int, y: int, size: tuple[int, int]) -> tuple[int, int, int]:
        """Of the tiles of level 0 under one of a level: how many are not empty, how many are full, and of how many."""
        span = 1 << level
        under = Box(x * span, y * span, (x + 1) * span, (y + 1) * span)
        row = self._database.row(
            "SELECT count(*), total(length(data) = 1 AND data = x'FF') FROM mask_tiles JOIN tiles ON tiles.id = tile "
            "WHERE file = ? AND x >= ? AND x < ? AND y >= ? AND y < ?",
            file, under.left, under.right, under.top, under.bottom,
        )  # fmt: skip
        assert row is not None
        columns, rows = -(-size[0] // TILE_PX), -(-size[1] // TILE_PX)
        inside = under.within(columns, rows)
        return int(row[0]), int(row[1]), inside.width * inside.height

    def even_tiles(
        self, file: int, level: int, places: Iterable[tuple[int, int]], size: tuple[int, int]
    ) -> list[tuple[int, int, int, int]]:
        """Of the tiles of a level above these of level 0, those that are empty or full: (level, x, y, 0 or 255)."""
        rows = self._database.rows(
            "SELECT x >> ?, y >> ?, total(length(data) = 1 AND data = x'FF') "
            "FROM mask_tiles JOIN tiles ON tiles.id = tile WHERE file = ? GROUP BY 1, 2",
            level, level, file,
        )  # fmt: skip
        full = {(int(row[0]), int(row[1])): int(row[2]) for row in rows}
        span, tiles = 1 << level, Box(0, 0, -(-size[0] // TILE_PX), -(-size[1] // TILE_PX))
        found = []
        for x, y in sorted({(x >> level, y >> level) for x, y in places}):
            inside = Box(x * span, y * span, (x + 1) * span, (y + 1) * span).within(tiles.right, tiles.bottom)
            if (x, y) not in full:
                found.append((level, x, y, 0))
            elif full[x, y] == inside.width * inside.height:
                found.append((level, x, y, 255))
        return found

    def read(self, file: int, box: Box, size: tuple[int, int]) -> Bytes:
        """The pixels of a part of a mask."""
        box = box.within(*size)
        out = np.zeros((box.height, box.width), np.uint8)
        for x, y in set(box.tiles()) & set(self.masked_tiles(file)):
            pixels = self.tile(file, x, y, size)
            if pixels is not None:
                put(out, box, pixels, tile_box(x, y, *size))
        return out

    def masked_tiles(self, file: int) -> list[tuple[int, int]]:
        """The tiles of level 0 that are not empty."""
        return [(row["x"], row["y"]) for row in self._database.rows("SELECT x, y FROM mask_tiles WHERE file = ?", file)]

    def box(self, file: int, size: tuple[int, int]) -> Box | None:
        """The pixels from the first to the last masked one; None: nothing is masked."""
        result: Box | None = None
        for x, y in self.masked_tiles(file):
            place = tile_box(x, y, *size)
            if result is not None and _holds(result, place):
                continue
            pixels = self.tile(file, x, y, size)
            assert pixels is not None
            rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
            own = Box(
                place.left + int(columns[0]), place.top + int(rows[0]),
                place.left + int(columns[-1]) + 1, place.top + int(rows[-1]) + 1,
            )  # fmt: skip
            result = own if result is None else result.union(own)
        return result

    # Changing.

    def paint(self, file: int, kind: str, coverage: Tiles, size: tuple[int, int], *, erase: bool) -> Change:
        """Paint coverage onto a mask, or erase it."""
        return self.change(
            file, kind, coverage, lambda before, x, y: painted(before, coverage[x, y], erase=erase), size
        )

    def replace(self, file: int, kind: str, mask: Bytes) -> Change:
        """Replace a whole mask, H×W."""
        height, width = mask.shape
        size = (width, height)
        return self.change(
            file, kind, all_tiles(*size), lambda before, x, y: mask[tile_box(x, y, *size).slices], size
        )  # fmt: skip

    def invert(self, file: int, size: tuple[int, int]) -> Change:
        """Invert the mask."""
        return self.change(
            file, "invert", all_tiles(*size), lambda before, x, y: np.asarray(255 - before, np.uint8), size
        )

    def clear(self, file: int, size: tuple[int, int]) -> Change:
        """Empty a mask."""
        return self.change(file, "clear", self.masked_tiles(file), lambda before, x, y: np.zeros_like(before), size)

    def grow(self, file: int, px: int, size: tuple[int, int]) -> Change:
        """Let a mask reach this many pixels farther; negative: less far."""
        masked = self.box(file, size)
        if masked is None or not px:
            return self.state(file)
        box = masked.grown(min(abs(px), MAX_GROWTH_PX)).within(*size)
        larger = grown(self.read(file, box, size), px)

        def after(before: Bytes, x: int, y: int) -> Bytes:
            pixels = np.zeros_like(before)
            put(pixels, tile_box(x, y, *size), larger, box)
            return pixels

        return self.change(file, "grow" if px > 0 else "shrink", box.tiles(), after, size)

    def change(
        self,
        file: int,
        kind: str,
        places: Iterable[tuple[int, int]],
        after: Callable[[Bytes, int, int], Bytes],
        size: tuple[int, int],
        *,
        facts: dict[str, Any] | None = None,
    ) -> Change:
        """Carry out an operation on a mask.

        Args:
            file: of the mask.
            kind: what the operation is called.
            places: the tiles that it may change.
            after: gives the pixels of a tile, from those before and the tile's place.
            size: (width, height) of the image.
            facts: what else it changes, see `Workspace`; with facts, it is kept even if no pixel changes.
        """
        with self._database.transaction():
            changed: list[tuple[int, int, int | None, int | None]] = []
            for x, y in places:
                row = self._database.row(_TILE, file, x, y)
                place = tile_box(x, y, *size)
                empty = np.zeros((place.height, place.width), np.uint8)
                before = empty if row is None else _unpacked(row["data"], place)
                pixels = after(before, x, y)
                if np.array_equal(pixels, before):
                    continue
                new = None
                if pixels.any():
                    new = self._database.run("INSERT INTO tiles (data) VALUES (?)", _packed(pixels))
                changed.append((x, y, None if row is None else row["tile"], new))
            if not changed and facts is None:
                return self.state(file)
            self._forget_undone(file)
            number = 1 + self._database.number("SELECT position FROM files WHERE id = ?", file)
            boxes = [tile_box(x, y, *size) for x, y, _, _ in changed]
            box = boxes[0] if boxes else Box(0, 0, 0, 0)
            for other in boxes[1:]:
                box = box.union(other)
            self._database.run(
                "INSERT INTO operations VALUES (?, ?, ?, ?, ?)",
                file, number, kind, json.dumps(box.to_list()), None if facts is None else json.dumps(facts),
            )  # fmt: skip
            for x, y, old, new in changed:
                self._database.run(
                    "INSERT INTO operation_tiles VALUES (?, ?, ?, ?, ?, ?)", file, number, x, y, old, new
                )
            self._go_to(file, number, number, "after")
            return self._changed(file, [(x, y) for x, y, _, _ in changed], box, kind)

    def undo(self, file: int) -> tuple[Change, dict[str, Any] | None]:
        """Undo the last operation, if there is one. Returns the change, and the facts of the operation."""
        with self._database.transaction():
            position = self._database.number("SELECT position FROM files WHERE id = ?", file)
            return self._step(file, position, position - 1, "before")

    def redo(self, file: int) -> tuple[Change, dict[str, Any] | None]:
        """Redo the operation that was undone last, if there is one; as `undo`."""
        with self._database.transaction():
            position = self._database.number("SELECT position FROM files WHERE id = ?", file)
            return self._step(file, position + 1, position + 1, "after")

    def forget(self, file: int) -> None:
        """Empty a mask for good, with all operations: the image has another size than the one that it was made for."""
        with self._database.transaction():
            self._forget_after(file, 0)
            self._database.run("DELETE FROM mask_tiles WHERE file = ?", file)
            self._database.run("UPDATE files SET position = 0, mask = mask + 1 WHERE id = ?", file)
            self._changes += 1
            self._reduced.clear()

    def _step(self, file: int, number: int, position: int, side: str) -> tuple[Change, dict[str, Any] | None]:
        operation = self._database.row("SELECT * FROM operations WHERE file = ? AND number = ?", file, number)
        if operation is None:
            return self.state(file), None
        tiles = self._go_to(file, number, position, side)
        facts = None if operation["facts"] is None else json.loads(operation["facts"])
        return self._changed(file, tiles, Box(*json.loads(operation["box"])), operation["kind"]), facts

    def _go_to(self, file: int, number: int, position: int, side: str) -> list[tuple[int, int]]:
        """Give the mask the tiles from one side of an operation. Returns their places."""
        own = "FROM operation_tiles WHERE file = ? AND number = ?"
        tiles = self._database.rows(f"SELECT x, y {own}", file, number)
        self._database.run(
            f"DELETE FROM mask_tiles WHERE file = ? AND (x, y) IN (SELECT x, y {own})", file, file, number
        )
        self._database.run(
            f"INSERT INTO mask_tiles SELECT file, x, y, {side} {own} AND {side} IS NOT NULL", file, number
        )
        self._database.run("UPDATE files SET position = ?, mask = mask + 1 WHERE id = ?", position, file)
        self._changes += 1
        for level in range(1, 16):
            for place in {(row["x"] >> level, row["y"] >> level) for row in tiles}:
                self._reduced.pop((file, level, *place), None)
        return [(row["x"], row["y"]) for row in tiles]

    def _forget_undone(self, file: int) -> None:
        """A new operation takes the place of those that were undone."""
        self._forget_after(file, self._database.number("SELECT position FROM files WHERE id = ?", file))

    def _forget_after(self, file: int, position: int) -> None:
        later = "FROM operation_tiles WHERE file = ? AND number > ?"
        # What an operation made is used by itself and later ones alone.
        self._database.run(f"DELETE FROM tiles WHERE id IN (SELECT after {later})", file, position)
        self._database.run(f"DELETE {later}", file, position)
        self._database.run("DELETE FROM operations WHERE file = ? AND number > ?", file, position)

    def _changed(self, file: int, tiles: list[tuple[int, int]], box: Box, kind: str) -> Change:
        row = self._database.row("SELECT mask, position FROM files WHERE id = ?", file)
        assert row is not None
        count = self._database.number("SELECT count(*) FROM operations WHERE file = ?", file)
        return Change(row["mask"], tiles, box, row["position"], count - row["position"], self.is_empty(file), kind)


def loaded(path: Path) -> Bytes:
    """A mask that a task has written, H×W."""
    return np.asarray(np.load(path, allow_pickle=False), np.uint8)


def _holds(box: Box, other: Box) -> bool:
    return box.union(other) == box


def _packed(pixels: Bytes) -> bytes:
    """A tile as the database holds it: one byte if all pixels are equal, else compressed."""
    first = pixels[0, 0]
    return bytes([first]) if (pixels == first).all() else zlib.compress(pixels.tobytes(), 1)


def _unpacked(data: bytes, place: Box) -> Bytes:
    if len(data) == 1:
        return np.full((place.height, place.width), data[0], np.uint8)
    return np.frombuffer(zlib.decompress(data), np.uint8).reshape(place.height, place.width)
