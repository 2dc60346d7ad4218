"""What an output's file holds, as bytes; `restore.files` puts them in place."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from restore.images import Picture
from restore.images.encode import encode, stripped

Metadata = Literal["keep", "strip"]


def encoded(
    picture: Picture, target: Path, *, format: str, quality: int | None, metadata: Metadata
) -> tuple[bytes, list[str]]:
    """A picture as the bytes of its output, and what its format could not hold.

    Args:
        picture: what to write.
        target: its name, for messages.
        format: as in `Picture.format`.
        quality: of JPEG, WebP and AVIF; None as the source.
        metadata: `strip` leaves out EXIF, XMP and the like; the profile stays.

    Raises:
        RestoreError: exit code 1: the format cannot hold this picture.
    """
    if metadata == "strip":
        picture = stripped(picture)
    return encode(picture, format, target, quality=quality)
