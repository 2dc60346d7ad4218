"""Pictures -> bytes of a file, with what the format can hold of them."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyvips
from PIL import Image

from restore.errors import RestoreError
from restore.files import write_atomically
from restore.images.decode import HEIC_ADVICE, decoder_message, heic_available
from restore.images.formats import FORMAT_OF_SUFFIX
from restore.images.image import DecodedImage
from restore.images.metadata import jpeg, png, tiff
from restore.images.metadata import tiff as tiff_pages
from restore.images.metadata.exif import with_prefix

DEFAULT_QUALITY = 90  # where the source tells none
_SEGMENT = 65533  # bytes that a JPEG segment holds
_PILLOW_ONLY = {"bmp": "BMP", "tga": "TGA", "pcx": "PCX", "ico": "ICO", "ppm": "PPM", "sgi": "SGI"}
#: Formats that can be written. HEIC cannot: its encoder is not among the libraries that come along.
WRITABLE_FORMATS = frozenset(("jpeg", "png", "tiff", "webp", "gif", "avif", *_PILLOW_ONLY))
_LOSSY = ("jpeg", "webp", "avif", "heic")
_WITHOUT_ALPHA = ("jpeg", "pcx", "ppm", "bmp")
_DEEP = ("png", "tiff", "avif")
PNG_LEVEL = 3  # a third of level 6's time, for some 7 % more bytes


def encode(
    picture: DecodedImage, kind: str, name: str | os.PathLike[str], *, quality: int | None = None
) -> tuple[bytes, list[str]]:
    """A file's bytes, and notes on what the format could not hold.

    Raises:
        RestoreError: exit code 1: the format cannot be written, or not this picture.
    """
    encoders = {
        "jpeg": _jpeg,
        "png": _png,
        "tiff": _tiff,
        "webp": _webp,
        "avif": _heif,
        "heic": _heic,
        "gif": _gif,
    }
    notes: list[str] = []
    try:
        if kind == "ico" and max(picture.size) > 256:
            raise ValueError("icons have at most 256×256 pixels")
        if picture.extra_pages and kind == "tiff":
            pages = [_tiff(_fitted(page, kind, notes), quality, notes) for page in (picture, *picture.extra_pages)]
            return tiff_pages.joined(pages), list(dict.fromkeys(notes))
        picture = _fitted(picture, kind, notes)
        if kind in encoders:
            return encoders[kind](picture, quality, notes), notes
        if kind in _PILLOW_ONLY:
            options: dict[str, Any] = {"sizes": [picture.size[::-1]]} if kind == "ico" else {}
            if kind in ("bmp", "pcx") and picture.dpi:
                options["dpi"] = picture.dpi
            return _by_pillow(picture, _PILLOW_ONLY[kind], options), notes
    except (pyvips.Error, UnicodeDecodeError) as error:
        reason: Any = decoder_message(error)
    except (OSError, ValueError, KeyError, OverflowError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
    else:
        reason = "the format is unknown"
    raise RestoreError(
        f"cannot be written as {kind.upper()}: {reason}", where=name, hint="choose PNG or TIFF", exit_code=1
    )


def without_metadata(picture: DecodedImage) -> DecodedImage:
    """The picture without EXIF, XMP, captions and texts; what says how its colours are meant stays."""
    passthrough = png.colour_chunks(picture.passthrough) if picture.format == "png" else b""
    extra_pages = tuple(without_metadata(page) for page in picture.extra_pages)
    return replace(picture, exif=None, xmp=None, passthrough=passthrough, extra_pages=extra_pages)


def _fitted(picture: DecodedImage, kind: str, notes: list[str]) -> DecodedImage:
    """The picture as far as the format can hold it: depth, alpha, gray."""
    if picture.gray and picture.icc and kind in ("webp", "avif", "heic"):  # they store gray as colour
        empty = np.zeros((*picture.size, 3), picture.pixels.dtype)
        in_srgb = DecodedImage(empty, white=picture.white).blend(picture.to_srgb())
        picture = replace(picture, pixels=in_srgb.pixels, icc=None)
    if picture.alpha is not None and not picture.transparent and kind != "tiff":
        notes.append("a further channel, which is not said to be transparency, is left out")
        picture = replace(picture, alpha=None)
    pixels, alpha, white = picture.pixels, picture.alpha, picture.white
    if pixels.dtype == np.float32 and kind != "tiff":
        notes.append("floating point rounded to 16 bits" if kind in _DEEP else "floating point rounded to 8 bits")
        pixels, alpha, white = (
            _rounded(pixels, white),
            None if alpha is None else _rounded(alpha, white),
            65535.0,
        )
    if pixels.dtype == np.uint16 and kind not in _DEEP:
        if picture.pixels.dtype == np.uint16:
            notes.append("16 bits rounded to 8")
        pixels, alpha, white = _to8(pixels), None if alpha is None else _to8(alpha), 255.0
    if alpha is not None and kind in _WITHOUT_ALPHA:
        if alpha.min(initial=255) < white:
            notes.append("transparency laid on white")
            share = alpha[:, :, None] / np.float32(white)
            pixels = np.rint(pixels * share + white * (1 - share)).astype(pixels.dtype)
        alpha = None
    if kind == "sgi" and alpha is not None:
        pixels = np.repeat(pixels, 3 // pixels.shape[2], axis=2)  # it knows no gray with transparency
    if kind != picture.format:
        picture = replace(picture, passthrough=b"")
    return replace(picture, pixels=pixels, alpha=alpha, white=white)


def _jpeg(picture: DecodedImage, quality: int | None, notes: list[str]) -> bytes:
    options: dict[str, Any] = {}
    source = picture.jpeg
    if quality is None and source is not None and source.tables and source.bits == 8:
        # The source's own tables: known pixels lose next to nothing by being compressed once more.
        gray_to_colour = not picture.gray and not source.subsampling
        options["qtables"] = [_natural(table) for table in source.tables]
        if gray_to_colour:
            options = {"quality": source.quality}
    else:
        options["quality"] = quality or DEFAULT_QUALITY
    if not picture.gray:
        named = source.subsampling if source is not None else ""
        options["subsampling"] = named if named in ("4:4:4", "4:2:2", "4:2:0") else "4:4:4" if named else "4:2:0"
    if source is not None and source.rgb and "qtables" in options:
        options["keep_rgb"] = True  # its tables are made for red, green and blue
    if source is not None and source.progressive:
        options["progressive"] = True
    if picture.exif:
        if len(with_prefix(picture.exif)) > _SEGMENT:
            notes.append("the EXIF block is too large for a JPEG and left out")
        else:
            options["exif"] = with_prefix(picture.exif)
    if picture.xmp:
        if len(picture.xmp) > _SEGMENT - 29:
            notes.append("the XMP packet is too large for a JPEG and left out")
        else:
            options["xmp"] = picture.xmp
    if picture.icc:
        options["icc_profile"] = picture.icc
    if picture.dpi:
        options["dpi"] = tuple(min(round(value), 65535) for value in picture.dpi)
    data = _by_pillow(picture, "JPEG", options)
    return jpeg.with_segments(data, picture.passthrough) if picture.passthrough else data


def _png(picture: DecodedImage, _quality: int | None, _notes: list[str]) -> bytes:
    # One filter for all rows: "all" is twice as slow for the same size (measured on photographs).
    data = _as_vips(picture, icc=picture.icc).pngsave_buffer(compression=PNG_LEVEL, filter="up", keep="icc")
    return png.with_chunks(
        bytes(data), exif=picture.exif, xmp=picture.xmp, passthrough=picture.passthrough,
        has_icc=bool(picture.icc), has_dpi=picture.dpi is not None,
    )  # fmt: skip


def _tiff(picture: DecodedImage, _quality: int | None, notes: list[str]) -> bytes:
    compression = picture.compression if picture.format == "tiff" and picture.compression else "deflate"
    image = _as_vips(picture, icc=picture.icc, xmp=picture.xmp)
    data = image.tiffsave_buffer(
        compression=compression,
        predictor="float" if picture.pixels.dtype == np.float32 else "horizontal",
        bigtiff=picture.pixels.nbytes > 3_500_000_000,
    )
    try:
        return _with_tags(bytes(data), picture, picture.exif)
    except ValueError:
        notes.append("the EXIF block is broken and left out")
        return _with_tags(bytes(data), picture, None)


def _with_tags(data: bytes, picture: DecodedImage, exif: bytes | None) -> bytes:
    transparent = picture.alpha is None or picture.transparent
    return tiff.with_tags(
        data,
        exif=exif,
        passthrough=picture.passthrough,
        transparent=transparent,
        has_dpi=picture.dpi is not None,
    )


def _webp(picture: DecodedImage, quality: int | None, _notes: list[str]) -> bytes:
    lossless = quality is None and (picture.compression == "lossless" or picture.format not in _LOSSY)
    options: dict[str, Any] = {"lossless": lossless, "exact": True}
    options |= {"quality": 50, "method": 2} if lossless else {"quality": quality or DEFAULT_QUALITY}
    if picture.icc:
        options["icc_profile"] = picture.icc
    if picture.exif:
        options["exif"] = with_prefix(picture.exif)
    if picture.xmp:
        options["xmp"] = picture.xmp
    return _by_pillow(picture, "WEBP", options)


def _gif(picture: DecodedImage, _quality: int | None, notes: list[str]) -> bytes:
    exact = _palette_image(picture)
    if exact is not None:
        stream = io.BytesIO()
        exact.save(stream, "GIF")
        return stream.getvalue()
    notes.append("a GIF holds 256 colours: they may all have moved a little")
    return bytes(_as_vips(picture).gifsave_buffer(dither=0, effort=5))


def _palette_image(picture: DecodedImage) -> Image.Image | None:
    """The picture in a palette of its own colours, or None where 256 are not enough (or transparency is soft)."""
    rgb = np.repeat(picture.pixels, 3 // picture.pixels.shape[2], axis=2).astype(np.uint32)
    codes = rgb[:, :, 0] << 16 | rgb[:, :, 1] << 8 | rgb[:, :, 2]
    clear = None if picture.alpha is None else picture.alpha == 0
    if clear is not None and picture.alpha is not None:
        if not (clear | (picture.alpha == 255)).all():
            return None
        codes[clear] = 1 << 24  # one entry for all that cannot be seen
    colours, places = np.unique(codes, return_inverse=True)
    if len(colours) > 256:
        return None
    image = Image.fromarray(places.reshape(codes.shape).astype(np.uint8))
    palette = np.stack([colours >> 16 & 255, colours >> 8 & 255, colours & 255], axis=1).astype(np.uint8)
    image.putpalette(palette.tobytes())
    if colours[-1] == 1 << 24:
        image.info["transparency"] = len(colours) - 1
    return image


def _heif(picture: DecodedImage, quality: int | None, _notes: list[str]) -> bytes:
    deep = picture.pixels.dtype == np.uint16
    image = _as_vips(picture, icc=picture.icc, xmp=picture.xmp, exif=picture.exif)
    return bytes(
        image.heifsave_buffer(
            compression="av1",
            Q=quality or DEFAULT_QUALITY,
            bitdepth=(10 if picture.bits == 10 else 12) if deep else 8,
            subsample_mode="off",
            effort=3,  # 4 takes six times as long for the same size (measured on photographs)
        )
    )


def _heic(picture: DecodedImage, quality: int | None, _notes: list[str]) -> bytes:
    if not heic_available():
        raise ValueError(HEIC_ADVICE)
    options: dict[str, Any] = {"quality": quality or DEFAULT_QUALITY, "chroma": 444}
    blocks = {"exif": picture.exif and with_prefix(picture.exif), "xmp": picture.xmp, "icc_profile": picture.icc}
    return _by_pillow(picture, "HEIF", options | {key: block for key, block in blocks.items() if block})


def _as_vips(
    picture: DecodedImage, *, icc: bytes | None = None, xmp: bytes | None = None, exif: bytes | None = None
) -> Any:
    values = picture.pixels
    if picture.alpha is not None:
        values = np.concatenate([values, picture.alpha[:, :, None]], axis=2)
    values = np.ascontiguousarray(values)
    height, width, bands = values.shape
    names = {"uint8": "uchar", "uint16": "ushort", "float32": "float"}
    image = pyvips.Image.new_from_memory(values, width, height, bands, names[values.dtype.name])
    return described(image, picture, icc=icc, xmp=xmp, exif=exif)


def described(
    image: Any, picture: DecodedImage, *, icc: bytes | None = None, xmp: bytes | None = None, exif: bytes | None = None
) -> Any:
    """A pyvips image that says what its numbers mean, and carries metadata."""
    deep = picture.pixels.dtype == np.uint16
    if picture.gray:
        interpretation = "grey16" if deep else "b-w"
    else:
        interpretation = "rgb16" if deep else "scrgb" if picture.pixels.dtype == np.float32 else "srgb"
    image = image.copy(interpretation=interpretation)
    if picture.dpi:
        image = image.copy(xres=picture.dpi[0] / 25.4, yres=picture.dpi[1] / 25.4)
        image.set_type(pyvips.GValue.gstr_type, "resolution-unit", "in")
    for key, block in (
        ("icc-profile-data", icc),
        ("xmp-data", xmp),
        ("exif-data", exif and with_prefix(exif)),
    ):
        if block:
            image.set_type(pyvips.GValue.blob_type, key, block)
    return image


def _by_pillow(picture: DecodedImage, name: str, options: dict[str, Any]) -> bytes:
    values = picture.pixels if not picture.gray else picture.pixels[:, :, 0]
    if picture.alpha is not None:
        values = np.concatenate([picture.pixels, picture.alpha[:, :, None]], axis=2)
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(values)).save(stream, name, **options)
    return stream.getvalue()


def _natural(zigzag: tuple[int, ...]) -> list[int]:
    """A quantisation table row by row, as Pillow wants it; in the file it lies along the diagonals."""
    cells = sorted(range(64), key=lambda i: (i // 8 + i % 8, i // 8 if (i // 8 + i % 8) % 2 else i % 8))
    table = [0] * 64
    for value, cell in zip(zigzag, cells):
        table[cell] = value
    return table


def _rounded(values: np.ndarray, white: float) -> np.ndarray:
    unit = np.nan_to_num(values / np.float32(white), nan=0.0, posinf=1.0, neginf=0.0)
    return np.rint(np.clip(unit, 0, 1) * 65535).astype(np.uint16)


def _to8(values: np.ndarray) -> np.ndarray:
    return ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


# Pictures -> files, whole or not at all.


Metadata = Literal["keep", "strip"]


def write_image(
    picture: DecodedImage,
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    quality: int | None = None,
    metadata: Metadata = "keep",
) -> list[str]:
    """Write a picture, atomically: the file is there complete, or as it was before.

    Args:
        picture: what to write.
        path: where to; its folder must exist. Something there already is replaced.
        format: `jpeg png tiff webp ...`; None goes by the suffix, without a known one by the source's format.
        quality: 1 to 100 for JPEG, WebP and AVIF; None means as the source (JPEG), or 90.
        metadata: `strip` leaves out EXIF, XMP and the like; the colour profile stays, since without it the
            colours would be wrong.

    Returns:
        What the format could not hold, in words for the user; mostly nothing.

    Raises:
        RestoreError: exit code 1: no room, no permission, or a picture that the format cannot hold.
    """
    if metadata == "strip":
        picture = without_metadata(picture)
    kind = format or FORMAT_OF_SUFFIX.get(Path(path).suffix.lower(), picture.format)
    data, notes = encode(picture, kind, path, quality=quality)
    write_bytes(path, data)
    return notes


def write_png(path: str | os.PathLike[str], array: np.ndarray) -> None:
    """Write an array as PNG, atomically; the same array gives the same bytes.

    Args:
        path: where to.
        array: uint8 or uint16, H×W or H×W×C with C = 1 to 4 (gray, gray and alpha, RGB, RGBA).

    Raises:
        RestoreError: it cannot be written.
    """
    values = array if array.ndim == 3 else array[:, :, None]
    colours = values.shape[2] - (values.shape[2] in (2, 4))
    alpha = values[:, :, colours] if values.shape[2] > colours else None
    white = 255.0 if values.dtype == np.uint8 else 65535.0
    picture = DecodedImage(
        np.ascontiguousarray(values[:, :, :colours]),
        alpha,
        white,
        bits=values.dtype.itemsize * 8,
        format="png",
    )
    data, _ = encode(picture, "png", path)
    write_bytes(path, data)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file atomically into a folder that is there.

    Raises:
        RestoreError: exit code 1; nothing of the attempt is left.
    """
    write_atomically(path, data, parents=False)
