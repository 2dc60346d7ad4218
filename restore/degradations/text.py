"""Text over images: captions, watermarks, date stamps and stray words, solid or semi-transparent."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Annotated, Literal

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import ImageFont
from pydantic import Field
from torch import Tensor

from restore.degradations.base import REFERENCE_SIDE, Params, Probability, Range, per_image, within
from restore.degradations.inpainting_masks import Holes
from restore.devices import to_device
from restore.hashed_random import fold_in, integers, uniform, uniform_range

# Drawing lines of text: any size, angle and slant, with or without an outline.

# The columns of a table of lines, float64[B, N, 4].
X, Y, SIZE, ANGLE = range(4)
# The columns of a table of styles, float64[B, 4].
FACE, WEIGHT, SLANT, OUTLINE = range(4)

#: Number of typefaces: Aileron, bundled with Pillow, and three bundled with OpenCV (Hershey's plotter fonts; Rubik
#: since version 5). None of them needs a font file.
FACES = 4
_OPENCV = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_COMPLEX, cv2.FONT_HERSHEY_SCRIPT_COMPLEX)
#: Approximate width of a letter as a fraction of its size.
LETTER = 0.55
_MAX_RENDER_PX = 160  # larger letters are rendered at this size and enlarged, which bounds the cached bitmaps
_MIN_COVERAGE = 0.04  # coverage below this counts as 0, so that the mask has no invisible rim

Layer = npt.NDArray[np.uint8]


def draw_text(lines: Tensor, letters: Tensor, styles: Tensor, size: tuple[int, int]) -> Tensor:
    """Draw lines of text.

    Args:
        lines: float64[B, N, 4]: centre (x, y; pixel centres at whole numbers), body height of the letters in pixels
            (0: the line is not drawn), angle in radians, clockwise.
        letters: int64[B, N, L]: ASCII codes; 0 means no letter.
        styles: float64[B, 4]: typeface (0 to `FACES` − 1), weight (width added to each stroke), slant (horizontal shift
            per unit of height), outline (width around the letters). Weight and outline are fractions of the height.
        size: (height, width).

    Returns:
        float32, B×2×H×W on the CPU, in [0, 1]: the coverage of each pixel by the letters, and by the letters with
        their outline.
    """
    canvas = np.zeros((len(lines), *size, 2), np.uint8)
    for image, image_lines, image_letters, style in zip(canvas, lines.tolist(), letters.tolist(), styles.tolist()):
        for line, codes in zip(image_lines, image_letters):
            if line[SIZE] > 0 and any(codes):
                _draw_line(image, line, "".join(map(chr, filter(None, codes))), style)
    coverage = torch.from_numpy(canvas).permute(0, 3, 1, 2).to(torch.float32) / 255
    return torch.where(coverage < _MIN_COVERAGE, 0, coverage)


def _draw_line(canvas: Layer, line: list[float], text: str, style: list[float]) -> None:
    """Draw one line of text onto the canvas, clipped to it."""
    px = max(6, min(round(line[SIZE]), _MAX_RENDER_PX))
    scale = line[SIZE] / px
    cos, sin = scale * math.cos(line[ANGLE]), scale * math.sin(line[ANGLE])
    half_length, half_height = 0.5 * px * len(text) + px, 1.5 * px
    reach_x = abs(cos) * half_length + abs(sin) * half_height
    reach_y = abs(sin) * half_length + abs(cos) * half_height
    height, width = canvas.shape[:2]
    if not (-reach_x < line[X] < width + reach_x and -reach_y < line[Y] < height + reach_y):
        return
    letters = _render_line(text, int(style[FACE]), px, round(style[WEIGHT] * px, 1), round(style[OUTLINE] * px))
    middle_y, middle_x = (letters.shape[0] - 1) / 2, (letters.shape[1] - 1) / 2
    # The affine map slants and rotates the bitmap about its middle, then moves it to the line's centre.
    turn = np.array([[cos, -sin - cos * style[SLANT]], [sin, cos - sin * style[SLANT]]])
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


# Cached, because a tiled watermark repeats one line up to 45 times.
@lru_cache(maxsize=64)
def _render_line(text: str, face: int, px: int, weight: float, outline: int) -> Layer:
    """Render a line of text alone: uint8 H×W×2, the letters, and the letters with their outline."""
    ink = _render_with_pillow(text, px) if face == 0 else _render_with_opencv(text, _OPENCV[face - 1], px)
    padding = math.ceil(weight / 2) + outline + 1
    ink = np.pad(ink, padding)
    if weight >= 0.5:
        ink = _thicken(ink, weight / 2)
    return np.dstack([ink, _thicken(ink, outline) if outline else ink])


def _render_with_pillow(text: str, px: int) -> Layer:
    mask, _ = _font(px).getmask2(text, mode="L")
    return np.array(mask, np.uint8).reshape(mask.size[1], mask.size[0])


@lru_cache(maxsize=64)
def _font(px: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(px)
    assert isinstance(font, ImageFont.FreeTypeFont)  # Pillow's wheels hold FreeType
    return font


def _render_with_opencv(text: str, face: int, px: int) -> Layer:
    """Render at twice the size and reduce, which makes the strokes smooth."""
    thick = max(1, round(px / 8))
    scale = cv2.getFontScaleFromHeight(face, round(1.4 * px), thick)
    (width, height), below = cv2.getTextSize(text, face, scale, thick)
    canvas = np.zeros((2 * (height // 2 + below + thick), 2 * (width // 2 + thick + 1)), np.uint8)
    cv2.putText(canvas, text, (thick, height + thick), face, scale, 255, thick, cv2.LINE_AA)
    return np.asarray(cv2.resize(canvas, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.uint8)


def _thicken(ink: Layer, radius: float) -> Layer:
    """Widen every stroke by `radius` on each side; a fraction of a pixel interpolates between two dilations."""
    whole = math.floor(radius)
    out = ink if whole == 0 else np.asarray(cv2.dilate(ink, _disc(whole)), np.uint8)
    if radius > whole:
        wider = cv2.dilate(ink, _disc(whole + 1))
        out = np.asarray(cv2.addWeighted(out, 1 - (radius - whole), wider, radius - whole, 0), np.uint8)
    return out


def _disc(radius: int) -> Layer:
    across = np.arange(-radius, radius + 1)
    return (across[:, None] ** 2 + across[None, :] ** 2 <= radius**2 + 0.5).astype(np.uint8)


# Invented words and dates, as ASCII codes.

# Relative letter frequencies, roughly those of European languages.
_CONSONANTS = "tnsrhldcmfpgwbvkz"
_CONSONANT_WEIGHTS = (9, 7, 6, 6, 5, 4, 4, 3, 3, 2, 2, 2, 2, 2, 1, 1, 1)
_VOWELS = "eaoiuy"
_VOWEL_WEIGHTS = (12, 8, 8, 7, 3, 1)
# A 0 in a format stands for any digit.
_DATES = ("00.00.0000", "'00 00 00", "00/00/0000", "00-00-00 00:00", "00 00 '00", "0000.00.00", "00:00", "0.00.00")
_SPACE, _SHIFT = ord(" "), ord("a") - ord("A")


def words(keys: Tensor, lines: int, most: int, length: Tensor) -> Tensor:
    """Lines of pronounceable words in lower, Title or UPPER case.

    Consonants and vowels alternate; one letter in eight is of the same sort as the letter before it.

    Args:
        keys: int64[B].
        lines: number of lines per key.
        most: maximum number of letters in a line.
        length: number of letters of each line, spaces included, float64[B, lines] or broadcast to it.

    Returns:
        int64[B, lines, most]: ASCII codes, 0 after the end of a line.
    """
    batch, shape = len(keys), (len(keys), lines, most)
    # A word has 3 to 9 letters; the cumulative sums of word lengths give the positions of the spaces.
    ends = (4 + integers(keys, 0, 0, 6, lines * most).reshape(shape)).cumsum(2) - 1
    spaces = torch.zeros(batch, lines, most + 1, dtype=torch.bool)
    spaces.scatter_(2, ends.clamp(max=most), True)
    spaces = spaces[..., :most]
    first = torch.cat([torch.ones_like(spaces[..., :1]), spaces[..., :-1]], 2)
    # The sort (consonant or vowel) flips at every letter, except for one in eight.
    sort = (1 + (uniform(keys, 1, lines * most).reshape(shape) > 0.12)).cumsum(2) % 2
    codes = torch.where(
        sort == 0,
        _pick_letters(_CONSONANTS, _CONSONANT_WEIGHTS, uniform(keys, 2, lines * most).reshape(shape)),
        _pick_letters(_VOWELS, _VOWEL_WEIGHTS, uniform(keys, 3, lines * most).reshape(shape)),
    )
    case = uniform(keys, 4, lines)[..., None]
    codes = codes - _SHIFT * ((case < 0.3) | (first & (case < 0.75)))
    codes = torch.where(spaces, _SPACE, codes)
    codes[..., 0] = torch.where(uniform(keys, 5, lines) < 0.1, ord("@"), codes[..., 0])
    return codes * (torch.arange(most) < length.round()[..., None])


def dates(keys: Tensor, most: int) -> Tensor:
    """One date or time per key in one of several formats: int64[B, 1, most].

    The digits are random, so the date need not exist.
    """
    formats = torch.tensor([[*map(ord, date), *[0] * (most - len(date))] for date in _DATES])
    codes = formats[integers(keys, 0, 0, len(_DATES) - 1)]
    return torch.where(codes == ord("0"), codes + integers(keys, 1, 0, 9, most), codes)[:, None]


def _pick_letters(letters: str, weights: tuple[int, ...], drawn: Tensor) -> Tensor:
    """Map numbers in [0, 1) to ASCII codes of letters, by their weights: int64, same shape."""
    bounds = torch.tensor(weights, dtype=torch.float64).cumsum(0)
    index = torch.bucketize(drawn * bounds[-1], bounds, right=True)
    return torch.tensor([*map(ord, letters)])[index]


# The degradation step.

Kind = Literal["caption", "watermark", "stamp", "words"]
KINDS: tuple[Kind, ...] = ("caption", "watermark", "stamp", "words")

# A repeated watermark forms a lattice with these rows and columns around the centre of the image.
_ROWS, _COLUMNS = 9, 5
_LINES, _LETTERS = _ROWS * _COLUMNS, 32
_ESTIMATE_PX = 192  # the coverage of a larger image is estimated on one reduced to this side


class Text(Holes):
    """Text over the image, of one kind per image, in one color and typeface.

    A caption has one to three lines at the bottom or top. A watermark runs once across the image or repeats in slanted
    rows. A stamp is a date in a corner. Words appear anywhere, at any angle. All words are invented.

    The mask contains every pixel that the text and its outline cover, however faintly; pixels outside are unchanged.

    Attributes:
        kinds: the kinds to choose from.
        size: body height of the letters, in pixels.
        opacity: range for the text; watermarks use its lower half, all other kinds its upper half.
        bright: fraction of images whose text is white or light; on the others it is black or dark.
        outlined: fraction of images whose letters have an outline of the opposite tone.
        scale_with_image: true: sizes are for an image whose smaller side is 512 pixels, and scale with the image.
            false: sizes are pixels of this image, which is a crop somewhere on the text.
    """

    name: Literal["text"] = "text"
    kinds: Annotated[tuple[Kind, ...], Field(min_length=1)] = KINDS
    size: Annotated[Range, within(4, 300)] = (14, 48)
    opacity: Annotated[Range, within(0.05, 1)] = (0.3, 1)
    bright: Probability = 0.75
    outlined: Probability = 0.3

    def sample(self, keys: Tensor, size: tuple[int, int]) -> Params:
        """`text` [B, 45·(4 + 32) + 5] (see `_parts`); `opacity` [B]; `tones` [B, 2, 3] of letters and outline."""
        text = self._sample_within_limits(keys, size, self._text)
        keys = fold_in(keys, 100)
        kind = text[:, -1]
        # Date stamps are mostly orange or red. Other text is mostly white or black, some of it colored.
        light = uniform(keys, 0, 1) < self.bright
        level = torch.where(light, 1 - 0.15 * uniform(keys, 1, 1), 0.2 * uniform(keys, 1, 1))
        tinted = level + (uniform(keys, 2, 3) - level) * (0.8 * (uniform(keys, 3, 1) < 0.3))
        glowing = torch.cat(
            [0.9 + 0.1 * uniform(keys, 4, 1), 0.3 + 0.5 * uniform(keys, 4, 1), 0.2 * uniform(keys, 5, 1)], 1
        )
        ink = torch.where((kind == KINDS.index("stamp"))[:, None] & (uniform(keys, 6, 1) < 0.7), glowing, tinted)
        edge = (0.1 * uniform(keys, 7, 1) + 0.9 * (ink.mean(1, keepdim=True) < 0.45)).expand(-1, 3)
        half = (self.opacity[1] - self.opacity[0]) / 2
        opacity = uniform_range(keys, 8, (self.opacity[0] + half, self.opacity[1]))
        opacity = opacity - half * (kind == KINDS.index("watermark"))
        return {"text": text, "opacity": opacity, "tones": torch.stack([ink, edge], 1)}

    def apply(self, image: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        """Draw the text; see `Step.apply`."""
        covered = to_device(draw_text(*_parts(params["text"]), (image.shape[-2], image.shape[-1])), image.device)
        letters, outlined = covered.to(image.dtype).split(1, dim=1)
        mask = self._limit_coverage((outlined > 0).to(image.dtype))
        # `_limit_coverage` may add pixels outside the letters to reach `min_coverage`: they are painted over in full.
        letters = torch.where(outlined > 0, letters, 1) * mask
        outlined = torch.where(outlined > 0, outlined, 1) * mask
        ink, edge = to_device(params["tones"].to(image.dtype), image.device)[..., None, None].unbind(1)
        color = edge + (ink - edge) * (letters / outlined.clamp(min=1e-6)).clamp(max=1)
        return image + per_image(params["opacity"], image) * outlined * (color - image), mask

    def _coverage(self, table: Tensor, size: tuple[int, int], precise_above: float) -> Tensor:
        """Coverage measured on a reduced copy of the text if the image is large."""
        lines, letters, styles = _parts(table)
        factor = min(1.0, _ESTIMATE_PX / max(size))
        lines = lines.clone()
        lines[..., [X, Y]] = (lines[..., [X, Y]] + 0.5) * factor - 0.5
        lines[..., SIZE] *= factor
        coarse = (math.ceil(size[0] * factor), math.ceil(size[1] * factor))
        # In a reduced image a pixel counts by its coverage. At full size the soft rim of a letter counts fully, because
        # the mask contains all of it.
        covered = draw_text(lines, letters, styles, coarse)[:, 1]
        return (covered if factor < 1 else (covered > 0)).mean((1, 2), dtype=torch.float64)

    def _text(self, keys: Tensor, size: tuple[int, int]) -> Tensor:
        batch = len(keys)
        scale = self.scale(size)
        # A crop is laid out as part of an image of at least the reference size.
        whole = size if self.scale_with_image else (max(size[0], REFERENCE_SIDE), max(size[1], REFERENCE_SIDE))
        height = uniform_range(keys, 0, (math.log(self.size[0]), math.log(self.size[1]))).exp() * scale
        kind = torch.tensor([KINDS.index(one) for one in self.kinds])[integers(keys, 1, 0, len(self.kinds) - 1)]
        drawn = [_LAYOUTS[one](fold_in(keys, 2 + n), height, whole) for n, one in enumerate(KINDS)]
        lines, letters = (torch.stack(parts)[kind, torch.arange(batch)] for parts in zip(*drawn))
        if not self.scale_with_image:
            lines = _shift_into_crop(lines, letters, fold_in(keys, 9), size)
        face = torch.where(uniform(keys, 10, 1) < 0.6, 0, integers(keys, 11, 1, FACES - 1, 1))
        weight = 0.14 * uniform(keys, 12, 1) * (uniform(keys, 13, 1) < 0.6)
        slant = 0.25 * (uniform(keys, 14, 1) < 0.2)
        outline = (0.05 + 0.08 * uniform(keys, 15, 1)) * (uniform(keys, 16, 1) < self.outlined)
        styles = torch.cat([face.to(torch.float64), weight, slant, outline], 1)
        return torch.cat([lines.flatten(1), letters.flatten(1).to(torch.float64), styles, kind[:, None]], 1)


def _parts(table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Split a flat table into the lines, letters and styles that `draw_text` takes; the last column is the kind."""
    lines, letters, styles, _ = table.split([_LINES * 4, _LINES * _LETTERS, 4, 1], 1)
    return lines.unflatten(1, (_LINES, 4)), letters.unflatten(1, (_LINES, _LETTERS)).to(torch.int64), styles


