"""Crops around the holes of a picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from restore.restorers.base import ModelRequirements

#: Pictures up to this size are shown whole to a restorer that wants to see everything.
SMALL_PIXELS = 1 << 20
#: A hole is shown with at least so much of its surroundings.
CONTEXT_PX = 128
#: Holes are told apart by blocks of this side.
BLOCK_PX = 64


@dataclass(frozen=True)
class Region:
    """A crop that is shown, and the part of it whose holes it repairs.

    Attributes:
        rows, columns: the crop.
        owned: which blocks of 64×64 pixels are its own; None: everything is.
        offset: (rows, columns) of the first block in the crop.
    """

    rows: slice
    columns: slice
    owned: npt.NDArray[np.bool_] | None = None
    offset: tuple[int, int] = (0, 0)

    @property
    def size(self) -> tuple[int, int]:
        """(H', W') of the crop."""
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start

    @property
    def origin(self) -> tuple[int, int]:
        """(row, column) of the crop in the picture."""
        return self.rows.start, self.columns.start

    def own(self, hole: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Of the crop's hole, H'×W', what is this region's to repair."""
        if self.owned is None:
            return hole
        own: npt.NDArray[np.bool_] = np.zeros(self.size, bool)
        inside = own[self.offset[0] :, self.offset[1] :]
        mine = np.kron(self.owned, np.ones((BLOCK_PX, BLOCK_PX), bool))[: inside.shape[0], : inside.shape[1]]
        inside[: mine.shape[0], : mine.shape[1]] = mine
        return own & hole


def hole_blocks(hole: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Whether there is a hole in each block of 64×64 pixels: H×W -> ⌈H/64⌉×⌈W/64⌉."""
    height, width = hole.shape
    down, across = -(-height // BLOCK_PX), -(-width // BLOCK_PX)
    padded = np.pad(hole, ((0, down * BLOCK_PX - height), (0, across * BLOCK_PX - width)))
    blocks: npt.NDArray[np.bool_] = np.asarray(padded.reshape(down, BLOCK_PX, across, BLOCK_PX).any(axis=(1, 3)))
    return blocks


def crops(hole: npt.NDArray[np.bool_], needs: ModelRequirements) -> list[Region]:
    """Crops that show every hole of a picture (see `regions`); the whole of it, in tiles, where that is less work."""
    height, width = hole.shape
    found = list(regions(hole_blocks(hole), (height, width), needs))
    if needs.tileable and sum(rows * columns for rows, columns in (region.size for region in found)) > height * width:
        return [Region(slice(0, height), slice(0, width))]
    return found


def regions(blocks: npt.NDArray[np.bool_], size: tuple[int, int], needs: ModelRequirements) -> Iterator[Region]:
    """Crops that show every hole with its surroundings; holes near each other share one.

    Args:
        blocks: where the holes are, see `hole_blocks`.
        size: (H, W) of the picture.
        needs: of the restorer that is shown them.

    A crop starts at a multiple of the restorer's `multiple`, so that a network with strides sees the same
    grid as in the whole picture. A restorer that cannot be tiled sees small pictures whole. Around a hole at least
    half its length is shown.
    """
    height, width = size
    if not blocks.any():
        return
    if not needs.tileable and (height * width <= SMALL_PIXELS or not needs.needs_mask):
        yield Region(slice(0, height), slice(0, width))
        return
    context = max(CONTEXT_PX, needs.overlap_px)
    labels, _ = ndimage.label(ndimage.binary_dilation(blocks, np.ones((3, 3))), np.ones((3, 3)))
    labels *= blocks
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        top, bottom, left, right = (int(edge) * BLOCK_PX for side in box for edge in (side.start, side.stop))
        around = max(context, max(bottom - top, right - left) // 2)
        first_row, first_column = (max(edge - around, 0) // needs.multiple * needs.multiple for edge in (top, left))
        yield Region(
            slice(first_row, min(bottom + around, height)),
            slice(first_column, min(right + around, width)),
            labels[box] == label,
            (top - first_row, left - first_column),
        )
