"""Scores over speed: what is plotted, and where."""

import itertools
import math
from pathlib import Path

from PIL import Image

from restore.benchmark.plot import plot_figure, write_plot
from restore.benchmark.report import MeanScore, TableLine, format_score, header_and_rows
from restore.benchmark.run import INPUT


def line(model: str, seconds: float | None, degradation: str = "awgn-25", **scores: float) -> TableLine:
    means = {metric: MeanScore(value, value - 0.5, value + 0.5, 10, 0) for metric, value in scores.items()}
    return TableLine(degradation, model, means, 10, seconds)


def test_there_is_a_panel_for_every_degradation_and_metric() -> None:
    lines = [
        line(INPUT, None, psnr=20, lpips=0.4),
        line("fast", 0.1, psnr=27, lpips=0.2), line("good", 3, psnr=31, lpips=0.1),
        line("fills", 1, "holes", psnr=30, psnr_hole=20), line("none", 1, "left", ssim=0.5),
    ]  # fmt: skip
    figure = plot_figure(lines)
    assert figure is not None
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in panels] == [
        "awgn-25: PSNR (dB)", "holes: PSNR in the hole (dB)", "awgn-25: LPIPS (lower is better)",
    ]  # fmt: skip
    points = {bar.get_label(): bar.lines[0].get_xydata()[0].tolist() for bar in panels[0].containers}
    assert points == {"fast": [0.1, 27], "good": [3, 31]}
    assert panels[0].get_xscale() == "log"
    assert [text.get_text() for text in panels[0].texts] == ["input 20.00"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["fast", "good", "fills"]


def test_models_differ_in_colour_and_marker_and_keep_both_in_all_panels() -> None:
    models = [f"m{i}" for i in range(20)]
    figure = plot_figure([line(model, 1 + i, d, psnr=20 + i) for d in "ab" for i, model in enumerate(models)])
    assert figure is not None
    first, second = (
        [(bar.lines[0].get_color(), bar.lines[0].get_marker()) for bar in axes.containers] for axes in figure.axes
    )
    assert first == second
    assert len(set(first)) == len(models)


def test_labels_of_close_lines_do_not_overlap() -> None:
    published = [
        TableLine("awgn-25", f"p{i} (published)", {"psnr": MeanScore(31 + i / 100, math.nan, math.nan, 0, 0)}, 0)
        for i in range(5)
    ]
    figure = plot_figure([line("a", 1, psnr=30), *published])
    assert figure is not None
    heights = sorted(text.get_position()[1] for text in figure.axes[0].texts)
    assert min(high - low for low, high in itertools.pairwise(heights)) > 0.045
    assert heights[-1] <= 1


def test_nothing_timed_is_no_plot(tmp_path: Path) -> None:
    assert not write_plot(tmp_path / "plot.png", [line(INPUT, None, psnr=20)])
    identical = TableLine("none", "tv", {"psnr": MeanScore(math.inf, math.nan, math.nan, 0, 3)}, 3, 1.0)
    assert not write_plot(tmp_path / "plot.png", [identical])
    assert not (tmp_path / "plot.png").exists()


def test_one_model_and_one_image_are_drawn(tmp_path: Path) -> None:
    single = TableLine("x", "tv", {"psnr": MeanScore(30, math.nan, math.nan, 1, 0)}, 1, 2.0)
    assert write_plot(tmp_path / "plot.png", [single])
    assert len(Image.open(tmp_path / "plot.png").convert("RGB").getcolors(10_000)) > 2


def test_cells_of_the_table_say_what_has_no_value() -> None:
    assert format_score(MeanScore(30.866, 30.2, 31.5, 68, 0), "psnr") == "30.87 [30.20, 31.50]"
    assert format_score(MeanScore(30.866, 30.2, 31.5, 68, 0), "psnr", intervals=False) == "30.87"
    assert format_score(MeanScore(30.866, math.nan, math.nan, 1, 0), "psnr") == "30.87"
    assert format_score(MeanScore(math.inf, math.nan, math.nan, 0, 3), "psnr") == "inf"
    assert format_score(None, "lpips") == "-"
    header, rows = header_and_rows([line(INPUT, None, psnr=20), line("a", 0.12345, psnr=30)])
    assert "LPIPS" not in header, "an empty column is left out"
    assert rows[0][header.index("s/megapixel")] == "-"
    assert rows[1][header.index("s/megapixel")] == "0.123"
