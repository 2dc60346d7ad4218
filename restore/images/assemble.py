"""Turns the output of a decoder into a `DecodedImage`: upright, with its colors and the file's other contents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from restore.images import dpx
from restore.images.color import open_profile
from restore.images.decoder_output import DecoderOutput
from restore.images.image import DecodedImage
from restore.images.metadata import (
    bmp,
    gif,
    heif,
    jpeg,
    netpbm,
    photoshop,
    png,
    resolution,
    sgi,
    tga,
    tiff,
    trailer,
    webp,
    xmp_claims,
)
from restore.images.metadata.exif import orientation_of, states_adobe_rgb, upright_exif, upright_xmp
from restore.images.stated_colors import (
    StatedColors,
    adobe_rgb,
    colors_of_heif,
    colors_of_png,
    colors_of_tiff,
    film_density,
    linear_light,
)

#: The largest number of notes on parts that are left out. Only hostile files have more.
_MOST_NOTES = 20
#: Formats that hold Photoshop's resources, which state the resolution once more.
_WITH_RESOURCES = {"jpeg": jpeg.with_resolution, "png": png.with_resolution, "tiff": tiff.with_resolution}
#: Formats that state a resolution in EXIF alone, where decoders read it less exactly.
_WITHOUT_RESOLUTION = ("webp", "avif", "heic")


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
    parts = _parts_of(data, kind, output, tiff_header)
    _leave_out(parts, notes)
    exif, xmp, passthrough = parts.exif, parts.xmp, parts.passthrough
    orientation = _orientation(kind, output, exif)
    values = upright(output.values, orientation)
    if orientation != 1 and kind == "tiff" and passthrough != (passthrough := tiff.without_places(passthrough)):
        notes.append("GeoTIFF tags are left out, because the image was turned")
    dpi, shape = resolution.settle(parts.resolution, None if exif is None else resolution.in_exif(exif), notes)
    if orientation >= 5:
        dpi, shape = dpi and dpi[::-1], shape and shape[::-1]
    if kind in _WITH_RESOURCES:
        passthrough = _WITH_RESOURCES[kind](passthrough, dpi)
    if dpi is not None:
        exif = exif and resolution.exif_with(exif, dpi)
        xmp = xmp and resolution.xmp_with(xmp, dpi)
    pixels = np.ascontiguousarray(values[:, :, : output.channels])
    size = size or (pixels.shape[0], pixels.shape[1])
    icc, stated = _colors(output.fields.get("icc-profile-data"), parts, output.channels, notes)
    reoriented = orientation != 1 or parts.turned
    return DecodedImage(
        pixels=pixels,
        alpha=np.ascontiguousarray(values[:, :, -1]) if values.shape[2] > output.channels else None,
        white=output.white,
        icc=icc,
        stated_colors=stated,
        bits=output.bits,
        format=kind,
        exif=None if exif is None else upright_exif(exif, size),
        xmp=None if xmp is None else upright_xmp(xmp, size, reoriented=reoriented),
        jpeg=parts.jpeg,
        dpi=dpi,
        pixel_shape=shape,
        compression=parts.compression,
        quantizer=parts.quantizer,
        passthrough=passthrough,
        trailer=parts.trailer.kept,
        transparent=output.transparent if tiff_header is None else tiff_header.extra != 0,
        reoriented=reoriented,
        notes=notes,
    )


# What a file holds besides its pixels

#: The colors that a file states without a profile, as a profile of that meaning; None: none, or sRGB. The arguments are
#: whether the image is gray, and a list for notes.
_ColorsOf = Callable[[bool, list[str]], tuple[bytes, StatedColors | None] | None]


@dataclass
class _Parts:
    """What a file holds besides its pixels.

    Attributes:
        exif, xmp, passthrough, compression, quantizer, jpeg: see `DecodedImage`.
        frames: the number of images in the file.
        resolution: as the format itself states it; None: not stated.
        trailer: what follows the image.
        several: the file has an index of more images.
        broken_profile: what is wrong with a color profile that no decoder has found; "" if nothing is.
        colors: what it states of colors without a profile.
        turned: the decoder has turned the pixels upright.
        left_out: what is not kept, in words.
        notes: other notes.
    """

    exif: bytes | None
    xmp: bytes | None
    frames: int
    passthrough: bytes = b""
    compression: str = ""
    quantizer: int | None = None
    jpeg: jpeg.JpegHeader | None = None
    resolution: resolution.Resolution | None = None
    trailer: trailer.Trailer = field(default_factory=trailer.Trailer)
    several: bool = False
    broken_profile: str = ""
    colors: _ColorsOf | None = None
    turned: bool = False
    left_out: Sequence[str] = ()
    notes: Sequence[str] = ()


def _parts_of(data: Any, kind: str, output: DecoderOutput, tiff_header: tiff.TiffHeader | None) -> _Parts:
    parts = _Parts(output.fields.get("exif-data"), output.fields.get("xmp-data"), output.frames)
    if output.dpi is not None and kind not in _WITHOUT_RESOLUTION:
        parts.resolution = resolution.Resolution(*output.dpi)
    if tiff_header is not None:
        parts.exif, parts.xmp, parts.passthrough = tiff_header.exif, tiff_header.xmp, tiff_header.passthrough
        parts.compression, parts.resolution = tiff_header.compression, tiff_header.resolution
        parts.frames, parts.notes = 1, tiff_header.notes
        primaries = tiff_header.primaries
        if primaries is not None:
            parts.colors = lambda gray, notes: None if gray else colors_of_tiff(primaries, notes)
    elif kind in _READERS:
        _READERS[kind](parts, data)
    if kind == "avif" and b"avis" in data[8:32] and parts.frames == 1:
        parts.notes = ["only the first frame of the animation is read"]
    return parts


def _read_jpeg(parts: _Parts, data: Any) -> None:
    header = jpeg.read_header(data)
    parts.jpeg, parts.passthrough, parts.resolution = header, header.passthrough, header.resolution
    parts.left_out, parts.several = header.left_out, header.several
    parts.trailer = trailer.after_jpeg(data, several=header.several)
    if header.broken_icc:
        parts.broken_profile = "the color profile is broken"
    exif = parts.exif
    if exif is not None and states_adobe_rgb(exif):
        parts.colors = lambda gray, _: None if gray else adobe_rgb()


def _read_png(parts: _Parts, data: Any) -> None:
    header = png.read_header(data)
    parts.exif, parts.xmp = header.exif, parts.xmp or header.xmp  # libvips finds no XMP behind the pixels
    parts.passthrough, parts.resolution = header.passthrough, header.resolution
    parts.frames, parts.left_out = header.frames, header.left_out
    if header.wrong_sums:
        chunks = ", ".join(header.wrong_sums[:5])
        parts.notes = [f"parts of the file may be damaged: the checksum is wrong in {chunks}"]
    parts.trailer = trailer.after_image(data, header.end)
    if header.has_icc:
        parts.broken_profile = "the color profile is broken"
    parts.colors = lambda gray, notes: colors_of_png(png.stated_colors(header.passthrough), gray=gray, notes=notes)


def _read_gif(parts: _Parts, data: Any) -> None:
    header = gif.read_header(data)
    parts.xmp, parts.passthrough, parts.resolution = header.xmp, header.passthrough, header.resolution
    parts.trailer = trailer.after_image(data, header.end)
    if header.plain_text:
        parts.left_out = ["a text to be drawn over the image"]


def _read_webp(parts: _Parts, data: Any) -> None:
    header = webp.read_header(data)
    parts.compression, parts.quantizer = "lossless" if header.lossless else "lossy", header.quantizer
    parts.passthrough, parts.left_out = header.passthrough, header.left_out
    parts.trailer = trailer.after_image(data, header.end)


def _read_heif(parts: _Parts, data: Any) -> None:
    header = heif.read_header(data)
    parts.compression, parts.quantizer = "lossless" if header.lossless else "lossy", header.quantizer
    parts.trailer, parts.turned = trailer.after_boxes(data), header.turned
    parts.colors = lambda gray, notes: colors_of_heif(header, gray=gray, notes=notes)


def _read_bmp(parts: _Parts, data: Any) -> None:
    header = bmp.read_header(data)
    if header.missing:
        parts.broken_profile = "the color profile is in another file, or broken"
    if parts.resolution is not None:
        parts.resolution = resolution.per_meter(*(value / 0.0254 for value in parts.resolution[:2]))
    if header.gamma is None:
        return
    stated = png.PngColors(gamma=header.gamma, chromaticities=header.chromaticities)

    def colors(gray: bool, notes: list[str]) -> tuple[bytes, None] | None:
        found = colors_of_png(stated, gray=gray, notes=notes)
        return None if found is None else (found[0], None)  # as a profile, which a BMP can hold as well

    parts.colors = colors


def _read_tga(parts: _Parts, data: Any) -> None:
    header = tga.read_header(data)
    parts.passthrough, parts.resolution, parts.left_out = header.passthrough, header.resolution, header.left_out


def _read_netpbm(parts: _Parts, data: Any) -> None:
    parts.passthrough = netpbm.comments_of(data)


def _read_sgi(parts: _Parts, data: Any) -> None:
    parts.passthrough = sgi.name_of(data)


def _read_dpx(parts: _Parts, data: Any) -> None:
    header = dpx.read_header(data)
    parts.passthrough, parts.trailer = dpx.head_of(data), trailer.after_image(data, dpx.end_of(data))
    if header.log or header.linear:
        parts.colors = lambda gray, _: film_density(gray=gray) if header.log else linear_light(gray=gray)


def _read_psd(parts: _Parts, data: Any) -> None:
    parts.passthrough = photoshop.captions_in(photoshop.resources_of_document(data))


_READERS: dict[str, Callable[[_Parts, Any], None]] = {
    "jpeg": _read_jpeg,
    "png": _read_png,
    "gif": _read_gif,
    "webp": _read_webp,
    "avif": _read_heif,
    "heic": _read_heif,
    "bmp": _read_bmp,
    "tga": _read_tga,
    "ppm": _read_netpbm,
    "sgi": _read_sgi,
    "dpx": _read_dpx,
    "psd": _read_psd,
}


def _leave_out(parts: _Parts, notes: list[str]) -> None:
    """Note the parts of a file that are not kept, and remove claims about them from its XMP."""
    notes.extend(parts.notes)
    left_out, rest, xmp = list(parts.left_out), parts.trailer, parts.xmp
    if rest.gain_map or (parts.jpeg is not None and xmp and b"hdrgm:" in xmp):
        left_out.append("its HDR gain map")
        parts.xmp = xmp and xmp_claims.without_gain_map(xmp)
    elif rest.images or parts.several:
        notes.append("only the first image of the file is read (MPO)")
        parts.xmp = xmp and xmp_claims.without_images(xmp)
    if rest.depth_map:
        left_out.append("its depth map")
    notes.extend(f"{lost} is left out" for lost in left_out[:_MOST_NOTES])
    if parts.frames > 1:
        notes.append(f"only the first of {parts.frames} frames is read")


def _colors(
    icc: bytes | None, parts: _Parts, channels: int, notes: list[str]
) -> tuple[bytes | None, StatedColors | None]:
    """The profile of an image with this number of color channels, and what it stands for if the file has none."""
    stated, broken = None, parts.broken_profile if icc is None else ""
    if icc is not None:
        try:
            open_profile(icc, channels)
        except ValueError as error:
            broken, icc = str(error), None
    if icc is None and parts.colors is not None:
        found = parts.colors(channels == 1, notes)
        if found is not None and open_profile(found[0], channels) is not None:
            icc, stated = found
    if broken:
        notes.append(f"{broken}; the image is taken as {'sRGB' if icc is None else 'the rest of the file says'}")
    return icc, stated


def _orientation(kind: str, output: DecoderOutput, exif: bytes | None) -> int:
    """The orientation of the decoder's pixels, 1 to 8."""
    if kind in ("tiff", "jxl", "dpx") and output.orientation is not None:
        return output.orientation
    if exif is None or kind in ("avif", "heic", "jxl"):  # the decoder applies their own tags
        return 1
    return orientation_of(exif)


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """A view of an H×W(×C) array, turned upright (EXIF 2.32, tag 0x0112)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels
