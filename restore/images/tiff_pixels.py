"""The layouts of TIFF pixels that libvips reads wrongly or not at all, and those that nothing here understands.

The tags and formulas are those of TIFF 6.0.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np

from restore.images.metadata.ifd import layout_of
from restore.images.metadata.tiff import BITS, COMPRESSION, PHOTOMETRIC, SAMPLES, TiffHeader

_WIDTH, _HEIGHT, _FILL_ORDER, _PLANAR, _PREDICTOR, _INK_SET, _SAMPLE_FORMAT = 256, 257, 266, 284, 317, 332, 339
_STRIPS, _ROWS_PER_STRIP, _STRIP_BYTES = 273, 278, 279
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES = 322, 323, 324, 325
_COEFFICIENTS, _SUBSAMPLING, _REFERENCE = 529, 530, 532
_YCBCR, _CMYK, _LAB = 6, 5, 8
LOGLUV = 32845
_OLD_JPEG, _JPEG = 6, 7
#: Compressions whose decoders convert YCbCr to RGB: JPEG, JPEG 2000, WebP.
_CONVERTING = (_JPEG, 33003, 33004, 33005, 34712, 50001)
_DEFLATE = (8, 32946)
_SIGNED = 2
_NAMES = {4: "a mask", 9: "ICCLab", 10: "ITULab", 32844: "LogL"}
#: Pixels of a tile that are never too many. Decoders make room for a whole tile, however small the image is.
_TILE_PIXELS = 1 << 24
#: Values that are unpacked at once; each takes a byte per bit.
_BLOCK = 1 << 20


def refusal(header: TiffHeader) -> str:
    """Why the pixels cannot be read; "" if nothing speaks against it."""
    photometric, bits = header.number(PHOTOMETRIC, -1), header.number(BITS, 1)
    if PHOTOMETRIC not in header.tags and header.tags and bits > 1:
        return "it does not say what its values mean (PhotometricInterpretation)"
    if photometric not in (-1, 0, 1, 2, 3, _CMYK, _YCBCR, _LAB, LOGLUV):
        return f"its colors are {_NAMES.get(photometric, f'of photometric interpretation {photometric}')}"
    if photometric == _CMYK and header.number(_INK_SET, 1) != 1:
        return "its inks are not cyan, magenta, yellow and black"
    if len(set(header.numbers(BITS, 1)[: header.number(SAMPLES, 1)])) > 1:
        return "its channels have different numbers of bits"
    if bits == 8 and photometric != _LAB and _SIGNED in header.numbers(_SAMPLE_FORMAT, 1):
        return "its values are signed integers of 8 bits"
    height, width = size_of(header)
    if header.number(_TILE_WIDTH, 0) * header.number(_TILE_HEIGHT, 0) > max(_TILE_PIXELS, 4 * width * height):
        return "its tiles are many times larger than the image"
    if photometric == _YCBCR and header.number(COMPRESSION, 1) not in (_OLD_JPEG, *_CONVERTING):
        if _is_subsampled(header) and header.number(_PLANAR, 1) != 1:
            return "its colors are YCbCr of lower resolution in planes of their own"
        if bits not in ((8,) if _is_subsampled(header) else (8, 16)):
            return f"its colors are YCbCr of {bits} bits"
    return ""


def by_vips(header: TiffHeader) -> bool:
    """Whether libvips alone gives the right pixels."""
    return not (refusal(header) or needs_libtiff(header) or is_plain_ycbcr(header))


def needs_libtiff(header: TiffHeader) -> bool:
    """Whether only libtiff's own conversion to RGB reads the pixels: old-style JPEG, and YCbCr of lower resolution."""
    if header.number(COMPRESSION, 1) == _OLD_JPEG:
        return True
    return _is_unconverted(header) and _is_subsampled(header)


