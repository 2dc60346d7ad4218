"""Quality over speed: a panel for every damage and metric, a point for every model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from restore.benchmark.report import Line, Mean
from restore.benchmark.run import INPUT
from restore.images.contact_sheet import FRAMES, Colour
from restore.metrics import METRICS
from restore.plotting import ticks

WIDTH, HEIGHT = 520, 340  # of a panel
LEFT, RIGHT, TOP, BOTTOM = 62, 24, 40, 48
_SMOOTH = 3  # drawn so many times larger, then reduced, for smooth lines
_INK, _FAINT, _GRAY = (40, 40, 40), (228, 228, 228), (120, 120, 120)
_WORDS = {
    "psnr": "PSNR (dB)", "psnr_hole": "PSNR in the hole (dB)", "lpips": "LPIPS (lower is better)",
    "lpips_hole": "LPIPS in the hole (lower is better)",
}  # fmt: skip
_NAME_PX = 16  # what the name of a line across needs

Place = tuple[float, float, float, float]
"""Left, top, right and bottom of something drawn."""


@dataclass(frozen=True)
class _Axes:
    """From seconds per megapixel (logarithmic) and a score to pixels of a panel."""

    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, seconds: float, score: float) -> tuple[float, float]:
        along = (math.log10(seconds) - self.x[0]) / (self.x[1] - self.x[0])
        up = (score - self.y[0]) / (self.y[1] - self.y[0])
        return LEFT + along * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)


def draw_plot(lines: Sequence[Line]) -> np.ndarray | None:
    """The panels as one picture: damages side by side, PSNR above LPIPS; bars are 95 % intervals.

    Args:
        lines: of `bench_table.lines_of`. The input and published figures, which have no speed, are lines across.

    Returns:
        uint8, H×W×3; None where no model has both a speed and a score.
    """
    timed = [line for line in lines if line.seconds_per_megapixel]
    damages = [d for d in dict.fromkeys(line.damage for line in timed) if any(_plotted(lines, d, k) for k in (0, 1))]
    if not damages:
        return None
    rows = [kind for kind in (0, 1) if any(_plotted(lines, damage, kind) for damage in damages)]
    models = list(dict.fromkeys(line.model for line in timed))
    colours = {model: FRAMES[i % len(FRAMES)] for i, model in enumerate(models)}
    sheet = Image.new("RGB", (WIDTH * len(damages), HEIGHT * len(rows)), "white")
    for column, damage in enumerate(damages):
        for row, kind in enumerate(rows):
            found = _plotted(lines, damage, kind)
            if found:
                panel = _panel(damage, found, [line for line in lines if line.damage == damage], colours)
                sheet.paste(panel, (WIDTH * column, HEIGHT * row))
    return np.asarray(sheet)


def _plotted(lines: Sequence[Line], damage: str, kind: int) -> str:
    """The metric of a panel: of the hole where there are any; "" where no model has a finite score in it."""
    for metric in (("psnr_hole", "psnr"), ("lpips_hole", "lpips"))[kind]:
        if any(
            line.damage == damage and line.seconds_per_megapixel and _finite(line.means.get(metric)) for line in lines
        ):
            return metric
    return ""


def _finite(mean: Mean | None) -> bool:
    return mean is not None and math.isfinite(mean.mean)


def _panel(damage: str, metric: str, lines: Sequence[Line], colours: dict[str, Colour]) -> Image.Image:
    shown = [line for line in lines if _finite(line.means.get(metric))]
    timed = [line for line in shown if line.seconds_per_megapixel]
    axes = _axes(shown, timed, metric)
    canvas = Image.new("RGB", (WIDTH * _SMOOTH, HEIGHT * _SMOOTH), "white")
    draw = _Pen(ImageDraw.Draw(canvas))
    draw.text((LEFT, TOP - 14), f"{damage}: {_WORDS[metric]}", _INK, 15, "ls")
    _draw_axes(draw, axes, metric)
    taken: list[Place] = []
    points = [(line, axes.at(line.seconds_per_megapixel or 1, line.means[metric].mean)) for line in timed]
    taken += [(x - 6, y - 6, x + 6, y + 6) for _, (x, y) in points]
    for together in _close_together(axes, [line for line in shown if line not in timed], metric):
        _across(draw, axes, together, metric, taken)
    for line, (x, _) in points:
        mean = line.means[metric]
        if math.isfinite(mean.low):
            ends = [axes.at(line.seconds_per_megapixel or 1, value)[1] for value in (mean.low, mean.high)]
            draw.line([(x, ends[0]), (x, ends[1])], colours[line.model], 1.5)
            taken.append((x - 5, ends[1], x + 5, ends[0]))
            for end in ends:
                draw.line([(x - 4, end), (x + 4, end)], colours[line.model], 1.5)
    for line, (x, y) in points:
        draw.dot((x, y), 5, colours[line.model])
        text = f"{line.model} {line.means[metric].mean:.{METRICS[metric].decimals}f}"
        corner = _free_place(draw, text, (x, y), taken)
        draw.text(corner, text, _INK, 12, "lt")
    return canvas.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)


def _axes(shown: Sequence[Line], timed: Sequence[Line], metric: str) -> _Axes:
    speeds = [math.log10(line.seconds_per_megapixel or 1) for line in timed]
    values = [
        value
        for line in shown
        for mean in (line.means[metric],)
        for value in (mean.mean, mean.low, mean.high)
        if math.isfinite(value)
    ]
    air = max(0.25, 0.12 * (max(speeds) - min(speeds)))
    room = 0.08 * (max(values) - min(values)) or 0.05 * abs(max(values)) or 0.5
    return _Axes((min(speeds) - air, max(speeds) + air), (min(values) - room, max(values) + room))


def _draw_axes(draw: _Pen, axes: _Axes, metric: str) -> None:
    bottom = HEIGHT - BOTTOM
    for value in ticks(*axes.y):
        y = axes.at(1, value)[1]
        draw.line([(LEFT, y), (WIDTH - RIGHT, y)], _FAINT, 1)
        draw.text((LEFT - 7, y), f"{value:.6g}", _INK, 11, "rm")
    for seconds in _log_ticks(*axes.x):
        x = axes.at(seconds, axes.y[0])[0]
        draw.line([(x, TOP), (x, bottom)], _FAINT, 1)
        draw.text((x, bottom + 7), f"{seconds:g}", _INK, 11, "mt")
    draw.line([(LEFT, TOP), (LEFT, bottom), (WIDTH - RIGHT, bottom)], _INK, 1)
    draw.text(((LEFT + WIDTH - RIGHT) / 2, bottom + 26), "seconds per megapixel (faster to the left)", _INK, 11, "mt")


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten within 10^low … 10^high; within less than two of these also 2 and 5 times."""
    steps = (1,) if high - low > 2.5 else (1, 2, 5)
    powers = range(math.floor(low), math.ceil(high) + 1)
    return [10.0**power * step for power in powers for step in steps if low <= math.log10(10.0**power * step) <= high]


