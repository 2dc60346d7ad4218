"""Files -> pictures."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from restore.errors import RestoreError
from restore.files import not_found_message
from restore.images import formats as webp
from restore.images.color import open_profile
from restore.images.decode import Decoded, ImageTooLarge, decode
from restore.images.formats import format_of
from restore.images.image import DecodedImage
from restore.images.metadata import jpeg, png, tiff
from restore.images.metadata import tiff as tiff_pages
from restore.images.metadata.exif import orientation_of, reoriented, upright_exif, upright_xmp

#: A picture that says it has more pixels is refused, unless the caller allows more.
MAX_PIXELS = 400_000_000

Truncated = Literal["fail", "accept"]

_LOSSY = ("jpeg", "avif", "heic")
# So far black and white waver around edges in a JPEG of quality 75; uncut, a mask of it marks a third too much.
_NEARLY = 24 / 255


def read_image(
    path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS, truncated: Truncated = "fail"
) -> DecodedImage:
    """Read a picture upright, in its own colour space and depth.

    Args:
        path: a file; its content decides on the format.
        max_pixels: the largest W·H; checked in the header, before decoding.
        truncated: `accept` takes what is there of a file cut short.

    Raises:
        NotAnImage: no image by its content.
        RestoreError: exit code 1: cannot be read, with the reason.
    """
    return image_from_bytes(read_bytes(path), path, max_pixels=max_pixels, truncated=truncated)


def image_from_bytes(
    data: bytes,
    name: str | os.PathLike[str],
    *,
    max_pixels: int = MAX_PIXELS,
    truncated: Truncated = "fail",
    all_pages: bool = False,
) -> DecodedImage:
    """`read_image` for a file that is in memory already; `name` is for messages and the suffix.

    `all_pages` also reads the further pages of a TIFF, into `DecodedImage.extra_pages`; `max_pixels` limits the sum of
    their pixels.
    """
    kind = format_of(data, Path(name))
    pages = tiff_pages.find_pages(data) if kind == "tiff" else [0]
    missing = tiff_pages.missing_pages(data, len(pages)) if kind == "tiff" and all_pages else []
    # One copy for all pages, which is bytes to those that only read it.
    page_alone = bytearray(data) if len(pages) > 1 else None
    read: list[DecodedImage] = []
    room = max_pixels
    for at in pages if all_pages else pages[:1]:
        if page_alone is not None:
            tiff_pages.show_page(page_alone, at)
            data = cast(bytes, page_alone)
        try:
            picture = _page(data, name, kind, at, max_pixels=room, truncated=truncated)
        except RestoreError as error:
            if not read:
                raise
            what = error.what
            if isinstance(error, ImageTooLarge):
                what = f"with it the file is over the limit of {max_pixels / 1e6:.0f} megapixels"
            raise RestoreError(
                f"page {len(read) + 1} of {len(pages)}: {what}",
                where=name,
                hint="another format than TIFF takes the first page alone (--ext)",
                exit_code=1,
            ) from error
        room -= picture.size[0] * picture.size[1]
        read.append(picture)
    first, *extra_pages = read
    if not all_pages and len(pages) > 1:
        first.notes.append(f"first of {len(pages)} pages")
    for page, picture in enumerate(extra_pages, start=2):
        first.notes.extend(f"page {page}: {note}" for note in picture.notes)
    first.notes.extend(missing)
    return replace(first, extra_pages=tuple(extra_pages))


def _page(
    data: bytes, name: str | os.PathLike[str], kind: str, at: int, *, max_pixels: int, truncated: Truncated
) -> DecodedImage:
    """The first picture of a file; `at` is where its directory stands in a TIFF."""
    tiff_header = tiff.read_header(data, at) if kind == "tiff" else tiff.TiffHeader()
    if tiff_header.raw:
        raise RestoreError(
            "a camera raw file cannot be read here", where=name, hint="convert it to TIFF first", exit_code=1
        )
    try:
        decoded = decode(data, kind, name, max_pixels=max_pixels, truncated=truncated)
        return assemble_image(data, kind, decoded, tiff_header)
    except MemoryError as error:
        raise RestoreError("there is not enough memory for this picture", where=name, exit_code=1) from error


def read_mask(
    path: str | os.PathLike[str],
    *,
    size: tuple[int, int] | None = None,
    invert: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Read a mask: float32, H×W, [0, 1], white = 1, upright; colours are averaged, the profile is ignored.

    Args:
        path: any picture.
        size: the (H, W) that it must have.
        invert: black = 1.
        max_pixels: as in `read_image`.

    Raises:
        RestoreError: unreadable, or of another size.
    """
    mask = read_image(path, max_pixels=max_pixels)
    if size is not None:
        check_mask_size(mask.size, size, path)
    return mask_from_image(mask, invert=invert)


def check_mask_size(found: tuple[int, int], size: tuple[int, int], name: str | os.PathLike[str]) -> None:
    """That a mask of (H, W) `found` has its picture's size.

    Raises:
        RestoreError: exit code 1; it has another.
    """
    if found != size:
        raise RestoreError(
            f"the mask is {found[1]}×{found[0]}, its picture {size[1]}×{size[0]}",
            where=name,
            hint="a mask has exactly the size of the upright picture",
            exit_code=1,
        )


