"""The segments of a JPEG: how it was compressed, and metadata to pass through (ITU-T T.81, annex B)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from restore.images.metadata.exif import with_prefix
from restore.images.metadata.photoshop import without_thumbnails

# ITU-T T.81 annex K.1, in zigzag order as DQT stores it; libjpeg scales these by its quality setting.
_LUMA = np.array(
    [16, 11, 12, 14, 12, 10, 16, 14, 13, 14, 18, 17, 16, 19, 24, 40, 26, 24, 22, 22, 24, 49, 35, 37, 29, 40,
     58, 51, 61, 60, 57, 51, 56, 55, 64, 72, 92, 78, 64, 68, 87, 69, 55, 56, 80, 109, 81, 87, 95, 98, 103,
     104, 103, 62, 77, 113, 121, 112, 100, 120, 92, 101, 103, 99]
)  # fmt: skip


#: The most that a segment can hold: its length takes 16 bits and counts itself.
SEGMENT_BYTES = 65533
_EXTENDED_XMP = b"http://ns.adobe.com/xmp/extension/\0"
_PHOTOSHOP = b"Photoshop 3.0\0"


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
        several: more images follow (a multi-image file).
        passthrough: other segments to keep, raw: IPTC captions, comments, extended XMP; without Photoshop's thumbnails.
    """

    bits: int = 8
    quality: int = 0
    subsampling: str = ""
    tables: tuple[tuple[int, ...], ...] = ()
    progressive: bool = False
    rgb: bool = False
    several: bool = False
    passthrough: bytes = b""


def read_header(data: bytes) -> JpegHeader:
    """Parse the segments before the first scan, up to the first one that is broken."""
    tables: dict[int, tuple[int, ...]] = {}
    bits, progressive, rgb, several = 8, False, False, False
    components: list[tuple[int, int, int]] = []
    passthrough, resources = bytearray(), bytearray()
    for marker, at, body in _segments(data):
        if marker == 0xDB:
            tables.update(_tables(body))
        elif marker in (0xC0, 0xC1, 0xC2, 0xC3) and len(body) >= 6:
            bits, progressive = body[0], marker == 0xC2
            triples = [body[i : i + 3] for i in range(6, 6 + 3 * body[5], 3)]
            rgb = bytes(t[0] for t in triples if t) == b"RGB"
            components = [(t[1] >> 4, t[1] & 15, t[2]) for t in triples if len(t) == 3]
        elif marker == 0xE2 and body.startswith(b"MPF\0"):
            several = True
        elif marker == 0xED and body.startswith(_PHOTOSHOP):
            resources += body[len(_PHOTOSHOP) :]
        elif marker in (0xED, 0xFE) or (marker == 0xE1 and body.startswith(_EXTENDED_XMP)):
            passthrough += data[at : at + 4 + len(body)]
    passthrough += _photoshop_segments(bytes(resources))
    used = list(dict.fromkeys(table for _, _, table in components))
    found = tuple(tables[i] for i in used if i in tables)
    return JpegHeader(
        bits=bits,
        quality=_quality(found[0]) if found else 0,
        subsampling=_subsampling(components),
        tables=found if len(found) == len(used) and len(found) <= 2 else (),
        progressive=progressive,
        rgb=rgb,
        several=several,
        passthrough=bytes(passthrough),
    )


def with_segments(data: bytes, passthrough: bytes) -> bytes:
    """Insert raw segments into a JPEG, after its APPn segments."""
    at = 2
    for marker, here, body in _segments(data):
        if not 0xE0 <= marker <= 0xEF:
            break
        at = here + 4 + len(body)
    return data[:at] + passthrough + data[at:]


def with_density(data: bytes, dpi: tuple[float, float] | None) -> bytes:
    """Add a JFIF segment with the resolution to a JPEG that has none (ITU-T T.871, 10.1)."""
    across, down = (1, 1) if dpi is None else (min(round(value), 65535) for value in dpi)
    segment = b"\xff\xe0\0\x10JFIF\0\1\1" + struct.pack(">BHHxx", dpi is not None, across, down)
    return data if data[2:4] == b"\xff\xe0" else data[:2] + segment + data[2:]


def metadata_segments(exif: bytes | None, xmp: bytes | None, notes: list[str]) -> bytes:
    """EXIF and XMP as raw APP1 segments. A block that is too large for a segment is left out, with a note."""
    segments = b""
    for name, body in (
        ("EXIF block", exif and with_prefix(exif)),
        ("XMP packet", xmp and b"http://ns.adobe.com/xap/1.0/\0" + xmp),
    ):
        if body and len(body) > SEGMENT_BYTES:
            notes.append(f"the {name} is too large for a JPEG and is left out")
        elif body:
            segments += b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
    return segments


def _segments(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(marker, position, body) up to the first scan."""
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            at = data.find(b"\xff", at)
            if at < 0:
                return
            continue
        marker = data[at + 1]
        if marker == 0xFF or marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:
            at += 1 if marker == 0xFF else 2
            continue
        if marker in (0xD9, 0xDA):
            return
        length = struct.unpack_from(">H", data, at + 2)[0]
        yield marker, at, data[at + 4 : at + 2 + max(length, 2)]
        at += 2 + max(length, 2)


def _photoshop_segments(resources: bytes) -> bytes:
    """Photoshop's resources as segments, without thumbnails."""
    copied = without_thumbnails(resources)
    room = SEGMENT_BYTES - len(_PHOTOSHOP)
    parts = [_PHOTOSHOP + copied[i : i + room] for i in range(0, len(copied), room)]
    return b"".join(b"\xff\xed" + struct.pack(">H", len(part) + 2) + part for part in parts)


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
