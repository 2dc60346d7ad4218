"""Log lines that workers keep beside the log, until the driver has surely written them.

A driver that is killed does not know what its workers have finished since their last reports. The outputs are there,
and the next run with the same log adds their lines, which name the worker. The folder is `LOG.workers`, with a folder
for each run and a file for each group in it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from restore.fix.batch_options import FilePath
from restore.fix.log import Record, read_done
from restore.fix.parquet_log import journal_of
from restore.fix.results import RunLog

_SUFFIX = ".workers"


class KeptLines:
    """What a worker has finished, by group.

    Args:
        folder: of the run, as `kept_by_workers` has made it; "", or one that this machine does not see: nothing is
            kept.
        worker: its name, for the log.
    """

    def __init__(self, folder: str, worker: str) -> None:
        # No other machine has a folder of this name by chance: it is that of the run.
        self._folder = Path(folder) if folder and os.path.isdir(folder) else None
        self._worker = worker

    def keep(self, group: int, record: dict[str, Any]) -> None:
        """Keep the record of an image whose output is written. A full disk is no reason to fail."""
        if self._folder is not None and record.get("status") == "done":
            line = {**record, "worker": self._worker, "run": self._folder.name}
            with suppress(OSError), open(self._file(group), "a", encoding="ascii") as file:
                file.write(json.dumps(line) + "\n")

    def forget(self, group: int) -> None:
        """Remove the lines of a group, which the driver has by now."""
        if self._folder is not None:
            with suppress(OSError):
                self._file(group).unlink()

    def _file(self, group: int) -> Path:
        assert self._folder is not None
        return self._folder / f"{group}.jsonl"


@contextmanager
def kept_by_workers(log: RunLog, place: FilePath | None, run: str) -> Iterator[str]:
    """Let workers keep lines during the block; then add those that a killed driver does not know to the log.

    Args:
        log: of the run.
        place: its path; None: there is no log.
        run: identifies the run.

    Yields:
        The folder for `KeptLines`; "" if there is none.
    """
    if place is None or os.fspath(place) == "-":
        yield ""
        return
    path = Path(os.path.abspath(place))
    folder = path.with_name(path.name + _SUFFIX)
    own = folder / run
    try:
        own.mkdir(parents=True)
    except OSError:
        yield ""
        return
    try:
        yield os.fspath(own)
        for record in _lost(path, folder):
            log.write(record)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        for empty in (own, folder):  # others stay for the next run
            with suppress(OSError):
                empty.rmdir()


def _lost(log: Path, folder: Path) -> Iterator[Record]:
    """What workers have kept and no log holds, oldest first."""
    kept: dict[tuple[str, str], dict[str, Any]] = {}
    for path in sorted(folder.glob("*/*.jsonl")):
        for line in read_done(path):  # without a half line of a worker that was killed
            kept[line["run"], line["input"]] = line
    for written in (log, journal_of(log)) if kept else ():
        for line in read_done(written):
            kept.pop((line.get("run", ""), line["input"]), None)
    yield from (Record(**line) for line in sorted(kept.values(), key=lambda line: str(line["time"])))
