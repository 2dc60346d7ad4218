"""`restore fix --html-report`: before and after of every file, and what became of the others."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from restore.errors import RestoreError
from restore.fix.html_report import check_fix_page, write_fix_page
from restore.fix.results import Record, Summary
from restore.images import write_png
from restore.restorers.registry import open_restorer
from tests.cli.test_main import restore
from tests.fix.conftest import Filler, fix_with, plan_with, run_with, save
from tests.fix.test_sensitivity import Graded
from tests.html.test_write import data_of


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    folder = tmp_path / "scans"
    for number, name in enumerate(("a.png", "sub/b.png")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (40, 50, 3)).astype(np.uint8)
        write_png(folder / name, noise)
        hole = np.zeros((40, 50, 1), np.uint8)
        hole[10:20, 10:20] = 255
        (tmp_path / "masks" / name).parent.mkdir(parents=True, exist_ok=True)
        write_png(tmp_path / "masks" / name, hole)
    return folder


def test_before_and_after_of_every_file_and_the_fate_of_the_others(scans: Path, tmp_path: Path) -> None:
    (scans / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    (scans / "notes.txt").write_text("no picture")
    done = restore("fix", scans, tmp_path / "out", "--model", "tv", "--html-report", tmp_path / "page")
    assert done.returncode == 1
    assert f"report: {tmp_path / 'page' / 'index.html'}" in done.stderr
    data = data_of(tmp_path / "page")
    assert [(row["name"], row["group"]) for row in data["rows"]] == [("a.png", ""), ("sub/b.png", "sub")]
    for row in data["rows"]:
        assert list(row["views"][0]["images"]) == ["before", "after"]
        assert list(row["views"][0]["errors"]) == ["after"]
        changed, seconds = row["scores"]
        assert 50 < changed <= 100
        assert seconds > 0
    html = (tmp_path / "page" / "index.html").read_text()
    assert '<td class="short">broken.png</td><td class="short">failed</td>' in html
    assert '<td class="short">notes.txt</td><td class="short">skipped</td>' in html


@pytest.mark.parametrize("source", ["page", "log"])
def test_what_an_earlier_run_finished_is_shown_with_its_numbers(scans: Path, tmp_path: Path, source: str) -> None:
    page, log = tmp_path / "page", tmp_path / "log"
    command = ("fix", scans, page / "out", "--model", "tv", "--html-report", page, "--log", log)
    assert restore(*command, "--include", "a.png").returncode == 0, "the outputs may lie in the page's folder"
    (before,) = data_of(page)["rows"]
    assert before["name"] == "a.png"
    (log if source == "page" else page / "results.json").unlink()
    assert restore(*command, "--skip-existing").returncode == 0
    first, second = data_of(page)["rows"]
    assert (first["name"], first["note"], first["scores"]) == ("a.png", "finished by an earlier run", before["scores"])
    assert None not in first["scores"] + second["scores"]
    html = (page / "index.html").read_text()
    assert "Not repaired" not in html
    assert "finished earlier" in html


@pytest.mark.parametrize("invert", [False, True])
def test_holes_are_outlined_as_the_masks_were_meant(scans: Path, tmp_path: Path, invert: bool) -> None:
    plan = plan_with(scans, tmp_path / "out", masks=tmp_path / "masks", mask_invert=invert)
    records: list[Record] = []
    summary = run_with(plan, open_restorer("telea"), progress=lambda record, done, total: records.append(record))
    index = write_fix_page(tmp_path / "page", plan, records, summary)
    import cv2

    outline = data_of(index.parent)["rows"][0]["views"][0]["outline"]
    line = cv2.imread(str(index.parent / "images" / outline), cv2.IMREAD_UNCHANGED)[:, :, 3] > 0
    assert line[9, 15] != invert, "outside of the square, or inside of it"
    assert line[10, 15] == invert


def test_holes_that_were_found_are_not_outlined_by_something_else(tmp_path: Path) -> None:
    rgba = np.full((40, 50, 4), 200, np.uint8)
    rgba[:20, :, 3] = 0
    (tmp_path / "scans").mkdir()
    write_png(tmp_path / "scans" / "a.png", rgba)
    plan = plan_with(tmp_path / "scans", tmp_path / "out", masks="auto")
    record = Record(os.fspath(tmp_path / "scans/a.png"), os.fspath(tmp_path / "out/a.png"), "done")
    (tmp_path / "out").mkdir()
    write_png(tmp_path / "out" / "a.png", rgba)
    index = write_fix_page(tmp_path / "page", plan, [record], Summary(1))
    assert not data_of(index.parent)["rows"][0]["views"][0].get("outline"), "transparency is not where damage was"


@pytest.mark.parametrize("saved", [None, "masks"])
def test_what_was_found_is_outlined_also_of_an_earlier_run(tmp_path: Path, saved: str | None) -> None:
    for name in ("a.png", "sub/b.png"):
        image = np.full((40, 50, 3), 90, np.uint8)
        image[10:20, 10:20] = 255
        save(tmp_path / "scans" / name, image)
    save(tmp_path / "scans/clean.png", np.full((40, 50, 3), 90, np.uint8))
    (tmp_path / "scans/sub/b.png").rename(tmp_path / "b.png")
    options = {"masks": "auto", "detector": Graded(), "html_report": tmp_path / "page"}
    options |= {} if saved is None else {"save_masks": tmp_path / saved}
    for run in ("first", "second"):
        fix_with(tmp_path / "scans", tmp_path / "out", Filler(), skip_existing=run == "second", **options)
        data = data_of(tmp_path / "page")
        assert [column["title"] for column in data["columns"]] == ["damage found (%)", "changed (%)", "seconds"]
        rows = {row["name"]: row for row in data["rows"]}
        assert list(rows) == ["a.png", "clean.png"] + ["sub/b.png"] * (run == "second")
        assert rows["a.png"]["scores"][0] == pytest.approx(5)
        assert rows["clean.png"]["scores"][0] == 0
        assert rows["clean.png"]["views"][0]["outline"] is None
        for name in rows.keys() - {"clean.png"}:
            outline = Image.open(tmp_path / "page/images" / rows[name]["views"][0]["outline"]).convert("RGBA")
            line = np.asarray(outline)[:, :, 3] > 0
            assert line[9, 15]
            assert not line[10, 15]
        folder = tmp_path / "page/found" if saved is None else tmp_path / saved
        assert (folder / "a.png.png").is_file()
        assert (tmp_path / "page/found").exists() == (saved is None)
        (tmp_path / "b.png").rename(tmp_path / "scans/sub/b.png") if run == "first" else None
    assert "damage found in" in (tmp_path / "page/index.html").read_text()


def test_the_page_of_a_run_that_was_stopped_can_be_replaced(tmp_path: Path) -> None:
    save(tmp_path / "scans/a.png", np.full((40, 50, 3), 255, np.uint8))

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    options = {"masks": "auto", "detector": Graded(), "html_report": tmp_path / "page"}
    fix_with(tmp_path / "scans", tmp_path / "out", Filler(), progress=stop, **options)
    assert "being written" in (tmp_path / "page/index.html").read_text()
    fix_with(tmp_path / "scans", tmp_path / "out", Filler(), overwrite=True, **options)
    assert len(data_of(tmp_path / "page")["rows"]) == 1


def test_outputs_are_not_among_the_masks_of_the_page(tmp_path: Path) -> None:
    save(tmp_path / "scans/a.png", np.full((40, 50, 3), 255, np.uint8))
    with pytest.raises(RestoreError, match="--html-report needs a folder apart from the output folder"):
        plan_with(tmp_path / "scans", tmp_path / "page/found", masks="auto", html_report=tmp_path / "page")


def test_files_that_are_gone_by_then_are_noted(scans: Path, tmp_path: Path) -> None:
    plan = plan_with(scans, tmp_path / "out")
    records: list[Record] = []
    summary = run_with(plan, open_restorer("tv"), progress=lambda record, done, total: records.append(record))
    (scans / "a.png").unlink()
    (tmp_path / "out" / "sub" / "b.png").write_bytes(b"")
    first, second = data_of(write_fix_page(tmp_path / "page", plan, records, summary).parent)["rows"]
    assert first["note"] == "before cannot be shown: there is no such file"
    assert "after cannot be shown" in second["note"]


def test_files_that_were_not_begun_are_listed(scans: Path, tmp_path: Path) -> None:
    plan = plan_with(scans, tmp_path / "out")
    summary = run_with(plan, open_restorer("tv"))
    index = write_fix_page(tmp_path / "page", plan, [], summary)
    assert data_of(index.parent)["rows"] == []
    assert '<td class="short">a.png</td><td class="short">not started</td>' in index.read_text()


@pytest.mark.parametrize(
    ("where", "words"), [("scans", "inside"), ("scans/page", "inside"), ("out", "separate folders")]
)
def test_a_page_goes_nowhere_else(scans: Path, tmp_path: Path, where: str, words: str) -> None:
    done = restore("fix", scans, tmp_path / "out", "--html-report", tmp_path / where)
    assert done.returncode == 2
    assert words in done.stderr
    assert not (tmp_path / "out").exists()


def test_what_goes_through_a_pipe_has_no_page(scans: Path, tmp_path: Path) -> None:
    with pytest.raises(RestoreError, match="cannot be combined with standard"):
        check_fix_page(tmp_path / "page", plan_with(scans / "a.png", "-"))


def test_one_picture_has_a_page_too(scans: Path, tmp_path: Path) -> None:
    done = restore("fix", scans / "a.png", tmp_path / "b.png", "--model", "tv", "--html-report", tmp_path / "page")
    assert done.returncode == 0, done.stderr
    assert [row["name"] for row in data_of(tmp_path / "page")["rows"]] == ["a.png"]
    dry = restore("fix", scans / "a.png", tmp_path / "c.png", "--html-report", tmp_path / "none", "--dry-run")
    assert dry.returncode == 0
    assert not (tmp_path / "none").exists()
