"""Lines of text drawn into a batch of pictures: any size, angle and slant, with or without an outline."""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import ImageFont
from torch import Tensor

# the columns of a table of lines, float64[B, N, 4], and of one of looks, float64[B, 4]
X, Y, SIZE, ANGLE = range(4)
FACE, WEIGHT, SLANT, OUTLINE = range(4)

#: Aileron, which comes with Pillow, and those that come with OpenCV: Hershey's plotter fonts, from version 5 on Rubik.
FACES = 4
_OPENCV = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_COMPLEX, cv2.FONT_HERSHEY_SCRIPT_COMPLEX)
#: Width of a letter, about, as a share of the size.
LETTER = 0.55
_LARGEST_PX = 160  # larger letters are enlarged ones
_FAINTEST = 0.04  # thinner ink than this is none

Layer = npt.NDArray[np.uint8]


def lettered(lines: Tensor, letters: Tensor, looks: Tensor, size: tuple[int, int]) -> Tensor:
    """Draw lines of text.

    Args:
        lines: float64[B, N, 4]: centre (x, y; pixel centres at whole numbers), height of the letters' body in pixels
            (0: not drawn), angle in radians, clockwise.
        letters: int64[B, N, L]: codes of ASCII characters; 0 stands for none.
        looks: float64[B, 4]: face (one of `FACES`), weight and outline (pixels added to the strokes, and around them,
            as shares of the height), slant (shift by height).
        size: (height, width).

    Returns:
        float32, B×2×H×W on the CPU, in [0, 1]: how much of a pixel the letters cover, and the letters with their
        outline.
    """
    canvas = np.zeros((len(lines), *size, 2), np.uint8)
    for one, its_lines, its_letters, look in zip(canvas, lines.tolist(), letters.tolist(), looks.tolist()):
        for line, codes in zip(its_lines, its_letters):
            if line[SIZE] > 0 and any(codes):
                _put(one, line, "".join(map(chr, filter(None, codes))), look)
    covered = torch.from_numpy(canvas).permute(0, 3, 1, 2).to(torch.float32) / 255
    return torch.where(covered < _FAINTEST, 0, covered)


def _put(canvas: Layer, line: list[float], text: str, look: list[float]) -> None:
    """Draw one line, where the picture is."""
    px = max(6, min(round(line[SIZE]), _LARGEST_PX))
    scale = line[SIZE] / px
    cos, sin = scale * math.cos(line[ANGLE]), scale * math.sin(line[ANGLE])
    half_length, half_height = 0.5 * px * len(text) + px, 1.5 * px
    reach_x = abs(cos) * half_length + abs(sin) * half_height
    reach_y = abs(sin) * half_length + abs(cos) * half_height
    height, width = canvas.shape[:2]
    if not (-reach_x < line[X] < width + reach_x and -reach_y < line[Y] < height + reach_y):
        return
    letters = _written(text, int(look[FACE]), px, round(look[WEIGHT] * px, 1), round(look[OUTLINE] * px))
    middle_y, middle_x = (letters.shape[0] - 1) / 2, (letters.shape[1] - 1) / 2
    # to the middle, slanted, turned, to its place
    turn = np.array([[cos, -sin - cos * look[SLANT]], [sin, cos - sin * look[SLANT]]])
    shift = np.array(line[:2]) - turn @ [middle_x, middle_y]
    corners = turn @ np.array([[0, 2 * middle_x, 0, 2 * middle_x], [0, 0, 2 * middle_y, 2 * middle_y]]) + shift[:, None]
    left, top = np.maximum(np.floor(corners.min(1)).astype(int), 0)
    right, bottom = np.minimum(np.ceil(corners.max(1)).astype(int) + 1, (width, height))
    if left >= right or top >= bottom:
        return
    window = canvas[top:bottom, left:right]
    matrix = np.column_stack([turn, shift - (left, top)])
    drawn = cv2.warpAffine(letters, matrix, (int(right - left), int(bottom - top)), flags=cv2.INTER_LINEAR)
    np.maximum(window, drawn, out=window)


@lru_cache(maxsize=64)
def _written(text: str, face: int, px: int, weight: float, outline: int) -> Layer:
    """A line of text by itself: uint8 H×W×2, the letters, and the letters with their outline."""
    ink = _by_pillow(text, px) if face == 0 else _by_opencv(text, _OPENCV[face - 1], px)
    room = math.ceil(weight / 2) + outline + 1
    ink = np.pad(ink, room)
    if weight >= 0.5:
        ink = _thicker(ink, weight / 2)
    return np.dstack([ink, _thicker(ink, outline) if outline else ink])


def _by_pillow(text: str, px: int) -> Layer:
    mask, _ = _font(px).getmask2(text, mode="L")
    return np.array(mask, np.uint8).reshape(mask.size[1], mask.size[0])


@lru_cache(maxsize=64)
def _font(px: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(px)
    assert isinstance(font, ImageFont.FreeTypeFont)  # Pillow's wheels hold FreeType
    return font


def _by_opencv(text: str, face: int, px: int) -> Layer:
    """In twice the size and reduced, which makes the strokes smooth."""
    thick = max(1, round(px / 8))
    scale = cv2.getFontScaleFromHeight(face, round(1.4 * px), thick)
    (width, height), below = cv2.getTextSize(text, face, scale, thick)
    canvas = np.zeros((2 * (height // 2 + below + thick), 2 * (width // 2 + thick + 1)), np.uint8)
    cv2.putText(canvas, text, (thick, height + thick), face, scale, 255, thick, cv2.LINE_AA)
    return np.asarray(cv2.resize(canvas, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.uint8)


def _thicker(ink: Layer, radius: float) -> Layer:
    """Every stroke so much wider on each side; of the last fraction of a pixel its share."""
    whole = math.floor(radius)
    out = ink if whole == 0 else np.asarray(cv2.dilate(ink, _disc(whole)), np.uint8)
    if radius > whole:
        further = cv2.dilate(ink, _disc(whole + 1))
        out = np.asarray(cv2.addWeighted(out, 1 - (radius - whole), further, radius - whole, 0), np.uint8)
    return out


def _disc(radius: int) -> Layer:
    across = np.arange(-radius, radius + 1)
    return (across[:, None] ** 2 + across[None, :] ** 2 <= radius**2 + 0.5).astype(np.uint8)
