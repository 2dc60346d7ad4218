"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from restore.errors import RestoreError
from restore.files import check_not_within, check_writable, not_found_message, sweep_leftovers, write_atomically


def test_a_file_gets_rights_and_time_of_another_before_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "like").touch()
    os.chmod(tmp_path / "like", 0o640)
    os.utime(tmp_path / "like", (1000, 2000))
    seen = []
    rename = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (seen.append(os.stat(a)), rename(a, b)))
    write_atomically(tmp_path / "new" / "file", b"x", like=(tmp_path / "like").stat())
    assert [(found.st_mode & 0o777, found.st_mtime) for found in seen] == [(0o640, 2000)]
    assert (tmp_path / "new" / "file").read_bytes() == b"x"


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP])
def test_a_disk_that_knows_no_rights_may_know_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    (tmp_path / "like").touch()
    os.utime(tmp_path / "like", (1000, 2000))
    monkeypatch.setattr(os, "chmod", refuse)
    write_atomically(tmp_path / "file", b"x", like=(tmp_path / "like").stat())
    assert (tmp_path / "file").stat().st_mtime == 2000


def test_what_fails_says_why_and_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"old")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(RestoreError, match="no such folder"):
        write_atomically(tmp_path / "none" / "file", b"new", parents=False)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RestoreError, match="file: the disk is full") as caught:
        write_atomically(tmp_path / "file", b"new")
    assert caught.value.exit_code == 1
    assert isinstance(caught.value.__cause__, OSError)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"file": b"old"}


def test_a_folder_that_is_not_there_has_no_leftovers(tmp_path: Path) -> None:
    assert sweep_leftovers(tmp_path / "none") == 0


def test_what_a_kill_leaves_of_a_write_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "unlink", lambda path, missing_ok=False: None)
    monkeypatch.setattr(os, "fsync", lambda handle: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_atomically(tmp_path / "file", b"new")
    monkeypatch.undo()
    assert len(list(tmp_path.iterdir())) == 1
    assert sweep_leftovers(tmp_path) == 1
    assert list(tmp_path.iterdir()) == []


def test_folders_are_asked_and_nothing_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    check_writable(tmp_path / "a" / "b")
    with pytest.raises(RestoreError, match="file: is a file where a folder is needed"):
        check_writable(tmp_path / "file" / "a")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(RestoreError, match="no permission") as caught:
        check_writable(tmp_path / "a" / "b")
    assert caught.value.exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_dangling_link_is_told_from_nothing(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("gone")
    assert "dangling" in not_found_message(tmp_path / "link", "file")
    assert not_found_message(tmp_path / "gone", "file") == "there is no such file"


def test_an_output_is_not_within_an_input_by_any_name(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "in")
    for output in ("in", "in/new", "link/deep/new"):
        with pytest.raises(RestoreError, match="or inside it"):
            check_not_within(tmp_path / output, tmp_path / "in")
    check_not_within(tmp_path / "inner", tmp_path / "in")
