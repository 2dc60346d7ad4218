"""Which quality of the AVIF encoder loses no more than the source has lost."""

from __future__ import annotations

import functools

import numpy as np
import pyvips

from restore.images.metadata import heif


def avif_quality(quantizer: int | None, least: int) -> int:
    """The lowest quality that quantizes no more coarsely than a source.

    Args:
        quantizer: of the source, 0 to 255; None: unknown.
        least: the quality for a source that is coarser or unknown. A second compression at the quality of a coarse
            source would lose as much again.

    Returns:
        1 to 100, at least `least`.
    """
    if quantizer is None:
        return least
    return next((quality for quality in range(least, 100) if _quantizer_at(quality) <= quantizer), 100)


@functools.cache
def _quantizer_at(quality: int) -> int:
    """What the encoder makes of a quality, tried on a small image: it depends neither on size, depth nor content."""
    image = pyvips.Image.new_from_array(np.zeros((16, 16, 3), np.uint8))
    data = bytes(image.heifsave_buffer(compression="av1", Q=quality, effort=0))
    return heif.read_header(data).quantizer or 0
