"""Pictures -> files, whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from restore.errors import RestoreError
from restore.images.encode import encode
from restore.images.picture import Picture
from restore.images.sniff import FORMAT_OF_SUFFIX

#: Names of files that are being written begin and end like this; what is left of a killed run can be swept.
TEMPORARY_PREFIX, TEMPORARY_SUFFIX = ".restore-", ".tmp"

Metadata = Literal["keep", "strip"]


def write_picture(
    picture: Picture,
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    quality: int | None = None,
    metadata: Metadata = "keep",
) -> list[str]:
    """Write a picture, atomically: the file is there complete, or as it was before.

    Args:
        picture: what to write.
        path: where to; its folder must exist. Something there already is replaced.
        format: `jpeg png tiff webp ...`; None goes by the suffix, without a known one by the source's format.
        quality: 1 to 100 for JPEG, WebP and AVIF; None means as the source (JPEG), or 90.
        metadata: `strip` leaves out EXIF, XMP and the like; the colour profile stays, since without it the
            colours would be wrong.

    Returns:
        What the format could not hold, in words for the user; mostly nothing.

    Raises:
        RestoreError: exit code 1: no room, no permission, or a picture that the format cannot hold.
    """
    if metadata == "strip":
        picture = replace(picture, exif=None, xmp=None, carried=b"")
    kind = format or FORMAT_OF_SUFFIX.get(Path(path).suffix.lower(), picture.format)
    data, notes = encode(picture, kind, path, quality=quality)
    write_bytes(path, data)
    return notes


def save_png(path: str | os.PathLike[str], array: np.ndarray) -> None:
    """Write an array as PNG, atomically; the same array gives the same bytes.

    Args:
        path: where to.
        array: uint8 or uint16, H×W or H×W×C with C = 1 to 4 (gray, gray and alpha, RGB, RGBA).

    Raises:
        RestoreError: it cannot be written.
    """
    values = array if array.ndim == 3 else array[:, :, None]
    colours = values.shape[2] - (values.shape[2] in (2, 4))
    alpha = values[:, :, colours] if values.shape[2] > colours else None
    white = 255.0 if values.dtype == np.uint8 else 65535.0
    picture = Picture(
        np.ascontiguousarray(values[:, :, :colours]),
        alpha,
        white,
        bits=values.dtype.itemsize * 8,
        format="png",
    )
    data, _ = encode(picture, "png", path)
    write_bytes(path, data)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file atomically: a temporary name in the same folder, synced, then renamed.

    Raises:
        RestoreError: exit code 1; nothing of the attempt is left.
    """
    target = Path(path)
    temporary = target.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}{TEMPORARY_SUFFIX}"
    try:
        # 0o666 is narrowed by the user's umask, as for any new file.
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except (OSError, ValueError) as error:
        raise _cannot_write(error, target) from error


def _cannot_write(error: OSError | ValueError, path: Path) -> RestoreError:
    code = getattr(error, "errno", None)
    what = {
        errno.ENOSPC: "the disk is full",
        errno.EDQUOT: "the disk quota is used up",
        errno.EACCES: "no permission to write here",
        errno.EPERM: "no permission to write here",
        errno.EROFS: "this disk is read-only",
        errno.ENOENT: "there is no such folder",
        errno.ENOTDIR: "there is no such folder",
        errno.EISDIR: "a folder of this name is in the way",
        errno.ENAMETOOLONG: "the name is too long",
    }.get(code or 0, f"cannot be written: {getattr(error, 'strerror', None) or error}")
    return RestoreError(what, where=path, exit_code=1)
