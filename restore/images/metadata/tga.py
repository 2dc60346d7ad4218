"""The parts of a TGA beside its pixels: a name before them and the extension area at the end (Truevision, TGA 2.0)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from restore.images.metadata.resolution import Resolution

_SIGNATURE = b"TRUEVISION-XFILE.\0"
_HEADER_BYTES, _EXTENSION_BYTES, _FOOTER_BYTES = 18, 495, 26
#: In the extension area: the shape of a pixel, and positions in the file (of a color correction, a thumbnail and the
#: lines of the image), which end before its last byte.
_SHAPE, _POSITIONS = 474, 482


@dataclass(frozen=True)
class TgaHeader:
    """What stands beside the pixels.

    Attributes:
        passthrough: the name, after its length, and the extension area (author, comments, date, program, ...) without
            positions in the file.
        resolution: the shape of a pixel, or None.
        left_out: what is not kept.
    """

    passthrough: bytes = b""
    resolution: Resolution | None = None
    left_out: tuple[str, ...] = ()


def read_header(data: bytes) -> TgaHeader:
    """Read the name and, from the end of the file, the extension area."""
    name = data[_HEADER_BYTES : _HEADER_BYTES + data[0]] if data else b""
    extension, resolution, left_out = b"", None, []
    if len(data) > _FOOTER_BYTES and data.endswith(_SIGNATURE):
        at, developer = struct.unpack_from("<II", data, len(data) - _FOOTER_BYTES)
        area = data[at : at + _EXTENSION_BYTES] if at else b""
        if len(area) == _EXTENSION_BYTES and struct.unpack_from("<H", area)[0] == _EXTENSION_BYTES:
            extension = area[:_POSITIONS] + bytes(12) + area[-1:]
            across, down = struct.unpack_from("<HH", area, _SHAPE)
            resolution = Resolution(down, across, 0) if across and down else None
            if struct.unpack_from("<I", area, _POSITIONS)[0]:
                left_out.append("its table of color correction")
        if developer:
            left_out.append("its developer area")
    return TgaHeader(bytes([len(name)]) + name + extension if name or extension else b"", resolution, tuple(left_out))


def with_parts(data: bytes, passthrough: bytes) -> bytes:
    """A TGA with a name and an extension area.

    Args:
        data: a TGA without a name, with a footer, as Pillow writes it.
        passthrough: of the source (`TgaHeader.passthrough`).
    """
    if not passthrough:
        return data
    name, extension = passthrough[1 : 1 + passthrough[0]], passthrough[1 + passthrough[0] :]
    body = passthrough[:1] + data[1:_HEADER_BYTES] + name + data[_HEADER_BYTES:-_FOOTER_BYTES]
    at = len(body) if extension else 0
    return body + extension + struct.pack("<II", at, 0) + _SIGNATURE


def contents(passthrough: bytes) -> list[str]:
    """What `TgaHeader.passthrough` holds, in words."""
    if not passthrough:
        return []
    found = ["the name in it"] if passthrough[0] else []
    return found + (["its extension area"] if len(passthrough) > 1 + passthrough[0] else [])
