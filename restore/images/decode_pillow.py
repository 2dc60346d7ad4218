"""Pillow: the formats that pyvips does not know, and the second try at those that it does."""

from __future__ import annotations

import ctypes
import io
import logging
import os
import threading
import warnings
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

from restore.errors import RestoreError, printable
from restore.images.decoded import Damaged, Decoded, TooLarge, as_uint16, check_size

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
        Damaged, TooLarge: exit code 1, with Pillow's reason.
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
        raise TooLarge("it says it is larger than any picture", where=name, exit_code=1) from error
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise a dozen kinds, and hostile files find more
        raise Damaged(
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
