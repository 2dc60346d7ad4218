"""Reduces an image to what a format can hold: colors, depth, alpha, and the pieces of other formats."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from restore.images import dpx
from restore.images.image import DecodedImage
from restore.images.metadata import (
    captions,
    gif,
    jpeg,
    netpbm,
    photoshop,
    png,
    sgi,
    tga,
    tiff,
    trailer,
    webp,
    xmp_claims,
)
from restore.images.output_colors import fit_colors

_WITHOUT_ALPHA = ("jpeg", "pcx", "ppm", "bmp")
_SIXTEEN_BITS = ("png", "tiff", "avif", "heic", "ppm", "dpx")
#: The most bits of formats that hold more than 8, but less than 16.
_MOST_BITS = {"avif": 12, "heic": 10}
_WITHOUT_EXIF = ("gif", "bmp", "tga", "pcx", "ico", "ppm", "sgi", "dpx")
_WITH_PIXEL_SHAPE = ("jpeg", "png", "tiff", "gif")
_WITHOUT_RESOLUTION = ("gif", "tga", "ico", "ppm", "sgi", "dpx")


def fit_to_format(image: DecodedImage, kind: str, notes: list[str]) -> DecodedImage:
    """Reduce an image to what a format can hold.

    Args:
        image: to be written.
        kind: the format.
        notes: gets a note on each reduction.
    """
    image = fit_colors(image, kind, notes)
    if image.alpha is not None and not image.transparent and kind != "tiff":
        notes.append("an extra channel of unspecified meaning is left out")
        image = replace(image, alpha=None)
    if image.infrared is not None and kind != "tiff":
        notes.append("the infrared channel is left out")
        image = replace(image, infrared=None)
    pixels, alpha, white = image.pixels, image.alpha, image.white
    if pixels.dtype == np.float32 and kind != "tiff":
        bits = _MOST_BITS.get(kind, 16) if kind in _SIXTEEN_BITS else 8
        notes.append(f"floating point rounded to {bits} bits")
        pixels, alpha, white = (
            _float_to_16_bits(pixels, white, image.black),
            None if alpha is None else _float_to_16_bits(alpha, white),
            65535.0,
        )
    if pixels.dtype == np.uint16 and kind not in _SIXTEEN_BITS:
        if image.pixels.dtype == np.uint16:
            notes.append("16 bits rounded to 8")
        pixels, alpha, white = _16_to_8_bits(pixels), None if alpha is None else _16_to_8_bits(alpha), 255.0
    elif image.pixels.dtype == np.uint16 and kind in _MOST_BITS and image.bits > _MOST_BITS[kind]:
        notes.append(f"{image.bits} bits rounded to {_MOST_BITS[kind]}")
    if alpha is not None and kind in _WITHOUT_ALPHA:
        if (alpha < white).any():
            notes.append("transparent pixels are blended with white")
            opacity = alpha[:, :, None] / np.float32(white)
            pixels = np.rint(pixels * opacity + white * (1 - opacity)).astype(pixels.dtype)
        alpha = None
    if kind == "sgi" and alpha is not None:
        pixels = np.repeat(pixels, 3 // pixels.shape[2], axis=2)  # SGI has no gray with alpha
    image = without_foreign_parts(image, kind, notes)
    black = image.black if pixels.dtype == np.float32 else 0.0
    return replace(image, pixels=pixels, alpha=alpha, white=white, black=black)


def without_foreign_parts(image: DecodedImage, kind: str, notes: list[str]) -> DecodedImage:
    """The image without pieces of its file that another format cannot hold, and without claims in XMP about them.

    IPTC, Photoshop's resources and a comment take the form of the other format.

    Args:
        image: to be written.
        kind: the format to be written.
        notes: gets a note on what is left out.
    """
    if kind == image.format:
        return image
    words = {
        "jpeg": jpeg.contents, "png": png.contents, "gif": gif.contents, "tiff": tiff.contents, "webp": webp.contents,
        "tga": tga.contents, "ppm": netpbm.contents, "sgi": sgi.contents, "psd": photoshop.contents,
        "dpx": dpx.contents,
    }  # fmt: skip
    carried, rest = captions.converted(image.passthrough, image.format, kind)
    lost = words[image.format](rest) if image.format in words else []
    xmp = image.xmp
    if image.trailer:
        video = trailer.is_video(image.trailer)
        count = len(image.trailer)
        lost.append("the video of the motion photo" if video else f"{count} byte{'s'[: count != 1]} behind the image")
        xmp = xmp and xmp_claims.without_video(xmp)
    if image.exif and kind in _WITHOUT_EXIF:
        lost.append("EXIF")
    if image.dpi and kind in _WITHOUT_RESOLUTION:
        lost.append("the resolution")
    if image.pixel_shape and kind not in _WITH_PIXEL_SHAPE:
        lost.append("the shape of its pixels")
    if lost:
        notes.append(f"{kind.upper()} has no place for what the {image.format.upper()} also holds: {', '.join(lost)}")
    if xmp and image.format == "jpeg":
        xmp = xmp_claims.without_extension(xmp)
    return replace(image, passthrough=carried, trailer=b"", xmp=xmp)


def _float_to_16_bits(values: np.ndarray, white: float, black: float = 0.0) -> np.ndarray:
    unit: np.ndarray = np.nan_to_num(
        (values - np.float32(black)) / np.float32(white - black), nan=0.0, posinf=1.0, neginf=0.0
    )
    deep: np.ndarray = np.rint(np.clip(unit, 0, 1) * 65535).astype(np.uint16)
    return deep


def _16_to_8_bits(values: np.ndarray) -> np.ndarray:
    return ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def without_metadata(image: DecodedImage) -> DecodedImage:
    """The image without EXIF, XMP, captions and texts. What defines its colors stays."""
    colors = {"png": png.color_chunks, "tiff": tiff.color_tags, "dpx": dpx.without_texts}.get(image.format)
    passthrough = b"" if colors is None else colors(image.passthrough)
    return replace(
        image,
        exif=None,
        xmp=None,
        passthrough=passthrough,
        trailer=b"",
        infrared=image.infrared and without_metadata(image.infrared),
        extra_pages=tuple(without_metadata(page) for page in image.extra_pages),
    )
