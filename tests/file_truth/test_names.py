"""Names of every kind, links in circles, folders that may not be written to, and files that are no pictures."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from restore.errors import RestoreError
from tests.fix.conftest import Filler, Inverter, as_nobody, fix_with, hole, load, photo, plan_with, save, snapshot

NAMES = [
    b"with space.png", b" leading space.png", b"trailing space .png", b"new\nline.png", b"tab\t.png",
    b"\x1b[31mred.png", "emoji \N{SLIGHTLY SMILING FACE}\N{VARIATION SELECTOR-16}.png".encode(), "é.png".encode(),
    "e\u0301.png".encode(), b"not utf-8 \xff\xfe.png", b"-dash.png", b"--help.png", b"two..dots.png",
    b"several.dots.in.it.png", b"x" * 246 + b".png", b"[glob]*?.png", b"back\\slash.png", b"quote'\".png",
    b"$HOME.png", b"%s{0}.png", b"a;b|c&d.png", b"UPPER.PNG", b"~.png",
]  # fmt: skip


def test_any_name_is_repaired_under_itself(tmp_path):
    (tmp_path / "in").mkdir()
    for number, name in enumerate(NAMES):
        save(tmp_path / "in" / os.fsdecode(name), photo(3, 4, number))
    summary = fix_with(tmp_path / "in", tmp_path / "out", Inverter(), log=tmp_path / "log")
    assert (summary.done, summary.exit_code) == (len(NAMES), 0)
    assert sorted(os.listdir(os.fsencode(tmp_path / "out"))) == sorted(NAMES)
    for number, name in enumerate(NAMES):
        np.testing.assert_array_equal(load(tmp_path / "out" / os.fsdecode(name)), 255 - photo(3, 4, number))
    header, *lines = (tmp_path / "log").read_text(encoding="ascii").splitlines()
    assert (len(lines), "start" in header) == (len(NAMES), True)
    for line in plan_with(tmp_path / "in", tmp_path / "other").format():
        assert line.isprintable()
        line.encode()


def test_any_name_can_have_a_mask_and_be_named_alone(tmp_path):
    for number, name in enumerate(NAMES):
        text = os.fsdecode(name)
        save(tmp_path / "in" / text, photo(3, 4, number))
        save(tmp_path / "masks" / text, hole(3, 4, (0, 0, 1, 1)))
    summary = fix_with(tmp_path / "in", tmp_path / "out", Filler(), masks=tmp_path / "masks")
    assert (summary.done, summary.exit_code) == (len(NAMES), 0)
    for name in NAMES:
        source = tmp_path / "in" / os.fsdecode(name)
        summary = fix_with(source, f"{tmp_path}/single/", Filler(), masks=tmp_path / "masks")
        assert (summary.done, summary.exit_code) == (1, 0)
    assert snapshot(tmp_path / "single") == snapshot(tmp_path / "out")


def test_names_that_look_like_options_work_on_the_command_line(tmp_path):
    save(tmp_path / "--help.png", photo(6, 6))
    save(tmp_path / "-m.png", hole(6, 6, (1, 1, 3, 3)))
    command = [
        sys.executable,
        "-m",
        "restore.cli",
        "fix",
        "--model",
        "telea",
        "--masks=-m.png",
        "--",
        "--help.png",
        "-o.png",
    ]
    root = os.fspath(Path(__file__).parents[2])
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": root}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert load(tmp_path / "-o.png").shape == (6, 6, 3)


def test_a_name_that_becomes_too_long_fails_alone(tmp_path):
    save(tmp_path / "in" / ("x" * 250 + ".png"), photo(3, 4))
    save(tmp_path / "in/y.png", photo(3, 4))
    summary = fix_with(tmp_path / "in", tmp_path / "out", Inverter(), suffix="_repaired")
    assert (summary.done, [failure.reason for failure in summary.failed]) == (1, ["the file name is too long"])
    assert os.listdir(tmp_path / "out") == ["y_repaired.png"]


def test_circles_dangling_links_and_hidden_files(pictures, tmp_path):
    (pictures / "sub/up").symlink_to(pictures)
    (pictures / "self").symlink_to("self")
    (pictures / "self.png").symlink_to("self.png")
    (pictures / "gone.png").symlink_to("nowhere.png")
    (pictures / "linked.png").symlink_to("a.png")
    save(pictures / ".hidden.png", photo(4, 4))
    save(pictures / ".folder/x.png", photo(4, 4))
    (pictures / ".DS_Store").write_bytes(b"\0")
    before = snapshot(pictures)
    summary = fix_with(pictures, tmp_path / "out", Inverter())
    assert summary.done == 4
    assert sorted(failure.path.name for failure in summary.failed) == ["gone.png", "self.png"]
    assert sorted(snapshot(tmp_path / "out")) == ["a.png", "linked.png", "sub/b.png", "sub/deep/c.jpg"]
    assert not (tmp_path / "out/linked.png").is_symlink()
    assert snapshot(pictures) == before


@pytest.mark.parametrize(("ext", "clash"), [("png", True), ("jpg", True), ("webp", True), (None, False)])
def test_names_that_collide_are_refused_before_anything_is_written(tmp_path, ext, clash):
    save(tmp_path / "in/sub/a.jpg", photo(4, 4))
    save(tmp_path / "in/sub/a.png", photo(4, 4))
    if not clash:
        assert fix_with(tmp_path / "in", tmp_path / "out", Inverter(), ext=ext).done == 2
        return
    with pytest.raises(RestoreError, match=r"a\.jpg and .*a\.png would both be written here") as caught:
        fix_with(tmp_path / "in", tmp_path / "out", Inverter(), ext=ext)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "out").exists()


@pytest.fixture
def public():
    """A folder that others can get at, which pytest's is not."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o777)
        yield Path(name)


