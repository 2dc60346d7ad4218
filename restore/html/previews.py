"""A row's pictures as the page shows them: small enough for a browser, with error maps and outlines, as files."""

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
from restore.html.folder import PICTURES
from restore.html.rows import Row, visible
from restore.images import read_image, read_mask
from restore.images.decode import ImageTooLarge

#: The longer side of what is shown of a picture.
PREVIEW_PX = 1600
#: Of pictures that are larger, a square of this side is shown at 100 % too, where they differ most.
DETAIL_PX = 800
THUMBNAIL_PX = 192
#: Pictures with more pixels are named, not shown: a page should not need more memory than the work that it shows.
MAX_PIXELS = 100_000_000
#: Rows with larger pictures are worked on one at a time, whatever the number of threads.
_MANY_AT_ONCE_PIXELS = 16_000_000
_large = threading.Lock()
#: Error maps are the mean difference over the channels, times this: white is 64 of 255 levels and more.
ERROR_GAIN = 4
_PNG_PIXELS = 128 * 128  # up to here lossless costs little
# JPEG without subsampling: noise of σ 25 comes back at 32 dB, from lossy WebP at 22 dB whatever its quality, since it
# blurs colours; and it is that noise which is to be looked at.
_PICTURE_QUALITY, _ERROR_QUALITY, _THUMBNAIL_QUALITY = 92, 75, 82
_HOLE_FROM = 0.5

Pictures = Mapping[str, np.ndarray]


@dataclass
class Previews:
    """What was written of a row.

    Attributes:
        views: the whole picture and perhaps a detail, each `{"size", "pictures", "errors", "outline", "scale"}` with
            files by label.
        thumbnail: its file, "" where no picture can be shown.
        size: (W, H) of the picture itself, (0, 0) without one.
        notes: what could not be shown, and why.
    """

    views: list[dict[str, Any]] = field(default_factory=list)
    thumbnail: str = ""
    size: tuple[int, int] = (0, 0)
    notes: list[str] = field(default_factory=list)


def write_previews(row: Row, number: int, folder: Path, reference: str | None) -> Previews:
    """Write a row's pictures to `folder/pictures`, under names made of the row's number.

    Args:
        row: a picture that cannot be read is noted and left out.
        number: of the row, on which its files' names depend alone.
        folder: the page's.
        reference: label of the picture that error maps are against.

    Raises:
        RestoreError: exit code 1; they cannot be written.
        ValueError: an array that is no picture.
    """
    try:
        return _written(row, number, folder, reference, _MANY_AT_ONCE_PIXELS)
    except ImageTooLarge:
        with _large:
            return _written(row, number, folder, reference, MAX_PIXELS)


def _written(row: Row, number: int, folder: Path, reference: str | None, max_pixels: int) -> Previews:
    out = Previews()
    pictures = _pictures_of(row, out.notes, max_pixels)
    if not pictures:
        return out
    height, width = max((p.shape[:2] for p in pictures.values()), key=lambda shape: shape[0] * shape[1])
    out.size = (width, height)
    if any(p.shape[:2] != (height, width) for p in pictures.values()):
        sizes = ", ".join(f"{label} {p.shape[1]}×{p.shape[0]}" for label, p in pictures.items())
        out.notes.append(f"sizes differ: {sizes}")
    hole = _hole_of(row, (height, width), out.notes, max_pixels)
    writer = _Writer(folder, f"{number:06d}")
    errors = _error_maps(pictures, reference)
    scale = min(1.0, PREVIEW_PX / max(height, width))
    out.views.append(writer.view("", pictures, errors, hole, scale))
    if scale < 1:
        box = _where_they_differ(pictures, errors, (height, width))
        crops = {label: _cropped(picture, box) for label, picture in pictures.items()}
        near = {label: _cropped(error, box) for label, error in errors.items()}
        out.views.append(writer.view("d", crops, near, None if hole is None else _cropped(hole, box), 1.0))
    label = next((name for name in reversed(pictures) if name != reference), next(iter(pictures)))
    small = _shrunk(pictures[label], min(1.0, THUMBNAIL_PX / max(pictures[label].shape[:2])))
    out.thumbnail = writer.jpeg("t", small, _THUMBNAIL_QUALITY)
    return out


class _Writer:
    """Writes files whose names begin with a row's number."""

    def __init__(self, folder: Path, stem: str) -> None:
        self.folder, self.stem = folder, stem

    def view(
        self, prefix: str, pictures: Pictures, errors: Pictures, hole: np.ndarray | None, scale: float
    ) -> dict[str, Any]:
        """One view of all pictures of a row; `prefix` tells its files from another view's."""
        shown = {label: _shrunk(picture, scale) for label, picture in pictures.items()}
        height, width = max((p.shape[:2] for p in shown.values()), key=lambda shape: shape[0] * shape[1])
        numbers = {label: number for number, label in enumerate(pictures)}
        outline = None if hole is None else _outline(_shrunk(hole, scale) > 0)
        return {
            "size": [width, height],
            "scale": scale,
            "pictures": {label: self.picture(f"{prefix}{numbers[label]}", p) for label, p in shown.items()},
            "errors": {
                label: self.picture(f"{prefix}e{numbers[label]}", _shrunk(error, scale), _ERROR_QUALITY)
                for label, error in errors.items()
            },
            "outline": None if outline is None else self.outline(f"{prefix}m", outline),
        }

    def picture(self, name: str, pixels: np.ndarray, quality: int = _PICTURE_QUALITY) -> str:
        """Lossless where that costs little, else a JPEG with all its colours."""
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
        """0 is transparent, 1 the line, 2 its dark rim, so that it is seen on any ground."""
        image = Image.fromarray(levels)
        image.putpalette([0, 0, 0, 255, 214, 10, 20, 20, 20])
        file = io.BytesIO()
        image.save(file, "PNG", transparency=0, bits=2)
        return self._write(f"{name}.png", file.getvalue())

    def _write(self, name: str, data: bytes) -> str:
        path = self.folder / PICTURES / f"{self.stem}-{name}"
        try:
            path.write_bytes(data)
        except OSError as error:
            raise RestoreError(write_error_message(error), where=path, exit_code=1) from error
        return path.name


