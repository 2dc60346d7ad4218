"""Pictures too large for memory: decoded, repaired and encoded in bands, by way of the disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from restore.errors import RestoreError
from restore.files import replacing, temporary_beside
from restore.images.spool import Spool, SpooledPicture, pixels_in_header, spool_picture, write_spooled
from restore.restorers.base import Restorer
from restore.tiling import run_banded

#: From here on a picture goes through in bands; in memory a pixel takes some 30 bytes.
HUGE_PIXELS = 40_000_000
_HUGE_BYTES = 1_000_000  # a smaller file is not asked how large its picture is


@dataclass(frozen=True)
class Repaired:
    """What came out.

    Attributes:
        pixels: of the picture.
        changed_share: of them.
        notes: what the user should know.
        input_sha256, output_sha256: of the files.
    """

    pixels: int
    changed_share: float
    notes: list[str]
    input_sha256: str
    output_sha256: str


def goes_in_bands(restorer: Restorer) -> bool:
    """Whether a restorer can repair a picture band by band."""
    needs = restorer.needs
    return needs.tileable and not needs.needs_mask and needs.scale == 1


def is_huge(source: Path) -> bool:
    """Whether a picture had better not be in memory as a whole."""
    try:
        return source.stat().st_size >= _HUGE_BYTES and pixels_in_header(source) >= HUGE_PIXELS
    except OSError:
        return False


def repair_in_bands(
    source: Path,
    target: Path,
    restorer: Restorer,
    *,
    format: str | None,
    tile_px: int,
    quality: int | None,
    metadata: str,
    max_pixels: int,
    decoding: AbstractContextManager[None],
    say: Callable[[str], None],
) -> Repaired | None:
    """Repair a picture from file to file; the result is that of the picture in memory.

    Takes the disk space of the raw picture twice, beside the target, while it runs.

    Args:
        source, target: files; the target is written atomically.
        restorer: tileable, of scale 1, without a mask.
        format: to write; None: the source's.
        tile_px: see `run_tiled`.
        quality, metadata: see `write_spooled`.
        max_pixels: see `read_picture`.
        decoding: holds while the picture is decoded.
        say: told what goes another way than planned.

    Returns:
        None where this picture has to be in memory (see `spool_picture`).

    Raises:
        RestoreError: exit code 1, with the reason.
    """
    before_file, after_file = temporary_beside(target), temporary_beside(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with decoding:
            before = spool_picture(source, before_file, max_pixels=max_pixels)
        kind = format or (before.header.format if before is not None else "")
        if before is None or not before.fits(kind):
            return None
        rows = Spool(after_file, before.size, before.spool.bands, before.spool.dtype)
        after = SpooledPicture(before.header, rows)
        changed = _through(restorer, before, after, tile_px, say)
        with replacing(target, like=source.stat()) as temporary:
            notes = write_spooled(after, temporary, kind, target, quality=quality, metadata=metadata)
            digest = _sha256(temporary)
        pixels = before.size[0] * before.size[1]
        return Repaired(pixels, changed / pixels, [*before.header.notes, *notes], _sha256(source), digest)
    except OSError as error:
        raise RestoreError(
            f"cannot be repaired by way of the disk: {error.strerror}", where=target, exit_code=1
        ) from error
    finally:
        before_file.unlink(missing_ok=True)
        after_file.unlink(missing_ok=True)


def _through(
    restorer: Restorer, before: SpooledPicture, after: SpooledPicture, tile_px: int, say: Callable[[str], None]
) -> int:
    """Repair all bands; returns how many pixels changed."""
    changed: dict[int, int] = {}

    def read(start: int, stop: int) -> list[Tensor | None]:
        shown = before.band(start, stop).shown()
        return [torch.from_numpy(np.ascontiguousarray(shown.transpose(2, 0, 1)))[None]]

    def restored(tile: Tensor) -> Tensor:
        out = restorer(tile, None, prepared=True)
        if restorer.precision != "fp32" and not bool(torch.isfinite(out).all()):
            say(f"{restorer.precision} gave values that are no numbers; that part was repeated in fp32")
            out = restorer.in_precision("fp32")(tile, None, prepared=True)
        if not bool(torch.isfinite(out).all()):
            raise RestoreError("the model gave values that are no numbers", hint="try --precision fp32", exit_code=1)
        return out

    def write(top: int, band: Tensor) -> None:
        if top == 0:
            changed.clear()
        source = before.band(top, top + band.shape[-2])
        repaired = source.with_repaired(np.ascontiguousarray(band[0].numpy().transpose(1, 2, 0)))
        after.put(top, repaired)
        changed[top] = int((source.pixels != repaired.pixels).any(axis=2).sum())

    needs = restorer.needs
    run_banded(
        restored, read, write,
        size=before.size, tile_px=tile_px, overlap_px=needs.overlap_px, multiple=needs.multiple,
        on_smaller=lambda tile: say(f"memory did not suffice; went on with tiles of {tile} pixels"),
    )  # fmt: skip
    return sum(changed.values())


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
