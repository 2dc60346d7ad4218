"""The resolution of an image: what JFIF, EXIF, PNG and TIFF say of it, and the one that counts.

A file may state it in several places. EXIF asks for 72 pixels per inch where the resolution is unknown (CIPA DC-008,
EXIF 2.32, 4.6.4), and other programs write that number too, so it gives way to every other.
"""

from __future__ import annotations

import re
import struct
from fractions import Fraction
from typing import NamedTuple

from restore.images.metadata.exif import entries

_X, _Y, _UNIT = 0x011A, 0x011B, 0x0128
_UNKNOWN = (72.0, 72.0)
_IN_XMP = re.compile(
    rb"(tiff:([XY]Resolution|ResolutionUnit)(?:\s*=\s*[\"']|\s*>)\s*)(\d{1,10}(?:/\d{1,10})?)(?=\s*[\"'<])"
)
_LOWEST, _HIGHEST = 0.3, 250_000
#: The units of EXIF and TIFF in inches; JFIF counts from 0 instead of 1.
UNITS = {1: 0.0, 2: 1.0, 3: 1 / 2.54}


class Resolution(NamedTuple):
    """Pixels per unit of length, across and down.

    Attributes:
        x: across.
        y: down.
        inches: the unit of length in inches; 0 = none: only the shape of a pixel is known.
    """

    x: float
    y: float
    inches: float = 1

    @property
    def dpi(self) -> tuple[float, float] | None:
        """Pixels per inch, if there is a unit of length and the values are plausible."""
        if not self.inches:
            return None
        dpi = round(self.x / self.inches, 4), round(self.y / self.inches, 4)
        return dpi if min(dpi) > _LOWEST and max(dpi) < _HIGHEST else None

    @property
    def shape(self) -> tuple[float, float] | None:
        """The two values, if there is no unit of length and pixels are not square."""
        plausible = min(self.x, self.y) > 0 and max(self.x, self.y) < _HIGHEST
        return (self.x, self.y) if not self.inches and plausible and self.x != self.y else None


def per_meter(x: float, y: float) -> Resolution:
    """What PNG and BMP state, which round to whole pixels per meter: whole pixels per inch where that is the reason."""
    inches = [value * 0.0254 for value in (x, y)]
    if all(round(round(dpi) / 0.0254) == round(value) for dpi, value in zip(inches, (x, y))):
        inches = [round(dpi) for dpi in inches]
    return Resolution(*inches)


def settle(
    own: Resolution | None, exif: Resolution | None, notes: list[str]
) -> tuple[tuple[float, float] | None, tuple[float, float] | None]:
    """The resolution that a file means.

    Args:
        own: what the format itself states: JFIF, pHYs, the tags of a TIFF, ...
        exif: what EXIF states.
        notes: gets a note if the two contradict each other.

    Returns:
        Pixels per inch across and down, or None; and the shape of a pixel as densities across and down if pixels are
        not square and there is no unit of length, or None.
    """
    dpi, other = own and own.dpi, exif and exif.dpi
    shape = own and own.shape
    if dpi is not None and other is not None:
        if same(dpi, other) or same(dpi, _UNKNOWN):
            return other, None  # JFIF and PNG round to whole numbers
        if not same(other, _UNKNOWN):
            notes.append(f"it states two resolutions, {_words(dpi)} and in EXIF {_words(other)}: the first is taken")
        return dpi, None
    if dpi is not None:
        return dpi, None
    if shape is not None:
        return None, shape
    return other, None if other else exif and exif.shape


