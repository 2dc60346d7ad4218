"""Updates EXIF and XMP for changed pixels: the orientation, the size, and the thumbnail, which is removed.

Every other byte stays in its place. Libraries write a new block instead, in which maker notes break, because they hold
offsets into the old one. EXIF is a TIFF structure (CIPA DC-008, EXIF 2.32, section 4.6).
"""

from __future__ import annotations

import re
import struct

from restore.images.metadata.ifd import SIZES

_ORIENTATION, _EXIF_IFD = 0x0112, 0x8769
# ImageWidth and ImageLength in the first directory, PixelXDimension and PixelYDimension in the EXIF directory.
_WIDTHS, _HEIGHTS = (0x0100, 0xA002), (0x0101, 0xA003)
_THUMBNAIL_AT, _THUMBNAIL_LENGTH = 0x0201, 0x0202
_COLOR_SPACE, _INTEROPERABILITY_IFD = 0xA001, 0xA005
#: "Uncalibrated", and what some cameras write for Adobe RGB.
_UNKNOWN_SPACES = (0xFFFF, 2)
_PREFIX = b"Exif\0\0"
_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation(?:\s*=\s*[\"']|\s*>)\s*)([1-8])(?=\s*[\"'<])")
_XMP_SIZE = re.compile(
    rb"((?:tiff:Image(?:Width|Length)|exif:Pixel[XY]Dimension)(?:\s*=\s*[\"']|\s*>)\s*)(\d{1,9})(?=\s*[\"'<])"
)


def orientation_of(exif: bytes) -> int:
    """The orientation, 1 to 8; 1 if it is not stated or the block is broken."""
    for tag, kind, count, at, order in entries(exif, 0):
        if tag == _ORIENTATION and kind in (3, 4) and count == 1:
            value = struct.unpack_from(order + ("H" if kind == 3 else "I"), exif, at)[0]
            return value if 1 <= value <= 8 else 1
    return 1


def states_adobe_rgb(exif: bytes) -> bool:
    """Whether cameras' convention for Adobe RGB is followed: no known color space, and the interoperability index R03
    (CIPA DC-009, DCF 2.0, optional color space)."""
    block = without_prefix(exif)
    try:
        interoperability, space = {}, 0
        first = {tag: struct.unpack_from(order + "I", block, at)[0] for tag, _, _, at, order in entries(block, 0)}
        for tag, _, _, at, order in entries(block, first.get(_EXIF_IFD) or len(block)):
            if tag == _COLOR_SPACE:
                space = struct.unpack_from(order + "H", block, at)[0]
            elif tag == _INTEROPERABILITY_IFD:
                ifd = struct.unpack_from(order + "I", block, at)[0] or len(block)
                interoperability = {key: block[here : here + 3] for key, _, _, here, _ in entries(block, ifd)}
    except struct.error:
        return False
    return space in _UNKNOWN_SPACES and interoperability.get(1) == b"R03"


def upright_exif(exif: bytes, size: tuple[int, int]) -> bytes:
    """The block for an upright image of size (H, W): orientation 1, that size, no thumbnail."""
    out = bytearray(exif)
    exif_ifd = 0
    for tag, kind, count, at, order in entries(exif, 0):
        if tag == _ORIENTATION and kind in (3, 4) and count == 1:
            struct.pack_into(order + ("H" if kind == 3 else "I"), out, at, 1)
        elif tag == _EXIF_IFD and kind == 4:
            exif_ifd = struct.unpack_from(order + "I", exif, at)[0]
    for directory in (0, exif_ifd) if exif_ifd else (0,):
        for tag, kind, count, at, order in entries(exif, directory):
            if tag in (*_WIDTHS, *_HEIGHTS) and kind in (3, 4) and count == 1:
                value = size[0] if tag in _HEIGHTS else size[1]
                struct.pack_into(
                    order + ("H" if kind == 3 else "I"), out, at, min(value, 65535 if kind == 3 else value)
                )
    _remove_thumbnail(out)
    return bytes(out)


def upright_xmp(xmp: bytes, size: tuple[int, int], *, reoriented: bool) -> bytes:
    """The packet for an upright image of size (H, W): that size, no thumbnail.

    `tiff:Orientation` becomes 1 only if the pixels were `reoriented`. Otherwise the packet may state an orientation
    that no reader has applied to the pixels.
    """

    def sized(found: re.Match[bytes]) -> bytes:
        high = b"Length" in found[1] or b"PixelY" in found[1]
        return found[1] + str(size[0] if high else size[1]).encode()

    for name in (b"xmp:Thumbnails", b"xap:Thumbnails"):
        begin, end = xmp.find(b"<" + name), xmp.find(b"</" + name + b">")
        if 0 <= begin < end:
            xmp = xmp[:begin] + xmp[end + len(name) + 3 :]
    xmp = _XMP_SIZE.sub(sized, xmp)
    return _XMP_ORIENTATION.sub(rb"\g<1>1", xmp) if reoriented else xmp


def without_prefix(exif: bytes) -> bytes:
    """The block as a bare TIFF structure, as PNG and AVIF hold it."""
    return exif[len(_PREFIX) :] if exif.startswith(_PREFIX) else exif


def with_prefix(exif: bytes) -> bytes:
    """The block as JPEG holds it."""
    return exif if exif.startswith(_PREFIX) else _PREFIX + exif


def _layout(exif: bytes | bytearray) -> tuple[int, str, int] | None:
    """The start of the TIFF structure, its byte order, and its first directory; None if it is broken."""
    start = len(_PREFIX) if exif[: len(_PREFIX)] == _PREFIX else 0
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(bytes(exif[start : start + 4]))
    if order is None or len(exif) < start + 8:
        return None
    return start, order, struct.unpack_from(order + "I", exif, start + 4)[0]


def entries(exif: bytes | bytearray, ifd: int) -> list[tuple[int, int, int, int, str]]:
    """(tag, type, count, position of the value, byte order) of a directory's entries; `ifd` 0 = the first directory.

    Entries whose values lie beyond the end of the block are left out.
    """
    layout = _layout(exif)
    if layout is None:
        return []
    start, order, first = layout
    at = start + (ifd or first)
    if at + 2 > len(exif):
        return []
    count = struct.unpack_from(order + "H", exif, at)[0]
    found = []
    for here in range(at + 2, min(at + 2 + 12 * count, len(exif) - 11), 12):
        tag, kind, length, value = struct.unpack_from(order + "HHII", exif, here)
        size = SIZES.get(kind, 1) * length
        place = here + 8 if size <= 4 else start + value
        if place + size <= len(exif):
            found.append((tag, kind, length, place, order))
    return found


def _remove_thumbnail(exif: bytearray) -> None:
    """Unlink the second directory, which describes the thumbnail, and erase the thumbnail's JPEG."""
    layout = _layout(exif)
    if layout is None:
        return
    start, order, first = layout
    at = start + first
    if at + 2 > len(exif):
        return
    link = at + 2 + 12 * struct.unpack_from(order + "H", exif, at)[0]
    if link + 4 > len(exif):
        return
    second = struct.unpack_from(order + "I", exif, link)[0]
    struct.pack_into(order + "I", exif, link, 0)
    if not second:
        return
    thumbnail = {
        tag: struct.unpack_from(order + "I", exif, where)[0]
        for tag, kind, count, where, _ in entries(exif, second)
        if tag in (_THUMBNAIL_AT, _THUMBNAIL_LENGTH) and kind == 4 and count == 1
    }
    begin = start + thumbnail.get(_THUMBNAIL_AT, 0)
    end = begin + thumbnail.get(_THUMBNAIL_LENGTH, 0)
    if exif[begin : begin + 2] != b"\xff\xd8" or end > len(exif):  # not a JPEG: these bytes may be anything
        return
    if end >= len(exif) - 1:  # nothing follows: the block may become shorter
        del exif[begin:]
    else:
        exif[begin:end] = bytes(end - begin)
