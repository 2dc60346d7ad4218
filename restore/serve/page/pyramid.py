"""What the page shows of an image: 8 bits, sRGB, upright, in tiles on all levels, and as a thumbnail.

Only for display: repairs read the image's own file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from restore.files import write_atomically
from restore.images import DecodedImage
from restore.serve.page.tiles import TileFile, halved_by_maximum, halves, write_tile_file

Bytes = npt.NDArray[np.uint8]

#: Longest side of a thumbnail.
THUMBNAIL_PX = 320

_QUALITY = 92
_THUMBNAIL_QUALITY = 82
#: An image of 16 bits whose brightest pixels stay below this share of white is shown brighter, as scanners that store
#: 10 or 12 bits in the lower part of 16 leave it nearly black.
_DARK = 0.28
#: The share of pixels that may become white by it.
_CLIPPED = 0.001
_ROWS = 256


def shown(image: DecodedImage, gain: float | None = None) -> tuple[Bytes, float]:
    """The pixels to show.

    Args:
        image: upright.
        gain: factor of the values, as returned for another image of the same file; None: as the image requires.

    Returns:
        H×W×3, sRGB, on white where the image is transparent; and the factor, which is 1 for almost all images.
    """
    if gain is None:
        gain = _gain_for(image)
    height, width = image.size
    if gain == 1 and image.pixels.dtype == np.uint8 and image.icc is None and image.alpha is None:
        plain = np.repeat(image.pixels, 3, axis=2) if image.gray else image.pixels
        return np.ascontiguousarray(plain, np.uint8), 1.0
    out = np.empty((height, width, 3), np.uint8)
    transparent = image.alpha is not None and image.transparent
    for top in range(0, height, _ROWS):
        rows = slice(top, top + _ROWS)
        part = replace(image, pixels=image.pixels[rows], alpha=None, infrared=None, extra_pages=())
        values = np.clip(part.to_srgb() * np.float32(gain), 0, 1)
        if transparent and image.alpha is not None:
            opaque = np.clip(np.nan_to_num(np.divide(image.alpha[rows], np.float32(image.white))), 0, 1)
            values = 1 + (values - 1) * opaque[:, :, None].astype(np.float32)
        out[rows] = np.rint(values * 255)
    return out, gain


def _gain_for(image: DecodedImage) -> float:
    if image.pixels.dtype != np.uint16:
        return 1.0
    few = image.pixels[:: max(1, image.size[0] // 500), :: max(1, image.size[1] // 500)]
    bright = float(np.quantile(few, 1 - _CLIPPED)) / image.white
    if not 0 < bright < _DARK:
        return 1.0
    sample = replace(image, pixels=np.ascontiguousarray(few), alpha=None, infrared=None, extra_pages=())
    top = float(np.quantile(sample.to_srgb(), 1 - _CLIPPED))
    return min(1 / top, 64.0) if top > 0 else 1.0


def write_pyramid(
    path: Path, pixels: Bytes, gain: float = 1.0, progress: Callable[[float], object] = lambda share: None
) -> TileFile:
    """Write the tiles of what `shown` gave."""
    return write_tile_file(path, halves(pixels, _halved), _jpeg, {"gain": gain}, progress)


def write_thumbnail(path: Path, pixels: Bytes) -> None:
    """Write a thumbnail of what `shown` gave."""
    import cv2

    height, width = pixels.shape[:2]
    scale = THUMBNAIL_PX / max(height, width)
    if scale < 1:
        size = max(round(width * scale), 1), max(round(height * scale), 1)
        pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    write_atomically(path, _jpeg(pixels, _THUMBNAIL_QUALITY))


def write_jpeg(path: Path, pixels: Bytes) -> None:
    """Write pixels to show, H×W×3."""
    write_atomically(path, _jpeg(pixels))


def write_probabilities(path: Path, probability: npt.NDArray[np.float32], facts: dict[str, Any]) -> TileFile:
    """Write how likely each pixel is damaged, H×W in [0, 1], as tiles of 8 bits; each level has the maximum."""
    return write_tile_file(path, halves(to_bytes(probability), halved_by_maximum), _png_unless_empty, facts)


def to_bytes(probability: npt.NDArray[np.float32]) -> Bytes:
    """Probabilities × 255, rounded."""
    return np.asarray(np.rint(probability * np.float32(255)), np.uint8)


def _halved(pixels: Bytes) -> Bytes:
    import cv2

    height, width = pixels.shape[:2]
    return np.asarray(cv2.resize(pixels, ((width + 1) // 2, (height + 1) // 2), interpolation=cv2.INTER_AREA), np.uint8)


def _jpeg(pixels: Bytes, quality: int = _QUALITY) -> bytes:
    import cv2

    flags = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    done, data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), flags)
    assert done
    return bytes(data)


def _png_unless_empty(pixels: Bytes) -> bytes | None:
    return png(pixels) if pixels.any() else None


def png(pixels: Bytes) -> bytes:
    """H×W as a gray PNG."""
    import cv2

    done, data = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert done
    return bytes(data)


def coverage_png(pixels: Bytes) -> bytes:
    """H×W coverage as a PNG that is white, with the coverage as alpha."""
    first = int(pixels[0, 0])
    if (pixels == first).all():
        return _even_coverage(pixels.shape[0], pixels.shape[1], first)
    return _coverage_png(pixels)


@lru_cache(maxsize=64)
def _even_coverage(height: int, width: int, coverage: int) -> bytes:
    return _coverage_png(np.full((height, width), coverage, np.uint8))


def _coverage_png(pixels: Bytes) -> bytes:
    import io

    from PIL import Image

    stream = io.BytesIO()
    white = Image.new("L", (pixels.shape[1], pixels.shape[0]), 255)
    Image.merge("LA", (white, Image.fromarray(pixels))).save(stream, "PNG", compress_level=1)
    return stream.getvalue()