def _shift_into_crop(lines: Tensor, letters: Tensor, keys: Tensor, size: tuple[int, int]) -> Tensor:
    """Shift all lines so that a random point of a random line falls inside the crop."""
    drawn = lines[..., SIZE] > 0
    chosen = (uniform(keys, 0, lines.shape[1]) * drawn).argmax(1)
    line, length = lines[torch.arange(len(lines)), chosen], (letters > 0).sum(2)[torch.arange(len(lines)), chosen]
    along = LETTER * line[:, SIZE] * length * (uniform(keys, 1, 1)[:, 0] - 0.5)
    moved = lines.clone()
    for axis, side, share in ((X, size[1], line[:, ANGLE].cos()), (Y, size[0], line[:, ANGLE].sin())):
        goal = (0.15 + 0.7 * uniform(keys, 2 + axis, 1)[:, 0]) * side
        moved[..., axis] += (goal - line[:, axis] - along * share)[:, None]
    return moved


# Layouts: one function per kind, from body height and image size to tables of lines and letters.


def _empty_layout(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Zeroed tables of lines and letters; a line of size 0 is not drawn."""
    return torch.zeros(len(keys), _LINES, 4, dtype=torch.float64), torch.zeros(
        len(keys), _LINES, _LETTERS, dtype=torch.int64
    )


def _caption(keys: Tensor, height: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """One to three stacked lines, at most as wide as the image, at its bottom or top."""
    lines, letters = _empty_layout(keys)
    room = 0.94 * size[1] / (LETTER * height)
    length = ((0.35 + 0.65 * uniform(keys, 0, 3)) * room[:, None]).clamp(1, _LETTERS)
    letters[:, :3] = words(fold_in(keys, 1), 3, _LETTERS, length)
    count = 1 + (uniform(keys, 2, 1) * 2.4).floor()
    there = torch.arange(3) < count
    down = (torch.arange(3) + 0.5 - count) * 1.3 * height[:, None]  # relative to the bottom of the last line
    margin = (0.02 + 0.08 * uniform(keys, 3, 1)) * size[0]
    foot, head = size[0] - margin + down, margin + down + 1.3 * count * height[:, None]
    lines[:, :3, X] = size[1] * (0.5 + 0.06 * (uniform(keys, 4, 1) - 0.5))
    lines[:, :3, Y] = torch.where(uniform(keys, 5, 1) < 0.75, foot, head)
    lines[:, :3, SIZE] = height[:, None] * there
    return lines, letters


def _watermark(keys: Tensor, height: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The same words in slanted rows all over the image, or once, large, across its middle."""
    lines, letters = _empty_layout(keys)
    once, across = uniform(keys, 0, 1) < 0.4, math.hypot(*size)
    length = 5 + 11 * uniform(keys, 1, 1)
    letters[:] = words(fold_in(keys, 2), 1, _LETTERS, length)
    height = torch.where(once, (0.6 + 0.3 * uniform(keys, 3, 1)) * min(size) / (LETTER * length), height[:, None])
    angle = (
        torch.where(uniform(keys, 4, 1) < 0.8, -1, 1)
        * (0.35 + 0.5 * uniform(keys, 5, 1))
        * (uniform(keys, 6, 1) < 0.85)
    )
    pitch_x = torch.maximum(
        length * LETTER * height * (1.15 + 0.5 * uniform(keys, 7, 1)), torch.tensor(across / _COLUMNS)
    )
    pitch_y = torch.maximum(height * (2 + 3 * uniform(keys, 8, 1)), torch.tensor(across / _ROWS))
    row, place = torch.arange(_LINES) // _COLUMNS - _ROWS // 2, torch.arange(_LINES) % _COLUMNS - _COLUMNS // 2
    along, down = (place + 0.5 * (row % 2)) * pitch_x, row * pitch_y
    lines[..., X] = size[1] / 2 + along * angle.cos() - down * angle.sin()
    lines[..., Y] = size[0] / 2 + along * angle.sin() + down * angle.cos()
    lines[..., SIZE] = height * (~once | ((row == 0) & (place == 0)))
    lines[..., ANGLE] = angle
    return lines, letters


def _stamp(keys: Tensor, height: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """A date in a corner, mostly the bottom right."""
    lines, letters = _empty_layout(keys)
    letters[:, :1] = dates(fold_in(keys, 0), _LETTERS)
    half = 0.5 * LETTER * height * (letters[:, 0] > 0).sum(1)
    margin = (0.02 + 0.06 * uniform(keys, 1, 2)) * min(size)
    left, above = uniform(keys, 2, 1)[:, 0] < 0.25, uniform(keys, 3, 1)[:, 0] < 0.15
    x, y = margin[:, 0] + half, margin[:, 1] + height / 2
    lines[:, 0, X] = torch.where(left, x, size[1] - x)
    lines[:, 0, Y] = torch.where(above, y, size[0] - y)
    lines[:, 0, SIZE] = height
    return lines, letters


def _words(keys: Tensor, height: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Two to nine short lines anywhere, in several sizes: horizontal, vertical or slightly rotated."""
    lines, letters = _empty_layout(keys)
    n = 9
    letters[:, :n] = words(fold_in(keys, 0), n, _LETTERS, 2 + 14 * uniform(keys, 1, n).square())
    there = torch.arange(n) < integers(keys, 2, 2, n, 1)
    lines[:, :n, X], lines[:, :n, Y] = uniform(keys, 3, n) * size[1], uniform(keys, 4, n) * size[0]
    lines[:, :n, SIZE] = height[:, None] * (0.6 + 0.9 * uniform(keys, 5, n)) * there
    way = uniform(keys, 6, n)
    little = 0.7 * (2 * uniform(keys, 7, n) - 1)
    lines[:, :n, ANGLE] = torch.where(way < 0.5, 0, torch.where(way < 0.6, -math.pi / 2, little))
    return lines, letters


_LAYOUTS = {"caption": _caption, "watermark": _watermark, "stamp": _stamp, "words": _words}
