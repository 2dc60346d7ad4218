"""Cracks in the emulsion: thin, jagged, branching, dark or bright, with a raised edge that reflects light."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from restore.box_filter import box_mean
from restore.degradations.base import Params, Probability, Range, ScaledStep, within
from restore.degradations.drawing import draw_segments, polyline_segments, visible_pixels
from restore.devices import to_device
from restore.hashed_random import field_uniform, fold_in, integers, uniform, uniform_range

_LINKS = 36  # straight segments of a crack
_EDGE = 1.2  # width of the lit edge in pixels at 512; at least one pixel is drawn
# Minimum opacity of a crack and of its lit edge. Fainter pixels would widen the mask beyond the visible crack.
_FAINTEST, _FAINTEST_EDGE = 0.04, 0.06


class Crack(ScaledStep):
    """Cracks: jagged lines with two levels of branches, tapering towards their ends.

    Attributes:
        count: cracks per image, not counting branches.
        width: width at the start of a crack, in pixels.
        length: length along a crack, in pixels; branches are shorter.
        branches: branches per crack; each branch may have one more.
        opacity: maximum opacity of a crack.
        bright: fraction of images whose cracks are bright, because white paper shows through.
        lit: opacity of the edge beside a crack, which is light for a dark crack and dark for a bright one.
    """

    name: Literal["crack"] = "crack"
    count: Annotated[Range, within(0, 60, whole=True)] = (1, 5)
    width: Annotated[Range, within(0.1, 20)] = (0.9, 2.4)
    length: Annotated[Range, within(1, 2000)] = (90, 700)
    branches: Annotated[int, Field(ge=0, le=12)] = 3
    opacity: Annotated[Range, within(0, 1)] = (0.5, 1.0)
    bright: Probability = 0.5
    lit: Annotated[Range, within(0, 1)] = (0.05, 0.3)

    has_mask = True

    def sample(self, keys: Tensor, size: tuple[int, int]) -> Params:
        """`segments` [B, N, 7] (see `draw_segments`); `tones` [B, 2, 3] of the crack and its edge; `lit` [B]; `key`."""
        is_bright = uniform(keys, 0, 1)[..., None] < self.bright
        dark, light = uniform_range(keys, 1, (0.02, 0.2)), uniform_range(keys, 2, (0.82, 0.98))
        tones = torch.stack([dark, light], 1)[..., None] + 0.05 * (uniform(keys, 3, 3) - 0.5)[:, None]
        return {
            "segments": self._segments(fold_in(keys, 4), size),
            "tones": torch.where(is_bright, tones.flip(1), tones).clamp(0, 1),
            "lit": uniform_range(keys, 5, self.lit),
            "key": fold_in(keys, 6),
        }

    def apply(self, image: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        """Draw the cracks; see `Step.apply`."""
        size, device = (image.shape[-2], image.shape[-1]), image.device
        segments, tones = params["segments"], to_device(params["tones"].to(torch.float32), device)[..., None, None]
        cover = draw_segments(segments, size, device, softness=1.1)
        side = 3 + 2 * int(_EDGE * self.scale(size))
        beside = (box_mean(cover, side) * side).clamp(max=1)
        grain = 0.8 + 0.2 * field_uniform(params["key"], 0, (1, *size), device)
        lit = to_device(params["lit"].to(torch.float32), device).reshape(-1, 1, 1, 1)
        damaged = image
        covered = torch.zeros_like(cover, dtype=torch.bool)
        for amount, tone, least in ((beside * lit, tones[:, 1], _FAINTEST_EDGE), (cover, tones[:, 0], _FAINTEST)):
            amount = (amount * grain).masked_fill_(amount < least, 0.0)
            # Not `lerp`: a pixel under zero opacity must keep its value to the last bit.
            damaged = damaged + amount * (tone - damaged)
            covered = covered | (amount > 0)
        mask = visible_pixels(image, damaged, covered)
        return torch.where(mask, damaged, image), mask.to(image.dtype)

    def _segments(self, keys: Tensor, size: tuple[int, int]) -> Tensor:
        """Cracks, their branches, and the branches of these: float64[B, N, 7]."""
        cracks = int(self.count[1])
        scale = self.scale(size)
        there = torch.arange(cracks) < integers(keys, 0, int(self.count[0]), cracks)[:, None]
        length = uniform_range(keys, 1, (math.log(self.length[0]), math.log(self.length[1])), cracks).exp() * scale
        radius = uniform_range(keys, 2, self.width, cracks) * scale / 2
        opacity = uniform_range(keys, 3, self.opacity, cracks) * there
        heading = 2 * math.pi * uniform(keys, 4, cracks)
        # The middle of the crack, not its start, is uniform over the image.
        start = [
            uniform(keys, stream, cracks) * side - 0.5 - 0.5 * length * way
            for stream, side, way in ((5, size[1], heading.cos()), (6, size[0], heading.sin()))
        ]
        return branching(keys, start, heading, length, radius, opacity, self.branches)


def branching(
    keys: Tensor,
    start: list[Tensor],
    heading: Tensor,
    length: Tensor,
    radius: Tensor,
    opacity: Tensor,
    branches: int,
    *,
    knots: bool = False,
) -> Tensor:
    """Jagged cracks, their branches, and the branches of these, for `draw_segments`.

    Args:
        keys: int64[B]; streams 7 and up are used.
        start: x and y of the start of each crack, float64[B, cracks] each.
        heading: its first direction in radians.
        length, radius: in pixels.
        opacity: 0 where there is no crack.
        branches: of each crack; each branch may have one more.
        knots: the crack swells where it branches.

    Returns:
        float64[B, N, 7].
    """
    links = _LINKS
    x, y, angle, thickness = jagged(fold_in(keys, 7), start, heading, length, links)
    segments = [tapered(x, y, radius[..., None] * thickness, opacity)]
    parents: tuple[Tensor, ...] = (x, y, angle, radius[..., None] * thickness, opacity, length)
    for level, each in enumerate((branches, min(branches, 1))):
        if not each:
            break
        parents = _branches(fold_in(keys, 8 + level), parents, each)
        links = max(6, links // 2)
        bx, by, heading, bradius, opacity, length = parents
        x, y, angle, thickness = jagged(fold_in(keys, 18 + level), [bx, by], heading, length, links)
        segments.append(tapered(x, y, bradius[..., None] * thickness, opacity))
        if knots:
            knot = torch.stack([x[..., 0], x[..., 1]], 2), torch.stack([y[..., 0], y[..., 1]], 2)
            swollen = torch.stack([1.9 * bradius, bradius], 2)
            segments.append(tapered(*knot, swollen, opacity))
        parents = (x, y, angle, bradius[..., None] * thickness, opacity, length)
    return torch.cat(segments, 1)


def _branches(keys: Tensor, parents: tuple[Tensor, ...], each: int) -> tuple[Tensor, ...]:
    """Start, heading, radius, opacity and length of `each` branches of every parent."""
    x, y, angle, radius, opacity, length = parents
    marks, links = angle.shape[1], angle.shape[2]
    n = marks * each
    at = (links * (0.08 + 0.8 * uniform(keys, 0, n))).to(torch.int64).reshape(len(keys), marks, each)
    here = [value.gather(2, at).flatten(1) for value in (x, y, angle, radius)]
    side = torch.where(uniform(keys, 1, n) < 0.5, -1.0, 1.0)
    heading = here[2] + side * uniform_range(keys, 2, (0.8, 1.6), n)
    own_length = length.repeat_interleave(each, 1) * uniform_range(keys, 3, (0.12, 0.65), n)
    own_opacity = (
        opacity.repeat_interleave(each, 1) * uniform_range(keys, 4, (0.7, 1.0), n) * (uniform(keys, 5, n) < 0.75)
    )
    return here[0], here[1], heading, 0.8 * here[3], own_opacity, own_length


def jagged(
    keys: Tensor,
    start: list[Tensor],
    heading: Tensor,
    length: Tensor,
    links: int,
    *,
    turn: float = 0.13,
    kink: float = 0.4,
    sharp: float = 1.3,
) -> tuple[Tensor, ...]:
    """Corners x and y [B, n, links + 1], direction of each link, and thickness (1 falling to 0) at each corner."""
    batch, n = heading.shape
    shape = (batch, n, links)
    # A slow turn, a small kink at every corner, and a rare sharp kink (the fifth power is mostly close to 0).
    turns = (turn * (2 * uniform(keys, 0, n * links) - 1)).reshape(shape).cumsum(2)
    kinks = (kink * (2 * uniform(keys, 1, n * links) - 1)).reshape(shape)
    kinks = kinks + (sharp * (2 * uniform(keys, 4, n * links) - 1) ** 5).reshape(shape)
    angle = heading[..., None] + turns + kinks
    # Segments have different lengths.
    piece = (0.15 + uniform(keys, 2, n * links)).reshape(shape)
    step = piece * (length[..., None] / piece.sum(2, keepdim=True))
    zero = torch.zeros(batch, n, 1, dtype=torch.float64)
    x = start[0][..., None] + torch.cat([zero, (step * angle.cos()).cumsum(2)], 2)
    y = start[1][..., None] + torch.cat([zero, (step * angle.sin()).cumsum(2)], 2)
    t = torch.linspace(0, 1, links + 1, dtype=torch.float64)
    uneven = 0.7 + 0.6 * uniform(keys, 3, n * (links + 1)).reshape(batch, n, links + 1)
    return x, y, angle, (1 - t) ** 0.3 * uneven


def tapered(x: Tensor, y: Tensor, radius: Tensor, opacity: Tensor) -> Tensor:
    """`polyline_segments`, with parts thinner than a pixel drawn one pixel wide and fainter."""
    faint = (radius[..., :-1] / 0.5).clamp(0.25, 1)
    return polyline_segments(x, y, radius.clamp(min=0.5), opacity[..., None] * faint)
