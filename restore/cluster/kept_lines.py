"""Log lines that workers keep beside the log, until the driver has surely written them.

A driver that is killed does not know what its workers have finished since their last reports. The outputs are there,
and the next run with the same log adds their lines, which name the worker. The folder is `LOG.workers`, with a folder
for each run and a file for each group in it.

Several uploads are under way when a worker is killed. So the line of an upload is written before it, with the hash of
the output: an output with this hash is that worker's.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from restore.fix.batch_options import FilePath
from restore.fix.log import Record, read_done
from restore.fix.parquet_log import journal_of
from restore.fix.results import RunLog
from restore.places.outputs import sha256_of

_SUFFIX = ".workers"
#: A key of lines that were written before their outputs: the number of pixels, and whether it is a video.
_AHEAD = "ahead"


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
        self._worker, self._lock = worker, threading.Lock()

    def keep(self, group: int, result: dict[str, Any], *, ahead: bool = False) -> None:
        """Keep the result of an image whose output is written. A full disk is no reason to fail.

        Args:
            group: its number.
            result: with the record.
            ahead: the output is about to be written. Whether it was, its hash tells.
        """
        if self._folder is None or result["record"].get("status") != "done":
            return
        worker = result["record"].get("worker") or self._worker
        line = {**result["record"], "worker": worker, "run": self._folder.name}
        if ahead:
            line[_AHEAD] = [result["pixels"], result["video"]]
        with suppress(OSError), self._lock, open(self._file(group), "a", encoding="ascii") as file:
            file.write(json.dumps(line) + "\n")

    def unreported(self, outputs: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Results of workers of this run that ended before they could report them, by output.

        Args:
            outputs: where they may have written.
        """
        if self._folder is None:
            return {}
        wanted = set(outputs)
        lines = [line for path in self._folder.glob("*.jsonl") for line in read_done(path) if line["output"] in wanted]
        found = {}
        for line in sorted(lines, key=_time):  # of several that were about to write it, the last one did
            if _AHEAD in line and _is_written(line):
                pixels, video = line[_AHEAD]
                found[line["output"]] = {"record": asdict(_record_of(line)), "pixels": pixels, "video": video}
        return found

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
        with suppress(OSError):  # of a full disk, which `ResultRecorder` has told; the lines stay for the next run
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
            key = line["run"], line["input"]
            if key not in kept or _sureness(line) > _sureness(kept[key]):
                kept[key] = line
    last: dict[str, datetime] = {}  # when outputs were done for the last time
    for line in kept.values():
        last[line["output"]] = max(_time(line), last.get(line["output"], _time(line)))
    for written in (log, journal_of(log)) if kept else ():
        for line in read_done(written):
            kept.pop((line.get("run", ""), line["input"]), None)
            if line["output"] in last:
                last[line["output"]] = max(_time(line), last[line["output"]])
    for line in sorted(kept.values(), key=_time):
        # A later run that has repaired it found no output: this worker was killed before it wrote one.
        if _AHEAD not in line or (_time(line) == last[line["output"]] and _is_written(line)):
            yield _record_of(line)


def _sureness(line: dict[str, Any]) -> tuple[bool, datetime]:
    """Orders the lines of one image by what they say of its output: surely written, or about to be written later."""
    return _AHEAD not in line, _time(line)


def _time(line: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(line["time"].replace("Z", "+00:00"))


def _is_written(line: dict[str, Any]) -> bool:
    """Whether the output of a line that was written ahead is there, whole."""
    return line["output_sha256"] is not None and sha256_of(line["output"]) == line["output_sha256"]


def _record_of(line: dict[str, Any]) -> Record:
    """The record of a line; one that was written ahead says so."""
    record = Record(**{name: value for name, value in line.items() if name != _AHEAD})
    if _AHEAD not in line or record.reason:
        return record
    return replace(record, reason="its worker ended before it reported this", reason_code="unreported")
