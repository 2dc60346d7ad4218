"""Pictures too large for memory: decoded, repaired and encoded in parts, by way of the disk."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from restore.errors import RestoreError
from restore.files import replace_atomically, temporary_path, write_error_message
from restore.fix.fade_correction import Curves, estimated, thumbnail
from restore.fix.grain import pixels_key, with_grain
from restore.fix.io import check_unchanged
from restore.fix.masks import FloatArray, reach_px, shaped, transparency
from restore.fix.stages import is_lossy_reencode, opaque_where_repaired
from restore.fix.steps import Models, Steps, mixed
from restore.images import DecodedImage
from restore.images.out_of_core import SpooledImage, pixels_in_header, spool_image, write_spooled
from restore.images.read import check_mask_size, mask_from_image
from restore.restorers.base import Restorer, check_numbers, run, tile_by_tile, told_of_smaller_tiles
from restore.restorers.hole_crops import BLOCK_PX, hole_blocks, regions
from restore.tiling import run_banded

# Masks of pictures too large for memory: on the disk as well, and shaped part by part.


_BAND_PIXELS = 8_000_000


@dataclass(frozen=True)
class MaskSpec:
    """Where to repair a picture; see `restore.fix.masks.effective_mask`.

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

    def __init__(self, how: MaskSpec, spooled: SpooledImage) -> None:
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
            given = mask_from_image(part, invert=how.invert)
        weight = shaped(given, dilate_px=how.dilate_px, feather_px=how.feather_px)
        return weight[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]

    def blocks(self) -> npt.NDArray[np.bool_]:
        """Where its holes are; see `hole_blocks`."""
        height, width = self._spooled.size
        step = max(_BAND_PIXELS // (width * BLOCK_PX), 1) * BLOCK_PX
        bands = [slice(top, min(top + step, height)) for top in range(0, height, step)]
        return np.concatenate([hole_blocks(self.weight(rows, slice(0, width)) > 0) for rows in bands])


def open_mask(how: MaskSpec, picture: SpooledImage, spool: Path, *, max_pixels: int) -> HugeMask | None:
    """A picture's mask.

    Args:
        how: it is taken.
        picture: upright.
        spool: where the mask's rows go.
        max_pixels: as for `read_image`, of the mask.

    Returns:
        None where it has to be in memory: it is no file that can be spooled, or there is no alpha to take.

    Raises:
        RestoreError: exit code 1; it cannot be read, or is of another size.
    """
    if how.file is None:
        return None if picture.header.alpha is None else HugeMask(how, picture)
    given = spool_image(how.file, spool, max_pixels=max_pixels)
    if given is None:
        return None
    check_mask_size(given.size, picture.size, how.file)
    return HugeMask(how, given)


# A picture too large for memory on its way from spool to spool: what models see of its parts, and its fading.


_STRIP_PIXELS = 2_000_000  # that are put back into their own colours at once


@dataclass(frozen=True)
class OutOfCoreItem:
    """A picture on its way from spool to spool.

    Attributes:
        before, after: as it was, and as it becomes.
        curves: undo its fading; None where that is not asked for.
        strength: how much of the repair is taken.
        tile_px, say: see `run_tiled`.
    """

    before: SpooledImage
    after: SpooledImage
    curves: Curves | None
    strength: float
    tile_px: int
    on_event: Callable[[str], None]

    @property
    def strip_rows(self) -> int:
        """How many rows are put back into their own colours at once."""
        return max(_STRIP_PIXELS // self.before.size[1], 1)

    def to_srgb(self, source: DecodedImage) -> np.ndarray:
        """What a model sees of a part."""
        shown = source.to_srgb()
        return shown if self.curves is None else self.curves(shown)

    def unfade(self) -> int:
        """Undo the fading of the whole picture; returns how many pixels changed."""
        changed, across = 0, slice(0, self.before.size[1])
        for rows, source in self._strips():
            unfaded = source.blend(self.to_srgb(source), strength=self.strength)
            self.after.put(rows, across, unfaded)
            changed += int((source.pixels != unfaded.pixels).any(axis=2).sum())
        return changed

    def strips(self) -> Iterator[np.ndarray]:
        """The picture's own pixels from the top down, some rows at once."""
        return (source.pixels for _, source in self._strips())

    def _strips(self) -> Iterator[tuple[slice, DecodedImage]]:
        height, width = self.before.size
        for top in range(0, height, self.strip_rows):
            rows = slice(top, min(top + self.strip_rows, height))
            yield rows, self.before.part(rows, slice(0, width))


def curves_of(picture: SpooledImage) -> Curves:
    """What undoes a picture's fading, estimated from a thumbnail of all of it."""
    across = slice(0, picture.size[1])
    return estimated(thumbnail(lambda rows: picture.part(rows, across).to_srgb(), picture.size))


#: From here on a picture goes through in parts; in memory a pixel takes some 40 bytes.
HUGE_PIXELS = 40_000_000
_HUGE_BYTES = 500  # a smaller file holds no huge picture: a blank page of 40 megapixels takes 800 bytes at least


@dataclass(frozen=True)
class Repaired:
    """What came out.

    Attributes:
        pixels: of the picture.
        ran: something was done; else there was nothing to repair.
        model_ran: the model did.
        marked_share: of the pixels, those that a mask marks; None without one.
        changed_share: of the pixels.
        copied: the file went out byte for byte.
        notes: what the user should know.
        input_sha256, output_sha256: of the files.
    """

    pixels: int
    ran: bool
    model_ran: bool
    marked_share: float | None
    changed_share: float
    copied: bool
    notes: list[str]
    input_sha256: str
    output_sha256: str


def goes_in_parts(models: Models, steps: Steps) -> bool:
    """Whether a picture can go through that is never seen as a whole: in bands, around its holes, or as it is."""
    if not steps:
        return True
    restorer = steps.only_model(models)
    if restorer is None:
        return False
    needs = restorer.needs
    if needs.scale != 1:
        return False
    in_holes = steps.repair and steps.masked
    return needs.tileable or needs.needs_mask if in_holes else needs.tileable and not needs.needs_mask


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
    mask: MaskSpec | None,
    *,
    fade: bool,
    strength: float,
    match_grain: bool = False,
    format: str | None,
    tile_px: int,
    quality: int | None,
    metadata: str,
    max_pixels: int,
    overwrite: bool,
    decoding: AbstractContextManager[None],
    noted: Callable[[DecodedImage, str, bool], DecodedImage],
    on_event: Callable[[str], None],
    about_to_write: Callable[[], object] = lambda: None,
) -> Repaired | None:
    """Repair a picture from file to file; the result is that of the picture in memory.

    Takes the disk space of the raw picture twice, beside the target, while it runs.

    Args:
        source, target: files; the target is written atomically.
        restorer: one that `goes_in_parts`; None: there is nothing to repair.
        mask: where to repair; None everywhere.
        fade: undo fading first.
        strength: how much of the repair is taken, in [0, 1].
        match_grain: give what is filled the grain of its surroundings.
        format: to write; None: the source's.
        tile_px: see `run_tiled`.
        quality, metadata: see `write_spooled`.
        max_pixels: see `read_image`.
        overwrite: replace a target that is there.
        decoding: holds while files are decoded.
        noted: (header, format, whether the model ran) -> the header with a note of the repair, of what was changed.
        say: told what goes another way than planned.
        about_to_write: called when the repair is complete.

    Returns:
        None where this picture has to be in memory: see `spool_image`; and where one hole with its surroundings is
        too large by itself.

    Raises:
        RestoreError: exit code 1, with the reason.
        OSError: the source cannot be read any more.
    """
    spools = [temporary_path(target) for _ in range(3)]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        stat = source.stat()
        with decoding:
            before = spool_image(source, spools[0], max_pixels=max_pixels, times=2)
            kind = format or (before.header.format if before is not None else "")
            if before is None or not before.fits(kind):
                return None
            where = None if mask is None else open_mask(mask, before, spools[2], max_pixels=max_pixels)
        if mask is not None and where is None:
            return None
        after = SpooledImage(before.header, replace(before.spool, path=spools[1]))
        task = OutOfCoreItem(before, after, curves_of(before) if fade else None, strength, tile_px, on_event)
        marked: int | None = None
        if restorer is None:
            after, model_ran, changed = before, False, 0
        elif where is None:
            model_ran, changed = True, _in_bands(restorer, task)
        else:
            found = _around_holes(restorer, task, where, pixels_key(task.strips()) if match_grain else None)
            if found is None:
                return None
            model_ran, marked, changed = found
        ran = model_ran or fade
        notes = [*before.header.notes]
        as_it_is = kind == before.header.format and metadata == "keep"
        if ran and (changed or not is_lossy_reencode(before.header) or quality is not None):
            as_it_is = False
        about_to_write()
        read = _sha256(source)
        check_unchanged(source, stat)  # before anything is written, and for what is copied once more
        with replace_atomically(target, like=stat, overwrite=overwrite) as temporary:
            if as_it_is:
                shutil.copyfile(source, temporary)
            else:
                if changed:
                    after = replace(after, header=noted(after.header, kind, model_ran))
                notes += write_spooled(after, temporary, kind, target, quality=quality, metadata=metadata)
            written = _sha256(temporary)
            check_unchanged(source, stat)
        pixels = before.size[0] * before.size[1]
        marked_share = None if marked is None else marked / pixels
        return Repaired(pixels, ran, model_ran, marked_share, changed / pixels, as_it_is, notes, read, written)
    except OSError as error:
        if error.filename in (source, os.fspath(source)):  # it cannot be read, or is gone
            raise
        raise RestoreError(write_error_message(error), where=target, exit_code=1) from error
    finally:
        for spool in spools:
            spool.unlink(missing_ok=True)


@torch.inference_mode()
def _in_bands(restorer: Restorer, task: OutOfCoreItem) -> int:
    """Repair the whole picture; returns how many pixels changed."""
    changed: dict[int, int] = {}
    before, after = task.before, task.after
    across = slice(0, before.size[1])
    step = task.strip_rows

    def read(rows: slice, columns: slice) -> list[Tensor | None]:
        return [_as_tensor(task.to_srgb(before.part(rows, columns)))[None]]

    def write(top: int, band: Tensor) -> None:
        if top == 0:
            changed.clear()
        for start in range(0, band.shape[-2], step):
            strip = band[0, :, start : start + step]
            check_numbers(strip)
            rows = slice(top + start, top + start + strip.shape[-2])
            source = before.part(rows, across)
            repaired = source.blend(_as_array(strip), strength=task.strength)
            after.put(rows, across, repaired)
            changed[rows.start] = int((source.pixels != repaired.pixels).any(axis=2).sum())

    needs = restorer.needs
    run_banded(
        tile_by_tile(restorer, task.on_event), read, write,
        size=before.size, tile_px=task.tile_px, overlap_px=needs.overlap_px, multiple=needs.multiple,
        on_smaller=told_of_smaller_tiles(task.on_event),
    )  # fmt: skip
    return sum(changed.values())


@torch.inference_mode()
def _around_holes(
    restorer: Restorer, task: OutOfCoreItem, where: HugeMask, grain_key: int | None
) -> tuple[bool, int, int] | None:
    """Repair the holes, each on a crop; returns whether there were any, how many pixels they have, how many changed.

    None where a crop is huge itself; nothing has been done then.
    """
    before, after = task.before, task.after
    crops = list(regions(where.blocks(), before.size, restorer.needs))
    if any(crop.size[0] * crop.size[1] > HUGE_PIXELS for crop in crops):
        return None
    marked, changed = 0, 0
    if task.curves is None:
        shutil.copyfile(before.spool.path, after.spool.path)
    else:
        changed = task.unfade()
    for crop in crops:
        source, weight = before.part(crop.rows, crop.columns), where.weight(crop.rows, crop.columns)
        hole = weight > 0
        mask = torch.from_numpy(hole[None].astype(np.float32))
        shown = task.to_srgb(source)
        out = run(restorer, _as_tensor(shown), mask, task.tile_px, task.on_event)
        check_numbers(out)
        # Beside its own holes a crop may show parts of others'.
        own = crop.own(hole)
        if grain_key is not None:
            out = with_grain(out, _as_tensor(shown), own, hole, crop.origin, grain_key)
        mine = np.where(own, weight, np.float32(0))
        marked += int(np.count_nonzero(mine))
        repaired = after.part(crop.rows, crop.columns)
        changed -= _differing(source, repaired, mine)
        filled, share = _as_array(out), mine
        if task.curves is not None:  # the mask blends with what is unfaded, and the strength with the source
            filled, share = mixed(shown, filled, mine), (mine > 0).astype(np.float32)
        put_in = source.blend(filled, share, strength=task.strength)
        repaired = replace(repaired, pixels=np.where(mine[:, :, None] > 0, put_in.pixels, repaired.pixels))
        if where.of_alpha:
            repaired = opaque_where_repaired(repaired, mine)
        after.put(crop.rows, crop.columns, repaired)
        changed += _differing(source, repaired, mine)
    return bool(crops), marked, changed


def _differing(one: DecodedImage, other: DecodedImage, where: np.ndarray) -> int:
    """How many pixels differ there."""
    return int(((one.pixels != other.pixels).any(axis=2) & (where > 0)).sum())


def _as_array(repaired: Tensor) -> np.ndarray:
    return np.ascontiguousarray(repaired.numpy().transpose(1, 2, 0))


def _as_tensor(shown: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(shown.transpose(2, 0, 1)))


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