def _close_together(axes: _Axes, lines: Sequence[Line], metric: str) -> list[list[Line]]:
    """Lines across whose names would not fit between them share one: groups, from the top down."""
    groups: list[list[Line]] = []
    height = None
    for line in sorted(lines, key=lambda line: axes.at(1, line.means[metric].mean)[1]):
        y = axes.at(1, line.means[metric].mean)[1]
        if height is not None and y - height < _NAME_PX:
            groups[-1].append(line)
        else:
            groups.append([line])
        height = y if height is None or len(groups[-1]) == 1 else height
    return groups


def _across(draw: _Pen, axes: _Axes, lines: Sequence[Line], metric: str, taken: list[Place]) -> None:
    """Dashed lines for what has a score and no speed, with one name for those that lie close together."""
    heights = [axes.at(1, line.means[metric].mean)[1] for line in lines]
    for y in heights:
        for x in range(LEFT, WIDTH - RIGHT, 9):
            draw.line([(x, y), (min(x + 5, WIDTH - RIGHT), y)], _GRAY, 1)
        taken.append((LEFT, y - 1, WIDTH - RIGHT, y + 1))
    published = all(line.source for line in lines)
    names = [
        f"{'input' if line.model == INPUT else line.model.partition(' (')[0] if published else line.model} "
        f"{line.means[metric].mean:.{METRICS[metric].decimals}f}"
        for line in lines
    ]
    text = ("published: " if published else "") + ", ".join(names)
    width = draw.width(text, 11)
    spots = [(x, y) for x in (WIDTH - RIGHT - 2 - width, LEFT + 4) for y in (heights[0] - 15, heights[-1] + 4)]
    left, top = min(spots, key=lambda spot: _covered((*spot, spot[0] + width, spot[1] + 12), taken))
    draw.text((left, top), text, _GRAY, 11, "lt")
    taken.append((left, top, left + width, top + 12))


def _free_place(draw: _Pen, text: str, point: tuple[float, float], taken: list[Place]) -> tuple[float, float]:
    """The upper left corner for a name beside a point: right, left, above or below, wherever it covers least."""
    width, height = draw.width(text, 12), 13
    x, y = point
    spots = [(x + 9, y - 7), (x - 9 - width, y - 7)]
    for step in range(1, 5):
        spots += [(x + 9, y - 7 - 9 * step), (x + 9, y - 7 + 9 * step)]
        spots += [(x - 9 - width, y - 7 - 9 * step), (x - 9 - width, y - 7 + 9 * step)]
    places = [(left - 2, top - 1, left + width + 2, top + height + 1) for left, top in spots]
    best = min(range(len(spots)), key=lambda i: _covered(places[i], taken))
    taken.append(places[best])
    return spots[best]


def _covered(place: Place, taken: Sequence[Place]) -> float:
    """How much of what is drawn a name there would cover; leaving the panel counts for a lot."""
    left, top, right, bottom = place
    outside = max(0.0, LEFT - left, right - (WIDTH - 4), TOP - 6 - top, bottom - (HEIGHT - BOTTOM))
    overlap = sum(
        max(0.0, min(right, box[2]) - max(left, box[0])) * max(0.0, min(bottom, box[3]) - max(top, box[1]))
        for box in taken
    )
    return overlap + 100 * outside


class _Pen:
    """Draws in the panel's pixels on a canvas that is `_SMOOTH` times as large."""

    def __init__(self, draw: ImageDraw.ImageDraw) -> None:
        self._draw = draw

    def line(self, points: Sequence[tuple[float, float]], colour: Colour, width: float) -> None:
        self._draw.line([(x * _SMOOTH, y * _SMOOTH) for x, y in points], colour, round(width * _SMOOTH))

    def dot(self, centre: tuple[float, float], radius: float, colour: Colour) -> None:
        (x, y), rim = centre, radius + 1.5
        for size, fill in ((rim, (255, 255, 255)), (radius, colour)):
            self._draw.ellipse([(c + d) * _SMOOTH for d in (-size, size) for c in (x, y)], fill)

    def text(self, at: tuple[float, float], text: str, colour: Colour, size: int, anchor: str) -> None:
        font = ImageFont.load_default(size * _SMOOTH)
        self._draw.text((at[0] * _SMOOTH, at[1] * _SMOOTH), text, colour, font, anchor=anchor)

    def width(self, text: str, size: int) -> float:
        return ImageFont.load_default(size * _SMOOTH).getlength(text) / _SMOOTH
