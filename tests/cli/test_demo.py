"""The demonstration: no network, and nothing of anybody else's is removed."""

from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
import pytest
from skimage import data

from restore.cli import demo
from restore.errors import RestoreError
from restore.images import read_rgb8
from restore.metrics.lpips import Backbone


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """One small photograph, no backbone on the machine, and a network that must not be asked."""

    def asked(*_: object) -> None:
        raise AssertionError("the network was asked")

    whole = data.chelsea()
    monkeypatch.setattr(demo, "PHOTOGRAPHS", ("chelsea",))
    monkeypatch.setattr(data, "chelsea", lambda: whole[50:114, 100:180])
    monkeypatch.setattr(
        "restore.metrics.lpips.lpips_status", lambda: [Backbone("alex", "https://x", Path("none"), False)]
    )
    monkeypatch.setattr(socket.socket, "connect", asked)
    monkeypatch.setattr(socket, "getaddrinfo", asked)


def test_it_repairs_scores_and_shows_without_a_network(tmp_path: Path) -> None:
    lines: list[str] = []
    sheet = demo.make_demo(tmp_path / "out", lines.append)
    assert read_rgb8(sheet).shape[2] == 3
    table = lines[lines.index("") + 1 :]
    assert len(table) == 1 + len(demo.TASKS) + 1
    assert all("->" in line for line in table[1:-1])
    assert table[-1].startswith("- : the backbone 'alex' is not on this machine; ")


def test_a_second_one_replaces_the_first_and_nothing_else(tmp_path: Path) -> None:
    sheet = demo.make_demo(tmp_path, lambda line: None)
    first = sheet.read_bytes()
    sheet.write_bytes(b"older")
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "album").mkdir()
    (tmp_path / "album" / "chelsea.png").write_text("mine too")
    demo.make_demo(tmp_path, lambda line: None)
    assert sheet.read_bytes() == first
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert (tmp_path / "album" / "chelsea.png").read_text() == "mine too"


def test_a_stranger_among_its_pictures_stops_it_before_anything_is_removed(tmp_path: Path) -> None:
    (tmp_path / demo.MARKER).touch()
    (tmp_path / "clean").mkdir()
    for name in ("chelsea.png", "family.png"):
        (tmp_path / "clean" / name).write_text("mine")
    with pytest.raises(RestoreError, match=r"family\.png: this file is not from a demo") as caught:
        demo.make_demo(tmp_path, print)
    assert caught.value.exit_code == 2
    assert (tmp_path / "clean" / "chelsea.png").read_text() == "mine"


def test_places_that_do_not_serve_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("mine")
    for out, why in (
        (tmp_path / "file", "is a file"),
        (tmp_path, "not from a demo"),
        (tmp_path / "file/in", "is a file"),
    ):
        with pytest.raises(RestoreError, match=why) as caught:
            demo.make_demo(out, print)
        assert caught.value.exit_code == 2
    monkeypatch.setattr(demo.os, "access", lambda path, mode: False)
    with pytest.raises(RestoreError, match="no permission"):
        demo.make_demo(tmp_path / "new", print)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_unknown_network_or_a_wrong_file_writes_nothing(tmp_path: Path) -> None:
    np.save(tmp_path / "no_weights.npy", np.zeros(3))
    for net, weights, why in (("alexa", None, "alexa"), ("alex", tmp_path / "no_weights.npy", "no_weights")):
        with pytest.raises(RestoreError, match=why) as caught:
            demo.make_demo(tmp_path / "out", print, net, weights)
        assert caught.value.exit_code == 2
    assert not (tmp_path / "out").exists()
