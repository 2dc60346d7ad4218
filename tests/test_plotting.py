"""Curves of a training run: what is drawn, and that nothing global is touched."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from restore.plotting import COLORS, curves_figure, draw_curves, read_curves, running_mean, value_range


def curve(*values: float) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(1, len(values) + 1), np.array(values)


def test_every_value_is_a_line_in_its_panel() -> None:
    figure = curves_figure({"pixel": curve(1, 2, 3), "d_real": curve(1, 2), "d_fake": curve(-1, -2), "own": curve(5)})
    panels = {axes.get_title(loc="left"): axes for axes in figure.axes if axes.get_visible()}
    assert list(panels) == ["pixel loss", "mean logits of D", "own"]
    logits = panels["mean logits of D"]
    assert [line.get_ydata().tolist() for line in logits.lines] == [[1, 2], [-1, -2]]
    assert [line.get_color() for line in logits.lines] == list(COLORS[:2])
    assert [text.get_text() for text in logits.get_legend().get_texts()] == ["real 2", "fake -2"]
    assert panels["own"].lines[0].get_marker() == "o", "a single point is visible"


def test_long_curves_are_smoothed_over_the_pale_values() -> None:
    figure = curves_figure({"pixel": curve(*np.random.default_rng(0).normal(size=500))})
    pale, smooth = figure.axes[0].lines
    assert pale.get_alpha() < 1
    assert np.std(smooth.get_ydata()) < 0.4


def test_matplotlib_is_loaded_only_to_draw_and_without_pyplot(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "pixel": 0.5}\n')
    probe = f"""if True:
        import sys
        from pathlib import Path
        from restore.plotting import draw_curves
        assert "matplotlib" not in sys.modules
        draw_curves(Path({str(tmp_path / "metrics.jsonl")!r}), Path({str(tmp_path / "curves.png")!r}))
        assert "matplotlib.pyplot" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", probe], check=True)
    assert Image.open(tmp_path / "curves.png").size == (460, 270)


def test_torn_lines_and_numbers_that_are_none_are_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1, "pixel": 0.5}\n{"step": 2, "pixel": NaN}\n{"step": 3, "pix')
    assert read_curves(file)["pixel"][0].tolist() == [1]
    draw_curves(file, tmp_path / "one.png")
    assert (tmp_path / "one.png").exists(), "one point is a picture too"
    file.write_text("")
    draw_curves(file, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_one_wild_value_does_not_flatten_a_curve() -> None:
    values = np.full(1000, 0.5) + np.linspace(0, 0.1, 1000)
    values[3] = 1e6
    low, high = value_range([values])
    assert 0.45 < low < 0.5
    assert 0.6 < high < 0.8
    assert value_range([np.array([2.0, 2.0])]) == pytest.approx((1.9, 2.1)), "a flat line has room too"


def test_a_running_mean_keeps_a_straight_line() -> None:
    line = np.linspace(0, 1, 501)
    assert running_mean(line)[5:-5] == pytest.approx(line[5:-5])
    noise = np.random.default_rng(0).normal(size=500)
    assert running_mean(noise).std() < 0.4
    assert running_mean(noise[:20]) is not None
