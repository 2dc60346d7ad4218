"""What came of a run, and why files failed."""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal

from restore.errors import RestoreError, printable
from restore.files import not_found_message
from restore.fix.decoder_isolation import SupervisorLink
from restore.fix.plan import Job, called

# The log of a run: one JSON object per file, written as it goes.


Status = Literal["done", "skipped", "failed"]


@dataclass(frozen=True)
class Record:
    """What became of one file. The fields are the manifest's keys.

    Attributes:
        input, output: paths.
        status: `done`: the output is complete; `skipped`: nothing was to be done;
            `failed`: nothing was written.
        reason: why it was skipped or failed, or what was special; empty otherwise.
        seconds: wall time spent on this file alone, without waiting for its turn.
        model: the restorer's name; of several the one that filled holes; `fade` where only fading was undone; None
            where nothing repaired.
        model_sha256: of the weights' file, None for what has none.
        models: every model that took part, in order, with its hash.
        settings: the options that decide the result.
        input_sha256, output_sha256: of the files; None where there is none.
        marked_share: pixels that a mask marks, of all; None without masks.
        changed_share: pixels that differ from the input's, of all.
        warnings: what the user should know about this file.
    """

    input: str
    output: str
    status: Status
    reason: str = ""
    seconds: float = 0.0
    model: str | None = None
    model_sha256: str | None = None
    models: dict[str, str | None] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    input_sha256: str | None = None
    output_sha256: str | None = None
    marked_share: float | None = None
    changed_share: float | None = None
    warnings: list[str] = field(default_factory=list)


_FIRST_KEY = b'{"input"'


def _begins_manifest(start: bytes) -> bool:
    """Whether a file may be added to: a manifest, the beginning of one (of a run that was killed), or nothing."""
    return _FIRST_KEY.startswith(start)


class Manifest:
    """A JSON-lines file that is added to; earlier runs' lines stay. Not safe for several threads at once.

    Args:
        path: the file; `-` is standard output; None writes nothing.

    Raises:
        RestoreError: exit code 2; it cannot be written to, or holds something that is no manifest.
    """

    def __init__(self, path: Path | None) -> None:
        self._file: IO[str] | None = None
        self._closes = False
        if path is None:
            return
        if os.fspath(path) == "-":
            self._file = sys.stdout
            return
        try:
            if path.is_file():
                with open(path, "rb") as existing:
                    if not _begins_manifest(existing.read(len(_FIRST_KEY))):
                        raise RestoreError("exists and is no manifest", where=path, hint="give --log another name")
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file, self._closes = open(path, "a", encoding="utf-8"), True
        except OSError as error:
            raise RestoreError(f"the log cannot be written: {error.strerror}", where=path) from error
        if path.is_file():
            self._end_torn_line(path)

    @property
    def is_open(self) -> bool:
        """Whether anything is written at all."""
        return self._file is not None

    def _end_torn_line(self, path: Path) -> None:
        """A run that was killed may have left half a line; the next one starts on its own."""
        with open(path, "rb") as existing:
            if existing.seek(0, os.SEEK_END):
                existing.seek(-1, os.SEEK_END)
                if existing.read(1) != b"\n" and self._file is not None:
                    self._file.write("\n")

    def write(self, record: Record) -> None:
        """Add a line; it is in the system's hands when this returns."""
        if self._file is not None:
            self._file.write(json.dumps(asdict(record)) + "\n")
            self._file.flush()

    def __enter__(self) -> Manifest:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None and self._closes:
            # What could not be written was told when it was tried; closing tries again.
            with suppress(OSError):
                self._file.close()


Progress = Callable[[Record, int, int], None]

#: Why a run stops that has found no room left; what has not been written by then is not tried.
DISK_FULL = "the disk is full"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FileFailure:
    """A file that could not be repaired, and why."""

    path: Path
    reason: str


