"""Scratches, hairs and dust: thin, bright or dark, soft-edged. The mask is exactly the pixels that change.

A mark is not drawn where it would be invisible (see `visible_pixels`).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from restore.degradations.base import Params, Probability, Range, ScaledStep, within
from restore.degradations.drawing import COLUMNS, OPACITY, draw_segments, polyline_segments, visible_pixels
from restore.devices import to_device
from restore.hashed_random import field_uniform, fold_in, integers, uniform, uniform_range

# Minimum opacity of a mark: 5 of 255 levels at full contrast.
_FAINTEST = 0.02


class _Marks(ScaledStep):
    """Marks that are chains of short segments; each mark is bright or dark as a whole.

    Attributes:
        count: marks per image.
        width: width of a mark, in pixels.
        length: length along a mark, in pixels.
        opacity: maximum opacity of a mark.
        bright: mean fraction of bright marks (marks on a negative all print bright). Marks of one image tend to be
            alike.
        softness: width of the edge, in pixels.
    """

    count: Annotated[Range, within(0, 2000, whole=True)] = (1, 8)
    width: Annotated[Range, within(0.1, 100)] = (1, 3)
    length: Annotated[Range, within(0.5, 2000)] = (50, 400)
    opacity: Annotated[Range, within(0, 1)] = (0.4, 1.0)
    bright: Probability = 0.6
    softness: Annotated[float, Field(ge=0.5, le=10)] = 1.2

    has_mask = True

    def sample(self, keys: Tensor, size: tuple[int, int]) -> Params:
        """`layers`: dark and bright segments [B, 2, N, 7] (see `draw_segments`); `tones` [B, 2, 3]; `key`."""
        segments = self._segments(keys, size)
        batch, marks, links, _ = segments.shape
        bright = torch.full((batch, 1), self.bright, dtype=torch.float64)
        if 0 < self.bright < 1:
            # Spreading the fraction towards 0 or 1 makes the marks of one image mostly alike.
            bright = (bright + 1.2 * (uniform(keys, 20, 1) - 0.5)).clamp(0, 1)
        is_bright = (uniform(keys, 21, marks) < bright)[..., None]
        layers = torch.stack([segments, segments], dim=1)
        layers[:, 0, ..., OPACITY] *= ~is_bright
        layers[:, 1, ..., OPACITY] *= is_bright
        tones = torch.stack([uniform_range(keys, 23, (0.0, 0.2)), uniform_range(keys, 24, (0.85, 1.0))], dim=1)[
            ..., None
        ]
        tint = 0.06 * (uniform(keys, 22, 3) - 0.5)[:, None]
        return {
            "layers": layers.reshape(batch, 2, marks * links, COLUMNS),
            "tones": (tones + tint).clamp(0, 1),
            "key": fold_in(keys, 25),
        }

    def apply(self, image: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        """Draw the marks; see `Step.apply`."""
        height, width = image.shape[-2:]
        layers = draw_segments(params["layers"].flatten(0, 1), (height, width), image.device, softness=self.softness)
        grain = 0.75 + 0.25 * field_uniform(params["key"], 0, (1, height, width), image.device)
        covers = layers.reshape(-1, 2, height, width) * grain
        covers = covers.masked_fill_(covers < _FAINTEST, 0.0)
        tones = to_device(params["tones"].to(torch.float32), image.device)[..., None, None]
        damaged = image
        for layer in (0, 1):
            damaged = damaged + covers[:, layer, None] * (tones[:, layer] - damaged)
        mask = visible_pixels(image, damaged, covers.amax(1, keepdim=True) > 0)
        return torch.where(mask, damaged, image), mask.to(image.dtype)

    @abstractmethod
    def _segments(self, keys: Tensor, size: tuple[int, int]) -> Tensor:
        """float64[B, marks, links, 7], see `draw_segments`."""

    def _chains(
        self,
        keys: Tensor,
        size: tuple[int, int],
        angle: Tensor,
        thickness: Tensor,
        opacity: Tensor,
        *,
        wide: bool,
    ) -> Tensor:
        """Segments along curves of the given directions.

        Args:
            keys: int64[B].
            size: (height, width).
            angle: radians, [B, marks, links].
            thickness: relative to the mark's width, [B, marks, links + 1].
            opacity: relative to the mark's opacity, [B, marks, links].
            wide: marks may start outside the image, so that long ones cross it anywhere.
        """
        batch, marks, links = angle.shape
        scale = self.scale(size)
        length = uniform_range(keys, 10, (math.log(self.length[0]), math.log(self.length[1])), marks).exp() * scale
        radius = uniform_range(keys, 11, self.width, marks) * scale / 2
        # A mark thinner than a pixel is drawn one pixel wide and fainter.
        faint = (radius / 0.5).clamp(max=1)
        strength = uniform_range(keys, 12, self.opacity, marks) * faint
        step = (length / links)[..., None]
        dx, dy = (step * angle.cos()).cumsum(2), (step * angle.sin()).cumsum(2)
        centre = []
        for stream, side, offset in ((13, size[1], dx), (14, size[0], dy)):
            room = 0.5 * (offset.amax(2) - offset.amin(2)) if wide else 0.0
            place = uniform(keys, stream, marks) * (side + 2 * room) - room
            centre.append((place - offset.mean(2))[..., None])
        x = torch.cat([centre[0], centre[0] + dx], 2)
        y = torch.cat([centre[1], centre[1] + dy], 2)
        widths = radius.clamp(min=0.5)[..., None] * thickness
        number = integers(keys, 15, int(self.count[0]), int(self.count[1]))
        there = torch.arange(marks) < number[:, None]
        segments = polyline_segments(x, y, widths, strength[..., None] * opacity * there[..., None])
        return segments.reshape(batch, marks, links, COLUMNS)


class Scratch(_Marks):
    """Scratches: long and almost straight, in one main direction per image, interrupted in places.

    Attributes:
        upright: fraction of images whose scratches run from top to bottom, as on film.
    """

    name: Literal["scratch"] = "scratch"
    upright: Probability = 0.4

    def _segments(self, keys: Tensor, size: tuple[int, int]) -> Tensor:
        marks, links = int(self.count[1]), 24
        main = torch.where(uniform(keys, 0, 1) < self.upright, math.pi / 2, math.pi * uniform(keys, 1, 1))
        spread = torch.where(uniform(keys, 0, 1) < self.upright, 0.03, 0.6)
        heading = main + spread * (2 * uniform(keys, 2, marks) - 1)
        bend = 0.5 * (2 * uniform(keys, 3, marks) - 1) ** 3
        t = torch.linspace(-0.5, 0.5, links, dtype=torch.float64)
        angle = heading[..., None] + bend[..., None] * t + _waves(keys, 4, marks, t, 0.05)
        ends = _tapered(links, 0.12)
        worn = (0.55 + 0.9 * _waves(keys, 5, marks, t, 1.0)).clamp(0, 1)
        thickness = 1 + 0.5 * _waves(keys, 6, marks, torch.linspace(-0.5, 0.5, links + 1, dtype=torch.float64), 1.0)
        return self._chains(keys, size, angle, thickness.clamp(0.4, 1.6), ends * worn, wide=True)


class Hair(_Marks):
    """Hairs and fibres: curved, with the same width and opacity from end to end."""

    name: Literal["hair"] = "hair"
    count: Annotated[Range, within(0, 2000, whole=True)] = (1, 6)
    width: Annotated[Range, within(0.1, 100)] = (0.8, 1.8)
    length: Annotated[Range, within(0.5, 2000)] = (25, 160)
    opacity: Annotated[Range, within(0, 1)] = (0.5, 0.95)

    def _segments(self, keys: Tensor, size: tuple[int, int]) -> Tensor:
        marks, links = int(self.count[1]), 20
        t = torch.linspace(-0.5, 0.5, links, dtype=torch.float64)
        heading = 2 * math.pi * uniform(keys, 1, marks)
        curl = 4.5 * (2 * uniform(keys, 2, marks) - 1)
        angle = heading[..., None] + curl[..., None] * t + _waves(keys, 4, marks, t, 0.7)
        thickness = torch.ones(1, 1, links + 1, dtype=torch.float64)
        strength = (0.9 + 0.15 * _waves(keys, 5, marks, t, 1.0)).clamp(0, 1)
        return self._chains(keys, size, angle, thickness, strength, wide=False)


class Dust(_Marks):
    """Dust and flecks: specks with irregular outlines, many small ones for each large one."""

    name: Literal["dust"] = "dust"
    count: Annotated[Range, within(0, 2000, whole=True)] = (10, 120)
    width: Annotated[Range, within(0.1, 100)] = (0.8, 3.5)
    length: Annotated[Range, within(0.5, 2000)] = (0.8, 6)
    opacity: Annotated[Range, within(0, 1)] = (0.4, 1.0)

    def _segments(self, keys: Tensor, size: tuple[int, int]) -> Tensor:
        marks, links = int(self.count[1]), 4
        heading = 2 * math.pi * uniform(keys, 1, marks)
        turns = 2.2 * (2 * uniform(keys, 2, marks * links).reshape(len(keys), marks, links) - 1)
        thickness = uniform_range(keys, 3, (0.35, 1.25), marks * (links + 1)).reshape(len(keys), marks, links + 1)
        # The cube makes small specks far more common than large ones.
        thickness = thickness * (0.35 + 0.65 * uniform(keys, 4, marks) ** 3)[..., None]
        opacity = torch.ones(1, 1, links, dtype=torch.float64)
        return self._chains(keys, size, heading[..., None] + turns, thickness, opacity, wide=False)


def _waves(keys: Tensor, stream: int, marks: int, t: Tensor, size: float) -> Tensor:
    """A smooth random curve along `t` within ±`size`: three sines of random phase; float64[B, marks, len(t)]."""
    phase = 2 * math.pi * uniform(keys, 100 + stream, marks * 3).reshape(len(keys), marks, 3, 1)
    pace = 2 * math.pi * (torch.tensor([1.0, 2.3, 4.1], dtype=torch.float64)[:, None])
    weight = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)[:, None]
    return size * (weight * torch.sin(pace * t + phase)).sum(2)


def _tapered(links: int, share: float) -> Tensor:
    """1 in the middle, falling towards 0 over `share` of the length at both ends; float64[links]."""
    t = (torch.arange(links, dtype=torch.float64) + 0.5) / links
    return (torch.minimum(t, 1 - t) / share).clamp(max=1)