def same(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Whether two resolutions differ by no more than rounding to whole pixels per inch or per centimeter."""
    return all(abs(a - b) <= max(1, 0.002 * a) for a, b in zip(one, other))


def _words(dpi: tuple[float, float]) -> str:
    return f"{dpi[0]:g} dpi" if dpi[0] == dpi[1] else f"{dpi[0]:g}×{dpi[1]:g} dpi"


def density(dpi: tuple[float, float] | None, shape: tuple[float, float] | None) -> tuple[int, int, int]:
    """Unit and densities of a JFIF segment (ITU-T T.871, 10.1), in the unit that gives whole numbers."""
    if dpi is not None:
        in_cm = tuple(value / 2.54 for value in dpi)
        unit, values = (2, in_cm) if _whole(in_cm) and not _whole(dpi) else (1, dpi)
        across, down = (round(value) for value in values)
        if min(across, down) >= 1 and max(across, down) <= 65535:
            return unit, across, down
    if shape is not None:
        ratio = Fraction(shape[0] / shape[1]).limit_denominator(1000)
        whole = tuple(round(value) for value in shape) if _whole(shape) else (ratio.numerator, ratio.denominator)
        if min(whole) >= 1 and max(whole) <= 65535:
            return 0, whole[0], whole[1]
    return 0, 1, 1


def _whole(values: tuple[float, ...]) -> bool:
    return all(abs(value - round(value)) < 0.005 for value in values)


# In an EXIF block, which is a TIFF structure


def in_exif(exif: bytes) -> Resolution | None:
    """What a block's first directory states; None if it states nothing."""
    values = _values(exif)
    if not values:
        return None
    order, at = values
    return Resolution(_rational(exif, order, at[_X]), _rational(exif, order, at[_Y]), _unit(exif, order, at))


def exif_with(exif: bytes, dpi: tuple[float, float]) -> bytes:
    """The block, with another resolution in the place of the one that it states; a block that states none is unchanged.

    Args:
        exif: an EXIF block.
        dpi: pixels per inch, across and down.
    """
    values = _values(exif)
    stated = in_exif(exif)
    if not values or stated is None or (stated.dpi is not None and same(stated.dpi, dpi)):
        return exif
    order, at = values
    out = bytearray(exif)
    for tag, value in ((_X, dpi[0]), (_Y, dpi[1])):
        struct.pack_into(order + "II", out, at[tag], *as_rational(value))
    if _UNIT in at:
        struct.pack_into(order + "H", out, at[_UNIT], 2)
    return bytes(out)


def xmp_with(xmp: bytes, dpi: tuple[float, float]) -> bytes:
    """The packet, with another resolution in the place of the one that it states; one that states none is unchanged.

    Args:
        xmp: an XMP packet, with the properties of a TIFF (ISO 16684-2, 8.5).
        dpi: pixels per inch, across and down.
    """
    numbers = {found[2]: _number(found[3]) for found in _IN_XMP.finditer(xmp)}
    unit = UNITS.get(int(numbers.get(b"ResolutionUnit", 2)), 0.0)
    stated = Resolution(numbers.get(b"XResolution", 0), numbers.get(b"YResolution", 0), unit)
    if min(stated.x, stated.y) <= 0 or (stated.dpi is not None and same(stated.dpi, dpi)):
        return xmp
    new = {b"XResolution": b"%d/%d" % as_rational(dpi[0]), b"YResolution": b"%d/%d" % as_rational(dpi[1])}
    new[b"ResolutionUnit"] = b"2"
    return _IN_XMP.sub(lambda found: found[1] + new[found[2]], xmp)


def _number(text: bytes) -> float:
    above, _, below = text.partition(b"/")
    return int(above) / (int(below or 1) or 1)


def new_exif(dpi: tuple[float, float]) -> bytes:
    """A block that states only a resolution, for formats that hold one nowhere else."""
    entries = struct.pack("<HHII", _X, 5, 1, 50) + struct.pack("<HHII", _Y, 5, 1, 58)
    entries += struct.pack("<HHIHH", _UNIT, 3, 1, 2, 0)
    rationals = b"".join(struct.pack("<II", *as_rational(value)) for value in dpi)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", 3) + entries + bytes(4) + rationals


def as_rational(value: float) -> tuple[int, int]:
    """Numerator and denominator in 32 bits."""
    fraction = Fraction(value).limit_denominator(10_000)
    return fraction.numerator, fraction.denominator


def _values(exif: bytes) -> tuple[str, dict[int, int]] | None:
    """The byte order, and tag -> position of the value; None unless both values are stated."""
    in_first = entries(exif, 0)
    found: dict[int, int] = {}
    for tag, kind, count, at, _ in in_first:
        if (tag, kind, count) in ((_X, 5, 1), (_Y, 5, 1), (_UNIT, 3, 1)):
            found.setdefault(tag, at)
    return (in_first[0][4], found) if _X in found and _Y in found else None


def _rational(exif: bytes, order: str, at: int) -> float:
    above, below = struct.unpack_from(order + "II", exif, at)
    return above / below if below else 0.0


def _unit(exif: bytes, order: str, at: dict[int, int]) -> float:
    stated = struct.unpack_from(order + "H", exif, at[_UNIT])[0] if _UNIT in at else 2
    return UNITS.get(stated, 0.0)
