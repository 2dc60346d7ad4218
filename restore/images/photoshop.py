"""Reads the merged image of a Photoshop file (Adobe Photoshop File Formats Specification): PSD and PSB."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyvips
from PIL import Image

from restore.images.decode import to_rgb_or_gray
from restore.images.decoder_output import DamagedFile, DecoderOutput, check_size
from restore.images.formats import UnsupportedFile
from restore.images.metadata.photoshop import resolution_in, resources_of

#: Color mode -> its name and the number of its channels.
_MODES = {0: ("bitmap", 1), 1: ("gray", 1), 2: ("indexed", 1), 3: ("RGB", 3), 4: ("CMYK", 4), 8: ("duotone", 1)}
_FIELDS = {1039: "icc-profile-data", 1058: "exif-data", 1060: "xmp-data"}


@dataclass
class _File:
    """The parts of a file before its merged image.

    Attributes:
        size: (W, H).
        channels, depth, mode: from the header.
        palette: 768 bytes of an indexed image.
        resources: image resources by number.
        dpi: pixels per inch across and down, or None.
        layers: their number.
        transparent: the first channel after the colors is the transparency of the merged image.
        merged_at: where the merged image begins.
    """

    size: tuple[int, int]
    channels: int
    depth: int
    mode: int
    big: bool
    palette: bytes = b""
    resources: dict[int, bytes] = field(default_factory=dict)
    dpi: tuple[float, float] | None = None
    layers: int = 0
    transparent: bool = False
    merged_at: int = 0


def decode_photoshop(data: bytes, name: str | os.PathLike[str], max_pixels: int) -> DecoderOutput:
    """Decode the merged image of a Photoshop file.

    Raises:
        UnsupportedFile: exit code 1; it has no merged image, or one of another depth or color mode.
        DamagedFile, ImageTooLarge: exit code 1, as for `decode`.
    """
    try:
        file = _read(data)
    except (struct.error, IndexError) as error:
        raise _damaged("broken header", name) from error
    check_size(*file.size, max_pixels, name)
    lacking = _lacking(file)
    if lacking:
        what = f"the Photoshop file is not supported: {lacking}"
        raise UnsupportedFile(what, where=name, hint="save it as TIFF first", exit_code=1)
    colors = _MODES[file.mode][1]
    if file.channels < colors:
        raise _damaged("it has fewer channels than its color mode", name)
    try:
        planes = _planes(data, file, min(file.channels, colors + file.transparent))
    except (struct.error, ValueError, OSError) as error:
        raise _damaged("the merged image is broken or cut short", name) from error
    notes = []
    if file.layers:
        notes.append(f"only the merged image is read; layers are left out: {file.layers}")
    if file.channels > colors + file.transparent:
        notes.append("channels beyond the colors are left out")
    fields = {key: file.resources[number] for number, key in _FIELDS.items() if file.resources.get(number)}
    return _output(planes, file, fields, notes)


def _lacking(file: _File) -> str:
    """Why the merged image cannot be read; "" if it can."""
    if file.mode not in _MODES:
        return {9: "its colors are Lab", 7: "it is a multichannel image"}.get(file.mode, "its color mode is unknown")
    if file.depth not in ((1,) if file.mode == 0 else (8,) if file.mode == 2 else (8, 16)):
        return f"it has {file.depth} bits per channel"
    if file.resources.get(1057, b"\0\0\0\0\1")[4:5] == b"\0":
        return "it has no merged image, because it was saved without 'Maximize Compatibility'"
    return ""


def _output(planes: np.ndarray, file: _File, fields: dict[str, bytes], notes: list[str]) -> DecoderOutput:
    """The channels C×H×W of a merged image as the output of a decoder."""
    white = 65535.0 if file.depth == 16 else 255.0
    colors = _MODES[file.mode][1]
    values = np.ascontiguousarray(planes[:colors].transpose(1, 2, 0))
    if file.mode == 8:
        notes.append("a duotone is read as gray, without its inks")
        fields.pop("icc-profile-data", None)
    if file.mode == 2:
        values = np.frombuffer(file.palette.ljust(768, b"\0")[:768], np.uint8).reshape(3, 256).T[values[:, :, 0]]
    elif file.mode == 4:
        ink = (65535 if file.depth == 16 else 255) - values  # the file stores paper as the largest value
        height, width, _ = ink.shape
        image: Any = pyvips.Image.new_from_memory(ink, width, height, 4, "ushort" if file.depth == 16 else "uchar")
        image, _ = to_rgb_or_gray(image.copy(interpretation="cmyk"), fields, notes)
        values = image.numpy().reshape(height, width, -1)[:, :, :3]
        white = 65535.0 if values.dtype == np.uint16 else 255.0
    count = values.shape[2]
    if planes.shape[0] > colors:
        alpha = planes[colors][:, :, None].astype(values.dtype)
        values = np.concatenate([_without_white(values, alpha, white), alpha], axis=2)
    return DecoderOutput(
        values=values,
        channels=count,
        bits=16 if white > 255 else 8,
        white=white,
        fields=fields,
        dpi=file.dpi,
        notes=notes,
    )


def _without_white(values: np.ndarray, alpha: np.ndarray, white: float) -> np.ndarray:
    """Colors without the white that Photoshop blends the merged image with. Other programs do not, and then colors are
    darker than that blend can be."""
    if (values + np.float32(1.5) < white - alpha.astype(np.float32)).any():
        return values
    opacity = np.maximum(alpha.astype(np.float32) / np.float32(white), 1 / np.float32(white))
    own = (values - white * (1 - opacity)) / opacity
    return np.where(alpha == white, values, np.rint(np.clip(own, 0, white)).astype(values.dtype))


def _planes(data: bytes, file: _File, wanted: int) -> np.ndarray:
    """The first channels of the merged image: C×H×W, uint8 or uint16.

    Raises:
        ValueError, OSError, struct.error: they are broken or cut short.
    """
    (compression,) = struct.unpack_from(">H", data, file.merged_at)
    width, height = file.size
    row = (width + 7) // 8 if file.depth == 1 else width * file.depth // 8
    at = file.merged_at + 2
    if compression == 1:  # PackBits, after the lengths of all rows
        lengths = np.frombuffer(data, ">u4" if file.big else ">u2", file.channels * height, at).astype(np.int64)
        at += lengths.size * (4 if file.big else 2)
        raw = b""
        for channel in range(wanted):
            packed = int(lengths[channel * height : (channel + 1) * height].sum())
            raw += Image.frombytes("L", (row, height), data[at : at + packed], "packbits", "L").tobytes()
            at += packed
    elif compression == 0:
        raw = data[at : at + wanted * row * height]
    else:
        raise ValueError("compression")
    dtype = np.dtype(">u2") if file.depth == 16 else np.dtype(np.uint8)
    planes = np.frombuffer(raw, dtype, wanted * row * height // dtype.itemsize)
    if file.depth == 1:
        dark = np.unpackbits(planes.astype(np.uint8).reshape(wanted, height, row), axis=2)[:, :, :width]
        return (255 * (1 - dark)).astype(np.uint8)
    return planes.reshape(wanted, height, width).astype(dtype.newbyteorder("="))


def _read(data: bytes) -> _File:
    """Read what is before the merged image.

    Raises:
        struct.error, IndexError: it is cut short.
    """
    version, channels, height, width, depth, mode = struct.unpack_from(">4xH6xHIIHH", data)
    file = _File((width, height), channels, depth, mode, big=version == 2)
    at = 26
    (length,) = struct.unpack_from(">I", data, at)
    file.palette = data[at + 4 : at + 4 + length]
    at += 4 + length
    (length,) = struct.unpack_from(">I", data, at)
    block = data[at + 4 : at + 4 + length]
    file.resources, stated = dict(resources_of(block)), resolution_in(block)
    file.dpi = stated and stated.dpi
    at += 4 + length
    wide = ">Q" if file.big else ">I"
    (length,) = struct.unpack_from(wide, data, at)
    at += struct.calcsize(wide)
    if length >= struct.calcsize(wide) + 2:
        (count,) = struct.unpack_from(">h", data, at + struct.calcsize(wide))
        file.layers, file.transparent = abs(count), count < 0
    file.merged_at = min(at + length, len(data))  # a broken length of a PSB can exceed any address
    return file


def _damaged(why: str, name: str | os.PathLike[str]) -> DamagedFile:
    what = f"the Photoshop file cannot be decoded: {why}"
    return DamagedFile(what, where=name, hint="the file is damaged or truncated", exit_code=1)
