"""`restore compare`: versions of one image side by side, with enlarged crops where they differ most."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from restore.errors import RestoreError
from restore.images.contact_sheet import FRAME_COLORS, Box, Cell, draw_sheet, fit_within, magnify, read_named
from restore.metrics import score_batch

COLUMN_PX = 360
"""Column width of a sheet with few columns."""

# With many columns, the sheet stays within this width as long as columns keep a legible minimum.
_SHEET_PX = 2400
_MIN_COLUMN_PX = 200


@dataclass(frozen=True)
class Version:
    """One of several versions of an image.

    Attributes:
        label: text above it.
        image: uint8, H×W×3.
        caption: text below it, usually its scores.
    """

    label: str
    image: np.ndarray
    caption: str = ""


def compare_images(
    files: Sequence[Path], reference: Path | None = None, *, crops: int = 3, zoom: int = 4
) -> np.ndarray:
    """Draw images of one size: whole, and enlarged where they differ most from the reference.

    Args:
        files: at least two images (one is enough with a reference), labelled by the distinguishing part of their paths.
        reference: the clean image, against which the others are scored. None: the last image serves as the reference,
            and nothing is scored.
        crops: number of enlarged crops.
        zoom: enlargement factor; pixels stay sharp.

    Returns:
        uint8, H×W×3.

    Raises:
        RestoreError: exit code 2; too few images, different sizes, or an unreadable image.
    """
    paths = [*files, *([reference] if reference is not None else [])]
    if len(paths) < 2:
        raise RestoreError("a single image cannot be compared", hint="name several images, or a --reference")
    images = [read_named(path) for path in paths]
    size = images[-1].shape
    for path, image in zip(paths, images):
        if image.shape != size:
            raise RestoreError(
                f"is {image.shape[1]}×{image.shape[0]} pixels, but {paths[-1].name} is {size[1]}×{size[0]}",
                where=path,
                hint="all images must have the same size; none is resized",
            )
    labels = distinguishing_labels(paths)
    if reference is None:
        versions = [Version(label, image) for label, image in zip(labels, images)]
    else:
        versions = [
            Version(label, image, score_caption(scores_against(image, images[-1])))
            for label, image in zip(labels[:-1], images)
        ] + [Version(f"{labels[-1]} (reference)", images[-1])]
    boxes = largest_differences(images[:-1], images[-1], crops, crop_size(len(versions), size[:2], zoom))
    if boxes:
        note = f"Frames mark the largest differences from {labels[-1]}, enlarged {zoom} times."
    else:
        note = f"All images equal {labels[-1]}." if crops else ""
    return draw_sheet(comparison_rows(versions, boxes, zoom), note=note)


def distinguishing_labels(paths: Sequence[Path]) -> list[str]:
    """The shortest distinct ends of the paths: `photo.png`, or `a/photo.png` and `b/photo.png`."""
    parts = [Path(path).absolute().parts for path in paths]
    for count in range(1, max(len(p) for p in parts)):
        labels = ["/".join(p[-count:]) for p in parts]
        if len(set(labels)) == len(set(parts)):
            return labels
    return [str(path) for path in paths]


def scores_against(image: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """PSNR and SSIM over RGB (convention `skimage`) of two uint8 images, H×W×3."""
    a, b = (torch.tensor(pixels).permute(2, 0, 1)[None].float() / 255 for pixels in (image, reference))
    return {name: float(value) for name, value in score_batch(a, b).items()}


def score_caption(scores: Mapping[str, float]) -> str:
    """PSNR, SSIM and LPIPS in one line, as available; only the scores of the hole if there is one."""
    if scores.get("psnr") == math.inf:
        return "identical"
    has_hole = math.isfinite(scores.get("psnr_hole", math.nan))
    names = ("psnr_hole", "lpips_hole") if has_hole else ("psnr", "ssim", "lpips")
    formats = {"psnr": "{:.2f} dB", "ssim": "SSIM {:.3f}", "lpips": "LPIPS {:.3f}"}
    parts = [
        formats[name.removesuffix("_hole")].format(scores[name])
        for name in names
        if math.isfinite(scores.get(name, math.nan))
    ]
    return ("hole: " if has_hole else "") + "   ".join(parts)


def crop_size(columns: int, size: tuple[int, int], zoom: int) -> tuple[int, int]:
    """Height and width of a crop that fills a column when enlarged: 3:2, and at most half of the image."""
    width = max(1, min(_column_px(columns, size[1]) // zoom, size[1] // 2))
    return max(1, min(width * 2 // 3, size[0] // 2)), width


def _column_px(columns: int, width: int) -> int:
    column = max(_MIN_COLUMN_PX, min(COLUMN_PX, _SHEET_PX // columns))
    return column if width >= column else max(width, column // width * width)


def largest_differences(
    images: Sequence[np.ndarray], reference: np.ndarray, count: int, size: tuple[int, int]
) -> list[Box]:
    """Find the windows in which the images differ most from the reference, without overlap.

    The difference of a window is the mean over its pixels of the largest absolute difference of any image, averaged
    over channels.

    Args:
        images: uint8, H×W×3 each.
        reference: likewise.
        count: maximum number of windows. There are fewer if no room is left or nothing differs.
        size: height and width of a window.

    Returns:
        Windows, largest difference first.
    """
    base = reference.astype(np.float32)
    difference = np.max([np.abs(image - base).mean(axis=2) for image in images], axis=0)
    height, width = size
    smooth = ndimage.uniform_filter(difference, size=(height, width), mode="constant")
    # Keep only windows that lie inside the image: `uniform_filter` stores a window's mean at its centre.
    top, left = height // 2, width // 2
    rows, columns = base.shape[0] - height + 1, base.shape[1] - width + 1
    inside = smooth[top : top + rows, left : left + columns].copy()
    boxes: list[Box] = []
    while len(boxes) < count and inside.size:
        y, x = (int(i) for i in np.unravel_index(int(inside.argmax()), inside.shape))
        if inside[y, x] <= 0:
            break
        boxes.append(Box(y, x, y + height, x + width))
        inside[max(0, y - height) : y + height + 1, max(0, x - width) : x + width + 1] = 0
    return boxes


def comparison_rows(versions: Sequence[Version], boxes: Sequence[Box], zoom: int) -> list[list[Cell]]:
    """Rows for `draw_sheet`: the whole images with frames, then one row of enlarged crops per box.

    Args:
        versions: images of one size.
        boxes: from `largest_differences`; frame colors follow their order.
        zoom: enlargement of the crops.
    """
    width = versions[0].image.shape[1]
    column = _column_px(len(versions), width)
    rows: list[list[Cell]] = [[]]
    for version in versions:
        whole = fit_within(version.image, column)
        scale = whole.shape[1] / width
        frames = tuple((_scaled(box, scale), FRAME_COLORS[i % len(FRAME_COLORS)]) for i, box in enumerate(boxes))
        rows[0].append(Cell(whole, version.label, version.caption, boxes=frames))
    for i, box in enumerate(boxes):
        window = (slice(box.top, box.bottom), slice(box.left, box.right))
        color = FRAME_COLORS[i % len(FRAME_COLORS)]
        rows.append([Cell(magnify(version.image[window], zoom), frame=color) for version in versions])
    return rows


def _scaled(box: Box, scale: float) -> Box:
    top, left, bottom, right = (round(edge * scale) for edge in (box.top, box.left, box.bottom, box.right))
    return Box(top, left, bottom, right)
