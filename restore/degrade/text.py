"""Text over pictures: captions, watermarks, date stamps and stray words, solid or semi-transparent."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from restore.degrade.device import to_device
from restore.degrade.holes import Holes
from restore.degrade.lettering import ANGLE, FACES, LETTER, SIZE, X, Y, lettered
from restore.degrade.random import between, derived, integers, uniform
from restore.degrade.step import REFERENCE_SIDE, Params, Range, Share, column, within
from restore.degrade.words import dates, words

Kind = Literal["caption", "watermark", "stamp", "words"]
KINDS: tuple[Kind, ...] = ("caption", "watermark", "stamp", "words")

# A watermark that is repeated stands on a lattice of so many rows and columns around the middle.
_ROWS, _COLUMNS = 9, 5
_LINES, _LETTERS = _ROWS * _COLUMNS, 32
_ESTIMATE_PX = 192


class Text(Holes):
    """Text of one kind: a caption of one to three lines below or above; a watermark, one across the picture or many in
    slanting rows; a date in a corner; or words anywhere, at any angle. Made-up words, in one colour and face a picture.

    The mask is every pixel that the text covers, with its outline, however faint; the others are as they were.

    Attributes:
        kinds: those to choose from.
        size: height of the letters' body, in pixels.
        opacity: of the text; watermarks are drawn from the lower half of it, all others from the upper.
        bright: share of the pictures whose text is white or light; on the others it is black or dark.
        outlined: share of the pictures whose letters have an outline of the opposite tone.
        with_picture: sizes are for a picture whose smaller side is 512 pixels, and scale with it. Without, they are
            pixels of this picture, which is a crop somewhere on the text.
    """

    name: Literal["text"] = "text"
    kinds: Annotated[tuple[Kind, ...], Field(min_length=1)] = KINDS
    size: Annotated[Range, within(4, 300)] = (14, 48)
    opacity: Annotated[Range, within(0.05, 1)] = (0.3, 1)
    bright: Share = 0.75
    outlined: Share = 0.3

    def sample(self, keys: Tensor, size: tuple[int, int]) -> Params:
        """`text` [B, 45·(4 + 32) + 4]: see `_parts`; `opacity` [B]; `tones` [B, 2, 3]: of the letters, the outline."""
        text = self._redrawn(keys, size, self._text)
        keys = derived(keys, 100)
        kind = text[:, -1]
        # stamped dates are orange, red or greenish; most other text is white or black, some coloured
        light = uniform(keys, 0, 1) < self.bright
        level = torch.where(light, 1 - 0.15 * uniform(keys, 1, 1), 0.2 * uniform(keys, 1, 1))
        tinted = level + (uniform(keys, 2, 3) - level) * (0.8 * (uniform(keys, 3, 1) < 0.3))
        glowing = torch.cat(
            [0.9 + 0.1 * uniform(keys, 4, 1), 0.3 + 0.5 * uniform(keys, 4, 1), 0.2 * uniform(keys, 5, 1)], 1
        )
        ink = torch.where((kind == KINDS.index("stamp"))[:, None] & (uniform(keys, 6, 1) < 0.7), glowing, tinted)
        edge = (0.1 * uniform(keys, 7, 1) + 0.9 * (ink.mean(1, keepdim=True) < 0.45)).expand(-1, 3)
        half = (self.opacity[1] - self.opacity[0]) / 2
        opacity = between(keys, 8, (self.opacity[0] + half, self.opacity[1]))
        opacity = opacity - half * (kind == KINDS.index("watermark"))
        return {"text": text, "opacity": opacity, "tones": torch.stack([ink, edge], 1)}

    def apply(self, image: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        """Write; see `Step.apply`."""
        covered = to_device(lettered(*_parts(params["text"]), (image.shape[-2], image.shape[-1])), image.device)
        letters, outlined = covered.to(image.dtype).split(1, dim=1)
        mask = self._limited((outlined > 0).to(image.dtype))
        # what is hidden beyond the letters, to hide enough, is painted over
        letters = torch.where(outlined > 0, letters, 1) * mask
        outlined = torch.where(outlined > 0, outlined, 1) * mask
        ink, edge = to_device(params["tones"].to(image.dtype), image.device)[..., None, None].unbind(1)
        colour = edge + (ink - edge) * (letters / outlined.clamp(min=1e-6)).clamp(max=1)
        return image + column(params["opacity"], image) * outlined * (colour - image), mask

    def _share(self, table: Tensor, size: tuple[int, int], enough: float) -> Tensor:
        """By a smaller picture of the text, where this one is large."""
        lines, letters, looks = _parts(table)
        factor = min(1.0, _ESTIMATE_PX / max(size))
        lines = lines.clone()
        lines[..., [X, Y]] = (lines[..., [X, Y]] + 0.5) * factor - 0.5
        lines[..., SIZE] *= factor
        coarse = (math.ceil(size[0] * factor), math.ceil(size[1] * factor))
        # a pixel half covered is half hidden, but for the letters' soft rim, of which all is
        covered = lettered(lines, letters, looks, coarse)[:, 1]
        return (covered if factor < 1 else (covered > 0)).mean((1, 2), dtype=torch.float64)

    def _text(self, keys: Tensor, size: tuple[int, int]) -> Tensor:
        batch = len(keys)
        scale = self.scale(size)
        whole = size if self.with_picture else (max(size[0], REFERENCE_SIDE), max(size[1], REFERENCE_SIDE))
        height = between(keys, 0, (math.log(self.size[0]), math.log(self.size[1]))).exp() * scale
        kind = torch.tensor([KINDS.index(one) for one in self.kinds])[integers(keys, 1, 0, len(self.kinds) - 1)]
        drawn = [_LAYOUTS[one](derived(keys, 2 + n), height, whole) for n, one in enumerate(KINDS)]
        lines, letters = (torch.stack(parts)[kind, torch.arange(batch)] for parts in zip(*drawn))
        if not self.with_picture:
            lines = _moved_into(lines, letters, derived(keys, 9), size)
        face = torch.where(uniform(keys, 10, 1) < 0.6, 0, integers(keys, 11, 1, FACES - 1, 1))
        weight = 0.14 * uniform(keys, 12, 1) * (uniform(keys, 13, 1) < 0.6)
        slant = 0.25 * (uniform(keys, 14, 1) < 0.2)
        outline = (0.05 + 0.08 * uniform(keys, 15, 1)) * (uniform(keys, 16, 1) < self.outlined)
        looks = torch.cat([face.to(torch.float64), weight, slant, outline], 1)
        return torch.cat([lines.flatten(1), letters.flatten(1).to(torch.float64), looks, kind[:, None]], 1)


def _parts(table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Lines, letters and looks, as `lettered` takes them."""
    lines, letters, looks, _ = table.split([_LINES * 4, _LINES * _LETTERS, 4, 1], 1)
    return lines.unflatten(1, (_LINES, 4)), letters.unflatten(1, (_LINES, _LETTERS)).to(torch.int64), looks


