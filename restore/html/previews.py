"""Previews of a row: images reduced for the browser, error maps, and outlines of holes."""

from __future__ import annotations

import io
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from restore.errors import RestoreError
from restore.files import write_error_message
from restore.html.folder import IMAGES
from restore.html.rows import Row, visible
from restore.images import read_image, read_mask
from restore.images.decoder_output import ImageTooLarge

#: Longer side of a preview.
PREVIEW_PX = 1600
#: Maximum side of the additional crop at 100 % of larger images, taken where the versions differ most.
DETAIL_PX = 800
THUMBNAIL_PX = 192
#: Images with more pixels have no preview: a page should not need more memory than the command that it reports.
MAX_PIXELS = 100_000_000
#: Rows with larger images are processed one at a time, to limit memory.
_CONCURRENT_PIXELS = 16_000_000
_large_image_lock = threading.Lock()
#: Error maps are the mean absolute difference over the channels times this: white is 64 of 255 levels or more.
ERROR_GAIN = 4
_PNG_PIXELS = 128 * 128  # up to this size a PNG is not much larger than a JPEG
# JPEG without chroma subsampling keeps noise visible: of Gaussian noise with σ = 25 the preview has a PSNR of 32 dB,
# lossy WebP 22 dB at any quality because it subsamples chroma.
_IMAGE_QUALITY, _ERROR_QUALITY, _THUMBNAIL_QUALITY = 92, 75, 82
_HOLE_FROM = 0.5

Images = Mapping[str, np.ndarray]


@dataclass
class Previews:
    """The files written for a row.

    Attributes:
        views: the whole image and for large images a crop, each `{"size", "images", "errors", "outline", "scale"}` with
            files by label.
        thumbnail: file; "" if no image can be shown.
        size: (W, H) of the original image, (0, 0) without one.
        notes: images that could not be shown, and why.
    """

    views: list[dict[str, Any]] = field(default_factory=list)
    thumbnail: str = ""
    size: tuple[int, int] = (0, 0)
    notes: list[str] = field(default_factory=list)


def write_previews(row: Row, number: int, folder: Path, reference: str | None) -> Previews:
    """Write a row's previews to `folder/images`.

    Args:
        row: images that cannot be read are noted and left out.
        number: number of the row; file names depend on it alone.
        folder: folder of the page.
        reference: label of the image that error maps compare with.

    Raises:
        RestoreError: exit code 1; they cannot be written.
        ValueError: an array is not an image.
    """
    try:
        return _write_views(row, number, folder, reference, _CONCURRENT_PIXELS)
    except ImageTooLarge:
        with _large_image_lock:
            return _write_views(row, number, folder, reference, MAX_PIXELS)


def _write_views(row: Row, number: int, folder: Path, reference: str | None, max_pixels: int) -> Previews:
    out = Previews()
    images = _images_of(row, out.notes, max_pixels)
    if not images:
        return out
    height, width = max((p.shape[:2] for p in images.values()), key=lambda shape: shape[0] * shape[1])
    out.size = (width, height)
    if any(p.shape[:2] != (height, width) for p in images.values()):
        sizes = ", ".join(f"{label} {p.shape[1]}×{p.shape[0]}" for label, p in images.items())
        out.notes.append(f"sizes differ: {sizes}")
    hole = _hole_of(row, (height, width), out.notes, max_pixels)
    writer = _Writer(folder, f"{number:06d}")
    errors = _error_maps({label: image for label, image in images.items() if label not in row.layers}, reference)
    scale = min(1.0, PREVIEW_PX / max(height, width))
    out.views.append(writer.view("", images, errors, hole, scale))
    if scale < 1:
        box = _detail_box(images, errors, (height, width))
        crops = {label: _cropped(image, box) for label, image in images.items()}
        near = {label: _cropped(error, box) for label, error in errors.items()}
        out.views.append(writer.view("d", crops, near, None if hole is None else _cropped(hole, box), 1.0))
    last = next((name for name in reversed(images) if name != reference), next(iter(images)))
    label = row.shown if row.shown in images else last
    small = _shrunk(images[label], min(1.0, THUMBNAIL_PX / max(images[label].shape[:2])))
    out.thumbnail = writer.jpeg("t", small, _THUMBNAIL_QUALITY)
    return out


