"""What a worker of a cluster does: it opens the models once, and takes groups of images through the stages.

This module imports neither Ray nor, before a worker opens its models, PyTorch: the driver loads it, too.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from restore import __version__
from restore.cluster.kept_lines import KeptLines
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
    from restore.places.plan import PlacesPlan

#: What came of an image: the arguments of `ResultRecorder.recall`, or a segment of a video.
Result = dict[str, Any]
#: Groups of which a worker knows the results: those in work, and those that reports may still be asked of.
_LINES = 8


@dataclass(frozen=True)
class Scoring:
    """How images are scored; the arguments of `score_folders`, with `masked` for its masks."""

    metrics: tuple[str, ...]
    convention: str
    border_px: int
    lpips_net: str
    lpips_weights: Path | None
    fid_weights: Path | None
    device: str
    masked: bool


@dataclass(frozen=True)
class Assignment:
    """What every worker of a run is told once.

    Attributes:
        plan: the plan of the run, without its jobs or files; or what is to be scored.
        model: what repairs, or for `DetectOptions` what detects; a name or a path, None: as for `open_models`.
        options: of the run; None if images are scored.
        folder: the folder that paths are relative to.
        places: files and folders that every machine must have.
        run: identifies the run in its log.
        logged: results are logged, with the hashes of the files.
        lines: the folder in which workers keep lines of the log; "": nowhere.
        cpus: the processors of the worker; set when the cluster is known.
    """

    plan: FixPlan | PlacesPlan | Scoring
    model: str | None
    options: FixOptions | DetectOptions | None
    folder: str
    places: tuple[str, ...]
    run: str = ""
    logged: bool = False
    lines: str = ""
    cpus: int = 1


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
    """How far a worker is with a group.

    Attributes:
        group: its number.
        results: from the one that was asked for.
        begun: how many images of the group it has begun to read.
        decoding: names of the images that are being decoded, and for how many seconds.
    """

    group: int
    results: list[Result]
    begun: int
    decoding: dict[str, float]


class Hand(Protocol):
    """What a worker does with groups, once its models are open."""

    #: What to log about the models: `model`, `model_sha256` and `settings`.
    facts: dict[str, Any]

    def take(self, items: Sequence[Any], line: Line, *, again: bool) -> None:
        """Repair the images of a group; the results go to its line."""

    def stop(self, reason: str) -> None:
        """Finish what is being repaired, and begin nothing more."""


class Worker:
    """A process that repairs. `report` and `stop` are called while `run` is at work."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._hand: Hand | None = None
        self._lines: dict[int, Line] = {}
        self._kept, self._lock = KeptLines("", ""), threading.Lock()

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
            self._hand = _hand(work)
        except RestoreError as error:
            return error
        name = f"{socket.gethostname()}/{node[:8]}/{os.getpid()}"
        self._kept = KeptLines(work.lines, name)
        return Introduction(name, node, process_id(), __version__, **self._hand.facts)

    def run(self, number: int, items: Sequence[Any], *, again: bool) -> list[Result]:
        """Repair a group of images.

        Args:
            number: of the group.
            items: its images.
            again: a worker that is gone may have written some of the outputs.

        Returns:
            All results. Images of a stopped run have none.
        """
        assert self._hand is not None  # opened before
        line = Line(SupervisorState(plan=b"again" if again else b""), self._kept, number)
        with self._lock:
            lines = [*self._lines.items(), (number, line)]
            self._lines = dict(lines[-_LINES:])
        for old, _ in lines[:-_LINES]:  # the driver has its results, or this worker would have no other group
            self._kept.forget(old)
        self._hand.take(items, line, again=again)
        return line.results

    def report(self, asked: dict[int, int]) -> list[Report]:
        """How far the worker is with groups.

        Args:
            asked: how many results of each are known, by their numbers.
        """
        lines = self._lines
        return [
            Report(number, lines[number].results[known:], lines[number].begun, lines[number].seconds())
            for number, known in asked.items()
            if number in lines
        ]

    def stop(self, reason: str) -> None:
        """Finish what is being repaired, and begin nothing more."""
        if self._hand is not None:
            self._hand.stop(reason)


