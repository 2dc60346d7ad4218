"""The work folder of a run over URLs: where groups come and go, and what a run that is started again needs."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from restore.errors import RestoreError
from restore.files import folder_error_message

_PREFIX = "restore-work-"
#: A folder of which no run holds the lock is a leftover when it is older than this.
_LEFTOVER_SECONDS = 3600

logger = logging.getLogger(__name__)


class WorkFolder:
    """A temporary folder, in TMPDIR or the system's folder for such.

    A run that is killed leaves it behind; the next run removes it.

    Args:
        path: of a run that is started again; None: a new one.

    Raises:
        RestoreError: exit code 2; it cannot be made.
    """

    def __init__(self, path: str | None = None) -> None:
        sweep()
        try:
            self.path = Path(path or tempfile.mkdtemp(prefix=_PREFIX))
            self._lock = _locked(self.path / "lock")
        except OSError as error:
            hint = "TMPDIR chooses another folder"
            raise RestoreError(folder_error_message(error), where=tempfile.gettempdir(), hint=hint) from error

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
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            self._lock.close()


def sweep() -> None:
    """Remove folders that killed runs have left."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime < _LEFTOVER_SECONDS or folder.is_symlink():
                continue
            lock = _locked(folder / "lock")
            if lock is None:
                continue
            with lock:
                shutil.rmtree(folder)


def _locked(path: Path) -> IO[bytes] | None:
    """A file that is locked as long as it is open; None if another process holds it."""
    file = open(path, "ab")
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:  # Windows does not remove open files
        pass
    except OSError:
        file.close()
        return None
    return file
