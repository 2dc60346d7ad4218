"""Writing images: `DecodedImage` to the bytes of a file, with everything that the format can hold of it."""

from __future__ import annotations

import io
import os
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyvips
from PIL import Image

from restore.errors import RestoreError
from restore.files import write_atomically
from restore.images import dpx
from restore.images.decode import decoder_message, disable_vips_cache
from restore.images.fit_to_format import fit_to_format, without_metadata
from restore.images.formats import FORMAT_OF_SUFFIX, READ_ONLY_FORMATS
from restore.images.image import DecodedImage
from restore.images.matched_quality import matched_quality
from restore.images.metadata import bmp, gif, heif, jpeg, netpbm, png, resolution, sgi, tga, tiff, tiff_pages, webp
from restore.images.metadata.exif import with_prefix, without_prefix
from restore.images.netpbm import write_netpbm
from restore.images.output_colors import profile_for
from restore.images.pillow import encode_heic

Metadata = Literal["keep", "strip"]

_PILLOW_ONLY = {"bmp": "BMP", "tga": "TGA", "pcx": "PCX", "ico": "ICO", "ppm": "PPM", "sgi": "SGI"}
#: Formats that can be written on every machine. HEIC is not among them: its encoder comes with an optional package.
WRITABLE_FORMATS = frozenset(("jpeg", "png", "tiff", "webp", "gif", "avif", *_PILLOW_ONLY))
#: Quality of lossy formats if the source does not decide on it.
DEFAULT_QUALITY = 90
#: Level 3 takes a third of the time of level 6, for about 7 % more bytes.
PNG_LEVEL = 3
#: Uncompressed size from which a TIFF is written as BigTIFF. A classic TIFF ends at 4 GiB.
BIGTIFF_BYTES = 3_500_000_000

_LOSSY = ("jpeg", "webp", "avif", "heic")
#: Flags of libvips: all metadata but EXIF.
_WITHOUT_EXIF_BLOCK = 31 - 1


def write_image(
    image: DecodedImage,
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    quality: int | None = None,
    metadata: Metadata = "keep",
) -> list[str]:
    """Write an image atomically: the file is complete, or what it was before.

    Args:
        image: to write.
        path: of the file. Its folder must exist; an existing file is replaced.
        format: `jpeg png tiff webp ...`; None: by the suffix, or the source's format if the suffix is unknown.
        quality: 1 to 100 for JPEG, WebP and AVIF; None: the source's (JPEG), or 90.
        metadata: `strip` leaves out EXIF, XMP and the like. The color profile stays: without it the colors
            would be wrong.

    Returns:
        Notes for the user on what the format could not hold.

    Raises:
        RestoreError: exit code 1: the disk is full, there is no permission, or the format cannot hold the image.
    """
    if metadata == "strip":
        image = without_metadata(image)
    kind = format or FORMAT_OF_SUFFIX.get(Path(path).suffix.lower(), image.format)
    data, notes = encode(image, kind, path, quality=quality)
    write_bytes(path, data)
    return notes


