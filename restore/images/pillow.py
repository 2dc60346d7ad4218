"""Pillow and pillow-heif, used without changing their behavior for the rest of the process.

Nothing here touches `Image.MAX_IMAGE_PIXELS`, `ImageFile.LOAD_TRUNCATED_IMAGES` or the list of plugins, all of which a
program that imports this package may use in its own way.
"""

from __future__ import annotations

import functools
import io
import struct
from contextlib import suppress
from typing import Any

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

#: Format -> Pillow's names for it.
PILLOW_NAMES = {
    "jpeg": ("JPEG", "MPO"), "png": ("PNG",), "tiff": ("TIFF",), "webp": ("WEBP",), "gif": ("GIF",),
    "avif": ("AVIF",), "bmp": ("BMP", "DIB"), "tga": ("TGA",), "pcx": ("PCX",), "ico": ("ICO",),
    "ppm": ("PPM",), "sgi": ("SGI",), "jp2": ("JPEG2000",),
}  # fmt: skip
HEIC_ADVICE = "HEIC needs an extra package: pip install 'restore-toolkit[heic]'"


def open_with_pillow(data: bytes, kind: str) -> Image.Image:
    """As `Image.open`, but without its limit on pixels, which is a setting of the process: `check_size` has one."""
    if kind == "heic":
        heif: Image.Image = _pillow_heif().HeifImageFile(io.BytesIO(data))
        return heif
    for name in PILLOW_NAMES[kind]:
        if name not in Image.OPEN:
            Image.init()
        factory, accept = Image.OPEN[name]
        accepted = accept(data[:16]) if accept else True
        if accepted and not isinstance(accepted, str):  # a string says why a plugin cannot
            with suppress(SyntaxError, IndexError, TypeError, struct.error):  # as in `Image.open`
                return factory(io.BytesIO(data), "")
    raise OSError("broken header")


class _ConvertedByLibtiff(TiffImageFile):
    """A TIFF whose YCbCr libtiff converts to RGB. Pillow lets it do so only if the pixels are compressed, and reads
    others as if every pixel had its own colors."""

    @property
    def _compression(self) -> str:
        return "none"

    @_compression.setter
    def _compression(self, _value: str) -> None:
        pass


def open_converted_by_libtiff(data: bytes) -> Image.Image:
    """Open a TIFF in YCbCr as RGB.

    Raises:
        OSError: the header is broken.
    """
    with suppress(SyntaxError, IndexError, TypeError, struct.error):  # as in `Image.open`
        return _ConvertedByLibtiff(io.BytesIO(data), "")
    raise OSError("broken header")


# HEIC, as phones write it, if pillow-heif is installed


def heic_available() -> bool:
    """Whether HEIC can be read and written."""
    return _pillow_heif() is not None


def open_deep_heic(data: bytes) -> Any:
    """The first image of a HEIC of more than 8 bits, as a `pillow_heif.HeifFile`; None: it has 8 bits.

    Its values lie in the upper bits of uint16. Pillow has no mode for them.
    """
    opened = _pillow_heif().open_heif(data, convert_hdr_to_8bit=False)
    return opened if opened.mode in ("RGB;16", "RGBA;16", "L;16", "I;16", "I;16L") else None


def encode_heic(values: np.ndarray, options: dict[str, Any]) -> bytes:
    """A HEIC file of 8 bits, or of 10 from uint16.

    Args:
        values: H×W×C, uint8 or uint16, C = 1 to 4 (gray, gray and alpha, RGB, RGBA).
        options: of `pillow_heif.HeifFile.save`.

    Raises:
        ValueError: pillow-heif is not installed.
    """
    if not heic_available():
        raise ValueError(HEIC_ADVICE)
    stream = io.BytesIO()
    height, width, channels = values.shape
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels] + (";16" if values.dtype == np.uint16 else "")
    _pillow_heif().from_bytes(mode, (width, height), values.tobytes()).save(stream, **options)
    return stream.getvalue()


@functools.cache
def _pillow_heif() -> Any:
    """The package, or None. It is used directly, not registered as a plugin of Pillow."""
    try:
        import pillow_heif
    except ImportError:
        return None
    return pillow_heif
