"""Colors that AVIF and HEIC state by code points (ISO/IEC 14496-12, ISO/IEC 23008-12, AV1 bitstream, ITU-T H.273)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from restore.images.metadata.av1 import SequenceHeader, quantizer, sequence_headers
from restore.images.metadata.boxes import boxes_in

#: "Unspecified" in ITU-T H.273.
_UNSPECIFIED = 2
_IDENTITY = 0
#: The headers of a bitstream lie at its beginning.
_HEAD_BYTES = 4096


@dataclass(frozen=True)
class HeifHeader:
    """How the first image of an AVIF or HEIC is coded.

    Attributes:
        code_points: (color primaries, transfer characteristics) of ITU-T H.273, 2 = unspecified; None: not stated.
        matrix: matrix coefficients; 0: red, green and blue themselves, as lossless images are coded.
        full_range: the values use all codes, not only those of video.
        gray: only lightness is coded.
        quantizer: how coarsely an AVIF is quantized, 0 (without loss) to 255; None: unknown.
        bits: bits per channel.
        turned: the file asks to rotate or mirror the pixels, which decoders do.
    """

    code_points: tuple[int, int] | None = None
    matrix: int = _UNSPECIFIED
    full_range: bool = True
    gray: bool = False
    quantizer: int | None = None
    bits: int = 8
    turned: bool = False

    @property
    def lossless(self) -> bool:
        """Without loss, or coded as red, green and blue: encoders do that for lossless images alone."""
        return self.quantizer == 0 or self.matrix == _IDENTITY


def read_header(data: bytes) -> HeifHeader:
    """Read the properties of the primary image. A file that cannot be parsed states nothing."""
    try:
        return _header(data)
    except (struct.error, IndexError, KeyError, ValueError):
        return HeifHeader()


def with_code_points(data: bytes, code_points: tuple[int, int]) -> bytes:
    """State the colors of an AVIF by code points.

    Args:
        data: an AVIF as libheif writes it, without a color profile.
        code_points: see `HeifHeader`.

    Raises:
        ValueError: the file is not built as expected.
    """
    out = bytearray(data)
    try:
        meta, _, boxes = _meta(data)
        item = _primary(data, boxes)
        _, properties, associations = _properties(data, boxes)
        own = {properties[i - 1][0]: properties[i - 1] for i in associations[item][1]}
        matrix = 6
        for _, start, end in _of_kinds(properties, b"av1C"):
            for obu in sequence_headers(data, start + 4, end):
                matrix = _state_in_sequence(out, data, obu, code_points)
        for _, start, end in _items_data(data, boxes, item):
            for obu in sequence_headers(data, start, end):
                matrix = _state_in_sequence(out, data, obu, code_points)
        if b"colr" in own and data[own[b"colr"][1] :][:4] == b"nclx":
            struct.pack_into(">2H", out, own[b"colr"][1] + 4, *code_points)
            return bytes(out)
        return _with_property(out, meta, boxes, item, _color_box(code_points, matrix))
    except (struct.error, IndexError, KeyError) as error:
        raise ValueError("the code points of the colors cannot be written") from error


def with_exif(data: bytes, exif: bytes) -> bytes:
    """Replace the EXIF block of a file. libvips writes a new one, with a resolution even where there is none.

    Args:
        data: an AVIF as libheif writes it, with an EXIF block.
        exif: the block to put in its place, without the prefix of JPEG.

    Raises:
        ValueError: the file is not built as expected.
    """
    out = bytearray(data)
    try:
        _, _, boxes = _meta(data)
        item = _item_of_type(data, boxes, b"Exif")
        ((at, size, offset, length, length_at),) = [found[1:] for found in _extents(data, boxes) if found[0] == item]
        if size != 4 or struct.unpack_from(">I", data, length_at)[0] != length or offset + length > len(data):
            raise KeyError("iloc")
        out[offset : offset + length] = bytes(length)
        start = min(place for order in (b"II*\0", b"MM\0*") if (place := exif.find(order)) >= 0)
        # The position of the TIFF structure in the block, and the block. Readers refuse a file with anything before it.
        body = bytes(4) + exif[start:]
        (stored,) = struct.unpack_from(">I", data, at)
        struct.pack_into(">I", out, at, stored + len(data) + 8 - offset)
        struct.pack_into(">I", out, length_at, len(body))
        return bytes(out) + struct.pack(">I4s", 8 + len(body), b"mdat") + body
    except (struct.error, IndexError, KeyError, ValueError) as error:
        raise ValueError("the EXIF block cannot be written") from error


def _item_of_type(data: bytes, boxes: dict[bytes, _Box], kind: bytes) -> int:
    _, start, end = boxes[b"iinf"]
    for name, at, _ in _boxes(data, start + (6 if data[start] == 0 else 8), end):
        form = ">H2x4s" if data[at] == 2 else ">I2x4s"
        if name == b"infe" and data[at] in (2, 3):
            item, found = struct.unpack_from(form, data, at + 4)
            if found == kind:
                return int(item)
    raise KeyError("infe")


def _header(data: bytes) -> HeifHeader:
    _, _, boxes = _meta(data)
    _, properties, associations = _properties(data, boxes)
    item = _primary(data, boxes)
    own = [properties[i - 1] for i in associations[item][1] if 0 < i <= len(properties)]
    coded = own
    if not any(kind in (b"av1C", b"hvcC") for kind, _, _ in own):  # a grid: its tiles are items of their own
        coded = properties
    points, matrix, full_range, gray, coarseness, bits = None, _UNSPECIFIED, True, False, None, 8
    for kind, start, end in coded:
        if kind == b"hvcC":
            gray, bits = data[start + 16] & 3 == 0, 8 + (data[start + 17] & 7)
            break
        if kind == b"av1C":
            gray = bool(data[start + 2] & 16)
            bits = 8 if not data[start + 2] & 64 else 12 if data[start + 2] & 32 else 10
            headers = list(sequence_headers(data, start + 4, end))
            for _, at, stop in _items_data(data, boxes, item):
                headers += sequence_headers(data, at, stop)
                coarseness = quantizer(data[at:stop]) if coded is own else None
            if headers:
                sequence = SequenceHeader(data[headers[0][0] : headers[0][1]])
                full_range, matrix = sequence.full_range, sequence.matrix
                points = sequence.code_points
            break
    for kind, start, _ in own:
        if kind == b"colr" and data[start : start + 4] == b"nclx":
            primaries, transfer, matrix = struct.unpack_from(">3H", data, start + 4)
            points, full_range = (primaries, transfer), bool(data[start + 10] & 128)
    turned = any(kind == b"imir" or (kind == b"irot" and data[start] & 3) for kind, start, _ in own)
    return HeifHeader(points, matrix, full_range, gray, coarseness, bits, turned)


# Boxes: (kind, start and end of the body)

_Box = tuple[bytes, int, int]


def _boxes(data: bytes, at: int, end: int) -> Iterator[_Box]:
    return ((box.kind, box.start, box.end) for box in boxes_in(data, at, end))


def _of_kinds(boxes: list[_Box], *kinds: bytes) -> list[_Box]:
    return [box for box in boxes if box[0] in kinds]


def _meta(data: bytes) -> tuple[int, int, dict[bytes, _Box]]:
    """Start and end of the `meta` box's body, and the boxes in it."""
    for kind, start, end in _boxes(data, 0, len(data)):
        if kind == b"meta":
            return start, end, {box[0]: box for box in _boxes(data, start + 4, end)}
    raise ValueError("there is no meta box")


