"""Carrying out plans of `fix` and `detect` whose files all machines of a cluster see."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from restore.cluster.driver import check_device, share_out
from restore.cluster.kept_lines import kept_by_workers
from restore.cluster.options import ClusterOptions
from restore.cluster.results import JobResults
from restore.cluster.worker import Assignment
from restore.errors import RestoreError
from restore.fix.inputs import PIPE
from restore.fix.jobs import Jobs
from restore.fix.log import Record
from restore.fix.options import DetectOptions, FixOptions
from restore.fix.plan import FixPlan
from restore.fix.report import reported
from restore.fix.results import Progress, ResultRecorder, RunLog, Summary


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
    summary = Summary(len(plan.jobs), warnings=list(plan.warnings), unmatched_masks=len(plan.unmatched_masks))
    with reported(plan, options, summary, report_progress) as records:
        _run(plan, model, options, cluster, summary, progress=progress, on_event=on_event, records=records)
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


def check_plan(plan: FixPlan, options: FixOptions | DetectOptions) -> None:
    """Refuse standard input and output, which only this process has, image sequences, and lists of devices.

    Raises:
        RestoreError: exit code 2.
    """
    if plan.from_pipe or plan.output == PIPE:
        raise RestoreError("cannot be combined with standard input or output", where="--ray", hint="name files")
    if plan.sequence is not None:
        what = "cannot be combined with an image sequence, whose frames help each other"
        raise RestoreError(what, where="--ray", hint="leave it out, or name the folder to repair each frame alone")
    check_device(options)


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
    check_plan(plan, options)
    began = time.monotonic()
    summary.output, summary.settings = os.fspath(plan.output), options.to_dict()
    own = options if isinstance(options, FixOptions) else None
    place = own.log if own else None
    with RunLog(place, alone=True) as log, kept_by_workers(log, place, summary.run) as lines:
        recorder = ResultRecorder(summary, log, progress, bool(own and own.fail_fast), None, records)
        results = JobResults(plan, recorder, on_event)
        if not plan.has_work:
            results.start()
            deque(results.items(), maxlen=0)  # all are settled
        else:
            existing = next(one for one in (plan.output, *plan.output.absolute().parents) if os.path.lexists(one))
            assignment = Assignment(
                replace(plan, jobs=Jobs(), unmatched_masks=[], warnings=[]),
                model,
                options,
                os.getcwd(),
                tuple(os.path.abspath(place) for place in (*plan.inputs, existing)),
                run=summary.run,
                logged=log.is_open,
                lines=lines,
            )
            ending = share_out(assignment, cluster, results, plan.jobs.work, decode_seconds=options.decode_timeout)
            summary.interrupted, summary.stopped = ending.interrupted, summary.stopped or ending.stopped
    summary.failed.sort(key=lambda failure: failure.number)
    summary.seconds = time.monotonic() - began