@dataclass
class Summary:
    """What came of a run.

    Attributes:
        total: files in the plan.
        done: outputs that are complete, with those that were copied.
        copied: of these, byte for byte, because there was nothing to repair.
        skipped: reasons and how many files each concerned.
        failed: in the order of the plan.
        warnings: one line each, with the file's name.
        seconds: wall time.
        stopped: why the run ended early, "" if it did not.
        interrupted: it ended early by Ctrl-C.
        unmatched_masks: masks that are of no picture.
        megapixels: of the sources of outputs that are complete, millions.
        model, model_sha256, settings: what repaired, as the manifest tells it.
    """

    total: int
    done: int = 0
    copied: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    failed: list[FileFailure] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0
    stopped: str = ""
    interrupted: bool = False
    unmatched_masks: int = 0
    megapixels: float = 0.0
    model: str = ""
    model_sha256: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def not_started(self) -> int:
        """Files that an early end left as they were."""
        return self.total - self.done - sum(self.skipped.values()) - len(self.failed)

    @property
    def exit_code(self) -> int:
        """0 all done; 1 files failed, masks are of no picture, or the run stopped early; 130 interrupted."""
        if self.interrupted:
            return 130
        return 1 if self.failed or self.unmatched_masks or self.stopped else 0

    def to_dict(self) -> dict[str, Any]:
        """The summary as JSON holds it, for scripts: paths as they are, whatever their bytes."""
        known = {name: getattr(self, name) for name in (
            "total", "done", "copied", "skipped", "not_started", "unmatched_masks", "warnings", "stopped",
            "interrupted", "exit_code", "model", "model_sha256", "settings",
        )}  # fmt: skip
        failed = [{"input": os.fspath(failure.path), "reason": failure.reason} for failure in self.failed]
        return known | {
            "failed": failed,
            "seconds": round(self.seconds, 3),
            "megapixels": round(self.megapixels, 6),
        }

    def format(self) -> list[str]:
        """The summary as text, failures last."""
        lines = [*self.warnings]
        parts = [f"{self.done} done" + (f" ({self.copied} copied, nothing to repair)" if self.copied else "")]
        parts += [f"{count} skipped: {reason}" for reason, count in self.skipped.items()]
        parts += [f"{len(self.failed)} failed"] if self.failed else []
        parts += [f"{self.not_started} not started"] if self.not_started else []
        lines.append(f"{', '.join(parts)}; {self.seconds:.1f} s")
        if self.stopped or self.interrupted:
            lines.append(f"stopped: {self.stopped or 'interrupted'}; the same command with --skip-existing goes on")
        return lines + self.failures()

    def failures(self) -> list[str]:
        """A line for each file that failed."""
        return [f"failed: {called(failure.path)}: {failure.reason}" for failure in self.failed]


class ResultRecorder:
    """Where every file's fate is entered, once, from whichever thread: counted, logged, told.

    Args:
        summary: counts.
        manifest: logs.
        settings: stands in every line of the manifest.
        progress: called with the record, the number of files finished and the total; by one thread at a time.
        fail_fast: the first failure stops the run.
        watch: hears of every fate, so that a run that is started again knows it.
    """

    def __init__(
        self,
        summary: Summary,
        manifest: Manifest,
        settings: dict[str, Any],
        progress: Progress | None = None,
        fail_fast: bool = False,
        watch: SupervisorLink | None = None,
    ) -> None:
        self.summary, self.manifest, self.settings = summary, manifest, settings
        self._progress, self._fail_fast = progress, fail_fast
        self._watch = watch or SupervisorLink()
        self._lock = threading.Lock()

    def finish(self, job: Job, status: Status, reason: str, *, pixels: int = 0, **facts: Any) -> None:
        """Enter a file of so many pixels; `facts` are further fields of its `Record`."""
        record = Record(os.fspath(job.source), os.fspath(job.target), status, reason, settings=self.settings, **facts)
        with self._lock:
            self._count(record, pixels)
            try:
                self.manifest.write(record)
            except OSError as error:
                self.summary.stopped = f"the log cannot be written: {error.strerror}"
            self._watch.end(record.input, {"record": asdict(record), "pixels": pixels})
            self._show(record)

    def recall(self, entry: dict[str, Any]) -> None:
        """Count a file that an earlier start of this run has entered."""
        record = Record(**entry["record"])
        with self._lock:
            self._count(record, entry["pixels"])
            self._show(record)

    def _count(self, record: Record, pixels: int) -> None:
        summary = self.summary
        if record.status == "done":
            summary.done += 1
            summary.megapixels += pixels / 1e6
            summary.copied += record.model is None
        elif record.status == "skipped":
            summary.skipped[record.reason] = summary.skipped.get(record.reason, 0) + 1
        else:
            summary.failed.append(FileFailure(Path(record.input), record.reason))
            if self._fail_fast:
                summary.stopped = summary.stopped or "at the first failure, as asked"
        summary.warnings += [f"{called(Path(record.input))}: {note}" for note in record.warnings]

    def _show(self, record: Record) -> None:
        summary = self.summary
        if self._progress is not None:
            self._progress(record, summary.total - summary.not_started, summary.total)

    def fail(self, job: Job, error: Exception) -> None:
        """Enter a file that failed; a full disk also stops the run."""
        if not isinstance(error, (RestoreError, OSError, MemoryError)):
            logger.debug("%s", printable(job.source), exc_info=error)
        self.finish(job, "failed", reason_of(error, job))
        if disk_is_full(error):
            self.summary.stopped = self.summary.stopped or DISK_FULL


def reason_of(error: Exception, job: Job) -> str:
    """Why a file failed, in one line; other files that are to blame are named."""
    if isinstance(error, RestoreError):
        own = error.where in (None, printable(job.source), printable(job.target))
        line = error.what if own else f"{error.where}: {error.what}"
        return line if error.hint is None else f"{line}; {error.hint}"
    if isinstance(error, MemoryError):
        return "not enough memory; close other programs, or try a smaller --tile"
    if isinstance(error, FileNotFoundError):
        return not_found_message(job.source, "file") if os.path.islink(job.source) else "vanished meanwhile"
    if isinstance(error, OSError):
        return f"{error.strerror or error}"
    return f"unexpected {type(error).__name__}: {' '.join(str(error).split())[:200]} (--debug shows more)"


def disk_is_full(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, says that there is no room left."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__
    return False
