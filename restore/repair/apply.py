"""One picture through a restorer: whole, in tiles, or in crops around its holes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from restore.repair.grain import with_grain
from restore.restorers.base import Needs, Restorer
from restore.restorers.tiled import check_numbers, run

FloatArray = npt.NDArray[np.float32]

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


@torch.inference_mode()
def repair(
    restorer: Restorer,
    shown: FloatArray,
    weight: FloatArray | None,
    *,
    tile_px: int = 0,
    grain_key: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> FloatArray:
    """What the restorer makes of a picture. The result depends on nothing but the arguments.

    Args:
        restorer: of any kind.
        shown: H×W×3, sRGB, [0, 1].
        weight: H×W in [0, 1], where to repair; None everywhere (for restorers that need no mask).
        tile_px: largest side of a tile, 0 never tiles.
        grain_key: what is filled gets the grain of its surroundings; see `restore.repair.grain`. None: it does not.
        say: gets a line when something goes another way than planned, such as smaller tiles.

    Returns:
        (H·scale)×(W·scale)×3, sRGB, [0, 1]. Where `weight` is above 0 it is fully repaired (blending is the
        caller's); elsewhere it is `shown`.

    Raises:
        RestoreError: exit code 1; out of memory, or the result holds values that are no numbers.
    """
    image = torch.from_numpy(np.ascontiguousarray(shown.transpose(2, 0, 1)))
    if weight is None:
        out = run(restorer, image, None, tile_px, say)
    else:
        hole = weight > 0
        mask = torch.from_numpy(hole[None].astype(np.float32))
        out = image.clone()
        for region in regions(hole_blocks(hole), (hole.shape[0], hole.shape[1]), restorer.needs):
            part = (slice(None), region.rows, region.columns)
            own = region.own(hole[part[1:]])
            repaired = run(restorer, image[part], mask[part], tile_px, say)
            if grain_key is not None:
                repaired = with_grain(repaired, image[part], own, hole[part[1:]], region.origin, grain_key)
            out[part] = torch.where(torch.from_numpy(own), repaired, out[part])
    check_numbers(out)
    return np.ascontiguousarray(out.numpy().transpose(1, 2, 0))


def hole_blocks(hole: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Whether there is a hole in each block of 64×64 pixels: H×W -> ⌈H/64⌉×⌈W/64⌉."""
    height, width = hole.shape
    down, across = -(-height // BLOCK_PX), -(-width // BLOCK_PX)
    padded = np.pad(hole, ((0, down * BLOCK_PX - height), (0, across * BLOCK_PX - width)))
    blocks: npt.NDArray[np.bool_] = np.asarray(padded.reshape(down, BLOCK_PX, across, BLOCK_PX).any(axis=(1, 3)))
    return blocks


def regions(blocks: npt.NDArray[np.bool_], size: tuple[int, int], needs: Needs) -> Iterator[Region]:
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
