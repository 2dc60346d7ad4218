"""CMYK -> sRGB by LittleCMS: relative colorimetric, without black point compensation."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyvips
from PIL import Image, ImageCms


def cmyk8_to_srgb(image: Any, icc: bytes) -> Any:
    """Through Pillow's LittleCMS: that of pyvips is a step off in one pixel of 200, which in the dark is a ΔE over 1.

    Args:
        image: a pyvips image of four bands or more, 8 bits; further bands stay as they are.
        icc: a profile for CMYK.

    Raises:
        ValueError: the profile is broken, or is for another kind of picture.
    """
    inks = np.ascontiguousarray(image[:4].numpy())
    size = (image.width, image.height)
    try:
        converted = ImageCms.profileToProfile(
            Image.frombuffer("CMYK", size, inks.tobytes(), "raw", "CMYK", 0, 1),
            io.BytesIO(icc),
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
        )
    except (ImageCms.PyCMSError, OSError) as error:
        raise ValueError("the colour profile is broken") from error
    assert converted is not None  # not in place
    rgb = pyvips.Image.new_from_memory(converted.tobytes(), *size, 3, "uchar").copy(interpretation="srgb")
    return rgb.bandjoin(image[4:]) if image.bands > 4 else rgb


def cmyk16_to_srgb(image: Any, icc: bytes) -> Any:
    """`cmyk8_to_srgb` for 16 bits, which Pillow does not know, by the LittleCMS of pyvips."""
    image = image.copy()
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", icc)
    try:
        return image.icc_transform("srgb", embedded=True, intent="relative", depth=16)
    except pyvips.Error as error:
        raise ValueError("the colour profile is broken") from error
