"""Reads JPEG XL (ISO/IEC 18181), with the extra package pillow-jxl-plugin."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from restore.images.decode import decode
from restore.images.decoder_output import DamagedFile, DecoderOutput, check_size
from restore.images.formats import UnsupportedFile
from restore.images.metadata import jpeg
from restore.images.metadata.boxes import boxes_in
from restore.images.metadata.exif import orientation_of

#: Boxes that hold for the unrepaired image alone.
_LOST = {b"jumb": "its manifest of content credentials (C2PA)", b"jhgm": "its HDR gain map"}


def decode_jpeg_xl(data: bytes, name: str | os.PathLike[str], max_pixels: int) -> DecoderOutput:
    """Decode a JPEG XL, upright.

    Raises:
        DamagedFile, ImageTooLarge, UnsupportedFile: exit code 1, as for `decode`.
    """
    import pillow_jxl

    try:
        header = read_header(data)
    except ValueError as error:
        raise DamagedFile("the JPEG XL cannot be decoded: broken header", where=name, exit_code=1) from error
    check_size(header.width, header.height, max_pixels, name)
    try:
        is_jpeg, info, pixels, icc, boxes = pillow_jxl.Decoder(num_threads=1)(data)
    except Exception as error:  # its messages are about the library itself
        what = "the JPEG XL cannot be decoded: broken data"
        raise DamagedFile(what, where=name, hint="the file is damaged or truncated", exit_code=1) from error
    lost = left_out_of(data)
    if is_jpeg:  # a JPEG that JPEG XL has compressed further, without loss
        output = decode(pixels, "jpeg", name, max_pixels=max_pixels)
        lost = [*lost, *jpeg.contents(jpeg.read_header(pixels).passthrough)]
        output.notes.extend(f"{what} is left out" for what in lost)
        if "exif-data" in output.fields:
            output.orientation = orientation_of(output.fields["exif-data"])
        return output
    channels, counted = info.num_channels, info.num_channels + bool(info.has_alpha_channel)
    try:
        values = _values(pixels, info.mode, (info.height, info.width, counted))
    except (KeyError, ValueError, ZeroDivisionError) as error:
        what = "the JPEG XL cannot be decoded: its pixels have an unknown layout"
        raise UnsupportedFile(what, where=name, hint="convert it to TIFF first", exit_code=1) from error
    fields = {"icc-profile-data": bytes(icc) if icc else b""}
    for box in boxes:
        content = bytes(box.data)
        if box.box_type == b"Exif":  # it begins with the position of the TIFF structure behind these four bytes
            fields["exif-data"] = content[4 + int.from_bytes(content[:4], "big") :].removeprefix(b"Exif\0\0")
        elif box.box_type == b"xml ":
            fields["xmp-data"] = content
    return DecoderOutput(
        values=values,
        channels=channels,
        bits=8 * values.dtype.itemsize,
        white={1: 255.0, 2: 65535.0, 4: 1.0}[values.dtype.itemsize],
        fields={key: block for key, block in fields.items() if block},
        notes=["only the last frame of the animation is read"] * header.animated
        + [f"{what} is left out" for what in lost],
    )


def _values(pixels: bytes, mode: str, shape: tuple[int, int, int]) -> np.ndarray:
    """Decoded pixels as an array H×W×C, uint8, uint16 or float32.

    Raises:
        KeyError, ValueError, ZeroDivisionError: they have another size than the image.
    """
    dtype: Any = {1: np.uint8, 2: np.uint16, 4: np.float32}[len(pixels) // (shape[0] * shape[1] * shape[2])]
    if mode == "F;16":
        return np.frombuffer(pixels, np.float16).reshape(shape).astype(np.float32)
    return np.frombuffer(pixels, dtype).reshape(shape)


def left_out_of(data: bytes) -> list[str]:
    """What boxes of a container hold that is not kept, in words."""
    kinds = dict.fromkeys(box.kind for box in boxes_in(data, 0, len(data), cut=True))
    return [_LOST[kind] for kind in kinds if kind in _LOST]


@dataclass(frozen=True)
class Header:
    """The beginning of a codestream.

    Attributes:
        width, height: of the image, in pixels.
        animated: it has more than one frame.
    """

    width: int
    height: int
    animated: bool


def read_header(data: bytes) -> Header:
    """The `SizeHeader` of a JPEG XL, and the first fields of the `ImageMetadata` behind it.

    Raises:
        ValueError: there is none.
    """
    stream = data if data[:2] == b"\xff\x0a" else next(_codestream(data), b"")
    if stream[:2] != b"\xff\x0a":
        raise ValueError("no codestream")
    bits = _Bits(stream[2:50])
    width, height = _size(bits)
    animated = False
    if not bits.take(1) and bits.take(1):  # not all fields have their defaults, and some are written out
        bits.take(3)  # the orientation
        if bits.take(1):  # an intrinsic size
            _size(bits)
        if bits.take(1):  # a preview
            _preview_size(bits)
        animated = bool(bits.take(1))
    return Header(width, height, animated)


class _Bits:
    """The bits of a codestream, the lowest of a byte first."""

    def __init__(self, data: bytes) -> None:
        self._bits, self._at = int.from_bytes(data, "little"), 0

    def take(self, count: int) -> int:
        """The next bits, as a number."""
        self._at += count
        return self._bits >> (self._at - count) & ((1 << count) - 1)

    def choose(self, *offsets: tuple[int, int]) -> int:
        """A `U32` of four (bits, offset)."""
        count, offset = offsets[self.take(2)]
        return self.take(count) + offset


def _size(bits: _Bits) -> tuple[int, int]:
    """(W, H) of a `SizeHeader`."""
    small = bits.take(1)

    def side() -> int:
        return 8 * (bits.take(5) + 1) if small else bits.choose((9, 1), (13, 1), (18, 1), (30, 1))

    return _with_ratio(bits, side)


def _preview_size(bits: _Bits) -> tuple[int, int]:
    """(W, H) of a `PreviewHeader`."""
    small = bits.take(1)

    def side() -> int:
        if small:
            return 8 * bits.choose((0, 16), (0, 32), (5, 1), (9, 33))
        return bits.choose((6, 1), (8, 65), (10, 321), (12, 1345))

    return _with_ratio(bits, side)


def _with_ratio(bits: _Bits, side: Callable[[], int]) -> tuple[int, int]:
    height = side()
    ratio = bits.take(3)
    # Width over height, for ratios 1 to 7.
    across, down = ((0, 0), (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[ratio]
    return (height * across // down if ratio else side()), height


def _codestream(data: bytes) -> Iterator[bytes]:
    """The parts of the codestream in a container."""
    for kind, _, start, end in boxes_in(data, 0, len(data), cut=True):
        if kind in (b"jxlc", b"jxlp"):
            yield data[start + (4 if kind == b"jxlp" else 0) : end]  # a part begins with its number
