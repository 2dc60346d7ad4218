"""Crops around the holes of an image, for restorers that need not or cannot see all of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from restore.restorers.base import ModelRequirements

#: A restorer that is not tileable gets images of up to this size whole.
WHOLE_IMAGE_PX = 1 << 20
#: The least context around a hole.
CONTEXT_PX = 128
#: Holes are located, and told apart, by blocks of this side.
BLOCK_PX = 64

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Region:
    """A crop, and the part of it whose holes it repairs; the rest is context.

    Attributes:
        rows, columns: the crop.
        owned: which blocks of 64×64 pixels are its own; None: all.
        offset: (row, column) of the first block in the crop.
    """

    rows: slice
    columns: slice
    owned: BoolArray | None = None
    offset: tuple[int, int] = (0, 0)

    @property
    def size(self) -> tuple[int, int]:
        """(H', W') of the crop."""
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start

    @property
    def origin(self) -> tuple[int, int]:
        """(row, column) of the crop in the image."""
        return self.rows.start, self.columns.start

    def own(self, hole: BoolArray) -> BoolArray:
        """The pixels of the crop's holes, H'×W', that this region repairs."""
        if self.owned is None:
            return hole
        own: BoolArray = np.zeros(self.size, bool)
        inside = own[self.offset[0] :, self.offset[1] :]
        blocks = np.kron(self.owned, np.ones((BLOCK_PX, BLOCK_PX), bool))[: inside.shape[0], : inside.shape[1]]
        inside[: blocks.shape[0], : blocks.shape[1]] = blocks
        return own & hole


def hole_blocks(hole: BoolArray) -> BoolArray:
    """Whether there is a hole in each block of 64×64 pixels: H×W -> ⌈H/64⌉×⌈W/64⌉."""
    height, width = hole.shape
    down, across = -(-height // BLOCK_PX), -(-width // BLOCK_PX)
    padded = np.pad(hole, ((0, down * BLOCK_PX - height), (0, across * BLOCK_PX - width)))
    return np.asarray(padded.reshape(down, BLOCK_PX, across, BLOCK_PX).any(axis=(1, 3)))


def crops(hole: BoolArray, requirements: ModelRequirements) -> list[Region]:
    """Crops around every hole of an image (see `regions`); the whole image, in tiles, if that is less work."""
    height, width = hole.shape
    found = list(regions(hole_blocks(hole), (height, width), requirements))
    work = sum(rows * columns for rows, columns in (region.size for region in found))
    if requirements.tileable and work > height * width:
        return [Region(slice(0, height), slice(0, width))]
    return found


def regions(blocks: BoolArray, size: tuple[int, int], requirements: ModelRequirements) -> Iterator[Region]:
    """Crops around every hole, with context; holes near each other share one.

    A crop starts at a multiple of the restorer's `multiple`, so that a network with strides sees the same grid as in
    the whole image. A restorer that is not tileable gets small images whole, or any image if it needs no mask. The
    context around a hole is at least half the hole's length.

    Args:
        blocks: where the holes are, see `hole_blocks`.
        size: (H, W) of the image.
        requirements: of the restorer.
    """
    height, width = size
    if not blocks.any():
        return
    if not requirements.tileable and (height * width <= WHOLE_IMAGE_PX or not requirements.needs_mask):
        yield Region(slice(0, height), slice(0, width))
        return
    context = max(CONTEXT_PX, requirements.overlap_px)
    multiple = requirements.multiple
    for first, last, group in _groups(blocks):
        (top, left), (bottom, right) = ((row * BLOCK_PX, column * BLOCK_PX) for row, column in (first, last))
        around = max(context, max(bottom - top, right - left) // 2)
        first_row, first_column = (max(edge - around, 0) // multiple * multiple for edge in (top, left))
        yield Region(
            slice(first_row, min(bottom + around, height)),
            slice(first_column, min(right + around, width)),
            group,
            (top - first_row, left - first_column),
        )


def _groups(blocks: BoolArray) -> Iterator[tuple[tuple[int, int], tuple[int, int], BoolArray]]:
    """Groups of blocks at most one block apart: (first row and column, end row and column, which blocks in between)."""
    import cv2  # imported here: without masks nothing needs it

    near = cv2.dilate(blocks.astype(np.uint8), np.ones((3, 3), np.uint8))
    _, labels, boxes, _ = cv2.connectedComponentsWithStats(near, connectivity=8)
    # In reading order, whatever the order in which OpenCV numbers them.
    _, first_seen = np.unique(labels, return_index=True)
    for label in labels.ravel()[np.sort(first_seen)]:
        if label:
            left, top, width, height = (int(value) for value in boxes[label, :4])
            box = (slice(top, top + height), slice(left, left + width))
            group = (labels[box] == label) & blocks[box]
            rows, columns = np.flatnonzero(group.any(axis=1)), np.flatnonzero(group.any(axis=0))
            inner = group[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            first = (top + int(rows[0]), left + int(columns[0]))
            yield first, (first[0] + inner.shape[0], first[1] + inner.shape[1]), inner
