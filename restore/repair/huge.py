"""Pictures too large for memory: decoded, repaired and encoded in parts, by way of the disk."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from restore.errors import RestoreError
from restore.files import replacing, temporary_beside, why_not_written
from restore.images.spool import SpooledPicture, pixels_in_header, spool_picture
from restore.images.unspool import write_spooled
from restore.repair.apply import regions
from restore.repair.huge_masks import HugeMask, MaskOf, open_mask
from restore.repair.loaded import opaque_where_repaired, would_suffer
from restore.repair.pipes import check_unchanged
from restore.restorers.base import Restorer
from restore.restorers.tiled import check_numbers, run, tile_by_tile, told_of_smaller_tiles
from restore.tiling import run_banded

#: From here on a picture goes through in parts; in memory a pixel takes some 40 bytes.
HUGE_PIXELS = 40_000_000
_STRIP_PIXELS = 2_000_000  # that are put back into their own colours at once
_HUGE_BYTES = 500  # a smaller file holds no huge picture: a blank page of 40 megapixels takes 800 bytes at least


@dataclass(frozen=True)
class Repaired:
    """What came out.

    Attributes:
        pixels: of the picture.
        ran: the restorer did; else there was nothing to repair.
        changed_share: of the pixels.
        copied: the file went out byte for byte.
        notes: what the user should know.
        input_sha256, output_sha256: of the files.
    """

    pixels: int
    ran: bool
    changed_share: float
    copied: bool
    notes: list[str]
    input_sha256: str
    output_sha256: str


def goes_in_parts(restorer: Restorer | None, *, masked: bool) -> bool:
    """Whether a restorer can repair a picture of which it never sees the whole: in bands, or around its holes."""
    if restorer is None:
        return True
    needs = restorer.needs
    if needs.scale != 1:
        return False
    return needs.tileable or needs.needs_mask if masked else needs.tileable and not needs.needs_mask


def is_huge(source: Path) -> bool:
    """Whether a picture had better not be in memory as a whole."""
    try:
        return source.stat().st_size >= _HUGE_BYTES and pixels_in_header(source) >= HUGE_PIXELS
    except OSError:
        return False


def repair_in_parts(
    source: Path,
    target: Path,
    restorer: Restorer | None,
    mask: MaskOf | None,
    *,
    format: str | None,
    tile_px: int,
    quality: int | None,
    metadata: str,
    max_pixels: int,
    overwrite: bool,
    decoding: AbstractContextManager[None],
    say: Callable[[str], None],
    about_to_write: Callable[[], object] = lambda: None,
) -> Repaired | None:
    """Repair a picture from file to file; the result is that of the picture in memory.

    Takes the disk space of the raw picture twice, beside the target, while it runs.

    Args:
        source, target: files; the target is written atomically.
        restorer: one that `goes_in_parts`; None: there is nothing to repair.
        mask: where to repair; None everywhere.
        format: to write; None: the source's.
        tile_px: see `run_tiled`.
        quality, metadata: see `write_spooled`.
        max_pixels: see `read_picture`.
        overwrite: replace a target that is there.
        decoding: holds while files are decoded.
        say: told what goes another way than planned.
        about_to_write: called when the repair is complete.

    Returns:
        None where this picture has to be in memory: see `spool_picture`; and where one hole with its surroundings is
        too large by itself.

    Raises:
        RestoreError: exit code 1, with the reason.
        OSError: the source cannot be read any more.
    """
    spools = [temporary_beside(target) for _ in range(3)]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        stat = source.stat()
        with decoding:
            before = spool_picture(source, spools[0], max_pixels=max_pixels, times=2)
            kind = format or (before.header.format if before is not None else "")
            if before is None or not before.fits(kind):
                return None
            where = None if mask is None else open_mask(mask, before, spools[2], max_pixels=max_pixels)
        if mask is not None and where is None:
            return None
        after = SpooledPicture(before.header, replace(before.spool, path=spools[1]))
        if restorer is None:
            after, ran, changed = before, False, 0
        elif where is None:
            ran, changed = True, _in_bands(restorer, before, after, tile_px, say)
        else:
            found = _around_holes(restorer, before, after, where, tile_px, say)
            if found is None:
                return None
            ran, changed = found
        notes = [*before.header.notes]
        as_it_is = kind == before.header.format and metadata == "keep"
        if ran and (changed or not would_suffer(before.header) or quality is not None):
            as_it_is = False
        about_to_write()
        read = _sha256(source)
        check_unchanged(source, stat)  # before anything is written, and for what is copied once more
        with replacing(target, like=stat, overwrite=overwrite) as temporary:
            if as_it_is:
                shutil.copyfile(source, temporary)
            else:
                notes += write_spooled(after, temporary, kind, target, quality=quality, metadata=metadata)
            written = _sha256(temporary)
            check_unchanged(source, stat)
        pixels = before.size[0] * before.size[1]
        return Repaired(pixels, ran, changed / pixels, as_it_is, notes, read, written)
    except OSError as error:
        if error.filename in (source, os.fspath(source)):  # it cannot be read, or is gone
            raise
        raise RestoreError(why_not_written(error), where=target, exit_code=1) from error
    finally:
        for spool in spools:
            spool.unlink(missing_ok=True)


@torch.inference_mode()
def _in_bands(
    restorer: Restorer, before: SpooledPicture, after: SpooledPicture, tile_px: int, say: Callable[[str], None]
) -> int:
    """Repair the whole picture; returns how many pixels changed."""
    changed: dict[int, int] = {}
    across = slice(0, before.size[1])
    step = max(_STRIP_PIXELS // before.size[1], 1)

    def read(rows: slice, columns: slice) -> list[Tensor | None]:
        return [_as_tensor(before.part(rows, columns).shown())[None]]

    def write(top: int, band: Tensor) -> None:
        if top == 0:
            changed.clear()
        for start in range(0, band.shape[-2], step):
            strip = band[0, :, start : start + step]
            check_numbers(strip)
            rows = slice(top + start, top + start + strip.shape[-2])
            source = before.part(rows, across)
            repaired = source.with_repaired(np.ascontiguousarray(strip.numpy().transpose(1, 2, 0)))
            after.put(rows, across, repaired)
            changed[rows.start] = int((source.pixels != repaired.pixels).any(axis=2).sum())

    needs = restorer.needs
    run_banded(
        tile_by_tile(restorer, say), read, write,
        size=before.size, tile_px=tile_px, overlap_px=needs.overlap_px, multiple=needs.multiple,
        on_smaller=told_of_smaller_tiles(say),
    )  # fmt: skip
    return sum(changed.values())


@torch.inference_mode()
def _around_holes(
    restorer: Restorer,
    before: SpooledPicture,
    after: SpooledPicture,
    where: HugeMask,
    tile_px: int,
    say: Callable[[str], None],
) -> tuple[bool, int] | None:
    """Repair the holes, each on a crop; returns whether there were any, and how many pixels changed.

    None where a crop is huge itself; nothing has been done then.
    """
    crops = list(regions(where.blocks(), before.size, restorer.needs))
    if any(crop.size[0] * crop.size[1] > HUGE_PIXELS for crop in crops):
        return None
    shutil.copyfile(before.spool.path, after.spool.path)
    changed = 0
    for crop in crops:
        source, weight = before.part(crop.rows, crop.columns), where.weight(crop.rows, crop.columns)
        hole = weight > 0
        mask = torch.from_numpy(hole[None].astype(np.float32))
        out = run(restorer, _as_tensor(source.shown()), mask, tile_px, say)
        check_numbers(out)
        # Beside its own holes a crop may show parts of others'.
        mine = np.where(crop.own(hole), weight, np.float32(0))
        repaired = after.part(crop.rows, crop.columns).with_repaired(
            np.ascontiguousarray(out.numpy().transpose(1, 2, 0)), mine
        )
        if where.of_alpha:
            repaired = opaque_where_repaired(repaired, mine)
        after.put(crop.rows, crop.columns, repaired)
        changed += int(((source.pixels != repaired.pixels).any(axis=2) & (mine > 0)).sum())
    return bool(crops), changed


def _as_tensor(shown: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(shown.transpose(2, 0, 1)))


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
