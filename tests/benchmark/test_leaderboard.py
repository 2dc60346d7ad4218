"""The table and the plot of the leaderboard: who runs where, in what order, and one small run."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage

from benchmarks import leaderboard
from restore.benchmark.degradations import find_degradations
from restore.benchmark.plan import open_models
from restore.benchmark.plot import ranking_figure
from restore.benchmark.report import MeanScore, TableLine
from restore.benchmark.run import INPUT
from restore.images import read_rgb8, write_png


def test_a_model_runs_on_the_damage_that_it_is_for() -> None:
    models = open_models(
        ["telea", "tv", "lanczos-x2", "lanczos-x4"], device="cpu", precision="auto", engine="auto", tile_px=0
    )
    found = {
        damage.label: [model.label for model in models if leaderboard.belongs(damage, model)]
        for damage in find_degradations(["awgn-25", "inpaint-thin", "old-photo", "bicubic-x2"], 0)
    }
    assert found == {
        "awgn-25": ["tv"], "inpaint-thin": ["telea"], "old-photo": ["tv"], "bicubic-x2": ["lanczos-x2"],
    }  # fmt: skip


def line(degradation: str, model: str, psnr: float, lpips: float | None = None, cpu: float | None = 1.0) -> TableLine:
    means = {"psnr": MeanScore(psnr, psnr - 1, psnr + 1, 8, 0)}
    if lpips is not None:
        means["lpips"] = MeanScore(lpips, lpips - 0.01, lpips + 0.01, 8, 0)
    return TableLine(degradation, model, means, 8, cpu, cpu_seconds_per_megapixel=cpu)


def test_the_best_comes_first_and_backbones_stand_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    of_net = {
        net: [line("noise", INPUT, 20, 0.4, None), line("noise", "sharp", 29, sharp), line("noise", "soft", 30, 0.2)]
        for net, sharp in (("alex", 0.1), ("squeeze", 0.3))
    }
    monkeypatch.setattr(leaderboard, "table_lines", lambda net: of_net[net])
    rows = leaderboard.ranked([(net, net) for net in of_net])  # type: ignore[misc]
    assert [row.line.model for row in rows] == ["sharp", "soft", INPUT]
    assert rows[0].cells(["psnr", "alex", "squeeze"]) == [
        "noise", "sharp", "29.00 [28.00, 30.00]", "0.1000 [0.0900, 0.1100]", "0.3000 [0.2900, 0.3100]", "1", "-",
    ]  # fmt: skip
    of_net["alex"] = [line("noise", "sharp", 29), line("noise", "soft", 30)]
    assert [row.line.model for row in leaderboard.ranked([("alex", "alex")])] == ["soft", "sharp"]  # type: ignore[list-item]


def test_each_model_has_a_row_in_every_panel() -> None:
    lines = [line("a", "x", 30), line("a", "y", 29), line("a", INPUT, 20, cpu=None), line("b", "z", math.inf)]
    figure = ranking_figure(lines, {"psnr": "PSNR"})
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "a: PSNR", "a: CPU s/MP", "b: PSNR", "b: CPU s/MP",
    ]  # fmt: skip
    first = figure.axes[0]
    assert [label.get_text() for label in first.get_yticklabels()] == ["x", "y"]
    assert [bar.lines[0].get_xydata()[0].tolist() for bar in first.containers] == [[30, 0], [29, 1]]
    assert first.get_ylim() == (1.5, -0.5)


def test_one_command_writes_the_table_and_the_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    (tmp_path / "clean" / "sub").mkdir(parents=True)
    for name, at in (("a", 60), ("sub/b", 120)):
        write_png(
            tmp_path / "clean" / f"{name}.png",
            np.ascontiguousarray(skimage.data.astronaut()[at : at + 60, at : at + 90]),
        )
    monkeypatch.setattr(leaderboard, "default_models", lambda without, notes: ["tv", "telea"])
    monkeypatch.setattr(leaderboard, "NETS", ("alex",))
    monkeypatch.setattr("restore.benchmark.plan.open_lpips_if_available", lambda *_: (None, "no backbone here"))
    command = [
        "leaderboard.py",
        str(tmp_path / "clean"),
        "--out",
        str(tmp_path / "out"),
        "--damage",
        "awgn-25",
        "--crop",
        "48",
    ]
    monkeypatch.setattr(sys, "argv", command)
    leaderboard.main()
    assert read_rgb8(tmp_path / "out" / "crops" / "sub" / "b.png").shape == (48, 48, 3)
    table = (tmp_path / "out" / "leaderboard.md").read_text()
    rows = [text.split(" | ")[0:2] for text in table.splitlines() if text.startswith("| awgn-25")]
    assert rows == [["| awgn-25", "tv"], ["| awgn-25", "(input)"]]
    assert "No LPIPS with alex: no backbone here." in table
    assert read_rgb8(tmp_path / "out" / "leaderboard.png").shape[1] > 500
