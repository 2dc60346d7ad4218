"""Blobs: holes in the shape of things that somebody wants out of the picture."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from torch import Tensor

from restore.degrade.device import to_device
from restore.degrade.holes import BlankHoles
from restore.degrade.random import between, integers, uniform
from restore.degrade.step import Params, Range, within

_WAVES = 5
# Columns of the table of blobs: centre (x, y), radii along and across, cosine and sine of the direction, and from
# _WAVE on aₖ cos φₖ and aₖ sin φₖ of the outline's waves.
_ALONG, _WAVE = 2, 6


class Blobs(BlankHoles):
    """Smooth closed curves: an ellipse, long or round, whose radius swells and shrinks along the outline.

    The radius is 1 + Σ aₖ cos(kθ + φₖ) times that of the ellipse, k from 2 to 6 (a first wave would only move it), with
    amplitudes that fall as 1/√k; where blobs overlap they are one.

    Attributes:
        count: blobs in a picture.
        size: radius of a circle of about the same area, in pixels.
        stretch: length by width.
        uneven: how far the outline strays from the ellipse, as a share of its radius.
        with_picture: sizes are for a picture whose smaller side is 512 pixels, and scale with it. Without, they are
            pixels of this picture, which is a crop: blobs may reach in from beyond its edge.
    """

    name: Literal["blobs"] = "blobs"
    count: Annotated[Range, within(1, 30, whole=True)] = (1, 4)
    size: Annotated[Range, within(1, 500)] = (25, 140)
    stretch: Annotated[Range, within(1, 8)] = (1, 2.5)
    uneven: Annotated[Range, within(0, 0.9)] = (0.1, 0.5)

    def sample(self, keys: Tensor, size: tuple[int, int]) -> Params:
        """`blobs`: float64[B, N, 16], columns as above. A blob that is not there has no radius."""
        return {"blobs": self._redrawn(keys, size, self._blobs)}

    def apply(self, image: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        """Cut the blobs out; see `Step.apply`."""
        y = torch.arange(image.shape[-2], device=image.device)
        x = torch.arange(image.shape[-1], device=image.device)
        there = (params["blobs"][..., _ALONG] > 0).any(0)
        return self._painted(image, _inside(to_device(params["blobs"][:, there].to(torch.float32), image.device), y, x))

    def _blobs(self, keys: Tensor, size: tuple[int, int]) -> Tensor:
        blobs = int(self.count[1])
        there = torch.arange(blobs) < integers(keys, 0, int(self.count[0]), blobs)[:, None]
        radius = between(keys, 1, (math.log(self.size[0]), math.log(self.size[1])), blobs).exp() * self.scale(size)
        stretch = between(keys, 2, self.stretch, blobs).sqrt()
        turn = math.pi * uniform(keys, 3, blobs)
        around = 0 if self.with_picture else 0.7 * radius
        x, y = (
            uniform(keys, stream, blobs) * (side + 2 * around) - around - 0.5
            for stream, side in ((4, size[1]), (5, size[0]))
        )
        amplitude = uniform(keys, 6, blobs * _WAVES).unflatten(1, (blobs, _WAVES))
        amplitude = (0.2 + 0.8 * amplitude) / torch.arange(2, 2 + _WAVES, dtype=torch.float64).sqrt()
        amplitude = amplitude * (between(keys, 7, self.uneven, blobs)[..., None] / amplitude.sum(2, keepdim=True))
        phase = (2 * math.pi * uniform(keys, 8, blobs * _WAVES)).unflatten(1, (blobs, _WAVES))
        one = torch.stack([x, y, radius * stretch * there, radius / stretch * there, turn.cos(), turn.sin()], 2)
        return torch.cat([one, amplitude * phase.cos(), amplitude * phase.sin()], 2)

    def _share(self, table: Tensor, size: tuple[int, int], enough: float) -> Tensor:
        y, x = (torch.arange(0, side, max(1, side // 64)) for side in size)
        return _inside(table, y, x).mean((1, 2, 3), dtype=torch.float64)


def _inside(blobs: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Where any of the blobs is, at the given rows and columns: float32 B×1×len(y)×len(x)."""
    mask = torch.zeros(len(blobs), 1, len(y), len(x), dtype=torch.bool, device=blobs.device)
    for blob in blobs.unbind(1):
        px, py, along, across, cos, sin = blob[:, :_WAVE, None, None, None].unbind(1)
        dx, dy = x - px, y[:, None] - py
        u = (dx * cos + dy * sin) / along.clamp(min=1e-3)
        v = (dy * cos - dx * sin) / across.clamp(min=1e-3)
        distance = (u * u + v * v).sqrt()
        c, s = u / distance.clamp(min=1e-6), v / distance.clamp(min=1e-6)
        outline, wave_c, wave_s = torch.ones_like(distance), c, s
        waves = blob[:, _WAVE:, None, None, None].unflatten(1, (2, _WAVES))
        for a, b in zip(waves[:, 0].unbind(1), waves[:, 1].unbind(1)):
            wave_c, wave_s = wave_c * c - wave_s * s, wave_s * c + wave_c * s
            outline = outline + a * wave_c - b * wave_s
        mask |= (distance <= outline) & (along > 0)
    return mask.to(torch.float32)
