"""The work folders of runs over URLs."""

import os
import time
from pathlib import Path

import pytest

from restore.places.work import WorkFolder


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def grow_old(folder: Path) -> None:
    hours_ago = time.time() - 2 * 3600
    os.utime(folder, (hours_ago, hours_ago))


def test_a_run_that_crashed_after_an_hour_finds_its_folder_again() -> None:
    crashed = WorkFolder()
    crashed.save("plan.json", [1])
    crashed._lock.close()
    grow_old(crashed.path)
    assert WorkFolder(str(crashed.path)).load("plan.json") == [1]


def test_old_folders_are_removed_unless_a_run_holds_them(tmp_path: Path) -> None:
    held, left, young = WorkFolder(), WorkFolder(), WorkFolder()
    for one in (left, young):
        one._lock.close()
    for one in (held, left):
        grow_old(one.path)
    new = WorkFolder()
    assert sorted(tmp_path.iterdir()) == sorted([held.path, young.path, new.path])
    new.remove()
    assert not new.path.exists()


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="needs Unix")
def test_a_folder_of_another_user_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = tmp_path / "restore-work-theirs"
    theirs.mkdir()
    grow_old(theirs)
    user = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: user + 1)
    WorkFolder().remove()
    assert theirs.exists()
