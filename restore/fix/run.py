"""Carrying out a plan: decode | restore | encode overlap; every file is done or failed, never in between."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING

from restore.files import sweep_leftovers
from restore.fix.batch_options import FilePath
from restore.fix.decoder_isolation import SupervisorLink, SupervisorState
from restore.fix.inputs import PIPE
from restore.fix.io import check_pipes
from restore.fix.jobs import Job
from restore.fix.log import Record
from restore.fix.options import FixOptions
from restore.fix.plan import FixPlan, plan_fix
from restore.fix.report import reported
from restore.fix.results import Progress, ResultRecorder, RunLog, Summary
from restore.fix.run_models import ModelLike, models_for, open_models, resolved_settings

# What needs PyTorch is imported where it is used: a run that has nothing to do ends in the time of its plan.
if TYPE_CHECKING:
    from restore.fix.stages import Stages
    from restore.fix.steps import Models

#: The first repair waits at most this long for the records of skipped images, of which there may be a million.
_SETTLED_FIRST_SECONDS = 1.0


def fix_folder(
    input: FilePath | Sequence[FilePath],
    output: FilePath,
    model: ModelLike | None = None,
    *,
    options: FixOptions | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Repair images: one, a folder of them, or several of both.

        from restore import FixOptions, fix_folder
        summary = fix_folder("scans", "repaired", options=FixOptions(masks="auto", log="log.jsonl"))

    Args:
        input, output: as for `plan_fix`.
        model: what repairs; None: `inpaint` with masks, `photo` without, or with `scale` what enlarges.
        options: see `FixOptions`; None: the defaults.
        progress: called after every image with its record, the number finished and the total; from several threads,
            but never by two at once.

    Raises:
        RestoreError: exit code 2, before anything is written; as `plan_fix`, `open_models` and `run_fix`. Images that
            fail raise nothing: they are listed in the summary.
    """
    options = FixOptions() if options is None else options
    plan = plan_fix(input, output, options)
    return run_fix(plan, open_models(model, options) if plan.has_work else [], options, progress=progress)


def run_fix(
    plan: FixPlan,
    models: Sequence[Models],
    options: FixOptions | None = None,
    *,
    progress: Progress | None = None,
    report_progress: Callable[[int, int], None] | None = None,
    part_progress: Callable[[float], None] | None = None,
    link: SupervisorLink | None = None,
) -> Summary:
    """Carry out a plan, and write its HTML report if there is to be one.

    Ctrl-C lets what is being written finish, and returns a summary with `interrupted` set.

    Args:
        plan: from `plan_fix`.
        models: from `open_models`: what repairs, the same on every device that takes part; empty if the plan has no
            work.
        options: those that the plan was made with; None: the defaults.
        progress: as for `fix_folder`.
        report_progress: called with (done, total) while the HTML report is written.
        part_progress: called with how much of a video is done, in [0, 1].
        link: the line to a process that starts this one again if it crashes (see `restore.fix.decoder_isolation`).

    Raises:
        RestoreError: exit code 2; models that do not suit the options, or a log that cannot be written. Nothing has
            been written.
    """
    options, link = options or FixOptions(), link or SupervisorLink()
    check_pipes(plan, options.log)
    summary = Summary(
        len(plan.jobs),
        warnings=list(plan.warnings),
        unmatched_masks=len(plan.unmatched_masks),
        settings=options.to_dict(),
    )
    if models or plan.has_work:
        models = models_for(plan, models, options)
        if (main := models[0].main) is not None:
            summary.model, summary.model_sha256 = main.name, main.sha256
        summary.settings = resolved_settings(models, options)
    with reported(plan, options, summary, report_progress) as records:
        run_stages(
            plan,
            lambda recorder: _stages(plan, models, options, recorder, link),
            summary,
            log=options.log,
            progress=progress,
            part_progress=part_progress,
            records=records,
            fail_fast=options.fail_fast,
            link=link,
        )
    return summary


def _stages(
    plan: FixPlan, models: Sequence[Models], options: FixOptions, recorder: ResultRecorder, link: SupervisorLink
) -> Stages:
    from restore.fix.stages import Stages

    return Stages(plan, models, options, recorder, link)


