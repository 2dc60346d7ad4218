"""Directories of tags as TIFF and EXIF hold them, read and written without interpreting the values.

A text keeps its bytes in any encoding, and a number its type. The structure is that of TIFF 6.0, section 2; BigTIFF has
wider numbers in the same places.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

#: What `struct` raises for a position beyond the end of the file, or of any memory.
BEYOND = (struct.error, OverflowError, IndexError)
#: Type -> bytes of a value. 13 and 18 are positions of directories.
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
POSITIONS = (13, 18)
#: Type -> bytes of a number, where values consist of numbers.
_WORDS = {3: 2, 4: 4, 5: 4, 8: 2, 9: 4, 10: 4, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_FORMATS = {
    1: "B",
    3: "H",
    4: "I",
    6: "b",
    7: "B",
    8: "h",
    9: "i",
    11: "f",
    12: "d",
    13: "I",
    16: "Q",
    17: "q",
    18: "Q",
}
EXIF_IFD, GPS_IFD, INTEROP_IFD = 34665, 34853, 40965
_INNER = (EXIF_IFD, GPS_IFD, INTEROP_IFD)
_USER_COMMENT = 37510
#: EXIF lies in the first directory, and its interoperability directory in EXIF.
_MOST_LEVELS = 2
_MOST_ENTRIES = 65535


@dataclass(frozen=True)
class Entry:
    """The value of a tag.

    Attributes:
        kind: its type, 1 to 18.
        count: the number of values.
        value: the bytes of all values, in the byte order of the file.
        inner: the directory that the tag points to, if it is one of EXIF's.
    """

    kind: int
    count: int
    value: bytes
    inner: dict[int, Entry] | None = None


Directory = dict[int, Entry]


def layout_of(data: Any) -> tuple[str, bool]:
    """The byte order of a TIFF (`<` or `>`), and whether it is a BigTIFF."""
    return "<" if data[:2] == b"II" else ">", 43 in data[2:4]


def read_directory(
    data: Any, at: int, order: str, *, big: bool = False, start: int = 0, without: tuple[int, ...] = ()
) -> Directory:
    """Read a directory, with EXIF's directories inside it. Broken entries are left out.

    Args:
        data: the file, as bytes or mapped into memory.
        at: the position of the directory, relative to `start`.
        order: `<` or `>`.
        big: the file is a BigTIFF.
        start: where the TIFF structure begins in `data`.
        without: tags to leave unread: their value stays empty.

    Raises:
        struct.error, OverflowError: there is no directory at that position.
    """
    return _Reader(data, order, big, start, without).read(at)


class _Reader:
    def __init__(self, data: Any, order: str, big: bool, start: int, without: tuple[int, ...]) -> None:
        self.data, self.order, self.big, self.start, self.without = data, order, big, start, without
        # Values do not overlap, except in hostile files, which could fill the memory with copies.
        self.bytes_left = len(data)

    def read(self, at: int, depth: int = 0) -> Directory:
        data, order = self.data, self.order
        entry_bytes, count_code, word = (20, "Q", "Q") if self.big else (12, "H", "I")
        inline = struct.calcsize(word)
        at += self.start
        count = min(struct.unpack_from(order + count_code, data, at)[0], _MOST_ENTRIES)
        first = at + struct.calcsize(count_code)
        directory: Directory = {}
        for here in range(first, min(first + entry_bytes * count, len(data) - entry_bytes + 1), entry_bytes):
            tag, kind, length = struct.unpack_from(order + "HH" + word, data, here)
            size, values_at = SIZES.get(kind, 0) * length, here + 4 + inline
            if size > inline:
                values_at = self.start + struct.unpack_from(order + word, data, values_at)[0]
            if not size or values_at + size > len(data) or size > self.bytes_left or tag in directory:
                continue
            value = b"" if tag in self.without else bytes(data[values_at : values_at + size])
            self.bytes_left -= len(value)
            inner = None
            if tag in _INNER and kind in (4, 13, 16, 18) and length == 1:
                inner = self._inner(struct.unpack(order + _FORMATS[kind], value)[0], depth + 1)
                if inner is None:
                    continue
            directory[tag] = Entry(kind, length, value, inner)
        return directory

    def _inner(self, at: int, depth: int) -> Directory | None:
        """A directory that a tag points to; None: there is none."""
        if not at or depth > _MOST_LEVELS:
            return None
        try:
            return self.read(at, depth)
        except BEYOND:  # the position is beyond the end of the file
            return None


def numbers(entry: Entry | None, order: str) -> tuple[float, ...]:
    """The values of an entry, fractions as floats; none for texts, infinite numbers and no entry."""
    if entry is None:
        return ()
    if entry.kind in (5, 10):
        parts = struct.unpack(order + ("I" if entry.kind == 5 else "i") * (2 * entry.count), entry.value)
        if not all(parts[1::2]):
            return ()
        return tuple(above / below for above, below in zip(parts[::2], parts[1::2]))
    code = _FORMATS.get(entry.kind)
    values = struct.unpack(f"{order}{entry.count}{code}", entry.value) if code else ()
    return values if code not in ("f", "d") or all(map(math.isfinite, values)) else ()


def with_order(directory: Directory, before: str, after: str) -> Directory:
    """The directory in another byte order (`<` or `>`)."""
    if before == after:
        return directory
    return {
        tag: Entry(
            entry.kind,
            entry.count,
            _swapped_comment(entry.value) if tag == _USER_COMMENT else _swapped(entry.value, _WORDS.get(entry.kind, 1)),
            None if entry.inner is None else with_order(entry.inner, before, after),
        )
        for tag, entry in directory.items()
    }


def _swapped(value: bytes, word: int) -> bytes:
    return value if word == 1 else np.frombuffer(value, f"<u{word}").byteswap().tobytes()


def _swapped_comment(value: bytes) -> bytes:
    """EXIF's comment: after a name of eight bytes, UTF-16 in the byte order of the file (CIPA DC-008, 4.6.5)."""
    if not value.startswith(b"UNICODE\0") or len(value) % 2:
        return value
    return value[:8] + _swapped(value[8:], 2)


