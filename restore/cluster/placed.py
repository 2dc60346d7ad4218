"""Workers and drivers of runs over URLs: workers bring the images of a group, repair them and take the outputs away."""

from __future__ import annotations

import copy
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path
from typing import Any

from restore.cluster.driver import check_device, share_out
from restore.cluster.kept_lines import kept_by_workers
from restore.cluster.options import ClusterOptions
from restore.cluster.results import Results
from restore.cluster.worker import Assignment, Introduction, Line, Result
from restore.errors import RestoreError
from restore.fix.log import ReasonCode, Record, Status
from restore.fix.options import DetectOptions, FixOptions
from restore.fix.results import Progress, ResultRecorder, RunLog, Summary, now
from restore.places.files import Files, PlacedFile
from restore.places.groups import Outcome, StagedGroup
from restore.places.log import RemoteLog
from restore.places.plan import PlacesPlan
from restore.places.report import claim_page, write_places_page
from restore.places.run import detector, fixer
from restore.places.store import TRANSFERS
from restore.places.urls import is_url, settle
from restore.places.work import WorkFolder

#: Groups that a worker has in work: one comes, one is repaired, one goes.
_TOGETHER = 3


def run_on_cluster(
    plan: PlacesPlan,
    model: str | None,
    options: FixOptions | DetectOptions,
    cluster: ClusterOptions,
    *,
    progress: Progress | None = None,
    report_progress: Callable[[int, int], None] | None = None,
    on_event: Callable[[str], None] = lambda line: None,
) -> Summary:
    """Carry out a plan over URLs with the workers of a Ray cluster; see `restore.cluster.run.fix_on_cluster`.

    Args:
        plan: from `plan_places`. All machines must reach its stores, with credentials from their own environment.
        model, options, cluster, progress, report_progress, on_event: as there; `DetectOptions` write masks.

    Raises:
        RestoreError: exit code 2, as there, or a log in a store that cannot be read.
    """
    check_device(options)
    page = options.html_report if isinstance(options, FixOptions) else None
    records: list[Record] | None = None if page is None else []
    if page is not None and plan.for_page:
        claim_page(page)  # its folder gets masks during the run
    began = time.monotonic()
    summary = Summary(
        len(plan.files), output=plan.output, warnings=list(plan.warnings), settings=options.to_dict(),
        unmatched_masks=len(plan.unmatched_masks),
    )  # fmt: skip
    place = settle(options.log, what="--log") if isinstance(options, FixOptions) and options.log is not None else None
    with WorkFolder() as folder:
        remote = RemoteLog(place, folder.path / "run.jsonl") if place is not None and is_url(place) else None
        with (
            RunLog(place if remote is None else remote.path, alone=True) as log,
            kept_by_workers(log, place if remote is None else None, summary.run) as lines,
        ):
            fail_fast = isinstance(options, FixOptions) and options.fail_fast
            recorder = ResultRecorder(summary, log, progress, fail_fast, None, records)
            results = PlacedResults(plan, recorder, on_event, remote)
            work = plan.files.work
            if not work:
                results.start()
            else:
                own = [*plan.inputs, plan.output, *([os.fspath(page)] if page is not None and plan.for_page else [])]
                own = [path for path in own if not is_url(path)]
                assignment = Assignment(
                    replace(plan, files=Files(), unmatched_masks=[], warnings=[]),
                    model,
                    options,
                    os.getcwd(),
                    tuple(os.path.abspath(path) for path in own if os.path.lexists(path)),
                    run=summary.run,
                    logged=log.is_open,
                    lines=lines,
                )
                ending = share_out(
                    assignment, cluster, results, work, together=_TOGETHER, decode_seconds=options.decode_timeout
                )
                summary.interrupted, summary.stopped = ending.interrupted, summary.stopped or ending.stopped
            results.settle(skipped=True)  # there may be a million, for which no worker waits
        if remote is not None:
            results.push(last=True)
        if page is not None and records is not None and not summary.interrupted:
            written = place if remote is None else remote.path
            summary.html_report = write_places_page(
                page, plan, records, summary, work=folder, log=written, progress=report_progress
            )
    summary.seconds = time.monotonic() - began
    return summary