def run_stages(
    plan: FixPlan,
    stages_of: Callable[[ResultRecorder], Stages],
    summary: Summary,
    *,
    log: FilePath | None = None,
    progress: Progress | None = None,
    part_progress: Callable[[float], None] | None = None,
    records: list[Record] | None = None,
    fail_fast: bool = False,
    link: SupervisorLink,
) -> None:
    """Take every job of a plan through stages, and add its result to a summary.

    Args:
        plan: from `plan_fix`.
        stages_of: makes the stages; they report the status of every file to the recorder.
        summary: is filled.
        log, progress, part_progress, fail_fast, link: see `run_fix`.
        records: gets the record of every image, for a report; None: they are not collected.

    Raises:
        RestoreError: exit code 2; a log that cannot be written. Nothing has been written.
    """
    summary.stopped, summary.run, summary.output = link.past.stop, link.past.run, os.fspath(plan.output)
    try:
        with RunLog(log) as lines:
            recorder = ResultRecorder(summary, lines, progress, fail_fast, link, records, part_progress)
            if not link.past.plan:  # else an earlier start has written it
                recorder.start(plan)
            _carry_out(plan, stages_of, recorder, link.past)
    finally:
        link.finish()
    summary.failed.sort(key=lambda failure: failure.number)
    summary.seconds = time.monotonic() - link.past.started


def _carry_out(
    plan: FixPlan, stages_of: Callable[[ResultRecorder], Stages], recorder: ResultRecorder, past: SupervisorState
) -> None:
    try:
        ended = bytearray(len(plan.jobs))  # 1 for each job whose result an earlier start has recorded
        for result in past.results():
            recorder.recall(result)
            ended[result["number"]] = 1
        for folder in plan.jobs.folders:
            if os.path.isdir(folder) and not (folder == os.curdir and plan.output == PIPE):
                sweep_leftovers(Path(folder))
        # In a thread of its own, so that the first image does not wait for a million that are skipped.
        with ThreadPoolExecutor(1, "restore-skip") as skipping:
            settling = skipping.submit(_record_settled, plan, recorder, ended)
            wait([settling], None if recorder.fail_fast else _SETTLED_FIRST_SECONDS)
            if settling.done():
                settling.result()  # raises what the display of progress has raised
            if plan.has_work:
                _repair(plan, stages_of, recorder, past, ended)
        settling.result()
    except KeyboardInterrupt:
        recorder.summary.interrupted = True


def _record_settled(plan: FixPlan, recorder: ResultRecorder, ended: Sequence[int]) -> None:
    """Record the jobs that the plan has decided."""
    if not recorder.tells_each:
        recorder.count_skipped(plan.jobs.skipped)
    for job in plan.jobs.settled() if recorder.tells_each else plan.jobs.failing():
        if not ended[job.number]:
            recorder.finish_early(job)


def _repair(
    plan: FixPlan,
    stages_of: Callable[[ResultRecorder], Stages],
    recorder: ResultRecorder,
    past: SupervisorState,
    ended: Sequence[int],
) -> None:
    """Take the other jobs through stages: first each that may have crashed an earlier start, alone."""
    alone: list[Job] = []
    apart = past.blamed.keys() | set(past.suspects)
    for job in plan.jobs.to_do() if apart else ():
        name = os.fspath(job.source)
        if name in apart and not ended[job.number]:
            if name in past.blamed:
                recorder.finish(job, "failed", past.blamed[name], code="crashed")
            else:
                alone.append(job)
    others = (job for job in plan.jobs.to_do() if not ended[job.number] and os.fspath(job.source) not in apart)
    stages = stages_of(recorder)
    if plan.from_pipe:  # a thread that waits for a pipe could not be interrupted
        stages.run_serially([*alone, *others])
        return
    from restore.fix.scheduler import stream

    for job in alone:
        stream([job], stages, recorder)
    found = plan.masks is not None and plan.masks.found
    if plan.sequence is None or not (found or stages.options.deflicker):
        stream(others, stages, recorder)
        return
    from restore.fix.sequence import repair_sequence

    # A frame that may crash this process is not read to repair its neighbors.
    repair_sequence(plan.sequence, others, (job for job in plan.jobs if os.fspath(job.source) not in apart), stages)
