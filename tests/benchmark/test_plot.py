"""Quality over speed: what is drawn, and where."""

import math

import numpy as np
import pytest

from restore.benchmark.plot import HEIGHT, WIDTH, _Axes, _log_ticks, draw_plot
from restore.benchmark.report import Line, Mean, header_and_rows, shown
from restore.benchmark.run import INPUT


def line(model: str, seconds: float | None, damage: str = "awgn-25", **scores: float) -> Line:
    means = {metric: Mean(value, value - 0.5, value + 0.5, 10, 0) for metric, value in scores.items()}
    return Line(damage, model, means, 10, seconds)


def test_a_panel_for_every_damage_and_metric() -> None:
    lines = [
        line(INPUT, None, psnr=20, lpips=0.4),
        line("fast", 0.1, psnr=27, lpips=0.2), line("good", 3, psnr=31, lpips=0.1),
        line("fills", 1, "holes", psnr=30, psnr_hole=20), line("none", 1, "left", ssim=0.5),
    ]  # fmt: skip
    plot = draw_plot(lines)
    assert plot is not None
    assert plot.shape == (2 * HEIGHT, 2 * WIDTH, 3)
    assert (plot[HEIGHT:, WIDTH:] == 255).all(), "there is no LPIPS of the holes"


def test_nothing_timed_is_no_plot() -> None:
    assert draw_plot([line(INPUT, None, psnr=20)]) is None
    identical = Line("none", "tv", {"psnr": Mean(math.inf, math.nan, math.nan, 0, 3)}, 3, 1.0)
    assert draw_plot([identical]) is None


def test_one_model_alone_and_one_picture_alone_are_drawn() -> None:
    single = Line("x", "tv", {"psnr": Mean(30, math.nan, math.nan, 1, 0)}, 1, 2.0)
    plot = draw_plot([single])
    assert plot is not None
    assert len(np.unique(plot.reshape(-1, 3), axis=0)) > 2


def test_speed_is_on_a_logarithmic_axis() -> None:
    axes = _Axes((-1, 1), (20, 30))
    (left, bottom), (middle, _), (right, top) = axes.at(0.1, 20), axes.at(1, 25), axes.at(10, 30)
    assert middle == pytest.approx((left + right) / 2)
    assert top < bottom
    assert _log_ticks(-1, 1) == pytest.approx([0.1, 0.2, 0.5, 1, 2, 5, 10])
    assert _log_ticks(-2, 2) == pytest.approx([0.01, 0.1, 1, 10, 100])


def test_cells_of_the_table_say_what_has_no_value() -> None:
    assert shown(Mean(30.866, 30.2, 31.5, 68, 0), "psnr") == "30.87 [30.20, 31.50]"
    assert shown(Mean(30.866, 30.2, 31.5, 68, 0), "psnr", intervals=False) == "30.87"
    assert shown(Mean(30.866, math.nan, math.nan, 1, 0), "psnr") == "30.87"
    assert shown(Mean(math.inf, math.nan, math.nan, 0, 3), "psnr") == "inf"
    assert shown(None, "lpips") == "-"
    header, rows = header_and_rows([line(INPUT, None, psnr=20), line("a", 0.12345, psnr=30)])
    assert "LPIPS" not in header, "an empty column is left out"
    assert rows[0][header.index("s/megapixel")] == "-"
    assert rows[1][header.index("s/megapixel")] == "0.123"