class Line(SupervisorLink):
    """Keeps what the stages say about a group, from any of their threads.

    Args:
        past: see `SupervisorLink`.
        kept: gets the result of each image as soon as it is finished.
        number: of the group.
    """

    takes_each = True

    def __init__(self, past: SupervisorState | None = None, kept: KeptLines | None = None, number: int = 0) -> None:
        super().__init__(past)
        self._kept, self._number = kept or KeptLines("", ""), number
        self.results: list[Result] = []
        self.begun = 0
        self._decoding: dict[str, float] = {}
        self._own = threading.Lock()

    def begin(self, name: str) -> None:
        """See `SupervisorLink`."""
        with self._own:
            self.begun += 1

    @contextmanager
    def decoding(self, name: str) -> Iterator[None]:
        """See `SupervisorLink`."""
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
        """Keep a result."""
        self._kept.keep(self._number, record)
        self.results.append(record)

    def write_ahead(self, result: Result) -> None:
        """Keep a result before its output is written."""
        self._kept.keep(self._number, result, ahead=True)

    def unreported(self, outputs: Iterable[str]) -> dict[str, Result]:
        """See `KeptLines`."""
        return self._kept.unreported(outputs)

    def finish(self) -> None:
        """Nobody waits for the end."""

    def listening(self) -> SupervisorLink:
        """A link that passes on which images are begun and decoded, but no results."""
        return _Listening(self)


class _Listening(SupervisorLink):
    def __init__(self, line: Line) -> None:
        super().__init__()
        self._line = line

    def begin(self, name: str) -> None:
        self._line.begin(name)

    @contextmanager
    def decoding(self, name: str) -> Iterator[None]:
        with self._line.decoding(name):
            yield


class _JobHand:
    """Takes jobs of a plan, whose files this machine sees, through the stages."""

    def __init__(self, work: Assignment) -> None:
        self._work, self._stopped, self._summary = work, "", Summary(0)
        self.facts, self._stages_of = _open(work)

    def take(self, items: Sequence[Job], line: Line, *, again: bool) -> None:
        """See `Hand`; `line.past` says whether outputs may be there."""
        from restore.fix.scheduler import stream

        options = self._work.options
        assert options is not None  # a plan has them
        summary = self._summary = Summary(len(items), run=self._work.run, **self.facts)
        summary.stopped = self._stopped  # only now: `stop` may have come before the line above
        fail_fast = isinstance(options, FixOptions) and options.fail_fast
        recorder = _Recorder(summary, _Collected(line, self._work.logged), link=line, fail_fast=fail_fast)
        recorder.skip_existing = options.skip_existing
        stream(items, self._stages_of(recorder, line), recorder)

    def stop(self, reason: str) -> None:
        """See `Hand`."""
        self._stopped = self._summary.stopped = reason


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

    def __init__(self, link: Line, logged: bool) -> None:
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


def _hand(work: Assignment) -> Hand:
    """Open the models of a run.

    Raises:
        RestoreError: exit code 2; they cannot be opened, or do not suit the options.
    """
    from restore.devices import limit_threads
    from restore.process import limit_thread_spinning, quiet_pillow, reuse_large_blocks

    limit_thread_spinning()
    reuse_large_blocks()
    quiet_pillow()
    limit_threads()
    if isinstance(work.plan, FixPlan):
        return _JobHand(work)
    if isinstance(work.plan, Scoring):
        from restore.cluster.scoring import ScoringHand

        return ScoringHand(work.plan)
    from restore.cluster.placed import PlacedHand

    return PlacedHand(work)


def _open(work: Assignment) -> tuple[dict[str, Any], Callable[[ResultRecorder, SupervisorLink], Stages]]:
    """The models of a run: what to log about them, and the stages that they make.

    Raises:
        RestoreError: exit code 2; they cannot be opened, or do not suit the options.
    """
    assert isinstance(work.plan, FixPlan)
    plan = work.plan
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
        return facts, lambda recorder, link: detect_stages(plan, detector, how, recorder, link)
    from restore.fix.run_models import models_for, open_models, resolved_settings
    from restore.fix.stages import Stages

    options = work.options
    assert options is not None  # a plan has them
    models = models_for(plan, open_models(work.model, options), options)
    main = models[0].main
    facts = {
        "model": "" if main is None else main.name,
        "model_sha256": None if main is None else main.sha256,
        "settings": resolved_settings(models, options),
    }
    return facts, lambda recorder, link: Stages(plan, models, options, recorder, link)
