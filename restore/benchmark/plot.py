"""Plots of benchmarks: scores over speed, one panel per degradation and metric; and models in order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
    style_axes(axes, title)
    axes.set_xlabel("seconds per megapixel (faster to the left)", fontsize=8.5, color=INK)
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
    _scale_times(axes, [line.seconds_per_megapixel for line in lines if line.seconds_per_megapixel])
    _draw_reference_lines(axes, metric, [line for line in lines if not line.seconds_per_megapixel])


def _scale_times(axes: Axes, seconds: Sequence[float]) -> None:
    """A logarithmic horizontal axis for times."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    if max(seconds) < 2 * min(seconds):  # one point, or almost: show half a decade around it
        axes.set_xlim(min(seconds) / 2, max(seconds) * 2)
    low, high = axes.get_xlim()
    # Within two decades, label also 2 and 5 times the powers of ten.
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


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


# Models in order.

_ROW_INCHES = 0.26
_NAME_INCHES = 1.35
_TIME = "time"


def write_ranking(path: Path, lines: Sequence[TableLine], titles: Mapping[str, str]) -> None:
    """Write panels in which every model has a row, in the order of `lines`, as PNG.

    Args:
        path: of the file.
        lines: with the input, which becomes a dashed line.
        titles: of the metrics to show, by name.

    Raises:
        RestoreError: exit code 1; the file cannot be written.
    """
    save_figure(path, ranking_figure(lines, titles))


def ranking_figure(lines: Sequence[TableLine], titles: Mapping[str, str]) -> Figure:
    """A row of panels per degradation: each metric with its 95 % interval, and processor seconds per megapixel.

    Args:
        lines, titles: as for `write_ranking`.
    """
    degradations = list(dict.fromkeys(line.degradation for line in lines))
    most = max(sum(line.degradation == d and line.model != INPUT for line in lines) for d in degradations)
    columns = {**titles, _TIME: "CPU s/MP"}
    panel = PanelSize(3.9, 0.8 + _ROW_INCHES * most, left=_NAME_INCHES, bottom=0.35)
    figure, grid = new_figure(len(degradations), len(columns), panel)
    for cells, degradation in zip(grid, degradations):
        here = [line for line in lines if line.degradation == degradation]
        for axes, (metric, title) in zip(cells, columns.items()):
            _draw_ranking(axes, f"{degradation}: {title}", metric, here, most)
    return figure


def _draw_ranking(axes: Axes, title: str, metric: str, lines: Sequence[TableLine], rows: int) -> None:
    style_axes(axes, title)
    models = [line for line in lines if line.model != INPUT]
    axes.set_yticks(range(len(models)), [line.model for line in models])
    axes.set_ylim(rows - 0.5, -0.5)  # the best at the top; panels with fewer models have the same distances
    axes.margins(x=0.08)
    for place, line in enumerate(models):
        if metric == _TIME:
            if line.cpu_seconds_per_megapixel:
                axes.plot(line.cpu_seconds_per_megapixel, place, marker="s", markersize=5, color=COLORS[1])
        elif _is_finite(score := line.means.get(metric)):
            assert score is not None
            error = [[score.mean - score.low], [score.high - score.mean]] if math.isfinite(score.low) else None
            axes.errorbar(score.mean, place, xerr=error, marker="o", markersize=5, capsize=3, color=COLORS[0])
    times = [line.cpu_seconds_per_megapixel for line in models if line.cpu_seconds_per_megapixel]
    if metric == _TIME and times:
        _scale_times(axes, times)
    for line in lines:
        if line.model == INPUT and _is_finite(score := line.means.get(metric)):
            assert score is not None
            axes.axvline(score.mean, color=GRAY, linewidth=0.9, linestyle="--")
