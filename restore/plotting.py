"""Plots with matplotlib, drawn without its global state; and the curves of a training run."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from restore.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Distinguishable with most kinds of color blindness (Okabe and Ito, "Color Universal Design", 2008).
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
INK, GRAY, GRID = "#262626", "#767676", "#e4e4e4"

_DPI = 100

# Panels of a training run by title. Other logged values each get a panel of their own.
PANELS: dict[str, tuple[str, ...]] = {
    "validation PSNR (dB)": ("validation_psnr",),
    "validation SSIM": ("validation_ssim",),
    "validation LPIPS": ("validation_lpips",),
    "validation detection": ("validation_precision", "validation_recall", "validation_f1"),
    "detections in clean images (fraction)": ("validation_marked_clean",),
    "pixel loss": ("pixel",),
    "mask losses": ("cross_entropy", "dice"),
    "adversarial losses": ("g_adversarial", "d"),
    "other losses of G": ("g_perceptual", "g_features"),
    "penalties of D": ("d_r1", "d_gradient_penalty"),
    "mean logits of D": ("d_real", "d_fake"),
    "accuracy of D": ("d_accuracy_real", "d_accuracy_fake"),
    "gradient norms": ("g_norm", "d_norm"),
    "diversity of outputs": ("diversity",),
    "sensitivity of D": ("d_sensitivity",),
    "growth of D's filters": ("d_growth",),
    "skipped steps": ("skipped",),
    "learning rate": ("lr",),
    "images per second": ("images_per_second",),
}
_COLUMNS = 3
_FEW_POINTS = 20

FloatArray = npt.NDArray[np.float64]
Curve = tuple[npt.NDArray[np.int64], FloatArray]


# Figures.


@dataclass(frozen=True)
class PanelSize:
    """Size of a panel and of the margins around its axes, in inches."""

    width: float
    height: float
    left: float = 0.65
    right: float = 0.25
    top: float = 0.4
    bottom: float = 0.5


def new_figure(rows: int, columns: int, panel: PanelSize, footer: float = 0) -> tuple[Figure, list[list[Axes]]]:
    """Create a grid of empty panels.

    The figure is made with matplotlib's object API, because pyplot keeps global state and picks a GUI backend.
    Margins are fixed because matplotlib's automatic layout takes as long as drawing.

    Args:
        rows, columns: number of panels.
        panel: size of each panel.
        footer: height of an empty strip at the bottom, in inches.

    Returns:
        The figure and its axes by row.
    """
    from matplotlib.figure import Figure

    width, height = panel.width * columns, panel.height * rows + footer
    figure = Figure((width, height), dpi=_DPI)
    size = ((panel.width - panel.left - panel.right) / width, (panel.height - panel.top - panel.bottom) / height)

    def add(row: int, column: int) -> Axes:
        left, bottom = column * panel.width + panel.left, height - (row + 1) * panel.height + panel.bottom
        return figure.add_axes((left / width, bottom / height, *size))

    return figure, [[add(row, column) for column in range(columns)] for row in range(rows)]


def style_axes(axes: Axes, title: str) -> None:
    """Title at the left, a light grid behind the data, no frame at the top and right."""
    axes.set_title(title, loc="left", fontsize=10.5, color=INK)
    axes.set_axisbelow(True)
    axes.grid(color=GRID, linewidth=0.8)
    axes.tick_params(labelsize=8.5, color=GRAY, labelcolor=INK)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(GRAY)


def save_figure(path: Path, figure: Figure) -> None:
    """Render a figure as PNG and write it atomically.

    Raises:
        RestoreError: exit code 1; the file cannot be written.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})  # no version of matplotlib in the file
    write_atomically(path, buffer.getvalue())


# Curves of a training run.


def draw_curves(metrics: Path, out: Path) -> None:
    """Plot every value of a `metrics.jsonl` over the steps.

    Args:
        metrics: JSON lines with `step` and numbers by name. An incomplete last line is ignored.
        out: PNG file; it is not written if there are no values.

    Raises:
        RestoreError: `out` cannot be written.
    """
    curves = read_curves(metrics)
    if curves:
        save_figure(out, curves_figure(curves))


