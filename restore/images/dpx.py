"""DPX, the frames of film scanners and of television (SMPTE ST 268): pixels in and out, below a header that stays.

What is read: one element of RGB, RGB with alpha, or luma, of 8, 10, 12 or 16 bits, big- or little-endian, not
compressed. The order of 10-bit values in a word is that of FFmpeg and ImageMagick: the first of three colors is in the
upper bits, the first of three gray pixels in the lower ones.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

import numpy as np

from restore.images.decoder_output import (
    DamagedFile,
    DecoderOutput,
    check_size,
    damage_note,
    fill_low_bits,
    undecodable,
)
from restore.images.formats import UnsupportedFile

_BIG, _LITTLE = b"SDPX", b"XPDS"
#: The headers that every file has: of the file, of the image and of its source.
_HEADER_BYTES = 1664
_UNDEFINED = 0xFFFFFFFF
#: A header that claims to be longer is not believed.
_LARGEST_HEADER = 16 << 20
#: Positions in the header.
_OFFSET, _FILE_SIZE, _ORIENTATION, _ELEMENTS, _WIDTH, _HEIGHT = 4, 16, 768, 770, 772, 776
_SIGN, _DESCRIPTOR, _TRANSFER, _BITS, _PACKING, _ENCODING, _DATA, _END_OF_LINE = (
    780, 800, 801, 803, 804, 806, 808, 812
)  # fmt: skip
#: Texts, which may name people and places, and the data of users behind them: positions and lengths.
_TEXTS = ((36, 100), (136, 24), (160, 100), (260, 200), (460, 200), (820, 32), (1432, 100), (1532, 24), (1556, 64))
_LATER_TEXTS = ((1732, 32), (1764, 100), (2048, _LARGEST_HEADER))

_CHANNELS = {6: 1, 50: 3, 51: 4}
_KINDS = {
    0: "of a user's own kind", 1: "red alone", 2: "green alone", 3: "blue alone", 4: "alpha alone", 7: "chroma alone",
    8: "depth", 9: "composite video", 52: "ABGR", 100: "YCbCr 4:2:2", 101: "YCbCr 4:2:2 with alpha",
    102: "YCbCr 4:4:4", 103: "YCbCr 4:4:4 with alpha",
}  # fmt: skip
#: The EXIF orientation of each order of lines and pixels.
_EXIF_ORIENTATION = (1, 2, 4, 3, 5, 6, 8, 7)
#: Transfer characteristics: density on film, light, and video, which is shown as it is.
_LOG, _LINEAR, _VIDEO = (1, 3), 2, range(4, 11)


@dataclass(frozen=True)
class DpxHeader:
    """What the header of a DPX says of its pixels.

    Attributes:
        order: `>` or `<`, of bytes.
        width, height: as stored.
        channels: 1 (luma), 3 or 4 (with alpha).
        bits: of a value.
        packing: 1: the unused bits of a word are the lower ones; else the upper ones.
        transfer: what values mean; see SMPTE ST 268, table 5A.
        orientation: as of EXIF.
        offset: of the first pixel.
        padding: bytes behind each row.
    """

    order: str
    width: int
    height: int
    channels: int
    bits: int
    packing: int
    transfer: int
    orientation: int
    offset: int
    padding: int

    @property
    def row_bytes(self) -> int:
        """The bytes of a row, without those to the next multiple of four."""
        values = self.width * self.channels
        if self.bits == 10:
            return -(-values // 3) * 4
        return values * (1 if self.bits == 8 else 2)

    @property
    def log(self) -> bool:
        """Values are densities of film."""
        return self.transfer in _LOG

    @property
    def linear(self) -> bool:
        """Values are light."""
        return self.transfer == _LINEAR

    @property
    def plain(self) -> bool:
        """Values are taken as sRGB."""
        return not (self.log or self.linear)

    def stride(self, available: int) -> int:
        """The bytes from row to row.

        Args:
            available: bytes of the file from the first pixel on. Some programs do not pad rows to four bytes.
        """
        aligned = -(-self.row_bytes // 4) * 4 + self.padding
        fits = (self.height - 1) * aligned + self.row_bytes <= available
        return aligned if fits or self.height * self.row_bytes > available else self.row_bytes


def read_header(data: bytes, name: str | os.PathLike[str] = "") -> DpxHeader:
    """The header of a DPX.

    Raises:
        DamagedFile: exit code 1; the header is cut short, or says what cannot be.
        UnsupportedFile: exit code 1; pixels of a kind that is not read.
    """
    if len(data) < _HEADER_BYTES or data[:4] not in (_BIG, _LITTLE):
        raise undecodable("dpx", "the header is cut short", name)
    order = ">" if data[:4] == _BIG else "<"

    def number(at: int, kind: str = "I") -> int:
        return int(struct.unpack_from(order + kind, data, at)[0])

    def refuse(reason: str) -> UnsupportedFile:
        what = f"the DPX is not supported: {reason}"
        return UnsupportedFile(what, where=name, hint="convert it to RGB of 10 or 16 bits first", exit_code=1)

    elements, descriptor, bits = number(_ELEMENTS, "H"), number(_DESCRIPTOR, "B"), number(_BITS, "B")
    packing = number(_PACKING, "H")
    if elements > 1:
        raise refuse(f"it has {elements} elements")
    if descriptor not in _CHANNELS:
        raise refuse(f"its pixels are {_KINDS.get(descriptor, f'of the kind {descriptor}')}")
    if bits not in (8, 10, 12, 16):
        raise refuse(f"values of {bits} bits")
    if number(_ENCODING, "H") not in (0, 0xFFFF):
        raise refuse("its pixels are compressed")
    if number(_SIGN) == 1:
        raise refuse("its values have a sign")
    if bits in (10, 12) and packing not in (1, 2):
        raise refuse(f"values of {bits} bits without filling bits")
    if bits == 10 and descriptor == 51:
        raise refuse("alpha of 10 bits")
    offset = number(_DATA)
    if not _HEADER_BYTES <= offset <= min(len(data), _LARGEST_HEADER):  # many programs fill in one of the two
        offset = number(_OFFSET)
    if not _HEADER_BYTES <= offset <= _LARGEST_HEADER:
        raise undecodable("dpx", f"the header says that pixels begin at byte {offset}", name)
    orientation, padding = number(_ORIENTATION, "H"), number(_END_OF_LINE)
    header = DpxHeader(
        order=order,
        width=number(_WIDTH),
        height=number(_HEIGHT),
        channels=_CHANNELS[descriptor],
        bits=bits,
        packing=packing,
        transfer=number(_TRANSFER, "B"),
        orientation=_EXIF_ORIENTATION[orientation] if orientation < len(_EXIF_ORIENTATION) else 1,
        offset=offset,
        padding=0 if padding == _UNDEFINED else padding,
    )
    if header.padding > 1 << 16:
        raise undecodable("dpx", f"the header says that {padding} bytes follow each row", name)
    return header


def decode_dpx(
    data: bytes, name: str | os.PathLike[str], max_pixels: int, *, allow_truncated: bool = False
) -> DecoderOutput:
    """Decode a DPX; see `restore.images.decode.decode`."""
    header = read_header(data, name)
    check_size(header.width, header.height, max_pixels, name)
    available = max(0, len(data) - header.offset)
    stride, notes = header.stride(available), []
    rows = min(header.height, (available + stride - header.row_bytes) // stride)
    if rows < header.height:
        complaint = f"{rows} of {header.height} rows are there"
        if not allow_truncated:
            raise DamagedFile(
                f"the DPX cannot be decoded: {complaint}", where=name, hint="the file is damaged or truncated",
                exit_code=1,
            )  # fmt: skip
        notes.append(damage_note(complaint))
    shape = (header.height, header.width, header.channels)
    values = np.zeros(shape, np.uint8 if header.bits == 8 else np.uint16)
    if rows:
        stored = np.lib.stride_tricks.as_strided(
            np.frombuffer(data, np.uint8, offset=header.offset), (rows, header.row_bytes), (stride, 1), writeable=False
        )
        values[:rows] = _unpacked(np.ascontiguousarray(stored), header)
    if header.plain and header.transfer not in _VIDEO:
        notes.append("the DPX does not say what its values mean: they are taken as sRGB")
    return DecoderOutput(
        values=values,
        channels=min(header.channels, 3),
        bits=header.bits,
        white=255.0 if header.bits == 8 else 65535.0,
        orientation=header.orientation,
        notes=notes,
    )


def _unpacked(rows: np.ndarray, header: DpxHeader) -> np.ndarray:
    """Rows of bytes as values, H×W×C; 65535 is white, or 255 with 8 bits."""
    shape = (len(rows), header.width, header.channels)
    if header.bits == 8:
        return rows.reshape(shape)
    if header.bits == 10:
        words = rows.view(f"{header.order}u4")
        values = np.stack([words >> shift & 0x3FF for shift in _shifts(header)], axis=2).reshape(len(rows), -1)
        deep = values[:, : header.width * header.channels].astype(np.uint16) << 6
    else:
        deep = rows.view(f"{header.order}u2").astype(np.uint16)
        if header.bits == 12 and header.packing == 2:
            deep = deep << 4
        elif header.bits == 12:
            deep &= 0xFFF0
    return fill_low_bits(deep, header.bits).reshape(shape)


def _shifts(header: DpxHeader) -> tuple[int, ...]:
    """How far up in a word three values of 10 bits are."""
    unused = 2 if header.packing == 1 else 0
    shifts = (unused + 20, unused + 10, unused)
    return shifts if header.channels == 3 else shifts[::-1]


def encode_dpx(pixels: np.ndarray, alpha: np.ndarray | None, head: bytes) -> bytes:
    """A DPX with the header of another one, in its depth, byte order and orientation.

    Args:
        pixels: upright, H×W×1 or H×W×3, uint8 or uint16.
        alpha: H×W of the same type, or None.
        head: all bytes before the pixels of the other file.

    Raises:
        ValueError: there is no such header.
    """
    if not head:
        raise ValueError("there is no header for it, which only other DPX files have")
    header = read_header(head)
    values = pixels if alpha is None else np.concatenate([pixels, alpha[:, :, None]], axis=2)
    values = np.ascontiguousarray(_stored(values, header.orientation))
    high, wide, channels = values.shape
    descriptor = {count: code for code, count in _CHANNELS.items()}.get(channels)
    if descriptor is None or (channels == 4 and header.bits == 10):
        raise ValueError(f"{channels} channels of {header.bits} bits are not written")
    header = DpxHeader(**{**vars(header), "width": wide, "height": high, "channels": channels, "padding": 0})
    rows = _packed(values, header)
    if rows.shape[1] % 4:
        rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4)))
    out = bytearray(head)
    for at, kind, number in (
        (_WIDTH, "I", wide), (_HEIGHT, "I", high), (_DESCRIPTOR, "B", descriptor), (_OFFSET, "I", len(head)),
        (_DATA, "I", len(head)), (_END_OF_LINE, "I", 0), (_ELEMENTS, "H", 1),
        (_FILE_SIZE, "I", min(len(head) + rows.size, _UNDEFINED)),
    ):  # fmt: skip
        struct.pack_into(header.order + kind, out, at, number)
    return bytes(out) + rows.tobytes()


def _packed(values: np.ndarray, header: DpxHeader) -> np.ndarray:
    """Values, H×W×C, as rows of bytes."""
    rows = values.reshape(len(values), -1)
    if header.bits == 8:
        return rows
    top = (1 << header.bits) - 1
    codes = (rows.astype(np.uint32) * top + 32767) // 65535
    if header.bits == 10:
        threes = np.pad(codes, ((0, 0), (0, -codes.shape[1] % 3))).reshape(len(rows), -1, 3)
        words = np.zeros(threes.shape[:2], np.uint32)
        for number, shift in enumerate(_shifts(header)):
            words |= threes[:, :, number] << np.uint32(shift)
        return words.astype(f"{header.order}u4").view(np.uint8)
    if header.bits == 12 and header.packing == 1:
        codes <<= 4
    return codes.astype(f"{header.order}u2").view(np.uint8)


def _stored(values: np.ndarray, orientation: int) -> np.ndarray:
    """An upright image as a file of this orientation stores it: the reverse of `restore.images.assemble.upright`."""
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    return values.swapaxes(0, 1) if orientation >= 5 else values


def head_of(data: bytes) -> bytes:
    """All bytes before the pixels."""
    return data[: read_header(data).offset]


def end_of(data: bytes) -> int:
    """Where the bytes behind the pixels begin."""
    header = read_header(data)
    stride = header.stride(len(data) - header.offset)
    return header.offset + header.height * stride


def without_texts(head: bytes) -> bytes:
    """The header without names, dates and what users have added."""
    out = bytearray(head)
    for at, length in (*_TEXTS, *_LATER_TEXTS):
        out[at : at + length] = bytes(len(out[at : at + length]))
    return bytes(out)


def contents(head: bytes) -> list[str]:
    """What a header is called in a note."""
    return ["the facts of film and television in its header"] if head else []
