"""The chunks of a PNG that libvips does not copy from file to file (W3C PNG, third edition, section 11)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from restore.images.metadata.exif import without_prefix

_XMP_KEYWORD = b"XML:com.adobe.xmp"
#: Chunks that are copied from a PNG to the PNG made of it: the definition of colors, resolution, texts, the time.
_PASSTHROUGH = (b"gAMA", b"cHRM", b"sRGB", b"cICP", b"pHYs", b"tEXt", b"zTXt", b"iTXt", b"tIME")
_COLOUR = (b"gAMA", b"cHRM", b"sRGB", b"cICP")
#: Bytes to which a compressed text may expand. Larger ones, which may be bombs, are not read.
_TEXT_LIMIT = 16 << 20


@dataclass(frozen=True)
class PngHeader:
    """The chunks beside the pixels.

    Attributes:
        exif: EXIF block, or None.
        frames: the number of frames.
        passthrough: chunks to copy, raw.
        has_icc: there is a color profile.
        dpi: pixels per inch across and down, if stated.
        xmp: XMP packet, or None.
    """

    exif: bytes | None = None
    frames: int = 1
    passthrough: bytes = b""
    has_icc: bool = False
    dpi: tuple[float, float] | None = None
    xmp: bytes | None = None


def read_header(data: bytes) -> PngHeader:
    """Parse all chunks, up to the first one that is broken."""
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    frames, has_icc = 1, False
    passthrough = bytearray()  # appending to bytes would copy them for each of what may be a million chunks
    for kind, body, raw in _chunks(data):
        if kind == b"eXIf":
            exif = body
        elif kind == b"acTL" and len(body) >= 4:
            frames = max(struct.unpack_from(">I", body)[0], 1)
        elif kind in (b"zTXt", b"tEXt") and body.startswith((b"Raw profile type ", b"raw profile type ")):
            exif = exif or _raw_profile_exif(kind, body)
            if body[17:].startswith(b"iptc\0"):
                passthrough += raw
        elif kind == b"iCCP":
            has_icc = True
        elif kind == b"iTXt" and body.startswith(_XMP_KEYWORD):
            xmp = xmp or _text(body)
        elif kind in _PASSTHROUGH:
            passthrough += raw
        if kind == b"pHYs":
            dpi = _dpi(body)
    return PngHeader(exif, frames, bytes(passthrough), has_icc, dpi, xmp)


def with_chunks(
    data: bytes, *, exif: bytes | None, xmp: bytes | None, passthrough: bytes, has_icc: bool, has_dpi: bool
) -> bytes:
    """Insert metadata into a PNG, after its header.

    Args:
        data: a PNG as libvips writes it, without these chunks.
        exif: an EXIF block, or None.
        xmp: an XMP packet, or None.
        passthrough: raw chunks of the source (`PngHeader.passthrough`).
        has_icc: the PNG has a color profile, so other chunks that define colors are removed.
        has_dpi: the resolution is known; otherwise the arbitrary one that libvips has written is removed.
    """
    if has_icc:
        passthrough = b"".join(raw for kind, _, raw in _chunks(data[:8] + passthrough) if kind not in _COLOUR)
    if b"pHYs" in passthrough or not has_dpi:
        data = _without(data, b"pHYs")
    new = passthrough
    if exif:
        new += _chunk(b"eXIf", without_prefix(exif))
    if xmp:
        new += _chunk(b"iTXt", _XMP_KEYWORD + b"\0\0\0\0\0" + xmp)
    end_of_header = 8 + 12 + 13
    return data[:end_of_header] + new + data[end_of_header:]


def with_end(data: bytes) -> bytes:
    """Complete the last chunk of a truncated PNG: decoders read the pixels of a chunk only if all of it is there."""
    at = 8
    while at + 8 <= len(data):
        length = struct.unpack_from(">I", data, at)[0]
        if at + 12 + length > len(data):
            if data[at + 4 : at + 8] != b"IDAT":
                break
            return data[:at] + _chunk(b"IDAT", data[at + 8 : at + 8 + length]) + _chunk(b"IEND", b"")
        at += 12 + length
    return data


def swapped_resolution(passthrough: bytes) -> bytes:
    """`PngHeader.passthrough` for an image that was turned by 90°: swaps the resolutions across and down."""
    return b"".join(
        _chunk(kind, body[4:8] + body[:4] + body[8:]) if kind == b"pHYs" else raw
        for kind, body, raw in _chunks(bytes(8) + passthrough)
    )


def color_chunks(passthrough: bytes) -> bytes:
    """The chunks of `PngHeader.passthrough` that define the colors and the resolution."""
    return b"".join(raw for kind, _, raw in _chunks(bytes(8) + passthrough) if kind in (*_COLOUR, b"pHYs"))


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """(kind, body, raw bytes) of every chunk."""
    at = 8
    while at + 12 <= len(data):
        length = struct.unpack_from(">I", data, at)[0]
        end = at + 12 + length
        if end > len(data):
            return
        kind = data[at + 4 : at + 8]
        if kind == b"IDAT":  # large, and no caller needs it
            yield kind, b"", b""
        else:
            yield kind, data[at + 8 : end - 4], data[at:end]
        at = end


def _without(data: bytes, kind: bytes) -> bytes:
    at = 8
    while at + 12 <= len(data):
        length = struct.unpack_from(">I", data, at)[0]
        if data[at + 4 : at + 8] == kind:
            return data[:at] + data[at + 12 + length :]
        if data[at + 4 : at + 8] == b"IDAT":
            break
        at += 12 + length
    return data


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _dpi(body: bytes) -> tuple[float, float] | None:
    """A pHYs chunk in pixels per inch; None if it states only the shape of a pixel."""
    if len(body) != 9 or body[8] != 1:
        return None
    across, down = (round(value * 0.0254, 2) for value in struct.unpack_from(">2I", body))
    return (across, down) if min(across, down) > 0.3 and max(across, down) < 250_000 else None


def _text(body: bytes) -> bytes | None:
    """The text of an iTXt chunk, after keyword, compression, language and translation; None if it is broken."""
    rest = body.partition(b"\0")[2]
    parts = rest[2:].split(b"\0", 2)
    if len(parts) < 3:
        return None
    if rest[:1] == b"\0":
        return parts[2]
    try:
        return zlib.decompressobj().decompress(parts[2], _TEXT_LIMIT)
    except zlib.error:
        return None


def _raw_profile_exif(kind: bytes, body: bytes) -> bytes | None:
    """An EXIF block in hexadecimal text, as ImageMagick and older tools write it."""
    keyword, _, value = body.partition(b"\0")
    if keyword.lower() not in (b"raw profile type exif", b"raw profile type app1"):
        return None
    try:
        if kind == b"zTXt":
            value = zlib.decompressobj().decompress(value[1:], _TEXT_LIMIT)
        exif = bytes.fromhex(b"".join(value.split()[2:]).decode("ascii"))
    except (zlib.error, ValueError):
        return None  # no reader could use it
    return exif if exif.startswith((b"Exif\0\0", b"II*\0", b"MM\0*")) else None