def read_curves(metrics: Path) -> dict[str, Curve]:
    """Read name -> (steps int64[n], values float64[n]): finite values only, in the order of first appearance."""
    points: dict[str, list[tuple[int, float]]] = {}
    for line in metrics.read_text(encoding="utf-8").splitlines() if metrics.exists() else []:
        if not line.endswith("}"):
            continue
        values = json.loads(line)
        for name, value in values.items():
            if name != "step" and isinstance(value, (int, float)) and math.isfinite(value):
                points.setdefault(name, []).append((int(values.get("step", 0)), float(value)))
    return {
        name: (np.array([step for step, _ in p], np.int64), np.array([value for _, value in p], np.float64))
        for name, p in points.items()
    }


def curves_figure(curves: Mapping[str, Curve]) -> Figure:
    """A figure with one panel for each group of related values."""
    panels = {title: [n for n in names if n in curves] for title, names in PANELS.items()}
    grouped = {name for names in PANELS.values() for name in names}
    panels |= {name.replace("_", " "): [name] for name in curves if name not in grouped}
    panels = {title: names for title, names in panels.items() if names}
    columns = min(_COLUMNS, len(panels))
    figure, grid = new_figure(math.ceil(len(panels) / columns), columns, PanelSize(4.6, 2.7))
    cells = [axes for row in grid for axes in row]
    last_step = max(int(steps[-1]) for steps, _ in curves.values())
    for axes, (title, names) in zip(cells, panels.items()):
        _draw_panel(axes, title, {name: curves[name] for name in names}, last_step)
    for axes in cells[len(panels) :]:
        axes.set_visible(False)
    return figure


def _draw_panel(axes: Axes, title: str, curves: dict[str, Curve], last_step: int) -> None:
    from matplotlib.ticker import FuncFormatter

    style_axes(axes, title)
    axes.set_xlim(0, max(last_step, 1))
    axes.set_ylim(*value_range([values for _, values in curves.values()]))
    axes.set_xlabel("step", fontsize=8.5, color=INK)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}"))
    groups = {name.rpartition("_")[0] for name in curves}
    shared = len(groups.pop()) + 1 if len(groups) == 1 and len(curves) > 1 else 0  # length of "d_" in d_real and d_fake
    for (name, (steps, values)), color in zip(curves.items(), COLORS):
        smooth = running_mean(values)
        if smooth is not values:
            axes.plot(steps, values, color=color, alpha=0.3, linewidth=0.8, zorder=2)
        # Markers for short curves: a single point would be invisible as a line.
        marker = "o" if len(values) <= _FEW_POINTS else None
        label = f"{smooth[-1]:.4g}" if len(curves) == 1 else f"{name[shared:]} {smooth[-1]:.4g}"
        axes.plot(steps, smooth, color=color, linewidth=1.6, marker=marker, markersize=3.5, label=label, zorder=3)
    axes.legend(
        loc="lower right", bbox_to_anchor=(1.01, 1), ncols=len(curves), borderaxespad=0.2, columnspacing=1,
        fontsize=8, frameon=False, handlelength=1, handletextpad=0.4, labelcolor=INK,
    )  # fmt: skip


def value_range(series: Sequence[FloatArray]) -> tuple[float, float]:
    """Limits of a vertical axis: all values except outliers, with a margin.

    Outliers lie more than 1.5 times the spread of the middle 90 % beyond that middle. A single spike would otherwise
    flatten the rest of the curve.
    """
    values = np.concatenate(list(series))
    low, high = float(values.min()), float(values.max())
    start, end = (float(v) for v in np.percentile(values, (5, 95)))
    if end > start:
        low, high = max(low, start - 1.5 * (end - start)), min(high, end + 1.5 * (end - start))
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
    return low - margin, high + margin


def running_mean(values: FloatArray) -> FloatArray:
    """Smooth over a fiftieth of the values; unchanged if that is fewer than three."""
    window = len(values) // 50
    if window < 3:
        return values
    sums = np.concatenate([[0.0], np.cumsum(values)])
    center = np.arange(len(values))
    start, end = np.maximum(center - window // 2, 0), np.minimum(center + window // 2 + 1, len(values))
    smooth: FloatArray = (sums[end] - sums[start]) / (end - start)
    return smooth
