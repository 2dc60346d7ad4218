"""Masks of pictures too large for memory: on the disk as well, and shaped part by part."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from restore.images.read import as_mask, check_mask_size
from restore.images.spool import SpooledPicture, spool_picture
from restore.repair.masks import FloatArray, reach_px, shaped, transparency
from restore.restorers.regions import BLOCK_PX, hole_blocks

_BAND_PIXELS = 8_000_000


@dataclass(frozen=True)
class MaskOf:
    """Where to repair a picture; see `restore.repair.masks.effective_mask`.

    Attributes:
        file: the mask; None: the picture's own alpha.
        invert, dilate_px, feather_px: how it is taken.
    """

    file: Path | None
    invert: bool
    dilate_px: int
    feather_px: int


class HugeMask:
    """The effective mask of a picture, any part of which can be had.

    Args:
        how: it is taken.
        spooled: the mask, or the picture whose alpha it is.

    Attributes:
        of_alpha: it is the picture's own alpha.
    """

    def __init__(self, how: MaskOf, spooled: SpooledPicture) -> None:
        self._how, self._spooled = how, spooled
        self.of_alpha = how.file is None

    def weight(self, rows: slice, columns: slice) -> FloatArray:
        """A part of it: H'×W' in [0, 1], 1 = repaired, 0 = known."""
        how, (height, width) = self._how, self._spooled.size
        around = reach_px(how.dilate_px, how.feather_px) if how.dilate_px or how.feather_px else 0
        top, left = max(rows.start - around, 0), max(columns.start - around, 0)
        part = self._spooled.part(
            slice(top, min(rows.stop + around, height)), slice(left, min(columns.stop + around, width))
        )
        if self.of_alpha:
            given = 1 - transparency(part) if how.invert else transparency(part)
        else:
            given = as_mask(part, invert=how.invert)
        weight = shaped(given, dilate_px=how.dilate_px, feather_px=how.feather_px)
        return weight[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]

    def blocks(self) -> npt.NDArray[np.bool_]:
        """Where its holes are; see `hole_blocks`."""
        height, width = self._spooled.size
        step = max(_BAND_PIXELS // (width * BLOCK_PX), 1) * BLOCK_PX
        bands = [slice(top, min(top + step, height)) for top in range(0, height, step)]
        return np.concatenate([hole_blocks(self.weight(rows, slice(0, width)) > 0) for rows in bands])


def open_mask(how: MaskOf, picture: SpooledPicture, spool: Path, *, max_pixels: int) -> HugeMask | None:
    """A picture's mask.

    Args:
        how: it is taken.
        picture: upright.
        spool: where the mask's rows go.
        max_pixels: as for `read_picture`, of the mask.

    Returns:
        None where it has to be in memory: it is no file that can be spooled, or there is no alpha to take.

    Raises:
        RestoreError: exit code 1; it cannot be read, or is of another size.
    """
    if how.file is None:
        return None if picture.header.alpha is None else HugeMask(how, picture)
    given = spool_picture(how.file, spool, max_pixels=max_pixels)
    if given is None:
        return None
    check_mask_size(given.size, picture.size, how.file)
    return HugeMask(how, given)
