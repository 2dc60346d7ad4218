"""The segments of a JPEG: how it was compressed, and metadata to pass through (ITU-T T.81, annex B)."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from restore.images.metadata import photoshop
from restore.images.metadata.exif import without_prefix
from restore.images.metadata.photoshop import (
    Captions,
    resolution_in,
    without_thumbnails,
)
from restore.images.metadata.resolution import Resolution, density

# ITU-T T.81 annex K.1, in zigzag order as DQT stores it; libjpeg scales these by its quality setting.
_LUMA = np.array(
    [16, 11, 12, 14, 12, 10, 16, 14, 13, 14, 18, 17, 16, 19, 24, 40, 26, 24, 22, 22, 24, 49, 35, 37, 29, 40,
     58, 51, 61, 60, 57, 51, 56, 55, 64, 72, 92, 78, 64, 68, 87, 69, 55, 56, 80, 109, 81, 87, 95, 98, 103,
     104, 103, 62, 77, 113, 121, 112, 100, 120, 92, 101, 103, 99]
)  # fmt: skip


#: The most that a segment can hold: its length takes 16 bits and counts itself.
SEGMENT_BYTES = 65533
_EXIF = b"Exif\0\0"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_EXTENDED_XMP = b"http://ns.adobe.com/xmp/extension/\0"
_PHOTOSHOP = b"Photoshop 3.0\0"
_JFIF_UNITS = {1: 1.0, 2: 1 / 2.54}
_ICC = b"ICC_PROFILE\0"
_GAIN_MAP = b"urn:iso:std:iso:ts:21496:-1\0"
_START, _END, _SCAN, _COMMENT = 0xD8, 0xD9, 0xDA, 0xFE
#: In the data of a scan, 0xFF begins a marker unless 0x00 or the number of a restart follows (ITU-T T.81, B.1.1.5).
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
_IS_MARKER = np.array([_MARKER.match(bytes((0xFF, byte))) is not None for byte in range(256)])
#: The part of a scan that is searched at once: first, and at most.
_NEAR, _FAR = 1 << 8, 1 << 20
#: (marker, beginning) of segments that do not hold for another image, and what they are if a user would miss them. They
#: describe the compressed data, are written anew, or show the image before the repair. All others are copied.
_STALE: tuple[tuple[int, bytes, str], ...] = (
    (0xE0, b"JFIF\0", ""),
    (0xE0, b"JFXX\0", ""),  # a thumbnail
    (0xE0, b"AVI1", ""),  # which field of a film
    (0xE1, b"Exif\0", ""),
    (0xE1, _XMP, ""),
    (0xE2, _ICC, ""),
    (0xE2, b"MPF\0", ""),  # positions of further images
    (0xE2, _GAIN_MAP, ""),
    (0xE4, b"SCALADO\0", ""),  # positions in the compressed data
    (0xE8, b"SPIFF\0", ""),  # size and compression
    (0xEA, b"AROT\0", ""),  # the curve of a gain map
    (0xEB, b"HDR_RI ", "the ratio image of its HDR version"),
    (0xEB, b"JP", "its manifest of content credentials (C2PA)"),  # JUMBF: signed for the unrepaired image
    (0xEE, b"Adobe", ""),
)
#: Blocks that a file should hold once; readers take the first.
_SINGLE = ((b"Exif\0", "EXIF block"), (_XMP, "XMP packet"))
_PREVIEW = b"\xff\xd8\xff"


@dataclass(frozen=True)
class JpegHeader:
    """How a JPEG was compressed.

    Attributes:
        bits: bits per sample; 8 except in rare files.
        quality: on libjpeg's scale of 1 to 100: exact if libjpeg's tables were used, else the nearest.
        subsampling: "4:4:4", "4:2:2", "4:2:0", another name like "4:4:0", or "" for gray.
        tables: the quantization tables of luma and chroma (64 values each, in zigzag order); empty if they are not
            usable.
        progressive: stored in several scans.
        rgb: stored as RGB instead of luma and chroma.
        lossless: without quantization (process 14).
        several: more images follow (a multi-image file).
        passthrough: the segments to keep, raw: captions, comments, extended XMP, those of camera makers; without
            Photoshop's thumbnails.
        exif: EXIF block, or None. One that is too large for a segment continues in the next ones.
        icc: the color profile, or None.
        broken_icc: there are pieces of a profile that do not make a whole one.
        resolution: as JFIF or Photoshop states it, or None.
        left_out: what was lost with segments that are not kept.
    """

    bits: int = 8
    quality: int = 0
    subsampling: str = ""
    tables: tuple[tuple[int, ...], ...] = ()
    progressive: bool = False
    rgb: bool = False
    lossless: bool = False
    several: bool = False
    passthrough: bytes = b""
    exif: bytes | None = None
    icc: bytes | None = None
    broken_icc: bool = False
    resolution: Resolution | None = None
    left_out: tuple[str, ...] = ()


def read_header(data: bytes) -> JpegHeader:
    """Parse the segments before the first scan, up to the first one that is broken."""
    tables: dict[int, tuple[int, ...]] = {}
    bits, progressive, rgb, lossless = 8, False, False, False
    components: list[tuple[int, int, int]] = []
    metadata = _Metadata()
    for marker, at, body in _segments(data):
        if marker == 0xDB:
            tables.update(_tables(body))
        elif marker in (0xC0, 0xC1, 0xC2, 0xC3) and len(body) >= 6:
            bits, progressive, lossless = body[0], marker == 0xC2, marker == 0xC3
            triples = [body[i : i + 3] for i in range(6, 6 + 3 * body[5], 3)]
            rgb = bytes(t[0] for t in triples if t) == b"RGB"
            components = [(t[1] >> 4, t[1] & 15, t[2]) for t in triples if len(t) == 3]
        elif 0xE0 <= marker <= 0xEF or marker == _COMMENT:
            metadata.add(marker, body, data[at : at + 4 + len(body)])
    used = list(dict.fromkeys(table for _, _, table in components))
    found = tuple(tables[i] for i in used if i in tables)
    resources, stated = bytes(metadata.resources), metadata.resolution
    icc = _joined(metadata.profile)
    return JpegHeader(
        bits=bits,
        quality=_quality(found[0]) if found else 0,
        subsampling=_subsampling(components),
        tables=found if len(found) == len(used) and len(found) <= 2 else (),
        progressive=progressive,
        rgb=rgb,
        lossless=lossless,
        several=metadata.several,
        passthrough=bytes(metadata.passthrough) + photoshop_segments(resources),
        exif=bytes(metadata.exif) or None,
        icc=icc,
        broken_icc=bool(metadata.profile) and icc is None,
        resolution=stated if stated is not None and stated.inches else resolution_in(resources) or stated,
        left_out=tuple(dict.fromkeys(metadata.left_out)),
    )


class _Metadata:
    """Collects what APPn segments and comments hold; for the attributes see `JpegHeader`."""

    def __init__(self) -> None:
        self.several = False
        self.passthrough, self.resources, self.exif = bytearray(), bytearray(), bytearray()
        self.profile: list[tuple[int, bytes]] = []  # numbered pieces
        self.resolution: Resolution | None = None
        self.left_out: list[str] = []
        self._seen: set[bytes] = set()
        self._in_exif = False  # the segment before was a piece of EXIF
        self._preview = 0  # the marker of a preview that continues in the next segment

    def add(self, marker: int, body: bytes, raw: bytes) -> None:
        """Take a segment: its marker, its content, and all of its bytes."""
        if marker == 0xE1 and self._continues_exif(body):
            return
        if marker == 0xED and body.startswith(_PHOTOSHOP):
            self.resources += body[len(_PHOTOSHOP) :]
            return
        if 0xE2 <= marker <= 0xE5 and self._is_preview(marker, body):
            return
        self._preview = 0
        self._in_exif = False
        if marker == 0xE1:
            self._take_single(body)
        elif marker == 0xE2 and body.startswith(_ICC):
            self.profile.append((body[12] if len(body) > 12 else 0, body[14:]))
        elif marker == 0xE2 and body.startswith(b"MPF\0"):
            self.several = True
        elif marker == 0xE0 and body.startswith(b"JFIF\0") and len(body) >= 12 and self.resolution is None:
            across, down = struct.unpack_from(">HH", body, 8)
            self.resolution = Resolution(across, down, _JFIF_UNITS.get(body[7], 0))
        stale = _stale(marker, body)
        if stale is None:
            self.passthrough += raw
        elif stale:
            self.left_out.append(stale)

    def _continues_exif(self, body: bytes) -> bool:
        """Whether a segment is a further piece of the EXIF block, which is then taken."""
        own = body.startswith((b"II*\0", b"MM\0*"), len(_EXIF))
        continues = self._in_exif and body.startswith(_EXIF) and not own
        if continues:
            self.exif += body[len(_EXIF) :]
        return continues

    def _take_single(self, body: bytes) -> None:
        """Take a block of which a file should hold one; a second one is lost."""
        for start, name in _SINGLE:
            if body.startswith(start):
                if start in self._seen:
                    self.left_out.append(f"a second {name}")
                elif body.startswith(_EXIF):
                    self.exif += body
                    self._in_exif = True
                self._seen.add(start)

    def _is_preview(self, marker: int, body: bytes) -> bool:
        """Whether a segment holds a preview, or continues it: a JPEG, in APP2 to APP5."""
        if not (body.startswith(_PREVIEW) or self._preview in (marker, marker - 1)):
            return False
        self._preview = 0 if body.rstrip(b"\0").endswith(b"\xff\xd9") else marker
        return True


def contents(passthrough: bytes) -> list[str]:
    """What `JpegHeader.passthrough` holds, in words."""
    found = []
    for marker, _, body in _segments(b"\xff\xd8" + passthrough):
        if marker == _COMMENT:
            found.append("the comment")
        elif body.startswith(_PHOTOSHOP):
            found += photoshop.contents(body[len(_PHOTOSHOP) :])
        elif body.startswith(_EXTENDED_XMP):
            found.append("the extended XMP")
        else:
            name = re.match(rb"[A-Za-z0-9_.:/ -]{2,40}", body)
            found.append(f"APP{marker - 0xE0}" + (f" ({name[0].decode().strip()})" if name else ""))
    return list(dict.fromkeys(found))


def take_captions(passthrough: bytes, *, resources: bool, comment: bool) -> tuple[Captions, bytes]:
    """Photoshop's resources and the comments in `JpegHeader.passthrough`, where asked for, and its other segments."""
    found, comments, rest = bytearray(), [], bytearray()
    start = b"\xff\xd8" + passthrough
    for marker, at, body in _segments(start):
        if resources and body.startswith(_PHOTOSHOP):
            found += body[len(_PHOTOSHOP) :]
        elif comment and marker == _COMMENT:
            comments.append(body.rstrip(b"\0"))
        else:
            rest += start[at : at + 4 + len(body)]
    return Captions(bytes(found), b"\n".join(comments)), bytes(rest)


