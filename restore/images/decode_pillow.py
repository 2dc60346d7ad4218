"""Decodes files with Pillow: the formats that libvips does not know, and a second try at those that it does."""

from __future__ import annotations

import os
import re
from dataclasses import replace

import numpy as np
from PIL import Image, ImageCms

from restore.errors import RestoreError, printable
from restore.images import tiff_pixels
from restore.images.decoder_output import (
    DecoderOutput,
    ImageTooLarge,
    add_own_fields,
    as_uint16,
    check_size,
    damage_note,
    fill_low_bits,
    undecodable,
)
from restore.images.metadata import heif
from restore.images.metadata.tiff import TiffHeader
from restore.images.pillow import open_converted_by_libtiff, open_deep_heic, open_with_pillow
from restore.images.quiet import QUIET_PILLOW

#: Messages that quote the bytes of a file, or that are Python's own.
_ABOUT_CODE = re.compile(r"""\bb['"]|invalid literal|codec can't""")


def decode_with_pillow(
    data: bytes,
    kind: str,
    name: str | os.PathLike[str],
    max_pixels: int,
    *,
    allow_truncated: bool = False,
    tiff_header: TiffHeader | None = None,
) -> DecoderOutput:
    """Decode the first image of a file, in most formats to 8 bits.

    Raises:
        DamagedFile, ImageTooLarge: exit code 1, with Pillow's reason.
    """
    if kind == "heic" and (deep := _decode_deep_heic(data, name, max_pixels)) is not None:
        return deep
    converts = tiff_header is not None and tiff_pixels.needs_libtiff(tiff_header)
    try:
        with QUIET_PILLOW, open_converted_by_libtiff(data) if converts else open_with_pillow(data, kind) as image:
            width, height = image.size
            check_size(width, height, max_pixels, name)
            frames = getattr(image, "n_frames", 1) if kind != "ico" else 1
            if kind == "avif":
                image.info["bit_depth"] = heif.read_header(data).bits
            try:
                return _with_profile(_from_pillow(image, frames), data, kind)
            except OSError as error:
                if not allow_truncated:
                    raise
                complaint = _pillow_message(error)
        # Pillow accepts truncated files only by a switch for the whole process. Black pixels at the end do the same.
        with QUIET_PILLOW, open_with_pillow(data + bytes(4 * width * height), kind) as image:
            output = _with_profile(_from_pillow(image, frames), data, kind)
        output.notes.append(damage_note(complaint))
        return output
    except (RestoreError, MemoryError):
        raise
    except Image.DecompressionBombError as error:  # a PNG inside an icon, larger than the icon says
        raise ImageTooLarge("its header states an impossible size", where=name, exit_code=1) from error
    except Exception as error:  # Pillow's decoders raise a dozen kinds, and hostile files find more
        raise undecodable(kind, _pillow_message(error), name, allow_truncated=allow_truncated) from error


def _decode_deep_heic(data: bytes, name: str | os.PathLike[str], max_pixels: int) -> DecoderOutput | None:
    """A HEIC of 10 or 12 bits; None: it has 8, or cannot be decoded, and Pillow says why."""
    bits = heif.read_header(data).bits
    if bits == 8:
        return None
    try:
        opened = open_deep_heic(data)
        if opened is None:
            return None
        width, height = opened.size
        check_size(width, height, max_pixels, name)
        values = fill_low_bits(np.asarray(opened).reshape(height, width, -1), bits)
    except (OSError, ValueError, EOFError, SyntaxError, RuntimeError):
        return None
    fields = {"icc-profile-data": "icc_profile", "exif-data": "exif", "xmp-data": "xmp"}
    return DecoderOutput(
        values=values,
        channels=3 if values.shape[2] >= 3 else 1,
        bits=bits,
        white=65535.0,
        frames=len(opened),
        fields={key: block for key, name in fields.items() if (block := opened.info.get(name))},
    )


