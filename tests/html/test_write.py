"""What a page's folder holds, and whose folder it may be."""

import errno
import json
import os
import re
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

import restore.html as page_package
from restore.errors import RestoreError
from restore.html import Column, PageTable, Row, check_page_folder, claim_page_folder, previews, write_page
from restore.html.folder import ASSETS, GENERATOR
from restore.images import write_png

PSNR = Column("psnr", "PSNR (dB)", "higher", 2)
HOSTILE = [
    "two words",
    "<script>alert(1)</script>",
    "</title><img src=x onerror=alert(1)>",
    "quotes \"'`& and ${x} $x",
    "line\nbreak\ttab\r\x00",
    "emoji 😀👨\u200d👩\u200d👧",
    "right \u202e to left",
    "bytes \udcff\udc80",
    "half \ud800",
    "../../etc/passwd",
    "x" * 250,
    "",
]


def gray(value: int, height: int = 24, width: int = 32) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def data_of(folder: Path) -> dict:
    """The page's data as the browser gets it."""
    head, rows = (folder / "data.js").read_text("ascii").split("window.PAGE.rows = ")
    found = json.loads(head.removeprefix("window.PAGE = ").rstrip(";\n"))
    found["rows"] = json.loads(rows.rstrip(";\n").removesuffix("]").rstrip(",\n") + "]")
    return found


def write(folder: Path, rows: list[Row] | Iterator[Row], **options: object) -> dict:
    write_page(folder, title="t", rows=rows, columns=[PSNR], **options)
    return data_of(folder)


def test_a_page_is_a_folder_with_relative_pictures(tmp_path: Path) -> None:
    row = Row("cat", {"psnr": 30.125}, {"damaged": gray(9), "true": gray(10)}, note="why", group="noise")
    index = write_page(
        tmp_path / "p", title="A & B", rows=[row], columns=[PSNR],
        tables=[PageTable("Scores", ["metric"], [["<b>"]])], notes=["n < m"], reference="true",
    )  # fmt: skip
    assert index == tmp_path / "p" / "index.html"
    html = index.read_text()
    assert "A &amp; B" in html
    assert '<td class="short">&lt;b&gt;</td>' in html
    assert "n &lt; m" in html
    (shown,) = data_of(tmp_path / "p")["rows"]
    assert (shown["name"], shown["group"], shown["note"], shown["scores"]) == ("cat", "noise", "why", [30.125])
    assert list(shown["views"][0]["images"]) == ["damaged", "true"]
    for file in (*shown["views"][0]["images"].values(), *shown["views"][0]["errors"].values(), shown["thumbnail"]):
        assert (tmp_path / "p" / "images" / file).is_file()


def test_nothing_in_a_page_points_outside() -> None:
    package = Path(page_package.__file__).parent / "assets"
    for name in (*ASSETS, "index.html"):
        text = (package / name).read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|(src|href)=.?//|url\(.?//|@import|@font-face", text), name


def test_hostile_names_break_neither_page_nor_files(tmp_path: Path) -> None:
    rows = [Row(name, {}, {"a": gray(1)}, note=name, group=name) for name in HOSTILE]
    write_page(
        tmp_path / "p", title=HOSTILE[1], rows=rows, columns=[PSNR],
        tables=[PageTable(HOSTILE[2], [HOSTILE[1]], [[name] for name in HOSTILE])], notes=HOSTILE,
    )  # fmt: skip
    html = (tmp_path / "p" / "index.html").read_text("utf-8")
    assert "<script>alert" not in html
    assert "<img src=x" not in html
    shown = data_of(tmp_path / "p")["rows"]
    assert len(shown) == len(HOSTILE)
    assert all(row["name"].isprintable() for row in shown)
    assert shown[7]["name"] == r"bytes \xff\x80"
    assert shown[8]["name"] == r"half \ud800"
    names = {path.name for path in (tmp_path / "p" / "images").iterdir()}
    assert all(name.isascii() and len(name) < 20 for name in names)


def test_scores_that_are_no_numbers_are_told_apart(tmp_path: Path) -> None:
    rows = [Row("a", {"psnr": score}, {}) for score in (float("inf"), float("nan"), np.float32(2))] + [Row("d", {}, {})]
    assert [row["scores"] for row in write(tmp_path / "p", rows)["rows"]] == [["inf"], [None], [2.0], [None]]


def test_error_maps_are_the_amplified_mean_difference(tmp_path: Path) -> None:
    true = gray(100)
    off = true.copy()
    off[:, :10, 0] += 30  # of one channel: 10 in the mean
    off[:, 20:] = 255
    view = write(tmp_path / "p", [Row("a", {}, {"off": off, "true": true})], reference="true")["rows"][0]["views"][0]
    assert list(view["errors"]) == ["off"]
    error = np.asarray(Image.open(tmp_path / "p" / "images" / view["errors"]["off"]))
    assert np.unique(error[:, :10]).tolist() == [40]
    assert error[:, 10:20].max() == 0
    assert error[:, 20:].min() == 255
    assert write(tmp_path / "q", [Row("a", {}, {"off": off, "true": true})])["rows"][0]["views"][0]["errors"] == {}


