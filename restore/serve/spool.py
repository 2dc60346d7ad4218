"""The files of requests: a folder for each, removed when its answer was sent, or its result was kept long enough."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import threading
import time
from collections import Counter, OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from restore.errors import RestoreError
from restore.files import folder_error_message, lock_file
from restore.serve.jobs import Job

_PREFIX = "restore-serve-"


@dataclass(frozen=True)
class Kept:
    """A job whose result can be fetched later, and the folder of its files."""

    job: Job
    folder: Path


class Spool:
    """The folder of a server's uploads and results.

    Args:
        parent: the folder that holds it; None: the system's folder for temporary files.
        keep_seconds, keep_results: how long results are kept, and how many at a time.
    """

    def __init__(self, parent: Path | None, *, keep_seconds: float, keep_results: int) -> None:
        self._parent = Path(tempfile.gettempdir()) if parent is None else parent
        self._keep_seconds, self._keep_results = keep_seconds, keep_results
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._lent: Counter[Path] = Counter()
        self._doomed: set[Path] = set()
        self._changing = threading.Lock()  # sweeping runs in a thread of its own
        self._lock: IO[bytes] | None = None
        self._identity: tuple[int, int] | None = None
        self.root = Path()

    def open(self) -> None:
        """Make the folder, unless it is there, and remove those of servers that were killed.

        Raises:
            RestoreError: exit code 2; it cannot be made.
        """
        if self._lock is not None:
            return
        try:
            self._parent.mkdir(parents=True, exist_ok=True)
            self._make_root()
        except OSError as error:
            hint = "choose another folder with --work"
            raise RestoreError(folder_error_message(error), where=self._parent, hint=hint) from error
        for old in self._parent.glob(f"{_PREFIX}*"):
            with suppress(OSError):
                if old != self.root and not _is_locked(old):  # the folders of other users cannot be opened
                    shutil.rmtree(old)

    def _make_root(self) -> None:
        self._parent.mkdir(parents=True, exist_ok=True)
        self.root = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self._parent))
        self._identity = _identity(self.root)
        self._lock = open(self.root / "lock", "wb")
        with suppress(OSError):
            lock_file(self._lock)

    def close(self) -> None:
        """Remove the folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None
            shutil.rmtree(self.root, ignore_errors=True)

    def new_folder(self) -> Path:
        """An empty folder for a request.

        Systems remove old files from the folder for temporary files, and then another user may put a folder of the same
        name there. In either case a new root is made, which nobody else can read.
        """
        with self._changing:
            if _identity(self.root) != self._identity:
                if self._lock is not None:
                    self._lock.close()
                self._make_root()
            folder = self.root / secrets.token_hex(16)
            folder.mkdir()
        (folder / "out").mkdir()
        return folder

    def remove(self, folder: Path) -> None:
        """Remove the folder of a request."""
        shutil.rmtree(folder, ignore_errors=True)

    def keep(self, job: Job, folder: Path) -> None:
        """Keep a job and its files until `sweep` finds them too old."""
        with self._changing:
            self._kept[job.id] = Kept(job, folder)

    def get(self, identifier: str) -> Kept | None:
        """A job that is kept."""
        return self._kept.get(identifier)

    def lend(self, identifier: str) -> Kept | None:
        """A job that is kept; its files stay until they are given back, even if they are dropped meanwhile."""
        with self._changing:
            kept = self._kept.get(identifier)
            if kept is not None:
                self._lent[kept.folder] += 1
            return kept

    def give_back(self, kept: Kept) -> None:
        """The files of a job are no longer needed by one to whom they were lent."""
        with self._changing:
            self._lent[kept.folder] -= 1
            if self._lent[kept.folder]:
                return
            del self._lent[kept.folder]
            if kept.folder not in self._doomed:
                return
            self._doomed.remove(kept.folder)
        self.remove(kept.folder)

    def drop(self, identifier: str) -> None:
        """Remove a job and its files."""
        with self._changing:
            kept = self._kept.pop(identifier, None)
            if kept is None:
                return
            if kept.folder in self._lent:
                self._doomed.add(kept.folder)
                return
        self.remove(kept.folder)

    def sweep(self) -> None:
        """Remove results that are too old, and the oldest of too many."""
        with self._changing:
            ended = sorted((kept.job.ended, key) for key, kept in self._kept.items() if kept.job.ended is not None)
        for place, (when, identifier) in enumerate(ended):
            surplus = place < len(ended) - self._keep_results
            if surplus or time.monotonic() - when > self._keep_seconds:
                self.drop(identifier)

    def size_bytes(self) -> int:
        """Bytes of all files."""
        total = 0
        for folder, _, names in os.walk(self.root):
            for name in names:
                with suppress(OSError):
                    total += os.stat(os.path.join(folder, name)).st_size
        return total


def _identity(folder: Path) -> tuple[int, int] | None:
    """What stays the same of a folder for as long as it exists; None: there is none."""
    try:
        status = os.lstat(folder)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _is_locked(folder: Path) -> bool:
    """Whether a server holds this folder. One that has no lock file is just being made, or not a server's."""
    try:
        with open(folder / "lock", "rb", opener=_open_at_once) as file:
            lock_file(file)
    except OSError:
        return True
    return False


def _open_at_once(path: str, flags: int) -> int:
    """Open a file; a named pipe that another user has put there does not keep the server waiting."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