def write_png(path: str | os.PathLike[str], array: np.ndarray) -> None:
    """Write an array as PNG, atomically. The same array gives the same bytes.

    Args:
        path: of the file.
        array: uint8 or uint16, H×W or H×W×C with C = 1 to 4 (gray, gray and alpha, RGB, RGBA).

    Raises:
        RestoreError: the file cannot be written.
    """
    values = array if array.ndim == 3 else array[:, :, None]
    channels = values.shape[2] - (values.shape[2] in (2, 4))
    image = DecodedImage(
        np.ascontiguousarray(values[:, :, :channels]),
        values[:, :, channels] if values.shape[2] > channels else None,
        255.0 if values.dtype == np.uint8 else 65535.0,
        bits=values.dtype.itemsize * 8,
        format="png",
    )
    data, _ = encode(image, "png", path)
    write_bytes(path, data)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file atomically into an existing folder.

    Raises:
        RestoreError: exit code 1; nothing is left of the attempt.
    """
    write_atomically(path, data, parents=False)


def encode(
    image: DecodedImage, kind: str, name: str | os.PathLike[str], *, quality: int | None = None
) -> tuple[bytes, list[str]]:
    """Encode an image.

    Args:
        image: to encode.
        kind: the format.
        name: for messages.
        quality: as for `write_image`.

    Returns:
        The bytes of the file, and notes for the user on what the format could not hold.

    Raises:
        RestoreError: exit code 1: the format cannot be written, or cannot hold this image.
    """
    encoders = {
        "jpeg": _encode_jpeg,
        "png": _encode_png,
        "tiff": _encode_tiff,
        "webp": _encode_webp,
        "avif": _encode_avif,
        "heic": _encode_heic,
        "gif": _encode_gif,
        "dpx": _encode_dpx,
    }
    notes: list[str] = []
    try:
        if kind == "ico" and max(image.size) > 256:
            raise ValueError("icons have at most 256×256 pixels")
        if kind == "tiff" and (image.extra_pages or image.infrared is not None):
            encoded = [
                data
                for page in (image, *image.extra_pages)
                for data in _encode_tiff_page(fit_to_format(page, kind, notes), quality, notes)
            ]
            return tiff_pages.join_pages(encoded), list(dict.fromkeys(notes))
        image = fit_to_format(image, kind, notes)
        if kind in encoders:
            return encoders[kind](image, quality, notes) + image.trailer, notes
        if kind in _PILLOW_ONLY:
            return _encode_simple(image, kind), notes
    except (pyvips.Error, UnicodeDecodeError) as error:
        reason = decoder_message(error)
    except (OSError, ValueError, KeyError, OverflowError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
    else:
        reason = "this format is only read" if kind in READ_ONLY_FORMATS else "the format is unknown"
    raise RestoreError(
        f"the image cannot be written as {kind.upper()}: {reason}", where=name, hint="choose PNG or TIFF", exit_code=1
    )


def _encode_simple(image: DecodedImage, kind: str) -> bytes:
    """An image in one of the formats that only Pillow writes, with what each can hold."""
    if kind == "ppm" and image.pixels.dtype == np.uint16:
        return netpbm.with_comments(write_netpbm(image.pixels), image.passthrough)
    options: dict[str, Any] = {"sizes": [image.size[::-1]]} if kind == "ico" else {}
    if kind == "bmp":
        options["dpi"] = image.dpi or (0, 0)  # Pillow would make one up
    data = _encode_with_pillow(image, _PILLOW_ONLY[kind], options)
    if kind == "pcx":  # Pillow always writes 100 pixels per inch
        across, down = (min(round(value), 65535) for value in image.dpi or (0, 0))
        return data[:12] + struct.pack("<HH", across, down) + data[16:]
    if kind == "bmp" and image.icc:
        return bmp.with_profile(data, image.icc)
    with_parts = {"tga": tga.with_parts, "ppm": netpbm.with_comments, "sgi": sgi.with_name}.get(kind)
    return data if with_parts is None else with_parts(data, image.passthrough)


# One encoder per format


def _encode_jpeg(image: DecodedImage, quality: int | None, notes: list[str]) -> bytes:
    options: dict[str, Any] = {}
    source = image.jpeg
    if quality is None and source is not None and source.tables and source.bits == 8:
        # With the source's own tables, unchanged pixels lose almost nothing by a second compression.
        options["qtables"] = [_row_by_row(table) for table in source.tables]
        if not image.gray and not source.subsampling:  # a gray source has no table for chroma
            options = {"quality": source.quality}
    elif quality is None and source is not None and source.lossless:
        options["quality"] = 100
    else:
        options["quality"] = quality or DEFAULT_QUALITY
    if source is not None and source.lossless:
        notes.append(f"the JPEG was lossless; it is compressed at quality {options.get('quality')}")
    if not image.gray:
        subsampling = source.subsampling if source is not None else ""
        if subsampling not in ("", "4:4:4", "4:2:2", "4:2:0"):
            subsampling = "4:4:4"  # Pillow writes no others; this loses nothing
        options["subsampling"] = subsampling or "4:2:0"
    if source is not None and source.rgb and "qtables" in options:
        options["keep_rgb"] = True  # its tables are made for red, green and blue
    if source is not None and source.progressive:
        options["progressive"] = True
    icc = profile_for(image, "jpeg")
    if icc:
        options["icc_profile"] = icc
    data = jpeg.with_density(_encode_with_pillow(image, "JPEG", options), image.dpi, image.pixel_shape)
    return jpeg.with_metadata(data, image.exif, image.xmp, image.passthrough, notes)


def _row_by_row(zigzag: tuple[int, ...]) -> list[int]:
    """A quantization table in Pillow's order; files store its diagonals."""
    cells = sorted(range(64), key=lambda i: (i // 8 + i % 8, i // 8 if (i // 8 + i % 8) % 2 else i % 8))
    table = [0] * 64
    for value, cell in zip(zigzag, cells):
        table[cell] = value
    return table


def _encode_png(image: DecodedImage, _quality: int | None, _notes: list[str]) -> bytes:
    # The filter "up" for all rows: choosing among all filters takes twice the time, for the same size on photographs.
    icc = profile_for(image, "png")
    data = _to_vips(image, icc=icc).pngsave_buffer(compression=PNG_LEVEL, filter="up", keep="icc")
    passthrough = image.passthrough
    if image.stated_colors is not None and image.stated_colors.code_points and image.format != "png":
        passthrough += png.code_points_chunk(image.stated_colors.code_points)
    return png.with_chunks(
        bytes(data), exif=image.exif, xmp=image.xmp, passthrough=passthrough,
        has_icc=bool(icc), dpi=image.dpi, shape=image.pixel_shape,
    )  # fmt: skip


def _encode_tiff(image: DecodedImage, _quality: int | None, notes: list[str], *, is_mask: bool = False) -> bytes:
    compression = image.compression if image.format == "tiff" and image.compression else "deflate"
    data = _to_vips(image, icc=profile_for(image, "tiff"), xmp=image.xmp).tiffsave_buffer(
        compression=compression,
        predictor="float" if image.pixels.dtype == np.float32 else "horizontal",
        bigtiff=image.pixels.nbytes > BIGTIFF_BYTES,
    )
    try:
        return _with_tiff_tags(bytes(data), image, image.exif, is_mask=is_mask)
    except ValueError:
        notes.append("the EXIF block is broken and is left out")
        return _with_tiff_tags(bytes(data), image, None, is_mask=is_mask)


def _encode_tiff_page(image: DecodedImage, quality: int | None, notes: list[str]) -> list[bytes]:
    """A page, and the infrared channel as a mask of it."""
    if image.infrared is None:
        return [_encode_tiff(image, quality, notes)]
    mask = _encode_tiff(image.infrared, quality, notes, is_mask=True)
    return [_encode_tiff(replace(image, infrared=None), quality, notes), mask]


def _with_tiff_tags(data: bytes, image: DecodedImage, exif: bytes | None, *, is_mask: bool) -> bytes:
    file = io.BytesIO(data)
    tiff.add_tags(
        file,
        exif=exif,
        passthrough=image.passthrough,
        transparent=image.alpha is None or image.transparent,
        dpi=image.dpi,
        shape=image.pixel_shape,
        is_mask=is_mask,
    )
    return file.getvalue()


def _encode_webp(image: DecodedImage, quality: int | None, _notes: list[str]) -> bytes:
    image = _with_resolution_in_exif(image)
    lossless = quality is None and (image.compression == "lossless" or image.format not in _LOSSY)
    options: dict[str, Any] = {"lossless": lossless, "exact": True}
    # For lossless files, the quality is the effort.
    lossy = quality or _lossy_quality(image, "webp")
    options |= {"quality": 50, "method": 2} if lossless else {"quality": lossy}
    data = _encode_with_pillow(image, "WEBP", options | _metadata_options(image))
    return webp.with_chunks(data, image.passthrough, image.size, alpha=image.alpha is not None)


def _encode_gif(image: DecodedImage, _quality: int | None, notes: list[str]) -> bytes:
    exact = _palette_image(image)
    if exact is not None:
        stream = io.BytesIO()
        exact.save(stream, "GIF")
        data = stream.getvalue()
    else:
        notes.append("a GIF holds 256 colors: all colors may change a little")
        data = bytes(_to_vips(image).gifsave_buffer(dither=0, effort=5))
    return gif.with_extensions(data, xmp=image.xmp, passthrough=image.passthrough, shape=image.pixel_shape)


def _encode_dpx(image: DecodedImage, _quality: int | None, _notes: list[str]) -> bytes:
    head = image.passthrough
    if head and image.icc is None and not dpx.read_header(head).plain:
        raise ValueError("the header calls its values densities or light, and the image has been converted to sRGB")
    return dpx.encode_dpx(image.pixels, image.alpha, head)


def _palette_image(image: DecodedImage) -> Image.Image | None:
    """The image with a palette of exactly its colors; None if it has more than 256, or partial transparency."""
    rgb = np.repeat(image.pixels, 3 // image.pixels.shape[2], axis=2).astype(np.uint32)
    codes = rgb[:, :, 0] << 16 | rgb[:, :, 1] << 8 | rgb[:, :, 2]
    if image.alpha is not None:
        clear = image.alpha == 0
        if not (clear | (image.alpha == 255)).all():
            return None
        codes[clear] = 1 << 24  # one entry for all transparent pixels
    colors, indices = np.unique(codes, return_inverse=True)
    if len(colors) > 256:
        return None
    paletted = Image.fromarray(indices.reshape(codes.shape).astype(np.uint8))
    palette = np.stack([colors >> 16 & 255, colors >> 8 & 255, colors & 255], axis=1).astype(np.uint8)
    paletted.putpalette(palette.tobytes())
    if colors[-1] == 1 << 24:
        paletted.info["transparency"] = len(colors) - 1
    return paletted


def _encode_avif(image: DecodedImage, quality: int | None, notes: list[str]) -> bytes:
    image = _with_resolution_in_exif(image)
    if image.exif and len(without_prefix(image.exif)) < 8:  # not even its header, for which programs refuse the file
        notes.append("the EXIF block is broken and is left out")
        image = replace(image, exif=None)
    sixteen_bits = image.pixels.dtype == np.uint16
    data = bytes(
        _to_vips(image, icc=profile_for(image, "avif"), xmp=image.xmp, exif=image.exif).heifsave_buffer(
            compression="av1",
            Q=quality or _lossy_quality(image, "avif"),
            lossless=quality is None and _is_lossless(image),
            bitdepth=(10 if image.bits == 10 else 12) if sixteen_bits else 8,
            subsample_mode="off",
            effort=3,  # 4 takes six times as long, for the same size on photographs
            keep="all" if image.exif else _WITHOUT_EXIF_BLOCK,  # libvips would make one up
        )
    )
    if image.exif:
        try:
            data = heif.with_exif(data, without_prefix(image.exif))
        except ValueError:  # libvips writes a block of its own, and none for a broken one
            notes.append("the EXIF block cannot be kept as it is, and may have lost a part")
    stated = image.stated_colors
    return heif.with_code_points(data, stated.code_points) if stated and stated.code_points else data


def _encode_heic(image: DecodedImage, quality: int | None, _notes: list[str]) -> bytes:
    image = _with_resolution_in_exif(image)
    options: dict[str, Any] = {"quality": quality or DEFAULT_QUALITY, "chroma": 444}
    if quality is None and _is_lossless(image):
        options |= {"quality": -1, "matrix_coefficients": 0, "full_range_flag": 1}
    stated = image.stated_colors
    if stated is not None and stated.code_points:
        primaries, transfer = stated.code_points
        options = {"matrix_coefficients": 6, "full_range_flag": 1} | options
        options |= {"color_primaries": primaries, "transfer_characteristics": transfer}
    metadata = _metadata_options(image)
    if profile_for(image, "heic") is None:
        metadata.pop("icc_profile", None)
    return encode_heic(_with_alpha(image), options | metadata)


def _lossy_quality(image: DecodedImage, kind: str) -> int:
    """That of the source, but at least 90."""
    return matched_quality(kind, image.quantizer if image.format == kind else None, DEFAULT_QUALITY)


def _is_lossless(image: DecodedImage) -> bool:
    return image.format in ("avif", "heic") and image.compression == "lossless"


def _with_resolution_in_exif(image: DecodedImage) -> DecodedImage:
    """The image with an EXIF block if it states a resolution and has none: these formats hold it nowhere else."""
    if image.dpi is None or image.exif is not None:
        return image
    return replace(image, exif=resolution.new_exif(image.dpi))


# Conversion to images of the two libraries


def _encode_with_pillow(image: DecodedImage, name: str, options: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    values = _with_alpha(image)
    Image.fromarray(values[:, :, 0] if values.shape[2] == 1 else values).save(stream, name, **options)
    return stream.getvalue()


def _with_alpha(image: DecodedImage) -> np.ndarray:
    """H×W×C: colors and, if there is one, alpha."""
    if image.alpha is None:
        return np.ascontiguousarray(image.pixels)
    return np.concatenate([image.pixels, image.alpha[:, :, None]], axis=2)


def _metadata_options(image: DecodedImage) -> dict[str, Any]:
    """What Pillow's encoders call an image's metadata."""
    blocks = {"icc_profile": image.icc, "exif": image.exif and with_prefix(image.exif), "xmp": image.xmp}
    return {name: block for name, block in blocks.items() if block}


def _to_vips(
    image: DecodedImage, *, icc: bytes | None = None, xmp: bytes | None = None, exif: bytes | None = None
) -> Any:
    disable_vips_cache()
    values = _with_alpha(image)
    height, width, bands = values.shape
    names = {"uint8": "uchar", "uint16": "ushort", "float32": "float"}
    vips_image = pyvips.Image.new_from_memory(values, width, height, bands, names[values.dtype.name])
    return with_header(vips_image, image, icc=icc, xmp=xmp, exif=exif)


def with_header(
    vips_image: Any,
    image: DecodedImage,
    *,
    icc: bytes | None = None,
    xmp: bytes | None = None,
    exif: bytes | None = None,
) -> Any:
    """A `pyvips.Image` with the interpretation and resolution of an image, and with metadata."""
    sixteen_bits = image.pixels.dtype == np.uint16
    if image.gray:
        interpretation = "grey16" if sixteen_bits else "b-w"
    else:
        interpretation = "rgb16" if sixteen_bits else "scrgb" if image.pixels.dtype == np.float32 else "srgb"
    vips_image = vips_image.copy(interpretation=interpretation)
    if image.dpi:
        vips_image = vips_image.copy(xres=image.dpi[0] / 25.4, yres=image.dpi[1] / 25.4)
        vips_image.set_type(pyvips.GValue.gstr_type, "resolution-unit", "in")
    for key, block in (
        ("icc-profile-data", icc),
        ("xmp-data", xmp),
        ("exif-data", exif and with_prefix(exif)),
    ):
        if block:
            vips_image.set_type(pyvips.GValue.blob_type, key, block)
    return vips_image