def is_plain_ycbcr(header: TiffHeader) -> bool:
    """Whether libvips gives Y, Cb and Cr of each pixel for red, green and blue."""
    return _is_unconverted(header) and not _is_subsampled(header)


def as_rgb(data: bytes, header: TiffHeader) -> bytes:
    """The file with its YCbCr called RGB, so that libvips leaves the channels alone.

    libtiff mixes up YCbCr in planes, and assumes subsampling where the file does not state it.
    """
    _, big = layout_of(data)
    changed = bytearray(data)
    count_code, entry_bytes, value_at = ("Q", 20, 12) if big else ("H", 12, 8)
    (count,) = struct.unpack_from(header.order + count_code, data, header.at)
    first = header.at + struct.calcsize(count_code)
    for here in range(first, first + count * entry_bytes, entry_bytes):
        if struct.unpack_from(header.order + "H", data, here)[0] == PHOTOMETRIC:
            kind = header.tags[PHOTOMETRIC].kind
            struct.pack_into(header.order + ("H" if kind == 3 else "I"), changed, here + value_at, 2)
            break
    return bytes(changed)


def _is_unconverted(header: TiffHeader) -> bool:
    if header.number(PHOTOMETRIC, -1) != _YCBCR or header.number(COMPRESSION, 1) == _OLD_JPEG:
        return False
    # JPEG's decoder converts only the channels of one stream.
    return header.number(COMPRESSION, 1) not in _CONVERTING or header.number(_PLANAR, 1) != 1


def _is_subsampled(header: TiffHeader) -> bool:
    if _SUBSAMPLING not in header.tags and header.number(COMPRESSION, 1) == 1:  # 2, 2 is the default
        (height, width), value_bytes = size_of(header), header.number(BITS, 1) // 8
        stored = header.numbers(_TILE_BYTES) if _TILES in header.tags else header.numbers(_STRIP_BYTES)
        return sum(stored) < height * width * header.number(SAMPLES, 3) * value_bytes
    return header.numbers(_SUBSAMPLING, 2, 2) != (1, 1)


def ycbcr_to_rgb(values: np.ndarray, header: TiffHeader) -> np.ndarray:
    """Convert YCbCr to RGB (TIFF 6.0, section 21).

    Args:
        values: H×W×C, uint8 or uint16, C at least 3; more channels stay unchanged.
        header: of the file, with the coefficients and the values of black and white.
    """
    top = float(np.iinfo(values.dtype).max)
    half = (top + 1) / 2
    coefficients = header.numbers(_COEFFICIENTS)
    if len(coefficients) != 3 or coefficients[1] <= 0:
        coefficients = (0.299, 0.587, 0.114)
    red, green, blue = coefficients
    reference = header.numbers(_REFERENCE)
    if len(reference) != 6:
        reference = (0, top, half, top, half, top)
    black, white = np.array(reference[::2]), np.array(reference[1::2])
    scale = np.array([top, top - half, top - half]) / np.where(white == black, 1, white - black)
    out = values.copy()
    step = max(_BLOCK // max(values.shape[1], 1), 1)
    for start in range(0, values.shape[0], step):
        y, cb, cr = np.moveaxis((values[start : start + step, :, :3] - black) * scale, 2, 0)
        r, b = y + cr * (2 - 2 * red), y + cb * (2 - 2 * blue)
        g = (y - red * r - blue * b) / green
        out[start : start + step, :, :3] = np.rint(np.clip(np.stack([r, g, b], axis=2), 0, top))
    return out


def is_packed(header: TiffHeader) -> bool:
    """Whether `unpack` reads the pixels: gray or RGB of any number of bits, uncompressed or deflated."""
    bits = header.numbers(BITS, 1)[: header.number(SAMPLES, 1)]
    return (
        len(set(bits)) == 1
        and 2 <= bits[0] <= 15
        and bits[0] != 8
        and header.number(PHOTOMETRIC, -1) in (0, 1, 2)
        and header.number(COMPRESSION, 1) in (1, *_DEFLATE)
        and header.number(_PREDICTOR, 1) == 1
        and header.number(_FILL_ORDER, 1) == 1
        and set(header.numbers(_SAMPLE_FORMAT, 1)) == {1}
        and (header.number(PHOTOMETRIC, -1) != 2 or header.number(SAMPLES, 1) >= 3)
    )


def size_of(header: TiffHeader) -> tuple[int, int]:
    """(H, W)."""
    return header.number(_HEIGHT, 0), header.number(_WIDTH, 0)


def unpack(data: Any, header: TiffHeader) -> np.ndarray:
    """Read pixels of an unusual number of bits (`is_packed`).

    Returns:
        H×W×C, uint8 up to 8 bits, else uint16, with the full range of the type.

    Raises:
        ValueError: pixels are missing.
    """
    (height, width), bits, samples = size_of(header), header.number(BITS, 1), header.number(SAMPLES, 1)
    planes = samples if header.number(_PLANAR, 1) == 2 else 1
    is_tiled = _TILES in header.tags
    if is_tiled:
        places, sizes = header.numbers(_TILES), header.numbers(_TILE_BYTES)
        rows, columns = header.number(_TILE_HEIGHT, 0), header.number(_TILE_WIDTH, 0)
    else:
        places, sizes = header.numbers(_STRIPS), header.numbers(_STRIP_BYTES)
        rows, columns = min(header.number(_ROWS_PER_STRIP, height), height), width
    if min(height, width, rows, columns, samples) < 1:
        raise ValueError("the size of the image is not stated")
    if rows * columns > max(4 * height * width, _BLOCK):
        raise ValueError("the tiles are larger than the image")
    count = planes * -(-height // rows) * -(-width // columns)
    if len(places) < count or len(sizes) < count:
        raise ValueError("pixels are missing")
    corners = [
        (plane, top, left)
        for plane in range(planes)
        for top in range(0, height, rows)
        for left in range(0, width, columns)
    ]
    top_value = 2**bits - 1
    dtype, white = (np.dtype(np.uint8), 255) if bits <= 8 else (np.dtype(np.uint16), 65535)
    scaled = np.rint(np.arange(top_value + 1) * (white / top_value)).astype(dtype)
    if header.number(PHOTOMETRIC, -1) == 0:
        scaled = scaled[::-1]
    out = np.empty((height, width, samples), dtype)
    together = samples // planes
    for (plane, top, left), at, size in zip(corners, places, sizes):
        count = rows if is_tiled else min(rows, height - top)
        packed = data[int(at) : int(at + size)]
        row_bytes = -(-columns * together * bits // 8)
        if header.number(COMPRESSION, 1) != 1:
            packed = _inflated(packed, row_bytes * count)
        if len(packed) < row_bytes * count:
            raise ValueError("pixels are missing")
        lines = np.frombuffer(packed, np.uint8, row_bytes * count).reshape(count, row_bytes)
        lines = lines[: height - top]
        channels = np.s_[:] if planes == 1 else slice(plane, plane + 1)
        step = max(_BLOCK // (columns * together), 1)
        for start in range(0, len(lines), step):
            part = _unpacked(lines[start : start + step], columns * together, bits)
            part = scaled[part].reshape(-1, columns, together)[:, : width - left]
            out[top + start : top + start + len(part), left : left + columns, channels] = part
    return out


def _unpacked(lines: np.ndarray, count: int, bits: int) -> np.ndarray:
    """`count` values of each line, uint16."""
    ones = np.unpackbits(lines, axis=1, count=count * bits).reshape(len(lines), count, bits)
    return ones @ (1 << np.arange(bits - 1, -1, -1)).astype(np.uint16)


def _inflated(packed: bytes, size: int) -> bytes:
    try:
        return zlib.decompressobj().decompress(packed, size)
    except zlib.error as error:
        raise ValueError("the pixels cannot be decompressed") from error