@pytest.mark.skipif(os.name == "nt", reason="permissions work otherwise")
def test_a_folder_that_may_not_be_written_to(public):
    save(public / "in/a.png", photo(4, 4))
    fix_with(public / "in", public / "warm", Inverter())  # whatever is imported late is read now
    (public / "in").chmod(0o555)
    (public / "in/a.png").chmod(0o444)
    with as_nobody():
        assert fix_with(public / "in", public / "out", Inverter()).exit_code == 0
    (public / "shut").mkdir(mode=0o555)
    (public / "shut").chmod(0o555)
    for output in (public / "shut", public / "shut/new/deep"):
        with as_nobody(), pytest.raises(RestoreError, match="no permission to write in this folder") as caught:
            fix_with(public / "in", output, Inverter())
        assert caught.value.exit_code == 2
    assert list((public / "shut").iterdir()) == []
    (public / "in").chmod(0o755)
    save(public / "in/secret.png", photo(4, 4)).chmod(0)
    with as_nobody():
        summary = fix_with(public / "in", public / "again", Inverter())
    assert summary.done == 1
    assert [failure.reason for failure in summary.failed] == ["no permission to read the file"]


HEAD = {
    "x.psd": b"8BPS\0\1", "x.psb": b"8BPS\0\2", "x.cr2": b"II*\0\x10\0\0\0CR\2\0",
    "x.nef": b"MM\0*\0\0\0\x08", "x.dng": b"II*\0\x08\0\0\0", "x.raf": b"FUJIFILMCCD-RAW ",
    "x.jp2": b"\0\0\0\x0cjP  \r\n\x87\n", "x.jxl": b"\xff\x0a", "x.exr": b"v/1\x01",
    "x.xcf": b"gimp xcf file", "x.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>", "x.pdf": b"%PDF-1.7",
    "photoshop.jpg": b"8BPS\0\1" + bytes(8) + b"\0\0\0\1" * 2, "x.heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
}  # fmt: skip


@pytest.mark.parametrize("name", HEAD)
def test_a_picture_of_a_kind_that_cannot_be_read_fails_with_its_reason(tmp_path, name):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(HEAD[name] + bytes(200))
    save(tmp_path / "in/good.png", photo(4, 4))
    summary = fix_with(tmp_path / "in", tmp_path / "out", Inverter())
    assert (summary.done, len(summary.failed), summary.exit_code) == (1, 1, 1)
    assert any(
        word in summary.failed[0].reason for word in ("not supported", "cannot be decoded", "not written", "extra")
    )
    assert not summary.failed[0].reason.startswith("unexpected")
    assert os.listdir(tmp_path / "out") == ["good.png"]


#: Suffixes of images that no library here reads, in small and large letters.
STRANGE = ("cr3", "CRW", "pcd", "jxr", "wdp", "qoi", "pfm", "cin", "pct", "PICT", "jls", "bpg", "flif", "wmf")


@pytest.mark.parametrize("content", [b"", b"anything", bytes(999)])
def test_a_picture_by_its_suffix_that_cannot_be_read_fails_whatever_its_content(tmp_path, content):
    for suffix in STRANGE:
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"x.{suffix}").write_bytes(content)
    save(tmp_path / "in/good.png", photo(4, 4))
    summary = fix_with(tmp_path / "in", tmp_path / "out", Inverter())
    assert (summary.done, summary.skipped, summary.exit_code) == (1, {}, 1)
    assert {failure.path.suffix[1:] for failure in summary.failed} == set(STRANGE)
    assert {failure.code for failure in summary.failed} == {"unsupported" if content else "not_an_image"}
    reasons = {failure.path.suffix[1:]: failure.reason for failure in summary.failed}
    if content:
        assert reasons["CRW"] == "this is a camera raw file, which is not supported; convert it to TIFF or PNG first"
        assert reasons["jxr"].startswith("this is a JPEG XR file, which is not supported")
    else:
        assert set(reasons.values()) == {"the file is empty"}


def test_what_should_be_a_picture_by_its_name_fails_and_other_files_are_skipped(tmp_path):
    save(tmp_path / "in/good.png", photo(4, 4))
    for name, content in (("a.jpg", b"<html>"), ("b.png", b""), ("notes.txt", b"hello"), ("c.tif", bytes(999))):
        (tmp_path / "in" / name).write_bytes(content)
    summary = fix_with(tmp_path / "in", tmp_path / "out", Inverter())
    assert (summary.done, summary.skipped, summary.exit_code) == (1, {"not an image": 1}, 1)
    assert os.listdir(tmp_path / "out") == ["good.png"]
    assert {failure.path.name: failure.reason for failure in summary.failed} == {
        "a.jpg": "not an image", "b.png": "the file is empty", "c.tif": "not an image",
    }  # fmt: skip


def test_a_picture_under_a_name_of_another_kind_is_read(tmp_path):
    save(tmp_path / "in/scan.pcd", photo(4, 4), format="PNG")
    assert fix_with(tmp_path / "in", tmp_path / "out", Inverter()).done == 1


def test_a_text_that_begins_as_a_picture_s_file_does_is_none(tmp_path):
    save(tmp_path / "in/good", photo(4, 4), format="BMP")
    save(tmp_path / "in/good.gray", photo(4, 4, channels=1), format="PPM")
    for name, content in (("cars.txt", b"BMW 320i, bought in 1987\n"), ("LIST", b"P1 first\n"), ("x", b"\0\0\1\0\0\0")):
        (tmp_path / "in" / name).write_bytes(content)
    summary = fix_with(tmp_path / "in", tmp_path / "out", Inverter())
    assert (summary.done, summary.failed) == (2, [])
    assert summary.skipped == {"not an image": 3}
