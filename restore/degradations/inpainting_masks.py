"""Holes for inpainting, scaled to the image: free-form strokes and boxes as in LaMa, blobs, and missing margins."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from restore.degradations.base import Params, Probability, Range, ScaledStep, within
from restore.degradations.drawing import (
    AX,
    AY,
    BX,
    BY,
    COLUMNS,
    OPACITY,
    RADIUS_A,
    RADIUS_B,
    draw_segments,
    estimate_coverage,
)
from restore.devices import to_device
from restore.hashed_random import fold_in, integers, uniform, uniform_range

# Settings that can hardly meet their limits would otherwise loop forever; `_limit_coverage` corrects remaining masks.
_ATTEMPTS = 20
# Offset in pixels that puts the inner edge of a margin outside any image, so the margin is empty.
_FAR = 1e6


class Holes(ScaledStep):
    """Holes that cover between `min_coverage` and `max_coverage` of the image; pixels outside them are unchanged.

    Attributes:
        max_coverage: a mask that covers a larger fraction of the image is drawn again.
        min_coverage: a mask that covers a smaller fraction is drawn again; at most 0.9 of `max_coverage`. Images of a
            few pixels may fall below it.
    """

    RENAMED: ClassVar[dict[str, str]] = {"min_share": "min_coverage", "max_share": "max_coverage"}

    max_coverage: Annotated[float, Field(gt=0, le=0.9)] = 0.5
    min_coverage: Annotated[float, Field(ge=0, le=0.81)] = 0

    has_mask = True

    @model_validator(mode="after")
    def _room_between(self) -> Holes:
        if self.min_coverage > 0.9 * self.max_coverage:
            raise ValueError(
                f"min_coverage {self.min_coverage:g} must be at most 0.9 of max_coverage {self.max_coverage:g}"
            )
        return self

    def _sample_within_limits(
        self, keys: Tensor, size: tuple[int, int], draft: Callable[[Tensor, tuple[int, int]], Tensor]
    ) -> Tensor:
        """Tables from `draft(keys, size)`, each drawn again until its coverage is within the limits."""
        # The limits have a margin, because the coverage is estimated on a coarse grid.
        least, most = 1.03 * self.min_coverage, 0.97 * self.max_coverage

        def is_outside(table: Tensor) -> Tensor:
            coverage = self._coverage(table, size, least or most)
            return (coverage > most) | (coverage < least)

        table = draft(fold_in(keys, 0), size)
        wrong = is_outside(table).nonzero()[:, 0]
        for attempt in range(1, _ATTEMPTS):
            if not len(wrong):
                break
            again = draft(fold_in(keys[wrong], attempt), size)
            table[wrong] = again
            wrong = wrong[is_outside(again)]
        return table

    @abstractmethod
    def _coverage(self, table: Tensor, size: tuple[int, int], precise_above: float) -> Tensor:
        """Coverage of each image by its rows of `table`, float64[B]; may be imprecise below `precise_above`."""

    def _limit_coverage(self, mask: Tensor) -> Tensor:
        """Force a binary mask, B×1×H×W, within the limits.

        Drawing again relies on an estimate and gives up after some attempts, so a few masks are still outside. A mask
        that covers too much loses its right part. One that covers too little gains whole columns, from the right, up
        to the upper limit.
        """
        height, width = mask.shape[-2:]
        pixels, columns = height * width, torch.arange(width, device=mask.device)
        over = mask.mean((1, 2, 3), keepdim=True) > self.max_coverage
        mask = torch.where(over, mask * (columns < int(width * self.max_coverage)), mask)
        if self.min_coverage == 0:
            return mask
        free = (height - mask.sum((1, 2))).to(torch.int64)  # uncovered pixels of each column
        # Covered pixels before each column is added, from the right.
        covered = pixels - free.sum(1, keepdim=True) + (free.flip(1).cumsum(1) - free.flip(1))
        needed = (covered < self.min_coverage * pixels) & (covered + free.flip(1) <= self.max_coverage * pixels)
        return torch.maximum(mask, needed.flip(1)[:, None, None].to(mask.dtype))


class BlankHoles(Holes):
    """Holes filled with one value.

    Attributes:
        fill: value of the pixels under the mask, in [0, 1]; restorers must not depend on it.
    """

    fill: Probability = 0.5

    def _filled(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        mask = self._limit_coverage(mask)
        return image.masked_fill(mask > 0, self.fill), mask


class Strokes(BlankHoles):
    """Free-form strokes: chains of one to five straight brush strokes with round ends.

    This is the generator of LaMa (Suvorov et al., WACV 2022; `make_random_irregular_mask` with the settings
    `random_{thin,medium,thick}_512` of its code), after Yu et al. (ICCV 2019). Each chain has a random start. Each
    stroke has a random direction of 0.01 + 0, 1, … `max_angle` − 1 radians, mirrored in every other chain, a length of
    10 … 10 + `max_length` − 1 pixels and a width of 5 … 5 + `max_width` − 1 pixels. Lengths are for an image whose
    smaller side is 512 pixels, and scale with the image.

    Attributes:
        count: chains per image.
        max_width: maximum width of the brush minus 4, in pixels at 512.
        max_length: maximum length of a stroke minus 9, in pixels at 512.
        max_angle: number of directions.
    """

    name: Literal["strokes"] = "strokes"
    count: Annotated[Range, within(1, 200, whole=True)] = (4, 10)
    max_width: Annotated[int, Field(ge=1, le=512)] = 100
    max_length: Annotated[int, Field(ge=1, le=512)] = 200
    max_angle: Annotated[int, Field(ge=1, le=64)] = 4

    def sample(self, keys: Tensor, size: tuple[int, int]) -> Params:
        """`segments`, see `draw_segments`."""
        return {"segments": self._sample_within_limits(keys, size, self._segments)}

    def apply(self, image: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        """Draw the holes; see `Step.apply`."""
        height, width = image.shape[-2:]
        return self._filled(image, draw_segments(params["segments"], (height, width), image.device))

    def _coverage(self, table: Tensor, size: tuple[int, int], precise_above: float) -> Tensor:
        return estimate_coverage(table, size, precise_above=precise_above)

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
    """Axis-aligned boxes, which may overlap (LaMa's `make_random_rectangle_mask`); lengths as for `Strokes`.

    Attributes:
        count: boxes per image.
        side: side of a box, in pixels at 512.
        margin: distance of boxes from the edge of the image, in pixels at 512.
    """

    name: Literal["boxes"] = "boxes"
    count: Annotated[Range, within(1, 20, whole=True)] = (1, 5)
    side: Annotated[Range, within(1, 512)] = (30, 150)
    margin: Annotated[float, Field(ge=0, le=200)] = 0

    def sample(self, keys: Tensor, size: tuple[int, int]) -> Params:
        """`boxes`: int64[B, N, 4] as top, left, bottom, right (exclusive). An unused row is all zero."""
        return {"boxes": self._sample_within_limits(keys, size, self._boxes)}

    def apply(self, image: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        """Draw the holes; see `Step.apply`."""
        y = torch.arange(image.shape[-2], device=image.device)
        x = torch.arange(image.shape[-1], device=image.device)
        return self._filled(image, _boxes_mask(to_device(params["boxes"], image.device), y, x))

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

    def _coverage(self, table: Tensor, size: tuple[int, int], precise_above: float) -> Tensor:
        y, x = (torch.arange(0, side, max(1, side // 64)) for side in size)
        return _boxes_mask(table, y, x).mean((1, 2, 3), dtype=torch.float64)


def _boxes_mask(boxes: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """1 inside any of the boxes, at rows `y` and columns `x`: float32 B×1×len(y)×len(x)."""
    top, left, bottom, right = boxes[..., None].unbind(2)
    rows = ((y >= top) & (y < bottom)).to(torch.float32)
    columns = ((x >= left) & (x < right)).to(torch.float32)
    return (rows.transpose(1, 2) @ columns > 0).to(torch.float32)[:, None]


_WAVES = 5
# Columns of the table of blobs: centre (x, y), radii along and across, cosine and sine of the direction; from column
# _WAVE, aₖ cos φₖ and then aₖ sin φₖ of the waves of the outline.
_ALONG, _WAVE = 2, 6


class Blobs(BlankHoles):
    """Ellipses with a wavy outline, shaped like objects to remove.

    The radius is that of the ellipse times 1 + Σ aₖ cos(kθ + φₖ), with k from 2 to 6 (k = 1 would only shift the blob)
    and amplitudes that fall as 1/√k.

    Attributes:
        count: blobs per image.
        size: radius of a circle of about the same area, in pixels.
        stretch: length divided by width.
        uneven: maximum deviation of the outline from the ellipse, as a fraction of its radius.
        scale_with_image: false: the image is a crop, sizes are its own pixels, and blobs may reach in from outside
            (see `ScaledStep`).
    """

    name: Literal["blobs"] = "blobs"
    count: Annotated[Range, within(1, 30, whole=True)] = (1, 4)
    size: Annotated[Range, within(1, 500)] = (25, 140)
    stretch: Annotated[Range, within(1, 8)] = (1, 2.5)
    uneven: Annotated[Range, within(0, 0.9)] = (0.1, 0.5)

    def sample(self, keys: Tensor, size: tuple[int, int]) -> Params:
        """`blobs`: float64[B, N, 16], with the columns above. A radius of 0 means no blob."""
        return {"blobs": self._sample_within_limits(keys, size, self._blobs)}

    def apply(self, image: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        """Draw the holes; see `Step.apply`."""
        y = torch.arange(image.shape[-2], device=image.device)
        x = torch.arange(image.shape[-1], device=image.device)
        there = (params["blobs"][..., _ALONG] > 0).any(0)
        return self._filled(image, _inside(to_device(params["blobs"][:, there].to(torch.float32), image.device), y, x))

    def _blobs(self, keys: Tensor, size: tuple[int, int]) -> Tensor:
        blobs = int(self.count[1])
        there = torch.arange(blobs) < integers(keys, 0, int(self.count[0]), blobs)[:, None]
        radius = uniform_range(keys, 1, (math.log(self.size[0]), math.log(self.size[1])), blobs).exp() * self.scale(
            size
        )
        stretch = uniform_range(keys, 2, self.stretch, blobs).sqrt()
        turn = math.pi * uniform(keys, 3, blobs)
        around = 0 if self.scale_with_image else 0.7 * radius
        x, y = (
            uniform(keys, stream, blobs) * (side + 2 * around) - around - 0.5
            for stream, side in ((4, size[1]), (5, size[0]))
        )
        amplitude = uniform(keys, 6, blobs * _WAVES).unflatten(1, (blobs, _WAVES))
        amplitude = (0.2 + 0.8 * amplitude) / torch.arange(2, 2 + _WAVES, dtype=torch.float64).sqrt()
        amplitude = amplitude * (uniform_range(keys, 7, self.uneven, blobs)[..., None] / amplitude.sum(2, keepdim=True))
        phase = (2 * math.pi * uniform(keys, 8, blobs * _WAVES)).unflatten(1, (blobs, _WAVES))
        one = torch.stack([x, y, radius * stretch * there, radius / stretch * there, turn.cos(), turn.sin()], 2)
        return torch.cat([one, amplitude * phase.cos(), amplitude * phase.sin()], 2)

    def _coverage(self, table: Tensor, size: tuple[int, int], precise_above: float) -> Tensor:
        y, x = (torch.arange(0, side, max(1, side // 64)) for side in size)
        return _inside(table, y, x).mean((1, 2, 3), dtype=torch.float64)


def _inside(blobs: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """1 inside any of the blobs, at rows `y` and columns `x`: float32 B×1×len(y)×len(x)."""
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


class Border(BlankHoles):
    """Missing margins on one to four sides, for outpainting.

    Attributes:
        sides: number of sides with a missing margin.
        depth: depth of a margin, in pixels.
        frame: fraction of images whose margins all have the same depth.
        tilt: maximum angle of the inner edge of a margin in degrees, as in a straightened scan.
        scale_with_image: false: the image is a crop at the edge of a larger one, and depths are its own pixels (see
            `ScaledStep`).
    """

    name: Literal["border"] = "border"
    sides: Annotated[Range, within(1, 4, whole=True)] = (1, 4)
    depth: Annotated[Range, within(1, 400)] = (16, 140)
    frame: Probability = 0.3
    tilt: Annotated[float, Field(ge=0, le=20)] = 3

    def sample(self, keys: Tensor, size: tuple[int, int]) -> Params:
        """`planes`: float64[B, 4, 3] as (a, b, c): covered where a·x + b·y > c, in pixels; no margin has a huge c."""
        return {"planes": self._sample_within_limits(keys, size, self._planes)}

    def apply(self, image: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        """Draw the holes; see `Step.apply`."""
        y = torch.arange(image.shape[-2], device=image.device)
        x = torch.arange(image.shape[-1], device=image.device)
        return self._filled(image, _beyond(to_device(params["planes"].to(torch.float32), image.device), y, x))

    def _planes(self, keys: Tensor, size: tuple[int, int]) -> Tensor:
        height, width = size
        order = uniform(keys, 0, 4).argsort(1).argsort(1)
        gone = order < integers(keys, 1, int(self.sides[0]), int(self.sides[1]), 1)
        depth = uniform_range(keys, 2, (math.log(self.depth[0]), math.log(self.depth[1])), 4).exp() * self.scale(size)
        depth = torch.where(uniform(keys, 3, 1) < self.frame, depth[:, :1], depth)
        # Half of the images are not tilted.
        lean = math.radians(self.tilt) * (2 * uniform(keys, 4, 4) - 1) * (uniform(keys, 5, 1) < 0.5)
        # Order: left, top, right, bottom. Margins tilt around the middle of their edge.
        outward = torch.tensor([math.pi, -math.pi / 2, 0, math.pi / 2], dtype=torch.float64) + lean
        a, b = outward.cos(), outward.sin()
        middle_x = torch.tensor([0, width / 2, width, width / 2], dtype=torch.float64) - 0.5
        middle_y = torch.tensor([height / 2, 0, height / 2, height], dtype=torch.float64) - 0.5
        at = a * middle_x + b * middle_y - depth
        return torch.stack([a, b, torch.where(gone, at, _FAR)], 2)

    def _coverage(self, table: Tensor, size: tuple[int, int], precise_above: float) -> Tensor:
        y, x = (torch.arange(0, side, max(1, side // 64)) for side in size)
        return _beyond(table, y, x).mean((1, 2, 3), dtype=torch.float64)


def _beyond(planes: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """1 beyond any of the planes, at rows `y` and columns `x`: float32 B×1×len(y)×len(x)."""
    a, b, c = planes[..., None, None].unbind(2)
    return (a * x + b * y[:, None] > c).any(1, keepdim=True).to(torch.float32)
