"""Reading images and masks from files."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np

from restore.errors import RestoreError
from restore.files import not_found_message
from restore.images.assemble import assemble_image, upright
from restore.images.decode import decode
from restore.images.decoder_output import DamagedFile, DecoderOutput, ImageTooLarge
from restore.images.formats import UnsupportedFile, format_of
from restore.images.image import DecodedImage
from restore.images.metadata import tiff, tiff_pages

#: The default limit on W·H.
MAX_PIXELS = 400_000_000

#: The most that profiles and texts of all pages of a file may take: in bytes, or as a multiple of the file's size,
#: whichever is more. Hostile pages all point at the same ones, of which each page would get a copy.
_METADATA_BYTES, _METADATA_TIMES = 256 << 20, 4

_LOSSY = ("jpeg",)
#: In a JPEG of quality 75, black and white deviate by this much around edges. Without correction, a mask of that
#: quality covers a third too many pixels.
_LOSSY_TOLERANCE = 24 / 255


def read_image(
    path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS, allow_truncated: bool = False
) -> DecodedImage:
    """Read an image upright, in its own color space and depth.

    Args:
        path: a file; its content decides on the format.
        max_pixels: the largest W·H; checked in the header, before decoding.
        allow_truncated: decode what is there of a damaged or truncated file, with a note.

    Raises:
        NotAnImage: the content is in no known format.
        RestoreError: exit code 1: the file cannot be read, with the reason.
    """
    return image_from_bytes(read_bytes(path), path, max_pixels=max_pixels, allow_truncated=allow_truncated)


def read_rgb(path: str | os.PathLike[str]) -> np.ndarray:
    """Read an image as float32, H×W×3, sRGB, [0, 1], at its full depth, upright; alpha is dropped."""
    rgb: np.ndarray = np.clip(read_image(path).to_srgb(), 0, 1)
    return rgb


def read_rgb8(path: str | os.PathLike[str]) -> np.ndarray:
    """Read an image as uint8, H×W×3, sRGB, upright; alpha is dropped."""
    image = read_image(path)
    if image.pixels.dtype == np.uint8 and image.profile is None:
        if image.gray:
            return np.repeat(image.pixels, 3, axis=2)
        return np.ascontiguousarray(image.pixels)
    rgb: np.ndarray = np.rint(np.clip(image.to_srgb(), 0, 1) * 255).astype(np.uint8)
    return rgb


def read_mask(
    path: str | os.PathLike[str],
    *,
    size: tuple[int, int] | None = None,
    invert: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Read a mask: float32, H×W, [0, 1], white = 1, upright. Channels are averaged, the color profile is ignored.

    Args:
        path: any image.
        size: the required (H, W).
        invert: black = 1.
        max_pixels: as for `read_image`.

    Raises:
        RestoreError: the file cannot be read, or has another size.
    """
    mask = read_image(path, max_pixels=max_pixels)
    if size is not None:
        check_mask_size(mask.size, size, path)
    return mask_from_image(mask, invert=invert)


def check_mask_size(found: tuple[int, int], size: tuple[int, int], name: str | os.PathLike[str]) -> None:
    """Check that a mask has the size of its image, both (H, W).

    Raises:
        RestoreError: exit code 1.
    """
    if found == size:
        return
    (height, width), (own_height, own_width) = size, found
    hint = "a mask must have the size of the upright image"
    if found == (width, height):
        hint = "turn the mask by 90°"
    elif own_width < 0.9 * width and abs(own_width * height - own_height * width) <= max(height, width):
        hint = "paint on a copy of the image that has its full size"
    raise RestoreError(
        f"the mask has {own_width}×{own_height} pixels, its image {width}×{height}", where=name, hint=hint, exit_code=1
    )


