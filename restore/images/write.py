"""Pictures -> files, whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import numpy as np

from restore.files import write_atomically
from restore.images.encode import encode, stripped
from restore.images.picture import Picture
from restore.images.sniff import FORMAT_OF_SUFFIX

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
        picture = stripped(picture)
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
    """Write a file atomically into a folder that is there.

    Raises:
        RestoreError: exit code 1; nothing of the attempt is left.
    """
    write_atomically(path, data, parents=False)
