"""Contact sheets: images in rows and columns, with titles, captions and frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from restore.errors import RestoreError
from restore.files import check_writable, make_folder
from restore.images.encode import write_png
from restore.images.read import read_rgb8

Color = tuple[int, int, int]

#: Colors that most color-blind people can distinguish too (Okabe and Ito, "Color Universal Design", 2008).
FRAME_COLORS: tuple[Color, ...] = (
    (213, 94, 0),
    (0, 114, 178),
    (0, 158, 115),
    (204, 121, 167),
    (230, 159, 0),
    (86, 180, 233),
)
_INK, _PALE_INK, _PAPER = (30, 30, 30), (105, 105, 105), (255, 255, 255)
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
    """An image on a sheet.

    Attributes:
        image: uint8, H×W×3, drawn pixel by pixel.
        title: a line above the image; shortened to the width of the column.
        caption: a line below the image; shortened likewise.
        frame: the color of a border.
        boxes: rectangles to outline, in pixels of the image, with their colors.
    """

    image: np.ndarray
    title: str = ""
    caption: str = ""
    frame: Color | None = None
    boxes: tuple[tuple[Box, Color], ...] = ()


def draw_sheet(rows: Sequence[Sequence[Cell]], *, heading: str = "", note: str = "") -> np.ndarray:
    """Draw rows of images on white, in aligned columns.

    Args:
        rows: cells, any number and of any size in each row.
        heading: a line in large type at the top.
        note: lines in small type below the heading.

    Returns:
        uint8, H×W×3.
    """
    columns = max(len(row) for row in rows)
    widths = [max((_width(row[i]) for row in rows if i < len(row)), default=0) for i in range(columns)]
    width = sum(widths) + _GAP * (columns - 1) + 2 * _EDGE
    small, large = ImageFont.load_default(_CAPTION_PX), ImageFont.load_default(_HEADING_PX)
    lines = wrap_text(note, small, width - 2 * _EDGE) if note else []
    head = (_HEADING_PX + 12 if heading else 0) + len(lines) * (_CAPTION_PX + 5) + (8 if lines else 0)
    heights = [_height(row) for row in rows]
    sheet = Image.new("RGB", (width, head + sum(heights) + _GAP * (len(rows) - 1) + 2 * _EDGE), _PAPER)
    draw = ImageDraw.Draw(sheet)
    y = _EDGE
    if heading:
        draw.text((_EDGE, y), shorten_text(heading, large, width - 2 * _EDGE), _INK, large)
        y += _HEADING_PX + 12
    for line in lines:
        draw.text((_EDGE, y), line, _PALE_INK, small)
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
    return int(cell.image.shape[1]) + (2 * _FRAME if cell.frame else 0)


def _height(row: Sequence[Cell]) -> int:
    titles = _TITLE_PX + 7 if any(cell.title for cell in row) else 0
    captions = _CAPTION_PX + 7 if any(cell.caption for cell in row) else 0
    return titles + captions + max(int(cell.image.shape[0]) + (2 * _FRAME if cell.frame else 0) for cell in row)


def _draw_cell(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, cell: Cell, corner: tuple[int, int], column: int, titled: bool
) -> None:
    x, y = corner
    if titled:
        font = ImageFont.load_default(_TITLE_PX)
        draw.text((x, y), shorten_text(cell.title, font, column), _INK, font)
        y += _TITLE_PX + 7
    height, width = cell.image.shape[:2]
    if cell.frame:
        draw.rectangle([x, y, x + width + 2 * _FRAME - 1, y + height + 2 * _FRAME - 1], cell.frame)
        x, y = x + _FRAME, y + _FRAME
    sheet.paste(Image.fromarray(np.ascontiguousarray(cell.image)), (x, y))
    for box, color in cell.boxes:
        outline = [x + box.left, y + box.top, x + box.right - 1, y + box.bottom - 1]
        draw.rectangle([outline[0] - 1, outline[1] - 1, outline[2] + 1, outline[3] + 1], outline=_PAPER, width=4)
        draw.rectangle(outline, outline=color, width=2)
    if cell.caption:
        font = ImageFont.load_default(_CAPTION_PX)
        below = y + height + (_FRAME if cell.frame else 0) + 4
        draw.text((x - (_FRAME if cell.frame else 0), below), shorten_text(cell.caption, font, column), _PALE_INK, font)


def fit_within(image: np.ndarray, width_px: int, height_px: int | None = None) -> np.ndarray:
    """Fit an image into a size: reduced by Lanczos, or magnified by a whole number; never cropped.

    Args:
        image: uint8, H×W×3.
        width_px, height_px: the largest size (but a side has at least one pixel); None = any height.
    """
    height, width = image.shape[:2]
    scale = min(width_px / width, 1e9 if height_px is None else height_px / height)
    if scale >= 2:
        return magnify(image, int(scale))
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize(size, Image.Resampling.LANCZOS))


def magnify(image: np.ndarray, times: int) -> np.ndarray:
    """Repeat every pixel `times` × `times`."""
    return image.repeat(times, axis=0).repeat(times, axis=1)


def shorten_text(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_px: int) -> str:
    """The text, or as much of its beginning as fits a width, with an ellipsis."""
    if font.getlength(text) <= width_px:
        return text
    while text and font.getlength(f"{text}...") > width_px:
        text = text[:-1]
    return f"{text.rstrip()}..."


def wrap_text(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_px: int) -> list[str]:
    """Break a text at spaces, into lines of at most a width."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width_px:
            lines[-1] = f"{lines[-1]} {word}"
        else:
            lines.append(word)
    return lines


def read_named(path: Path) -> np.ndarray:
    """Read an image that is an argument of a command: uint8, H×W×3.

    Raises:
        RestoreError: exit code 2, because the command was wrong.
    """
    try:
        return read_rgb8(path)
    except RestoreError as error:
        error.exit_code = 2
        raise


def save_sheet(path: Path, sheet: np.ndarray) -> None:
    """Write a sheet as PNG, atomically; missing folders are created.

    Raises:
        RestoreError: exit code 1: the file cannot be written.
    """
    make_folder(path.parent)
    write_png(path, sheet)


def check_sheet(path: Path, *, overwrite: bool) -> None:
    """Check that a sheet can be written to a path. Writes nothing.

    Raises:
        RestoreError: exit code 2: the path does not end with `.png`, exists (without `overwrite`), or is not writable.
    """
    if path.suffix.lower() != ".png":
        raise RestoreError("the output must be a PNG file", where=path, hint="choose a name that ends with .png")
    if path.is_dir():
        raise RestoreError("the output is a folder", where=path, hint="name a file in it")
    if path.exists() and not overwrite:
        raise RestoreError("the file exists already", where=path, hint="use --overwrite, or another name")
    check_writable(path.parent)