def _primary(data: bytes, boxes: dict[bytes, _Box]) -> int:
    _, start, _ = boxes[b"pitm"]
    return int(struct.unpack_from(">H" if data[start] == 0 else ">I", data, start + 4)[0])


def _properties(
    data: bytes, boxes: dict[bytes, _Box]
) -> tuple[dict[bytes, _Box], list[_Box], dict[int, tuple[int, list[int]]]]:
    """The boxes of `iprp`, the properties, and by item the position of its associations' count and their indices."""
    _, start, end = boxes[b"iprp"]
    parts = {box[0]: box for box in _boxes(data, start, end)}
    properties = list(_boxes(data, *parts[b"ipco"][1:]))
    _, at, _ = parts[b"ipma"]
    version, wide = data[at], data[at + 3] & 1
    (count,) = struct.unpack_from(">I", data, at + 4)
    at += 8
    associations: dict[int, tuple[int, list[int]]] = {}
    for _ in range(count):
        form = ">H" if version == 0 else ">I"
        (item,) = struct.unpack_from(form, data, at)
        at += struct.calcsize(form)
        number, step = data[at], 2 if wide else 1
        indices = [
            struct.unpack_from(">H", data, at + 1 + 2 * i)[0] & 0x7FFF if wide else data[at + 1 + i] & 0x7F
            for i in range(number)
        ]
        associations[item] = (at, indices)
        at += 1 + step * number
    return parts, properties, associations


