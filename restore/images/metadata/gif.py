"""The extensions of a GIF: comments, XMP, and those of other applications (CompuServe, GIF89a)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from restore.images.metadata.photoshop import Captions
from restore.images.metadata.resolution import Resolution

_EXTENSION, _IMAGE, _TRAILER = 0x21, 0x2C, 0x3B
_PLAIN_TEXT, _COMMENT, _APPLICATION = 0x01, 0xFE, 0xFF
_XMP = b"XMP DataXMP"
#: XMP is stored without division into blocks. These bytes after it lead a reader of blocks to the end, wherever it is.
_MAGIC = b"\x01" + bytes(range(255, -1, -1)) + b"\0"
#: They say how often to repeat an animation.
_LOOPS = (b"NETSCAPE2.0", b"ANIMEXTS1.0")


@dataclass(frozen=True)
class GifHeader:
    """The extensions beside the pixels.

    Attributes:
        xmp: XMP packet, or None.
        passthrough: comments and extensions of applications, raw.
        resolution: the shape of a pixel, or None.
        plain_text: there is a text to be drawn over the image, which no reader draws.
        end: the position after the last block.
    """

    xmp: bytes | None = None
    passthrough: bytes = b""
    plain_text: bool = False
    end: int = 0
    resolution: Resolution | None = None


def read_header(data: bytes) -> GifHeader:
    """Parse all extensions, up to the first block that is broken."""
    xmp, plain_text, end = None, False, len(data)
    passthrough = bytearray()
    for kind, begin, stop in _blocks(data):
        if kind == _TRAILER:
            end = stop
        elif kind == _PLAIN_TEXT:
            plain_text = True
        elif kind == _APPLICATION and data[begin + 3 : begin + 14] == _XMP:
            body = data[begin + 14 : stop]
            xmp = xmp or (body[: -len(_MAGIC)] if body.endswith(_MAGIC) else None)
        elif kind == _COMMENT or (kind == _APPLICATION and data[begin + 3 : begin + 14] not in _LOOPS):
            passthrough += data[begin:stop]
    ratio = data[12] if len(data) > 12 else 0  # width by height of a pixel: 15 more, in 64ths
    resolution = Resolution(64, ratio + 15, 0) if ratio else None
    return GifHeader(xmp, bytes(passthrough), plain_text, end, resolution)


def with_extensions(
    data: bytes, *, xmp: bytes | None, passthrough: bytes, shape: tuple[float, float] | None = None
) -> bytes:
    """Insert extensions into a GIF, before its first image, and state the shape of its pixels.

    Args:
        data: a GIF.
        xmp: an XMP packet, or None.
        passthrough: raw extensions of the source (`GifHeader.passthrough`).
        shape: of a pixel, as densities across and down; None = square.
    """
    new = passthrough
    ratio = 0 if shape is None else min(max(round(64 * shape[1] / shape[0]) - 15, 1), 255)
    if xmp:
        new += bytes((_EXTENSION, _APPLICATION, len(_XMP))) + _XMP + xmp + _MAGIC
    at = _after_palette(data)
    return b"GIF89a" + data[6:12] + bytes((ratio,)) + data[13:at] + new + data[at:] if new or ratio else data


def contents(passthrough: bytes) -> list[str]:
    """What `GifHeader.passthrough` holds, in words."""
    found: dict[str, None] = {}
    for kind, begin, _ in _blocks(bytes(13) + passthrough):
        name = passthrough[begin - 13 + 3 : begin - 13 + 14].decode("latin-1")
        found["the comment" if kind == _COMMENT else f"the extension {name!r}"] = None
    return list(found)


def take_captions(passthrough: bytes, *, resources: bool, comment: bool) -> tuple[Captions, bytes]:
    """The comments in `GifHeader.passthrough`, if asked for, and its other extensions. It holds no resources."""
    comments, rest = [], bytearray()
    for kind, begin, end in _blocks(bytes(13) + passthrough):
        if comment and kind == _COMMENT:
            comments.append(_joined(passthrough, begin - 11))
        else:
            rest += passthrough[begin - 13 : end - 13]
    return Captions(comment=b"\n".join(comments)), bytes(rest)


def of_captions(found: Captions) -> bytes:
    """The extension that holds a comment."""
    if not found.comment:
        return b""
    parts = [found.comment[i : i + 255] for i in range(0, len(found.comment), 255)]
    return bytes((_EXTENSION, _COMMENT)) + b"".join(bytes((len(part),)) + part for part in parts) + b"\0"


def _joined(data: bytes, at: int) -> bytes:
    """The data of the blocks that begin at a position."""
    joined = bytearray()
    while at < len(data) and data[at]:
        joined += data[at + 1 : at + 1 + data[at]]
        at += 1 + data[at]
    return bytes(joined)


def _after_palette(data: bytes) -> int:
    packed = data[10] if len(data) > 10 else 0
    return 13 + (3 << (packed & 7) + 1 if packed & 0x80 else 0)


def _blocks(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(label of an extension or of another block, begin, end)."""
    at = _after_palette(data)
    while at < len(data):
        begin, kind = at, data[at]
        if kind == _TRAILER:
            yield kind, begin, at + 1
            return
        if kind == _EXTENSION and at + 2 < len(data):
            kind, at = data[at + 1], at + 2
        elif kind == _IMAGE and at + 11 <= len(data):
            packed = data[at + 9]
            at += 11 + (3 << (packed & 7) + 1 if packed & 0x80 else 0)
        else:
            return
        while at < len(data) and data[at]:
            at += 1 + data[at]
        at += 1
        if at > len(data):
            return
        yield kind, begin, at