def pack_directory(directory: Directory, at: int, order: str, *, big: bool = False, following: int = 0) -> bytes:
    """The bytes of a directory, followed by its values and the directories inside it.

    Args:
        directory: in byte order `order`.
        at: the position where the bytes will be, even.
        order: `<` or `>`.
        big: of a BigTIFF.
        following: the position of the next directory; 0: none.
    """
    count_code, word, inline = ("Q", "Q", 8) if big else ("H", "I", 4)
    head = struct.calcsize(count_code) + len(directory) * (4 + 2 * inline) + inline
    table, tail = [struct.pack(order + count_code, len(directory))], bytearray()

    def append(piece: bytes) -> bytes:
        position = at + head + len(tail)
        tail.extend(piece + bytes(len(piece) % 2))
        return struct.pack(order + word, position)

    for tag in sorted(directory):
        entry = directory[tag]
        kind, count, value = entry.kind, entry.count, entry.value
        if entry.inner is not None:
            kind, count = (16 if big else 4), 1
            value = append(pack_directory(entry.inner, at + head + len(tail), order, big=big))
        elif len(value) > inline:
            value = append(value)
        table.append(struct.pack(order + "HH" + word, tag, kind, count) + value.ljust(inline, b"\0"))
    table.append(struct.pack(order + word, following))
    return b"".join(table) + bytes(tail)


def pack_block(directory: Directory, order: str) -> bytes:
    """A directory alone as a TIFF structure, as EXIF blocks are."""
    start = b"II*\0" if order == "<" else b"MM\0*"
    return start + struct.pack(order + "I", 8) + pack_directory(directory, 8, order)


def read_block(block: bytes) -> tuple[Directory, str]:
    """The first directory of an EXIF block, with EXIF's directories inside it, and its byte order.

    Raises:
        ValueError: the block is broken.
    """
    start = 6 if block.startswith(b"Exif\0\0") else 0
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[start : start + 4])
    try:
        if order is None:
            raise ValueError("the block has no header")
        at = struct.unpack_from(order + "I", block, start + 4)[0]
        return read_directory(block, at, order, start=start), order
    except BEYOND as error:
        raise ValueError("the block is broken") from error