def _moved_into(lines: Tensor, letters: Tensor, keys: Tensor, size: tuple[int, int]) -> Tensor:
    """Lines moved so that some point of one of them comes to lie somewhere in the crop."""
    there = lines[..., SIZE] > 0
    taken = (uniform(keys, 0, lines.shape[1]) * there).argmax(1)
    line, length = lines[torch.arange(len(lines)), taken], (letters > 0).sum(2)[torch.arange(len(lines)), taken]
    along = LETTER * line[:, SIZE] * length * (uniform(keys, 1, 1)[:, 0] - 0.5)
    moved = lines.clone()
    for axis, side, share in ((X, size[1], line[:, ANGLE].cos()), (Y, size[0], line[:, ANGLE].sin())):
        goal = (0.15 + 0.7 * uniform(keys, 2 + axis, 1)[:, 0]) * side
        moved[..., axis] += (goal - line[:, axis] - along * share)[:, None]
    return moved


def _table(keys: Tensor) -> tuple[Tensor, Tensor]:
    """No lines, and room for their letters."""
    return torch.zeros(len(keys), _LINES, 4, dtype=torch.float64), torch.zeros(
        len(keys), _LINES, _LETTERS, dtype=torch.int64
    )


def _caption(keys: Tensor, height: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """One to three lines below each other, as wide as fits, at the foot of the picture or at its head."""
    lines, letters = _table(keys)
    room = 0.94 * size[1] / (LETTER * height)
    length = ((0.35 + 0.65 * uniform(keys, 0, 3)) * room[:, None]).clamp(1, _LETTERS)
    letters[:, :3] = words(derived(keys, 1), 3, _LETTERS, length)
    count = 1 + (uniform(keys, 2, 1) * 2.4).floor()
    there = torch.arange(3) < count
    down = (torch.arange(3) + 0.5 - count) * 1.3 * height[:, None]  # from the foot of the last line
    margin = (0.02 + 0.08 * uniform(keys, 3, 1)) * size[0]
    foot, head = size[0] - margin + down, margin + down + 1.3 * count * height[:, None]
    lines[:, :3, X] = size[1] * (0.5 + 0.06 * (uniform(keys, 4, 1) - 0.5))
    lines[:, :3, Y] = torch.where(uniform(keys, 5, 1) < 0.75, foot, head)
    lines[:, :3, SIZE] = height[:, None] * there
    return lines, letters


def _watermark(keys: Tensor, height: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The same words in slanting rows all over the picture, or once, large, across its middle."""
    lines, letters = _table(keys)
    once, across = uniform(keys, 0, 1) < 0.4, math.hypot(*size)
    length = 5 + 11 * uniform(keys, 1, 1)
    letters[:] = words(derived(keys, 2), 1, _LETTERS, length)
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
    """A date in a corner, mostly below on the right."""
    lines, letters = _table(keys)
    letters[:, :1] = dates(derived(keys, 0), _LETTERS)
    half = 0.5 * LETTER * height * (letters[:, 0] > 0).sum(1)
    margin = (0.02 + 0.06 * uniform(keys, 1, 2)) * min(size)
    left, above = uniform(keys, 2, 1)[:, 0] < 0.25, uniform(keys, 3, 1)[:, 0] < 0.15
    x, y = margin[:, 0] + half, margin[:, 1] + height / 2
    lines[:, 0, X] = torch.where(left, x, size[1] - x)
    lines[:, 0, Y] = torch.where(above, y, size[0] - y)
    lines[:, 0, SIZE] = height
    return lines, letters


def _words(keys: Tensor, height: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Two to nine short lines anywhere, in several sizes, level, upright or turned a little."""
    lines, letters = _table(keys)
    n = 9
    letters[:, :n] = words(derived(keys, 0), n, _LETTERS, 2 + 14 * uniform(keys, 1, n).square())
    there = torch.arange(n) < integers(keys, 2, 2, n, 1)
    lines[:, :n, X], lines[:, :n, Y] = uniform(keys, 3, n) * size[1], uniform(keys, 4, n) * size[0]
    lines[:, :n, SIZE] = height[:, None] * (0.6 + 0.9 * uniform(keys, 5, n)) * there
    way = uniform(keys, 6, n)
    little = 0.7 * (2 * uniform(keys, 7, n) - 1)
    lines[:, :n, ANGLE] = torch.where(way < 0.5, 0, torch.where(way < 0.6, -math.pi / 2, little))
    return lines, letters


_LAYOUTS = {"caption": _caption, "watermark": _watermark, "stamp": _stamp, "words": _words}
