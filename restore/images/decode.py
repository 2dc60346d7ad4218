"""Decodes files to channels, with libvips first and Pillow second. Errors of decoders become `RestoreError`s."""

from __future__ import annotations

import functools
import io
import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyvips
from PIL import Image, ImageCms

from restore.errors import RestoreError, printable
from restore.images import tiff_pixels
from restore.images.color import cmyk8_to_srgb, cmyk16_to_srgb
from restore.images.formats import UnsupportedFile
from restore.images.metadata import bmp, heif, jpeg
from restore.images.metadata.png import with_end
from restore.images.metadata.tiff import BITS, ORIENTATION, SAMPLES, TiffHeader
from restore.images.netpbm import read_netpbm
from restore.images.pillow import (
    HEIC_ADVICE,
    heic_available,
    open_converted_by_libtiff,
    open_with_pillow,
    quiet_libtiff,
)
from restore.images.vips_errors import with_own_errors

#: Formats that libvips decodes; Pillow decodes the others.
VIPS_FORMATS = frozenset(("jpeg", "png", "tiff", "webp", "gif", "avif", "heic"))
_VIPS_LOADERS = {"avif": "heif", "heic": "heif"}
_CHANNEL_BYTES = {
    "uchar": 1, "char": 1, "ushort": 2, "short": 2, "uint": 4, "int": 4, "float": 4, "double": 8,
    "complex": 8, "dpcomplex": 16,
}  # fmt: skip
#: The bytes of the largest ordinary pixel, RGB and alpha in float32: what `max_pixels` counts with.
_PIXEL_BYTES = 16
#: X, Y and Z of white in sRGB (CIE 15, D65), relative to Y.
_D65 = (0.95047, 1.0, 1.08883)
#: Allowance for the contents of a file besides pixels: profiles, previews and texts.
_OTHER_BYTES = 64 << 20


class DamagedFile(RestoreError):
    """A decoder gave up because the file is damaged or truncated.

    Attributes:
        partly: `allow_truncated` may decode a part of it.
    """

    partly = True


class ImageTooLarge(RestoreError):
    """An image has more pixels than allowed.

    Attributes:
        pixels: the smallest limit that would allow it; 0 if unknown.
        size: the size of the image or file, in words.
    """

    pixels = 0
    size = ""


@dataclass
class DecoderOutput:
    """Channels as the file stores them, before the image is turned upright.

    Attributes:
        values: H×W×C, uint8, uint16 or float32; C counts alpha.
        channels: the number of color channels, 1 or 3; the next channel is alpha.
        bits: bits per channel in the file.
        white: the value of white.
        orientation: of a TIFF's own tag, or of a JPEG inside a JPEG XL; otherwise None.
        frames: the number of images in the file.
        fields: `icc-profile-data`, `exif-data` and `xmp-data`, if present.
        dpi: pixels per inch across and down, if stated.
        notes: for the user: what decoding changed or left out.
    """

    values: np.ndarray
    channels: int
    bits: int = 8
    white: float = 255.0
    orientation: int | None = None
    frames: int = 1
    fields: dict[str, bytes] = field(default_factory=dict)
    dpi: tuple[float, float] | None = None
    notes: list[str] = field(default_factory=list)


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


#: What decoders say of a file that is whole, but of a kind that they do not know.
_UNSUPPORTED = re.compile(
    r"unsupported|omitted at compile time"
    r"|not (?:yet )?supported|not (?:yet )?implemented|unimplemented|not (?:configured|enabled|available)"
    r"|(?:no|cannot handle|unknown|unrecognized|unhandled) (?:\S+ ){0,3}(?:codec|decoder|decoding plugin|compression|"
    r"photometric|colou?r ?space|pixel mode|raw mode|encoding|data organization)|unknown pixel mode",
    re.IGNORECASE,
)


def undecodable(
    kind: str, complaint: str, name: str | os.PathLike[str], *, allow_truncated: bool = False
) -> RestoreError:
    """The error for a file that no decoder can read: `UnsupportedFile`, or `DamagedFile` if the reason is damage."""
    what = f"the {kind.upper()} cannot be decoded: {complaint}"
    if _UNSUPPORTED.search(complaint):  # decoding what is there would not help
        return UnsupportedFile(what, where=name, hint="convert it to TIFF or PNG first", exit_code=1)
    hint = None if allow_truncated else "the file is damaged or truncated"
    return DamagedFile(what, where=name, hint=hint, exit_code=1)


def damage_note(complaint: str) -> str:
    """The note on an image of which only a part could be decoded."""
    return f"the file is damaged; decoded as far as possible ({complaint})"


# Limits