class _Writer:
    """Writes files with names that begin with a row's number."""

    def __init__(self, folder: Path, stem: str) -> None:
        self.folder, self.stem = folder, stem

    def view(
        self, prefix: str, images: Images, errors: Images, hole: np.ndarray | None, scale: float
    ) -> dict[str, Any]:
        """Write one view of all images of a row; `prefix` distinguishes its files from those of another view."""
        scaled = {label: _shrunk(image, scale) for label, image in images.items()}
        height, width = max((p.shape[:2] for p in scaled.values()), key=lambda shape: shape[0] * shape[1])
        numbers = {label: number for number, label in enumerate(images)}
        outline = None if hole is None else _outline(_shrunk(hole, scale) > 0)
        return {
            "size": [width, height],
            "scale": scale,
            "images": {label: self.image(f"{prefix}{numbers[label]}", p) for label, p in scaled.items()},
            "errors": {
                label: self.image(f"{prefix}e{numbers[label]}", _shrunk(error, scale), _ERROR_QUALITY)
                for label, error in errors.items()
            },
            "outline": None if outline is None else self.outline(f"{prefix}m", outline),
        }

    def image(self, name: str, pixels: np.ndarray, quality: int = _IMAGE_QUALITY) -> str:
        """Write a small image as PNG, others as JPEG."""
        if pixels.shape[0] * pixels.shape[1] > _PNG_PIXELS:
            return self.jpeg(name, pixels, quality)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        return self._write(f"{name}.png", file.getvalue())

    def jpeg(self, name: str, pixels: np.ndarray, quality: int) -> str:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=0)
        return self._write(f"{name}.jpg", file.getvalue())

    def outline(self, name: str, levels: np.ndarray) -> str:
        """Write an outline: 0 is transparent, 1 the line, 2 a dark rim that keeps it visible on any background."""
        image = Image.fromarray(levels)
        image.putpalette([0, 0, 0, 255, 214, 10, 20, 20, 20])
        file = io.BytesIO()
        image.save(file, "PNG", transparency=0, bits=2)
        return self._write(f"{name}.png", file.getvalue())

    def _write(self, name: str, data: bytes) -> str:
        path = self.folder / IMAGES / f"{self.stem}-{name}"
        try:
            path.write_bytes(data)
        except OSError as error:
            raise RestoreError(write_error_message(error), where=path, exit_code=1) from error
        return path.name


def _images_of(row: Row, notes: list[str], max_pixels: int) -> dict[str, np.ndarray]:
    """Read the images as uint8 H×W×3 by label; for unreadable ones, add the reason to the notes.

    Raises:
        ImageTooLarge: an image exceeds `max_pixels`, and `max_pixels` is below `MAX_PIXELS`.
    """
    images = {}
    for label, source in row.images.items():
        if isinstance(source, np.ndarray):
            if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3:
                raise ValueError(f"{label} of {row.name!r} is {source.dtype} {source.shape}, not uint8 H×W×3")
            images[label] = np.ascontiguousarray(source)
            continue
        try:
            images[label] = _read(source, max_pixels)
        except (RestoreError, OSError, MemoryError) as error:
            notes.append(f"{label} cannot be shown: {_reason(error, max_pixels)}")
    return images


def _reason(error: Exception, max_pixels: int) -> str:
    if isinstance(error, ImageTooLarge):
        if max_pixels < MAX_PIXELS:
            raise error
        return f"it has more than {MAX_PIXELS // 1_000_000} megapixels"
    return visible(error.what if isinstance(error, RestoreError) else str(error) or "out of memory")


def _read(path: Path, max_pixels: int) -> np.ndarray:
    """Read an image as uint8, H×W×3, sRGB, upright; NaN becomes black."""
    image = read_image(path, max_pixels=max_pixels)
    if image.pixels.dtype == np.uint8 and image.profile is None:
        return np.repeat(image.pixels, 3, axis=2) if image.gray else np.ascontiguousarray(image.pixels)
    srgb = np.clip(np.nan_to_num(image.to_srgb(), nan=0.0), 0, 1)
    pixels: np.ndarray = np.rint(srgb * 255).astype(np.uint8)
    return pixels


