"""What decoders give, and the checks that all of them share."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

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


class TooLarge(RestoreError):
    """More pixels than allowed."""


def check_size(width: int, height: int, max_pixels: int, name: str | os.PathLike[str]) -> None:
    """Refuse a picture by what its header says.

    Raises:
        TooLarge: exit code 1.
    """
    if width * height > max_pixels:
        raise TooLarge(
            f"{width}×{height} is over the limit of {max_pixels / 1e6:.0f} megapixels",
            where=name,
            hint="raise the limit if the file is to be trusted",
            exit_code=1,
        )


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
