"""Changing the masks of an opened folder: the tools of the page."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from restore.errors import RestoreError
from restore.serve.jobs import Job
from restore.serve.page import mask_tools, strokes
from restore.serve.page.mask_store import Change, loaded
from restore.serve.page.session import URGENT, Json, Session
from restore.serve.page.tiles import Box, level_sizes

Bytes = npt.NDArray[np.uint8]


class Painting:
    """Changes masks. Any thread may call it; changes of one mask wait for each other.

    Args:
        session: of the opened folder.
    """

    def __init__(self, session: Session) -> None:
        self._session, self._workspace = session, session.workspace
        self._lock = threading.Lock()
        self._likely: tuple[Path, Bytes] | None = None

    def stroke(self, file: int, points: list[list[float]], softness: float, *, erase: bool) -> Change:
        """Paint a stroke; see `strokes.stroke`."""
        size = self._workspace.size(file)
        coverage = strokes.stroke(points, softness, *size)
        return self._paint(file, "erase" if erase else "stroke", coverage, size, erase=erase)

    def polygon(self, file: int, points: list[list[float]], *, erase: bool) -> Change:
        """Fill a polygon; see `mask_tools.polygon`."""
        size = self._workspace.size(file)
        return self._paint(file, "polygon", mask_tools.polygon(points, *size), size, erase=erase)

    def paint_found(self, file: int, threshold: float, at: list[float] | None, *, erase: bool) -> Change:
        """Paint the detected damage: all of it, or the part that is connected with a point."""
        size = self._workspace.size(file)
        with self._session.whole_image:
            mask = self.found_mask(file, threshold)
            if at is not None:
                mask = mask_tools.connected(mask, at[0], at[1])
            tiles = mask_tools.in_tiles(mask, Box(0, 0, *size), *size)
            del mask
        return self._paint(file, "found", {place: t for place, t in tiles.items() if t.any()}, size, erase=erase)

    def found_mask(self, file: int, threshold: float) -> Bytes:
        """What was found at a threshold, H×W of 0 and 255: as `restore detect` writes it, but for the probabilities,
        which are kept in steps of 1/255."""
        import cv2

        if not 0 < threshold < 1:
            raise RestoreError(f"must be a number between 0 and 1, not {threshold}", where="threshold")
        tiles = self._session.probabilities(file)
        with self._lock:
            kept = self._likely
        if kept is None or kept[0] != tiles.path:
            kept = (tiles.path, tiles.read_box(Box(0, 0, *tiles.size), channels=1))
            with self._lock:
                self._likely = kept
        damaged = kept[1] >= threshold * 255
        margin = tiles.facts["margin_px"]
        if margin and damaged.any():
            distance = cv2.distanceTransform((~damaged).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
            damaged = np.asarray(distance) <= margin
        return damaged.astype(np.uint8) * np.uint8(255)

    def change(self, file: int, what: str, px: int = 0, level: int | None = None) -> Change:
        """Change a whole mask: `invert`, `clear`, `grow`, `undo`, `redo` or `ground`.

        Args:
            file: of the mask.
            what: see above.
            px: by which it grows.
            level: of which the answer says which tiles are empty or full, so that they need not be fetched; None: none.
        """
        size = self._workspace.size(file)
        masks = self._workspace.masks
        with self._session.lock_of(file):
            before = self._workspace.file(file)
            change = {
                "invert": lambda: masks.invert(file, size),
                "clear": lambda: masks.clear(file, size),
                "grow": lambda: masks.grow(file, px, size),
                "undo": lambda: self._workspace.undo(file),
                "redo": lambda: self._workspace.redo(file),
                "ground": lambda: self._workspace.make_ground(file),
            }[what]()
            if level is not None and 0 <= level < len(level_sizes(*size)):
                change = replace(change, even=masks.even_tiles(file, level, change.tiles, size))
            if self._workspace.file(file) != before:
                self._session.tell(file)
        return change

    def load_mask(self, file: int, mask: Path) -> Job:
        """Replace a mask by that of a file."""
        target = mask.with_suffix(".npy")
        params = {
            "mask": str(mask), "source": str(self._workspace.original(file)), "target": str(target),
            "max_pixels": self._session.max_pixels,
        }  # fmt: skip

        def done(result: Json) -> Json:
            with self._session.lock_of(file):
                change = self._workspace.masks.replace(file, "load", loaded(target))
            self._session.tell(file)
            return change.to_dict() | result

        def clean() -> None:
            mask.unlink(missing_ok=True)
            target.unlink(missing_ok=True)

        return self._session.submit(
            "read_mask", params, file,
            worker="decoder", priority=URGENT, again=True, done=done, after=clean,
        )  # fmt: skip

    def _paint(self, file: int, kind: str, coverage: mask_tools.Tiles, size: tuple[int, int], *, erase: bool) -> Change:
        with self._session.lock_of(file):
            before = self._workspace.file(file)["state"]
            change = self._workspace.masks.paint(file, kind, coverage, size, erase=erase)
            if self._workspace.file(file)["state"] != before:
                self._session.tell(file)
        return change
