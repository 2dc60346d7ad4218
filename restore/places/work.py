"""The work folder of a run over URLs: where groups come and go, and what a run that is started again needs."""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from restore.errors import RestoreError
from restore.files import folder_error_message, is_running, lock_file, process_id

_PREFIX = "restore-work-"


class WorkFolder:
    """A temporary folder, in TMPDIR or the system's folder for such. A block with it removes it at its end.

    A run that is killed leaves it behind; the next run removes it.

    Args:
        path: of a run that is started again; None: a new one.
        parent: process ID of the parent that starts the run again; None: there is none.

    Raises:
        RestoreError: exit code 2; it cannot be made.
    """

    def __init__(self, path: str | None = None, *, parent: int | None = None) -> None:
        try:
            self.path = Path(path or tempfile.mkdtemp(prefix=f"{_PREFIX}{process_id(parent)}-"))
            self._lock = open(self.path / "lock", "ab")
        except OSError as error:
            hint = "TMPDIR chooses another folder"
            raise RestoreError(folder_error_message(error), where=tempfile.gettempdir(), hint=hint) from error
        with suppress(OSError):  # some network disks have no locks
            lock_file(self._lock)
        sweep()

    def __enter__(self) -> WorkFolder:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()

    def group(self, number: int) -> Path:
        """The folder of a group."""
        return self.path / "groups" / str(number)

    def save(self, name: str, value: Any) -> None:
        """Keep a value for a run that is started again; it is replaced at once."""
        temporary = self.path / f"{name}.new"
        with open(temporary, "w", encoding="utf-8", errors="surrogateescape") as file:
            json.dump(value, file)
        os.replace(temporary, self.path / name)

    def load(self, name: str) -> Any:
        """A value that was kept; None if there is none."""
        try:
            with open(self.path / name, encoding="utf-8", errors="surrogateescape") as file:
                return json.load(file)
        except FileNotFoundError:
            return None

    def remove(self) -> None:
        """Remove the folder."""
        self._lock.close()  # Windows does not remove open files
        shutil.rmtree(self.path, ignore_errors=True)


def sweep() -> None:
    """Remove folders that killed runs of this user have left.

    Such a folder is not locked, and its process has ended. A run that a crash has just ended holds no lock either, but
    its parent, whose process the name holds, starts it again.
    """
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):  # a run holds the lock, or the folder is gone
            status = folder.lstat()
            is_own = not hasattr(os, "getuid") or status.st_uid == os.getuid()
            if is_own and stat.S_ISDIR(status.st_mode) and not is_running(folder.name.removeprefix(_PREFIX), folder):
                with open(folder / "lock", "ab") as file:
                    lock_file(file)
                    shutil.rmtree(folder, ignore_errors=True)
                shutil.rmtree(folder, ignore_errors=True)  # Windows does not remove open files
