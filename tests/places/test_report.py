"""`restore fix --html-report` with URLs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from restore.cluster import placed
from restore.cluster.driver import Ending
from restore.cluster.options import ClusterOptions
from restore.cluster.placed import PlacedHand
from restore.cluster.worker import Introduction, Line
from restore.errors import RestoreError
from restore.fix.options import FixOptions
from restore.html import write as html_write
from restore.places import report
from restore.places.plan import plan_places
from restore.places.run import fix_places
from restore.places.store import Store, Unreachable
from tests.html.test_write import data_of
from tests.places.conftest import image_bytes, mask_bytes, write


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


def test_a_video_is_not_brought_for_one_frame(memory: Any, work: Path, tmp_path: Path, monkeypatch: Any) -> None:
    pytest.importorskip("av")
    from tests.video.conftest import make_video, moving

    source = make_video(tmp_path / "reel.mkv", moving(3), codec="ffv1")
    memory.pipe_file("/b/in/reel.mkv", source.read_bytes())
    came: list[str] = []
    download = Store.download
    monkeypatch.setattr(Store, "download", lambda store, url, path: [came.append(url), download(store, url, path)][1])
    given = {"strength": 0, "device": "cpu", "html_report": tmp_path / "page"}
    assert fix_places("memory://b/in", "memory://b/out", None, FixOptions(**given)).done == 1
    assert came == ["memory://b/in/reel.mkv"]
    (row,) = data_of(tmp_path / "page")["rows"]
    assert (row["name"], row["views"]) == ("reel.mkv", [])
    assert "no frame can be shown: it is in a store" in row["note"]
    # With its outputs on this machine, a run may still have a log in a store.
    more = given | {"log": "memory://b/log", "overwrite": True}
    fix_places(source, f"{tmp_path / 'out'}/", None, FixOptions(**more))
    (row,) = data_of(tmp_path / "page")["rows"]
    assert list(row["views"][0]["images"]) == ["before", "after"]


def test_a_page_is_not_replaced_without_what_earlier_runs_have_found(
    memory: Any, work: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    memory.pipe_file("/b/in/a.png", image_bytes())
    memory.pipe_file("/b/masks/a.png", mask_bytes())
    fix(tmp_path, html_report="memory://b/page")
    before = {name: memory.cat_file(name) for name in memory.find("/b/page")}

    def fails(store: Store, url: str) -> bytes:
        raise Unreachable("the store does not answer", where=url, exit_code=1)

    monkeypatch.setattr(Store, "read", fails)
    with pytest.raises(RestoreError, match="the store does not answer"):
        fix(tmp_path, html_report="memory://b/page", skip_existing=True)
    assert {name: memory.cat_file(name) for name in memory.find("/b/page")} == before


def test_detected_damage_is_outlined(memory: Any, work: Path, tmp_path: Path) -> None:
    memory.pipe_file("/b/in/a.png", image_bytes())
    plan = plan_places(["memory://b/in"], "memory://b/out", FixOptions(masks="auto", html_report=tmp_path / "page"))
    assert "saves mask" not in "".join(plan.format())
    assert plan.to_dict()["jobs"][0]["saved_mask"] is None
    for more in ({}, {"overwrite": True}):
        assert fix(tmp_path, masks="auto", **more).warnings == []
        assert (tmp_path / "page/found/a.png.png").is_file()
    assert len(data_of(tmp_path / "page")["rows"]) == 1


def test_a_model_that_is_missing_leaves_no_page(memory: Any, work: Path, tmp_path: Path) -> None:
    memory.pipe_file("/b/in/a.png", image_bytes())
    given = FixOptions(masks="auto", device="cpu", html_report="memory://b/page")
    with pytest.raises(RestoreError, match="telea-2"):
        fix_places("memory://b/in", "memory://b/out", "telea-2", given)
    assert memory.find("/b/page") == []


def test_what_cannot_be_is_refused(memory: Any, tmp_path: Path) -> None:
    memory.pipe_file("/b/in/a.png", image_bytes())
    (tmp_path / "full").mkdir()
    (tmp_path / "full/words.txt").write_text("mine")
    with pytest.raises(RestoreError, match="does not hold an earlier page"):
        plan_places(["memory://b/in"], "memory://b/out", FixOptions(html_report=tmp_path / "full"))
    with pytest.raises(RestoreError, match="need separate folders"):
        plan_places(["memory://b/in"], str(tmp_path / "out"), FixOptions(html_report=tmp_path / "out"))
    memory.pipe_file("/b/full/words.txt", b"mine")
    for page, words in (
        ("memory://b/full", "does not hold an earlier page"),
        ("memory://b/in/page", "the page would be inside memory://b/in, an input folder"),
        ("memory://b/out/", "need separate folders"),
    ):
        with pytest.raises(RestoreError, match=words):
            plan_places(["memory://b/in"], "memory://b/out", FixOptions(html_report=page))


def test_a_page_in_a_store_is_that_of_this_machine(memory: Any, work: Path, tmp_path: Path) -> None:
    memory.pipe_file("/b/in/a.png", image_bytes())
    fix(tmp_path, masks="auto")
    memory.rm("/b/out", recursive=True)
    summary = fix(tmp_path, masks="auto", html_report="memory://b/page")
    assert summary.html_report == "memory://b/page/index.html"
    stored = {name.removeprefix("/b/page/") for name in memory.find("/b/page")}
    here = {path.relative_to(tmp_path / "page").as_posix() for path in (tmp_path / "page").rglob("*") if path.is_file()}
    assert stored == here
    for name in ("page.js", "found/a.png.png"):
        assert memory.cat_file(f"/b/page/{name}") == (tmp_path / "page" / name).read_bytes()
    assert list(work.iterdir()) == []
    # The next run knows what that one has found.
    memory.pipe_file("/b/in/b.png", image_bytes(1))
    again = fix(tmp_path, masks="auto", html_report="memory://b/page", skip_existing=True)
    assert (again.done, again.html_report) == (1, "memory://b/page/index.html")
    page = tmp_path / "fetched"
    for name in ("data.js", "index.html"):
        write(page / name, memory.cat_file(f"/b/page/{name}"))
    rows = data_of(page)["rows"]
    assert (rows[0]["name"], rows[0]["note"].split(";")[0]) == ("a.png", "finished by an earlier run")
    assert rows[0]["scores"][1] > 0
    assert "Unfinished" not in (page / "index.html").read_text()


def test_a_cluster_has_a_report_too(memory: Any, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker in this process stands in for the cluster."""
    memory.pipe_file("/b/in/a.png", image_bytes())
    memory.pipe_file("/b/masks/a.png", mask_bytes())

    def share_out(assignment: Any, cluster: Any, results: Any, total: int, **more: Any) -> Ending:
        worker = Introduction("worker", "node", "m-1", "", "telea", None, {})
        line = Line()
        PlacedHand(assignment).take(list(results.items()), line, again=False)
        results.opened(worker)
        for result in line.results:
            results.result(worker, result)
        return Ending()

    monkeypatch.setattr(placed, "share_out", share_out)
    options = FixOptions(masks="memory://b/masks", device="cpu", html_report=tmp_path / "page")
    plan = plan_places(["memory://b/in"], "memory://b/out", options)
    summary = placed.run_on_cluster(plan, "telea", options, ClusterOptions(address="local"))
    assert (summary.done, summary.html_report) == (1, tmp_path / "page/index.html")
    (row,) = data_of(tmp_path / "page")["rows"]
    assert list(row["views"][0]["images"]) == ["before", "after"]
    assert row["scores"][0] > 0
