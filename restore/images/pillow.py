"""Pillow and pillow-heif, used without changing their behavior for the rest of the process.

Nothing here touches `Image.MAX_IMAGE_PIXELS`, `ImageFile.LOAD_TRUNCATED_IMAGES` or the list of plugins, all of which a
program that imports this package may use in its own way.
"""

from __future__ import annotations

import ctypes
import functools
import io
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import PIL
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

#: Format -> Pillow's names for it.
PILLOW_NAMES = {
    "jpeg": ("JPEG", "MPO"), "png": ("PNG",), "tiff": ("TIFF",), "webp": ("WEBP",), "gif": ("GIF",),
    "avif": ("AVIF",), "bmp": ("BMP", "DIB"), "tga": ("TGA",), "pcx": ("PCX",), "ico": ("ICO",),
    "ppm": ("PPM",), "sgi": ("SGI",), "jp2": ("JPEG2000",),
}  # fmt: skip
HEIC_ADVICE = "HEIC needs an extra package: pip install 'restore-toolkit[heic]'"

_quiet_lock = threading.Lock()
_quiet_users = 0
_libtiff_handlers: list[tuple[Any, int | None]] = []


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


@contextmanager
def quiet_libtiff(kind: str) -> Iterator[None]:
    """Keep the libtiff inside Pillow's wheel from writing to stderr while it decodes a TIFF.

    The handlers are process-wide: the first thread removes them, and the last one restores them.
    """
    global _quiet_users
    if kind != "tiff":
        yield
        return
    with _quiet_lock:
        _quiet_users += 1
        if _quiet_users == 1:
            _libtiff_handlers[:] = [(setter, setter(None)) for setter in _libtiff_setters()]
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_users -= 1
            if _quiet_users == 0:
                for setter, handler in _libtiff_handlers:
                    setter(handler)


@functools.cache
def _libtiff_setters() -> list[Any]:
    """The C functions that set libtiff's handlers and return the old ones; none if Pillow uses the system's libtiff."""
    setters = []
    for library in Path(PIL.__file__).parents[1].glob("pillow.libs/libtiff*.so*"):
        tiff = ctypes.CDLL(os.fspath(library))
        for setter in (tiff.TIFFSetErrorHandler, tiff.TIFFSetWarningHandler):
            setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
            setters.append(setter)
    return setters


# HEIC, as phones write it, if pillow-heif is installed


def heic_available() -> bool:
    """Whether HEIC can be read and written."""
    return _pillow_heif() is not None


def encode_heic(image: Image.Image, options: dict[str, Any]) -> bytes:
    """A HEIC file.

    Args:
        image: to encode.
        options: of `pillow_heif.HeifFile.save`.

    Raises:
        ValueError: pillow-heif is not installed.
    """
    if not heic_available():
        raise ValueError(HEIC_ADVICE)
    stream = io.BytesIO()
    _pillow_heif().from_pillow(image).save(stream, **options)
    return stream.getvalue()


@functools.cache
def _pillow_heif() -> Any:
    """The package, or None. It is used directly, not registered as a plugin of Pillow."""
    try:
        import pillow_heif
    except ImportError:
        return None
    return pillow_heif
