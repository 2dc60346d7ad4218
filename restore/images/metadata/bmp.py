"""The colors of a BMP: a profile, which its fifth header holds, or primaries and gamma (Microsoft, BITMAPV5HEADER)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

_HEADER_BYTES = 124
_EMBEDDED, _LINKED, _CALIBRATED = b"DEBM", b"KNIL", bytes(4)
_PERCEPTUAL = 4  # the value that stands for images


@dataclass(frozen=True)
class BmpHeader:
    """What stands beside the pixels.

    Attributes:
        icc: the color profile, or None.
        missing: the color profile is in another file, or broken.
        gamma: the exponent from light to values, 1/2.2 in most files; None: not stated.
        chromaticities: x and y of white (D65), red, green and blue; None: not stated.
    """

    icc: bytes | None = None
    missing: bool = False
    gamma: float | None = None
    chromaticities: tuple[float, ...] | None = None


def read_header(data: bytes) -> BmpHeader:
    """Find the profile, or what the fourth header states instead."""
    length = struct.unpack_from("<I", data, 14)[0] if len(data) >= 14 + 108 else 0
    space = data[14 + 56 : 14 + 60]
    if length >= 108 and space == _CALIBRATED:
        return _calibrated(data)
    if length < _HEADER_BYTES or len(data) < 14 + _HEADER_BYTES:
        return BmpHeader()
    if space == _LINKED:
        return BmpHeader(missing=True)
    if space != _EMBEDDED:
        return BmpHeader()
    at, length = struct.unpack_from("<II", data, 14 + 112)
    icc = data[14 + at : 14 + at + length]
    return BmpHeader(icc) if len(icc) == length >= 128 else BmpHeader(missing=True)


def _calibrated(data: bytes) -> BmpHeader:
    """Primaries, as XYZ with 30 bits after the point, and the gamma of each channel with 16 bits after it.

    Many programs leave them 0. White is not stated; browsers take D65.
    """
    numbers = struct.unpack_from("<12I", data, 14 + 60)
    gammas = [value / 65536 for value in numbers[9:]]
    sums = [sum(numbers[i : i + 3]) for i in (0, 3, 6)]
    if not all(gammas) or not all(sums) or max(gammas) > 1.01 * min(gammas):
        return BmpHeader()
    points = [number / total for i, total in zip((0, 3, 6), sums) for number in numbers[i : i + 2]]
    return BmpHeader(gamma=1 / gammas[0], chromaticities=(0.3127, 0.3290, *points))


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
