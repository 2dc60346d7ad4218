"""What decoders return, and how they fail: `DecoderOutput`, errors, and the limits on size."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np

from restore.errors import RestoreError
from restore.images.formats import UnsupportedFile
from restore.images.metadata import bmp, jpeg

#: The bytes of the largest ordinary pixel, RGB and alpha in float32: what `max_pixels` counts with.
_PIXEL_BYTES = 16
#: Allowance for the contents of a file besides pixels: profiles, previews and texts.
_OTHER_BYTES = 64 << 20

#: The end of the note on a float image whose values do not say what is white.
GUESSED_WHITE = "is taken as white"


class DamagedFile(RestoreError):
    """A decoder gave up because the file is damaged or truncated.

    Attributes:
        partly: `allow_truncated` may decode a part of it.
    """

    partly = True


class ImageTooLarge(RestoreError):
    """An image has more pixels than allowed.

    Attributes:
        pixels: the smallest limit that would allow it; 0 if unknown.
        size: the size of the image or file, in words.
    """

    pixels = 0
    size = ""


@dataclass
class DecoderOutput:
    """Channels as the file stores them, before the image is turned upright.

    Attributes:
        values: H×W×C, uint8, uint16 or float32; C counts alpha.
        channels: the number of color channels, 1 or 3; the next channel is alpha.
        bits: bits per channel in the file.
        white: the value of white.
        orientation: of a TIFF's own tag, or of a JPEG inside a JPEG XL; otherwise None.
        frames: the number of images in the file.
        fields: `icc-profile-data`, `exif-data` and `xmp-data`, if present.
        dpi: pixels per inch across and down, if stated.
        transparent: alpha is transparency, and not a channel of unspecified meaning.
        notes: for the user: what decoding changed or left out.
    """

    values: np.ndarray
    channels: int
    bits: int = 8
    white: float = 255.0
    orientation: int | None = None
    frames: int = 1
    fields: dict[str, bytes] = field(default_factory=dict)
    dpi: tuple[float, float] | None = None
    transparent: bool = True
    notes: list[str] = field(default_factory=list)


def add_own_fields(fields: dict[str, bytes], data: Any, kind: str) -> None:
    """Add what decoders do not find: the profile of a BMP, and in a JPEG a profile whose pieces are numbered
    wrongly, and an EXIF block of several pieces.

    Args:
        fields: `DecoderOutput.fields`; changed in place.
        data: the file, as bytes or mapped into memory.
        kind: its format.
    """
    found: dict[str, bytes | None] = {}
    if kind == "jpeg":
        header = jpeg.read_header(data)
        found = {"icc-profile-data": header.icc, "exif-data": header.exif}
    elif kind == "bmp":
        found = {"icc-profile-data": bmp.read_header(data).icc}
    fields |= {name: block for name, block in found.items() if block is not None}


def as_uint16(values: np.ndarray, notes: list[str]) -> np.ndarray:
    """Integers of any other type as uint16, with a note.

    Raises:
        ValueError: a value is negative or too large.
    """
    low, high = int(values.min(initial=0)), int(values.max(initial=0))
    if low >= 0 and high <= 65535:
        signed = "signed " if values.dtype.kind == "i" else ""
        notes.append(f"{values.dtype.itemsize * 8}-bit {signed}integers read as 16 bits")
        return values.astype(np.uint16)
    if low >= 0 and values.dtype.itemsize == 4:
        notes.append("32-bit integers rounded to 16 bits")
        return (values.astype(np.uint32) >> 16).astype(np.uint16)
    raise ValueError(f"integers from {low} to {high} are not supported")


def fill_low_bits(values: np.ndarray, bits: int) -> np.ndarray:
    """Values of 9 to 15 bits in the upper bits of uint16, repeated in the lower ones: white becomes 65535."""
    return values | (values >> bits) if 8 < bits < 16 else values


# Errors

#: What decoders say of a file that is whole, but of a kind that they do not know.
_UNSUPPORTED = re.compile(
    r"unsupported|omitted at compile time"
    r"|not (?:yet )?supported|not (?:yet )?implemented|unimplemented|not (?:configured|enabled|available)"
    r"|(?:no|cannot handle|unknown|unrecognized|unhandled) (?:\S+ ){0,3}(?:codec|decoder|decoding plugin|compression|"
    r"photometric|colou?r ?space|pixel mode|raw mode|encoding|data organization)|unknown pixel mode",
    re.IGNORECASE,
)


def undecodable(
    kind: str, complaint: str, name: str | os.PathLike[str], *, allow_truncated: bool = False
) -> RestoreError:
    """The error for a file that no decoder can read: `UnsupportedFile`, or `DamagedFile` if the reason is damage."""
    what = f"the {kind.upper()} cannot be decoded: {complaint}"
    if _UNSUPPORTED.search(complaint):  # decoding what is there would not help
        return UnsupportedFile(what, where=name, hint="convert it to TIFF or PNG first", exit_code=1)
    hint = None if allow_truncated else "the file is damaged or truncated"
    return DamagedFile(what, where=name, hint=hint, exit_code=1)


#: How notes begin that also hold for a copy of the file: on damage, and on what was not looked at.
_HOLD_FOR_COPIES = ("the file is damaged", "parts of the file may be damaged", "only the first ")


def notes_of_copy(notes: Iterable[str]) -> list[str]:
    """Notes on decoding a file that hold if the file is copied, and keeps what decoding changes or leaves out."""
    return [note for note in notes if note.startswith(_HOLD_FOR_COPIES)]


def damage_note(complaint: str) -> str:
    """The note on an image of which only a part could be decoded."""
    return f"the file is damaged; decoded as far as possible ({complaint})"


# Limits


def check_size(
    width: int, height: int, max_pixels: int, name: str | os.PathLike[str], *, pixel_bytes: int = _PIXEL_BYTES
) -> None:
    """Refuse an image by the size in its header.

    Args:
        width, height: of the image.
        max_pixels: the limit.
        name: for messages.
        pixel_bytes: the size of a pixel. One of more than 16 bytes (many channels) counts as several pixels.

    Raises:
        DamagedFile: exit code 1; no pixels, which some decoders let pass.
        ImageTooLarge: exit code 1.
    """
    if min(width, height) < 1:
        what = f"the header states a size of {width}×{height} pixels"
        raise DamagedFile(what, where=name, hint="the file is damaged or truncated", exit_code=1)
    counted = -(-width * height * max(pixel_bytes, _PIXEL_BYTES) // _PIXEL_BYTES)
    if counted > max_pixels:
        large = f" with {pixel_bytes} bytes per pixel" if pixel_bytes > _PIXEL_BYTES else ""
        _refuse(f"{width}×{height}{large}", counted, max_pixels, name)


def check_bytes(size: int, max_pixels: int, name: str | os.PathLike[str]) -> None:
    """Refuse a file that is larger than the largest allowed image without compression.

    Raises:
        ImageTooLarge: exit code 1.
    """
    counted = -(-(size - _OTHER_BYTES) // _PIXEL_BYTES)
    if counted > max_pixels:
        _refuse(f"a file of {size / 1e9:.1f} GB", counted, max_pixels, name)


def _refuse(size: str, counted: int, max_pixels: int, name: str | os.PathLike[str]) -> NoReturn:
    error = ImageTooLarge(
        f"{size} is over the limit of {max_pixels / 1e6:g} megapixels",
        where=name,
        hint="raise the limit if you trust the file",
        exit_code=1,
    )
    error.pixels, error.size = counted, size
    raise error
