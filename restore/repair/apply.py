"""One picture through a restorer: whole, in tiles, or in crops around its holes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor

from restore.errors import RestoreError
from restore.restorers.base import Needs, Restorer
from restore.tiling import run_tiled

FloatArray = npt.NDArray[np.float32]

#: Pictures up to this size are shown whole to a restorer that wants to see everything.
SMALL_PIXELS = 1 << 20
#: A hole is shown with at least so much of its surroundings.
CONTEXT_PX = 128
_BLOCK_PX = 64


@dataclass(frozen=True)
class Region:
    """A crop that is shown, and the part of it whose holes it repairs.

    Attributes:
        rows, columns: the crop.
        own: H'×W' of the crop, True where a hole is this region's to repair.
    """

    rows: slice
    columns: slice
    own: npt.NDArray[np.bool_]


@torch.inference_mode()
def repair(
    restorer: Restorer,
    shown: FloatArray,
    weight: FloatArray | None,
    *,
    tile_px: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> FloatArray:
    """What the restorer makes of a picture. The result depends on nothing but the arguments.

    Args:
        restorer: of any kind.
        shown: H×W×3, sRGB, [0, 1].
        weight: H×W in [0, 1], where to repair; None everywhere (for restorers that need no mask).
        tile_px: largest side of a tile, 0 never tiles.
        say: gets a line when something goes another way than planned, such as smaller tiles.

    Returns:
        (H·scale)×(W·scale)×3, sRGB, [0, 1]. Where `weight` is above 0 it is fully repaired (blending is the
        caller's); elsewhere it is `shown`.

    Raises:
        RestoreError: exit code 1; out of memory, or the result holds values that are no numbers.
    """
    image = torch.from_numpy(np.ascontiguousarray(shown.transpose(2, 0, 1)))
    if weight is None:
        out = _run(restorer, image, None, tile_px, say)
    else:
        hole = torch.from_numpy((weight > 0)[None].astype(np.float32))
        out = image.clone()
        for region in regions(weight > 0, restorer.needs):
            part = (slice(None), region.rows, region.columns)
            repaired = _run(restorer, image[part], hole[part], tile_px, say)
            out[part] = torch.where(torch.from_numpy(region.own), repaired, out[part])
    if not bool(torch.isfinite(out).all()):
        raise RestoreError("the model gave values that are no numbers", hint="try --precision fp32", exit_code=1)
    return np.ascontiguousarray(out.numpy().transpose(1, 2, 0))


def regions(hole: npt.NDArray[np.bool_], needs: Needs) -> Iterator[Region]:
    """Crops that show every hole with its surroundings; holes near each other share one.

    A crop starts at a multiple of the restorer's `multiple`, so that a network with strides sees the same
    grid as in the whole picture. A restorer that cannot be tiled sees small pictures whole. Around a hole at least
    half its length is shown.
    """
    height, width = hole.shape
    if not hole.any():
        return
    if not needs.tileable and (height * width <= SMALL_PIXELS or not needs.needs_mask):
        yield Region(slice(0, height), slice(0, width), hole)
        return
    context = max(CONTEXT_PX, needs.overlap_px)
    down, across = -(-height // _BLOCK_PX), -(-width // _BLOCK_PX)
    padded = np.pad(hole, ((0, down * _BLOCK_PX - height), (0, across * _BLOCK_PX - width)))
    blocks = padded.reshape(down, _BLOCK_PX, across, _BLOCK_PX).any(axis=(1, 3))
    labels, _ = ndimage.label(ndimage.binary_dilation(blocks, np.ones((3, 3))), np.ones((3, 3)))
    labels *= blocks
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        top, bottom, left, right = (int(edge) * _BLOCK_PX for side in box for edge in (side.start, side.stop))
        around = max(context, max(bottom - top, right - left) // 2)
        first_row, first_column = (max(edge - around, 0) // needs.multiple * needs.multiple for edge in (top, left))
        rows = slice(first_row, min(bottom + around, height))
        columns = slice(first_column, min(right + around, width))
        own = np.zeros((rows.stop - rows.start, columns.stop - columns.start), bool)
        mine = np.kron(labels[box] == label, np.ones((_BLOCK_PX, _BLOCK_PX), bool))
        inside = own[top - first_row : bottom - first_row, left - first_column : right - first_column]
        inside[:] = mine[: inside.shape[0], : inside.shape[1]]
        yield Region(rows, columns, own & hole[rows, columns])


def _run(restorer: Restorer, image: Tensor, hole: Tensor | None, tile_px: int, say: Callable[[str], None]) -> Tensor:
    """C×H×W (and 1×H×W) through the restorer, tiled where it may be; tiles without a hole pass by."""
    needs = restorer.needs
    whole = restorer.prepare(image[None], None if hole is None else hole[None])[0]

    def restored(tile: Tensor, mask: Tensor | None) -> Tensor:
        if mask is not None and not bool(mask.any()):
            return tile
        out = restorer(tile, mask, prepared=True)
        if restorer.precision != "fp32" and not bool(torch.isfinite(out).all()):
            say(f"{restorer.precision} gave values that are no numbers; that part was repeated in fp32")
            out = restorer.in_precision("fp32")(tile, mask, prepared=True)
        return out

    return run_tiled(
        restored,
        (whole, hole),
        tile_px=tile_px if needs.tileable else 0,
        overlap_px=needs.overlap_px,
        scale=needs.scale,
        multiple=needs.multiple,
        on_smaller=lambda tile: say(f"memory did not suffice; went on with tiles of {tile} pixels"),
    )
