"""What decoders give, and the checks that all of them share."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np

from restore.errors import RestoreError


@dataclass
class Decoded:
    """Channels as the file stores them.

    Attributes:
        values: H×W×C, uint8, uint16 or float32; C counts alpha.
        channels: 1 or 3: how many of them are colour; one more is alpha.
        bits: bits per channel in the file.
        white: the value of white.
        orientation: as pyvips found it (TIFF's own tag), or None.
        frames: pictures in the file.
        fields: `icc-profile-data`, `exif-data`, `xmp-data` as far as present.
        dpi: resolution, where stated.
        notes: what was changed on the way.
    """

    values: np.ndarray
    channels: int
    bits: int = 8
    white: float = 255.0
    orientation: int | None = None
    frames: int = 1
    fields: dict[str, bytes] = field(default_factory=dict)
    dpi: tuple[float, float] | None = None
    notes: list[str] = field(default_factory=list)


#: What a pixel takes at most in pictures that are repaired: RGB and alpha in float32.
_PIXEL_BYTES = 16
#: Profiles, previews and texts beside the pixels.
_OTHER_BYTES = 64 << 20


class Damaged(RestoreError):
    """A decoder gave up on it."""


class TooLarge(RestoreError):
    """More pixels than allowed.

    Attributes:
        pixels: the limit that would let it in; 0 where that is not known.
        size: of the picture or file, in words.
    """

    pixels = 0
    size = ""


def check_size(
    width: int, height: int, max_pixels: int, name: str | os.PathLike[str], *, pixel_bytes: int = _PIXEL_BYTES
) -> None:
    """Refuse a picture by what its header says.

    Args:
        width, height: of the picture.
        max_pixels: the limit.
        name: for the message.
        pixel_bytes: what a pixel takes. Where that is more than 16 (many channels), fewer of them are allowed.

    Raises:
        TooLarge: exit code 1.
    """
    counted = -(-width * height * max(pixel_bytes, _PIXEL_BYTES) // _PIXEL_BYTES)
    if counted > max_pixels:
        many = f" of {pixel_bytes} bytes a pixel" if pixel_bytes > _PIXEL_BYTES else ""
        _refuse(f"{width}×{height}{many}", counted, max_pixels, name)


def check_bytes(size: int, max_pixels: int, name: str | os.PathLike[str]) -> None:
    """Refuse a file that is larger than the largest allowed picture would be without any compression.

    Raises:
        TooLarge: exit code 1.
    """
    counted = -(-(size - _OTHER_BYTES) // _PIXEL_BYTES)
    if counted > max_pixels:
        _refuse(f"a file of {size / 1e9:.1f} GB", counted, max_pixels, name)


def _refuse(what: str, counted: int, max_pixels: int, name: str | os.PathLike[str]) -> NoReturn:
    error = TooLarge(
        f"{what} is over the limit of {max_pixels / 1e6:g} megapixels",
        where=name,
        hint="raise the limit if the file can be trusted",
        exit_code=1,
    )
    error.pixels, error.size = counted, what
    raise error


def as_uint16(values: np.ndarray, notes: list[str]) -> np.ndarray:
    """Integers of any other type as uint16, with a note.

    Raises:
        ValueError: negative ones, or too large ones.
    """
    low, high = int(values.min(initial=0)), int(values.max(initial=0))
    if low >= 0 and high <= 65535:
        notes.append(f"{values.dtype.itemsize * 8}-bit integers read as 16 bits")
        return values.astype(np.uint16)
    if low >= 0 and values.dtype.itemsize == 4:
        notes.append("32-bit integers rounded to 16 bits")
        return (values.astype(np.uint32) >> 16).astype(np.uint16)
    raise ValueError(f"values from {low} to {high} are no picture")
