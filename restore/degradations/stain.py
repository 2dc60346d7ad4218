"""Stains: soft blots and drips, darker and yellowish or washed out, often with a darker rim."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from torch import Tensor

from restore.degradations.base import Params, Probability, Range, ScaledStep, within
from restore.degradations.drawing import pixel_grid, smoothstep, value_noise, visible_pixels
from restore.devices import to_device
from restore.hashed_random import fold_in, integers, uniform, uniform_range

# The columns of the table of stains, float64[B, N, 9].
_X, _Y, _DX, _DY, _RADIUS, _END, _OPACITY, _SOFT, _RIM = range(9)
# Minimum opacity of pixels in the mask, which excludes the soft edge of a stain.
_COVERED = 0.07


class Stain(ScaledStep):
    """Stains: blots or drips, uneven in outline and depth.

    Dark stains absorb light like a filter (image × tint). Washed-out stains blend towards the tone of the paper. While
    a stain dries, its dirt moves to the rim (the coffee-ring effect; Deegan et al., Nature 389, 1997).

    Attributes:
        count: stains per image.
        size: radius of a stain, in pixels.
        opacity: maximum opacity of a stain; 1 applies its full tint.
        bright: fraction of images whose stains are washed out instead of dark.
        drips: fraction of stains that are drips.
        rim: strength of the rim, which is dark for both kinds.
        edge: width of the edge, as a fraction of the radius.
    """

    name: Literal["stain"] = "stain"
    count: Annotated[Range, within(0, 60, whole=True)] = (1, 4)
    size: Annotated[Range, within(1, 500)] = (8, 110)
    opacity: Annotated[Range, within(0, 1)] = (0.2, 0.75)
    bright: Probability = 0.3
    drips: Probability = 0.2
    rim: Annotated[Range, within(0, 1)] = (0.0, 0.8)
    edge: Annotated[Range, within(0.02, 1)] = (0.08, 0.7)

    has_mask = True

    def sample(self, keys: Tensor, size: tuple[int, int]) -> Params:
        """`stains` [B, N, 9]: start, run (x, y), radii, opacity, edge, rim; `tones` [B, 2, 3]; `bright` [B]; `key`."""
        batch, stains = len(keys), int(self.count[1])
        scale = self.scale(size)
        there = torch.arange(stains) < integers(keys, 0, int(self.count[0]), stains)[:, None]
        table = torch.zeros(batch, stains, 9, dtype=torch.float64)
        for column, stream, side in ((_X, 1, size[1]), (_Y, 2, size[0])):
            table[..., column] = (1.1 * uniform(keys, stream, stains) - 0.05) * side - 0.5
        radius = uniform_range(keys, 3, (math.log(self.size[0]), math.log(self.size[1])), stains).exp() * scale
        runs = uniform(keys, 4, stains) < self.drips
        angle = torch.where(
            runs, math.pi / 2 + 0.08 * (2 * uniform(keys, 5, stains) - 1), 2 * math.pi * uniform(keys, 5, stains)
        )
        length = radius * torch.where(runs, 2.5 + 3.5 * uniform(keys, 6, stains), 1.2 * uniform(keys, 6, stains))
        table[..., _DX], table[..., _DY] = length * angle.cos(), length * angle.sin()
        radius = torch.where(runs, 0.22 * radius, radius)
        table[..., _RADIUS] = radius
        table[..., _END] = radius * torch.where(
            runs, 1.0 + 0.5 * uniform(keys, 7, stains), 0.5 + 0.6 * uniform(keys, 7, stains)
        )
        table[..., _OPACITY] = uniform_range(keys, 8, self.opacity, stains) * there
        table[..., _SOFT] = uniform_range(keys, 9, self.edge, stains)
        table[..., _RIM] = uniform_range(keys, 10, self.rim, stains)
        is_bright = uniform(keys, 11, 1) < self.bright
        # The tint of tea and rust absorbs blue most. The paper is a little yellow.
        warm = torch.tensor([0.35, 0.75, 1.25], dtype=torch.float64)
        tint = (
            1
            - uniform_range(keys, 12, (0.45, 0.8))[:, None]
            * (1 + (warm - 1) * uniform_range(keys, 13, (0.45, 1.0))[:, None])
        ).clamp(0.02, 1)
        paper = uniform_range(keys, 14, (0.8, 0.95))[:, None] - torch.tensor([0, 0.02, 0.1]) * uniform(keys, 15, 1)
        return {
            "stains": table,
            "tones": torch.stack([tint, paper], 1),
            "bright": is_bright[:, 0],
            "key": fold_in(keys, 16),
        }

    def apply(self, image: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        """Draw the stains; see `Step.apply`."""
        size, device = (image.shape[-2], image.shape[-1]), image.device
        scale = self.scale(size)
        y, x = pixel_grid(size, device)
        outline = value_noise(params["key"], 0, 45 * scale, size, device, octaves=4)
        depth = value_noise(params["key"], 10, 24 * scale, size, device)
        there = (params["stains"][..., _OPACITY] > 0).any(0)
        table = to_device(params["stains"][:, there].to(torch.float32), device)[..., None, None, None]
        cover, rims = (image.new_zeros(image.shape[0], 1, *size) for _ in range(2))
        for stain in table.unbind(1):
            px, py, dx, dy, radius, end, opacity, soft, rim = stain.unbind(1)
            rx, ry = x - px, y - py
            t = ((rx * dx + ry * dy) / (dx * dx + dy * dy).clamp(min=1e-6)).clamp(0, 1)
            reach = radius + (end - radius) * t
            # The depth inside the stain: 0 at the outline, 1 in the middle.
            inside = 1 - ((rx - t * dx).square() + (ry - t * dy).square()).sqrt() / reach + 0.45 * outline
            edge = torch.maximum(soft * (1 - 0.7 * rim), 1.2 / reach)
            ring = torch.maximum(0.07 + 0.1 * soft, 1.5 / reach)
            body = smoothstep(inside / edge)
            at_rim = torch.exp(-((inside - edge).clamp(min=0) / ring).square()) * body
            cover = torch.maximum(cover, opacity * body * (1 - 0.7 * rim))
            rims = torch.maximum(rims, opacity * rim * at_rim)
        cover, rims = ((layer * (1 + 0.45 * depth)).clamp(0, 1) for layer in (cover, 0.7 * rims))
        tint, paper = to_device(params["tones"].to(torch.float32), device)[..., None, None].unbind(1)
        bright = to_device(params["bright"], device).reshape(-1, 1, 1, 1)
        damaged = image + cover * torch.where(bright, paper - image, image * (tint - 1))
        damaged = damaged + rims * damaged * (tint - 1)
        window = 2 * max(5, round(20 * scale)) + 1
        mask = visible_pixels(image, damaged, torch.maximum(cover, rims) > _COVERED, window=window)
        return damaged, mask.to(image.dtype)
