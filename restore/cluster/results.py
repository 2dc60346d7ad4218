"""What comes of the images of a run on a cluster: recorded in the driver's summary and log."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from restore.cluster.groups import Group
from restore.cluster.pool import Pool
from restore.cluster.worker import Introduction, Result
from restore.errors import printable
from restore.files import remove_leftovers_of, sweep_leftovers
from restore.fix.jobs import Job
from restore.fix.log import Segment
from restore.fix.plan import FixPlan
from restore.fix.results import DISK_FULL, ResultRecorder

#: An output that a worker has written shows up on other machines within this time.
_VISIBLE_SECONDS = 30.0


class Results(ABC):
    """Receives the results of a run.

    Args:
        recorder: of the run.
        on_event: called with a line when workers come and go.

    Attributes:
        pool: the workers; None: not yet.
    """

    def __init__(self, recorder: ResultRecorder, on_event: Callable[[str], None]) -> None:
        self.recorder, self.on_event = recorder, on_event
        self.pool: Pool | None = None
        self._first: Introduction | None = None
        self._seen: set[str] = set()

    @abstractmethod
    def start(self) -> None:
        """Begin the log."""

    @abstractmethod
    def items(self) -> Iterator[Any]:
        """The images to repair. Those that the plan has settled are recorded on the way."""

    @abstractmethod
    def fail(self, item: Any, reason: str) -> None:
        """Record an image that ends its workers."""

    @abstractmethod
    def folders(self, items: Iterable[Any]) -> set[Path]:
        """The folders of this machine that the outputs of images go to."""

    def opened(self, worker: Introduction) -> None:
        """Begin the log with the first worker, and compare the others with it."""
        if self._first is None:
            self._first = worker
            summary = self.recorder.summary
            summary.model, summary.model_sha256 = worker.model, worker.model_sha256
            # What names a place stays as the user gave it.
            summary.settings.update({**worker.settings, **_places_of(summary.settings)})
            self.start()
            return
        for name in ("model_sha256", "engine", "precision"):
            own, first = (getattr(one, name, None) or one.settings.get(name) for one in (worker, self._first))
            if own != first:
                line = f"workers differ in {name}: {first} on {self._first.name}, {own} on {worker.name}"
                if line not in self.recorder.summary.warnings:
                    self.recorder.summary.warnings.append(line)

    def result(self, worker: Introduction, result: Result) -> None:
        """Record a result."""
        summary = self.recorder.summary
        if "segment" in result:
            self.recorder.tell_segment(Segment(**result["segment"]))
        elif "record" in result:
            # A worker may tell what another one has done that is gone.
            own = result["record"].get("worker") or worker.name
            record = {**result["record"], "worker": own, "run": summary.run}
            if record["status"] == "done" and worker.name not in self._seen:
                self._seen.add(worker.name)
                self._check_visible(worker, record["output"])
            self.recorder.recall({**result, "record": record}, log=True)
            if record["reason_code"] == "disk_full":
                summary.stopped = summary.stopped or DISK_FULL
        else:
            summary.stopped = summary.stopped or result["stopped"]
        self.stop_early()

    def blame(self, item: Any, reason: str) -> None:
        """Record an image that ends its workers."""
        self.fail(item, reason)
        self.stop_early()

    def lost(self, worker: Introduction, groups: list[Group]) -> None:
        """Remove what a worker that is gone was writing."""
        for folder in {folder for group in groups for folder in self.folders(group.items)}:
            remove_leftovers_of(folder, worker.process)

    def stop_early(self) -> None:
        """Stop the workers if the run is to end, such as after a failure with `fail_fast`."""
        if self.recorder.summary.stopped and self.pool is not None:
            self.pool.stop(self.recorder.summary.stopped)

    def _check_visible(self, worker: Introduction, output: str) -> None:
        """See that a worker writes to the disk that this machine has, too."""
        until = time.monotonic() + _VISIBLE_SECONDS
        while "://" not in output and not os.path.lexists(output):
            if time.monotonic() > until:
                self.recorder.summary.stopped = (
                    f"{worker.name} wrote {printable(output)}, which this machine does not see: the disk is not shared"
                )
                return
            time.sleep(0.5)


class JobResults(Results):
    """Results of a plan whose files all machines see.

    Args:
        plan: of the run.
        recorder, on_event: see `Results`.
    """

    def __init__(self, plan: FixPlan, recorder: ResultRecorder, on_event: Callable[[str], None]) -> None:
        super().__init__(recorder, on_event)
        self.plan = plan

    def start(self) -> None:
        """See `Results`."""
        self.recorder.start(self.plan)

    def items(self) -> Iterator[Job]:
        """See `Results`."""
        swept: set[Path] = set()
        for job in self.plan.jobs:
            if job.action in ("skip", "fail"):
                self.recorder.finish_early(job)
                self.stop_early()
                continue
            for folder in {target.parent for target in job.targets} - swept:
                swept.add(folder)
                if folder.is_dir():
                    sweep_leftovers(folder)
            yield job

    def fail(self, item: Job, reason: str) -> None:
        """See `Results`."""
        self.recorder.finish(item, "failed", reason, code="crashed")

    def folders(self, items: Iterable[Any]) -> set[Path]:
        """See `Results`."""
        return {target.parent for job in items for target in job.targets}


def _places_of(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: settings[name] for name in ("log", "masks", "save_masks", "preview") if name in settings}
