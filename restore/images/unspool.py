"""Pictures too large for memory -> files, in bands."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyvips

from restore.errors import RestoreError
from restore.files import temporary_beside
from restore.images import jpeg, png, tiff
from restore.images.decode import reason_of
from restore.images.encode import DEFAULT_QUALITY, PNG_LEVEL, described, stripped
from restore.images.spool import NO_ROOM, SpooledPicture

_CLASSIC_TIFF_BYTES = 3_500_000_000
_HEAD_BYTES = 1 << 24  # in which everything of a PNG or JPEG that stands before its pixels has room


def write_spooled(
    picture: SpooledPicture, path: Path, kind: str, name: Path, *, quality: int | None, metadata: str
) -> list[str]:
    """Encode a picture from its spool into a file, in bands.

    Args:
        picture: for which `fits(kind)` holds.
        path: the file to write.
        kind: its format.
        name: for messages.
        quality: of a JPEG; None: the source's.
        metadata: `keep` or `strip`.

    Returns:
        Notes on what could not be kept.

    Raises:
        RestoreError: exit code 1: cannot be written, with the reason.
        OSError: the disk is full, or cannot be written to.
    """
    head = picture.header
    if metadata == "strip":
        head = stripped(head)
    if kind != head.format:
        head = replace(head, carried=b"")
    notes: list[str] = []
    image = described(picture.spool.image(), head, icc=head.icc, xmp=head.xmp if kind == "tiff" else None)
    try:
        if kind == "tiff":
            compression = head.compression if head.format == "tiff" and head.compression else "deflate"
            size = picture.spool.size[0] * picture.spool.size[1] * picture.spool.bands * picture.spool.dtype.itemsize
            big = size > _CLASSIC_TIFF_BYTES
            image.tiffsave(os.fsencode(path), compression=compression, predictor="horizontal", bigtiff=big)
            if big and (head.exif or head.carried):
                notes.append("a TIFF of this size is written without EXIF")
            with open(path, "r+b") as file:
                seen = head.alpha is None or head.transparent
                tiff.add_tags(
                    file, exif=head.exif, carried=head.carried, transparent=seen, has_dpi=head.dpi is not None
                )
        elif kind == "png":
            image.pngsave(os.fsencode(path), compression=PNG_LEVEL, filter="up", keep="icc")
            _rewrite_head(path, lambda data: png.with_chunks(
                data, exif=head.exif, xmp=head.xmp, carried=head.carried,
                has_icc=bool(head.icc), has_dpi=head.dpi is not None,
            ))  # fmt: skip
        else:
            source = head.jpeg
            level = quality or (source.quality if source is not None and source.quality else DEFAULT_QUALITY)
            sampled = source is None or source.subsampling == "4:2:0"
            image.jpegsave(
                os.fsencode(path), Q=level, keep="icc", subsample_mode="on" if sampled else "off",
                interlace=bool(source is not None and source.progressive),
            )  # fmt: skip
            if quality is None and source is not None:
                notes.append(f"a picture of this size is compressed at quality {level}, not by its own tables")
            segments = jpeg.metadata_segments(head.exif, head.xmp, notes) + head.carried
            _rewrite_head(path, lambda data: jpeg.with_segments(jpeg.with_density(data, head.dpi), segments))
    except (pyvips.Error, UnicodeDecodeError) as error:
        reason = reason_of(error)
        if NO_ROOM in reason:
            raise OSError(errno.ENOSPC, NO_ROOM, os.fspath(path)) from error
        raise RestoreError(f"cannot be written as {kind.upper()}: {reason}", where=name, exit_code=1) from error
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise RestoreError(f"cannot be written as {kind.upper()}: {reason}", where=name, exit_code=1) from error
    return notes


def _rewrite_head(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Change what stands at the beginning of a file; the rest is copied behind it."""
    with open(path, "rb") as source:
        head = source.read(_HEAD_BYTES)
        changed = change(head)
        if changed == head:
            return
        other = temporary_beside(path)
        try:
            with open(other, "wb") as target:
                target.write(changed)
                shutil.copyfileobj(source, target, 1 << 22)
            os.replace(other, path)
        finally:
            other.unlink(missing_ok=True)
