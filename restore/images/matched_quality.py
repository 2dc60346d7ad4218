"""The quality at which an encoder loses no more than the source has lost."""

from __future__ import annotations

import functools
import io

import numpy as np
import pyvips
from PIL import Image

from restore.images.metadata import heif, webp


def matched_quality(kind: str, quantizer: int | None, least: int) -> int:
    """The lowest quality that quantizes no more coarsely than a source of the same format.

    Args:
        kind: `avif` or `webp`.
        quantizer: of the source, see `DecodedImage.quantizer`; None: unknown.
        least: the quality for a source that is coarser or unknown. A second compression at the quality of a coarse
            source would lose as much again.

    Returns:
        1 to 100, at least `least`.
    """
    if quantizer is None:
        return least
    return next((quality for quality in range(least, 100) if _quantizer_of(kind, quality) <= quantizer), 100)


@functools.cache
def _quantizer_of(kind: str, quality: int) -> int:
    """The quantizer of a quality, measured on a small image: it does not depend on depth, content or size.

    Images of a single block, 16×16, are an exception: libwebp takes other numbers for them.
    """
    black = np.zeros((64, 64, 3), np.uint8)
    if kind == "avif":
        data = pyvips.Image.new_from_array(black).heifsave_buffer(compression="av1", Q=quality, effort=0)
        return heif.read_header(bytes(data)).quantizer or 0
    stream = io.BytesIO()
    Image.fromarray(black).save(stream, "WEBP", quality=quality)
    return webp.read_header(stream.getvalue()).quantizer or 0
