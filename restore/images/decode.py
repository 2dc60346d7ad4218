"""Decodes files to channels, with libvips first and Pillow second. Errors of decoders become `RestoreError`s."""

from __future__ import annotations

import functools
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyvips
from PIL import Image

from restore.errors import RestoreError, printable
from restore.images import tiff_pixels
from restore.images.color import cmyk8_to_srgb, cmyk16_to_srgb
from restore.images.decode_pillow import decode_with_pillow
from restore.images.decoder_output import (
    GUESSED_WHITE,
    DecoderOutput,
    ImageTooLarge,
    add_own_fields,
    as_uint16,
    check_size,
    damage_note,
    fill_low_bits,
    undecodable,
)
from restore.images.dpx import decode_dpx
from restore.images.formats import UnsupportedFile
from restore.images.metadata import heif
from restore.images.metadata.png import with_end
from restore.images.metadata.tiff import BITS, ORIENTATION, SAMPLES, TiffHeader
from restore.images.netpbm import read_netpbm
from restore.images.pillow import HEIC_ADVICE, heic_available
from restore.images.vips_errors import with_own_errors

#: Formats that libvips decodes; Pillow decodes the others.
VIPS_FORMATS = frozenset(("jpeg", "png", "tiff", "webp", "gif", "avif", "heic"))
_VIPS_LOADERS = {"avif": "heif", "heic": "heif"}
_CHANNEL_BYTES = {
    "uchar": 1, "char": 1, "ushort": 2, "short": 2, "uint": 4, "int": 4, "float": 4, "double": 8,
    "complex": 8, "dpcomplex": 16,
}  # fmt: skip
#: X, Y and Z of white in sRGB (CIE 15, D65), relative to Y.
_D65 = (0.95047, 1.0, 1.08883)


def decode(
    data: bytes,
    kind: str,
    name: str | os.PathLike[str],
    *,
    max_pixels: int,
    allow_truncated: bool = False,
    tiff_header: TiffHeader | None = None,
) -> DecoderOutput:
    """Decode the first image of a file.

    Args:
        data: the whole file.
        kind: its format, from `format_of`.
        name: for messages.
        max_pixels: the largest W·H; checked in the header, before decoding.
        allow_truncated: decode what is there of a damaged file, with a note.
        tiff_header: of a TIFF; otherwise None.

    Raises:
        DamagedFile, ImageTooLarge: exit code 1, with the decoder's reason.
        UnsupportedFile: exit code 1; the TIFF holds values of a meaning that is not supported.
    """
    if kind == "ppm" and (deep := _decode_deep_netpbm(data, name, max_pixels)) is not None:
        return deep
    if kind == "dpx":
        return decode_dpx(data, name, max_pixels, allow_truncated=allow_truncated)
    if kind not in VIPS_FORMATS:
        return decode_with_pillow(data, kind, name, max_pixels, allow_truncated=allow_truncated)
    if tiff_header is not None:
        reason = tiff_pixels.refusal(tiff_header)
        if reason:
            what = f"the TIFF is not supported: {reason}"
            raise UnsupportedFile(what, where=name, hint="convert it to RGB first", exit_code=1)
        if tiff_pixels.needs_libtiff(tiff_header):
            return decode_with_pillow(
                data, kind, name, max_pixels, allow_truncated=allow_truncated, tiff_header=tiff_header
            )
        if tiff_pixels.is_plain_ycbcr(tiff_header):
            data = tiff_pixels.as_rgb(data, tiff_header)
    # libjpeg only warns about damaged data. The first try treats warnings as errors to find damage, the second
    # decodes the file anyway.
    levels = ["warning", "error"] if kind == "jpeg" else ["error"]
    if allow_truncated:
        levels.append("none")
    complaint = ""
    for fail_on in levels:
        if kind == "png" and fail_on == "none":
            data = with_end(data)
        try:
            output = with_own_errors(functools.partial(_decode_with_vips, data, kind, name, max_pixels, fail_on))
            if tiff_header is not None and tiff_pixels.is_plain_ycbcr(tiff_header) and output.channels == 3:
                output.values = tiff_pixels.ycbcr_to_rgb(output.values, tiff_header)
        except (pyvips.Error, UnicodeDecodeError) as error:
            complaint = decoder_message(error)
            continue
        if complaint:
            output.notes.append(damage_note(complaint))
        return output
    if kind == "heic" and not heic_available():
        raise RestoreError(f"the HEIC cannot be decoded: {complaint}", where=name, hint=HEIC_ADVICE, exit_code=1)
    if tiff_header is not None and tiff_pixels.is_packed(tiff_header):
        return _unpack(data, tiff_header, name, max_pixels)
    try:
        output = decode_with_pillow(data, kind, name, max_pixels, tiff_header=tiff_header)
    except ImageTooLarge:
        raise
    except RestoreError:
        pass  # the message of libvips says more
    else:
        if kind != "heic":  # the libheif of libvips lacks HEVC, so Pillow is HEIC's ordinary decoder
            output.notes.append(f"decoded by Pillow, because libvips failed ({complaint})")
        return output
    raise undecodable(kind, complaint, name, allow_truncated=allow_truncated)


