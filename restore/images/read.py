"""Reading images and masks from files."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from restore.errors import RestoreError
from restore.files import not_found_message
from restore.images.color import open_profile
from restore.images.decode import decode
from restore.images.decoder_output import DamagedFile, DecoderOutput, ImageTooLarge
from restore.images.formats import UnsupportedFile, format_of
from restore.images.image import DecodedImage
from restore.images.metadata import bmp, gif, heif, jpeg, png, resolution, tiff, tiff_pages, trailer, webp, xmp_claims
from restore.images.metadata.exif import orientation_of, states_adobe_rgb, upright_exif, upright_xmp
from restore.images.stated_colors import adobe_rgb, colors_of_heif, colors_of_png

#: The default limit on W·H.
MAX_PIXELS = 400_000_000

#: Parts of a file that are left out are told one by one up to this number, which only hostile files exceed.
_MOST_NOTES = 20

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
                image = _with_infrared(image, page_alone, name, found.masks.get(at, ()), remaining)
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
    image: DecodedImage, file: bytearray, name: str | os.PathLike[str], masks: Sequence[int], max_pixels: int
) -> DecodedImage:
    """The image with its scanner's infrared channel, which is a gray mask of the same size. Other masks are noted.

    Args:
        image: a page.
        file: the TIFF, which is changed.
        name: for messages.
        masks: the positions of the masks that follow the page.
        max_pixels: as for `read_image`.
    """
    for at in masks:
        tiff_pages.isolate_page(file, at)
        header = tiff.read_header(file, at)
        if header.is_gray and header.number(tiff.BITS, 1) in (8, 16) and image.infrared is None:
            mask = _decode_page(cast(bytes, file), name, "tiff", page_at=at, max_pixels=max_pixels)
            if mask.gray and mask.size == image.size and mask.pixels.dtype != np.float32:
                image = replace(image, infrared=mask.pixels[:, :, 0])
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


def assemble_image(
    data: Any,
    kind: str,
    output: DecoderOutput,
    tiff_header: tiff.TiffHeader | None,
    *,
    size: tuple[int, int] | None = None,
) -> DecodedImage:
    """Turn a decoder's output upright and add the file's metadata.

    Args:
        data: the whole file, as bytes or mapped into memory.
        kind: its format.
        output: of the decoder.
        tiff_header: of a TIFF; otherwise None.
        size: the (H, W) of the upright image, if `output` holds none of its rows.
    """
    notes = list(output.notes)
    exif, xmp, icc = (output.fields.get(f"{name}-data") for name in ("exif", "xmp", "icc-profile"))
    jpeg_header, passthrough, frames, compression = None, b"", output.frames, ""
    own: resolution.Resolution | None = None
    rest = trailer.Trailer()
    left_out: Sequence[str] = ()
    if kind == "jpeg":
        jpeg_header = jpeg.read_header(data)
        passthrough, own, left_out = jpeg_header.passthrough, jpeg_header.resolution, jpeg_header.left_out
        rest = trailer.after_jpeg(data, several=jpeg_header.several)
        if jpeg_header.broken_icc and icc is None:
            notes.append("the color profile is broken; the image is taken as sRGB")
    elif kind == "png":
        header = png.read_header(data)
        xmp = xmp or header.xmp  # libvips finds no XMP behind the pixels
        exif, passthrough, frames, own = header.exif, header.passthrough, header.frames, header.resolution
        left_out = header.left_out
        if header.wrong_sums:
            chunks = ", ".join(header.wrong_sums[:5])
            notes.append(f"parts of the file may be damaged: the checksum is wrong in {chunks}")
        rest = trailer.after_image(data, header.end)
    elif tiff_header is not None:
        exif, passthrough, compression = tiff_header.exif, tiff_header.passthrough, tiff_header.compression
        xmp, own, frames = tiff_header.xmp, tiff_header.resolution, 1
        notes.extend(tiff_header.notes)
    elif kind == "gif":
        gif_header = gif.read_header(data)
        xmp, passthrough, own = gif_header.xmp, gif_header.passthrough, gif_header.resolution
        rest = trailer.after_image(data, gif_header.end)
        if gif_header.plain_text:
            left_out = ["a text to be drawn over the image"]
    elif kind == "webp":
        webp_header = webp.read_header(data)
        compression = "lossless" if webp_header.lossless else "lossy"
        passthrough, left_out = webp_header.passthrough, webp_header.left_out
        rest = trailer.after_image(data, webp_header.end)
    elif kind in ("avif", "heic"):
        rest = trailer.after_boxes(data)
        heif_header = heif.read_header(data)
        compression = "lossless" if heif_header.lossless else "lossy"
        if kind == "avif" and b"avis" in data[8:32] and frames == 1:
            notes.append("only the first frame of the animation is read")
    elif kind == "bmp":
        bmp_header = bmp.read_header(data)
        if bmp_header.missing:
            notes.append("the color profile is in another file, or broken; the image is taken as sRGB")
        own = output.dpi and resolution.per_meter(*(dpi / 0.0254 for dpi in output.dpi))
    elif output.dpi is not None:
        own = resolution.Resolution(*output.dpi)
    if rest.gain_map or (kind == "jpeg" and xmp and b"hdrgm:" in xmp):
        left_out = [*left_out, "its HDR gain map"]
        xmp = xmp and xmp_claims.without_gain_map(xmp)
    elif rest.images or (jpeg_header is not None and jpeg_header.several):
        notes.append("only the first image of the file is read (MPO)")
        xmp = xmp and xmp_claims.without_images(xmp)
    if rest.depth_map:
        left_out = [*left_out, "its depth map"]
    notes.extend(f"{lost} is left out" for lost in left_out[:_MOST_NOTES])
    if frames > 1:
        notes.append(f"only the first of {frames} frames is read")

    orientation = 1
    if kind in ("tiff", "jxl") and output.orientation is not None:
        orientation = output.orientation
    elif exif is not None and kind not in ("avif", "heic", "jxl"):  # the decoder applies their own tags
        orientation = orientation_of(exif)
    values = _upright(output.values, orientation)
    if orientation != 1 and kind == "tiff" and passthrough != (passthrough := tiff.without_places(passthrough)):
        notes.append("GeoTIFF tags are left out, because the image was turned")
    dpi, shape = resolution.settle(own, None if exif is None else resolution.in_exif(exif), notes)
    if kind == "png":
        passthrough = png.with_resolution(passthrough, own, dpi)
    if orientation >= 5:
        dpi, shape = dpi and dpi[::-1], shape and shape[::-1]
        if kind == "png":
            passthrough = png.swapped_resolution(passthrough)
    if exif is not None and dpi is not None:
        exif = resolution.exif_with(exif, dpi)
    pixels = np.ascontiguousarray(values[:, :, : output.channels])
    alpha = np.ascontiguousarray(values[:, :, -1]) if values.shape[2] > output.channels else None

    size = size or (pixels.shape[0], pixels.shape[1])
    broken = ""
    if icc is not None:
        try:
            open_profile(icc, output.channels)
        except ValueError as error:
            broken, icc = str(error), None
    elif kind == "png" and header.has_icc:
        broken = "the color profile is broken"
    stated = None
    if icc is None and kind in ("png", "avif", "heic"):
        gray = output.channels == 1
        if kind == "png":
            stated = colors_of_png(png.stated_colors(passthrough), gray=gray, notes=notes)
        else:
            stated = colors_of_heif(heif_header, gray=gray, notes=notes)
        if stated is not None and open_profile(stated[0], output.channels) is None:
            stated = None
    elif icc is None and kind == "jpeg" and output.channels == 3 and exif is not None and states_adobe_rgb(exif):
        stated = adobe_rgb()
    elif icc is None and kind == "bmp" and bmp_header.gamma is not None:
        colors = png.PngColors(gamma=bmp_header.gamma, chromaticities=bmp_header.chromaticities)
        found = colors_of_png(colors, gray=output.channels == 1, notes=notes)
        if found is not None and open_profile(found[0], output.channels) is not None:
            icc = found[0]  # a profile of that meaning, which a BMP can hold as well
    if broken:
        notes.append(f"{broken}; the image is taken as {'sRGB' if stated is None else 'the rest of the file says'}")
    reoriented = orientation != 1 or (kind in ("avif", "heic") and heif_header.turned)
    return DecodedImage(
        pixels=pixels,
        alpha=alpha,
        white=output.white,
        icc=icc if stated is None else stated[0],
        stated_colors=None if stated is None else stated[1],
        bits=output.bits,
        format=kind,
        exif=None if exif is None else upright_exif(exif, size),
        xmp=None if xmp is None else upright_xmp(xmp, size, reoriented=reoriented),
        jpeg=jpeg_header,
        dpi=dpi,
        pixel_shape=shape,
        compression=compression,
        passthrough=passthrough,
        trailer=rest.kept,
        transparent=tiff_header is None or tiff_header.extra != 0,
        reoriented=reoriented,
        notes=notes,
    )


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """A view of an H×W(×C) array, turned upright (EXIF 2.32, tag 0x0112)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels
