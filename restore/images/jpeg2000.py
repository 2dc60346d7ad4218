"""Reads JPEG 2000 (ISO/IEC 15444-1): Pillow decodes, OpenCV if colors have more than 8 bits."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field

import cv2
import numpy as np

from restore.images.decode_pillow import decode_with_pillow
from restore.images.decoder_output import DecoderOutput, check_size
from restore.images.formats import UnsupportedFile
from restore.images.metadata.boxes import boxes_in
from restore.images.quiet import QUIET_OPENCV

_EXIF = b"JpgTiffExif->JP2"
_UUIDS = {
    bytes.fromhex("b14bf8bd083d4b43a5ae8cd7d5a6ce03"): "its GeoTIFF block",
    bytes.fromhex("33c7a4d2b81d4723a0baf1a3e097ad38"): "its IPTC caption",
}
#: `EnumCS` of colors that are read: bilevel, sRGB, gray, YCbCr; and what others are called (ISO/IEC 15444-2, M.11.7).
_COLORS = (0, 15, 16, 17, 18)
_COLOR_NAMES = {12: "CMYK", 13: "YCCK", 14: "CIELab", 19: "CIEJab", 21: "ROMM-RGB"}
_XMP = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")


@dataclass
class Header:
    """What the boxes and the codestream of a JPEG 2000 say.

    Attributes:
        size: (W, H).
        bits: of each component.
        signed: a component is signed.
        color: the `EnumCS` of the color box (16 sRGB, 17 gray, 18 YCbCr); None: there is none.
        fields: as in `DecoderOutput`.
        dpi: pixels per inch across and down, of the capture or display resolution.
        channels: the types that the boxes declare of channels (0 color, 1 transparency, 2 the same with premultiplied
            colors); None: the file is a bare codestream, which cannot declare any.
        left_out: what other boxes hold, in words.
    """

    size: tuple[int, int] = (0, 0)
    bits: list[int] = field(default_factory=list)
    signed: bool = False
    color: int | None = None
    fields: dict[str, bytes] = field(default_factory=dict)
    dpi: tuple[float, float] | None = None
    channels: list[int] | None = None
    left_out: list[str] = field(default_factory=list)


def decode_jpeg2000(data: bytes, name: str | os.PathLike[str], max_pixels: int) -> DecoderOutput:
    """Decode a JPEG 2000.

    Raises:
        DamagedFile, ImageTooLarge, UnsupportedFile: exit code 1, as for `decode`.
    """
    header = read_header(data)
    check_size(*header.size, max_pixels, name)
    if reason := _refusal(header):
        what = f"the JPEG 2000 is not supported: {reason}"
        raise UnsupportedFile(what, where=name, hint="convert it to TIFF first", exit_code=1)
    output = _deep(data, header) or decode_with_pillow(data, "jp2", name, max_pixels)
    output.fields |= header.fields
    output.dpi = header.dpi
    output.transparent = header.channels is None or 1 in header.channels
    output.notes.extend(f"{what} is left out" for what in dict.fromkeys(header.left_out))
    return output


def _refusal(header: Header) -> str:
    """Why the pixels cannot be read; "" if nothing speaks against it."""
    if header.signed:
        return "its values are signed"
    if 2 in (header.channels or ()):
        return "its colors are multiplied by its transparency"
    if header.color is not None and header.color not in _COLORS:
        return f"its colors are {_COLOR_NAMES.get(header.color, f'of the enumerated color space {header.color}')}"
    space = header.fields.get("icc-profile-data", b"")[16:20]
    return f"its colors are {space.decode('ascii').strip()}" if space in (b"CMYK", b"Lab ") else ""


def _deep(data: bytes, header: Header) -> DecoderOutput | None:
    """RGB or gray of 9 to 16 bits in 16 bits; None for all other kinds, which Pillow decodes."""
    bits = set(header.bits)
    if len(header.bits) not in (1, 3) or len(bits) > 1 or not 8 < min(bits) <= 16 or header.color == 18:
        return None
    try:
        with QUIET_OPENCV:
            values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    count = len(header.bits)
    if values is None or values.dtype != np.uint16 or values.size != header.size[0] * header.size[1] * count:
        return None
    values = values.reshape(header.size[1], header.size[0], count)[:, :, ::-1]
    most = (1 << header.bits[0]) - 1
    if most < 65535:
        values = ((values.astype(np.uint32) * 65535 + most // 2) // most).astype(np.uint16)
    return DecoderOutput(np.ascontiguousarray(values), count, bits=header.bits[0], white=65535.0)


def read_header(data: bytes) -> Header:
    """Read the boxes and the `SIZ` segment."""
    header = Header()
    codestream = 0 if data[:4] == b"\xff\x4f\xff\x51" else -1
    for kind, _, start, end in boxes_in(data, 0, len(data), cut=True) if codestream else ():
        if kind == b"jp2c":
            codestream = start
        elif kind == b"uuid" and data[start : start + 16] in (_EXIF, _XMP):
            field_name = "exif-data" if data[start : start + 16] == _EXIF else "xmp-data"
            header.fields[field_name] = data[start + 16 : end]
        elif kind == b"uuid":
            header.left_out.append(_UUIDS.get(bytes(data[start : start + 16]), "a box of another program (UUID)"))
        elif kind == b"xml ":
            header.left_out.append("a description in XML")
        elif kind == b"jp2h":
            header.channels = []
            _read_jp2h(data, start, end, header)
    if codestream >= 0 and data[codestream : codestream + 4] == b"\xff\x4f\xff\x51" and len(data) > codestream + 42:
        right, bottom, left, top = struct.unpack_from(">4I", data, codestream + 8)
        (count,) = struct.unpack_from(">H", data, codestream + 40)
        precisions = data[codestream + 42 : codestream + 42 + 3 * count : 3]
        header.size = (max(right - left, 0), max(bottom - top, 0))
        header.bits = [(precision & 127) + 1 for precision in precisions]
        header.signed = any(precision & 128 for precision in precisions)
    return header


def _read_jp2h(data: bytes, start: int, end: int, header: Header) -> None:
    for kind, _, at, stop in boxes_in(data, start, end, cut=True):
        if kind == b"colr" and header.color is None and "icc-profile-data" not in header.fields:
            method = data[at : min(at + 1, stop)]
            if method == b"\1":
                header.color = int.from_bytes(data[at + 3 : at + 7], "big")
            elif method in (b"\2", b"\3"):
                header.fields["icc-profile-data"] = data[at + 3 : stop]
        elif kind == b"cdef":  # number, type and color of each channel
            header.channels = [
                type_ for _, type_, _ in struct.iter_unpack(">3H", data[at + 2 : stop - (stop - at - 2) % 6])
            ]
        elif kind == b"res ":
            for _, _, place, last in boxes_in(data, at, stop):
                if last - place >= 10:
                    down, by, across, by2, e, e2 = struct.unpack_from(">4H2b", data, place)
                    if by and by2:
                        header.dpi = (across / by2 * 10.0**e2 * 0.0254, down / by * 10.0**e * 0.0254)
