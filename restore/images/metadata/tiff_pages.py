"""The directories of a TIFF: which are pages, and joining pages to one file."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from restore.images.metadata.ifd import (
    BEYOND,
    EXIF_IFD,
    GPS_IFD,
    INTEROP_IFD,
    SIZES,
    layout_of,
    numbers,
    read_directory,
)

_SUBFILE_TYPE, _OLD_SUBFILE_TYPE, _WIDTH, _HEIGHT, _SUB_IFDS = 254, 255, 256, 257, 330
_REDUCED, _MASK = 1, 4  # bits of NewSubfileType: a smaller copy of another page, a mask of one
_STRIP_OFFSETS, _TILE_OFFSETS = 273, 324
#: A chain of more directories, which only hostile files have, is not followed further.
_MOST_PAGES = 10_000


@dataclass(frozen=True)
class Pages:
    """The positions of a file's directories.

    Attributes:
        pages: those that are pages; at least one.
        masks: page -> the masks that follow it. Scanners store their infrared channel as one.
        first: the first directory. If it is not among the pages, it is a smaller copy, which may hold the metadata.
        reduced: the number of smaller copies.
    """

    pages: list[int]
    masks: dict[int, list[int]] = field(default_factory=dict)
    first: int = 0
    reduced: int = 0

    @property
    def notes(self) -> list[str]:
        """What of the file is left out."""
        return ["the smaller copies of the image in the file are left out"] if self.reduced else []


def find_pages(data: Any) -> Pages:
    """Sort the directories of a file into pages, masks and smaller copies.

    A first directory that calls itself a smaller copy is a page if there is no larger one, in the chain or below it. A
    chain that is broken, or circular, ends there.
    """
    found: list[_Found] = []
    with suppress(*BEYOND):  # the chain points beyond the end of the file
        for one in _directories(data):
            found.append(one)
    if not found:
        return Pages([0])
    first, pages = found[0], [one for one in found if not one.subfile & (_REDUCED | _MASK)]
    if first not in pages:
        pages += _full_size_below(data, first)
        if max((page.area for page in pages), default=0) <= first.area:
            pages.insert(0, first)
    positions = {page.at for page in pages}
    masks: dict[int, list[int]] = {}
    above, reduced = pages[0].at, 0
    for one in found:
        if one.at in positions:
            above = one.at
        elif one.subfile & _MASK:
            masks.setdefault(above, []).append(one.at)
        else:
            reduced += 1
    return Pages([page.at for page in pages], masks, first.at, reduced)


def _full_size_below(data: Any, first: _Found) -> list[_Found]:
    """The directory of the image of which the first directory is a smaller copy, if that points to it."""
    order, big = layout_of(data)
    with suppress(*BEYOND):
        below = numbers(read_directory(data, first.at, order, big=big).get(_SUB_IFDS), order)
        for at in below[:16]:
            one = _look(data, int(at), order, big)
            if not one.subfile & (_REDUCED | _MASK):
                return [one]
    return []


def missing_pages(data: Any, found: int) -> list[str]:
    """A note if the chain of directories is broken or circular, as in a truncated file. `found` = the pages found."""
    order, big = layout_of(data)
    links = [8 if big else 4]
    ends = False
    with suppress(*BEYOND):
        for one in _directories(data):
            links.append(one.link)
    with suppress(*BEYOND):
        ends = struct.unpack_from(order + ("Q" if big else "I"), data, links[-1])[0] == 0
    return [] if ends else [f"the list of pages is broken after page {found}: any further pages are lost"]


def isolate_page(file: bytearray, at: int) -> None:
    """Make one page the only page of a file. Decoders walk the whole chain for each page, which is slow with many.

    Args:
        file: the TIFF, changed in place: its header points to the page, and the page's link to the next one is cut.
        at: the page, from `find_pages`.
    """
    order, big = layout_of(file)
    struct.pack_into(order + ("Q" if big else "I"), file, 8 if big else 4, at)
    with suppress(*BEYOND, StopIteration):  # the decoder reports what is wrong
        struct.pack_into(order + ("Q" if big else "I"), file, next(_directories(file)).link, 0)


def join_pages(pages: list[bytes]) -> bytes:
    """Join TIFFs of one page to one TIFF, in order.

    Args:
        pages: little-endian TIFFs of one directory each, as `encode` makes them.

    Raises:
        ValueError: the pages are too large for one TIFF.
    """
    if any(page[:4] != b"II*\0" for page in pages) or sum(map(len, pages)) >= 1 << 32:
        raise ValueError("the pages are too large for one TIFF")
    out = bytearray(pages[0][:8])
    link = 4  # where to write the position of the next directory
    for page in pages:
        out += bytes(len(out) % 2)
        base = len(out) - 8
        out += page[8:]
        first = struct.unpack_from("<I", page, 4)[0] + base
        struct.pack_into("<I", out, link, first)
        link = _shift_directory(out, first, base)
    struct.pack_into("<I", out, link, 0)
    return bytes(out)


def _shift_directory(out: bytearray, directory: int, base: int) -> int:
    """Add `base` to every position in a directory; returns where its link to the next directory is."""
    count = int(struct.unpack_from("<H", out, directory)[0])
    for at in range(directory + 2, directory + 2 + 12 * count, 12):
        tag, kind, length = struct.unpack_from("<HHI", out, at)
        values_at = at + 8
        if SIZES[kind] * length > 4:
            values_at = _shift(out, at + 8, base)
        if tag in (_STRIP_OFFSETS, _TILE_OFFSETS):
            if kind != 4:
                raise ValueError("the positions of strips have a type that cannot be joined")
            for one in range(values_at, values_at + 4 * length, 4):
                _shift(out, one, base)
        elif tag in (EXIF_IFD, GPS_IFD, INTEROP_IFD):
            _shift_directory(out, _shift(out, at + 8, base), base)
    return directory + 2 + 12 * count


def _shift(out: bytearray, at: int, base: int) -> int:
    position = int(struct.unpack_from("<I", out, at)[0]) + base
    struct.pack_into("<I", out, at, position)
    return position


@dataclass(frozen=True)
class _Found:
    """A directory: its position, NewSubfileType, W·H, and where its link to the next directory is."""

    at: int
    subfile: int
    area: int
    link: int


def _directories(data: Any) -> Iterator[_Found]:
    """The chain of directories."""
    order, big = layout_of(data)
    word = "Q" if big else "I"
    at = struct.unpack_from(order + word, data, 8 if big else 4)[0]
    seen: set[int] = set()
    while at and at not in seen and len(seen) < _MOST_PAGES:
        seen.add(at)
        found = _look(data, at, order, big)
        yield found
        at = struct.unpack_from(order + word, data, found.link)[0]


def _look(data: Any, at: int, order: str, big: bool) -> _Found:
    entry, count_code = (20, "Q") if big else (12, "H")
    count = struct.unpack_from(order + count_code, data, at)[0]
    first = at + struct.calcsize(order + count_code)
    values = {_WIDTH: 0, _HEIGHT: 0, _SUBFILE_TYPE: 0, _OLD_SUBFILE_TYPE: 0}
    for here in range(first, min(first + entry * min(count, 16), len(data) - entry + 1), entry):
        tag, kind = struct.unpack_from(order + "HH", data, here)
        if tag in values:
            code = {3: "H", 16: "Q"}.get(kind, "I")
            values[tag] = struct.unpack_from(order + code, data, here + (12 if big else 8))[0]
        elif tag > _HEIGHT:  # tags are sorted
            break
    subfile = values[_SUBFILE_TYPE] or (_REDUCED if values[_OLD_SUBFILE_TYPE] == 2 else 0)
    return _Found(at, subfile, values[_WIDTH] * values[_HEIGHT], first + entry * count)