class PlacedResults(Results):
    """Results of a plan over URLs.

    Args:
        plan: of the run.
        recorder, on_event: see `Results`.
        remote: the log, if it is in a store.
    """

    def __init__(
        self, plan: PlacesPlan, recorder: ResultRecorder, on_event: Callable[[str], None], remote: RemoteLog | None
    ) -> None:
        super().__init__(recorder, on_event)
        self.plan, self._remote = plan, remote

    def start(self) -> None:
        """See `Results`."""
        self.recorder.start(self.plan)
        self.settle(skipped=False)
        self.stop_early()

    def items(self) -> Iterator[PlacedFile]:
        """See `Results`."""
        return self.plan.files.to_do()

    def settle(self, *, skipped: bool) -> None:
        """Record the files that the plan has decided: those that it skips, or else those that fail."""
        files, tells_each = self.plan.files, self.recorder.tells_each
        if skipped and not tells_each:
            self.recorder.count_skipped(files.skipped)
            return
        for file in files.settled() if skipped else files.failing():
            action, reason, code = file.verdict
            if skipped == (action == "skip"):
                self._enter(file, "skipped" if skipped else "failed", reason, code)

    def result(self, worker: Introduction, result: Result) -> None:
        """See `Results`."""
        super().result(worker, result)
        self.push()

    def fail(self, item: PlacedFile, reason: str) -> None:
        """See `Results`."""
        self._enter(item, "failed", reason, "crashed")

    def folders(self, items: Iterable[Any]) -> set[Path]:
        """See `Results`."""
        targets = [self.plan.target(file) for file in items]
        return {Path(target).parent for target in targets if not is_url(target)}

    def push(self, *, last: bool = False) -> None:
        """Write a log in a store, if it is time or the run ends."""
        try:
            if self._remote is not None:
                self._remote.push(now=last)
        except RestoreError as error:
            self.recorder.summary.stopped = self.recorder.summary.stopped or f"the log cannot be written: {error}"

    def _enter(self, file: PlacedFile, status: Status, reason: str, code: ReasonCode) -> None:
        record = Record(
            file.source, self.plan.target(file), status, reason, code, time=now(), run=self.recorder.summary.run
        )
        self.recorder.recall({"record": asdict(record), "pixels": 0, "video": False}, log=True)


class PlacedHand:
    """Repairs files of a plan over URLs in a temporary folder of its machine.

    One group comes and another one goes while a third is repaired, so `take` is called from three threads.
    """

    def __init__(self, work: Assignment) -> None:
        assert isinstance(work.plan, PlacesPlan)
        assert work.options is not None  # a plan has them
        self._plan, self._options, self._stopped = work.plan, _logging(work.options, work.logged), ""
        if isinstance(work.options, DetectOptions):
            prepare = detector(work.model or "detector", work.options, _ignored)
        else:
            prepare = fixer(work.plan, work.model, work.options, _ignored)
        prepared = prepare()
        self._carry = prepared.carry
        self.facts = {
            "model": prepared.model,
            "model_sha256": prepared.model_sha256,
            "settings": prepared.settings,
        }
        self._folder, self._numbers = WorkFolder(), count()
        self._repairing = threading.Lock()

    def take(self, items: Sequence[PlacedFile], line: Line, *, again: bool) -> None:
        """See `restore.cluster.worker.Hand`."""
        files = [self._plan.group_file(file) for file in items]
        if again:
            known = line.unreported([file.output for file in files])
            for result in known.values():
                line.end("", result)
            files = [file for file in files if file.output not in known]

        def before_write(outcome: Outcome) -> None:
            line.write_ahead(_result(outcome))

        staged = StagedGroup(
            files, self._folder.group(next(self._numbers)), self._options,
            cancelled=lambda: bool(self._stopped), again=again, before_write=before_write,
        )  # fmt: skip
        try:
            with ThreadPoolExecutor(TRANSFERS) as pool:
                staged.fetch(pool)
                with self._repairing:
                    if self._stopped:
                        return
                    if staged.has_work:
                        staged.carry_out(self._carry, line.listening())
                    else:
                        staged.settle()
                line.results += [{"segment": asdict(segment)} for segment in staged.segments]
                for outcome in staged.delivered(pool):
                    line.end("", _result(outcome))
        finally:
            shutil.rmtree(staged.folder, ignore_errors=True)
        if staged.stopped:
            line.results.append({"stopped": staged.stopped})

    def stop(self, reason: str) -> None:
        """See `restore.cluster.worker.Hand`."""
        self._stopped = reason


def _ignored(line: str) -> None:
    """What a worker says while it opens its models."""


def _result(outcome: Outcome) -> Result:
    return {"record": asdict(outcome.record), "pixels": outcome.pixels, "video": outcome.video}


def _logging(options: FixOptions | DetectOptions, logged: bool) -> FixOptions | DetectOptions:
    """The options of a worker: records have the hashes of files if the driver logs them."""
    if not isinstance(options, FixOptions):
        return options
    changed = copy.copy(options)  # `dataclasses.replace` would resolve anew what `old_photos` chooses
    object.__setattr__(changed, "log", "log.jsonl" if logged else None)
    return changed
