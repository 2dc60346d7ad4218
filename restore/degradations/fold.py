"""Folds: nearly straight worn lines across the image, with a dark line beside them and a change of brightness."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from torch import Tensor

from restore.degradations.base import Params, Probability, Range, ScaledStep, within
from restore.degradations.drawing import pixel_grid, value_noise, visible_pixels
from restore.devices import to_device
from restore.hashed_random import field_uniform, fold_in, integers, uniform, uniform_range

# The columns of the table of folds, float64[B, N, 10].
_X, _Y, _ANGLE, _HALF, _WORN, _DARK, _SIDE, _SHADE, _REACH, _THERE = range(10)


class Fold(ScaledStep):
    """Folds and creases: bent paper has lost emulsion in places, and white paper shows through.

    A fold deviates from its line by a pixel or two. The change of brightness across it is not in the mask, because a
    retoucher would correct it like fading rather than paint over it.

    Attributes:
        count: folds per image; the second crosses the first.
        width: maximum width of the worn line in pixels.
        opacity: maximum opacity of the worn line.
        worn: fraction of the length that is worn; the rest is a faint line.
        dark: opacity of the dark line beside the fold.
        shade: amplitude of the change of brightness close to the fold: one side is lighter, the other darker.
    """

    name: Literal["fold"] = "fold"
    count: Annotated[Range, within(0, 8, whole=True)] = (1, 2)
    width: Annotated[Range, within(0.5, 40)] = (1.2, 5)
    opacity: Annotated[Range, within(0, 1)] = (0.35, 0.95)
    worn: Probability = 0.55
    dark: Annotated[Range, within(0, 1)] = (0.1, 0.45)
    shade: Annotated[Range, within(0, 0.1)] = (0.0, 0.05)

    has_mask = True

    def sample(self, keys: Tensor, size: tuple[int, int]) -> Params:
        """`folds` [B, N, 10]: x, y, angle, half width, opacities, side, shade, reach, exists; `key`, `paper`."""
        batch, folds = len(keys), int(self.count[1])
        scale = self.scale(size)
        there = torch.arange(folds) < integers(keys, 0, int(self.count[0]), folds)[:, None]
        table = torch.zeros(batch, folds, 10, dtype=torch.float64)
        for column, stream, side in ((_X, 1, size[1]), (_Y, 2, size[0])):
            table[..., column] = (0.15 + 0.7 * uniform(keys, stream, folds)) * side - 0.5
        # Folds alternate between vertical and horizontal, slightly tilted; one in eight has any direction.
        turned = (uniform(keys, 3, 1) < 0.5).to(torch.float64) + torch.arange(folds)
        askew = 0.12 * (2 * uniform(keys, 4, folds) - 1) ** 3
        any_way = uniform(keys, 5, folds) < 0.125
        table[..., _ANGLE] = torch.where(any_way, math.pi * uniform(keys, 6, folds), turned * math.pi / 2 + askew)
        table[..., _HALF] = (
            uniform_range(keys, 7, (math.log(self.width[0]), math.log(self.width[1])), folds).exp() * scale / 2
        )
        # A fold narrower than a pixel is drawn one pixel wide and fainter.
        faint = (table[..., _HALF] / 0.5).clamp(max=1)
        table[..., _HALF] = table[..., _HALF].clamp(min=0.5)
        table[..., _WORN] = uniform_range(keys, 8, self.opacity, folds) * faint * there
        table[..., _DARK] = uniform_range(keys, 9, self.dark, folds) * faint * there
        table[..., _SIDE] = torch.where(uniform(keys, 10, folds) < 0.5, -1.0, 1.0)
        table[..., _SHADE] = (
            uniform_range(keys, 11, self.shade, folds) * there * torch.where(uniform(keys, 12, folds) < 0.5, -1.0, 1.0)
        )
        table[..., _REACH] = uniform_range(keys, 13, (8, 45), folds) * scale
        table[..., _THERE] = there
        paper = uniform_range(keys, 14, (0.82, 0.97))[:, None] - torch.tensor([0, 0.015, 0.06]) * uniform(keys, 15, 1)
        return {"folds": table, "key": fold_in(keys, 16), "paper": paper}

    def apply(self, image: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        """Draw the folds; see `Step.apply`."""
        size, device = (image.shape[-2], image.shape[-1]), image.device
        scale, key = self.scale(size), params["key"]
        y, x = pixel_grid(size, device)
        wander = value_noise(key, 0, 70 * scale, size, device, octaves=4) * (2.0 * scale)
        places = value_noise(key, 10, 30 * scale, size, device, octaves=4)
        flakes = (
            value_noise(key, 20, 2.5, size, device, octaves=1)
            + field_uniform(params["key"], 21, (1, *size), device)
            - 0.5
        )
        there = (params["folds"][..., _THERE] > 0).any(0)
        table = to_device(params["folds"][:, there].to(torch.float32), device)[..., None, None, None]
        bright, dark, shade = (image.new_zeros(image.shape[0], 1, *size) for _ in range(3))
        # `places` is about ±0.3 around 0; the offset makes the fraction `worn` of it positive.
        worn_here = (0.5 + 2.2 * (places + 0.7 * (self.worn - 0.5))).clamp(0.12, 1)
        for fold in table.unbind(1):
            px, py, angle, half, worn, line, side, change, reach, _ = fold.unbind(1)
            # The deviation varies slowly along a fold, so one field serves all directions.
            distance = (y - py) * angle.cos() - (x - px) * angle.sin() + wander
            width = half * (0.1 + 0.9 * worn_here * (0.7 + places)) + 0.45 * flakes * worn_here
            apart = distance.abs()
            bright = torch.maximum(bright, worn * worn_here * (width - apart + 0.5).clamp(0, 1))
            off = (distance * side - half - 0.8).abs()
            dark = torch.maximum(dark, line * (1.4 - off).clamp(0, 1) * (0.55 + 0.45 * worn_here))
            shade = shade + change * distance / (2 + apart) * torch.exp(-apart / reach)
        bright = bright * (0.85 + 0.15 * flakes).clamp(0, 1)
        # The factor x(1 − x) is largest in the midtones and keeps the result within [0, 1].
        lit = image + 2 * shade * image * (1 - image) if self.shade[1] > 0 else image
        paper = to_device(params["paper"].to(torch.float32), device)[..., None, None]
        damaged = lit - dark * lit
        damaged = damaged + bright * (paper - damaged)
        covered = (bright > 0.08) | (dark > 0.08)
        return damaged, visible_pixels(lit, damaged, covered).to(image.dtype)