def test_small_pictures_are_shown_to_the_bit(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    file = write(tmp_path / "p", [Row("a", {}, {"a": noise})])["rows"][0]["views"][0]["images"]["a"]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "p" / "images" / file)), noise)


def test_large_pictures_are_reduced_and_shown_whole_where_they_differ(tmp_path: Path) -> None:
    true = gray(100, 1200, 3200)
    off = true.copy()
    off[900:950, 3000:3050] = 255
    row = write(tmp_path / "p", [Row("a", {}, {"off": off, "true": true})], reference="true")["rows"][0]
    whole, detail = row["views"]
    assert (row["size"], whole["size"], whole["scale"]) == ([3200, 1200], [1600, 600], 0.5)
    assert (detail["size"], detail["scale"]) == ([800, 800], 1.0)
    shown = np.asarray(Image.open(tmp_path / "p" / "images" / detail["images"]["off"]))
    assert (shown[..., 0] > 200).sum() == pytest.approx(50 * 50, rel=0.05), "the whole difference is in the detail"


@pytest.mark.parametrize("kind", ["bool", "uint8", "float32", "file"])
def test_a_hole_is_outlined_from_outside(tmp_path: Path, kind: str) -> None:
    hole = np.zeros((24, 32), bool)
    hole[10:14, 10:20] = True
    write_png(tmp_path / "mask.png", hole.astype(np.uint8)[:, :, None] * 255)
    mask = {"bool": hole, "uint8": hole.astype(np.uint8) * 255, "float32": hole.astype(np.float32)}.get(kind)
    row = Row("a", {}, {"a": gray(1)}, mask=tmp_path / "mask.png" if mask is None else mask)
    view = write(tmp_path / "p", [row])["rows"][0]["views"][0]
    line = np.asarray(Image.open(tmp_path / "p" / "images" / view["outline"]).convert("RGBA"))[..., 3] > 0
    assert not (line & hole).any()
    assert line[9, 10:20].all()
    assert line.sum() < hole.sum() * 2