def _pictures_of(row: Row, notes: list[str], max_pixels: int) -> dict[str, np.ndarray]:
    """uint8 H×W×3 by label; of what cannot be read, the reason goes to the notes.

    Raises:
        ImageTooLarge: a picture is over a limit that is not yet the last one.
    """
    pictures = {}
    for label, given in row.pictures.items():
        if isinstance(given, np.ndarray):
            if given.dtype != np.uint8 or given.ndim != 3 or given.shape[2] != 3:
                raise ValueError(f"{label} of {row.name!r} is {given.dtype} {given.shape}, not uint8 H×W×3")
            pictures[label] = np.ascontiguousarray(given)
            continue
        try:
            pictures[label] = _read(given, max_pixels)
        except (RestoreError, OSError, MemoryError) as error:
            notes.append(f"{label} cannot be shown: {_reason(error, max_pixels)}")
    return pictures


def _reason(error: Exception, max_pixels: int) -> str:
    if isinstance(error, ImageTooLarge):
        if max_pixels < MAX_PIXELS:
            raise error
        return f"it has more than {MAX_PIXELS // 1_000_000} megapixels"
    return visible(error.what if isinstance(error, RestoreError) else str(error) or "not enough memory")


def _read(path: Path, max_pixels: int) -> np.ndarray:
    """uint8, H×W×3, sRGB, upright; what is not a number is black."""
    picture = read_image(path, max_pixels=max_pixels)
    if picture.pixels.dtype == np.uint8 and picture.profile is None:
        return np.repeat(picture.pixels, 3, axis=2) if picture.gray else np.ascontiguousarray(picture.pixels)
    shown = np.clip(np.nan_to_num(picture.to_srgb(), nan=0.0), 0, 1)
    return np.rint(shown * 255).astype(np.uint8)


def _hole_of(row: Row, size: tuple[int, int], notes: list[str], max_pixels: int) -> np.ndarray | None:
    """uint8 H×W, 255 in the hole; None where there is none."""
    if row.mask is None:
        return None
    if isinstance(row.mask, np.ndarray):
        white = np.iinfo(row.mask.dtype).max if row.mask.dtype.kind in "iu" else 1
        hole = row.mask if row.mask.dtype == bool else row.mask >= _HOLE_FROM * white
        if hole.shape != size:
            notes.append(f"its mask is {hole.shape[1]}×{hole.shape[0]}")
            return None
    else:
        try:
            hole = read_mask(row.mask, size=size, max_pixels=max_pixels) >= _HOLE_FROM
        except (RestoreError, OSError, MemoryError) as error:
            notes.append(f"no outline: {_reason(error, max_pixels)}")
            return None
    return hole.astype(np.uint8) * 255 if hole.any() else None


def _error_maps(pictures: Pictures, reference: str | None) -> dict[str, np.ndarray]:
    """uint8 H×W, by label, of all pictures that have the reference's size."""
    true = None if reference is None else pictures.get(reference)
    if true is None:
        return {}
    return {
        label: cv2.transform(cv2.absdiff(picture, true), np.full((1, 3), ERROR_GAIN / 3, np.float32))
        for label, picture in pictures.items()
        if label != reference and picture.shape == true.shape
    }


def _where_they_differ(
    pictures: Pictures, errors: Pictures, size: tuple[int, int]
) -> tuple[float, float, float, float]:
    """A square of `DETAIL_PX`, or what fits, as shares of the sides: top, left, bottom, right."""
    height, width = size
    maps = list(errors.values()) or list(_error_maps(pictures, next(iter(pictures))).values())
    tall, wide = min(DETAIL_PX, height), min(DETAIL_PX, width)
    top, left = (height - tall) // 2, (width - wide) // 2
    if maps:
        step = 8
        coarse = np.sum([_shrunk(one, 1 / step).astype(np.float32) for one in maps], axis=0)
        rows, columns = max(tall // step, 1), max(wide // step, 1)
        # Sums over all windows of this size, from sums from the corner on.
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
    """Around a hole, just outside of it: 1 on the line, 2 on its rim; None where there is no outside."""
    thick = max(1, round(max(hole.shape) / 800))
    inner = cv2.dilate(hole.astype(np.uint8), np.ones((2 * thick + 1,) * 2, np.uint8))
    outer = cv2.dilate(inner, np.ones((2 * thick + 1,) * 2, np.uint8))
    levels = inner + 2 * (outer - inner) - hole.astype(np.uint8)
    return levels if levels.any() else None
