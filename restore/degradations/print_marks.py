"""Line-like damage of prints, plates and films: branching cracks, creases, scratch families, abrasion, specks.

The defaults are those of damaged prints, plates and films: widths in pixels of an image whose smaller side is 512,
contrast from the edge of visibility to white paper.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from restore.degradations.base import Probability, Range, within
from restore.degradations.crack import branching, jagged, tapered
from restore.degradations.drawing import polyline_segments
from restore.degradations.painted import PaintedMarks, log_count, log_uniform
from restore.hashed_random import fold_in, uniform, uniform_range


class Fissure(PaintedMarks):
    """Branching cracks of the emulsion of a print, down to the paper, with hairs, gaps and a raised edge.

    Attributes:
        count: cracks per image, log-uniform, not counting branches.
        length: length of a crack in pixels, log-uniform; branches are shorter.
        branches: branches per crack; each branch may have one more.
        crazed: fraction of images whose cracks lie near the edges of the image and run along one direction.
    """

    name: Literal["fissure"] = "fissure"
    count: Annotated[Range, within(0, 60, whole=True)] = (1, 8)
    width: Annotated[Range, within(0.1, 100)] = (0.8, 9)
    length: Annotated[Range, within(1, 2000)] = (40, 420)
    branches: Annotated[int, Field(ge=0, le=12)] = 3
    crazed: Probability = 0.2
    reversed: Annotated[Range, within(0, 1)] = (0.0, 0.25)
    relief: Annotated[Range, within(0, 1)] = (0.0, 0.12)

    def _segments(self, keys: Tensor, size: tuple[int, int]) -> Tensor:
        cracks = int(self.count[1])
        scale = self.scale(size)
        there = torch.arange(cracks) < log_count(keys, 0, self.count)[:, None]
        length = log_uniform(keys, 1, self.length, cracks) * scale
        # One log-uniform width per image, and the widths of its cracks around it: thin cracks go with thin ones.
        typical = log_uniform(keys, 2, self.width, 1)
        width = (typical * uniform_range(keys, 3, (-0.7, 0.5), cracks).exp()).clamp(*self.width)
        # A crack is at most a twelfth as wide as long.
        radius = torch.minimum(width * scale, length / 12) / 2
        opacity = log_uniform(keys, 4, self.opacity, 1) * uniform_range(keys, 24, (0.5, 1.0), cracks)
        crazed = uniform(keys, 25, 1) < self.crazed
        main = torch.where(uniform(keys, 26, 1) < 0.6, math.pi / 2, 0.0) + 0.3 * (2 * uniform(keys, 27, cracks) - 1)
        main = main + math.pi * (uniform(keys, 31, cracks) < 0.5)
        heading = torch.where(crazed, main, 2 * math.pi * uniform(keys, 28, cracks))
        start = []
        for stream, side, way in ((29, size[1], heading.cos()), (30, size[0], heading.sin())):
            place = uniform(keys, stream, cracks)
            # Dense at the edges: the cube is mostly close to 0.
            at_edge = torch.where(place < 0.5, 0.5 * (2 * place) ** 3, 1 - 0.5 * (2 - 2 * place) ** 3)
            start.append(torch.where(crazed, at_edge, place) * side - 0.5 - 0.5 * length * way)
        return branching(keys, start, heading, length, radius, opacity * there, self.branches, knots=True)


class Crease(PaintedMarks):
    """Creases of a bent print: a bright ridge beside a dark valley, with breaks of the emulsion down to the paper.

    Attributes:
        count: creases per image, log-uniform.
        length: length of a crease in pixels, log-uniform.
    """

    name: Literal["crease"] = "crease"
    count: Annotated[Range, within(0, 30, whole=True)] = (1, 6)
    width: Annotated[Range, within(0.1, 100)] = (0.8, 4)
    length: Annotated[Range, within(1, 2000)] = (60, 600)
    opacity: Annotated[Range, within(0.01, 1)] = (0.3, 1.0)
    gaps: Annotated[Range, within(0, 1)] = (0.4, 1.0)
    relief: Annotated[Range, within(0, 1)] = (0.06, 0.2)
    relief_px: Annotated[Range, within(0.2, 20)] = (1.5, 4)

    def _segments(self, keys: Tensor, size: tuple[int, int]) -> Tensor:
        creases, links = int(self.count[1]), 28
        scale = self.scale(size)
        there = torch.arange(creases) < log_count(keys, 0, self.count)[:, None]
        length = log_uniform(keys, 1, self.length, creases) * scale
        radius, faint = self._log_widths(keys, 2, creases, scale)
        opacity = log_uniform(keys, 3, self.opacity, creases) * faint * there
        heading = 2 * math.pi * uniform(keys, 4, creases)
        start = [
            uniform(keys, stream, creases) * side - 0.5 - 0.5 * length * way
            for stream, side, way in ((5, size[1], heading.cos()), (6, size[0], heading.sin()))
        ]
        x, y, _, _ = jagged(fold_in(keys, 7), start, heading, length, links, turn=0.1, kink=0.25, sharp=0.6)
        uneven = uniform_range(keys, 8, (0.5, 1.3), creases * (links + 1)).reshape(len(keys), creases, links + 1)
        return tapered(x, y, radius[..., None] * uneven, opacity)


class LineScratch(PaintedMarks):
    """Families of nearly parallel scratches across the image: solid, dashed or dotted; or the line of a film projector.

    Attributes:
        count: lines per image, log-uniform.
        angle: direction in degrees, 0 = horizontal, 90 = vertical; mirrored for half of the images.
        spread: largest deviation of a line from the direction of its image, in degrees.
        length: length of a line in pixels, log-uniform.
        dashed, dotted: fractions of lines that are dashed and dotted; the others are solid.
        outlier: fraction of lines in any other direction.
    """

    name: Literal["line-scratch"] = "line-scratch"
    count: Annotated[Range, within(0, 200, whole=True)] = (3, 40)
    width: Annotated[Range, within(0.1, 100)] = (0.6, 6)
    length: Annotated[Range, within(1, 4000)] = (60, 1200)
    opacity: Annotated[Range, within(0.01, 1)] = (0.06, 0.9)
    angle: Annotated[Range, within(0, 180)] = (0, 180)
    spread: Annotated[float, Field(ge=0, le=90)] = 5.0
    dashed: Probability = 0.3
    dotted: Probability = 0.15
    outlier: Probability = 0.05
    gaps: Annotated[Range, within(0, 1)] = (0.0, 0.3)

    def _segments(self, keys: Tensor, size: tuple[int, int]) -> Tensor:
        lines, links = int(self.count[1]), 72
        scale = self.scale(size)
        there = torch.arange(lines) < log_count(keys, 0, self.count)[:, None]
        length = log_uniform(keys, 1, self.length, lines) * scale
        length = length.clamp(max=1.5 * math.hypot(*size))
        radius, faint = self._log_widths(keys, 2, lines, scale)
        opacity = log_uniform(keys, 3, self.opacity, lines) * faint * there
        main = uniform_range(keys, 4, self.angle)[:, None] * (math.pi / 180)
        main = torch.where(uniform(keys, 5, 1) < 0.5, -main, main)
        apart = self.spread * (math.pi / 180) * (2 * uniform(keys, 6, lines) - 1)
        heading = torch.where(
            uniform(keys, 7, lines) < self.outlier, 2 * math.pi * uniform(keys, 8, lines), main + apart
        )
        bend = 0.25 * (2 * uniform(keys, 9, lines) - 1) ** 3
        t = torch.linspace(-0.5, 0.5, links, dtype=torch.float64)
        waves = 0.01 * (2 * uniform(keys, 17, lines * links) - 1).reshape(len(keys), lines, links).cumsum(2)
        angle = heading[..., None] + bend[..., None] * t + waves
        step = (length / links)[..., None]
        dx, dy = (step * angle.cos()).cumsum(2), (step * angle.sin()).cumsum(2)
        x, y = (
            torch.cat([middle[..., None], middle[..., None] + offset], 2) - offset.mean(2)[..., None]
            for middle, offset in (
                (uniform(keys, 10, lines) * size[1], dx),
                (uniform(keys, 11, lines) * size[0], dy),
            )
        )
        # Dashes are 5 to 30 pixels long; dots 4 to 6 pixels, every 15 to 25 pixels. Both are in steps of a segment, and
        # unevenly spaced: what scratches jumps.
        pace = uniform_range(keys, 18, (0.3, 1.7), lines * links).reshape(len(keys), lines, links)
        along = (step * pace).cumsum(2)
        dash = torch.floor(along / (uniform_range(keys, 12, (8, 24), lines)[..., None] * scale)).to(torch.int64)
        blocks = uniform(keys, 13, lines * (links + 1)).reshape(len(keys), lines, links + 1)
        dashes = blocks.gather(2, dash.clamp(max=links)) < 0.55
        pitch = uniform_range(keys, 14, (15, 25), lines)[..., None] * scale
        dots = (along % pitch) < torch.maximum(step, 5.0 * torch.ones_like(step) * scale)
        kind = uniform(keys, 15, lines)[..., None]
        on = torch.where(
            kind < self.dashed, dashes, torch.where(kind < self.dashed + self.dotted, dots, torch.ones_like(dots))
        )
        ends = (torch.minimum(t + 0.5, 0.5 - t) / 0.08).clamp(0.3, 1)
        uneven = uniform_range(keys, 16, (0.7, 1.2), lines * (links + 1)).reshape(len(keys), lines, links + 1)
        return polyline_segments(x, y, radius[..., None] * uneven, opacity[..., None] * on * ends)


class Abrasion(PaintedMarks):
    """Patches where the emulsion is rubbed: hundreds of short dashes in one direction.

    Attributes:
        count: patches per image.
        dashes: dashes per patch.
        length: length of a dash in pixels, log-uniform.
        size: radius of a patch in pixels, log-uniform.
    """

    name: Literal["abrasion"] = "abrasion"
    count: Annotated[Range, within(0, 10, whole=True)] = (1, 3)
    dashes: Annotated[int, Field(ge=1, le=2000)] = 160
    width: Annotated[Range, within(0.1, 100)] = (0.7, 2)
    length: Annotated[Range, within(0.5, 500)] = (2, 18)
    size: Annotated[Range, within(1, 1000)] = (20, 130)
    opacity: Annotated[Range, within(0.01, 1)] = (0.08, 0.7)

    def _segments(self, keys: Tensor, size: tuple[int, int]) -> Tensor:
        patches, n = int(self.count[1]), int(self.count[1]) * self.dashes
        scale = self.scale(size)
        there = torch.arange(patches) < log_count(keys, 0, self.count)[:, None]
        reach = log_uniform(keys, 1, self.size, patches) * scale
        opacity = log_uniform(keys, 2, self.opacity, patches) * there
        heading = math.pi * uniform(keys, 3, patches)
        cx, cy = uniform(keys, 4, patches) * size[1], uniform(keys, 5, patches) * size[0]
        wide = [value.repeat_interleave(self.dashes, 1) for value in (reach, opacity, heading, cx, cy)]
        reach, opacity, heading, cx, cy = wide
        # The distances from the middle of a patch: dense in the middle, thinning out.
        far = reach * uniform(keys, 6, n) ** 0.75
        around = 2 * math.pi * uniform(keys, 7, n)
        x, y = cx + far * around.cos() * 1.4, cy + far * around.sin() * 0.8
        length = log_uniform(keys, 8, self.length, n) * scale
        radius, faint = self._log_widths(keys, 9, n, scale)
        angle = heading + 0.25 * (2 * uniform(keys, 10, n) - 1)
        strength = opacity * faint * uniform_range(keys, 11, (0.4, 1.0), n)
        half_x, half_y = 0.5 * length * angle.cos(), 0.5 * length * angle.sin()
        ends = torch.stack([x - half_x, x + half_x], 2), torch.stack([y - half_y, y + half_y], 2)
        return polyline_segments(*ends, radius[..., None].expand(-1, -1, 2), strength[..., None])


class Speck(PaintedMarks):
    """Specks: dust and pinholes of a few pixels, denser at the edges; on some images with a ring of the other tone.

    Attributes:
        count: specks per image, log-uniform.
        edges: fraction of images whose specks gather at one edge.
        long: longest side of a speck, relative to its width.
    """

    name: Literal["speck"] = "speck"
    count: Annotated[Range, within(0, 2000, whole=True)] = (2, 300)
    width: Annotated[Range, within(0.1, 100)] = (1.2, 9)
    opacity: Annotated[Range, within(0.01, 1)] = (0.15, 1.0)
    bright: Probability = 0.65
    light: Annotated[Range, within(0, 1)] = (0.7, 1.0)
    gaps: Annotated[Range, within(0, 1)] = (0.0, 0.0)
    edges: Probability = 0.35
    long: Annotated[float, Field(ge=1, le=10)] = 2.5

    def _segments(self, keys: Tensor, size: tuple[int, int]) -> Tensor:
        specks, links = int(self.count[1]), 2
        scale = self.scale(size)
        there = torch.arange(specks) < log_count(keys, 0, self.count)[:, None]
        # The square of a uniform number: most specks are small.
        share = uniform(keys, 1, specks) ** 2
        low, high = math.log(self.width[0]), math.log(self.width[1])
        largest = low + (high - low) * uniform_range(keys, 2, (0.3, 1.0))[:, None]
        radius = (low + (largest - low) * share).exp() * scale / 2
        faint = (radius / 0.5).clamp(max=1)
        radius = radius.clamp(min=0.5)
        opacity = log_uniform(keys, 3, self.opacity, 1) * uniform_range(keys, 4, (0.5, 1.0), specks) * faint * there
        gathered, first = uniform(keys, 7, 1) < self.edges, uniform(keys, 8, 1) < 0.5
        beside = uniform(keys, 13, 1) < 0.5  # at the left or right edge; otherwise at the top or bottom
        places = []
        for stream, side, here in ((5, size[1], beside), (6, size[0], ~beside)):
            place = uniform(keys, stream, specks)
            bent = place**2.5
            place = torch.where(gathered & here, torch.where(first, bent, 1 - bent), place)
            places.append(place * side - 0.5)
        x, y = places
        heading = 2 * math.pi * uniform(keys, 9, specks)
        length = 2 * radius * (self.long - 1) * uniform(keys, 10, specks) ** 2
        turn = 1.5 * (2 * uniform(keys, 11, specks) - 1)
        angle = torch.stack([heading, heading + turn], 2)
        step = (length / links)[..., None]
        zero = torch.zeros_like(step)
        xs = x[..., None] + torch.cat([zero, (step * angle.cos()).cumsum(2)], 2)
        ys = y[..., None] + torch.cat([zero, (step * angle.sin()).cumsum(2)], 2)
        uneven = uniform_range(keys, 12, (0.6, 1.1), specks * 3).reshape(len(keys), specks, 3)
        return polyline_segments(xs, ys, radius[..., None] * uneven, opacity[..., None])


class GlassCrack(PaintedMarks):
    """The crack of a broken glass plate: smooth, with one kink, across the whole image; dark on light ground.

    Attributes:
        count: cracks per image.
    """

    name: Literal["glass-crack"] = "glass-crack"
    count: Annotated[Range, within(0, 10, whole=True)] = (1, 2)
    width: Annotated[Range, within(0.1, 100)] = (1.2, 5)
    opacity: Annotated[Range, within(0.01, 1)] = (0.15, 0.7)
    against: bool = True
    gaps: Annotated[Range, within(0, 1)] = (0.0, 0.05)
    halo: Annotated[Range, within(0, 1)] = (0.0, 0.25)

    def _segments(self, keys: Tensor, size: tuple[int, int]) -> Tensor:
        cracks, links = int(self.count[1]), 48
        scale = self.scale(size)
        there = torch.arange(cracks) < log_count(keys, 0, self.count)[:, None]
        radius, faint = self._log_widths(keys, 1, cracks, scale)
        opacity = log_uniform(keys, 2, self.opacity, cracks) * faint * there
        heading = 2 * math.pi * uniform(keys, 3, cracks)
        t = torch.arange(links, dtype=torch.float64)
        kink_at = (links * uniform_range(keys, 4, (0.15, 0.85), cracks))[..., None]
        kink = (uniform_range(keys, 5, (-1.2, 1.2), cracks))[..., None] * ((t - kink_at) / 3 + 0.5).clamp(0, 1)
        curve = uniform_range(keys, 6, (-0.5, 0.5), cracks)[..., None] * (t / links - 0.5)
        angle = heading[..., None] + kink + curve
        step = 2.2 * math.hypot(*size) / links
        dx, dy = (step * angle.cos()).cumsum(2), (step * angle.sin()).cumsum(2)
        middle = links // 2
        x, y = (
            torch.cat([torch.zeros_like(offset[..., :1]), offset], 2)
            - offset[..., middle : middle + 1]
            + (uniform(keys, stream, cracks) * side)[..., None]
            for stream, side, offset in ((7, size[1], dx), (8, size[0], dy))
        )
        uneven = uniform_range(keys, 9, (0.8, 1.15), cracks * (links + 1)).reshape(len(keys), cracks, links + 1)
        return polyline_segments(x, y, radius[..., None] * uneven, opacity[..., None])
