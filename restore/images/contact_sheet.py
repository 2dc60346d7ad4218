"""Picture sheets: labelled pictures in rows and columns, with frames and captions, drawn to be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from restore.errors import RestoreError
from restore.files import check_writable, write_error_message
from restore.images import read_rgb8, write_png

Colour = tuple[int, int, int]

#: Colours that tell frames apart, also for most colour-blind people (Okabe and Ito, "Color Universal Design", 2008).
FRAMES: tuple[Colour, ...] = (
    (213, 94, 0),
    (0, 114, 178),
    (0, 158, 115),
    (204, 121, 167),
    (230, 159, 0),
    (86, 180, 233),
)
_INK, _PALE, _PAPER = (30, 30, 30), (105, 105, 105), (255, 255, 255)
_GAP, _EDGE, _FRAME = 10, 14, 3
_TITLE_PX, _CAPTION_PX, _HEADING_PX = 15, 13, 20


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels: `top` and `left` are in it, `bottom` and `right` are the first that are not."""

    top: int
    left: int
    bottom: int
    right: int


@dataclass(frozen=True)
class Cell:
    """One picture of a sheet.

    Attributes:
        picture: uint8, H×W×3, drawn pixel by pixel.
        title: above it, in one line; shortened where it is wider than its column.
        caption: below it, likewise.
        frame: the colour of a border around it.
        boxes: outlines upon it, in its own pixels, with their colours.
    """

    picture: np.ndarray
    title: str = ""
    caption: str = ""
    frame: Colour | None = None
    boxes: tuple[tuple[Box, Colour], ...] = ()


def draw_sheet(rows: Sequence[Sequence[Cell]], *, heading: str = "", note: str = "") -> np.ndarray:
    """Rows of pictures on white, columns aligned.

    Args:
        rows: any number of cells each, of any size.
        heading: in large type at the top.
        note: in small type below the heading; wrapped.

    Returns:
        uint8, H×W×3.
    """
    columns = max(len(row) for row in rows)
    widths = [max((_width(row[i]) for row in rows if i < len(row)), default=0) for i in range(columns)]
    width = sum(widths) + _GAP * (columns - 1) + 2 * _EDGE
    small, large = ImageFont.load_default(_CAPTION_PX), ImageFont.load_default(_HEADING_PX)
    lines = wrapped(note, small, width - 2 * _EDGE) if note else []
    head = (_HEADING_PX + 12 if heading else 0) + len(lines) * (_CAPTION_PX + 5) + (8 if lines else 0)
    heights = [_height(row) for row in rows]
    sheet = Image.new("RGB", (width, head + sum(heights) + _GAP * (len(rows) - 1) + 2 * _EDGE), _PAPER)
    draw = ImageDraw.Draw(sheet)
    y = _EDGE
    if heading:
        draw.text((_EDGE, y), shortened(heading, large, width - 2 * _EDGE), _INK, large)
        y += _HEADING_PX + 12
    for line in lines:
        draw.text((_EDGE, y), line, _PALE, small)
        y += _CAPTION_PX + 5
    y += 8 if lines else 0
    for row, height in zip(rows, heights):
        x = _EDGE
        titled = any(cell.title for cell in row)
        for cell, column in zip(row, widths):
            _draw_cell(sheet, draw, cell, (x, y), column, titled)
            x += column + _GAP
        y += height + _GAP
    return np.asarray(sheet)


def _width(cell: Cell) -> int:
    return int(cell.picture.shape[1]) + (2 * _FRAME if cell.frame else 0)


def _height(row: Sequence[Cell]) -> int:
    titles = _TITLE_PX + 7 if any(cell.title for cell in row) else 0
    captions = _CAPTION_PX + 7 if any(cell.caption for cell in row) else 0
    return titles + captions + max(int(cell.picture.shape[0]) + (2 * _FRAME if cell.frame else 0) for cell in row)


