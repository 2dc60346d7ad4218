"""`-`: one picture from standard input, one to standard output, as a filter in a pipe."""

from __future__ import annotations

import io
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import restore.fix.decoder_isolation as supervising
import restore.restorers.registry as opening
from restore.cli.main import main
from restore.errors import RestoreError
from tests.fix.conftest import Filler, Inverter, hole, load, photo, plan_with, save


@dataclass
class Done:
    returncode: object
    stdout: bytes
    stderr: bytes


@pytest.fixture
def fix(monkeypatch, capfdbinary):
    """`restore fix ARGUMENTS` in this process, around the test's restorers, for speed."""
    monkeypatch.setattr(supervising, "supervise", lambda seconds, on_event: supervising.SupervisorLink())
    monkeypatch.setattr(opening, "open_restorers", lambda name, **_: [Filler() if name == "inpaint" else Inverter()])

    def run(*arguments: object, given: bytes = b"", stdin=None, stdout=None) -> Done:
        monkeypatch.setattr(sys, "argv", ["restore", "fix", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", stdin or io.TextIOWrapper(io.BytesIO(given)))
        with monkeypatch.context() as inside:
            if stdout is not None:
                inside.setattr(sys, "stdout", stdout)
            with pytest.raises(SystemExit) as left:
                main()
        return Done(left.value.code, *capfdbinary.readouterr())

    return run


def file_of(array: np.ndarray, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, format, **options)
    return file.getvalue()


def picture_in(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def test_a_picture_goes_through_a_pipe_in_its_own_format(fix):
    array = photo(20, 30)
    done = fix("-", "-", given=file_of(array, "TIFF"))
    assert (done.returncode, done.stderr) == (0, b"")
    assert picture_in(done.stdout).format == "TIFF"
    np.testing.assert_array_equal(np.asarray(picture_in(done.stdout)), 255 - array)
    as_png = fix("-", "-", "--ext", "png", given=file_of(array, "TIFF"))
    assert picture_in(as_png.stdout).format == "PNG"


def test_files_on_one_side(fix, tmp_path):
    array = photo(20, 30)
    source = save(tmp_path / "a.png", array)
    np.testing.assert_array_equal(np.asarray(picture_in(fix(source, "-").stdout)), 255 - array)
    done = fix("-", tmp_path / "out.tiff", "--json", given=source.read_bytes())
    assert json.loads(done.stdout)["done"] == 1
    with Image.open(tmp_path / "out.tiff") as image:
        assert image.format == "TIFF", "as its name says"
    again = fix("-", tmp_path / "out.tiff", given=source.read_bytes())
    assert again.returncode == 2
    assert b"use --overwrite" in again.stderr


def test_masks_in_pipes(fix, tmp_path):
    array = photo(20, 30, channels=4)
    array[..., 3] = 255
    array[5:9, 5:9, 3] = 0
    done = fix("-", "-", "--masks", "alpha", given=file_of(array, "PNG"))
    repaired = np.asarray(picture_in(done.stdout))
    assert (repaired[5:9, 5:9] == 255).all()
    np.testing.assert_array_equal(repaired[10:], array[10:])
    mask = save(tmp_path / "m.png", hole(20, 30, (0, 0, 2, 2)))
    done = fix("-", "-", "--masks", mask, given=file_of(array[..., :3], "PNG"))
    assert (np.asarray(picture_in(done.stdout))[:2, :2] == 255).all()
    empty = save(tmp_path / "empty.png", hole(20, 30))
    given = file_of(array, "PNG", compress_level=9)
    assert fix("-", "-", "--masks", empty, given=given).stdout == given, "byte for byte"


@pytest.mark.parametrize(
    ("arguments", "given", "code", "words"),
    [
        (("-", "-"), b"", 1, "failed: standard input: is empty"),
        (("-", "-"), b"no picture at all", 1, "failed: standard input: not an image"),
        (("-", "-"), b"\x89PNG\r\n\x1a\n and no more", 1, "failed: standard input: the PNG cannot be decoded"),
        (("-", "out/"), b"x", 2, "standard input has no file name"),
        (("-", "out"), b"x", 2, "could be a file or a folder"),
        ((".", "-"), b"", 2, "a folder cannot be written to standard output"),
        (("-", "-", "--masks", "."), b"x", 2, "no name to find its mask by"),
        (("-", "-", "--suffix", "_x"), b"x", 2, "--suffix: does not apply to standard output"),
        (("-", "-", "--log", "-"), b"x", 2, "--log: the image already goes to standard output"),
        (("-", "-", "--json"), b"x", 2, "--json: cannot be combined with OUTPUT -"),
        (("-", "x.png", "--json", "--log", "-"), b"x", 2, "--json: cannot be combined with --log -"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_is_one_clear_line(fix, tmp_path, monkeypatch, arguments, given, code, words):
    monkeypatch.chdir(tmp_path)
    done = fix(*arguments, given=given)
    assert done.returncode == code, done.stderr
    assert words in done.stderr.decode()
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == b""
    assert list(tmp_path.iterdir()) == []


def test_whoever_reads_may_leave(fix):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout:
        done = fix("-", "-", given=file_of(photo(200, 300), "PNG"), stdout=stdout)
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == ["failed: standard input: the reader closed the pipe"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_behind_standard_output(fix):
    with open("/dev/full", "w") as full:
        done = fix("-", "-", given=file_of(photo(8, 8), "PNG"), stdout=full)
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == ["failed: standard input: the disk is full"]


def test_a_terminal_is_no_place_for_pictures(fix, tmp_path):
    pty = pytest.importorskip("pty")
    source = save(tmp_path / "a.png", photo(8, 8))
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "r+b", buffering=0) as both, io.TextIOWrapper(both) as terminal:
        to_it = fix(source, "-", stdout=terminal)
        assert (to_it.returncode, b"standard output is a terminal" in to_it.stderr) == (2, True)
        from_it = fix("-", "-", stdin=terminal)
        assert (from_it.returncode, b"standard input is a terminal" in from_it.stderr) == (2, True)
    os.close(ours)


def test_what_never_ends_does_not_fill_the_memory(fix, monkeypatch):
    monkeypatch.setattr("restore.tiling.free_memory", lambda device: 1 << 22)
    with open("/dev/zero") as endless:
        done = fix("-", "-", stdin=endless)
    assert done.returncode == 1
    assert b"out of memory while reading standard input" in done.stderr


def test_a_file_called_minus_is_reached_by_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "-", photo(8, 8), format="PNG")
    plan = plan_with("./-", "out.png")
    assert plan.jobs[0].source == tmp_path / "-"
    with pytest.raises(RestoreError, match="a file or a folder"):
        plan_with("./-", "./-")
    assert plan_with("-", "-").format() == ["standard input -> standard output"]
    assert load(tmp_path / "-").shape == (8, 8, 3)
