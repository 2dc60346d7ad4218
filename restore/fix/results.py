"""The results of a run: counted, logged and reported; and why images failed."""

from __future__ import annotations

import errno
import json
import logging
import os
import secrets
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol, cast

from restore import progress
from restore.errors import RestoreError, printable
from restore.files import lock_file, not_found_message
from restore.fix.batch_options import FilePath
from restore.fix.decoder_isolation import SupervisorLink
from restore.fix.inputs import called
from restore.fix.jobs import Job
from restore.fix.log import LogLine, ReasonCode, Record, RunStart, Segment, Status
from restore.fix.parquet_log import SUFFIX as PARQUET_SUFFIX
from restore.fix.parquet_log import append_journal, check_parquet_log, journal_of
from restore.fix.sensitivity import more_sensitive
from restore.images import NotAnImage, UnsupportedFile
from restore.images.decoder_output import DamagedFile, ImageTooLarge

Progress = Callable[[Record, int, int], None]

#: Why a run stops when the disk is full; what has not been written by then is not tried.
DISK_FULL = "the disk is full"

logger = logging.getLogger(__name__)


def now() -> str:
    """The time as lines hold it."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def new_run() -> str:
    """An identifier for a run."""
    return secrets.token_hex(6)


@dataclass(frozen=True)
class FileFailure:
    """An image that failed, and why. `path` is a string if it is a URL.

    `code` is for programs, `number` is its place in the plan.
    """

    path: FilePath
    reason: str
    code: ReasonCode = "failed"
    number: int = 0


@dataclass
class Summary:
    """The result of a run.

    Attributes:
        total: images in the plan.
        output: where outputs were written, as the user gave it.
        run: identifies the run in its log.
        done: images whose output is complete, copies included.
        copied: of these, copied byte for byte because there was nothing to repair.
        skipped: reasons, and how many images each concerned.
        failed: in the order of the plan.
        warnings: one line each, with the file's name.
        seconds: wall time.
        stopped: why the run ended early; "" if it did not.
        interrupted: it ended early by Ctrl-C or SIGTERM.
        unmatched_masks: masks without an image.
        megapixels: of the images that are done, in millions of pixels.
        searched: images that are done and were searched for damage.
        searched_videos: of these, videos.
        damaged: of these, images in which damage was found.
        damaged_pixels: damaged pixels in those images.
        pixels_of_damaged: all pixels of those images.
        model, model_sha256, settings: as in the log; see `restore.fix.log.RunStart`.
        html_report: the page that was written: a path or URL; None without one.
    """

    total: int
    output: str = ""
    run: str = field(default_factory=new_run)
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
    searched: int = 0
    searched_videos: int = 0
    damaged: int = 0
    damaged_pixels: int = 0
    pixels_of_damaged: int = 0
    model: str = ""
    model_sha256: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    html_report: FilePath | None = None

    @property
    def not_started(self) -> int:
        """Images that the run did not reach."""
        return self.total - self.done - sum(self.skipped.values()) - len(self.failed)

    @property
    def damaged_fraction(self) -> float:
        """The fraction of damaged pixels in the images in which damage was found, in [0, 1]."""
        return self.damaged_pixels / self.pixels_of_damaged if self.pixels_of_damaged else 0.0

    @property
    def exit_code(self) -> int:
        """0 success; 1 images failed, masks have no image, or the run stopped early; 130 interrupted."""
        if self.interrupted:
            return 130
        return 1 if self.failed or self.unmatched_masks or self.stopped else 0

    def to_dict(self) -> dict[str, Any]:
        """The summary as JSON holds it, for scripts; paths are not escaped."""
        known = {name: getattr(self, name) for name in (
            "run", "output", "total", "done", "copied", "skipped", "not_started", "unmatched_masks", "warnings",
            "stopped", "interrupted", "exit_code", "model", "model_sha256", "settings",
        )}  # fmt: skip
        failed = [
            {"input": os.fspath(failure.path), "reason": failure.reason, "reason_code": failure.code}
            for failure in self.failed
        ]
        return known | {
            "failed": failed,
            "seconds": round(self.seconds, 3),
            "megapixels": round(self.megapixels, 6),
            "searched": self.searched,
            "damaged": self.damaged,
            "damaged_fraction": round(self.damaged_fraction, 6),
            "html_report": None if self.html_report is None else os.fspath(self.html_report),
        }

    def format(self) -> list[str]:
        """The summary as text, failures last."""
        lines = [*self.warnings]
        parts = [f"{self.done} done" + (f" ({self.copied} copied, nothing to repair)" if self.copied else "")]
        parts += [f"{count} skipped: {reason}" for reason, count in self.skipped.items()]
        parts += [f"{len(self.failed)} failed"] if self.failed else []
        parts += [f"{self.not_started} not started"] if self.not_started else []
        place = f"; written to {printable(self.output)}" if self.done and self.output else ""
        engine = self.settings.get("engine") if self.done > self.copied else None
        by = f" ({engine}, {self.settings.get('precision')})" if engine else ""
        lines.append(f"{', '.join(parts)}; {self.seconds:.1f} s{by}{place}")
        lines += damage_lines(self)
        if self.stopped or self.interrupted:
            why = f"stopped: {self.stopped}" if self.stopped else "interrupted"
            lines.append(f"{why}; resume with the same command and --skip-existing")
        return lines + self.failures()

    def failures(self) -> list[str]:
        """A line for each image that failed."""
        return [f"failed: {called(failure.path)}: {failure.reason}" for failure in self.failed]


def damage_lines(summary: Summary) -> list[str]:
    """How much damage was found, and what to do about images without any; nothing if none was searched for."""
    searched, damaged = summary.searched, summary.damaged
    if not searched:
        return []
    more = more_sensitive(summary.settings.get("sensitivity", "normal"))
    videos = summary.searched_videos
    kind = "image" if not videos else "video" if videos == searched else "file"
    if not damaged:
        if searched == 1:
            return [f"no damage found: look at the {kind}, or {more}"]
        return [f"no damage found in {searched} {kind}s: look at them, or {more}"]
    # Rounded to 0.0 %, damage would read like none.
    share = f"{summary.damaged_fraction:.1%}" if summary.damaged_fraction >= 0.0005 else "less than 0.1%"
    if searched == 1:
        return [f"damage found in {share} of the {kind}"]
    where = f"all {searched}" if damaged == searched else f"{damaged} of {searched}"
    line = f"damage found in {where} {kind}s, {share} of {'its' if damaged == 1 else 'their'} pixels"
    if clean := searched - damaged:
        line += f"; in {clean} none was found: look at {'it' if clean == 1 else 'them'}, or {more}"
    return [line]


#: How logs begin: with a run, or, if they were begun by version 0.1.0 or earlier, with an image.
_BEGINNINGS = (b'{"event"', b'{"input"')


class RunLog:
    """A file of JSON lines that is appended to. Not safe for several threads at once.

    Args:
        path: the file; one that ends in `.parquet` becomes Parquet when the run ends (see `restore.fix.parquet_log`);
            `-` is standard output; None: nothing is written.
        alone: no other command may write to it at the same time; always so for Parquet.

    Raises:
        RestoreError: exit code 2; it cannot be written to, holds something else than a log, or another command has it.
    """

    def __init__(self, path: FilePath | None, *, alone: bool = False) -> None:
        self._file: IO[str] | None = None
        self._closes = False
        self._parquet: Path | None = None
        if path is None:
            return
        if os.fspath(path) == "-":
            self._file = sys.stdout
            return
        path = Path(path)
        try:
            if path.suffix.lower() == PARQUET_SUFFIX:
                check_parquet_log(path)
                self._parquet, path = path, journal_of(path)
            if path.is_file():
                with open(path, "rb") as existing:
                    start = existing.read(max(map(len, _BEGINNINGS)))
                # A run that was killed may have written the beginning of a line, or nothing.
                if not any(beginning.startswith(start) for beginning in _BEGINNINGS):
                    raise RestoreError("exists and is not a log", where=path, hint="choose another file for --log")
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file, self._closes = open(path, "a", encoding="utf-8"), True
        except OSError as error:
            raise RestoreError(f"the log cannot be written: {error.strerror}", where=path) from error
        if alone or self._parquet is not None:
            self._lock(self._parquet or path)
        if path.is_file():
            self._end_torn_line(path)

    @property
    def is_open(self) -> bool:
        """Whether anything is written at all."""
        return self._file is not None

    def _lock(self, path: Path) -> None:
        """Keep other commands away until the log is closed. Windows would keep readers away, too."""
        assert self._file is not None  # opened before
        if os.name == "nt":
            return
        try:
            lock_file(self._file)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):  # else this disk has no locks
                self._file.close()
                hint = "give each command a log of its own"
                raise RestoreError("another command is writing to this log", where=path, hint=hint) from error

    def _end_torn_line(self, path: Path) -> None:
        """A run that was killed may have written half a line; the next line must not continue it."""
        with open(path, "rb") as existing:
            if existing.seek(0, os.SEEK_END):
                existing.seek(-1, os.SEEK_END)
                if existing.read(1) != b"\n" and self._file is not None:
                    self._file.write("\n")

    def write(self, line: LogLine) -> None:
        """Append a line; the operating system has it when this returns."""
        if self._file is not None:
            self._file.write(json.dumps(asdict(line)) + "\n")
            self._file.flush()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is None or not self._closes:
            return
        with suppress(OSError):  # a failed write was reported when it was tried
            self._file.flush()
        if os.name == "nt":  # it removes no open file, and the log is not locked there
            self._file.close()
        try:
            if self._parquet is not None:
                append_journal(self._parquet)
        finally:
            with suppress(OSError):
                self._file.close()


class HasPlaces(Protocol):
    """A plan, as far as logs name it: its input and output, as the user gave them."""

    @property
    def input(self) -> str | list[str]: ...  # noqa: D102

    @property
    def output(self) -> FilePath: ...  # noqa: D102


class ResultRecorder:
    """Records the result of every image once, from any thread: counts, logs and reports it.

    Args:
        summary: counts.
        log: gets a line for every image.
        progress: called with the record, the number of images finished and the total; by one thread at a time.
        fail_fast: the first failure stops the run.
        link: is told every result, so that a run that is started again knows them.
        records: gets every record; None: they are not collected.
        part_progress: called with how much of a video is done, in [0, 1].
    """

    def __init__(
        self,
        summary: Summary,
        log: RunLog,
        progress: Progress | None = None,
        fail_fast: bool = False,
        link: SupervisorLink | None = None,
        records: list[Record] | None = None,
        part_progress: Callable[[float], None] | None = None,
    ) -> None:
        self._part_progress = part_progress
        self.summary, self.log, self.settings = summary, log, summary.settings
        self._progress, self.fail_fast = progress, fail_fast
        self._link, self._records = link or SupervisorLink(), records
        self._lock = threading.Lock()

    def start(self, plan: HasPlaces) -> None:
        """Write the first line of the log.

        Raises:
            RestoreError: exit code 2; it cannot be written.
        """
        summary = self.summary
        line = RunStart(
            time=now(), run=summary.run,
            input=plan.input, output=os.fspath(plan.output), images=summary.total,
            model=summary.model, model_sha256=summary.model_sha256, settings=summary.settings,
        )  # fmt: skip
        try:
            self.log.write(line)
        except OSError as error:
            raise RestoreError(f"cannot be written: {error.strerror}", where="--log") from error

    def finish(
        self,
        job: Job,
        status: Status,
        reason: str = "",
        *,
        code: ReasonCode = "",
        size: tuple[int, int] | None = None,
        pixels: int = 0,
        **facts: Any,
    ) -> None:
        """Record a result.

        Args:
            job: whose.
            status, reason, code: see `Record`.
            size: (H, W) of the image, None if it was not decoded.
            pixels: of all pages.
            facts: further fields of the `Record`.
        """
        height, width = size or (None, None)
        record = Record(
            os.fspath(job.source), os.fspath(job.target), status, reason, code,
            width=width, height=height, time=now(), run=self.summary.run, **facts,
        )  # fmt: skip
        with self._lock:
            self._count(record, pixels, job.video, job.number)
            self._write(record)
            result = {"record": asdict(record), "pixels": pixels, "video": job.video, "number": job.number}
            self._link.end(record.input, result)
            self._report(record)

    def tell_segment(self, segment: Segment) -> None:
        """Log a finished part of a video."""
        with self._lock:
            self._write(replace(segment, time=now(), run=self.summary.run))

    def _write(self, line: LogLine) -> None:
        try:
            self.log.write(line)
        except OSError as error:
            self.summary.stopped = f"the log cannot be written: {error.strerror}"

    def tell_part(self, share: float) -> None:
        """Report how much of a video is done, in [0, 1]."""
        progress.done(share)
        if self._part_progress is not None:
            self._part_progress(share)

    def finish_early(self, job: Job) -> None:
        """Record a job that the plan, or reading its image, settled: it is skipped, or fails."""
        self.finish(job, "skipped" if job.action == "skip" else "failed", job.reason, code=job.code)

    @property
    def tells_each(self) -> bool:
        """Whether anybody is told of each image."""
        return self.log.is_open or self._progress is not None or self._records is not None or self._link.takes_each

    def count_skipped(self, reasons: Mapping[str, int]) -> None:
        """Count images that the plan skips, if nobody is told of each: how many for each reason."""
        with self._lock:
            self.summary.skipped |= reasons

    def recall(self, entry: dict[str, Any], *, log: bool = False) -> None:
        """Count an image that another process has recorded: an earlier start of this run, or a worker of a cluster.

        Args:
            entry: as given to `SupervisorLink.end`.
            log: it is not in the log yet.
        """
        record = Record(**entry["record"])
        with self._lock:
            self._count(record, entry["pixels"], entry["video"], entry.get("number", 0))
            if log:
                self._write(record)
            self._report(record)

    def _count(self, record: Record, pixels: int, video: bool, number: int) -> None:
        summary = self.summary
        if record.status == "done":
            summary.done += 1
            summary.megapixels += pixels / 1e6
            summary.copied += record.model is None
            if record.damaged_fraction is not None:
                summary.searched += 1
                summary.searched_videos += video
                if record.damaged_fraction:
                    summary.damaged += 1
                    summary.damaged_pixels += round(record.damaged_fraction * pixels)
                    summary.pixels_of_damaged += pixels
        elif record.status == "skipped":
            summary.skipped[record.reason] = summary.skipped.get(record.reason, 0) + 1
        else:
            path: FilePath = record.input if "://" in record.input else Path(record.input)
            summary.failed.append(FileFailure(path, record.reason, record.reason_code, number))
            if self.fail_fast:
                summary.stopped = summary.stopped or "an image failed (--fail-fast)"
        summary.warnings += [f"{called(record.input)}: {note}" for note in record.warnings]

    def _report(self, record: Record) -> None:
        summary = self.summary
        if self._records is not None:
            self._records.append(record)
        if self._progress is not None:
            self._progress(record, summary.total - summary.not_started, summary.total)

    def fail(self, job: Job, error: Exception) -> None:
        """Record an image that failed; a full disk also stops the run."""
        if not isinstance(error, (RestoreError, OSError, MemoryError)):
            logger.debug("%s", printable(job.source), exc_info=error)
        self.finish(job, "failed", reason_of(error, job), code=code_of(error, job))
        if disk_is_full(error):
            self.summary.stopped = self.summary.stopped or DISK_FULL


def reason_of(error: Exception, job: Job) -> str:
    """Why an image failed, in one line; other files that caused it are named."""
    if isinstance(error, RestoreError):
        own = error.where in (None, printable(job.source), printable(job.target))
        line = error.what if own else f"{error.where}: {error.what}"
        return line if error.hint is None else f"{line}; {error.hint}"
    if isinstance(error, MemoryError):
        return "out of memory; close other programs, or try a smaller --tile"
    if isinstance(error, FileNotFoundError):
        return not_found_message(job.source, "file") if os.path.islink(job.source) else "vanished during the run"
    if isinstance(error, OSError):
        return f"{error.strerror or error}"
    return f"unexpected {type(error).__name__}: {' '.join(str(error).split())[:200]} (--debug shows more)"


def code_of(error: BaseException, job: Job) -> ReasonCode:
    """Why an image failed, for programs."""
    if isinstance(error, RestoreError):
        if job.mask is not None and error.where == printable(job.mask):
            return "bad_mask"
        for kind, code in (
            (NotAnImage, "not_an_image"),
            (UnsupportedFile, "unsupported"),
            (ImageTooLarge, "too_large"),
            (DamagedFile, "damaged"),
        ):
            if isinstance(error, kind):
                return cast(ReasonCode, code)
        return "failed" if error.__cause__ is None else code_of(error.__cause__, job)
    if isinstance(error, MemoryError):
        return "out_of_memory"
    if isinstance(error, OSError):
        if disk_is_full(error):
            return "disk_full"
        if isinstance(error, FileNotFoundError):
            return "not_found"
        return "no_permission" if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) else "io_error"
    return "unexpected"


def disk_is_full(error: BaseException | None) -> bool:
    """Whether an error, or its cause, says that the disk is full."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__
    return False
