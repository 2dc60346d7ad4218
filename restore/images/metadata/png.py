"""PNG chunks: those that pyvips does not carry from file to file."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from restore.images.metadata.exif import without_prefix

_XMP_KEYWORD = b"XML:com.adobe.xmp"
#: Chunks that go from a PNG into the PNG made of it: resolution, how colours are meant, texts, the time.
_CARRIED = (b"gAMA", b"cHRM", b"sRGB", b"cICP", b"pHYs", b"tEXt", b"zTXt", b"iTXt", b"tIME")
_COLOUR = (b"gAMA", b"cHRM", b"sRGB", b"cICP")
_TEXT_LIMIT = 16 << 20  # what a compressed text may grow to; a bomb is left packed


@dataclass(frozen=True)
class PngHeader:
    """What stands beside the pixels: the EXIF block, the number of frames, chunks to carry (raw), whether a profile,
    pixels per inch across and down, the XMP packet.
    """

    exif: bytes | None = None
    frames: int = 1
    passthrough: bytes = b""
    has_icc: bool = False
    dpi: tuple[float, float] | None = None
    xmp: bytes | None = None


def read_header(data: bytes) -> PngHeader:
    """Walk the chunks; a broken tail ends the walk."""
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    frames, passthrough, has_icc = (
        1,
        bytearray(),
        False,
    )  # bytes would be copied with every one of a million chunks
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
        elif kind in _CARRIED:
            passthrough += raw
        if kind == b"pHYs":
            dpi = _dpi(body)
    return PngHeader(exif, frames, bytes(passthrough), has_icc, dpi, xmp)


def with_chunks(
    data: bytes, *, exif: bytes | None, xmp: bytes | None, passthrough: bytes, has_icc: bool, has_dpi: bool
) -> bytes:
    """A PNG with metadata put in behind its header.

    Args:
        data: a PNG without these chunks.
        exif: an EXIF block, or None.
        xmp: an XMP packet, or None.
        passthrough: raw chunks of the source (`PngHeader.passthrough`).
        has_icc: the PNG holds a profile, beside which no other statement on colour may stand.
        has_dpi: its resolution is known; else pyvips has made one up.
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
    """A PNG that was cut inside of its pixels, with that chunk closed: decoders take a chunk whole or not at all."""
    at = 8
    while at + 8 <= len(data):
        length = struct.unpack_from(">I", data, at)[0]
        if at + 12 + length > len(data):
            if data[at + 4 : at + 8] != b"IDAT":
                break
            return data[:at] + _chunk(b"IDAT", data[at + 8 : at + 8 + length]) + _chunk(b"IEND", b"")
        at += 12 + length
    return data


def turned_resolution(passthrough: bytes) -> bytes:
    """Carried chunks for a picture that was turned onto its side: across and down change places."""
    return b"".join(
        _chunk(kind, body[4:8] + body[:4] + body[8:]) if kind == b"pHYs" else raw
        for kind, body, raw in _chunks(bytes(8) + passthrough)
    )


def colour_chunks(passthrough: bytes) -> bytes:
    """Of passed-through chunks those without which the picture would look otherwise, and its resolution."""
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
        if kind == b"IDAT":  # large, and never wanted
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
    """A pHYs chunk in pixels per inch; None where it tells the shape of a pixel alone."""
    if len(body) != 9 or body[8] != 1:
        return None
    across, down = (round(value * 0.0254, 2) for value in struct.unpack_from(">2I", body))
    return (across, down) if min(across, down) > 0.3 and max(across, down) < 250_000 else None


def _text(body: bytes) -> bytes | None:
    """What an iTXt chunk says, after keyword, compression, language and translation; None where it is broken."""
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
    """The EXIF block that ImageMagick and older tools write as hexadecimal text."""
    keyword, _, value = body.partition(b"\0")
    if keyword.lower() not in (b"raw profile type exif", b"raw profile type app1"):
        return None
    try:
        if kind == b"zTXt":
            value = zlib.decompressobj().decompress(value[1:], _TEXT_LIMIT)
        exif = bytes.fromhex(b"".join(value.split()[2:]).decode("ascii"))
    except (zlib.error, ValueError):
        return None  # not a block that anybody could read
    return exif if exif.startswith((b"Exif\0\0", b"II*\0", b"MM\0*")) else None
