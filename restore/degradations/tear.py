"""Tears from the border inwards: a ragged white band of paper with a shadow on one side; lost corners and edges."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from restore.degradations.base import Params, Probability, Range, ScaledStep, within
from restore.degradations.drawing import (
    AX,
    AY,
    BX,
    BY,
    draw_segments,
    pixel_grid,
    polyline_segments,
    value_noise,
    visible_pixels,
)
from restore.devices import to_device
from restore.hashed_random import field_uniform, fold_in, integers, uniform, uniform_range

_LINKS = 13  # straight segments of a tear
_COVERED = 0.12  # minimum opacity of pixels in the mask
_FAR = 1e6  # offset in pixels that puts a cut outside any image, so nothing is lost


class Tear(ScaledStep):
    """Tears: the layers of ripped paper separate and show a band of bare fibre, widest at the border.

    Some images have lost a corner or a strip along an edge. A ragged band of paper separates the image from the
    background of the scan, which is light or dark and carries the shadow of the sheet.

    Attributes:
        count: tears per image.
        width: width of the band at the border, in pixels.
        length: length of a tear, in pixels; at most 0.8 of the smaller side of a whole image.
        ragged: deviation of the edges of the band, in pixels.
        shadow: fraction of the light that the shadow absorbs at its deepest.
        lost: fraction of images that have lost a corner or a strip along an edge.
        lost_size: distance of the cut from the corner, or depth of the strip, in pixels.
        scale_with_image: false: the image is a crop, sizes are its own pixels, and tears may start outside (see
            `ScaledStep`).
    """

    name: Literal["tear"] = "tear"
    count: Annotated[Range, within(0, 20, whole=True)] = (1, 3)
    width: Annotated[Range, within(0.5, 100)] = (3, 14)
    length: Annotated[Range, within(1, 2000)] = (30, 260)
    ragged: Annotated[float, Field(ge=0, le=20)] = 2.0
    shadow: Annotated[Range, within(0, 1)] = (0.2, 0.6)
    lost: Probability = 0.25
    lost_size: Annotated[Range, within(1, 500)] = (15, 110)

    has_mask = True

    def sample(self, keys: Tensor, size: tuple[int, int]) -> Params:
        """`segments` [B, N, 7] (see `draw_segments`) along the tears; `shift` [B, 2] (x, y) of the shadow in pixels;
        `shadow` [B]; `cut` [B, 3]: (a, b, c), lost where a·x + b·y > c, in pixels; `tones` [B, 2, 3]: paper,
        ground; `key`."""
        scale = self.scale(size)
        light = 2 * math.pi * uniform(keys, 0, 1)
        far = uniform_range(keys, 1, (1.5, 4.5))[:, None] * scale
        paper = uniform_range(keys, 3, (0.86, 0.98))[:, None] - torch.tensor([0, 0.015, 0.06]) * uniform(keys, 4, 1)
        ground = torch.where(
            uniform(keys, 5, 1) < 0.6, uniform_range(keys, 6, (0.9, 1.0))[:, None], 0.12 * uniform(keys, 7, 1)
        )
        return {
            "segments": self._segments(fold_in(keys, 8), size),
            "shift": far * torch.cat([light.cos(), light.sin()], 1),
            "shadow": uniform_range(keys, 2, self.shadow),
            "cut": self._cut(fold_in(keys, 9), size),
            "tones": torch.stack([paper, ground.expand(-1, 3)], 1),
            "key": fold_in(keys, 10),
        }

    def apply(self, image: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        """Draw the tears; see `Step.apply`."""
        size, device = (image.shape[-2], image.shape[-1]), image.device
        scale = self.scale(size)
        key, stray = params["key"], self.ragged * scale
        paper, ground = (
            tone[..., None, None] for tone in to_device(params["tones"].to(torch.float32), device).unbind(1)
        )
        dark = to_device(params["shadow"].to(torch.float32), device).reshape(-1, 1, 1, 1)
        outline = value_noise(key, 0, 9 * scale, size, device, octaves=4)
        fibre = (
            0.6 * value_noise(key, 10, 3, size, device, octaves=1) + field_uniform(key, 11, (1, *size), device) - 0.5
        )
        paper = (paper * (1 + 0.09 * fibre)).clamp(0, 1)

        band, shade = self._ripped(params, size, device, outline * (2 * stray) + 0.5 * fibre)
        gone = torch.zeros_like(band)
        if bool((params["cut"][:, 2] < _FAR / 2).any()):
            a, b, c = to_device(params["cut"].to(torch.float32), device)[..., None, None, None].unbind(1)
            y, x = pixel_grid(size, device)
            slow = value_noise(key, 20, 60 * scale, size, device)
            beyond = a * x + b * y - c + slow * (7 * scale) + outline * stray
            gone = (beyond + 0.5).clamp(0, 1)
            wide = (
                scale * (4 + 4 * value_noise(key, 30, 40 * scale, size, device, octaves=1)).clamp(min=1) + 0.5 * fibre
            )
            band = torch.maximum(band, (beyond + wide + outline * (1.5 * stray) + 0.5).clamp(0, 1))
            ground = ground * (1 - dark * torch.exp(-beyond.clamp(min=0) / (5 * scale)))
        shade = dark * shade * (1 - band)
        damaged = image * (1 - shade)
        damaged = damaged + band * (paper - damaged)
        damaged = damaged + gone * (ground - damaged)
        covered = torch.maximum(band, shade) > _COVERED
        # Lost areas belong to the mask even if the background has the tone of the image.
        mask = visible_pixels(image, damaged, covered) | (gone > _COVERED)
        return damaged, mask.to(image.dtype)

    def _ripped(
        self, params: Params, size: tuple[int, int], device: torch.device, strays: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The band, with its edges displaced by `strays` pixels, and its shadow: float32 B×1×H×W each."""
        scale = self.scale(size)
        # Across a wide soft edge, opacity measures the distance from the outline, which allows displacing the outline.
        room = 2 * (3 * self.ragged * scale + 2)
        cast = params["segments"].clone()
        cast[..., [AX, BX]] += params["shift"][:, :1, None]
        cast[..., [AY, BY]] += params["shift"][:, 1:, None]
        both = draw_segments(torch.cat([params["segments"], cast]), size, device, softness=room)
        inside, beneath = ((both - 0.5) * room).chunk(2)
        band = (inside + strays.clamp(1 - room / 2, room / 2 - 1) + 0.5).clamp(0, 1) * (inside > -room / 2)
        return band, (beneath / max(1.0, 4 * scale) + 0.5).clamp(0, 1)

    def _segments(self, keys: Tensor, size: tuple[int, int]) -> Tensor:
        """Polylines from the border inwards, tapering towards the end: float64[B, tears·links, 7]."""
        batch, tears = len(keys), int(self.count[1])
        scale = self.scale(size)
        height, width = size
        there = torch.arange(tears) < integers(keys, 0, int(self.count[0]), tears)[:, None]
        length = uniform_range(keys, 1, (math.log(self.length[0]), math.log(self.length[1])), tears).exp() * scale
        if self.scale_with_image:
            length = length.clamp(max=0.8 * min(size))
        radius = uniform_range(keys, 2, (math.log(self.width[0]), math.log(self.width[1])), tears).exp() * scale / 2
        # A tear starts at a uniform point of the border and heads for the middle of the image.
        along = 0.04 + 0.92 * uniform(keys, 3, tears)
        level = uniform(keys, 4, tears) < width / (height + width)
        far = (uniform(keys, 5, tears) < 0.5).to(torch.float64)
        x, y = torch.where(level, along, far) * width - 0.5, torch.where(level, far, along) * height - 0.5
        aim_x, aim_y = (
            (0.25 + 0.5 * uniform(keys, stream, tears)) * side for stream, side in ((6, width), (7, height))
        )
        heading = torch.atan2(aim_y - y, aim_x - x)
        back = 1.5 * scale if self.scale_with_image else 0.7 * length * uniform(keys, 8, tears)
        x, y = x - back * heading.cos(), y - back * heading.sin()
        n = tears * _LINKS
        turn = (0.22 * (2 * uniform(keys, 9, n) - 1)).reshape(batch, tears, _LINKS).cumsum(2)
        kink = (0.45 * (2 * uniform(keys, 10, n) - 1)).reshape(batch, tears, _LINKS)
        angle, step = heading[..., None] + turn + kink, (length / _LINKS)[..., None]
        x = torch.cat([x[..., None], x[..., None] + (step * angle.cos()).cumsum(2)], 2)
        y = torch.cat([y[..., None], y[..., None] + (step * angle.sin()).cumsum(2)], 2)
        t = torch.linspace(0, 1, _LINKS + 1, dtype=torch.float64)
        uneven = 0.75 + 0.5 * uniform(keys, 11, tears * (_LINKS + 1)).reshape(batch, tears, _LINKS + 1)
        radii = (radius[..., None] * (1 - t) ** 0.8 * uneven).clamp(min=0.3)
        return polyline_segments(x, y, radii, there[..., None].to(torch.float64))

    def _cut(self, keys: Tensor, size: tuple[int, int]) -> Tensor:
        """The line beyond which the image is lost: float64[B, 3]; c is `_FAR` if nothing is lost."""
        height, width = size
        scale = self.scale(size)
        reach = uniform_range(keys, 0, (math.log(self.lost_size[0]), math.log(self.lost_size[1])), 2).exp() * scale
        # A corner is cut off by a line through two points on its edges, a strip by a line nearly parallel to an edge.
        corner = uniform(keys, 1, 1)[:, 0] < 0.7
        slant = torch.where(corner, torch.atan2(reach[:, 0], reach[:, 1]), 0.06 * (2 * uniform(keys, 2, 1)[:, 0] - 1))
        # A strip is less than half as deep as a corner.
        inner = torch.where(corner, reach[:, 0] * slant.cos(), 0.4 * reach[:, 0])
        # The cut starts at the top left and is transposed and mirrored at random.
        a, b = -slant.cos(), -slant.sin()
        turned, right, low = (uniform(keys, stream, 1)[:, 0] < 0.5 for stream in (3, 4, 5))
        a, b = torch.where(turned, b, a), torch.where(turned, a, b)
        a, b = torch.where(right, -a, a), torch.where(low, -b, b)
        # The value of a·x + b·y at the corner that the line cuts off.
        at = a * torch.where(a > 0, width, 0) + b * torch.where(b > 0, height, 0)
        happens = uniform(keys, 6, 1)[:, 0] < self.lost
        return torch.stack([a, b, torch.where(happens, at - inner, _FAR)], 1)
