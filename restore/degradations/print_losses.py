"""Area-like damage of prints: chips of the emulsion, lost corners and edges, smears of ink, and tape."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from restore.degradations.base import Params, Probability, Range, ScaledStep, within
from restore.degradations.drawing import (
    draw_segments,
    pixel_grid,
    polyline_segments,
    smoothstep,
    value_noise,
    visible_pixels,
)
from restore.degradations.painted import log_count, log_uniform, paper_tone
from restore.devices import to_device
from restore.hashed_random import field_uniform, fold_in, integers, uniform, uniform_range

_SIDES = 5  # of a chip
_COVERED = 0.12  # minimum opacity of pixels in the mask
_TAILS, _TAIL_LINKS = 3, 7  # tails of a chip, and straight pieces of a tail


def _number(value: Tensor, device: torch.device) -> Tensor:
    return to_device(value.to(torch.float32), device)[..., None, None, None]


def _color(value: Tensor, device: torch.device) -> Tensor:
    return to_device(value.to(torch.float32), device)[..., None, None]


class Chip(ScaledStep):
    """Chips: the emulsion is gone down to the paper, in angular patches whose corners run out into cracks.

    Attributes:
        count: chips per image, log-uniform.
        size: radius in pixels, log-uniform.
        light: luminance of the paper, in [0, 1].
        warmth: how much less blue than red the paper has, in [0, 1].
        rim: opacity of the thin dark rim.
        ragged: deviation of the outline, in pixels.
        dented: deviation of the outline in large, relative to the size of a chip.
        tails: fraction of the three possible tails of a chip that exist.
    """

    name: Literal["chip"] = "chip"
    count: Annotated[Range, within(0, 30, whole=True)] = (1, 5)
    size: Annotated[Range, within(1, 500)] = (4, 60)
    light: Annotated[Range, within(0, 1)] = (0.72, 0.96)
    warmth: Annotated[Range, within(0, 0.5)] = (0.0, 0.14)
    rim: Annotated[Range, within(0, 1)] = (0.0, 0.5)
    ragged: Annotated[Range, within(0, 20)] = (0.3, 3)
    dented: Annotated[float, Field(ge=0, le=2)] = 0.5
    tails: Probability = 0.5

    has_mask = True

    def sample(self, keys: Tensor, size: tuple[int, int]) -> Params:
        """`sides` [B, N, 5, 3]: (a, b, c), inside where a·x + b·y < c for all; `tails` [B, N·21, 7] (see
        `draw_segments`); `tone` [B, 3]; `rim`, `ragged` [B]; `radius` [B, N] in pixels, 0 = no chip; `key`."""
        chips, scale = int(self.count[1]), self.scale(size)
        there = torch.arange(chips) < log_count(keys, 0, self.count)[:, None]
        radius = log_uniform(keys, 1, self.size, chips) * scale
        x, y = (
            uniform_range(keys, stream, (-0.03, 1.03), chips) * side - 0.5
            for stream, side in ((2, size[1]), (3, size[0]))
        )
        # Directions of the sides, roughly evenly around, and their distances: flat in one direction.
        around = torch.arange(_SIDES) + 0.9 * (uniform(keys, 4, chips * _SIDES).reshape(len(keys), chips, _SIDES) - 0.5)
        turn = 2 * math.pi * uniform(keys, 5, chips)[..., None]
        angle = turn + 2 * math.pi * around / _SIDES
        flat = uniform_range(keys, 6, (0.25, 1.0), chips)[..., None]
        axis = math.pi * uniform(keys, 7, chips)[..., None]
        near = 1 - (1 - flat) * (angle - axis).cos().square()
        far = uniform_range(keys, 8, (0.35, 1.0), chips * _SIDES).reshape(len(keys), chips, _SIDES)
        a, b = angle.cos(), angle.sin()
        c = a * x[..., None] + b * y[..., None] + radius[..., None] * near * far
        # The corners run out into points: tails that begin as wide as the chip, and end as a hair.
        n = chips * _TAILS
        links = torch.arange(_TAIL_LINKS + 1, dtype=torch.float64) / _TAIL_LINKS
        body = radius.repeat_interleave(_TAILS, 1)
        tail_length = body * uniform_range(keys, 9, (0.8, 4.0), n)
        side_way = (math.pi * (uniform(keys, 10, n) < 0.5)).to(torch.float64)
        heading = axis[..., 0].repeat_interleave(_TAILS, 1) + math.pi / 2 + side_way
        heading = heading + 0.7 * (2 * uniform(keys, 11, n) - 1)
        wander = 0.6 * (uniform(keys, 12, n * _TAIL_LINKS).reshape(len(keys), n, _TAIL_LINKS) - 0.5)
        direction, step = heading[..., None] + wander, (tail_length / _TAIL_LINKS)[..., None]
        begin = flat[..., 0].repeat_interleave(_TAILS, 1) * body * uniform_range(keys, 19, (0.1, 0.6), n)
        width = begin[..., None] * (1 - links) ** 2 + 0.5 * scale
        opacity = there.repeat_interleave(_TAILS, 1) & (uniform(keys, 18, n) < self.tails)
        start = [value.repeat_interleave(_TAILS, 1)[..., None] for value in (x, y)]
        tails = polyline_segments(
            torch.cat([start[0], start[0] + (step * direction.cos()).cumsum(2)], 2),
            torch.cat([start[1], start[1] + (step * direction.sin()).cumsum(2)], 2),
            width.clamp(min=0.5),
            opacity.to(torch.float64)[..., None],
        )
        return {
            "sides": torch.stack([a, b, c], 3),
            "tails": tails,
            "tone": paper_tone(keys, 13, self.light, self.warmth),
            "rim": uniform_range(keys, 20, self.rim),
            "ragged": uniform_range(keys, 21, self.ragged) * scale,
            "radius": radius * there,
            "key": fold_in(keys, 22),
        }

    def apply(self, image: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        """Draw the chips; see `Step.apply`."""
        size, device, key = (image.shape[-2], image.shape[-1]), image.device, params["key"]
        scale = self.scale(size)
        y, x = pixel_grid(size, device)
        outline = value_noise(key, 0, 12 * scale, size, device, octaves=3) * _number(params["ragged"], device)
        depth = image.new_full((image.shape[0], 1, *size), -1e6)
        # Between its points, a chip is dented: the paper tears in arcs.
        dents = self.dented * value_noise(key, 20, 36 * scale, size, device, octaves=3)
        drawn = (params["radius"] > 0).any(0)
        sides = to_device(params["sides"][:, drawn].to(torch.float32), device)
        radius = to_device(params["radius"][:, drawn].to(torch.float32), device)
        for i in range(sides.shape[1]):
            inside = None
            for a, b, c in (sides[:, i, k].unbind(1) for k in range(_SIDES)):
                apart = _number(c, device) - _number(a, device) * x - _number(b, device) * y
                inside = apart if inside is None else torch.minimum(inside, apart)
            assert inside is not None
            reach = _number(radius[:, i], device)
            depth = torch.maximum(depth, torch.where(reach > 0, inside + reach * dents, -1e6))
        depth = depth + outline
        tails = draw_segments(params["tails"], size, device, softness=1.5)
        cover = torch.maximum((depth / 1.6 + 0.5).clamp(0, 1), tails)
        rim = (1 - (depth + 1.2).abs() / (1.2 + 0.8 * scale)).clamp(0, 1) * _number(params["rim"], device)
        texture = 0.03 * value_noise(key, 10, 3, size, device, octaves=1)
        damaged = image * (1 - rim)
        damaged = damaged + cover * ((_color(params["tone"], device) + texture).clamp(0, 1) - damaged)
        covered = (cover > _COVERED) | (rim > _COVERED)
        window = 2 * max(5, min(60, round(0.5 * self.size[1] * scale))) + 1
        mask = visible_pixels(image, damaged, covered, window=window)
        return torch.where(mask, damaged, image), mask.to(image.dtype)


class LostEdge(ScaledStep):
    """The edge of a print in a scan: corners and edges are lost; beyond them lies the ground of the scanner.

    The straight edge of an undamaged print is not damage, so it is drawn without a mask.

    Attributes:
        count: lost corners and edges per image.
        size: how far the loss reaches in from its corner or edge, in pixels, log-uniform.
        border: fraction of images that show the straight edge of the print and the ground beyond.
        border_px: width of that strip in pixels.
        rim: width of the bare paper along the loss, in pixels.
        ragged: deviation of the outline, in pixels.
        light: luminance of the paper of the rim.
    """

    name: Literal["lost-edge"] = "lost-edge"
    count: Annotated[Range, within(0, 8, whole=True)] = (1, 4)
    size: Annotated[Range, within(1, 500)] = (12, 130)
    border: Probability = 0.4
    border_px: Annotated[Range, within(0, 200)] = (1, 14)
    rim: Annotated[Range, within(0, 60)] = (1, 11)
    ragged: Annotated[Range, within(0, 20)] = (0.5, 4)
    light: Annotated[Range, within(0, 1)] = (0.66, 0.97)

    has_mask = True

    def sample(self, keys: Tensor, size: tuple[int, int]) -> Params:
        """`cuts` [B, N, 6]: corner x, y, the half axes of the loss, its power, there; `border` [B, 4] widths of the
        strips in pixels; `tones` [B, 2, 3] of paper and ground; `rim`, `ragged` [B]; `key`."""
        cuts, scale = int(self.count[1]), self.scale(size)
        there = torch.arange(cuts) < log_count(keys, 0, self.count)[:, None]
        corner = integers(keys, 1, 0, 3, cuts)
        right, low = (corner % 2).to(torch.float64), (corner // 2).to(torch.float64)
        reach = log_uniform(keys, 2, self.size, cuts) * scale
        aspect = log_uniform(keys, 3, (0.4, 2.5), cuts).sqrt()
        # One in four is a bite out of an edge: its middle lies on the edge, and it is wide and shallow.
        bite = uniform(keys, 4, cuts) < 0.25
        upright = uniform(keys, 5, cuts) < 0.5
        place = uniform(keys, 6, cuts)
        x = torch.where(bite & ~upright, place, right) * size[1] - 0.5
        y = torch.where(bite & upright, place, low) * size[0] - 0.5
        half_x = reach * torch.where(bite, torch.where(upright, 0.45, 1.6), aspect)
        half_y = reach * torch.where(bite, torch.where(upright, 1.6, 0.45), 1 / aspect)
        # The outline is |x/a|^p + |y/b|^p = 1: p = 1 cuts straight, p < 1 bends inwards, p = 2 is an arc.
        power = torch.where(
            bite, 1.6, torch.where(uniform(keys, 7, cuts) < 0.6, 1.0, 0.7 + 0.9 * uniform(keys, 8, cuts))
        )
        # Strips along the edges: 0 where there is none.
        shows = (uniform(keys, 9, 1) < self.border) & (uniform(keys, 10, 4) < 0.75)
        border = uniform_range(keys, 11, self.border_px, 4) * scale * shows
        kind = uniform(keys, 12, 1)
        dark = uniform_range(keys, 13, (0.0, 0.12))[:, None] * torch.tensor([1.0, 1.1, 0.9])
        green = uniform_range(keys, 14, (0.06, 0.2))[:, None] * torch.tensor([0.6, 1.0, 0.55])
        white = uniform_range(keys, 15, (0.86, 1.0))[:, None].expand(-1, 3)
        gray = uniform_range(keys, 16, (0.3, 0.75))[:, None] + 0.05 * (uniform(keys, 17, 3) - 0.5)
        ground = torch.where(kind < 0.4, dark, torch.where(kind < 0.5, green, torch.where(kind < 0.9, white, gray)))
        return {
            "cuts": torch.stack([x, y, half_x, half_y, power, there.to(torch.float64)], 2),
            "border": border,
            "tones": torch.stack([paper_tone(keys, 20, self.light, (0.0, 0.14)), ground], 1),
            "rim": uniform_range(keys, 25, self.rim) * scale,
            "ragged": uniform_range(keys, 26, self.ragged) * scale,
            "key": fold_in(keys, 27),
        }

    def apply(self, image: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        """Draw the losses; see `Step.apply`."""
        size, device, key = (image.shape[-2], image.shape[-1]), image.device, params["key"]
        scale = self.scale(size)
        y, x = pixel_grid(size, device)
        ragged = _number(params["ragged"], device)
        outline = value_noise(key, 0, 14 * scale, size, device, octaves=4) * ragged
        slow = value_noise(key, 10, 50 * scale, size, device, octaves=3) * (8 * scale)
        paper, ground = to_device(params["tones"].to(torch.float32), device)[..., None, None].unbind(1)
        strips = to_device(params["border"].to(torch.float32), device)
        left, right, top, bottom = (_number(strips[:, i], device) for i in range(4))
        # How deep in the strips a pixel lies, in pixels; a little rough, as cut paper is.
        beyond_edge = image.new_full((image.shape[0], 1, *size), -1e6)
        for strip, from_edge in ((left, x), (right, size[1] - 1 - x), (top, y), (bottom, size[0] - 1 - y)):
            beyond_edge = torch.maximum(beyond_edge, torch.where(strip > 0, strip - from_edge, -1e6))
        outside = (beyond_edge + 0.15 * outline + 0.5).clamp(0, 1) * (beyond_edge > -3)

        beyond = image.new_full((image.shape[0], 1, *size), -1e6)
        cuts = params["cuts"]
        cuts = to_device(cuts[:, (cuts[..., 5] > 0).any(0)].to(torch.float32), device)
        for cut in cuts.unbind(1):
            cx, cy, half_x, half_y, power, there = (_number(v, device) for v in cut.unbind(1))
            # Distances from the corner of the print, which lies inside the strips.
            dx = (x - (cx + torch.where(cx < 1, left, torch.where(cx > size[1] - 2, -right, 0.0)))).abs()
            dy = (y - (cy + torch.where(cy < 1, top, torch.where(cy > size[0] - 2, -bottom, 0.0)))).abs()
            value = ((dx / half_x).clamp(min=1e-3) ** power + (dy / half_y).clamp(min=1e-3) ** power) ** (1 / power)
            # About the distance from the outline in pixels, near it.
            inside = (1 - value) * torch.minimum(half_x, half_y)
            beyond = torch.maximum(beyond, torch.where(there > 0, inside, -1e6))
        beyond = beyond + slow + outline
        fibre = 0.05 * (field_uniform(key, 20, (1, *size), device) - 0.5)
        width = _number(params["rim"], device) * (0.8 + 0.7 * value_noise(key, 30, 30 * scale, size, device, octaves=2))
        rim = ((beyond + width.clamp(min=0) + 0.6 * outline) / 1.6 + 0.5).clamp(0, 1) * (beyond > -1e5)
        gone = (beyond / 1.6 + 0.5).clamp(0, 1)
        damaged = image + outside * (ground - image)
        damaged = damaged + rim * (1 - outside) * ((paper + fibre).clamp(0, 1) - damaged)
        damaged = damaged + gone * (ground - damaged)
        rim_seen = visible_pixels(image, damaged, rim > _COVERED, window=2 * max(5, round(6 * scale)) + 1)
        mask = ((rim_seen & (rim > _COVERED)) | (gone > _COVERED)) & (outside < 0.5)
        return damaged, mask.to(image.dtype)


class Smear(ScaledStep):
    """Smears of ink, paint or tar: dry parallel strokes with holes, drips and splatter.

    Attributes:
        count: smears per image.
        size: length of a smear in pixels, log-uniform.
        opacity: largest opacity.
        light: fraction of images whose smears are light (paint, correction fluid).
    """

    name: Literal["smear"] = "smear"
    count: Annotated[Range, within(0, 6, whole=True)] = (1, 2)
    size: Annotated[Range, within(1, 2000)] = (25, 260)
    opacity: Annotated[Range, within(0, 1)] = (0.6, 1.0)
    light: Probability = 0.15

    has_mask = True

    def sample(self, keys: Tensor, size: tuple[int, int]) -> Params:
        """`segments` [B, N, 7] of strokes, drips and splatter (see `draw_segments`); `direction` [B, 2] of the
        strokes; `tone` [B, 3]; `dry` [B]: how much of a stroke is missing; `key`."""
        smears, strokes, drops = int(self.count[1]), 7, 30
        scale = self.scale(size)
        there = torch.arange(smears) < log_count(keys, 0, self.count)[:, None]
        length = log_uniform(keys, 1, self.size, smears) * scale
        opacity = uniform_range(keys, 2, self.opacity, smears) * there
        heading = 2 * math.pi * uniform(keys, 3, 1)
        cx, cy = uniform(keys, 4, smears) * size[1], uniform(keys, 5, smears) * size[0]

        def each(value: Tensor, n: int) -> Tensor:
            return value.repeat_interleave(n, 1)

        n = smears * strokes
        wide = each(length, strokes) * uniform_range(keys, 6, (0.02, 0.09), n)
        off = each(length, strokes) * 0.16 * (2 * uniform(keys, 7, n) - 1)
        begin = each(length, strokes) * uniform_range(keys, 8, (-0.55, -0.1), n)
        end = each(length, strokes) * uniform_range(keys, 9, (0.0, 0.55), n)
        angle = heading + 0.15 * (2 * uniform(keys, 10, n) - 1)
        t = torch.linspace(0, 1, 7, dtype=torch.float64)
        along = begin[..., None] + (end - begin)[..., None] * t
        across = off[..., None] + 0.05 * each(length, strokes)[..., None] * (
            uniform(keys, 11, n * 7).reshape(len(keys), n, 7) - 0.5
        )
        c, s = angle.cos()[..., None], angle.sin()[..., None]
        x = each(cx, strokes)[..., None] + along * c - across * s
        y = each(cy, strokes)[..., None] + along * s + across * c
        taper = torch.tensor([0.5, 0.9, 1, 1, 0.9, 0.7, 0.3], dtype=torch.float64)
        radii = (wide[..., None] * taper).clamp(min=0.6)
        brush = polyline_segments(x, y, radii, each(opacity, strokes)[..., None])
        # Splatter around, and drips downwards from half of the drops.
        n = smears * drops
        far = each(length, drops) * uniform(keys, 12, n) ** 1.5
        around = 2 * math.pi * uniform(keys, 13, n)
        x, y = each(cx, drops) + far * around.cos(), each(cy, drops) + far * around.sin()
        run = each(length, drops) * 0.25 * uniform(keys, 14, n) ** 4
        radius = (uniform_range(keys, 15, (0.4, 2.2), n) * scale).clamp(min=0.5)
        drop = polyline_segments(
            torch.stack([x, x + 0.1 * run], 2),
            torch.stack([y, y + run], 2),
            torch.stack([radius, 0.7 * radius], 2),
            (each(opacity, drops) * (uniform(keys, 16, n) < 0.6))[..., None],
        )
        ink = uniform_range(keys, 17, (0.08, 0.3))[:, None] + torch.tensor([0.04, -0.03, 0.0]) * uniform(keys, 18, 1)
        ink = ink + 0.08 * (uniform(keys, 19, 3) - 0.5)
        light = paper_tone(keys, 20, (0.8, 1.0), (0.0, 0.1))
        return {
            "segments": torch.cat([brush, drop], 1),
            "direction": torch.cat([heading.cos(), heading.sin()], 1),
            "tone": torch.where(uniform(keys, 24, 1) < self.light, light, ink.clamp(0, 1)),
            "dry": uniform_range(keys, 25, (0.0, 0.7)),
            "key": fold_in(keys, 26),
        }

    def apply(self, image: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        """Draw the smears; see `Step.apply`."""
        size, device, key = (image.shape[-2], image.shape[-1]), image.device, params["key"]
        scale = self.scale(size)
        y, x = pixel_grid(size, device)
        cover = draw_segments(params["segments"], size, device, softness=1.8)
        direction = to_device(params["direction"].to(torch.float32), device)
        c, s = _number(direction[:, 0], device), _number(direction[:, 1], device)
        # Bristles: streaks of random darkness across the stroke, broken along it.
        across, along = (y * c - x * s) / (2.2 * scale), (x * c + y * s) / (40 * scale)
        blots = value_noise(key, 0, 18 * scale, size, device, octaves=4)
        phase = 6.283 * field_uniform(key, 10, (1, 1, 2), device)
        streaks = torch.sin(across * 1.7 + phase[..., :1] + 3 * torch.sin(along + phase[..., 1:])) * torch.sin(
            across * 0.61 + 2 * blots
        )
        body = smoothstep((0.45 * streaks + 1.4 * blots - (_number(params["dry"], device) - 0.75)) / 0.3)
        cover = cover * body
        tone = (_color(params["tone"], device) + 0.06 * blots).clamp(0, 1)
        damaged = image + cover * (tone - image)
        window = 2 * max(5, min(40, round(14 * scale))) + 1
        mask = visible_pixels(image, damaged, cover > _COVERED, window=window)
        return torch.where(mask, damaged, image), mask.to(image.dtype)


class Tape(ScaledStep):
    """Strips of adhesive tape, yellowed and translucent; or the seam of a print that was torn and joined.

    Attributes:
        count: strips per image.
        width: width in pixels, log-uniform.
        tint: how much light the tape absorbs.
        seam: fraction of images with a seam in place of tape: a thin light or dark line.
    """

    name: Literal["tape"] = "tape"
    count: Annotated[Range, within(0, 6, whole=True)] = (1, 2)
    width: Annotated[Range, within(1, 300)] = (10, 70)
    tint: Annotated[Range, within(0, 1)] = (0.12, 0.5)
    seam: Probability = 0.4

    has_mask = True

    def sample(self, keys: Tensor, size: tuple[int, int]) -> Params:
        """`strips` [B, N, 6]: middle x, y, angle, half width, half length, there; `tint` [B, 3] factors; `tone` of the
        edges [B, 3]; `key`."""
        strips, scale = int(self.count[1]), self.scale(size)
        there = torch.arange(strips) < log_count(keys, 0, self.count)[:, None]
        width = log_uniform(keys, 1, self.width, strips) * scale
        is_seam = uniform(keys, 2, 1) < self.seam
        width = torch.where(is_seam, uniform_range(keys, 3, (1, 5), strips) * scale, width)
        length = torch.where(is_seam, 3.0 * max(size), width * uniform_range(keys, 4, (2, 12), strips))
        angle = (uniform(keys, 5, strips) < 0.5) * (math.pi / 2) + 0.1 * (2 * uniform(keys, 6, strips) - 1) ** 3
        x, y = uniform(keys, 7, strips) * size[1], uniform(keys, 8, strips) * size[0]
        depth = uniform_range(keys, 9, self.tint)[:, None]
        yellow = 1 - depth * torch.tensor([0.25, 0.5, 1.0]) * uniform_range(keys, 10, (0.6, 1.1))[:, None]
        # The tint of a dark seam is as faint as the seam is dark.
        tone = uniform_range(keys, 16, (0.1, 0.95))[:, None] * paper_tone(keys, 11, (1, 1), (0.0, 0.15))
        return {
            "strips": torch.stack([x, y, angle, width / 2, length / 2, there.to(torch.float64)], 2),
            "seam": is_seam[:, 0].to(torch.float64),
            "tint": yellow.clamp(0.05, 1),
            "tone": tone,
            "key": fold_in(keys, 15),
        }

    def apply(self, image: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        """Draw the strips; see `Step.apply`."""
        size, device, key = (image.shape[-2], image.shape[-1]), image.device, params["key"]
        scale = self.scale(size)
        y, x = pixel_grid(size, device)
        rough = value_noise(key, 0, 9 * scale, size, device, octaves=3) * (0.8 * scale)
        uneven = value_noise(key, 10, 40 * scale, size, device, octaves=3)
        cover = image.new_zeros(image.shape[0], 1, *size)
        edge = torch.zeros_like(cover)
        seam = _number(params["seam"], device)
        # Tape is cut straight; paper tears.
        unevenness = torch.where(seam > 0, 0.9, 0.3) * rough
        bend = torch.where(seam > 0, 2 * scale, 0.0) * uneven
        strips = params["strips"]
        strips = to_device(strips[:, (strips[..., 5] > 0).any(0)].to(torch.float32), device)
        for strip in strips.unbind(1):
            cx, cy, angle, half, reach, there = (_number(v, device) for v in strip.unbind(1))
            along = (x - cx) * angle.cos() + (y - cy) * angle.sin()
            across = (y - cy) * angle.cos() - (x - cx) * angle.sin() + bend
            inside = torch.minimum(half - across.abs(), reach - along.abs() + 2 * rough) + unevenness
            cover = torch.maximum(cover, there * (inside / 1.5 + 0.5).clamp(0, 1))
            edge = torch.maximum(edge, there * (1 - inside.abs() / 1.5).clamp(0, 1))
        tint = _color(params["tint"], device)
        taped = image * (1 - cover * (1 - tint) * (1 + 0.3 * uneven)).clamp(0, 1)
        taped = taped * (1 - 0.25 * edge)
        joined = image + cover * (_color(params["tone"], device) - image)
        damaged = torch.where(seam > 0, joined, taped)
        covered = (cover > _COVERED) | ((edge > 0.3) & (seam == 0))
        mask = visible_pixels(image, damaged, covered, window=2 * max(5, min(40, round(12 * scale))) + 1)
        return torch.where(covered, damaged, image), mask.to(image.dtype)
