"""TIFF tags that pyvips neither reads nor writes: EXIF, GPS and captions."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

_EXIF_IFD, _GPS_IFD, _IPTC, _EXTRA_SAMPLES, _RESOLUTION_UNIT = 34665, 34853, 33723, 338, 296
# Tags that describe the picture and not its layout: document, description, maker, model, page, software, date,
# artist, host, copyright.
_DESCRIPTIVE = (269, 270, 271, 272, 285, 305, 306, 315, 316, 33432)
_COMPRESSIONS = {1: "none", 5: "lzw", 8: "deflate", 32946: "deflate"}
_PHOTOMETRIC_CFA, _PHOTOMETRIC_LINEAR_RAW, _DNG_VERSION = 32803, 34892, 50706


@dataclass(frozen=True)
class TiffHeader:
    """What stands in the first directory beside the layout.

    Attributes:
        exif: descriptive tags, EXIF and GPS as one EXIF block, or None.
        compression: `none`, `lzw`, `deflate`, or "" for any other.
        raw: a camera raw file in TIFF's clothing.
        carried: the IPTC record, raw.
        extra: what the first channel after the colours is: 0 not said, 1 and 2 transparency; None: no such tag.
    """

    exif: bytes | None = None
    compression: str = ""
    raw: bool = False
    carried: bytes = b""
    extra: int | None = None


def read_header(data: Any, at: int) -> TiffHeader:
    """Parse the directory there; a broken one gives an empty header (the decoder will say what is wrong).

    Args:
        data: the file, as bytes or mapped into memory.
        at: where the directory stands.
    """
    try:
        return _read(data, at)
    except Exception:  # a hostile directory can fail anywhere in Pillow's parser; its tags are then lost
        return TiffHeader()


def with_tags(
    data: bytes, *, exif: bytes | None, carried: bytes, transparent: bool = True, has_dpi: bool = True
) -> bytes:
    """A TIFF (little-endian, as pyvips writes it) with EXIF and IPTC put in.

    `transparent`: its alpha is alpha. `has_dpi`: its resolution is known; else pyvips has made one up. The first
    directory is written anew at the end; pixels and all else stay where they are.

    Raises:
        ValueError: the EXIF block is broken.
    """
    file = io.BytesIO(data)
    add_tags(file, exif=exif, carried=carried, transparent=transparent, has_dpi=has_dpi)
    return file.getvalue()


def add_tags(
    file: BinaryIO, *, exif: bytes | None, carried: bytes, transparent: bool = True, has_dpi: bool = True
) -> None:
    """`with_tags` for a file that is open for reading and writing, which is never in memory as a whole."""
    if file.read(4) != b"II*\0" or not (exif or carried or not transparent or not has_dpi):
        return
    (first,) = struct.unpack("<I", file.read(4))
    file.seek(first)
    (count,) = struct.unpack("<H", file.read(2))
    table, following = file.read(12 * count), file.read(4)
    entries = {struct.unpack_from("<H", table, at)[0]: table[at : at + 12] for at in range(0, len(table), 12)}
    out = _Tail(file.seek(0, 2))
    if exif:
        block = _loaded(exif)
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
        entries[_RESOLUTION_UNIT] = _entry(out, _RESOLUTION_UNIT, 3, 1, b"\1\0")  # none: a shape of pixels alone
    if carried:
        entries[_IPTC] = _entry(out, _IPTC, 7, len(carried), carried)
    directory = out.append(
        struct.pack("<H", len(entries)) + b"".join(entries[tag] for tag in sorted(entries)) + following
    )
    file.write(b"".join(out.pieces))
    file.seek(4)
    file.write(struct.pack("<I", directory))


class _Tail:
    """What is put at the end of a file; every piece begins at an even place."""

    def __init__(self, length: int) -> None:
        self.pieces = [b"\0"] if length % 2 else []
        self.end = length + length % 2

    def append(self, piece: bytes) -> int:
        """Take a piece; returns where it lies."""
        at = self.end
        padded = piece + b"\0" * (len(piece) % 2)
        self.pieces.append(padded)
        self.end += len(padded)
        return at


def _read(data: Any, at: int) -> TiffHeader:
    head = bytes(data[: 16 if b"+" in data[2:4] else 8])  # a BigTIFF's is longer
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
        carried=caption if isinstance(caption, bytes) else b"",
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


def _loaded(exif: bytes) -> Image.Exif:
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