def mask_from_image(mask: DecodedImage, *, invert: bool = False) -> np.ndarray:
    """A picture as a mask: float32, H×W, [0, 1], white (with `invert`: black) = 1.

    Where it is transparent nothing was painted, whatever colour lies there: 0. In lossy formats black and white are not
    quite black and white around edges: what is nearer to them than that is taken for them, and the rest stretched.
    """
    values = mask.pixels.mean(axis=2, dtype=np.float32) if mask.pixels.shape[2] > 1 else mask.pixels[:, :, 0]
    unit = np.divide(values, np.float32(mask.white), dtype=np.float32)
    unit = np.clip(np.nan_to_num(unit, nan=0.0), 0, 1)
    if mask.format in _LOSSY or mask.compression == "lossy":
        unit = np.clip((unit - _NEARLY) / (1 - 2 * _NEARLY), 0, 1, dtype=np.float32)
    if invert:
        unit = 1 - unit
    if mask.alpha is not None and mask.transparent:
        opaque = np.divide(mask.alpha, np.float32(mask.white), dtype=np.float32)
        unit *= np.clip(np.nan_to_num(opaque, nan=0.0), 0, 1)
    return unit


def read_rgb8(path: str | os.PathLike[str]) -> np.ndarray:
    """Read a picture as a network would see it in 8 bits: uint8, H×W×3, sRGB, upright; alpha is dropped."""
    picture = read_image(path)
    if picture.pixels.dtype == np.uint8 and picture.profile is None:
        if picture.gray:
            return np.repeat(picture.pixels, 3, axis=2)
        return np.ascontiguousarray(picture.pixels)
    return np.rint(np.clip(picture.to_srgb(), 0, 1) * 255).astype(np.uint8)


def read_rgb(path: str | os.PathLike[str]) -> np.ndarray:
    """Read a picture as float32, H×W×3, sRGB, [0, 1], at its full depth, upright; alpha is dropped."""
    return np.clip(read_image(path).to_srgb(), 0, 1)


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The content of a regular file.

    Raises:
        RestoreError: exit code 1: missing, a folder, a pipe, no permission, ...
    """
    try:
        # Without O_NONBLOCK, opening a pipe that nobody writes to would wait for ever.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(handle, "rb") as stream:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise RestoreError("this is not a regular file", where=path, exit_code=1)
            return stream.read()
    except MemoryError as error:
        raise RestoreError("there is not enough memory for this file", where=path, exit_code=1) from error
    except (OSError, ValueError) as error:
        code = getattr(error, "errno", None)
        what = {
            errno.ENOENT: not_found_message(path, "file"),
            errno.EACCES: "no permission to read it",
            errno.EISDIR: "this is a folder",
        }.get(code or 0, f"cannot be read: {getattr(error, 'strerror', None) or error}")
        raise RestoreError(what, where=path, exit_code=1) from error


def assemble_image(
    data: Any, kind: str, decoded: Decoded, tiff_header: tiff.TiffHeader, *, size: tuple[int, int] | None = None
) -> DecodedImage:
    """What was decoded, upright, with what else stands in the file.

    Args:
        data: the whole file, as bytes or mapped into memory.
        kind: its format.
        decoded: its channels.
        tiff_header: of a TIFF.
        size: the (H, W) of the upright picture, where `decoded` holds none of its rows.
    """
    notes = list(decoded.notes)
    exif, xmp = decoded.fields.get("exif-data"), decoded.fields.get("xmp-data")
    jpeg_header, passthrough, frames, compression, dpi = None, b"", decoded.frames, "", decoded.dpi
    if kind == "jpeg":
        jpeg_header = jpeg.read_header(data)
        passthrough = jpeg_header.passthrough
        if xmp and b"hdrgm:" in xmp:
            notes.append("its gain map for bright screens is left out")
        elif jpeg_header.several:
            notes.append("the first picture of several in the file (MPO)")
    elif kind == "png":
        png_header = png.read_header(data)
        xmp = xmp or png_header.xmp  # the decoder does not look behind the pixels
        exif, passthrough, frames, dpi = (
            png_header.exif,
            png_header.passthrough,
            png_header.frames,
            png_header.dpi,
        )
        if png_header.has_icc and "icc-profile-data" not in decoded.fields:
            notes.append("the colour profile is broken: left out, and the picture taken for sRGB")
    elif kind == "tiff":
        exif, passthrough, compression = (
            tiff_header.exif,
            tiff_header.passthrough,
            tiff_header.compression,
        )
        frames = 1
    elif kind == "webp":
        compression = "lossless" if webp.is_lossless(data) else "lossy"
    elif kind == "avif" and b"avis" in data[8:32] and frames == 1:
        notes.append("the first frame of an animation")
    if frames > 1:
        notes.append(f"first of {frames} frames")

    orientation = orientation_of(exif)
    if kind in ("avif", "heic"):  # the decoder has turned it already, as the format's own tags say
        orientation = 1
    elif kind == "tiff" and decoded.orientation is not None:
        orientation = decoded.orientation
    values = reoriented(decoded.values, orientation)
    if orientation >= 5 and dpi is not None:
        dpi = dpi[::-1]
    if orientation >= 5 and kind == "png":
        passthrough = png.turned_resolution(passthrough)
    pixels = np.ascontiguousarray(values[:, :, : decoded.channels])
    alpha = np.ascontiguousarray(values[:, :, -1]) if values.shape[2] > decoded.channels else None

    size = size or (pixels.shape[0], pixels.shape[1])
    icc = decoded.fields.get("icc-profile-data")
    if icc is not None:
        try:
            open_profile(icc, decoded.channels)
        except ValueError as error:
            notes.append(f"{error}: left out, and the picture taken for sRGB")
            icc = None
    return DecodedImage(
        pixels=pixels,
        alpha=alpha,
        white=decoded.white,
        icc=icc,
        bits=decoded.bits,
        format=kind,
        exif=None if exif is None else upright_exif(exif, size),
        xmp=None if xmp is None else upright_xmp(xmp, size, reoriented=orientation != 1),
        jpeg=jpeg_header,
        dpi=dpi,
        compression=compression,
        passthrough=passthrough,
        transparent=tiff_header.extra != 0,
        reoriented=orientation != 1,
        notes=notes,
    )
