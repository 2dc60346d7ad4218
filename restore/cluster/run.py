"""Carrying out plans of `fix` and `detect` with the workers of a cluster: the driver."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from restore.cluster.connect import connected
from restore.cluster.groups import Group, Queue
from restore.cluster.options import ClusterOptions
from restore.cluster.pool import Pool
from restore.cluster.worker import Assignment, Introduction, Result, Worker
from restore.errors import RestoreError, printable
from restore.files import remove_leftovers_of, sweep_leftovers
from restore.fix.inputs import PIPE
from restore.fix.jobs import Job, Jobs
from restore.fix.log import Record, Segment
from restore.fix.options import DetectOptions, FixOptions
from restore.fix.plan import FixPlan
from restore.fix.results import DISK_FULL, Progress, ResultRecorder, RunLog, Summary

#: An output that a worker has written shows up on other machines within this time.
_VISIBLE_SECONDS = 30.0


def fix_on_cluster(
    plan: FixPlan,
    model: str | None,
    options: FixOptions,
    cluster: ClusterOptions,
    *,
    progress: Progress | None = None,
    report_progress: Callable[[int, int], None] | None = None,
    on_event: Callable[[str], None] = lambda line: None,
) -> Summary:
    """Carry out a plan of `plan_fix` with the workers of a Ray cluster. The outputs are those of `run_fix`.

    A worker that dies or says nothing is replaced, and others repair what it had. An image with which three workers
    die, each alone with it, fails. Ctrl-C lets the workers finish what they repair.

    Args:
        plan: from `plan_fix`. All machines must see its files at the same paths.
        model: a name from `restore models`, or a path that all machines have; None: as for `fix_folder`.
        options: those that the plan was made with; `device`, `engine` and `precision` hold on every worker.
        cluster: which cluster, and how many workers.
        progress, report_progress: as for `run_fix`.
        on_event: called with a line when workers come and go.

    Raises:
        RestoreError: exit code 2; no cluster answers, its machines do not see the files, the models cannot be opened or
            do not suit the options, or the log cannot be written. Nothing has been written.
    """
    records: list[Record] | None = None if options.html_report is None else []
    summary = Summary(len(plan.jobs), warnings=list(plan.warnings), unmatched_masks=len(plan.unmatched_masks))
    if options.html_report is not None and plan.for_page:
        from restore.html import claim_page_folder

        claim_page_folder(options.html_report)
    _run(plan, model, options, cluster, summary, progress=progress, on_event=on_event, records=records)
    if options.html_report is not None and records is not None and not summary.interrupted:
        from restore.fix.html_report import write_fix_page

        def written(done: int) -> None:
            if report_progress is not None:
                report_progress(done, len(plan.jobs))

        summary.html_report = write_fix_page(
            options.html_report, plan, records, summary, log=options.log, progress=written
        )
    return summary


def detect_on_cluster(
    plan: FixPlan,
    model: str,
    options: DetectOptions,
    cluster: ClusterOptions,
    *,
    progress: Progress | None = None,
    on_event: Callable[[str], None] = lambda line: None,
) -> Summary:
    """Carry out a plan of `plan_detect` with the workers of a Ray cluster; see `fix_on_cluster`.

    Args:
        plan: from `plan_detect`.
        model: the detector: a name, or a path that all machines have.
        options: those that the plan was made with.
        cluster, progress, on_event: as for `fix_on_cluster`.

    Raises:
        RestoreError: exit code 2, as `fix_on_cluster`.
    """
    summary = Summary(len(plan.jobs))
    _run(plan, model, options, cluster, summary, progress=progress, on_event=on_event)
    return summary


def check_places(plan: FixPlan, options: FixOptions | DetectOptions) -> None:
    """Refuse standard input and output, which only this process has, image sequences, and lists of devices.

    Raises:
        RestoreError: exit code 2.
    """
    if plan.from_pipe or plan.output == PIPE:
        raise RestoreError("cannot be combined with standard input or output", where="--ray", hint="name files")
    if plan.sequence is not None:
        what = "cannot be combined with an image sequence, whose frames help each other"
        raise RestoreError(what, where="--ray", hint="leave it out, or name the folder to repair each frame alone")
    if "," in options.device or options.device.endswith(":all"):
        raise RestoreError(
            "names several devices, and a worker has one", where="--device", hint="use --gpus-per-worker 1"
        )


def _run(
    plan: FixPlan,
    model: str | None,
    options: FixOptions | DetectOptions,
    cluster: ClusterOptions,
    summary: Summary,
    *,
    progress: Progress | None,
    on_event: Callable[[str], None],
    records: list[Record] | None = None,
) -> None:
    """Take every job of a plan through a worker, and enter what came of it in a summary."""
    check_places(plan, options)
    began = time.monotonic()
    summary.output, summary.settings = os.fspath(plan.output), options.to_dict()
    own = options if isinstance(options, FixOptions) else None
    with RunLog(own.log if own else None) as log:
        recorder = ResultRecorder(summary, log, progress, bool(own and own.fail_fast), None, records)
        results = _Results(plan, recorder, on_event)
        if not plan.has_work:
            recorder.start(plan)
            deque(results.jobs(), maxlen=0)  # all are settled
        else:
            with connected(cluster) as ray:
                _work(ray, plan, model, options, cluster, results, logged=log.is_open)
    summary.failed.sort(key=lambda failure: failure.number)
    summary.seconds = time.monotonic() - began


def _work(
    ray: Any,
    plan: FixPlan,
    model: str | None,
    options: FixOptions | DetectOptions,
    cluster: ClusterOptions,
    results: _Results,
    *,
    logged: bool,
) -> None:
    resources = ray.cluster_resources()
    count, cpus = cluster.size(resources.get("CPU", 1), resources.get("GPU", 0))
    count = min(count, len(plan.jobs))
    existing = next(place for place in (plan.output, *plan.output.absolute().parents) if os.path.lexists(place))
    assignment = Assignment(
        replace(plan, jobs=Jobs(), unmatched_masks=[], warnings=[]),
        model,
        options,
        os.getcwd(),
        tuple(os.path.abspath(place) for place in (*plan.inputs, existing)),
        results.recorder.summary.run,
        logged,
        cpus,
    )
    kind = ray.remote(
        num_cpus=cpus,
        num_gpus=cluster.gpus_per_worker,
        max_restarts=0,
        max_task_retries=0,
        scheduling_strategy="SPREAD",
        concurrency_groups={"control": 1},
    )(Worker)
    told = ray.put(assignment)
    queue = Queue(results.jobs(), len(plan.jobs), count)
    pool = Pool(
        ray, lambda: kind.remote(told), count, queue, results, results.on_event,
        decode_seconds=options.decode_timeout, silent_seconds=cluster.silent_seconds,
    )  # fmt: skip
    results.pool = pool
    try:
        try:
            pool.run()
        except KeyboardInterrupt:
            results.recorder.summary.interrupted = True
            pool.stop("interrupted")
            with suppress(KeyboardInterrupt):  # the second one ends the workers at once
                pool.run()
        if not results.recorder.summary.interrupted:
            results.recorder.summary.stopped = results.recorder.summary.stopped or pool.stopped
    finally:
        pool.close()


class _Results:
    """What comes of the images: recorded in the driver's summary and log.

    Args:
        plan: of the run.
        recorder: of the run.
        on_event: called with a line when workers come and go.
    """

    def __init__(self, plan: FixPlan, recorder: ResultRecorder, on_event: Callable[[str], None]) -> None:
        self.plan, self.recorder, self.on_event = plan, recorder, on_event
        self.pool: Pool | None = None
        self._first: Introduction | None = None
        self._seen: set[str] = set()

    def jobs(self) -> Iterator[Job]:
        """The images to repair. Those that the plan has settled are recorded on the way."""
        swept: set[Path] = set()
        for job in self.plan.jobs:
            if job.action in ("skip", "fail"):
                self.recorder.finish_early(job)
                self._stop_early()
                continue
            for folder in {target.parent for target in job.targets} - swept:
                swept.add(folder)
                if folder.is_dir():
                    sweep_leftovers(folder)
            yield job

    def opened(self, worker: Introduction) -> None:
        """Begin the log with the first worker, and compare the others with it."""
        if self._first is None:
            self._first = worker
            summary = self.recorder.summary
            summary.model, summary.model_sha256 = worker.model, worker.model_sha256
            summary.settings.update(worker.settings)
            self.recorder.start(self.plan)
            return
        for name in ("model_sha256", "engine", "precision"):
            own, first = (getattr(one, name, None) or one.settings.get(name) for one in (worker, self._first))
            if own != first:
                line = f"workers differ in {name}: {first} on {self._first.name}, {own} on {worker.name}"
                if line not in self.recorder.summary.warnings:
                    self.recorder.summary.warnings.append(line)

    def result(self, worker: Introduction, result: Result) -> None:
        """Record a result."""
        if "segment" in result:
            self.recorder.tell_segment(Segment(**result["segment"]))
            return
        record = result["record"]
        if record["status"] == "done" and worker.name not in self._seen:
            self._seen.add(worker.name)
            self._check_visible(worker, record["output"])
        self.recorder.recall({**result, "record": {**record, "worker": worker.name}}, log=True)
        if record["reason_code"] == "disk_full":
            self.recorder.summary.stopped = self.recorder.summary.stopped or DISK_FULL
        self._stop_early()

    def blame(self, job: Job, reason: str) -> None:
        """Record an image that ends its workers."""
        self.recorder.finish(job, "failed", reason, code="crashed")
        self._stop_early()

    def lost(self, worker: Introduction, group: Group) -> None:
        """Remove what a worker that is gone was writing."""
        for folder in {target.parent for job in group.jobs for target in job.targets}:
            remove_leftovers_of(folder, worker.process)

    def _stop_early(self) -> None:
        if self.recorder.summary.stopped and self.pool is not None:
            self.pool.stop(self.recorder.summary.stopped)

    def _check_visible(self, worker: Introduction, output: str) -> None:
        """See that a worker writes to the disk that this machine has, too."""
        until = time.monotonic() + _VISIBLE_SECONDS
        while not os.path.lexists(output):
            if time.monotonic() > until:
                self.recorder.summary.stopped = (
                    f"{worker.name} wrote {printable(output)}, which this machine does not see: the disk is not shared"
                )
                return
            time.sleep(0.5)