def of_captions(found: Captions) -> bytes:
    """The segments that hold Photoshop's resources and a comment."""
    comments = b"".join(_segment(_COMMENT, piece) for piece in _pieces(found.comment, SEGMENT_BYTES))
    return photoshop_segments(found.resources) + comments


def with_resolution(passthrough: bytes, dpi: tuple[float, float] | None) -> bytes:
    """`JpegHeader.passthrough` with this resolution in Photoshop's resources, if they state one."""
    found, rest = take_captions(passthrough, resources=True, comment=False)
    changed = photoshop.with_resolution(found.resources, dpi)
    return passthrough if changed == found.resources else rest + photoshop_segments(changed)


def with_metadata(data: bytes, exif: bytes | None, xmp: bytes | None, passthrough: bytes, notes: list[str]) -> bytes:
    """Insert metadata into a JPEG as an encoder writes it: EXIF and XMP after JFIF, the rest after its APPn segments.

    Args:
        data: a JPEG.
        exif: an EXIF block, or None. One that is too large for a segment continues in the next ones, as ExifTool and
            Pillow read it.
        xmp: an XMP packet, or None.
        passthrough: raw segments of the source (`JpegHeader.passthrough`).
        notes: gets a note on a packet that is too large for a segment and is left out.
    """
    pieces = [(_EXIF, piece) for piece in _pieces(exif and without_prefix(exif), SEGMENT_BYTES - len(_EXIF))]
    if xmp and len(_XMP) + len(xmp) > SEGMENT_BYTES:
        notes.append("the XMP packet is too large for a JPEG and is left out")
    elif xmp:
        pieces.append((_XMP, xmp))
    segments = b"".join(_segment(0xE1, start + piece) for start, piece in pieces)
    first = last = 2
    for marker, here, body in _segments(data):
        if not 0xE0 <= marker <= 0xEF:
            break
        last = here + 4 + len(body)
        first = last if marker == 0xE0 else first
    return data[:first] + segments + data[first:last] + passthrough + data[last:]


