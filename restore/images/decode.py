"""Bytes -> raw channels. Whatever a decoder may throw ends here, as a `RestoreError` with the reason."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyvips

from restore.errors import RestoreError, printable
from restore.images import heic
from restore.images.cmyk import cmyk8_to_srgb, cmyk16_to_srgb
from restore.images.decode_pillow import PILLOW_NAMES, decode_by_pillow
from restore.images.decoded import Damaged, Decoded, TooLarge, as_uint16, check_size
from restore.images.png import with_end

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
        Damaged, TooLarge: exit code 1, with the decoder's reason.
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
            complaint = reason_of(error)
            continue
        if complaint:
            decoded.notes.append(f"damaged data, decoded as far as it goes ({complaint})")
        return decoded
    if kind == "heic" and not heic.available():
        raise RestoreError(f"the HEIC cannot be decoded: {complaint}", where=name, hint=heic.ADVICE, exit_code=1)
    if kind in PILLOW_NAMES:
        try:
            decoded = decode_by_pillow(data, kind, name, max_pixels)
        except TooLarge:
            raise
        except RestoreError:
            pass  # the first decoder's reason is the better one
        else:
            if kind != "heic":  # for which it is the usual one
                decoded.notes.append(f"read by the second decoder ({complaint})")
            return decoded
    hint = _hint(complaint, lenient)
    # Only damage can be looked past: a kind that is not known stays unknown.
    kind_of_error = Damaged if hint is None or "damaged" in hint else RestoreError
    raise kind_of_error(f"the {kind.upper()} cannot be decoded: {complaint}", where=name, hint=hint, exit_code=1)


def _hint(complaint: str, lenient: bool) -> str | None:
    if "unsupported" in complaint.lower():
        return "convert it to TIFF or PNG first"
    return None if lenient else "the file is damaged or cut short"


def reason_of(error: Exception) -> str:
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
        TooLarge, pyvips.Error, UnicodeDecodeError.
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