def _hole_of(row: Row, size: tuple[int, int], notes: list[str], max_pixels: int) -> np.ndarray | None:
    """Read the mask as uint8 H×W, 255 in the hole; None without a hole."""
    if row.mask is None:
        return None
    if isinstance(row.mask, np.ndarray):
        white = np.iinfo(row.mask.dtype).max if row.mask.dtype.kind in "iu" else 1
        hole = row.mask if row.mask.dtype == bool else row.mask >= _HOLE_FROM * white
        factor = size[0] // hole.shape[0]
        if factor > 1 and size == (hole.shape[0] * factor, hole.shape[1] * factor):  # the repair was enlarged, too
            hole = hole.repeat(factor, 0).repeat(factor, 1)
        if hole.shape != size:
            notes.append(f"the mask is {hole.shape[1]}×{hole.shape[0]}")
            return None
    else:
        try:
            hole = read_mask(row.mask, size=size, max_pixels=max_pixels) >= _HOLE_FROM
        except (RestoreError, OSError, MemoryError) as error:
            notes.append(f"no outline: {_reason(error, max_pixels)}")
            return None
    return hole.astype(np.uint8) * 255 if hole.any() else None


def _error_maps(images: Images, reference: str | None) -> dict[str, np.ndarray]:
    """uint8 H×W by label, for all images of the same size as the reference."""
    true = None if reference is None else images.get(reference)
    if true is None:
        return {}
    return {
        label: cv2.transform(cv2.absdiff(image, true), np.full((1, 3), ERROR_GAIN / 3, np.float32))
        for label, image in images.items()
        if label != reference and image.shape == true.shape
    }


def _detail_box(images: Images, errors: Images, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """The crop with the largest differences: sides up to `DETAIL_PX`; (top, left, bottom, right) as fractions."""
    height, width = size
    maps = list(errors.values()) or list(_error_maps(images, next(iter(images))).values())
    tall, wide = min(DETAIL_PX, height), min(DETAIL_PX, width)
    top, left = (height - tall) // 2, (width - wide) // 2
    if maps:
        step = 8
        coarse = np.sum([_shrunk(one, 1 / step).astype(np.float32) for one in maps], axis=0)
        rows, columns = max(tall // step, 1), max(wide // step, 1)
        # Sums over all windows of this size, from the integral image.
        total = cv2.integral(coarse)
        sums = total[rows:, columns:] - total[:-rows, columns:] - total[rows:, :-columns] + total[:-rows, :-columns]
        if sums.size and sums.max() > 0:
            at = np.unravel_index(int(sums.argmax()), sums.shape)
            top, left = min(int(at[0]) * step, height - tall), min(int(at[1]) * step, width - wide)
    return top / height, left / width, (top + tall) / height, (left + wide) / width


def _cropped(pixels: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    height, width = pixels.shape[:2]
    top, left = round(box[0] * height), round(box[1] * width)
    bottom, right = max(round(box[2] * height), top + 1), max(round(box[3] * width), left + 1)
    return np.ascontiguousarray(pixels[top:bottom, left:right])


def _shrunk(pixels: np.ndarray, scale: float) -> np.ndarray:
    if scale >= 1:
        return pixels
    height, width = pixels.shape[:2]
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def _outline(hole: np.ndarray) -> np.ndarray | None:
    """The outline just outside a hole: 1 on the line, 2 on its rim; None if the hole covers the image."""
    width = max(1, round(max(hole.shape) / 800))
    inner = cv2.dilate(hole.astype(np.uint8), np.ones((2 * width + 1,) * 2, np.uint8))
    outer = cv2.dilate(inner, np.ones((2 * width + 1,) * 2, np.uint8))
    levels = inner + 2 * (outer - inner) - hole.astype(np.uint8)
    return levels if levels.any() else None
