"""The color profile of a BMP, which its fifth header holds (Microsoft, BITMAPV5HEADER)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

_HEADER_BYTES = 124
_EMBEDDED, _LINKED = b"DEBM", b"KNIL"
_PERCEPTUAL = 4  # the value that stands for images


@dataclass(frozen=True)
class BmpHeader:
    """What stands beside the pixels.

    Attributes:
        icc: the color profile, or None.
        missing: the color profile is in another file, or broken.
    """

    icc: bytes | None = None
    missing: bool = False


def read_header(data: bytes) -> BmpHeader:
    """Find the profile."""
    if len(data) < 14 + _HEADER_BYTES or struct.unpack_from("<I", data, 14)[0] < _HEADER_BYTES:
        return BmpHeader()
    space = data[14 + 56 : 14 + 60]
    if space == _LINKED:
        return BmpHeader(missing=True)
    if space != _EMBEDDED:
        return BmpHeader()
    at, length = struct.unpack_from("<II", data, 14 + 112)
    icc = data[14 + at : 14 + at + length]
    return BmpHeader(icc) if len(icc) == length >= 128 else BmpHeader(missing=True)


def with_profile(data: bytes, icc: bytes) -> bytes:
    """A BMP with a color profile.

    Args:
        data: a BMP with a header of 40 bytes, as Pillow writes it.
        icc: the profile.
    """
    (length,) = struct.unpack_from("<I", data, 14)
    (pixels_at,) = struct.unpack_from("<I", data, 10)
    grown = _HEADER_BYTES - length
    # Masks, color space, end points, gamma; then intent, position and length of the profile, and a reserved field.
    header = struct.pack("<I", _HEADER_BYTES) + data[18 : 14 + length] + bytes(56 - length) + _EMBEDDED + bytes(48)
    header += struct.pack("<4I", _PERCEPTUAL, len(data) - 14 + grown, len(icc), 0)
    body = header + data[14 + length :] + icc
    return b"BM" + struct.pack("<IHHI", 14 + len(body), 0, 0, pixels_at + grown) + body