# libvips


@functools.cache
def disable_vips_cache() -> None:
    """Turn off the cache of operations in libvips, for this process.

    It would keep decoded images in memory, to repeat an operation on the same buffer. That never happens here.
    """
    pyvips.cache_set_max(0)


@dataclass(frozen=True)
class HeaderFields:
    """What a file's header says besides the layout of the pixels; see `DecoderOutput`."""

    fields: dict[str, bytes]
    dpi: tuple[float, float] | None
    frames: int
    bits: int | None
    orientation: int | None


def open_sequential(
    source: bytes | bytearray | Path, kind: str, name: str | os.PathLike[str], max_pixels: int, fail_on: str
) -> Any:
    """Open a file's first image as a `pyvips.Image` that decodes its rows on demand, from the top down.

    Args:
        source: the whole file, or its path.
        kind: one of `VIPS_FORMATS`.
        name: for messages.
        max_pixels: as for `decode`.
        fail_on: the mildest problem that ends decoding: `none`, `truncated`, `error` or `warning`.

    Raises:
        ImageTooLarge, pyvips.Error, UnicodeDecodeError.
    """
    disable_vips_cache()
    in_memory = not isinstance(source, Path)
    load = getattr(pyvips.Image, f"{_VIPS_LOADERS.get(kind, kind)}load{'_buffer' if in_memory else ''}")
    where: Any = os.fsencode(source) if isinstance(source, Path) else source
    image = load(where, access="sequential", fail_on=fail_on)
    pixel_bytes = image.bands * _CHANNEL_BYTES[image.format]
    check_size(image.width, image.height, max_pixels, name, pixel_bytes=pixel_bytes)
    if kind == "tiff":  # now that the size is known to be allowed: by default, libtiff refuses large strips
        image = load(where, access="sequential", fail_on=fail_on, unlimited=True)
    return image


def header_fields(image: Any) -> HeaderFields:
    """What the header of an opened `pyvips.Image` says besides the layout of the pixels."""
    present = set(image.get_fields())

    def value(key: str) -> Any:
        return image.get(key) if key in present else None

    fields: dict[str, bytes] = {
        key: bytes(image.get(key)) for key in ("icc-profile-data", "exif-data", "xmp-data") if key in present
    }
    dpi = None
    if value("resolution-unit") in ("in", "cm") and all(0.01 < x < 10_000 for x in (image.xres, image.yres)):
        dpi = (round(image.xres * 25.4, 4), round(image.yres * 25.4, 4))
    bits = value("bits-per-sample")
    return HeaderFields(fields, dpi, int(value("n-pages") or 1), int(bits) if bits else None, value("orientation"))


