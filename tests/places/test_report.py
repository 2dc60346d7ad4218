"""`restore fix --html-report` with URLs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from restore.cluster.options import ClusterOptions
from restore.cluster.placed import run_on_cluster
from restore.errors import RestoreError
from restore.fix.options import FixOptions
from restore.html import write as html_write
from restore.places import report
from restore.places.plan import plan_places
from restore.places.run import fix_places
from tests.html.test_write import data_of
from tests.places.conftest import image_bytes, mask_bytes


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files."""
    (tmp_path / "work").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "work"))
    return tmp_path / "work"


def fix(tmp_path: Path, **more: Any) -> Any:
    given = {"masks": "memory://b/masks", "device": "cpu", "html_report": tmp_path / "page"} | more
    return fix_places("memory://b/in", "memory://b/out", "telea", FixOptions(**given))


def test_before_and_after_come_from_the_store(
    memory: Any, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of images that an earlier run has finished; and why others have failed."""
    monkeypatch.setattr(report, "_IMAGES", 1)
    monkeypatch.setattr(html_write, "_MAX_WORKERS", 1)  # one row at a time, which needs one image
    monkeypatch.setattr(html_write, "_AHEAD", 0)
    for name in ("a.png", "sub/b.jpg", "broken.png"):
        memory.pipe_file(f"/b/in/{name}", image_bytes(len(name), Path(name).suffix) if "bro" not in name else b"x")
        memory.pipe_file(f"/b/masks/{name}.png", mask_bytes())
    first = fix(tmp_path, include=("a.png",))
    assert (first.done, first.html_report) == (1, tmp_path / "page/index.html")
    (before,) = data_of(tmp_path / "page")["rows"]
    assert before["name"] == "a.png"
    assert fix(tmp_path, skip_existing=True).done == 1
    rows = data_of(tmp_path / "page")["rows"]
    assert [(row["name"], row["note"]) for row in rows] == [
        ("a.png", "finished by an earlier run"), ("sub/b.jpg", ""),
    ]  # fmt: skip
    assert rows[0]["scores"] == before["scores"]
    for row in rows:
        assert list(row["views"][0]["images"]) == ["before", "after"]
        assert row["size"] == [48, 32]
        assert row["views"][0]["outline"]
    html = (tmp_path / "page/index.html").read_text()
    assert "Before: memory://b/in" in html
    assert "After: memory://b/out" in html
    assert '<td class="short">broken.png</td><td class="short">failed</td>' in html
    assert list(work.iterdir()) == []


def test_an_image_that_is_gone_is_told(memory: Any, work: Path, tmp_path: Path, monkeypatch: Any) -> None:
    memory.pipe_file("/b/in/a.png", image_bytes())
    memory.pipe_file("/b/masks/a.png", mask_bytes())
    write = report.write_places_page

    def removed(*given: Any, **more: Any) -> Path:
        memory.rm_file("/b/out/a.png")
        return write(*given, **more)

    monkeypatch.setattr("restore.places.run.write_places_page", removed)
    assert fix(tmp_path).done == 1
    (row,) = data_of(tmp_path / "page")["rows"]
    assert list(row["views"][0]["images"]) == ["before"]
    assert "after" in row["note"]


def test_detected_damage_is_outlined(memory: Any, work: Path, tmp_path: Path) -> None:
    memory.pipe_file("/b/in/a.png", image_bytes())
    plan = plan_places(["memory://b/in"], "memory://b/out", FixOptions(masks="auto", html_report=tmp_path / "page"))
    assert "saves mask" not in "".join(plan.format())
    assert plan.to_dict()["jobs"][0]["saved_mask"] is None
    for more in ({}, {"overwrite": True}):
        assert fix(tmp_path, masks="auto", **more).warnings == []
        assert (tmp_path / "page/found/a.png.png").is_file()
    assert len(data_of(tmp_path / "page")["rows"]) == 1


def test_what_cannot_be_is_refused(memory: Any, tmp_path: Path) -> None:
    memory.pipe_file("/b/in/a.png", image_bytes())
    (tmp_path / "full").mkdir()
    (tmp_path / "full/words.txt").write_text("mine")
    with pytest.raises(RestoreError, match="does not hold an earlier page"):
        plan_places(["memory://b/in"], "memory://b/out", FixOptions(html_report=tmp_path / "full"))
    with pytest.raises(RestoreError, match="need separate folders"):
        plan_places(["memory://b/in"], str(tmp_path / "out"), FixOptions(html_report=tmp_path / "out"))
    options = FixOptions(html_report=tmp_path / "page")
    plan = plan_places(["memory://b/in"], "memory://b/out", options)
    with pytest.raises(RestoreError, match="cannot be combined with URLs and --ray"):
        run_on_cluster(plan, None, options, ClusterOptions(address="local"))
    assert not (tmp_path / "page").exists()