def test_what_cannot_be_shown_is_noted_in_its_row(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    rows = [
        Row("gone", {"psnr": 1.0}, {"before": tmp_path / "gone.png", "after": gray(1)}, note="first"),
        Row("broken", {}, {"before": tmp_path / "broken.png"}),
        Row("mask", {}, {"a": gray(1)}, mask=np.ones((3, 3), bool)),
        Row("sizes", {}, {"a": gray(1), "b": gray(1, 48, 64)}),
    ]
    gone, broken, mask, sizes = write(tmp_path / "p", rows, reference="a")["rows"]
    assert gone["note"] == "first; before cannot be shown: there is no such file"
    assert list(gone["views"][0]["images"]) == ["after"]
    assert broken["views"] == []
    assert broken["note"].startswith("before cannot be shown: ")
    assert mask["note"] == "the mask is 3×3"
    assert sizes["note"] == "sizes differ: a 32×24, b 64×48"
    assert sizes["views"][0]["errors"] == {}


def test_pictures_too_large_to_be_held_by_many_threads_are_shown_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_png(tmp_path / "large.png", gray(1, 40, 50))
    write_png(tmp_path / "huge.png", gray(1, 400, 500))
    monkeypatch.setattr(previews, "_CONCURRENT_PIXELS", 1000)
    monkeypatch.setattr(previews, "MAX_PIXELS", 100_000)
    rows = [Row("a", {}, {"a": tmp_path / "large.png", "b": tmp_path / "huge.png"}) for _ in range(8)]
    for row in write(tmp_path / "p", rows)["rows"]:
        assert list(row["views"][0]["images"]) == ["a"]
        assert row["note"].startswith("b cannot be shown: it has more than")


def test_a_float_picture_with_nan_is_shown_black_there(tmp_path: Path) -> None:
    values = np.full((24, 32, 3), 0.5, np.float32)
    values[:, :16] = np.nan
    tifffile.imwrite(tmp_path / "nan.tif", values, photometric="rgb")
    row = write(tmp_path / "p", [Row("a", {}, {"a": tmp_path / "nan.tif"})])["rows"][0]
    shown = np.asarray(Image.open(tmp_path / "p" / "images" / row["views"][0]["images"]["a"]))
    assert shown[:, :16].max() == 0
    assert abs(int(shown[0, 20, 0]) - 128) <= 1


def test_an_earlier_page_is_replaced_and_nothing_else_touched(tmp_path: Path) -> None:
    page = tmp_path / "p"
    write(page, [Row(str(number), {}, {"a": gray(1)}) for number in range(5)])
    (page / "images" / "mine.png").write_bytes(b"mine")
    assert len(write(page, [Row("0", {}, {"a": gray(1)})])["rows"]) == 1
    names = {path.name for path in (page / "images").iterdir()}
    assert (page / "images" / "mine.png").read_bytes() == b"mine"
    assert {name[:6] for name in names - {"mine.png"}} == {"000001"}


def test_a_folder_with_anything_else_is_refused_untouched(tmp_path: Path) -> None:
    for name, content in (("notes.txt", "x"), ("index.html", "<p>a site of mine")):
        folder = tmp_path / name.replace(".", "_")
        folder.mkdir()
        (folder / name).write_text(content)
        with pytest.raises(RestoreError, match="is not empty") as refused:
            write(folder, [])
        assert refused.value.exit_code == 2
        assert [path.name for path in folder.iterdir()] == [name]
        assert (folder / name).read_text() == content
    with pytest.raises(RestoreError, match="is a file"):
        write(tmp_path / "notes_txt" / "notes.txt", [])


def test_a_page_does_not_go_where_its_pictures_are_read_or_written(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "in")
    for inside in ("in", "in/page", "link/deep/page"):
        with pytest.raises(RestoreError, match="would be inside"):
            check_page_folder(tmp_path / inside, inputs=[None, tmp_path / "in"])
    check_page_folder(tmp_path / "inner", inputs=[tmp_path / "in"])
    for output in ("page", "page/images"):
        with pytest.raises(RestoreError, match="separate folders"):
            check_page_folder(tmp_path / "page", outputs=[tmp_path / output])
    (tmp_path / "page" / "repaired").mkdir(parents=True)
    check_page_folder(tmp_path / "page", outputs=[tmp_path / "page" / "repaired"])
    check_page_folder(tmp_path / "out" / "page", outputs=[tmp_path / "out"])
    with pytest.raises(RestoreError, match="is not empty"):
        check_page_folder(tmp_path / "page", outputs=[tmp_path / "elsewhere"])


def test_a_killed_run_leaves_no_page_that_looks_whole_and_the_next_one_may_go_on(tmp_path: Path) -> None:
    folder, seen = tmp_path / "p", []

    def rows() -> Iterator[Row]:
        for number in range(20):
            seen.append((folder / "index.html").read_text())
            yield Row(str(number), {}, {"a": gray(1)})

    write(folder, rows())
    assert all("is being written" in text and GENERATOR in text for text in seen)
    claim_page_folder(tmp_path / "killed")
    (tmp_path / "killed" / "images").mkdir()
    (tmp_path / "killed" / ".restore-0-0-0.tmp").write_bytes(b"")
    (tmp_path / "killed" / "images" / "000001-0.jpg").write_bytes(b"half")
    assert len(write(tmp_path / "killed", [Row("a", {}, {})])["rows"]) == 1


def test_a_claim_leaves_an_earlier_page_as_it_is(tmp_path: Path) -> None:
    write(tmp_path / "p", [])
    before = (tmp_path / "p" / "index.html").read_bytes()
    claim_page_folder(tmp_path / "p")
    assert (tmp_path / "p" / "index.html").read_bytes() == before


@pytest.mark.parametrize("fails", ["rows", "disk"])
def test_a_run_that_fails_leaves_nothing(tmp_path: Path, fails: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def rows() -> Iterator[Row]:
        for number in range(30):
            if fails == "rows" and number == 20:
                raise KeyboardInterrupt
            yield Row(str(number), {}, {"a": gray(1)})

    written, write_bytes = [], Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        written.append(path)
        if len(written) > 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write_bytes(path, data)

    if fails == "disk":
        monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(BaseException) as failed:  # noqa: PT011
        write(tmp_path / "p", rows())
    assert isinstance(failed.value, RestoreError if fails == "disk" else KeyboardInterrupt)
    if isinstance(failed.value, RestoreError):
        assert (failed.value.what, failed.value.exit_code) == ("the disk is full", 1)
    assert not (tmp_path / "p").exists()


def test_memory_does_not_grow_with_the_number_of_rows(tmp_path: Path) -> None:
    alive = []

    def rows(count: int) -> Iterator[Row]:
        for number in range(count):
            if number in (20, count - 1):
                alive.append(tracemalloc.get_traced_memory()[0])
            yield Row(str(number), {"psnr": 1.0}, {"a": np.zeros((100, 100, 3), np.uint8)})

    tracemalloc.start()
    try:
        write(tmp_path / "p", rows(200))
    finally:
        tracemalloc.stop()
    assert alive[1] - alive[0] < 10 * 30_000, "180 rows hold 5.4 MB"


def test_progress_is_told_and_wrong_arrays_are_refused(tmp_path: Path) -> None:
    told: list[int] = []
    write(tmp_path / "p", [Row(str(n), {}, {}) for n in range(12)], progress=told.append)
    assert told == list(range(1, 13))
    with pytest.raises(ValueError, match="not uint8"):
        write(tmp_path / "q", [Row("a", {}, {"a": np.zeros((4, 4, 3))})])


def test_layers_are_not_compared_and_the_list_shows_what_is_said(tmp_path: Path) -> None:
    images = {"before": gray(10), "fill": gray(50), "other": gray(90), "error": gray(200)}
    row = Row("x", {}, images, shown="fill", layers=frozenset(["error"]))
    (found,) = write(tmp_path / "p", [row], reference="before")["rows"]
    assert list(found["views"][0]["errors"]) == ["fill", "other"]
    with Image.open(tmp_path / "p/images" / found["thumbnail"]) as small:
        assert abs(np.asarray(small).astype(int).mean() - 50) < 2