def _draw_cell(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, cell: Cell, corner: tuple[int, int], column: int, titled: bool
) -> None:
    x, y = corner
    if titled:
        font = ImageFont.load_default(_TITLE_PX)
        draw.text((x, y), shortened(cell.title, font, column), _INK, font)
        y += _TITLE_PX + 7
    height, width = cell.picture.shape[:2]
    if cell.frame:
        draw.rectangle([x, y, x + width + 2 * _FRAME - 1, y + height + 2 * _FRAME - 1], cell.frame)
        x, y = x + _FRAME, y + _FRAME
    sheet.paste(Image.fromarray(np.ascontiguousarray(cell.picture)), (x, y))
    for box, colour in cell.boxes:
        outline = [x + box.left, y + box.top, x + box.right - 1, y + box.bottom - 1]
        draw.rectangle([outline[0] - 1, outline[1] - 1, outline[2] + 1, outline[3] + 1], outline=_PAPER, width=4)
        draw.rectangle(outline, outline=colour, width=2)
    if cell.caption:
        font = ImageFont.load_default(_CAPTION_PX)
        below = y + height + (_FRAME if cell.frame else 0) + 4
        draw.text((x - (_FRAME if cell.frame else 0), below), shortened(cell.caption, font, column), _PALE, font)


def fitted(picture: np.ndarray, width_px: int, height_px: int | None = None) -> np.ndarray:
    """A picture within a frame: reduced by Lanczos, or enlarged by a whole number, pixel by pixel; never cut.

    Args:
        picture: uint8, H×W×3.
        width_px, height_px: what it must not exceed (unless it is one pixel wide); None: any height.
    """
    height, width = picture.shape[:2]
    share = min(width_px / width, 1e9 if height_px is None else height_px / height)
    if share >= 2:
        return enlarged(picture, int(share))
    if share >= 1:
        return picture
    size = (max(1, round(width * share)), max(1, round(height * share)))
    return np.asarray(Image.fromarray(np.ascontiguousarray(picture)).resize(size, Image.Resampling.LANCZOS))


def enlarged(picture: np.ndarray, times: int) -> np.ndarray:
    """Every pixel as a square of `times` × `times`."""
    return picture.repeat(times, axis=0).repeat(times, axis=1)


def shortened(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_px: int) -> str:
    """The text, or as much of its beginning as fits, with an ellipsis."""
    if font.getlength(text) <= width_px:
        return text
    while text and font.getlength(f"{text}...") > width_px:
        text = text[:-1]
    return f"{text.rstrip()}..."


def wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_px: int) -> list[str]:
    """The text in lines no wider than that, broken at spaces."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width_px:
            lines[-1] = f"{lines[-1]} {word}"
        else:
            lines.append(word)
    return lines


def read_named(path: Path) -> np.ndarray:
    """A picture that the command names: uint8, H×W×3. Where it cannot be read, the command was wrong (exit code 2).

    Raises:
        RestoreError: exit code 2.
    """
    try:
        return read_rgb8(path)
    except RestoreError as error:
        error.exit_code = 2
        raise


def save_sheet(path: Path, sheet: np.ndarray) -> None:
    """Write a sheet as PNG, atomically, and the folders that it needs.

    Raises:
        RestoreError: exit code 1; it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RestoreError(write_error_message(error), where=path, exit_code=1) from error
    write_png(path, sheet)


def check_sheet(path: Path, *, overwrite: bool) -> None:
    """That a sheet can be written there. Writes nothing.

    Raises:
        RestoreError: exit code 2: it is no `.png`, exists (without `overwrite`), or cannot be written.
    """
    if path.suffix.lower() != ".png":
        raise RestoreError("a sheet is a PNG", where=path, hint="name a file that ends with .png")
    if path.is_dir():
        raise RestoreError("is a folder", where=path, hint="name a file in it")
    if path.exists() and not overwrite:
        raise RestoreError("exists already", where=path, hint="use --overwrite, or another name")
    check_writable(path.parent)
