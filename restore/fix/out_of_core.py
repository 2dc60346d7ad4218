"""Images too large for memory: decoded, repaired and encoded in parts, via files on disk.

`restore.fix.steps.run_steps` works on a `SpooledPage`. The result equals that of the image in memory.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from restore.errors import RestoreError
from restore.files import check_unchanged, replace_atomically, temporary_path, write_error_message
from restore.fix.mask_kinds import Tones
from restore.fix.masks import FloatArray, dilate_and_feather, opaque_where_repaired, reach_px, transparency
from restore.fix.options import Metadata
from restore.fix.pages import Page, blend
from restore.fix.side_outputs import mask_levels
from restore.images import DecodedImage
from restore.images.out_of_core import Spool, SpooledImage, spool_image, write_spooled
from restore.images.read import check_mask_size, mask_from_image
from restore.restorers.hole_crops import BLOCK_PX, Region, hole_blocks, regions

if TYPE_CHECKING:
    from torch import Tensor

    from restore.fix.fade_correction import Curves
    from restore.restorers.base import ModelRequirements

_ALPHA_REACH = 2  # rows beside a row that its enlarged alpha may depend on
_BAND_PIXELS = 8_000_000  # pixels of a mask that are searched for holes at once
_STRIP_PIXELS = 2_000_000  # pixels that are converted between color spaces at once


class HoleTooLarge(Exception):
    """The crop around a hole exceeds the limit, so the image must be processed in memory."""


# Masks, also on disk, and prepared part by part.


@dataclass(frozen=True)
class MaskSpec:
    """The source and preparation of a mask; see `restore.fix.masks.effective_mask`.

    Attributes:
        file: the mask; None: the alpha of the image.
        invert, dilate_px, feather_px: as for `effective_mask`.
    """

    file: Path | None
    invert: bool
    dilate_px: int
    feather_px: int


class SpooledMask:
    """The effective mask of an image, read part by part.

    Args:
        spec: source and preparation of the mask.
        spooled: the mask, or the image whose alpha is the mask.

    Attributes:
        of_alpha: the mask is the alpha of the image.
    """

    def __init__(self, spec: MaskSpec, spooled: SpooledImage) -> None:
        self._spec, self._spooled = spec, spooled
        self.of_alpha = spec.file is None

    def read(self, rows: slice, columns: slice) -> FloatArray:
        """A part of the mask: h×w in [0, 1], 1 = repair."""
        spec, (height, width) = self._spec, self._spooled.size
        around = reach_px(spec.dilate_px, spec.feather_px) if spec.dilate_px or spec.feather_px else 0
        top, left = max(rows.start - around, 0), max(columns.start - around, 0)
        part = self._spooled.part(
            slice(top, min(rows.stop + around, height)), slice(left, min(columns.stop + around, width))
        )
        if self.of_alpha:
            mask = 1 - transparency(part) if spec.invert else transparency(part)
        else:
            mask = mask_from_image(part, invert=spec.invert)
        mask = dilate_and_feather(mask, dilate_px=spec.dilate_px, feather_px=spec.feather_px)
        return mask[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]

    def blocks(self) -> npt.NDArray[np.bool_]:
        """Where its holes are; see `hole_blocks`."""
        height, width = self._spooled.size
        step = max(_BAND_PIXELS // (width * BLOCK_PX), 1) * BLOCK_PX
        bands = [slice(top, min(top + step, height)) for top in range(0, height, step)]
        return np.concatenate([hole_blocks(self.read(rows, slice(0, width)) > 0) for rows in bands])


def _open_mask(spec: MaskSpec, image: SpooledImage, spool: Path, max_pixels: int) -> SpooledMask | None:
    """Open the mask of an image; None if it needs memory, or the image has no alpha to use as a mask.

    Only black and white masks can be read part by part (`restore.fix.mask_kinds`).

    Raises:
        RestoreError: exit code 1; the mask cannot be read, or has another size.
    """
    if spec.file is None:
        header = image.header
        return SpooledMask(spec, image) if header.alpha is not None and header.transparent else None
    mask = spool_image(spec.file, spool, max_pixels=max_pixels)
    if mask is None:
        return None
    check_mask_size(mask.size, image.size, spec.file)
    height, width = mask.size
    step = max(_STRIP_PIXELS // width, 1)
    tones = Tones()
    for top in range(0, height, step):
        tones += Tones.of(mask.part(slice(top, min(top + step, height)), slice(0, width)))
    return SpooledMask(spec, mask) if tones.plain else None


# The page of an image on disk.


class SpooledPage(Page):
    """A page whose pixels are in two files of rows: before and after the repair. Only one model may write it.

    Args:
        source: the image file.
        stat: state of the file when it was decoded.
        before, after: the files of rows.
        mask: None: no mask.
        strength: blending factor of the repair, in [0, 1].
        max_crop_pixels: pixels of the largest crop that may be held in memory.
    """

    def __init__(
        self,
        source: Path,
        stat: os.stat_result,
        before: SpooledImage,
        after: SpooledImage,
        mask: SpooledMask | None,
        strength: float,
        max_crop_pixels: int,
    ) -> None:
        self.source, self.stat, self.before = source, stat, before
        self._after, self._mask, self._strength = after, mask, strength
        self._max_crop_pixels = max_crop_pixels
        self.has_mask = mask is not None
        self._curves: Curves | None = None
        self._is_written = False
        self._mask_pixels = 0
        self._scale = after.size[0] // before.size[0]

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.before.size

    def read(self, rows: slice, columns: slice) -> FloatArray:
        """See `Page.read`."""
        return self._as_seen(self.before.part(rows, columns))

    def _as_seen(self, source: DecodedImage) -> FloatArray:
        image = source.to_srgb()
        return image if self._curves is None else self._curves(image)

    def read_mask(self, rows: slice, columns: slice) -> FloatArray:
        """See `Page.read_mask`."""
        assert self._mask is not None
        return self._mask.read(rows, columns)

    def hole_crops(self, requirements: ModelRequirements) -> Sequence[Region]:
        """See `Page.hole_crops`.

        Raises:
            HoleTooLarge: a crop is too large for memory.
        """
        assert self._mask is not None
        crops = list(regions(self._mask.blocks(), self.size, requirements))
        if any(crop.size[0] * crop.size[1] > self._max_crop_pixels for crop in crops):
            raise HoleTooLarge
        return crops

    def correct(self, curves: Curves) -> None:
        """See `Page.correct`. The curves are applied whenever a part is read."""
        self._curves = curves

    def write_rows(self, top: int, band: Tensor) -> None:
        """See `Page.write_rows`."""
        if self._scale > 1:
            self._write_enlarged(top, band)
            return
        columns = slice(0, self.size[1])
        for rows in self.strips(top, top + band.shape[-2]):
            repaired = _to_array(band[:, rows.start - top : rows.stop - top])
            source = self.before.part(rows, columns)
            self._after.put(rows, columns, source.blend(repaired, strength=self._strength, neutral=self._is_neutral))
        self._is_written = True

    def _write_enlarged(self, top: int, band: Tensor) -> None:
        """`write_rows` of an enlarged page; `top` and the height of the band divide by the scale."""
        scale, height, width = self._scale, *self.size
        for rows in self.strips(top // scale, (top + band.shape[-2]) // scale):
            # Alpha is interpolated, so a row needs its neighbors; the colors of these are cut off again.
            around = slice(max(rows.start - _ALPHA_REACH, 0), min(rows.stop + _ALPHA_REACH, height))
            shape = ((around.stop - around.start) * scale, width * scale, 3)
            repaired = np.zeros(shape, np.float32)
            inner = slice((rows.start - around.start) * scale, (rows.stop - around.start) * scale)
            first = rows.start * scale - top
            repaired[inner] = _to_array(band[:, first : first + inner.stop - inner.start])
            bigger = self.before.part(around, slice(0, width)).blend(repaired, neutral=self._is_neutral)
            alpha = None if bigger.alpha is None else bigger.alpha[inner]
            part = replace(bigger, pixels=bigger.pixels[inner], alpha=alpha)
            self._after.put(slice(rows.start * scale, rows.stop * scale), slice(0, width * scale), part)
        self._is_written = True

    def write_hole(self, crop: Region, own: npt.NDArray[np.bool_], filled: Tensor) -> None:
        """See `Page.write_hole`."""
        if not self._is_written:
            self._write_unfilled()
        source = self.before.part(crop.rows, crop.columns)
        mask = np.where(own, self.read_mask(crop.rows, crop.columns), np.float32(0))
        self._mask_pixels += int(np.count_nonzero(mask))
        repaired, share = _to_array(filled), mask
        if self.everywhere:  # the mask blends with the fading-corrected image, the strength with the source
            repaired, share = blend(self._as_seen(source), repaired, mask), (mask > 0).astype(np.float32)
        blended = source.blend(repaired, share, strength=self._strength, neutral=self._is_neutral)
        after = self._after.part(crop.rows, crop.columns)  # may contain holes that are already filled
        after = replace(after, pixels=np.where(mask[:, :, None] > 0, blended.pixels, after.pixels))
        if self._mask is not None and self._mask.of_alpha:
            after = opaque_where_repaired(after, mask)
        self._after.put(crop.rows, crop.columns, after)

    def finish(self) -> None:
        """See `Page.finish`."""
        if self.changed and not self._is_written:
            self._write_unfilled()

    def _write_unfilled(self) -> None:
        """Write the page as it is outside the holes: a copy, or corrected for fading."""
        self._is_written = True
        if self._curves is None:
            shutil.copyfile(self.before.spool.path, self._after.spool.path)
            return
        columns = slice(0, self.size[1])
        for rows in self.strips(0, self.size[0]):
            source = self.before.part(rows, columns)
            seen = self._as_seen(source)
            self._after.put(rows, columns, source.blend(seen, strength=self._strength, neutral=self._is_neutral))

    @cached_property
    def _is_neutral(self) -> bool:
        """See `DecodedImage.is_neutral`."""
        columns = slice(0, self.size[1])
        return all(
            self.before.part(rows, columns).is_neutral(None if self._mask is None else self._mask.read(rows, columns))
            for rows in self.strips(0, self.size[0])
        )

    def source_strips(self) -> Iterator[np.ndarray]:
        """The original pixels from the top down, a few rows at a time."""
        columns = slice(0, self.size[1])
        return (self.before.part(rows, columns).pixels for rows in self.strips(0, self.size[0]))

    def strips(self, top: int, bottom: int) -> Iterator[slice]:
        """Slices of a few rows from `top` to `bottom`."""
        step = max(_STRIP_PIXELS // self.size[1], 1)
        return (slice(start, min(start + step, bottom)) for start in range(top, bottom, step))

    @property
    def after(self) -> SpooledImage:
        """The page with its repair."""
        return self._after if self._is_written else self.before

    @property
    def mask_coverage(self) -> float | None:
        """The fraction of pixels in holes; None without a mask."""
        return self._mask_pixels / (self.size[0] * self.size[1]) if self.has_mask else None

    def changed_fraction(self) -> float:
        """The fraction of pixels that differ from the source."""
        if not self._is_written:
            return 0.0
        if self._scale > 1:
            return 1.0
        columns, count = slice(0, self.size[1]), 0
        for rows in self.strips(0, self.size[0]):
            before, after = (image.part(rows, columns).pixels for image in (self.before, self._after))
            count += int((before != after).any(axis=2).sum())
        return count / (self.size[0] * self.size[1])


@contextmanager
def open_page(
    source: Path,
    target: Path,
    mask: MaskSpec | None,
    *,
    format: str | None,
    strength: float,
    scale: int = 1,
    max_pixels: int,
    max_crop_pixels: int,
    decoding: AbstractContextManager[None],
) -> Iterator[SpooledPage | None]:
    """Decode an image into files of rows, which are removed at the end.

    The files are beside the target and take twice the size of the uncompressed image, or 1 + scale².

    Args:
        source, target: files.
        mask: where to repair; None: everywhere.
        format: output format; None: that of the source.
        strength: blending factor of the repair, in [0, 1].
        scale: the page is enlarged by this factor, and nothing else happens to it.
        max_pixels: see `read_image`.
        max_crop_pixels: see `SpooledPage`.
        decoding: entered while files are decoded.

    Yields:
        None if this image must be processed in memory: see `spool_image`.

    Raises:
        RestoreError: exit code 1, with the reason; also if the disk fails while the page is in use.
        OSError: the source can no longer be read.
    """
    spools = [temporary_path(target) for _ in range(3)]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        stat = source.stat()
        page = None
        with decoding:
            before = spool_image(source, spools[0], max_pixels=max_pixels, times=1 + scale**2)
            if before is not None and before.fits(format or before.header.format):
                spooled_mask = None if mask is None else _open_mask(mask, before, spools[2], max_pixels)
                after = before.empty_copy(spools[1], scale)
                if after.fits(format or before.header.format) and (mask is None or spooled_mask is not None):
                    page = SpooledPage(source, stat, before, after, spooled_mask, strength, max_crop_pixels)
        yield page
    except OSError as error:
        if error.filename in (source, os.fspath(source)):  # the source is unreadable or gone
            raise
        raise RestoreError(write_error_message(error), where=target, exit_code=1) from error
    finally:
        for spool in spools:
            spool.unlink(missing_ok=True)


def write_page(
    page: SpooledPage,
    header: DecodedImage,
    target: Path,
    *,
    format: str,
    copy: bool,
    quality: int | None,
    metadata: Metadata,
    overwrite: bool,
) -> tuple[list[str], str, str]:
    """Encode a page into its file, atomically.

    Args:
        page: the repaired page.
        header: everything but the pixels.
        target: the output file.
        format: output format.
        copy: write the bytes of the source instead.
        quality, metadata: see `write_spooled`.
        overwrite: replace an existing target.

    Returns:
        Warnings about metadata that could not be kept, and the SHA-256 of the source and of the target.

    Raises:
        RestoreError: exit code 1; the source changed meanwhile, or the target cannot be written.
        OSError: likewise.
    """
    read = _sha256(page.source)
    check_unchanged(page.source, page.stat)  # before writing, and again after it, because a copy reads the source again
    notes: list[str] = []
    with replace_atomically(target, like=page.stat, overwrite=overwrite) as temporary:
        if copy:
            shutil.copyfile(page.source, temporary)
        else:
            after = replace(page.after, header=header)
            notes = write_spooled(after, temporary, format, target, quality=quality, metadata=metadata)
        written = _sha256(temporary)
        check_unchanged(page.source, page.stat)
    return notes, read, written


def write_mask(page: SpooledPage, path: Path) -> None:
    """Write the effective mask of a page as PNG: gray, 8 bits, white = repair.

    Raises:
        OSError: the disk is full, or the file cannot be written.
    """
    spool = temporary_path(path)
    try:
        rows = Spool.create(spool, page.size, 1, np.dtype(np.uint8))
        columns = slice(0, page.size[1])
        for strip in page.strips(0, page.size[0]):
            rows.write(strip, columns, mask_levels(page.read_mask(strip, columns))[:, :, None])
        header = DecodedImage(np.empty((0, page.size[1], 1), np.uint8))
        write_spooled(SpooledImage(header, rows), path, "png", path, quality=None, metadata="strip")
    finally:
        spool.unlink(missing_ok=True)


def _to_array(image: Tensor) -> FloatArray:
    return np.ascontiguousarray(image.numpy().transpose(1, 2, 0))


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
