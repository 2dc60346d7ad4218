"""TIFFs of several pages: which of a file's directories are pages, and pages put into one file."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

_SUBFILE_TYPE, _OLD_SUBFILE_TYPE = 254, 255
_REDUCED, _TRANSPARENCY = 1, 4  # bits of NewSubfileType: a smaller copy of another page, a mask for one
_STRIP_OFFSETS, _TILE_OFFSETS = 273, 324
_EXIF_IFD, _GPS_IFD = 34665, 34853
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_MOST_PAGES = 10_000


def find_pages(data: Any) -> list[int]:
    """Where the directories of a TIFF stand that are pages; thumbnails, smaller copies and masks are none.

    The first directory always is one. A broken chain ends where it breaks, or where it bites its tail.
    """
    pages: list[int] = []
    try:
        for at, page, _ in _directories(data):
            if page or not pages:
                pages.append(at)
    except (struct.error, OverflowError):  # it points behind the file's end
        pass
    return pages or [0]


def missing_pages(data: Any, found: int) -> list[str]:
    """A note where the chain of directories breaks or bites its tail after so many pages, as in a file that was cut."""
    order, big = _kind(data)
    links = [8 if big else 4]
    ends = False
    with suppress(struct.error, OverflowError):
        for _, _, link in _directories(data):
            links.append(link)
    with suppress(struct.error):
        ends = struct.unpack_from(order + ("Q" if big else "I"), data, links[-1])[0] == 0
    return [] if ends else [f"its list of pages breaks off after page {found}: if there were more, they are lost"]


def show_page(file: bytearray, at: int) -> None:
    """Make one page the only one of a file: decoders walk the whole chain for every page, which takes long with many.

    Args:
        file: the TIFF; its header is pointed to the page, and the page's link is cut.
        at: from `find_pages`.
    """
    order, big = _kind(file)
    struct.pack_into(order + ("Q" if big else "I"), file, 8 if big else 4, at)
    try:
        _, _, link = next(_directories(file))
        struct.pack_into(order + ("Q" if big else "I"), file, link, 0)
    except (struct.error, OverflowError, StopIteration):  # the decoder will say what is wrong
        pass


def joined(pages: list[bytes]) -> bytes:
    """One TIFF of several, in order.

    Args:
        pages: little-endian TIFFs of one directory each, as `encode` makes them.

    Raises:
        ValueError: together they are larger than a TIFF can be.
    """
    if any(page[:4] != b"II*\0" for page in pages) or sum(map(len, pages)) >= 1 << 32:
        raise ValueError("its pages are too large for one TIFF")
    out = bytearray(pages[0][:8])
    link = 4  # where the position of the next directory goes
    for page in pages:
        out += bytes(len(out) % 2)
        base = len(out) - 8
        out += page[8:]
        first = struct.unpack_from("<I", page, 4)[0] + base
        struct.pack_into("<I", out, link, first)
        link = _moved(out, first, base)
    struct.pack_into("<I", out, link, 0)
    return bytes(out)


def _moved(out: bytearray, directory: int, base: int) -> int:
    """Add `base` to every position that a directory holds; returns where its link to the next one stands."""
    count = struct.unpack_from("<H", out, directory)[0]
    for at in range(directory + 2, directory + 2 + 12 * count, 12):
        tag, kind, length = struct.unpack_from("<HHI", out, at)
        values_at = at + 8
        if _SIZES[kind] * length > 4:
            values_at = _shift(out, at + 8, base)
        if tag in (_STRIP_OFFSETS, _TILE_OFFSETS):
            if kind != 4:
                raise ValueError("strips are not where a TIFF of several pages can have them")
            for one in range(values_at, values_at + 4 * length, 4):
                _shift(out, one, base)
        elif tag in (_EXIF_IFD, _GPS_IFD):
            _moved(out, _shift(out, at + 8, base), base)
    return directory + 2 + 12 * count


def _shift(out: bytearray, at: int, base: int) -> int:
    position = struct.unpack_from("<I", out, at)[0] + base
    struct.pack_into("<I", out, at, position)
    return position


def _kind(data: Any) -> tuple[str, bool]:
    """Byte order, and whether it is a BigTIFF."""
    return "<" if data[:2] == b"II" else ">", 43 in data[2:4]


def _directories(data: Any) -> Iterator[tuple[int, bool, int]]:
    """Of every directory its position, whether it is a page, and where its link to the next one stands."""
    order, big = _kind(data)
    entry, count_code, word = (20, "Q", "Q") if big else (12, "H", "I")
    at = struct.unpack_from(order + word, data, 8 if big else 4)[0]
    seen: set[int] = set()
    while at and at not in seen and len(seen) < _MOST_PAGES:
        seen.add(at)
        count = struct.unpack_from(order + count_code, data, at)[0]
        first = at + struct.calcsize(order + count_code)
        page = True
        for here in range(first, min(first + entry * min(count, 16), len(data) - entry + 1), entry):
            tag, kind = struct.unpack_from(order + "HH", data, here)
            if tag in (_SUBFILE_TYPE, _OLD_SUBFILE_TYPE):
                value = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, here + (12 if big else 8))[0]
                page = not value & (_REDUCED | _TRANSPARENCY) if tag == _SUBFILE_TYPE else value != 2
                break
            if tag > _OLD_SUBFILE_TYPE:  # in rising order
                break
        yield at, page, first + entry * count
        at = struct.unpack_from(order + word, data, first + entry * count)[0]