def _segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


def _pieces(data: bytes | None, size: int) -> list[bytes]:
    return [] if not data else [data[i : i + size] for i in range(0, len(data), size)]


def with_density(data: bytes, dpi: tuple[float, float] | None, shape: tuple[float, float] | None = None) -> bytes:
    """Write the resolution into the JFIF segment of a JPEG, which is added if there is none (ITU-T T.871, 10.1).

    Args:
        data: a JPEG as an encoder writes it. One that Adobe's segment describes is unchanged: JFIF knows no RGB.
        dpi: pixels per inch across and down; None = unknown.
        shape: of a pixel, as densities across and down; None = square.
    """
    fields = struct.pack(">BHH", *density(dpi, shape))
    if data[2:4] == b"\xff\xe0" and data[6:11] == b"JFIF\0":
        return data[:13] + fields + data[18:]
    if any(marker == 0xEE for marker, _, _ in _segments(data)):
        return data
    return data[:2] + b"\xff\xe0\0\x10JFIF\0\1\1" + fields + b"\0\0" + data[2:]


def end_of_image(data: Any, at: int) -> int | None:
    """The position after the end marker of the JPEG that begins at a position; None if it is truncated."""
    return next((end for marker, _, end in _markers(data, at) if marker == _END), None)


def _segments(data: Any) -> Iterator[tuple[int, int, bytes]]:
    """(marker, position, body) up to the first scan."""
    for marker, at, end in _markers(data, 0):
        if marker in (_SCAN, _END):
            return
        yield marker, at, data[at + 4 : end]


