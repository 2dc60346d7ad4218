"""Curves of a run as a PNG, drawn from `metrics.jsonl`: one panel per kind of number, steps to the right."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from restore.images import write_png

# Numbers that belong in one panel, by its title; anything else that a run logs gets a panel of its own.
PANELS: dict[str, tuple[str, ...]] = {
    "validation PSNR (dB)": ("validation_psnr",),
    "validation SSIM": ("validation_ssim",),
    "validation LPIPS": ("validation_lpips",),
    "validation precision, recall, F1": ("validation_precision", "validation_recall", "validation_f1"),
    "share of clean pictures marked": ("validation_marked_clean",),
    "pixel loss": ("pixel",),
    "losses of the mask": ("cross_entropy", "dice"),
    "adversarial losses": ("g_adversarial", "d"),
    "other losses of G": ("g_perceptual", "g_features"),
    "penalties of D": ("d_r1", "d_gradient_penalty"),
    "mean logits of D": ("d_real", "d_fake"),
    "accuracy of D": ("d_accuracy_real", "d_accuracy_fake"),
    "gradient norms": ("g_norm", "d_norm"),
    "diversity of outputs": ("diversity",),
    "D's sensitivity": ("d_sensitivity",),
    "growth of D's filters": ("d_growth",),
    "skipped steps": ("skipped",),
    "learning rate": ("lr",),
    "images per second": ("images_per_second",),
}
COLOURS = ((31, 119, 180), (214, 96, 20), (44, 140, 60), (150, 80, 170))
WIDTH, HEIGHT, COLUMNS = 460, 260, 3
LEFT, RIGHT, TOP, BOTTOM = 62, 18, 34, 42  # margins of a panel, in pixels
_INK, _FAINT = (40, 40, 40), (225, 225, 225)

Curve = tuple[np.ndarray, np.ndarray]


def draw_curves(metrics: Path, out: Path) -> None:
    """Draw every number of a `metrics.jsonl` over the steps.

    Args:
        metrics: JSON lines with `step` and numbers by name; a torn last line is passed over.
        out: the PNG; nothing is written where there is nothing to draw.

    Raises:
        RestoreError: `out` cannot be written.
    """
    curves = read_curves(metrics)
    if curves:
        write_png(out, drawn(curves))


def read_curves(metrics: Path) -> dict[str, Curve]:
    """name -> (steps int64[n], values float64[n]), finite values only, in the order of their first appearance."""
    points: dict[str, list[tuple[int, float]]] = {}
    for line in metrics.read_text(encoding="utf-8").splitlines() if metrics.exists() else []:
        if not line.endswith("}"):
            continue
        values = json.loads(line)
        for name, value in values.items():
            if name != "step" and isinstance(value, (int, float)) and math.isfinite(value):
                points.setdefault(name, []).append((int(values.get("step", 0)), float(value)))
    return {name: (np.array([s for s, _ in p]), np.array([v for _, v in p])) for name, p in points.items()}


def drawn(curves: Mapping[str, Curve]) -> np.ndarray:
    """The panels as one picture, uint8 H×W×3."""
    panels = {title: [n for n in names if n in curves] for title, names in PANELS.items()}
    known = {name for names in PANELS.values() for name in names}
    panels |= {name.replace("_", " "): [name] for name in curves if name not in known}
    panels = {title: names for title, names in panels.items() if names}
    columns = min(COLUMNS, len(panels))
    sheet = Image.new("RGB", (WIDTH * columns, HEIGHT * math.ceil(len(panels) / columns)), (255, 255, 255))
    draw = ImageDraw.Draw(sheet)
    last = max(int(steps[-1]) for steps, _ in curves.values())
    for i, (title, names) in enumerate(panels.items()):
        corner = (i % columns * WIDTH, i // columns * HEIGHT)
        _panel(draw, corner, title, {name: curves[name] for name in names}, last)
    return np.asarray(sheet)


def _panel(
    draw: ImageDraw.ImageDraw, corner: tuple[int, int], title: str, curves: dict[str, Curve], last_step: int
) -> None:
    left, top = corner[0] + LEFT, corner[1] + TOP
    right, bottom = corner[0] + WIDTH - RIGHT, corner[1] + HEIGHT - BOTTOM
    low, high = value_range([values for _, values in curves.values()])
    small, large = ImageFont.load_default(11), ImageFont.load_default(14)
    draw.text((left, top - 8), title, _INK, large, anchor="ls")

    def at(step: float, value: float) -> tuple[float, float]:
        x = left + (right - left) * step / max(last_step, 1)
        return x, bottom - (bottom - top) * (min(max(value, low), high) - low) / (high - low)

    for tick in ticks(low, high):
        y = at(0, tick)[1]
        draw.line([(left, y), (right, y)], _FAINT)
        draw.text((left - 6, y), f"{tick:.6g}", _INK, small, anchor="rm")
    for tick in ticks(0, max(last_step, 1)):
        x = at(tick, low)[0]
        draw.line([(x, bottom), (x, bottom + 4)], _INK)
        draw.text((x, bottom + 6), f"{tick:.6g}", _INK, small, anchor="mt")
    draw.text(((left + right) / 2, bottom + 22), "step", _INK, small, anchor="mt")
    draw.line([(left, top), (left, bottom), (right, bottom)], _INK)

    edge = right
    for (name, (steps, values)), colour in zip(curves.items(), COLOURS):
        smooth = running_mean(values)
        if len(values) > 1:
            pale = tuple(c + (255 - c) * 2 // 3 for c in colour)
            if smooth is not values:
                draw.line([at(s, v) for s, v in zip(steps.tolist(), values.tolist())], pale, 1)
            draw.line([at(s, v) for s, v in zip(steps.tolist(), smooth.tolist())], colour, 2)
        if len(values) <= 20:  # few points are shown as such, one alone could not be seen otherwise
            for x, y in (at(s, v) for s, v in zip(steps.tolist(), values.tolist())):
                draw.ellipse([x - 2.5, y - 2.5, x + 2.5, y + 2.5], colour)
        label = f"{smooth[-1]:.4g}" if len(curves) == 1 else f"{name} {smooth[-1]:.4g}"
        draw.text((edge, top - 8), label, colour, small, anchor="rs")
        edge -= round(draw.textlength(label, small)) + 12


def value_range(series: Sequence[np.ndarray]) -> tuple[float, float]:
    """What the vertical axis spans: all values but wild ones, with a little air.

    Wild is what lies further beyond the middle nine tenths of the values than one and a half times their spread.
    """
    values = np.concatenate(list(series))
    low, high = float(values.min()), float(values.max())
    start, end = (float(v) for v in np.percentile(values, (5, 95)))
    if end > start:
        low, high = max(low, start - 1.5 * (end - start)), min(high, end + 1.5 * (end - start))
    air = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
    return low - air, high + air


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers within low … high, about so many: multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * 0.7)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def running_mean(values: np.ndarray) -> np.ndarray:
    """The values, smoothed over a fiftieth of their number; as they are where that is less than three."""
    window = len(values) // 50
    if window < 3:
        return values
    sums = np.concatenate([[0.0], np.cumsum(values)])
    centre = np.arange(len(values))
    start, end = np.maximum(centre - window // 2, 0), np.minimum(centre + window // 2 + 1, len(values))
    return (sums[end] - sums[start]) / (end - start)
