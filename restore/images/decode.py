"""Bytes -> raw channels. Whatever a decoder may throw ends here, as a `RestoreError` with the reason."""

from __future__ import annotations

import ctypes
import functools
import io
import logging
import os
import threading
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import PIL
import pyvips
from PIL import Image

from restore.errors import RestoreError, printable
from restore.images.color import cmyk8_to_srgb, cmyk16_to_srgb
from restore.images.metadata.png import with_end

# What decoders give, and the checks that all of them share.


@dataclass
class Decoded:
    """Channels as the file stores them.

    Attributes:
        values: H×W×C, uint8, uint16 or float32; C counts alpha.
        channels: 1 or 3: how many of them are colour; one more is alpha.
        bits: bits per channel in the file.
        white: the value of white.
        orientation: as pyvips found it (TIFF's own tag), or None.
        frames: pictures in the file.
        fields: `icc-profile-data`, `exif-data`, `xmp-data` as far as present.
        dpi: resolution, where stated.
        notes: what was changed on the way.
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


#: What a pixel takes at most in pictures that are repaired: RGB and alpha in float32.
_PIXEL_BYTES = 16
#: Profiles, previews and texts beside the pixels.
_OTHER_BYTES = 64 << 20


class DamagedFile(RestoreError):
    """A decoder gave up on it."""


class ImageTooLarge(RestoreError):
    """More pixels than allowed.

    Attributes:
        pixels: the limit that would let it in; 0 where that is not known.
        size: of the picture or file, in words.
    """

    pixels = 0
    size = ""


def check_size(
    width: int, height: int, max_pixels: int, name: str | os.PathLike[str], *, pixel_bytes: int = _PIXEL_BYTES
) -> None:
    """Refuse a picture by what its header says.

    Args:
        width, height: of the picture.
        max_pixels: the limit.
        name: for the message.
        pixel_bytes: what a pixel takes. Where that is more than 16 (many channels), fewer of them are allowed.

    Raises:
        ImageTooLarge: exit code 1.
    """
    counted = -(-width * height * max(pixel_bytes, _PIXEL_BYTES) // _PIXEL_BYTES)
    if counted > max_pixels:
        many = f" of {pixel_bytes} bytes a pixel" if pixel_bytes > _PIXEL_BYTES else ""
        _refuse(f"{width}×{height}{many}", counted, max_pixels, name)


def check_bytes(size: int, max_pixels: int, name: str | os.PathLike[str]) -> None:
    """Refuse a file that is larger than the largest allowed picture would be without any compression.

    Raises:
        ImageTooLarge: exit code 1.
    """
    counted = -(-(size - _OTHER_BYTES) // _PIXEL_BYTES)
    if counted > max_pixels:
        _refuse(f"a file of {size / 1e9:.1f} GB", counted, max_pixels, name)


def _refuse(what: str, counted: int, max_pixels: int, name: str | os.PathLike[str]) -> NoReturn:
    error = ImageTooLarge(
        f"{what} is over the limit of {max_pixels / 1e6:g} megapixels",
        where=name,
        hint="raise the limit if the file can be trusted",
        exit_code=1,
    )
    error.pixels, error.size = counted, what
    raise error


def as_uint16(values: np.ndarray, notes: list[str]) -> np.ndarray:
    """Integers of any other type as uint16, with a note.

    Raises:
        ValueError: negative ones, or too large ones.
    """
    low, high = int(values.min(initial=0)), int(values.max(initial=0))
    if low >= 0 and high <= 65535:
        notes.append(f"{values.dtype.itemsize * 8}-bit integers read as 16 bits")
        return values.astype(np.uint16)
    if low >= 0 and values.dtype.itemsize == 4:
        notes.append("32-bit integers rounded to 16 bits")
        return (values.astype(np.uint32) >> 16).astype(np.uint16)
    raise ValueError(f"values from {low} to {high} are no picture")


# Pillow: the formats that pyvips does not know, and the second try at those that it does.


#: Format -> Pillow's names for it.
PILLOW_NAMES = {
    "jpeg": ("JPEG", "MPO"), "png": ("PNG",), "tiff": ("TIFF",), "webp": ("WEBP",), "gif": ("GIF",),
    "avif": ("AVIF",), "heic": ("HEIF",), "bmp": ("BMP", "DIB"), "tga": ("TGA",), "pcx": ("PCX",), "ico": ("ICO",),
    "ppm": ("PPM",), "sgi": ("SGI",),
}  # fmt: skip


_LIMIT = threading.Lock()


def _quiet_libtiff() -> None:
    """Keep the libtiff inside Pillow's wheel from writing to stderr; elsewhere it is left as it is."""
    for library in Path(PIL.__file__).parents[1].glob("pillow.libs/libtiff*.so*"):
        tiff = ctypes.CDLL(os.fspath(library))
        for setter in (tiff.TIFFSetErrorHandler, tiff.TIFFSetWarningHandler):
            setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
            setter(None)


_quiet_libtiff()
logging.getLogger("PIL").addHandler(logging.NullHandler())
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\..*")


def decode_by_pillow(
    data: bytes, kind: str, name: str | os.PathLike[str], max_pixels: int, *, truncated: str = "fail"
) -> Decoded:
    """Decode the first picture of a file, mostly to 8 bits.

    Raises:
        DamagedFile, ImageTooLarge: exit code 1, with Pillow's reason.
    """
    try:
        with _opened(data, kind) as image:
            size = image.size
            check_size(*size, max_pixels, name)
            frames = getattr(image, "n_frames", 1) if kind != "ico" else 1
            try:
                return _from_pillow(image, frames)
            except OSError as error:
                if truncated == "fail":
                    raise
                complaint = _reason_of(error)
        # Pillow takes a cut file only by a switch for the whole process. Black pixels at its end do the same.
        with _opened(data + bytes(4 * size[0] * size[1]), kind) as image:
            decoded = _from_pillow(image, frames)
        decoded.notes.append(f"damaged data, decoded as far as it goes ({complaint})")
        return decoded
    except RestoreError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageTooLarge("it says it is larger than any picture", where=name, exit_code=1) from error
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise a dozen kinds, and hostile files find more
        raise DamagedFile(
            f"the {kind.upper()} cannot be decoded: {_reason_of(error)}",
            where=name,
            hint="the file is damaged or cut short",
            exit_code=1,
        ) from error


def _opened(data: bytes, kind: str) -> Image.Image:
    """Opened without Pillow's own limit on pixels: the caller has one. It is the process's, so others wait."""
    with _LIMIT:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(io.BytesIO(data), formats=PILLOW_NAMES[kind])
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _reason_of(error: Exception) -> str:
    reason = printable(" ".join(str(error).split())) or type(error).__name__
    return "broken header" if "cannot identify" in reason else reason


