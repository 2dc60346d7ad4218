"""A run of `fix` as a page to look at: before and after of every file that it, or an earlier one, wrote."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from restore.errors import RestoreError, printable
from restore.fix.masks import effective_mask
from restore.fix.plan import PIPE, FixPlan, Job
from restore.fix.results import Record, Summary
from restore.html import Column, PageTable, Row, check_page_folder, claim_page_folder, write_page
from restore.html.previews import MAX_PIXELS
from restore.images import read_image

BEFORE, AFTER = "before", "after"

COLUMNS = (Column("changed", "changed (%)", "lower", 2), Column("seconds", "seconds", "lower", 2))


def check_fix_page(folder: str | os.PathLike[str], plan: FixPlan) -> None:
    """Look whether a page of this plan may be written to a folder. Writes nothing.

    Raises:
        RestoreError: exit code 2; the folder holds something else, is read or written by the plan, or the picture
            goes through a pipe and cannot be shown afterwards.
    """
    if PIPE in (plan.input, plan.output):
        raise RestoreError("needs files, and this picture goes through a pipe", where="--html", hint="name files")
    masks = None if plan.masks is None else plan.masks.path
    folders = (None if plan.single else plan.input, None if masks is None or not masks.is_dir() else masks)
    check_page_folder(folder, inputs=folders, outputs=(plan.output,))


def write_fix_page(
    folder: str | os.PathLike[str],
    plan: FixPlan,
    records: Iterable[Record],
    summary: Summary,
    *,
    progress: Callable[[int], object] | None = None,
) -> Path:
    """Write what a run has done as a page, from the files as they are now.

    Args:
        folder: one that `check_fix_page` has let pass before the run.
        plan: of the run.
        records: of the files that have their fate, in any order.
        summary: of the run.
        progress: called with the number of files that are written.

    Returns:
        The path of `index.html`.

    Raises:
        RestoreError: as `write_page`.
    """
    by_input = {record.input: record for record in records}
    fates = [(job, by_input.get(os.fspath(job.source))) for job in plan.jobs]
    left = [
        [_name(plan, job), record.status, record.reason]
        for job, record in fates
        if record is not None and record.status != "done"
    ]
    left += [[_name(plan, job), "not started", summary.stopped] for job, record in fates if record is None]
    facts = _facts(summary)
    tables = [PageTable("Run", list(facts), [list(facts.values())])]
    if left:
        tables.append(PageTable("Not repaired", ["file", "status", "reason"], left))
    claim_page_folder(folder)  # it was looked at before the run; its outputs may lie in there by now
    return write_page(
        folder,
        title=f"{Path(os.path.abspath(plan.input)).name}, before and after",
        rows=_rows(plan, fates),
        columns=COLUMNS,
        tables=tables,
        notes=[f"Before: {printable(plan.input)}", f"After: {printable(plan.output)}"],
        reference=BEFORE,
        progress=progress,
    )


def _rows(plan: FixPlan, fates: Iterable[tuple[Job, Record | None]]) -> Iterator[Row]:
    for job, record in fates:
        earlier = record is not None and record.status == "skipped" and job.target.is_file()
        if record is None or not (record.status == "done" or earlier):
            continue
        scores = {} if earlier else {"seconds": record.seconds}
        if record.changed_share is not None:
            scores["changed"] = 100 * record.changed_share
        name = _name(plan, job)
        yield Row(
            name=name,
            scores=scores,
            images={BEFORE: job.source, AFTER: job.target},
            mask=_hole(plan, job),
            note="; ".join([*([record.reason] if record.reason else []), *record.warnings]),
            group=os.path.dirname(name),
        )


def _name(plan: FixPlan, job: Job) -> str:
    return job.source.name if plan.single else os.path.relpath(job.source, plan.input)


def _hole(plan: FixPlan, job: Job) -> np.ndarray | Path | None:
    """Where the picture was to be repaired; None where nobody said so, or it cannot be read any more."""
    if plan.masks is None or plan.masks.found or job.action == "unmasked":
        return None
    if job.mask is not None and not plan.masks.invert:
        return job.mask
    try:
        picture = read_image(job.source, max_pixels=MAX_PIXELS)
        weight = effective_mask(picture, job.mask, invert=plan.masks.invert, dilate_px=0, feather_px=0)
    except (RestoreError, OSError, MemoryError):
        return None
    return weight > 0


def _facts(summary: Summary) -> dict[str, str]:
    facts = {
        "model": summary.model,
        "files": f"{summary.total:,}",
        "done": f"{summary.done:,}",
        "copied": f"{summary.copied:,}" if summary.copied else "",
        "skipped": f"{sum(summary.skipped.values()):,}" if summary.skipped else "",
        "failed": f"{len(summary.failed):,}" if summary.failed else "",
        "not started": f"{summary.not_started:,}" if summary.not_started else "",
        "megapixels": f"{summary.megapixels:.2f}",
        "seconds": f"{summary.seconds:.1f}",
        "stopped": summary.stopped,
    }
    return {name: value for name, value in facts.items() if value}
