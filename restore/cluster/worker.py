"""What a worker of a cluster does: it opens the models once, and takes groups of images through the stages.

This module imports neither Ray nor, before a worker opens its models, PyTorch: the driver loads it, too.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from restore import __version__
from restore.errors import RestoreError
from restore.files import process_id
from restore.fix.decoder_isolation import SupervisorLink, SupervisorState
from restore.fix.jobs import Job
from restore.fix.log import LogLine, Segment
from restore.fix.options import DetectOptions, FixOptions
from restore.fix.plan import FixPlan
from restore.fix.results import ResultRecorder, RunLog, Summary

if TYPE_CHECKING:
    from restore.fix.stages import Stages

#: What came of an image: the arguments of `ResultRecorder.recall`, or a segment of a video.
Result = dict[str, Any]


@dataclass(frozen=True)
class Assignment:
    """What every worker of a run is told once.

    Attributes:
        plan: the plan of the run, without its jobs.
        model: what repairs, or for `DetectOptions` what detects; a name or a path, None: as for `open_models`.
        options: of the run.
        folder: the folder that paths are relative to.
        places: files and folders that every machine must have.
        run: identifies the run in its log.
        logged: results are logged, with the hashes of the files.
        cpus: the processors of the worker.
    """

    plan: FixPlan
    model: str | None
    options: FixOptions | DetectOptions
    folder: str
    places: tuple[str, ...]
    run: str
    logged: bool
    cpus: int


@dataclass(frozen=True)
class Introduction:
    """What a worker says about itself when its models are open.

    Attributes:
        name: for the log: machine, node and process.
        node: the node's identifier in Ray.
        process: as in the names of temporary files.
        version: of this package.
        model, model_sha256, settings: as in the log's first line.
    """

    name: str
    node: str
    process: str
    version: str
    model: str
    model_sha256: str | None
    settings: dict[str, Any]


@dataclass(frozen=True)
class Report:
    """How far a worker is.

    Attributes:
        group: the number of the group in work; -1: none yet.
        results: of this group, from the one that was asked for.
        begun: how many images of the group it has begun to read.
        decoding: names of the images that are being decoded, and for how many seconds.
    """

    group: int
    results: list[Result]
    begun: int
    decoding: dict[str, float]


class Worker:
    """A process that repairs. `run` is called for one group at a time; `report` and `stop` also meanwhile."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._stages_of: Callable[[ResultRecorder, SupervisorLink], Stages] | None = None
        self._facts: dict[str, Any] = {}
        self._group, self._link, self._summary = -1, _Line(), Summary(0)
        self._stopped = ""

    def open(self, node: str | None = None) -> Introduction | RestoreError:
        """Open the models.

        Args:
            node: the node's identifier; None: Ray knows it.

        Returns:
            An introduction, or why this worker cannot repair.
        """
        if node is None:
            import ray

            node = ray.get_runtime_context().get_node_id()
        work = self._assignment
        # Before PyTorch is imported. Ray does so, too, but not if the variable is set on the machine.
        os.environ["OMP_NUM_THREADS"] = str(work.cpus)
        try:
            _check_place(work)
            self._facts, self._stages_of = _open(work)
        except RestoreError as error:
            return error
        name = f"{socket.gethostname()}/{node[:8]}/{os.getpid()}"
        return Introduction(name, node, process_id(), __version__, **self._facts)

    def run(self, number: int, jobs: Sequence[Job], *, again: bool) -> list[Result]:
        """Take a group of images through the stages.

        Args:
            number: of the group.
            jobs: its images.
            again: a worker that is gone may have written some of the outputs.

        Returns:
            All results. Images of a stopped run have none.
        """
        from restore.fix.scheduler import stream

        assert self._stages_of is not None  # opened before
        link = _Line(SupervisorState(plan=b"again" if again else b""))
        summary = Summary(len(jobs), run=self._assignment.run, stopped=self._stopped, **self._facts)
        self._link, self._summary, self._group = link, summary, number
        options = self._assignment.options
        recorder = _Recorder(
            summary, _Collected(link, self._assignment.logged), link=link,
            fail_fast=isinstance(options, FixOptions) and options.fail_fast,
        )  # fmt: skip
        recorder.skip_existing = options.skip_existing
        stream(jobs, self._stages_of(recorder, link), recorder)
        return link.results

    def report(self, group: int, after: int) -> Report:
        """How far the worker is; with the results after the first `after` of a group, if it is in work."""
        current, link = self._group, self._link
        return Report(current, link.results[after:] if current == group else [], link.begun, link.seconds())

    def stop(self, reason: str) -> None:
        """Finish what is being repaired, and begin nothing more."""
        self._stopped = self._summary.stopped = reason


