"""The boxes of HEIC, AVIF, JPEG 2000 and JPEG XL (ISO/IEC 14496-12, 4.2)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple


class Box(NamedTuple):
    """A box.

    Attributes:
        kind: its type, four bytes.
        at: where it begins.
        start, end: where its content begins and ends.
    """

    kind: bytes
    at: int
    start: int
    end: int


def boxes_in(data: Any, at: int, end: int, *, cut: bool = False) -> Iterator[Box]:
    """The boxes between two positions, up to the first one that is broken.

    Args:
        data: the file, as bytes or mapped into memory.
        at: the first position.
        end: the position after the last box.
        cut: a box that is longer than that ends there, as in a truncated file.
    """
    while at + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, at)
        start = at + 8
        if size == 1:
            if at + 16 > end:
                return
            (size,) = struct.unpack_from(">Q", data, at + 8)
            start += 8
        stop = at + size if size else end
        if stop > end and cut:
            stop = end
        if not start <= stop <= end:
            return
        yield Box(bytes(kind), at, start, stop)
        at = stop
