"""The plot of a benchmark: scores over speed, one panel per degradation and metric."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from restore.benchmark.report import MeanScore, TableLine
from restore.benchmark.run import INPUT
from restore.metrics import METRICS
from restore.plotting import COLORS, GRAY, INK, PanelSize, new_figure, save_figure, style_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LEGEND_COLUMNS = 6
_LEGEND_LINE_INCHES = 0.22
# A second property tells models apart where colors repeat or cannot be seen.
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_TITLES = {
    "psnr": "PSNR (dB)", "psnr_hole": "PSNR in the hole (dB)", "lpips": "LPIPS (lower is better)",
    "lpips_hole": "LPIPS in the hole (lower is better)",
}  # fmt: skip
# Metrics of each row of panels. The score inside the hole is preferred.
_ROWS = (("psnr_hole", "psnr"), ("lpips_hole", "lpips"))
_LABEL_SPACING = 0.05  # of the height of a panel


def write_plot(path: Path, lines: Sequence[TableLine]) -> bool:
    """Write the plot as PNG. Returns False without writing if no model has both a speed and a score.

    Raises:
        RestoreError: exit code 1; the file cannot be written.
    """
    figure = plot_figure(lines)
    if figure is not None:
        save_figure(path, figure)
    return figure is not None


def plot_figure(lines: Sequence[TableLine]) -> Figure | None:
    """Panels with degradations side by side and PSNR above LPIPS; error bars are 95 % intervals.

    Args:
        lines: of `report.table_lines`. The input and published figures have no speed and become horizontal lines.

    Returns:
        None if no model has both a speed and a score.
    """
    timed = [line for line in lines if line.seconds_per_megapixel]
    degradations = [
        d for d in dict.fromkeys(line.degradation for line in timed) if any(_metric(lines, d, row) for row in _ROWS)
    ]
    if not degradations:
        return None
    rows = [row for row in _ROWS if any(_metric(lines, degradation, row) for degradation in degradations)]
    models = list(dict.fromkeys(line.model for line in timed))
    styles = {model: (COLORS[i % len(COLORS)], _MARKERS[i % len(_MARKERS)]) for i, model in enumerate(models)}
    # Labels of horizontal lines are at the right of each panel; those of published figures are long.
    panel = PanelSize(5.6, 3.4, right=1.75 if any(line.source for line in lines) else 0.95)
    legend_lines = math.ceil(len(models) / _LEGEND_COLUMNS)
    figure, grid = new_figure(len(rows), len(degradations), panel, footer=_LEGEND_LINE_INCHES * legend_lines + 0.15)
    for row, cells in zip(rows, grid):
        for degradation, axes in zip(degradations, cells):
            metric = _metric(lines, degradation, row)
            if metric:
                cell = [
                    line for line in lines if line.degradation == degradation and _is_finite(line.means.get(metric))
                ]
                _draw_panel(axes, f"{degradation}: {_TITLES[metric]}", metric, cell, styles)
            else:
                axes.set_visible(False)
    handles = {label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels())}
    figure.legend(
        [handles[model] for model in models if model in handles], [model for model in models if model in handles],
        loc="lower center", ncols=min(_LEGEND_COLUMNS, len(models)), frameon=False, fontsize=9, labelcolor=INK,
    )  # fmt: skip
    return figure


def _metric(lines: Sequence[TableLine], degradation: str, row: Sequence[str]) -> str:
    """The first metric of a row for which a model has both a finite score and a speed; "" without any."""
    for metric in row:
        if any(
            line.degradation == degradation and line.seconds_per_megapixel and _is_finite(line.means.get(metric))
            for line in lines
        ):
            return metric
    return ""


def _is_finite(score: MeanScore | None) -> bool:
    return score is not None and math.isfinite(score.mean)


def _draw_panel(
    axes: Axes, title: str, metric: str, lines: Sequence[TableLine], styles: dict[str, tuple[str, str]]
) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    style_axes(axes, title)
    axes.set_xlabel("seconds per megapixel (faster to the left)", fontsize=8.5, color=INK)
    axes.set_xscale("log")
    axes.margins(x=0.12, y=0.1)
    for line in lines:
        score = line.means[metric]
        if line.seconds_per_megapixel:
            color, marker = styles[line.model]
            has_interval = math.isfinite(score.low)
            error = [[score.mean - score.low], [score.high - score.mean]] if has_interval else None
            axes.errorbar(
                line.seconds_per_megapixel, score.mean, error,
                color=color, marker=marker, markersize=7, capsize=3, linestyle="none", label=line.model,
            )  # fmt: skip
    speeds = [line.seconds_per_megapixel for line in lines if line.seconds_per_megapixel]
    if max(speeds) < 2 * min(speeds):  # one point, or almost: show half a decade around it
        axes.set_xlim(min(speeds) / 2, max(speeds) * 2)
    low, high = axes.get_xlim()
    # Within two decades, label also 2 and 5 times the powers of ten.
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    _draw_reference_lines(axes, metric, [line for line in lines if not line.seconds_per_megapixel])


def _draw_reference_lines(axes: Axes, metric: str, lines: Sequence[TableLine]) -> None:
    """Dashed lines for scores without a speed, labelled at the right side of the panel."""
    for line in lines:
        axes.axhline(line.means[metric].mean, color=GRAY, linewidth=0.9, linestyle="--")
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)  # labels must not change the limits
    ordered = sorted(lines, key=lambda line: line.means[metric].mean, reverse=True)
    place = 1 + _LABEL_SPACING
    for line in ordered:
        score = line.means[metric].mean
        name = "input" if line.model == INPUT else line.model
        place = min((score - low) / (high - low), place - _LABEL_SPACING)  # keeps close labels apart
        axes.text(
            1.01, place, f"{name} {score:.{METRICS[metric].decimals}f}", transform=axes.transAxes, va="center",
            fontsize=7.5, color=GRAY,
        )  # fmt: skip