def to_rgb_or_gray(image: Any, fields: dict[str, bytes], notes: list[str]) -> tuple[Any, int | None]:
    """Convert CMYK and Lab to sRGB. A profile that this uses up is removed from `fields`.

    Args:
        image: a `pyvips.Image`.
        fields: `HeaderFields.fields`.
        notes: gets a note on the conversion.

    Returns:
        The image, and its number of color channels if this is known now.
    """
    if image.interpretation == "cmyk" and image.bands >= 4:
        if image.bands > 5:  # hundreds of channels would take gigabytes in the conversion
            notes.append(f"only the first 5 of {image.bands} channels are read")
            image = image[:5]
        convert = cmyk8_to_srgb if image.format == "uchar" else cmyk16_to_srgb
        icc = fields.pop("icc-profile-data", None)
        profile = "its own profile" if icc else "a standard profile, because it has none"
        image = image.copy_memory()  # rows can be read only once, and this may need them twice
        try:
            converted = convert(image, icc or pyvips.Image.profile_load("cmyk"))
        except ValueError:
            profile = "a standard profile, because its own is broken"
            converted = convert(image, pyvips.Image.profile_load("cmyk"))
        notes.append(f"CMYK converted to RGB with {profile}")
        return converted, 3
    if image.interpretation in ("lab", "labs", "labq", "xyz", "yxy", "lch"):
        deep = image.format != "uchar"
        fields.pop("icc-profile-data", None)
        if image.interpretation == "xyz":  # LogLuv, in which libvips multiplies X and Z by those of D65 once more
            image = image.linear([1 / x for x in _D65], [0, 0, 0]).copy(interpretation="xyz")
            notes.append("LogLuv converted to RGB of 16 bits; what is brighter than white is white")
        else:
            notes.append("Lab converted to RGB")
        return image.colourspace("rgb16" if deep else "srgb"), 3
    return image, None


def decoder_message(error: Exception) -> str:
    """The message of a decoder on one line, without repetitions and names of functions."""
    if isinstance(error, UnicodeDecodeError):
        # pyvips cannot decode a message that quotes bytes of the file. The message is still in the buffer of
        # libvips, where it would become part of the next error.
        pyvips.vips_lib.vips_error_clear()
        lines = error.object.decode("utf-8", "backslashreplace").splitlines()
    else:
        lines = str(error).splitlines()[1:] or [str(error)]
    # pyvips asks for a property before it calls a method. It clears the answer, but another thread may see it before.
    lines = [line for line in lines if not line.endswith("load error") and "no property named" not in line]
    useful = [line.partition(": ")[2] or line for line in lines]
    parts = dict.fromkeys(printable(part.strip()) for part in useful if part.strip())
    return "; ".join(list(parts)[:2]) or "broken data"


def _unpack(data: bytes, header: TiffHeader, name: str | os.PathLike[str], max_pixels: int) -> DecoderOutput:
    """Decode a TIFF of an unusual number of bits, which libvips has refused."""
    height, width = tiff_pixels.size_of(header)
    check_size(width, height, max_pixels, name, pixel_bytes=2 * header.number(SAMPLES, 1))
    try:
        values = tiff_pixels.unpack(data, header)
    except ValueError as error:
        raise undecodable("tiff", str(error), name) from error
    channels = 3 if values.shape[2] >= 3 else 1
    notes: list[str] = []
    return DecoderOutput(
        values=_first_channels(values, channels, notes),
        channels=channels,
        bits=header.number(BITS, 1),
        white=float(np.iinfo(values.dtype).max),
        orientation=header.number(ORIENTATION, 1),
        fields={"icc-profile-data": header.icc} if header.icc else {},
        notes=notes,
    )


def _first_channels(values: np.ndarray, channels: int, notes: list[str]) -> np.ndarray:
    """An image with only its colors and its alpha; a note says which other channels are left out."""
    if values.shape[2] > channels + 1:
        notes.append(f"only the first {channels + 1} of {values.shape[2]} channels are read")
    return values[:, :, : channels + 1]