def _extents(data: bytes, boxes: dict[bytes, _Box]) -> Iterator[tuple[int, int, int, int, int, int]]:
    """Where items lie in the file: item, position and size of the field with the offset, the offset, the length, and
    the position of the field with the length.
    """
    _, at, _ = boxes[b"iloc"]
    version = data[at]
    offset_size, length_size = data[at + 4] >> 4, data[at + 4] & 15
    base_size, index_size = data[at + 5] >> 4, data[at + 5] & 15 if version else 0

    def number(at: int, size: int) -> int:
        if at + size > len(data):
            raise IndexError
        return int.from_bytes(data[at : at + size], "big")

    if not offset_size + length_size + index_size:
        raise ValueError("extents take no space")
    wide = 4 if version == 2 else 2
    count, at = number(at + 6, wide), at + 6 + wide
    for _ in range(count):
        item, at = number(at, wide), at + wide
        method = 0
        if version:
            method, at = number(at, 2) & 15, at + 2
        at += 2
        base_at, base, at = at, number(at, base_size), at + base_size
        extents, at = number(at, 2), at + 2
        for _ in range(extents):
            at += index_size
            offset, length = number(at, offset_size), number(at + offset_size, length_size)
            if method == 0:
                field_at, size = (base_at, base_size) if base else (at, offset_size)
                yield item, field_at, size, base + offset, length, at + offset_size
            at += offset_size + length_size


def _items_data(data: bytes, boxes: dict[bytes, _Box], item: int) -> list[_Box]:
    return [
        (b"mdat", offset, min(offset + min(length, _HEAD_BYTES), len(data)))
        for owner, _, _, offset, length, _ in _extents(data, boxes)
        if owner == item
    ][:1]


def _color_box(code_points: tuple[int, int], matrix: int) -> bytes:
    return struct.pack(">I4s4s3HB", 19, b"colr", b"nclx", *code_points, matrix, 128)


def _with_property(out: bytearray, meta: int, boxes: dict[bytes, _Box], item: int, box: bytes) -> bytes:
    """Add a property of an item: a box in `ipco`, its number in `ipma`; everything behind moves."""
    data = bytes(out)
    parts, properties, associations = _properties(data, boxes)
    count_at, indices = associations[item]
    wide = data[parts[b"ipma"][1] + 3] & 1
    number = struct.pack(">H", len(properties) + 1) if wide else bytes([len(properties) + 1])
    grown = len(box) + len(number)
    for _, at, size, offset, *_ in list(_extents(data, boxes)):
        if size != 4 or offset < boxes[b"iprp"][2]:
            raise KeyError("iloc")
        struct.pack_into(">I", out, at, offset + grown)
    for start, more in (
        (meta, grown),
        (boxes[b"iprp"][1], grown),
        (parts[b"ipco"][1], len(box)),
        (parts[b"ipma"][1], len(number)),
    ):
        (size,) = struct.unpack_from(">I", data, start - 8)
        struct.pack_into(">I", out, start - 8, size + more)
    out[count_at] += 1
    # From the end, so that positions before stay valid.
    inserts = [(parts[b"ipco"][2], box), (count_at + 1 + len(indices) * (2 if wide else 1), number)]
    for at, new in sorted(inserts, reverse=True):
        out[at:at] = new
    return bytes(out)


def _state_in_sequence(out: bytearray, data: bytes, header: tuple[int, int], code_points: tuple[int, int]) -> int:
    """Overwrite the code points in a sequence header, if it states any. Returns its matrix coefficients."""
    start, end = header
    sequence = SequenceHeader(data[start:end])
    if sequence.stated_at is None or sequence.is_srgb:  # readers then follow the box of the file
        return sequence.matrix
    for i, bit in enumerate(f"{code_points[0]:08b}{code_points[1]:08b}"):
        at = sequence.stated_at + i
        mask = 128 >> (at & 7)
        byte = start + (at >> 3)
        out[byte] = out[byte] | mask if bit == "1" else out[byte] & ~mask
    return sequence.matrix
