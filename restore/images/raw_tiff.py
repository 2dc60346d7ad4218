"""An uncompressed TIFF whose rows lie one after the other, so that they can be changed in place.

libvips reads it strip by strip; its own kind of raw file it would map as a whole, which then counts as resident memory.
"""

from __future__ import annotations

import struct
import sys
from functools import cache

import numpy as np

_STRIP_BYTES = 1 << 20
_SHORT, _LONG, _LONG8 = 3, 4, 16  # types of values in a TIFF


@cache
def header(size: tuple[int, int], bands: int, dtype: np.dtype) -> bytes:
    """A BigTIFF up to its first row; as long as so many rows.

    Args:
        size: (H, W).
        bands: 1 to 4.
        dtype: uint8 or uint16.
    """
    height, width = size
    row = width * bands * dtype.itemsize
    rows = min(max(_STRIP_BYTES // row, 1), height)
    count = -(-height // rows)
    bits = struct.pack("=4H", *[dtype.itemsize * 8] * bands, *[0] * (4 - bands))
    colours = 1 if bands < 3 else 3
    entries = [
        (256, _LONG, 1, width), (257, _LONG, 1, height), (258, _SHORT, bands, bits), (259, _SHORT, 1, 1),
        (262, _SHORT, 1, 1 if colours == 1 else 2), (273, _LONG8, count, None), (277, _SHORT, 1, bands),
        (278, _LONG, 1, rows), (279, _LONG8, count, None), (284, _SHORT, 1, 1),
    ]  # fmt: skip
    if bands > colours:
        entries.append((338, _SHORT, 1, 0))
    lists = 16 + 8 + 20 * len(entries) + 8
    first = -(-(lists + 16 * count) // row) * row
    starts = [first + number * rows * row for number in range(count)]
    lengths = [min(rows, height - number * rows) * row for number in range(count)]
    behind = {273: (lists, starts), 279: (lists + 8 * count, lengths)}
    out = (b"II" if sys.byteorder == "little" else b"MM") + struct.pack("=HHHQQ", 43, 8, 0, 16, len(entries))
    for tag, kind, number, value in entries:
        if tag in behind:
            place, values = behind[tag]
            value = values[0] if count == 1 else place
        if isinstance(value, bytes):
            field = value
        else:
            field = struct.pack({_SHORT: "=H6x", _LONG: "=L4x", _LONG8: "=Q"}[kind], value)
        out += struct.pack("=HHQ", tag, kind, number) + field
    return (out + bytes(8) + struct.pack(f"={2 * count}Q", *starts, *lengths)).ljust(first, b"\0")