def _next_marker(data: Any, at: int) -> int | None:
    """The position of the next marker from a position on. In a scan, whose data hold many 0xFF, NumPy is faster."""
    found = _MARKER.search(data, at, at + _NEAR)
    if found:
        return found.start()
    at, size = at + _NEAR - 1, _NEAR
    while at + 1 < len(data):
        size = min(2 * size, _FAR)
        part = np.frombuffer(data[at : at + size], np.uint8)
        starts = np.flatnonzero(part[:-1] == 0xFF)
        starts = starts[_IS_MARKER[part[starts + 1]]]
        if len(starts):
            return at + int(starts[0])
        at += len(part) - 1
    return None


def _markers(data: Any, at: int) -> Iterator[tuple[int, int, int]]:
    """(marker, begin, end) of every segment of the JPEG that begins at a position, with the end marker."""
    at += 2
    while (begin := _next_marker(data, at)) is not None:
        marker, end = data[begin + 1], begin + 2
        if marker == _END:
            yield marker, begin, end
            return
        if marker != _START:
            if end + 2 > len(data):
                return
            end += max(struct.unpack_from(">H", data, end)[0], 2)
            yield marker, begin, end
        at = end


def _stale(marker: int, body: bytes) -> str | None:
    """None for a segment to keep; else what is lost without it, or "" if that is nothing."""
    return next((name for app, start, name in _STALE if app == marker and body.startswith(start)), None)


def _joined(pieces: list[tuple[int, bytes]]) -> bytes | None:
    """A color profile from its pieces with their numbers; None if no order of them makes a whole one.

    Some programs number the pieces from 0, or all with 1. The profile states its own length (ICC.1:2022, 7.2.2).
    """
    for ordered in (sorted(pieces, key=lambda piece: piece[0]), pieces):
        icc = b"".join(body for _, body in ordered)
        length = int.from_bytes(icc[:4], "big")
        if icc[36:40] == b"acsp" and 128 < length <= len(icc):
            return icc[:length]
    return None


def photoshop_segments(resources: bytes) -> bytes:
    """Photoshop's resources as segments, without thumbnails."""
    pieces = _pieces(without_thumbnails(resources), SEGMENT_BYTES - len(_PHOTOSHOP))
    return b"".join(_segment(0xED, _PHOTOSHOP + piece) for piece in pieces)


def _tables(body: bytes) -> Iterator[tuple[int, tuple[int, ...]]]:
    at = 0
    while at < len(body):
        wide, number = body[at] >> 4, body[at] & 15
        size = 128 if wide else 64
        raw = body[at + 1 : at + 1 + size]
        if len(raw) < size:
            return
        yield number, struct.unpack(">64H", raw) if wide else tuple(raw)
        at += 1 + size


def _quality(table: tuple[int, ...]) -> int:
    """The quality at which libjpeg's luma table is nearest (jcparam.c, jpeg_quality_scaling)."""
    quality = np.arange(1, 101)
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    tables = np.clip((_LUMA[None] * scale[:, None] + 50) // 100, 1, 255)
    distance = np.abs(tables - np.array(table)[None]).sum(axis=1)
    return int(quality[::-1][np.argmin(distance[::-1])])


def _subsampling(components: list[tuple[int, int, int]]) -> str:
    if len(components) < 3:
        return ""
    (across, down, _), (chroma_across, chroma_down, _) = components[0], components[1]
    factors = (across // max(chroma_across, 1), down // max(chroma_down, 1))
    known = {
        (1, 1): "4:4:4",
        (2, 1): "4:2:2",
        (2, 2): "4:2:0",
        (1, 2): "4:4:0",
        (4, 1): "4:1:1",
        (4, 2): "4:1:0",
    }
    return known.get(factors, "4:4:4")
