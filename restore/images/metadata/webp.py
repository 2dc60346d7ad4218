"""The chunks of a WebP that no library copies (RFC 9649, 2.7)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from restore.images.metadata.vp8 import quantizer

_KNOWN = (b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP", b"EXIF", b"XMP ")
_CREDENTIALS = b"C2PA"


@dataclass(frozen=True)
class WebpHeader:
    """What stands beside the pixels.

    Attributes:
        lossless: the (first) frame is lossless: a `VP8L` chunk, which other chunks may precede.
        quantizer: of a lossy (first) frame; None: unknown.
        passthrough: unknown chunks, raw; the format asks writers to keep them.
        left_out: what is not kept.
        end: the position after the last chunk.
    """

    lossless: bool = False
    quantizer: int | None = None
    passthrough: bytes = b""
    left_out: tuple[str, ...] = ()
    end: int = 0


def read_header(data: bytes) -> WebpHeader:
    """Parse all chunks, up to the first one that is broken."""
    first: list[tuple[bytes, int, int]] | None = None
    passthrough, end = bytearray(), len(data)
    left_out: list[str] = []
    if len(data) >= 12:
        size = struct.unpack_from("<I", data, 4)[0]
        end = min(8 + size + size % 2, len(data))
    for kind, begin, stop in _chunks(data, 12, end):
        if kind == b"ANMF" and first is None:  # it holds the chunks of an image, after 16 bytes on place and time
            first = [inner for inner in _chunks(data, begin + 24, stop) if inner[0] in (b"VP8 ", b"VP8L")][:1]
        elif kind in (b"VP8 ", b"VP8L") and first is None:
            first = [(kind, begin, stop)]
        elif kind == _CREDENTIALS:
            left_out.append("its manifest of content credentials (C2PA)")
        elif kind not in _KNOWN and begin + 8 + struct.unpack_from("<I", data, begin + 4)[0] > stop:
            left_out.append("a chunk that is cut short")
        elif kind not in _KNOWN:
            passthrough += data[begin:stop] + bytes((stop - begin) % 2)
    kind, begin, stop = first[0] if first else (b"", 0, 0)
    coarseness = quantizer(bytes(data[begin + 8 : min(begin + 208, stop)])) if kind == b"VP8 " else None
    return WebpHeader(kind == b"VP8L", coarseness, bytes(passthrough), tuple(dict.fromkeys(left_out)), end)


def with_chunks(data: bytes, passthrough: bytes, size: tuple[int, int], *, alpha: bool) -> bytes:
    """Append raw chunks to a WebP. Only the extended format holds them, so a simple file becomes an extended one.

    Args:
        data: a WebP.
        passthrough: raw chunks of the source (`WebpHeader.passthrough`).
        size: (H, W).
        alpha: it has transparency.
    """
    if not passthrough:
        return data
    extended = b""
    if data[12:16] != b"VP8X":
        canvas = b"".join(struct.pack("<I", length - 1)[:3] for length in (size[1], size[0]))
        extended = b"VP8X" + struct.pack("<IB3x", 10, 16 if alpha else 0) + canvas
    body = data[8:12] + extended + data[12:] + passthrough
    return data[:4] + struct.pack("<I", len(body)) + body


def contents(passthrough: bytes) -> list[str]:
    """What `WebpHeader.passthrough` holds, in words."""
    names = (kind.decode("latin-1") for kind, _, _ in _chunks(passthrough, 0, len(passthrough)))
    return list(dict.fromkeys(f"the chunk {name!r}" for name in names))


def _chunks(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(kind, begin, end) of the chunks in a part of a file; the last one may be cut."""
    while at + 8 <= end:
        kind, length = struct.unpack_from("<4sI", data, at)
        stop = at + 8 + length + length % 2
        yield kind, at, min(stop, end)
        at = stop