class _Line(SupervisorLink):
    """Keeps what the stages say about a group, from any of their threads."""

    def __init__(self, past: SupervisorState | None = None) -> None:
        super().__init__(past)
        self.results: list[Result] = []
        self.begun = 0
        self._decoding: dict[str, float] = {}
        self._own = threading.Lock()

    def begin(self, name: str) -> None:
        with self._own:
            self.begun += 1

    @contextmanager
    def decoding(self, name: str) -> Iterator[None]:
        with self._own:
            self._decoding[name] = time.monotonic()
        try:
            yield
        finally:
            with self._own:
                self._decoding.pop(name, None)

    def seconds(self) -> dict[str, float]:
        """Names of the images that are being decoded, and for how many seconds."""
        now = time.monotonic()
        with self._own:
            return {name: now - since for name, since in self._decoding.items()}

    def end(self, name: str, record: dict[str, Any]) -> None:
        self.results.append(record)

    def finish(self) -> None:
        """Nobody waits for the end."""


class _Recorder(ResultRecorder):
    """Skips images whose output appeared during the run, if the run skips existing ones.

    The workers of a driver that was killed finish what they repair, while the next driver has made its plan.
    """

    skip_existing = False

    def fail(self, job: Job, error: Exception) -> None:
        if self.skip_existing and isinstance(error.__cause__, FileExistsError):
            self.finish(job, "skipped", "the output exists", code="output_exists")
        else:
            super().fail(job, error)


class _Collected(RunLog):
    """A log that passes segments of videos on; images come by the link."""

    def __init__(self, link: _Line, logged: bool) -> None:
        super().__init__(None)
        self._link, self._logged = link, logged

    @property
    def is_open(self) -> bool:
        """Whether the hashes of files are wanted."""
        return self._logged

    def write(self, line: LogLine) -> None:
        if isinstance(line, Segment):
            self._link.results.append({"segment": asdict(line)})


def _check_place(work: Assignment) -> None:
    """Go to the folder of the run, and see that this machine has the files of the run.

    Raises:
        RestoreError: exit code 2.
    """
    with suppress(OSError):  # it is only missed where a path is relative
        os.chdir(work.folder)
    for place in work.places:
        if not os.path.lexists(place):
            raise RestoreError(
                f"the machine {socket.gethostname()} does not see it",
                where=place,
                hint="give all machines a disk that they share, at the same place",
            )


def _open(work: Assignment) -> tuple[dict[str, Any], Callable[[ResultRecorder, SupervisorLink], Stages]]:
    """The models of a run: what to log about them, and the stages that they make.

    Raises:
        RestoreError: exit code 2; they cannot be opened, or do not suit the options.
    """
    from restore.devices import limit_threads
    from restore.process import limit_thread_spinning, quiet_pillow, reuse_large_blocks

    limit_thread_spinning()
    reuse_large_blocks()
    quiet_pillow()
    limit_threads()
    if isinstance(work.options, DetectOptions):
        from restore.fix.detect import adjusted, detect_settings, detect_stages
        from restore.restorers.detector import open_detector

        how = work.options
        detector = adjusted(
            open_detector(work.model or "detector", device=how.device, precision=how.precision, engine=how.engine), how
        )
        facts = {
            "model": detector.name,
            "model_sha256": detector.sha256,
            "settings": detect_settings(detector, how),
        }
        return facts, lambda recorder, link: detect_stages(work.plan, detector, how, recorder, link)
    from restore.fix.run import models_for, open_models, resolved_settings
    from restore.fix.stages import Stages

    options = work.options
    models = models_for(work.plan, open_models(work.model, options), options)
    restorer = models[0].restorer
    assert restorer is not None  # checked above
    settings = resolved_settings(models, options)
    facts = {"model": restorer.name, "model_sha256": restorer.sha256, "settings": settings}
    return facts, lambda recorder, link: Stages(work.plan, models, options, recorder, link)
