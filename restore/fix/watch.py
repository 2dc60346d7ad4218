"""`restore fix --watch`: repair the images that arrive in a folder, until it is asked to stop."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from restore.errors import RestoreError
from restore.fix.batch_options import FilePath
from restore.fix.decoder_isolation import SupervisorLink
from restore.fix.inputs import PIPE
from restore.fix.jobs import Job, Jobs
from restore.fix.options import FixOptions
from restore.fix.plan import FixPlan, NoImages, plan_fix
from restore.fix.results import FileFailure, Summary

#: A file is whole when its size and modification time have stood still for this long.
SETTLE_SECONDS = 2.0
#: Without watchfiles, and while files settle, the folder is listed this often.
POLL_SECONDS = 1.0
#: With watchfiles, it is listed at least this often all the same: network shares report no changes.
SLOW_POLL_SECONDS = 30.0
#: Names that programs give to files which they still write.
PARTIAL_SUFFIXES = frozenset(
    (".part", ".partial", ".crdownload", ".download", ".filepart", ".tmp", ".!ut", ".opdownload")
)

#: Size and modification time of each file of a job.
_State = tuple[tuple[int, int], ...]


@dataclass
class Watched:
    """What a watch has done.

    Attributes:
        done: images whose output is complete.
        failed: images that failed, once for each state of their files.
        stopped: why it ended without being asked to; "" if it did not.
    """

    done: int = 0
    failed: list[FileFailure] = field(default_factory=list)
    stopped: str = ""

    @property
    def exit_code(self) -> int:
        """0 success; 1 images failed, or the watch stopped by itself."""
        return 1 if self.failed or self.stopped else 0

    def add(self, summary: Summary, on_event: Callable[[str], None]) -> None:
        """Add the result of a run, and tell it in lines; of one that was interrupted, only what went wrong."""
        self.done += summary.done
        self.failed += summary.failed
        self.stopped = summary.stopped
        for line in [*summary.warnings, *summary.failures()] if summary.interrupted else summary.format():
            on_event(line)


class Arrivals:
    """The images of a folder that are whole and have no output.

    Args:
        input: a folder.
        output: a folder.
        options: of the run; existing outputs are skipped.
        settle_seconds: see `SETTLE_SECONDS`.

    Attributes:
        settled: the state of images that were tried and have no output; they wait until their files change.

    Raises:
        RestoreError: exit code 2; as `plan_fix`, but the folder may be empty.
    """

    def __init__(self, input: Path, output: FilePath, options: FixOptions, settle_seconds: float) -> None:
        self._input, self._output, self._settle_seconds = input, output, settle_seconds
        self._options = FixOptions.from_dict(options.to_dict() | {"skip_existing": True})
        self._since: dict[Path, tuple[_State, float]] = {}
        self.settled: dict[Path, _State] = {}
        self._complaint = ""
        self._plan()

    def ready(self, on_event: Callable[[str], None]) -> FixPlan | None:
        """A plan of the images that are whole and wait; None: there are none.

        Args:
            on_event: called with a line if the folder cannot be planned as it is now; once for each reason.
        """
        try:
            plan = self._plan()
        except RestoreError as error:  # such as two images that would get one output: a person has to choose
            if str(error) != self._complaint:
                on_event(f"waiting: {error}")
            self._complaint = str(error)
            return None
        self._complaint = ""
        now = time.monotonic()
        states = {job.source: (job, _state(job)) for job in plan.jobs if _may_run(job)}
        self._since = {
            source: self._since[source] if source in self._since and self._since[source][0] == state else (state, now)
            for source, (_, state) in states.items()
            if state is not None and self.settled.get(source) != state
        }
        whole = [source for source, (_, since) in self._since.items() if now - since >= self._settle_seconds]
        if not whole:
            return None
        return replace(plan, jobs=Jobs(states[source][0] for source in whole), warnings=[], unmatched_masks=[])

    @property
    def waiting(self) -> bool:
        """Whether files have arrived that may not be whole yet."""
        return bool(self._since)

    def finished(self, plan: FixPlan) -> None:
        """Leave out the images of a plan that have no output, until their files change."""
        for job in plan.jobs:
            if not os.path.lexists(job.target):
                state = self._since[job.source][0] if job.source in self._since else _state(job)
                if state is not None:
                    self.settled[job.source] = state

    def _plan(self) -> FixPlan:
        try:
            return plan_fix(self._input, self._output, self._options)
        except NoImages:
            return FixPlan((self._input,), Path(self._output), False, Jobs())


def watch_folder(
    input: FilePath,
    output: FilePath,
    options: FixOptions,
    run: Callable[[FixPlan, SupervisorLink], Summary],
    *,
    link: SupervisorLink | None = None,
    on_event: Callable[[str], None],
    settle_seconds: float = SETTLE_SECONDS,
) -> Watched:
    """Repair what arrives in a folder, until Ctrl-C or SIGTERM; what is being written is finished.

    An image is repaired once: when it is whole and has no output. One that failed is tried again when it changes.

    Args:
        input, output: folders.
        options: as for `plan_fix`; existing outputs are skipped.
        run: carries out a plan.
        link: to the process that starts this one again if it crashes; its plan is finished first.
        on_event: called with each line for the user.
        settle_seconds: see `SETTLE_SECONDS`.

    Raises:
        RestoreError: exit code 2; an option or a path does not suit, or as `plan_fix` and `run`.
    """
    check_watch(input, output, options)
    link, watched = link or SupervisorLink(), Watched()
    arrivals = Arrivals(Path(input), output, options, settle_seconds)
    plan: FixPlan | None = None
    if link.plan is not None:
        plan, arrivals.settled = link.plan
    changes = _changes(Path(input))
    try:
        while not watched.stopped:
            if plan is not None:
                summary = run(plan, link)
                watched.add(summary, on_event)
                if summary.interrupted:
                    break
                arrivals.finished(plan)
                link.renew()
            plan = arrivals.ready(on_event)
            if plan is not None:
                link.keep((plan, arrivals.settled))
            elif arrivals.waiting:
                time.sleep(min(POLL_SECONDS, settle_seconds))
            else:
                next(changes)
    except KeyboardInterrupt:
        pass
    return watched


def check_watch(input: FilePath, output: FilePath, options: FixOptions) -> None:
    """Check that folders are watched, with options that suit it.

    Raises:
        RestoreError: exit code 2.
    """
    if os.fspath(input) == "-" or os.fspath(output) == "-" or not os.path.isdir(input):
        raise RestoreError("takes a folder as INPUT, and one as OUTPUT", where="--watch")
    check_watch_options(options)


def check_watch_options(options: FixOptions) -> None:
    """Check that options suit a watch.

    Raises:
        RestoreError: exit code 2.
    """
    for name in ("overwrite", "files_from", "html_report"):
        if getattr(options, name):
            raise RestoreError("cannot be combined with --watch", where=f"--{name.replace('_', '-')}")


def _may_run(job: Job) -> bool:
    """Whether a job would repair an image, or fail for a reason that does not go away by waiting for its mask."""
    return job.action != "skip" and job.code != "no_mask" and job.source.suffix.lower() not in PARTIAL_SUFFIXES


def _state(job: Job) -> _State | None:
    """Size and time of the files of a job; None: one is missing."""
    state = []
    for path in (job.source, job.mask, *(sidecar for sidecar, _ in job.sidecars)):
        if path is None or path == PIPE:
            continue
        try:
            status = os.stat(path)
        except OSError:
            return None
        state.append((status.st_size, status.st_mtime_ns))
    return tuple(state)


def _changes(folder: Path) -> Iterator[None]:
    """Returns from `next` when the folder may have changed."""
    try:
        from watchfiles import watch
    except ImportError:
        while True:
            time.sleep(POLL_SECONDS)
            yield
    last = -SLOW_POLL_SECONDS  # the first listing after the watch has begun sees what came before it
    for changed in watch(folder, watch_filter=None, yield_on_timeout=True, rust_timeout=round(POLL_SECONDS * 1000)):
        if changed or time.monotonic() - last >= SLOW_POLL_SECONDS:
            last = time.monotonic()
            yield
