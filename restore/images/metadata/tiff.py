"""The directories of a TIFF: tags that libvips neither reads nor writes (EXIF, GPS, captions), and several pages."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

_EXIF_IFD, _GPS_IFD, _IPTC, _EXTRA_SAMPLES, _RESOLUTION_UNIT = 34665, 34853, 33723, 338, 296
# Tags that describe the image and not its layout: document, description, make, model, page, software, date, artist,
# host, copyright.
_DESCRIPTIVE = (269, 270, 271, 272, 285, 305, 306, 315, 316, 33432)
_COMPRESSIONS = {1: "none", 5: "lzw", 8: "deflate", 32946: "deflate"}
_PHOTOMETRIC_CFA, _PHOTOMETRIC_LINEAR_RAW, _DNG_VERSION = 32803, 34892, 50706


@dataclass(frozen=True)
class TiffHeader:
    """The tags of a directory besides the layout.

    Attributes:
        exif: descriptive tags, EXIF and GPS as one EXIF block, or None.
        compression: `none`, `lzw`, `deflate`, or "" for all others.
        raw: this is a camera raw file, which only uses the structure of TIFF.
        passthrough: the IPTC record, raw.
        extra: the meaning of the first channel after the colors: 0 unspecified, 1 and 2 transparency; None = no such
            tag.
    """

    exif: bytes | None = None
    compression: str = ""
    raw: bool = False
    passthrough: bytes = b""
    extra: int | None = None


def read_header(data: Any, at: int) -> TiffHeader:
    """Parse a directory. A broken one gives an empty header, and the decoder reports what is wrong.

    Args:
        data: the file, as bytes or mapped into memory.
        at: the position of the directory.
    """
    try:
        return _read(data, at)
    except Exception:  # a hostile directory can fail anywhere in Pillow's parser
        return TiffHeader()


def add_tags(
    file: BinaryIO, *, exif: bytes | None, passthrough: bytes, transparent: bool = True, has_dpi: bool = True
) -> None:
    """Add EXIF and IPTC to a TIFF, in its file.

    A new directory is written at the end of the file; everything else stays in its place, so the file is never in
    memory. A BigTIFF is left unchanged.

    Args:
        file: a little-endian TIFF as libvips writes it, opened for reading and writing.
        exif: EXIF block, or None.
        passthrough: the IPTC record (`TiffHeader.passthrough`).
        transparent: its alpha is transparency.
        has_dpi: the resolution is known; otherwise the arbitrary one that libvips has written is removed.

    Raises:
        ValueError: the EXIF block is broken.
    """
    if file.read(4) != b"II*\0" or not (exif or passthrough or not transparent or not has_dpi):
        return
    (first,) = struct.unpack("<I", file.read(4))
    file.seek(first)
    (count,) = struct.unpack("<H", file.read(2))
    table, following = file.read(12 * count), file.read(4)
    entries = {struct.unpack_from("<H", table, at)[0]: table[at : at + 12] for at in range(0, len(table), 12)}
    out = _Tail(file.seek(0, 2))
    if exif:
        block = _parse_exif(exif)
        for tag in _DESCRIPTIVE:
            if isinstance(block.get(tag), str):
                value = block[tag].encode("utf-8", "surrogateescape") + b"\0"
                entries[tag] = _entry(out, tag, 2, len(value), value)
        for tag in (_EXIF_IFD, _GPS_IFD):
            values = block.get_ifd(tag)
            if values:
                at = out.end
                out.append(_directory(values, at))
                entries[tag] = struct.pack("<HHII", tag, 4, 1, at)
    if not transparent:
        entries[_EXTRA_SAMPLES] = _entry(out, _EXTRA_SAMPLES, 3, 1, b"\0\0")
    if not has_dpi:
        entries[_RESOLUTION_UNIT] = _entry(
            out, _RESOLUTION_UNIT, 3, 1, b"\1\0"
        )  # 1 = no unit: only the shape of a pixel
    if passthrough:
        entries[_IPTC] = _entry(out, _IPTC, 7, len(passthrough), passthrough)
    directory = out.append(
        struct.pack("<H", len(entries)) + b"".join(entries[tag] for tag in sorted(entries)) + following
    )
    file.write(b"".join(out.pieces))
    file.seek(4)
    file.write(struct.pack("<I", directory))


class _Tail:
    """Pieces to append to a file, each at an even position."""

    def __init__(self, length: int) -> None:
        self.pieces = [b"\0"] if length % 2 else []
        self.end = length + length % 2

    def append(self, piece: bytes) -> int:
        """Add a piece; returns its position."""
        at = self.end
        padded = piece + b"\0" * (len(piece) % 2)
        self.pieces.append(padded)
        self.end += len(padded)
        return at


def _read(data: Any, at: int) -> TiffHeader:
    head = bytes(data[: 16 if b"+" in data[2:4] else 8])  # the header of a BigTIFF is longer
    stream: Any = data if hasattr(data, "seek") else io.BytesIO(data)  # a mapped file is not copied
    first = ImageFileDirectory_v2(head)
    stream.seek(at)
    first.load(stream)
    compression = first.get(259, 1)
    photometric = first.get(262)
    caption = first.get(_IPTC, b"")
    return TiffHeader(
        exif=_exif(first, stream, head),
        compression=_COMPRESSIONS.get(compression, ""),
        raw=photometric in (_PHOTOMETRIC_CFA, _PHOTOMETRIC_LINEAR_RAW) or _DNG_VERSION in first,
        passthrough=caption if isinstance(caption, bytes) else b"",
        extra=next(iter(np.atleast_1d(first.get(_EXTRA_SAMPLES, ())).tolist()), None),
    )


def _exif(first: ImageFileDirectory_v2, stream: io.BytesIO, head: bytes) -> bytes | None:
    block = Image.Exif()
    found = False
    for tag in _DESCRIPTIVE:
        if isinstance(first.get(tag), str):
            block[tag], found = first[tag], True
    for tag in (_EXIF_IFD, _GPS_IFD):
        at = first.get(tag)
        if isinstance(at, int) and at:
            stream.seek(at)
            inner = ImageFileDirectory_v2(head, group=tag)
            inner.load(stream)
            block.get_ifd(tag).update(dict(inner))
            found = True
    return block.tobytes() if found else None


def _parse_exif(exif: bytes) -> Image.Exif:
    block = Image.Exif()
    try:
        block.load(exif)
        block.get_ifd(_EXIF_IFD)
        block.get_ifd(_GPS_IFD)
    except Exception as error:  # Pillow's parser raises a dozen kinds
        raise ValueError("the EXIF block is broken") from error
    return block


def _directory(values: dict[int, Any], at: int) -> bytes:
    directory = ImageFileDirectory_v2(b"II*\0\0\0\0\0")
    for tag, value in values.items():
        if not isinstance(value, dict):
            directory[tag] = value
    return directory.tobytes(at)


def _entry(out: _Tail, tag: int, kind: int, count: int, value: bytes) -> bytes:
    """A directory entry; a value over four bytes is appended to `out` first."""
    if len(value) <= 4:
        return struct.pack("<HHI4s", tag, kind, count, value)
    return struct.pack("<HHII", tag, kind, count, out.append(value))


# Several pages: finding the directories of a file that are pages, and joining pages to one file


_SUBFILE_TYPE, _OLD_SUBFILE_TYPE = 254, 255
_REDUCED, _TRANSPARENCY = 1, 4  # bits of NewSubfileType: a smaller copy of another page, a mask of one
_STRIP_OFFSETS, _TILE_OFFSETS = 273, 324
#: Type -> bytes of a value.
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
#: A chain of more directories, which only hostile files have, is not followed further.
_MOST_PAGES = 10_000


def find_pages(data: Any) -> list[int]:
    """The positions of the directories that are pages, not thumbnails, smaller copies or masks.

    The first directory always counts as a page. A chain that is broken, or circular, ends there.
    """
    pages: list[int] = []
    try:
        for at, page, _ in _directories(data):
            if page or not pages:
                pages.append(at)
    except (struct.error, OverflowError):  # the chain points beyond the end of the file
        pass
    return pages or [0]


def missing_pages(data: Any, found: int) -> list[str]:
    """A note if the chain of directories is broken or circular, as in a truncated file. `found` = the pages found."""
    order, big = _layout(data)
    links = [8 if big else 4]
    ends = False
    with suppress(struct.error, OverflowError):
        for _, _, link in _directories(data):
            links.append(link)
    with suppress(struct.error):
        ends = struct.unpack_from(order + ("Q" if big else "I"), data, links[-1])[0] == 0
    return [] if ends else [f"the list of pages is broken after page {found}: any further pages are lost"]


def isolate_page(file: bytearray, at: int) -> None:
    """Make one page the only page of a file. Decoders walk the whole chain for each page, which is slow with many.

    Args:
        file: the TIFF, changed in place: its header points to the page, and the page's link to the next one is cut.
        at: the page, from `find_pages`.
    """
    order, big = _layout(file)
    struct.pack_into(order + ("Q" if big else "I"), file, 8 if big else 4, at)
    try:
        _, _, link = next(_directories(file))
        struct.pack_into(order + ("Q" if big else "I"), file, link, 0)
    except (struct.error, OverflowError, StopIteration):  # the decoder reports what is wrong
        pass


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
        if _SIZES[kind] * length > 4:
            values_at = _shift(out, at + 8, base)
        if tag in (_STRIP_OFFSETS, _TILE_OFFSETS):
            if kind != 4:
                raise ValueError("the positions of strips have a type that cannot be joined")
            for one in range(values_at, values_at + 4 * length, 4):
                _shift(out, one, base)
        elif tag in (_EXIF_IFD, _GPS_IFD):
            _shift_directory(out, _shift(out, at + 8, base), base)
    return directory + 2 + 12 * count


def _shift(out: bytearray, at: int, base: int) -> int:
    position = int(struct.unpack_from("<I", out, at)[0]) + base
    struct.pack_into("<I", out, at, position)
    return position


def _layout(data: Any) -> tuple[str, bool]:
    """The byte order, and whether this is a BigTIFF."""
    return "<" if data[:2] == b"II" else ">", 43 in data[2:4]


def _directories(data: Any) -> Iterator[tuple[int, bool, int]]:
    """Yields for each directory its position, whether it is a page, and where its link to the next one is."""
    order, big = _layout(data)
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
            if tag > _OLD_SUBFILE_TYPE:  # tags are sorted
                break
        yield at, page, first + entry * count
        at = struct.unpack_from(order + word, data, first + entry * count)[0]