def _decode_with_vips(
    data: bytes, kind: str, name: str | os.PathLike[str], max_pixels: int, fail_on: str
) -> DecoderOutput:
    image = open_sequential(data, kind, name, max_pixels, fail_on)
    header = header_fields(image)
    add_own_fields(header.fields, data, kind)
    notes: list[str] = []
    image, color_channels = to_rgb_or_gray(image, header.fields, notes)
    values, white = _values(image, notes)
    if kind == "avif":
        values = _with_full_range(values, heif.read_header(data), header.bits or 8)
    if kind in ("avif", "heic") and values.dtype == np.uint16:
        values = fill_low_bits(values, header.bits or 16)
    channels = color_channels or (3 if values.shape[2] >= 3 else 1)
    return DecoderOutput(
        values=_first_channels(values, channels, notes),
        channels=channels,
        bits=header.bits or values.dtype.itemsize * 8,
        white=white,
        orientation=header.orientation,
        frames=header.frames,
        fields=header.fields,
        dpi=header.dpi,
        notes=notes,
    )


def _with_full_range(values: np.ndarray, header: heif.HeifHeader, bits: int) -> np.ndarray:
    """Stretch gray of limited range (16 to 235 of 255): libheif does so for colors alone."""
    if not header.gray or header.full_range or not _leaves_limited_gray():
        return values
    shift = 8 * values.dtype.itemsize - bits  # values of 10 and 12 bits lie in the upper ones
    codes = (values[:, :, :3] >> shift).astype(np.float32)
    top = (1 << bits) - 1
    stretched = np.rint((codes - (16 << bits - 8)) * np.float32(top / (219 << bits - 8)))
    values = values.copy()
    values[:, :, :3] = np.clip(stretched, 0, top).astype(values.dtype) << shift
    return values


@functools.cache
def _leaves_limited_gray() -> bool:
    """Whether this libheif has that fault, tried on a black image."""
    stream = io.BytesIO()
    try:
        Image.new("L", (16, 16)).save(stream, "AVIF", range="limited", subsampling="4:0:0", quality=100)
        black = pyvips.Image.heifload_buffer(stream.getvalue())
        return bool(black(0, 0)[0] > 8)
    except (OSError, KeyError, ValueError, pyvips.Error):  # a Pillow without AVIF
        return True


def _values(image: Any, notes: list[str]) -> tuple[np.ndarray, float]:
    """The values of a `pyvips.Image` as uint8, uint16 or float32, and the value of white."""
    values: np.ndarray = image.numpy()
    values = values.reshape(image.height, image.width, image.bands)
    if values.dtype in (np.uint8, np.uint16):
        return values, 255.0 if values.dtype == np.uint8 else 65535.0
    if values.dtype in (np.float32, np.float64):
        values = values.astype(np.float32, copy=False)
        top = float(np.nanmax(np.where(np.isfinite(values), values, 0), initial=0.0))
        # Float files do not state the value of white. HDR images exceed 1 slightly; others hold 8- or 16-bit values.
        white = 1.0 if top <= 16 else 255.0 if top <= 255 else 65535.0
        if white != 1.0:
            notes.append(f"float image with values up to {top:g}: {white:.0f} {GUESSED_WHITE}")
        return values, white
    if np.iscomplexobj(values):
        raise pyvips.Error("complex numbers\n  complex numbers are not supported")
    try:
        return as_uint16(values, notes), 65535.0
    except ValueError as error:
        raise pyvips.Error(f"integers\n  {error}") from error


def _decode_deep_netpbm(data: bytes, name: str | os.PathLike[str], max_pixels: int) -> DecoderOutput | None:
    """A PPM or PGM of more than 8 bits, which Pillow reads with 8; None: the file is another, or damaged."""
    read = read_netpbm(data, lambda width, height: check_size(width, height, max_pixels, name))
    if read is None:
        return None
    values, bits = read
    return DecoderOutput(values, values.shape[2], bits, 65535.0)