def check_size(
    width: int, height: int, max_pixels: int, name: str | os.PathLike[str], *, pixel_bytes: int = _PIXEL_BYTES
) -> None:
    """Refuse an image by the size in its header.

    Args:
        width, height: of the image.
        max_pixels: the limit.
        name: for messages.
        pixel_bytes: the size of a pixel. One of more than 16 bytes (many channels) counts as several pixels.

    Raises:
        ImageTooLarge: exit code 1.
    """
    counted = -(-width * height * max(pixel_bytes, _PIXEL_BYTES) // _PIXEL_BYTES)
    if counted > max_pixels:
        large = f" with {pixel_bytes} bytes per pixel" if pixel_bytes > _PIXEL_BYTES else ""
        _refuse(f"{width}×{height}{large}", counted, max_pixels, name)


def check_bytes(size: int, max_pixels: int, name: str | os.PathLike[str]) -> None:
    """Refuse a file that is larger than the largest allowed image without compression.

    Raises:
        ImageTooLarge: exit code 1.
    """
    counted = -(-(size - _OTHER_BYTES) // _PIXEL_BYTES)
    if counted > max_pixels:
        _refuse(f"a file of {size / 1e9:.1f} GB", counted, max_pixels, name)


def _refuse(size: str, counted: int, max_pixels: int, name: str | os.PathLike[str]) -> NoReturn:
    error = ImageTooLarge(
        f"{size} is over the limit of {max_pixels / 1e6:g} megapixels",
        where=name,
        hint="raise the limit if you trust the file",
        exit_code=1,
    )
    error.pixels, error.size = counted, size
    raise error


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


def add_profile(fields: dict[str, bytes], data: Any, kind: str) -> None:
    """Add the color profile of a BMP, and of a JPEG whose pieces are numbered wrongly: libvips takes only some of them.

    Args:
        fields: `HeaderFields.fields`; changed in place.
        data: the file, as bytes or mapped into memory.
        kind: its format.
    """
    icc = jpeg.read_header(data).icc if kind == "jpeg" else bmp.read_header(data).icc if kind == "bmp" else None
    if icc is not None:
        fields["icc-profile-data"] = icc


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
    useful = [line.partition(": ")[2] or line for line in lines if not line.endswith("load error")]
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
    channels, notes = 3 if values.shape[2] >= 3 else 1, []
    if values.shape[2] > channels + 1:
        notes.append(f"only the first {channels + 1} of {values.shape[2]} channels are read")
        values = values[:, :, : channels + 1]
    return DecoderOutput(
        values=values,
        channels=channels,
        bits=header.number(BITS, 1),
        white=float(np.iinfo(values.dtype).max),
        orientation=header.number(ORIENTATION, 1),
        fields={"icc-profile-data": header.icc} if header.icc else {},
        notes=notes,
    )


def _decode_with_vips(
    data: bytes, kind: str, name: str | os.PathLike[str], max_pixels: int, fail_on: str
) -> DecoderOutput:
    image = open_sequential(data, kind, name, max_pixels, fail_on)
    header = header_fields(image)
    add_profile(header.fields, data, kind)
    notes: list[str] = []
    image, color_channels = to_rgb_or_gray(image, header.fields, notes)
    values, white = _values(image, notes)
    if kind == "avif":
        values = _with_full_range(values, heif.read_header(data), header.bits or 8)
    channels = color_channels or (3 if values.shape[2] >= 3 else 1)
    if values.shape[2] > channels + 1:
        notes.append(f"only the first {channels + 1} of {values.shape[2]} channels are read")
        values = values[:, :, : channels + 1]
    return DecoderOutput(
        values=values,
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
            notes.append(f"float image with values up to {top:g}: {white:.0f} is taken as white")
        return values, white
    if np.iscomplexobj(values):
        raise pyvips.Error("complex numbers\n  complex numbers are not supported")
    try:
        return _as_uint16(values, notes), 65535.0
    except ValueError as error:
        raise pyvips.Error(f"integers\n  {error}") from error


def _as_uint16(values: np.ndarray, notes: list[str]) -> np.ndarray:
    """Integers of any other type as uint16, with a note.

    Raises:
        ValueError: a value is negative or too large.
    """
    low, high = int(values.min(initial=0)), int(values.max(initial=0))
    if low >= 0 and high <= 65535:
        notes.append(f"{values.dtype.itemsize * 8}-bit integers read as 16 bits")
        return values.astype(np.uint16)
    if low >= 0 and values.dtype.itemsize == 4:
        notes.append("32-bit integers rounded to 16 bits")
        return (values.astype(np.uint32) >> 16).astype(np.uint16)
    raise ValueError(f"integers from {low} to {high} are not supported")


def _decode_deep_netpbm(data: bytes, name: str | os.PathLike[str], max_pixels: int) -> DecoderOutput | None:
    """A PPM or PGM of more than 8 bits, which Pillow reads with 8; None: the file is another, or damaged."""
    read = read_netpbm(data, lambda width, height: check_size(width, height, max_pixels, name))
    if read is None:
        return None
    values, bits = read
    return DecoderOutput(values, values.shape[2], bits, 65535.0)


# Pillow: the formats that libvips does not know, and a second try at those that it does


def decode_with_pillow(
    data: bytes,
    kind: str,
    name: str | os.PathLike[str],
    max_pixels: int,
    *,
    allow_truncated: bool = False,
    tiff_header: TiffHeader | None = None,
) -> DecoderOutput:
    """Decode the first image of a file, in most formats to 8 bits.

    Raises:
        DamagedFile, ImageTooLarge: exit code 1, with Pillow's reason.
    """
    converts = tiff_header is not None and tiff_pixels.needs_libtiff(tiff_header)
    try:
        opened = open_converted_by_libtiff(data) if converts else open_with_pillow(data, kind)
        with quiet_libtiff(kind), opened as image:
            width, height = image.size
            check_size(width, height, max_pixels, name)
            frames = getattr(image, "n_frames", 1) if kind != "ico" else 1
            try:
                return _with_profile(_from_pillow(image, frames), data, kind)
            except OSError as error:
                if not allow_truncated:
                    raise
                complaint = _pillow_message(error)
        # Pillow accepts truncated files only by a switch for the whole process. Black pixels at the end do the same.
        with quiet_libtiff(kind), open_with_pillow(data + bytes(4 * width * height), kind) as image:
            output = _with_profile(_from_pillow(image, frames), data, kind)
        output.notes.append(damage_note(complaint))
        return output
    except (RestoreError, MemoryError):
        raise
    except Image.DecompressionBombError as error:  # a PNG inside an icon, larger than the icon says
        raise ImageTooLarge("its header states an impossible size", where=name, exit_code=1) from error
    except Exception as error:  # Pillow's decoders raise a dozen kinds, and hostile files find more
        raise undecodable(kind, _pillow_message(error), name, allow_truncated=allow_truncated) from error


def _with_profile(output: DecoderOutput, data: bytes, kind: str) -> DecoderOutput:
    add_profile(output.fields, data, kind)
    if kind == "bmp" and output.channels == 1 and output.fields.get("icc-profile-data", b"")[16:20] == b"RGB ":
        colors, alpha = output.values[:, :, :1], output.values[:, :, 1:]  # a palette of grays
        output.values = np.concatenate([colors, colors, colors, alpha], axis=2)
        output.channels = 3
    return output


def _pillow_message(error: Exception) -> str:
    return printable(" ".join(str(error).split())) or type(error).__name__


def _from_pillow(image: Image.Image, frames: int) -> DecoderOutput:
    notes: list[str] = []
    dpi = image.info.get("dpi")
    names = {"icc-profile-data": "icc_profile", "exif-data": "exif", "xmp-data": "xmp"}
    fields = {field: image.info.get(key) for field, key in names.items()}
    orientation = image.getexif().get(0x0112) if image.format == "TIFF" else None
    stored_bits = int(max(np.atleast_1d(getattr(image, "tag_v2", {}).get(258, 8))))
    tile = next(iter(getattr(image, "tile", [])), None)
    if image.format == "PPM" and tile is not None and isinstance(tile.args[-1], int):
        stored_bits = tile.args[-1].bit_length()
    elif image.format == "SGI" and tile is not None and tile.codec_name == "SGI16":
        stored_bits = 16
    elif isinstance(bits := image.info.get("bit_depth"), int):  # of HEIC
        stored_bits = bits
    sizes = len(image.info.get("sizes", ())) if image.format == "ICO" else 1
    if sizes > 1:
        notes.append(f"only the largest of {sizes} sizes is read")
    image.load()
    output = DecoderOutput(
        values=np.empty((0, 0, 1)),
        channels=1,
        orientation=orientation,
        frames=frames,
        fields={key: value for key, value in fields.items() if value},
        dpi=(float(dpi[0]), float(dpi[1])) if dpi and min(dpi) > 0.3 and max(dpi) < 250_000 else None,
        notes=notes,
    )
    if image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.uint16)
        if image.format == "TIFF" and 8 < stored_bits < 16:
            values = np.rint(values * (65535 / (2**stored_bits - 1))).astype(np.uint16)
        return replace(output, values=values[:, :, None], bits=stored_bits if stored_bits > 8 else 16, white=65535.0)
    if image.mode == "I":
        return replace(output, values=_as_uint16(np.asarray(image), notes)[:, :, None], bits=16, white=65535.0)
    if image.mode == "F":
        return replace(output, values=np.asarray(image)[:, :, None].astype(np.float32), bits=32, white=1.0)
    if stored_bits > 8:
        notes.append(f"only 8 of {stored_bits} bits per channel are read")
    if image.mode == "LAB":
        notes.append("Lab converted to RGB")
        image = _lab_to_rgb(image)
        output.fields.pop("icc-profile-data", None)  # a profile for Lab
    transparent = "transparency" in image.info or image.mode in ("LA", "PA", "RGBA", "La", "RGBa")
    grayish = image.mode in ("1", "L", "LA", "La")
    mode = ("LA" if transparent else "L") if grayish else ("RGBA" if transparent else "RGB")
    values = np.asarray(image.convert(mode))
    return replace(output, values=values.reshape(image.height, image.width, -1), channels=1 if grayish else 3)


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    converted = ImageCms.profileToProfile(
        image, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    assert converted is not None  # it returns None only for a conversion in place
    return converted
