"""The work folders of runs over URLs."""

import os
from pathlib import Path

import pytest

from restore.files import process_id
from restore.fix.decoder_isolation import SupervisorLink
from restore.places.run import keep
from restore.places.work import WorkFolder

ENDED = 2**22 + 1
"""The number of a process that does not exist: Linux gives none as high."""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def test_a_run_that_crashed_finds_its_folder_again() -> None:
    crashed = keep({"a": "plan"}, SupervisorLink(parent=os.getppid()))  # type: ignore[arg-type]
    crashed.save("plan.json", [1])
    crashed._lock.close()
    WorkFolder().remove()  # another run begins meanwhile
    assert WorkFolder(str(crashed.path)).load("plan.json") == [1]


def test_folders_of_killed_runs_are_removed_at_once(tmp_path: Path) -> None:
    held, crashed, killed = WorkFolder(parent=ENDED), WorkFolder(parent=os.getppid()), WorkFolder(parent=ENDED)
    for one in (crashed, killed):
        one._lock.close()
    elsewhere = tmp_path / "restore-work-0123abcd-7-x"  # of another machine, whose processes are not known
    elsewhere.mkdir()
    with WorkFolder() as new:
        assert sorted(tmp_path.iterdir()) == sorted([held.path, crashed.path, elsewhere, new.path])
    assert not new.path.exists()


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="needs Unix")
def test_a_folder_of_another_user_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = tmp_path / f"restore-work-{process_id(ENDED)}-x"
    theirs.mkdir()
    user = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: user + 1)
    WorkFolder().remove()
    assert theirs.exists()