def _with_profile(output: DecoderOutput, data: bytes, kind: str) -> DecoderOutput:
    add_own_fields(output.fields, data, kind)
    if kind == "bmp" and output.channels == 1 and output.fields.get("icc-profile-data", b"")[16:20] == b"RGB ":
        colors, alpha = output.values[:, :, :1], output.values[:, :, 1:]  # a palette of grays
        output.values = np.concatenate([colors, colors, colors, alpha], axis=2)
        output.channels = 3
    return output


def _pillow_message(error: Exception) -> str:
    """Pillow's reason for refusing a file, if it is in words: other errors of hostile files are about its own code."""
    text = printable(" ".join(str(error).split()))
    in_words = isinstance(error, OSError | SyntaxError | NotImplementedError | ValueError)
    return text if text and in_words and not _ABOUT_CODE.search(text) else "broken data"


def _from_pillow(image: Image.Image, frames: int) -> DecoderOutput:
    notes: list[str] = []
    dpi = image.info.get("dpi")
    names = {"icc-profile-data": "icc_profile", "exif-data": "exif", "xmp-data": "xmp"}
    fields = {field: image.info.get(key) for field, key in names.items()}
    orientation = image.getexif().get(0x0112) if image.format == "TIFF" else None
    orientation = orientation if isinstance(orientation, int) else None  # a tag may hold a text
    stored_bits = int(max(np.atleast_1d(getattr(image, "tag_v2", {}).get(258, 8))))
    tile = next(iter(getattr(image, "tile", [])), None)
    if image.format == "PPM" and tile is not None and isinstance(tile.args[-1], int):
        stored_bits = tile.args[-1].bit_length()
    elif image.format == "SGI" and tile is not None and tile.codec_name == "SGI16":
        stored_bits = 16
    elif isinstance(bits := image.info.get("bit_depth"), int):  # of HEIC and AVIF
        stored_bits = bits
    sizes = len(image.info.get("sizes", ())) if image.format == "ICO" else 1
    if sizes > 1:
        notes.append(f"only the largest of {sizes} sizes is read")
    image.load()
    output = DecoderOutput(
        values=np.empty((0, 0, 1)),
        channels=1,
        orientation=orientation,
        frames=frames,
        fields={key: value for key, value in fields.items() if value},
        dpi=(float(dpi[0]), float(dpi[1])) if dpi and min(dpi) > 0.3 and max(dpi) < 250_000 else None,
        notes=notes,
    )
    if image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.uint16)
        if image.format == "TIFF" and 8 < stored_bits < 16:
            values = np.rint(values * (65535 / (2**stored_bits - 1))).astype(np.uint16)
        return replace(output, values=values[:, :, None], bits=stored_bits if stored_bits > 8 else 16, white=65535.0)
    if image.mode == "I":
        return replace(output, values=as_uint16(np.asarray(image), notes)[:, :, None], bits=16, white=65535.0)
    if image.mode == "F":
        return replace(output, values=np.asarray(image)[:, :, None].astype(np.float32), bits=32, white=1.0)
    if stored_bits > 8:
        notes.append(f"only 8 of {stored_bits} bits per channel are read")
    if image.mode == "LAB":
        notes.append("Lab converted to RGB")
        image = _lab_to_rgb(image)
        output.fields.pop("icc-profile-data", None)  # a profile for Lab
    transparent = "transparency" in image.info or image.mode in ("LA", "PA", "RGBA", "La", "RGBa")
    grayish = image.mode in ("1", "L", "LA", "La")
    mode = ("LA" if transparent else "L") if grayish else ("RGBA" if transparent else "RGB")
    values = np.asarray(image.convert(mode))
    return replace(output, values=values.reshape(image.height, image.width, -1), channels=1 if grayish else 3)


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    converted = ImageCms.profileToProfile(
        image, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    assert converted is not None  # it returns None only for a conversion in place
    return converted