def mask_from_image(mask: DecodedImage, *, invert: bool = False) -> np.ndarray:
    """Convert an image to a mask: float32, H×W, [0, 1], white (with `invert`: black) = 1.

    Transparent pixels are 0, whatever their color: nothing was painted there. Lossy formats blur black and white
    around edges, so there everything within `_LOSSY_TOLERANCE` of either counts as pure, and values between are
    stretched.
    """
    values = mask.pixels.mean(axis=2, dtype=np.float32) if mask.pixels.shape[2] > 1 else mask.pixels[:, :, 0]
    unit: np.ndarray = np.divide(values, np.float32(mask.white), dtype=np.float32)
    unit = np.clip(np.nan_to_num(unit, nan=0.0), 0, 1)
    if is_lossy(mask):
        unit = np.clip((unit - _LOSSY_TOLERANCE) / (1 - 2 * _LOSSY_TOLERANCE), 0, 1, dtype=np.float32)
    if invert:
        unit = 1 - unit
    if mask.alpha is not None and mask.transparent:
        opaque = np.divide(mask.alpha, np.float32(mask.white), dtype=np.float32)
        unit *= np.clip(np.nan_to_num(opaque, nan=0.0), 0, 1)
    return unit


def is_lossy(image: DecodedImage) -> bool:
    """Whether the file that an image comes from stores pixels with loss."""
    return image.format in _LOSSY or image.compression == "lossy"


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Read a regular file.

    Raises:
        RestoreError: exit code 1: the file is missing, a folder, a pipe, not readable, ...
    """
    try:
        # Without O_NONBLOCK, opening a pipe without a writer would block forever.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(handle, "rb") as stream:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise RestoreError("this is not a regular file", where=path, exit_code=1)
            return stream.read()
    except MemoryError as error:
        raise RestoreError("out of memory while reading the file", where=path, exit_code=1) from error
    except (OSError, ValueError) as error:
        code = getattr(error, "errno", None)
        what = {
            errno.ENOENT: not_found_message(path, "file"),
            errno.EACCES: "no permission to read the file",
            errno.EISDIR: "this is a folder, not a file",
        }.get(code or 0, f"the file cannot be read: {getattr(error, 'strerror', None) or error}")
        raise RestoreError(what, where=path, exit_code=1) from error


def image_from_bytes(
    data: bytes,
    name: str | os.PathLike[str],
    *,
    max_pixels: int = MAX_PIXELS,
    allow_truncated: bool = False,
    all_pages: bool = False,
) -> DecodedImage:
    """Decode an image; like `read_image`, for the content of a file.

    Args:
        data: the whole file.
        name: for messages, and for formats without a signature.
        max_pixels: as for `read_image`; with `all_pages`, for all pages together.
        allow_truncated: as for `read_image`.
        all_pages: decode the other pages of a TIFF or PDF too, into `DecodedImage.extra_pages`.
    """
    kind = format_of(data, Path(name))
    if kind == "pdf":
        return _pages_of_pdf(data, name, max_pixels=max_pixels, all_pages=all_pages)
    if kind != "tiff":
        return _decode_page(data, name, kind, max_pixels=max_pixels, allow_truncated=allow_truncated)
    found = tiff_pages.find_pages(data)
    pages = found.pages
    # Each page is decoded from a file in which it is the only one. One copy serves all of them; the functions below
    # only read it, so it passes for bytes.
    alone = len(pages) == 1 and pages[0] == found.first and not found.masks
    page_alone = None if alone else bytearray(data)
    images: list[DecodedImage] = []
    remaining = max_pixels
    room = max(_METADATA_BYTES, _METADATA_TIMES * len(data))
    for number, at in enumerate(pages if all_pages else pages[:1], start=1):
        if page_alone is not None:
            tiff_pages.isolate_page(page_alone, at)
        content = data if page_alone is None else cast(bytes, page_alone)
        try:
            image = _decode_page(
                content, name, kind, page_at=at, first_at=found.first if number == 1 else at,
                max_pixels=remaining, allow_truncated=allow_truncated,
            )  # fmt: skip
            remaining -= image.size[0] * image.size[1]
            if page_alone is not None:
                image = _with_infrared(image, page_alone, name, at, found.masks.get(at, ()), remaining)
            room -= sum(len(block or b"") for block in (image.exif, image.xmp, image.icc, image.passthrough))
            if room < 0:
                raise RestoreError("the pages share profiles or texts that would fill the memory", where=name)
        except RestoreError as error:
            if number == 1:
                raise
            what = error.what
            if isinstance(error, ImageTooLarge):
                what = f"with this page the file is over the limit of {max_pixels / 1e6:.0f} megapixels"
            hint = "use --ext with a format other than TIFF to read only the first page"
            raise RestoreError(f"page {number} of {len(pages)}: {what}", where=name, hint=hint, exit_code=1) from error
        images.append(image)
    first, *extra_pages = images
    first.notes.extend(found.notes)
    if not all_pages and len(pages) > 1:
        first.notes.append(f"only the first of {len(pages)} pages is read")
    for number, image in enumerate(extra_pages, start=2):
        first.notes.extend(f"page {number}: {note}" for note in image.notes)
    if all_pages:
        first.notes.extend(tiff_pages.missing_pages(data, len(pages)))
    return replace(first, extra_pages=tuple(extra_pages))


def _pages_of_pdf(data: bytes, name: str | os.PathLike[str], *, max_pixels: int, all_pages: bool) -> DecodedImage:
    """The first page of a PDF document, or all; see `image_from_bytes`."""
    from restore.images.pdf import decode_pdf

    images: list[DecodedImage] = []
    count, remaining = 1, max_pixels
    while len(images) < count:
        try:
            output = decode_pdf(data, name, remaining, page=len(images))
        except DamagedFile as error:
            error.partly = False
            raise
        count = output.frames if all_pages else 1
        if not all_pages and output.frames > 1:
            output.notes.append(f"only the first of {output.frames} pages is read")
        images.append(assemble_image(data, "pdf", replace(output, frames=1), None))
        remaining -= images[-1].size[0] * images[-1].size[1]
    return replace(images[0], extra_pages=tuple(images[1:]))


def _with_infrared(
    image: DecodedImage,
    file: bytearray,
    name: str | os.PathLike[str],
    page_at: int,
    masks: Sequence[int],
    max_pixels: int,
) -> DecodedImage:
    """The image with its scanner's infrared channel, which is a gray mask of the same size. Other masks are noted.

    Args:
        image: a page.
        file: the TIFF, which is changed.
        name: for messages.
        page_at: its position.
        masks: the positions of the masks that follow it. One without an orientation has that of the page.
        max_pixels: as for `read_image`.
    """
    orientation = tiff.read_header(file, page_at).number(tiff.ORIENTATION, 1)
    for at in masks:
        tiff_pages.isolate_page(file, at)
        header = tiff.read_header(file, at)
        if header.is_gray and header.number(tiff.BITS, 1) in (8, 16) and image.infrared is None:
            mask = _decode_page(cast(bytes, file), name, "tiff", page_at=at, max_pixels=max_pixels)
            if tiff.ORIENTATION not in header.tags:
                mask = replace(mask, pixels=np.ascontiguousarray(upright(mask.pixels, orientation)))
            if mask.gray and mask.size == image.size and mask.pixels.dtype != np.float32:
                image = replace(image, infrared=mask)
                image.notes.extend(f"the infrared channel: {note}" for note in mask.notes)
                continue
        image.notes.append("a mask among the pages is left out")
    return image


def _decode_page(
    data: bytes,
    name: str | os.PathLike[str],
    kind: str,
    *,
    page_at: int = 0,
    first_at: int | None = None,
    max_pixels: int,
    allow_truncated: bool = False,
) -> DecodedImage:
    """The first image of a file; in a TIFF, `page_at` and `first_at` are as for `tiff.read_header`."""
    tiff_header = tiff.read_header(data, page_at, first=first_at) if kind == "tiff" else None
    if tiff_header is not None and tiff_header.raw:
        raise UnsupportedFile(
            "camera raw files are not supported", where=name, hint="convert it to TIFF first", exit_code=1
        )
    read_only = _read_only_decoder(kind)
    try:
        output = (
            decode(data, kind, name, max_pixels=max_pixels, allow_truncated=allow_truncated, tiff_header=tiff_header)
            if read_only is None
            else read_only(data, name, max_pixels)
        )
        return assemble_image(data, kind, output, tiff_header)
    except DamagedFile as error:
        error.partly = read_only is None
        raise
    except MemoryError as error:
        raise RestoreError("out of memory while decoding the image", where=name, exit_code=1) from error


def _read_only_decoder(kind: str) -> Callable[[bytes, str | os.PathLike[str], int], DecoderOutput] | None:
    """The decoder of one of the formats that are only read; None for all others."""
    if kind == "jp2":
        from restore.images.jpeg2000 import decode_jpeg2000

        return decode_jpeg2000
    if kind == "jxl":
        from restore.images.jpeg_xl import decode_jpeg_xl

        return decode_jpeg_xl
    if kind == "psd":
        from restore.images.photoshop import decode_photoshop

        return decode_photoshop
    return None
