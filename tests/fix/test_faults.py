"""What goes wrong outside of this program: disks, permissions, files that move, sizes, damage."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from restore.errors import RestoreError
from restore.fix import reader
from restore.fix.options import FixOptions
from restore.restorers.base import ModelRequirements
from tests.fix.conftest import (
    Filler,
    Identity,
    Inverter,
    as_nobody,
    fix_with,
    hole,
    load,
    logged,
    photo,
    plan_with,
    run_with,
    save,
    snapshot,
)

POSIX = pytest.mark.skipif(not hasattr(os, "setresuid"), reason="another system of permissions")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users reach too."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    yield folder
    for below in folder.rglob("*"):
        if below.is_dir() and not below.is_symlink():
            below.chmod(0o700)
    shutil.rmtree(folder)


@pytest.fixture
def nobody() -> Iterator[None]:
    """For root, permissions are no obstacle: be somebody else for a test."""
    with as_nobody():
        yield


def reasons(summary) -> dict[str, str]:
    return {failure.path.name: failure.reason for failure in summary.failed}


def temporary_files(folder: Path) -> list[Path]:
    return list(folder.rglob(".restore-*"))


@pytest.mark.parametrize("log_there_too", [False, True])
def test_a_full_disk_ends_the_run_and_the_rest_is_left(tmp_path, disk, log_there_too):
    for number in range(60):
        save(tmp_path / f"in/{number:02}.png", photo(300, 300, number), compress_level=1)
    out, log = disk / "out", (disk if log_there_too else tmp_path) / "log"
    summary = fix_with(tmp_path / "in", out, Identity(), log=log)
    assert (summary.exit_code, summary.stopped) == (1, "the disk is full")
    assert {failure.reason for failure in summary.failed} == {"the disk is full"}
    assert 2 < summary.done < 30
    assert len(summary.failed) < 12, "what was on its way; the rest is not tried"
    assert summary.not_started > 20
    assert summary.format()[-len(summary.failed) - 1].startswith("stopped: the disk is full; ")
    written = sorted(path for path in out.iterdir())
    assert len(written) == summary.done, "and no temporary file"
    for path in written:
        np.testing.assert_array_equal(load(path), load(tmp_path / "in" / path.name))
    if not log_there_too:
        assert sum(line["status"] == "done" for line in logged(log)) == summary.done

    for path in written[1:]:  # room is made
        shutil.move(path, tmp_path / path.name)
    again = fix_with(tmp_path / "in", out, Identity(), skip_existing=True, include=["0*", "1?.png"])
    assert again.skipped == {"the output exists": 1}
    assert again.done > 2


def test_a_log_without_room_is_refused(pictures, tmp_path, disk):
    with contextlib.suppress(OSError), open(disk / "filler", "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    with pytest.raises(RestoreError, match="--log: cannot be written: No space left on device"):
        fix_with(pictures, tmp_path / "out", Inverter(), log=disk / "log")
    assert not (tmp_path / "out").exists()


@POSIX
def test_what_may_not_be_read_fails_alone(open_folder, nobody, monkeypatch):
    monkeypatch.chdir(open_folder)
    for name in ("a.png", "locked.png", "private/b.png", "sub/c.png", "sub/hidden/d.png"):
        save(open_folder / "in" / name, photo(8, 8))
    (open_folder / "in/locked.png").chmod(0)
    (open_folder / "in/private").chmod(0)
    (open_folder / "in/sub/hidden").chmod(0)
    plan = plan_with("in", "out")
    assert any(line.startswith("in/private: fails: the folder cannot be listed") for line in plan.format())
    summary = run_with(plan, Inverter(), FixOptions(log="log"))
    assert (summary.done, summary.exit_code, summary.not_started) == (2, 1, 0)
    assert reasons(summary) == {
        "locked.png": "no permission to read the file",
        "private": "the folder cannot be listed: Permission denied",
        "hidden": "the folder cannot be listed: Permission denied",
    }
    left_out = fix_with("in", "out", Inverter(), exclude=["private/*", "sub/*", "locked.png"], overwrite=True)
    assert (left_out.done, left_out.exit_code) == (1, 0)
    again = fix_with("in", "out", Inverter(), skip_existing=True)
    assert (again.done, len(again.failed)) == (0, 3)


@POSIX
def test_what_may_not_be_written_is_refused_before_or_fails_alone(open_folder, nobody):
    for name in ("a.png", "sub/b.png", "sub/c.png", "d.png"):
        save(open_folder / "in" / name, photo(8, 8))
    (open_folder / "out/sub").mkdir(parents=True)
    plan = plan_with(open_folder / "in", open_folder / "out")
    (open_folder / "out/sub").chmod(0o500)
    with pytest.raises(RestoreError, match="no permission to write in this folder") as caught:
        plan_with(open_folder / "in", open_folder / "out")
    assert caught.value.exit_code == 2
    summary = run_with(plan, Inverter())  # it was locked after the plan was made
    assert summary.done == 2
    assert reasons(summary) == dict.fromkeys(("b.png", "c.png"), "no permission to write here")
    assert temporary_files(open_folder) == []


def test_files_that_vanish_between_plan_and_read_fail_alone(pictures, tmp_path):
    for name, size in (("a", (20, 30)), ("sub/b", (7, 5)), ("sub/deep/c", (16, 16))):
        save(tmp_path / f"masks/{name}.png", hole(*size, (0, 0, 2, 2)))
    plan = plan_with(pictures, tmp_path / "out", masks=tmp_path / "masks")
    (pictures / "a.png").unlink()
    (tmp_path / "masks/sub/b.png").unlink()
    summary = run_with(plan, Filler())
    assert (summary.done, summary.exit_code) == (1, 1)
    assert reasons(summary)["a.png"] == "vanished during the run"
    assert reasons(summary)["b.png"] == f"{tmp_path}/masks/sub/b.png: there is no such file"


def test_a_picture_that_changes_while_it_is_read_fails_alone(pictures, tmp_path, monkeypatch):
    read = reader.read_bytes

    def changing(path):
        data = read(path)
        if path.name == "b.png":
            path.write_bytes(data + b"more")
        return data

    monkeypatch.setattr(reader, "read_bytes", changing)
    summary = fix_with(pictures, tmp_path / "out", Inverter())
    assert reasons(summary) == {"b.png": "the file changed while it was read; run again"}
    assert sorted(snapshot(tmp_path / "out")) == ["a.png", "sub/deep/c.jpg"]


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("parts", [False, True])
def test_an_output_that_appears_meanwhile_is_not_overwritten(pictures, tmp_path, monkeypatch, parts, links):
    class Tiled(Inverter):
        requirements = ModelRequirements(needs_mask=False, tileable=True)

    if parts:
        monkeypatch.setattr(reader, "HUGE_PIXELS", 1)
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError(1, "no links here")))
    plan = plan_with(pictures, tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a.png").write_bytes(b"mine")
    summary = run_with(plan, Tiled())
    assert reasons(summary) == {"a.png": "a file with this name appeared during the run and was not overwritten"}
    assert summary.done == 2
    assert snapshot(tmp_path / "out")["a.png"] == b"mine"
    assert temporary_files(tmp_path / "out") == []
    assert fix_with(pictures, tmp_path / "out", Tiled(), overwrite=True).done == 3


def test_a_folder_that_vanishes_is_made_again_and_one_that_became_a_file_is_told(pictures, tmp_path):
    plan = plan_with(pictures, tmp_path / "out")
    save(tmp_path / "out/sub", photo(4, 4), format="PNG")
    summary = run_with(plan, Inverter())
    assert (summary.done, len(summary.failed)) == (1, 2)
    assert all(temporary_files(tmp_path) == [] and reason for reason in reasons(summary).values())


def test_pictures_over_the_limit_are_refused_by_their_header_and_the_option_is_named(pictures, tmp_path):
    summary = fix_with(pictures, tmp_path / "out", Inverter(), max_pixels=299)
    assert reasons(summary) == {
        "a.png": "30×20 is over the limit of 0.000299 megapixels; if the file can be trusted: --max-pixels 600"
    }
    assert fix_with(pictures, tmp_path / "out2", Inverter(), max_pixels=600).exit_code == 0
    save(tmp_path / "in2/x.png", photo(10, 10))
    save(tmp_path / "mask.png", hole(20, 20, (0, 0, 9, 9)))
    masked = fix_with(tmp_path / "in2", tmp_path / "out3", Filler(), masks=tmp_path / "mask.png", max_pixels=100)
    assert "mask.png: 20×20 is over the limit" in reasons(masked)["x.png"]


def test_the_limit_that_is_named_is_the_option_s_and_not_what_memory_has_room_for(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "_pixels_for_memory", lambda: 10)
    summary = fix_with(pictures, tmp_path / "out", Inverter(), max_pixels=299)
    assert "30×20 is over the limit of 0.000299 megapixels" in reasons(summary)["a.png"]
    assert "must fit in memory as a whole" in reasons(summary)["c.jpg"]


def test_a_file_of_zeros_larger_than_any_picture_is_not_read(tmp_path):
    save(tmp_path / "in/a.png", photo(4, 4))
    with open(tmp_path / "in/b.png", "wb") as file:
        file.write((tmp_path / "in/a.png").read_bytes()[:8])
        file.truncate(1 << 40)
    summary = fix_with(tmp_path / "in", tmp_path / "out", Inverter())
    assert summary.done == 1
    assert reasons(summary)["b.png"].startswith("a file of 1099.5 GB is over the limit of 1000 megapixels")


def test_many_channels_count_as_many_pixels(tmp_path):
    import pyvips

    image = pyvips.Image.black(64, 64, bands=200).copy(interpretation="multiband")
    (tmp_path / "in").mkdir()
    image.write_to_file(f"{tmp_path}/in/many.tif")
    summary = fix_with(tmp_path / "in", tmp_path / "out", Identity(), max_pixels=64 * 64)
    assert reasons(summary)["many.tif"].startswith("64×64 with 200 bytes per pixel is over the limit")
    assert "--max-pixels 51200" in reasons(summary)["many.tif"]
    assert fix_with(tmp_path / "in", tmp_path / "out", Identity(), max_pixels=51200).exit_code == 0


@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.tif", "x.bmp", "x.ppm", "x.tga"])
def test_cut_pictures_are_repaired_from_what_is_there_only_if_that_is_asked_for(tmp_path, name):
    whole = photo(64, 64)
    path = save(tmp_path / "whole" / name, whole)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    refused = fix_with(tmp_path / "in", tmp_path / "out", Identity())
    assert refused.exit_code == 1
    assert "--allow-truncated repairs what can be decoded" in reasons(refused)[name]
    assert snapshot(tmp_path / "out") == {}
    if name == "x.tif":  # its directory stands at the end
        return
    accepted = fix_with(tmp_path / "in", tmp_path / "out", Identity(), allow_truncated=True)
    assert (accepted.done, accepted.exit_code) == (1, 0), accepted.failed
    (warning,) = accepted.warnings
    assert "the file is damaged; decoded as far as possible" in warning
    with Image.open(tmp_path / "out" / name) as image:
        read = np.asarray(image.convert("RGB")).astype(int)
    assert read.shape == whole.shape
    start = np.s_[40:] if name in ("x.bmp", "x.tga") else np.s_[:24]  # from the bottom up, these two
    assert np.abs(read[start] - whole[start]).mean() < (30 if name == "x.jpg" else 0.1)


def test_options_that_cannot_be_are_refused(pictures, tmp_path):
    for options in ({"max_pixels": 0}, {"allow_truncated": "perhaps"}):
        with pytest.raises(RestoreError) as caught:
            fix_with(pictures, tmp_path / "out", Inverter(), **options)
        assert caught.value.exit_code == 2
