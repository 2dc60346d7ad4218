"""`restore show`: versions of one picture side by side, with enlarged crops where they differ most."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from restore.errors import RestoreError
from restore.images.contact_sheet import FRAMES, Box, Cell, draw_sheet, enlarged, fitted, read_named
from restore.metrics import score_batch

COLUMN_PX = 360
"""Width of a column on a sheet with few columns."""

_SHEET_PX = 2400
_NARROWEST_PX = 200


@dataclass(frozen=True)
class Version:
    """One picture of several that show the same.

    Attributes:
        label: above it.
        picture: uint8, H×W×3.
        caption: below it: its scores.
    """

    label: str
    picture: np.ndarray
    caption: str = ""


def show(files: Sequence[Path], reference: Path | None = None, *, crops: int = 3, zoom: int = 4) -> np.ndarray:
    """A sheet of pictures of one size: whole, and enlarged where they differ most from the reference.

    Args:
        files: pictures, at least two (one is enough beside a reference); labelled by what tells their paths apart.
        reference: the true picture: the others are scored against it. None: they are compared with the last one, and
            not scored.
        crops: how many places are enlarged.
        zoom: how many times, pixel by pixel.

    Returns:
        uint8, H×W×3.

    Raises:
        RestoreError: exit code 2: too few pictures, different sizes, or one that cannot be read.
    """
    paths = [*files, *([reference] if reference is not None else [])]
    if len(paths) < 2:
        raise RestoreError("one picture alone has nothing to be compared with", hint="name several, or a --reference")
    pictures = [read_named(path) for path in paths]
    size = pictures[-1].shape
    for path, picture in zip(paths, pictures):
        if picture.shape != size:
            raise RestoreError(
                f"is {picture.shape[1]}×{picture.shape[0]} pixels, and {paths[-1].name} is {size[1]}×{size[0]}",
                where=path,
                hint="only pictures of one size are compared; nothing is resized in silence",
            )
    labels = telling_labels(paths)
    if reference is None:
        versions = [Version(label, picture) for label, picture in zip(labels, pictures)]
    else:
        versions = [
            Version(label, picture, caption_of(scores_against(picture, pictures[-1])))
            for label, picture in zip(labels[:-1], pictures)
        ] + [Version(f"{labels[-1]} (reference)", pictures[-1])]
    places = where_they_differ(pictures[:-1], pictures[-1], crops, crop_size(len(versions), size[:2], zoom))
    note = "Frames mark where the pictures differ most"
    note += f" from {labels[-1]}, enlarged {zoom} times." if places else f": nowhere; all equal {labels[-1]}."
    return draw_sheet(comparison_rows(versions, places, zoom), note=note)


def telling_labels(paths: Sequence[Path]) -> list[str]:
    """The last parts of paths, as few as tell them apart: `photo.png`, or `a/photo.png` and `b/photo.png`."""
    parts = [Path(path).absolute().parts for path in paths]
    for count in range(1, max(len(p) for p in parts)):
        labels = ["/".join(p[-count:]) for p in parts]
        if len(set(labels)) == len(set(parts)):
            return labels
    return [str(path) for path in paths]


def scores_against(picture: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """PSNR and SSIM over RGB (`skimage`'s convention)."""
    a, b = (torch.tensor(p).permute(2, 0, 1)[None].float() / 255 for p in (picture, reference))
    return {name: float(value) for name, value in score_batch(a, b).items()}


def caption_of(scores: Mapping[str, float]) -> str:
    """PSNR, SSIM and LPIPS of one picture in a line, as there are; where there is a hole, those inside it instead."""
    if scores.get("psnr") == math.inf:
        return "identical"
    inside = math.isfinite(scores.get("psnr_hole", math.nan))
    names = ("psnr_hole", "lpips_hole") if inside else ("psnr", "ssim", "lpips")
    forms = {"psnr": "{:.2f} dB", "ssim": "SSIM {:.3f}", "lpips": "LPIPS {:.3f}"}
    words = [
        forms[name.removesuffix("_hole")].format(scores[name])
        for name in names
        if math.isfinite(scores.get(name, math.nan))
    ]
    return ("hole: " if inside else "") + "   ".join(words)


def crop_size(columns: int, size: tuple[int, int], zoom: int) -> tuple[int, int]:
    """Height and width of a crop that fills a column when it is enlarged: 3:2, and no larger than half the picture."""
    width = max(1, min(_column_px(columns, size[1]) // zoom, size[1] // 2))
    return max(1, min(width * 2 // 3, size[0] // 2)), width


def _column_px(columns: int, width: int) -> int:
    wide = max(_NARROWEST_PX, min(COLUMN_PX, _SHEET_PX // columns))
    return wide if width >= wide else max(width, wide // width * width)


def where_they_differ(
    pictures: Sequence[np.ndarray], reference: np.ndarray, count: int, size: tuple[int, int]
) -> list[Box]:
    """The windows in which the pictures are furthest from the reference; none touches another.

    The difference of a window is the mean over its pixels of the largest absolute difference of any picture, taken as
    the mean over channels.

    Args:
        pictures: uint8, H×W×3 each.
        reference: likewise.
        count: at most so many windows; fewer where no room is left, or nothing differs.
        size: height and width of a window.

    Returns:
        Windows, that of the largest difference first.
    """
    base = reference.astype(np.float32)
    difference = np.max([np.abs(picture - base).mean(axis=2) for picture in pictures], axis=0)
    height, width = size
    smooth = ndimage.uniform_filter(difference, size=(height, width), mode="constant")
    # Only windows that lie inside; `uniform_filter` centres them so.
    top, left = height // 2, width // 2
    rows, columns = base.shape[0] - height + 1, base.shape[1] - width + 1
    inside = smooth[top : top + rows, left : left + columns].copy()
    places: list[Box] = []
    while len(places) < count and inside.size:
        y, x = (int(i) for i in np.unravel_index(int(inside.argmax()), inside.shape))
        if inside[y, x] <= 0:
            break
        places.append(Box(y, x, y + height, x + width))
        inside[max(0, y - height) : y + height + 1, max(0, x - width) : x + width + 1] = 0
    return places


def comparison_rows(versions: Sequence[Version], places: Sequence[Box], zoom: int) -> list[list[Cell]]:
    """Rows for `draw_sheet`: the whole pictures with frames, then a row for every place, enlarged.

    Args:
        versions: of one size.
        places: see `where_they_differ`; colours follow their order.
        zoom: how many times these are enlarged.
    """
    width = versions[0].picture.shape[1]
    column = _column_px(len(versions), width)
    rows: list[list[Cell]] = [[]]
    for version in versions:
        whole = fitted(version.picture, column)
        share = whole.shape[1] / width
        boxes = tuple((_scaled(box, share), FRAMES[i % len(FRAMES)]) for i, box in enumerate(places))
        rows[0].append(Cell(whole, version.label, version.caption, boxes=boxes))
    for i, box in enumerate(places):
        window = (slice(box.top, box.bottom), slice(box.left, box.right))
        colour = FRAMES[i % len(FRAMES)]
        rows.append([Cell(enlarged(version.picture[window], zoom), frame=colour) for version in versions])
    return rows


def _scaled(box: Box, share: float) -> Box:
    top, left, bottom, right = (round(edge * share) for edge in (box.top, box.left, box.bottom, box.right))
    return Box(top, left, bottom, right)
