"""Holes: free-form strokes and boxes, after LaMa, scaled to the picture."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from restore.degrade.device import to_device
from restore.degrade.holes import BlankHoles
from restore.degrade.lines import AX, AY, BX, BY, COLUMNS, OPACITY, RADIUS_A, RADIUS_B, covered_share, draw
from restore.degrade.random import integers, uniform
from restore.degrade.step import Params, Range, within


class Strokes(BlankHoles):
    """Free-form strokes: chains of one to five straight brush strokes with round ends.

    The generator of LaMa (Suvorov et al., WACV 2022; `make_random_irregular_mask` and the settings
    `random_{thin,medium,thick}_512` of its code), after Yu et al. (ICCV 2019): a random start; directions of
    0.01 + 0, 1, … `max_angle` − 1 radians, mirrored in every other chain; lengths of 10 … 10 + `max_length` − 1
    and widths of 5 … 5 + `max_width` − 1 pixels, drawn anew for each stroke. Pixels are those of a picture
    whose smaller side is 512, and scale with it.

    Attributes:
        count: chains in a picture.
        max_width: of the brush, in pixels at 512.
        max_length: of a stroke, in pixels at 512.
        max_angle: number of directions.
    """

    name: Literal["strokes"] = "strokes"
    count: Annotated[Range, within(1, 200, whole=True)] = (4, 10)
    max_width: Annotated[int, Field(ge=1, le=512)] = 100
    max_length: Annotated[int, Field(ge=1, le=512)] = 200
    max_angle: Annotated[int, Field(ge=1, le=64)] = 4

    def sample(self, keys: Tensor, size: tuple[int, int]) -> Params:
        """`segments`, see `lines.draw`."""
        return {"segments": self._redrawn(keys, size, self._segments)}

    def apply(self, image: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        """Draw the holes; see `Step.apply`."""
        height, width = image.shape[-2:]
        return self._painted(image, draw(params["segments"], (height, width), image.device))

    def _share(self, table: Tensor, size: tuple[int, int], enough: float) -> Tensor:
        return covered_share(table, size, enough=enough)

    def _segments(self, keys: Tensor, size: tuple[int, int]) -> Tensor:
        height, width = size
        scale = self.scale(size)
        batch, chains, links = len(keys), int(self.count[1]), 5
        chain_count = integers(keys, 0, int(self.count[0]), chains)
        link_count = integers(keys, 1, 1, links, chains)
        shape = (batch, chains, links)
        angle = 0.01 + integers(keys, 2, 0, self.max_angle - 1, chains * links).reshape(shape)
        angle[:, ::2] = 2 * math.pi - angle[:, ::2]
        length = scale * (10 + integers(keys, 3, 0, self.max_length - 1, chains * links).reshape(shape))
        radius = scale * (5 + integers(keys, 4, 0, self.max_width - 1, chains * links).reshape(shape)) / 2
        x = uniform(keys, 5, chains) * width - 0.5
        y = uniform(keys, 6, chains) * height - 0.5
        segments = torch.zeros(*shape, COLUMNS, dtype=torch.float64)
        for link in range(links):
            segments[:, :, link, AX], segments[:, :, link, AY] = x, y
            x = (x + length[:, :, link] * angle[:, :, link].sin()).clamp(0, width)
            y = (y + length[:, :, link] * angle[:, :, link].cos()).clamp(0, height)
            segments[:, :, link, BX], segments[:, :, link, BY] = x, y
        segments[..., RADIUS_A] = segments[..., RADIUS_B] = radius.clamp(min=0.5)
        drawn = (torch.arange(chains) < chain_count[:, None])[..., None] & (torch.arange(links) < link_count[..., None])
        segments[..., OPACITY] = drawn.to(torch.float64)
        return segments.reshape(batch, chains * links, COLUMNS)


class Boxes(BlankHoles):
    """Upright boxes, which may overlap (LaMa's `make_random_rectangle_mask`); pixels as for `Strokes`.

    Attributes:
        count: boxes in a picture.
        side: of a box, in pixels at 512.
        margin: kept free at the edge, in pixels at 512.
    """

    name: Literal["boxes"] = "boxes"
    count: Annotated[Range, within(1, 20, whole=True)] = (1, 5)
    side: Annotated[Range, within(1, 512)] = (30, 150)
    margin: Annotated[float, Field(ge=0, le=200)] = 0

    def sample(self, keys: Tensor, size: tuple[int, int]) -> Params:
        """`boxes`: int64[B, N, 4] as top, left, bottom, right (excluded); all zero where there is none."""
        return {"boxes": self._redrawn(keys, size, self._boxes)}

    def apply(self, image: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        """Draw the holes; see `Step.apply`."""
        y = torch.arange(image.shape[-2], device=image.device)
        x = torch.arange(image.shape[-1], device=image.device)
        return self._painted(image, _boxes_mask(to_device(params["boxes"], image.device), y, x))

    def _boxes(self, keys: Tensor, size: tuple[int, int]) -> Tensor:
        scale = self.scale(size)
        boxes = int(self.count[1])
        number = integers(keys, 0, int(self.count[0]), boxes)
        margin = round(self.margin * scale)
        corners = []
        for axis in (0, 1):
            low, high = self.side[0] * scale, self.side[1] * scale
            length = (
                (low + (high - low) * uniform(keys, 1 + axis, boxes)).round().clamp(1, max(1, size[axis] - 2 * margin))
            )
            room = (size[axis] - 2 * margin - length).clamp(min=0) + 1
            start = margin + (uniform(keys, 3 + axis, boxes) * room).floor()
            corners.append((start, start + length))
        (top, bottom), (left, right) = corners
        table = torch.stack([top, left, bottom, right], dim=-1).to(torch.int64)
        return table * (torch.arange(boxes) < number[:, None])[..., None]

    def _share(self, table: Tensor, size: tuple[int, int], enough: float) -> Tensor:
        y, x = (torch.arange(0, side, max(1, side // 64)) for side in size)
        return _boxes_mask(table, y, x).mean((1, 2, 3), dtype=torch.float64)


def _boxes_mask(boxes: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Mask of the boxes at the given rows and columns, float32 B×1×len(y)×len(x)."""
    top, left, bottom, right = boxes[..., None].unbind(2)
    rows = ((y >= top) & (y < bottom)).to(torch.float32)
    columns = ((x >= left) & (x < right)).to(torch.float32)
    return (rows.transpose(1, 2) @ columns > 0).to(torch.float32)[:, None]