def _from_pillow(image: Image.Image, frames: int) -> Decoded:
    notes: list[str] = []
    dpi = image.info.get("dpi")
    kept = {"icc-profile-data": "icc_profile", "exif-data": "exif", "xmp-data": "xmp"}
    fields = {field: image.info.get(key) for field, key in kept.items()}
    orientation = image.getexif().get(0x0112) if image.format == "TIFF" else None
    stored_bits = max(np.atleast_1d(getattr(image, "tag_v2", {}).get(258, 8)))
    tile = next(iter(getattr(image, "tile", [])), None)
    if image.format == "PPM" and tile is not None and isinstance(tile.args[-1], int):
        stored_bits = tile.args[-1].bit_length()
    image.load()
    if image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.uint16)
        return Decoded(values[:, :, None], 1, 16, 65535.0, orientation, frames, notes=notes)
    if image.mode in ("I", "F"):
        raw = np.asarray(image)
        if image.mode == "I":
            return Decoded(as_uint16(raw, notes)[:, :, None], 1, 16, 65535.0, orientation, frames, notes=notes)
        return Decoded(raw[:, :, None].astype(np.float32), 1, 32, 1.0, orientation, frames, notes=notes)
    if stored_bits > 8:
        notes.append(f"only 8 of its {stored_bits} bits could be read")
    if image.mode == "LAB":
        notes.append("Lab converted to RGB")
        image, fields = _lab_to_rgb(image), {}
    transparent = "transparency" in image.info or image.mode in ("LA", "PA", "RGBA", "La", "RGBa")
    grayish = image.mode in ("1", "L", "LA", "La")
    mode = ("LA" if transparent else "L") if grayish else ("RGBA" if transparent else "RGB")
    values = np.asarray(image.convert(mode))
    return Decoded(
        values=values.reshape(image.height, image.width, -1),
        channels=1 if grayish else 3,
        bits=8,
        orientation=orientation,
        frames=frames,
        fields={key: value for key, value in fields.items() if value},
        dpi=(float(dpi[0]), float(dpi[1])) if dpi and min(dpi) > 0.3 and max(dpi) < 250_000 else None,
        notes=notes,
    )


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    converted = ImageCms.profileToProfile(
        image, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    assert converted is not None  # not in place
    return converted


# HEIC, as phones write it: through `pillow-heif` where that is installed (`restore-toolkit[heic]`).


#: What to do about a HEIC file where it is not.
HEIC_ADVICE = "pip install 'restore-toolkit[heic]' brings what reads and writes it"


@functools.cache
def heic_available() -> bool:
    """Whether Pillow knows HEIC; teaches it where that is possible."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener(thumbnails=False)
    return True


# Decoders' murmurs stay off stderr; what matters becomes a note or an error.
logging.getLogger("pyvips").addHandler(logging.NullHandler())
logging.getLogger("pyvips").setLevel(logging.ERROR)
pyvips.cache_set_max(0)  # operations on buffers are never repeated: a cache would only hold on to pictures

#: Formats that pyvips decodes; Pillow does the rest.
VIPS_FORMATS = frozenset(("jpeg", "png", "tiff", "webp", "gif", "avif", "heic"))
#: What a channel takes in memory.
_BYTES = {
    "uchar": 1, "char": 1, "ushort": 2, "short": 2, "uint": 4, "int": 4, "float": 4, "double": 8,
    "complex": 8, "dpcomplex": 16,
}  # fmt: skip
_LOADERS = {"avif": "heif", "heic": "heif"}


def decode(data: bytes, kind: str, name: str | os.PathLike[str], *, max_pixels: int, truncated: str) -> Decoded:
    """Decode the first picture of a file.

    Args:
        data: the whole file.
        kind: its format.
        name: for messages.
        max_pixels: a picture that says it is larger is refused before it is decoded.
        truncated: `fail`, or `accept` to take what is there of a damaged file.

    Raises:
        DamagedFile, ImageTooLarge: exit code 1, with the decoder's reason.
    """
    if kind not in VIPS_FORMATS:
        return decode_by_pillow(data, kind, name, max_pixels, truncated=truncated)
    lenient = truncated == "accept"
    # A JPEG decoder only warns of damaged data: the strict try finds out, the second one takes it as it is.
    levels = (("warning",) if kind == "jpeg" else ()) + ("error",) + (("none",) if lenient else ())
    complaint = ""
    for level in levels:
        if kind == "png" and level == "none":
            data = with_end(data)
        try:
            decoded = _vips(data, kind, name, max_pixels, level)
        except (pyvips.Error, UnicodeDecodeError) as error:
            complaint = decoder_message(error)
            continue
        if complaint:
            decoded.notes.append(f"damaged data, decoded as far as it goes ({complaint})")
        return decoded
    if kind == "heic" and not heic_available():
        raise RestoreError(f"the HEIC cannot be decoded: {complaint}", where=name, hint=HEIC_ADVICE, exit_code=1)
    if kind in PILLOW_NAMES:
        try:
            decoded = decode_by_pillow(data, kind, name, max_pixels)
        except ImageTooLarge:
            raise
        except RestoreError:
            pass  # the first decoder's reason is the better one
        else:
            if kind != "heic":  # for which it is the usual one
                decoded.notes.append(f"read by the second decoder ({complaint})")
            return decoded
    hint = _hint(complaint, lenient)
    # Only damage can be looked past: a kind that is not known stays unknown.
    kind_of_error = DamagedFile if hint is None or "damaged" in hint else RestoreError
    raise kind_of_error(f"the {kind.upper()} cannot be decoded: {complaint}", where=name, hint=hint, exit_code=1)


def _hint(complaint: str, lenient: bool) -> str | None:
    if "unsupported" in complaint.lower():
        return "convert it to TIFF or PNG first"
    return None if lenient else "the file is damaged or cut short"


def decoder_message(error: Exception) -> str:
    """A decoder's message on one line, without repetitions and the names of its functions."""
    if isinstance(error, UnicodeDecodeError):
        # pyvips fell over a message that quotes bytes of the file, and left it to be found by the next error.
        pyvips.vips_lib.vips_error_clear()
        lines = error.object.decode("utf-8", "backslashreplace").splitlines()
    else:
        lines = str(error).splitlines()[1:] or [str(error)]
    useful = [line.partition(": ")[2] or line for line in lines if not line.endswith("load error")]
    parts = dict.fromkeys(printable(part.strip()) for part in useful if part.strip())
    return "; ".join(list(parts)[:2]) or "broken data"


@dataclass(frozen=True)
class Facts:
    """What stands in a file beside the pixels; see `Decoded`."""

    fields: dict[str, bytes]
    dpi: tuple[float, float] | None
    frames: int
    bits: int | None
    orientation: int | None


def opened(
    source: bytes | bytearray | Path, kind: str, name: str | os.PathLike[str], max_pixels: int, fail_on: str
) -> Any:
    """A pyvips image of a file's first picture, whose rows are decoded when they are asked for, from the top down.

    Args:
        source: the whole file, or its path.
        kind: one of `VIPS_FORMATS`.
        name: for messages.
        max_pixels: a picture that says it is larger is refused.
        fail_on: the least that ends decoding: `none`, `truncated`, `error` or `warning`.

    Raises:
        ImageTooLarge, pyvips.Error, UnicodeDecodeError.
    """
    in_memory = not isinstance(source, Path)
    load = getattr(pyvips.Image, f"{_LOADERS.get(kind, kind)}load{'_buffer' if in_memory else ''}")
    where: Any = os.fsencode(source) if isinstance(source, Path) else source
    image = load(where, access="sequential", fail_on=fail_on)
    pixel_bytes = image.bands * _BYTES[image.format]
    check_size(image.width, image.height, max_pixels, name, pixel_bytes=pixel_bytes)
    if kind == "tiff":  # the size is settled: the loader's own limits would refuse large strips
        image = load(where, access="sequential", fail_on=fail_on, unlimited=True)
    return image


def facts_of(image: Any) -> Facts:
    """What an opened picture tells beside its pixels."""
    present = set(image.get_fields())

    def value(key: str) -> Any:
        return image.get(key) if key in present else None

    found: dict[str, bytes] = {
        key: bytes(image.get(key)) for key in ("icc-profile-data", "exif-data", "xmp-data") if key in present
    }
    dpi = None
    if value("resolution-unit") in ("in", "cm") and all(0.01 < x < 10_000 for x in (image.xres, image.yres)):
        dpi = (round(image.xres * 25.4, 4), round(image.yres * 25.4, 4))
    bits = value("bits-per-sample")
    return Facts(found, dpi, int(value("n-pages") or 1), int(bits) if bits else None, value("orientation"))


def _vips(data: bytes, kind: str, name: str | os.PathLike[str], max_pixels: int, fail_on: str) -> Decoded:
    image = opened(data, kind, name, max_pixels, fail_on)
    facts = facts_of(image)
    notes: list[str] = []
    image, colour = to_rgb_or_gray(image, facts.fields, notes)
    values, white = _numbers(image, notes)
    channels = 3 if values.shape[2] >= 3 else 1
    if colour is not None:
        channels = colour
    if values.shape[2] > channels + 1:
        notes.append(f"{values.shape[2]} channels; those after the first {channels + 1} are left out")
        values = values[:, :, : channels + 1]
    return Decoded(
        values=values,
        channels=channels,
        bits=facts.bits or values.dtype.itemsize * 8,
        white=white,
        orientation=facts.orientation,
        frames=facts.frames,
        fields=facts.fields,
        dpi=facts.dpi,
        notes=notes,
    )


def to_rgb_or_gray(image: Any, found: dict[str, bytes], notes: list[str]) -> tuple[Any, int | None]:
    """CMYK and Lab -> sRGB. A profile that was used up leaves `found`.

    Returns:
        The image, and how many of its channels are colour where that is known now.
    """
    if image.interpretation == "cmyk" and image.bands >= 4:
        convert = cmyk8_to_srgb if image.format == "uchar" else cmyk16_to_srgb
        icc = found.pop("icc-profile-data", None)
        own = "through its profile" if icc else "through a standard profile (it has none)"
        image = image.copy_memory()  # read once, as it may have to be converted twice
        try:
            converted = convert(image, icc or pyvips.Image.profile_load("cmyk"))
        except ValueError:
            own = "through a standard profile (its own is broken)"
            converted = convert(image, pyvips.Image.profile_load("cmyk"))
        notes.append(f"CMYK converted to RGB {own}")
        return converted, 3
    if image.interpretation in ("lab", "labs", "labq", "xyz", "yxy", "lch"):
        deep = image.format != "uchar"
        found.pop("icc-profile-data", None)
        notes.append("Lab converted to RGB")
        return image.colourspace("rgb16" if deep else "srgb"), 3
    return image, None


def _numbers(image: Any, notes: list[str]) -> tuple[np.ndarray, float]:
    """Values as uint8, uint16 or float32, and the value of white."""
    values = image.numpy()
    values = values.reshape(image.height, image.width, image.bands)
    if values.dtype in (np.uint8, np.uint16):
        return values, 255.0 if values.dtype == np.uint8 else 65535.0
    if values.dtype in (np.float32, np.float64):
        values = values.astype(np.float32, copy=False)
        top = float(np.nanmax(np.where(np.isfinite(values), values, 0), initial=0.0))
        white = 1.0 if top <= 16 else 255.0 if top <= 255 else 65535.0
        if white != 1.0:
            notes.append(f"a float picture with values up to {top:g}: {white:.0f} is taken for white")
        return values, white
    if np.iscomplexobj(values):
        raise pyvips.Error("complex numbers\n  complex numbers are no picture")
    try:
        return as_uint16(values, notes), 65535.0
    except ValueError as error:
        raise pyvips.Error(f"integers\n  {error}") from error
