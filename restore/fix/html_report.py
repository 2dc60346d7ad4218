"""The HTML report of `fix`: every finished image before and after, including those of earlier runs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from restore.errors import RestoreError, printable
from restore.files import write_atomically
from restore.fix.batch_options import FilePath
from restore.fix.inputs import PIPE
from restore.fix.jobs import Job
from restore.fix.log import Record, read_done
from restore.fix.masks import effective_mask
from restore.fix.plan import FixPlan
from restore.fix.results import Summary
from restore.html import Column, PageTable, Row, check_page_folder, claim_page_folder, write_page
from restore.html.previews import ERROR_GAIN, MAX_PIXELS
from restore.images import read_image

BEFORE, AFTER = "before", "after"

#: A file beside the page with the results of finished images, read when a later run replaces the page.
RESULTS = "results.json"

COLUMNS = (Column("changed", "changed (%)", "lower", 2), Column("seconds", "seconds", "lower", 2))
#: What was done, in words; see `restore.fix.log.Record.steps`.
_STEPS = {
    "deflicker": "flicker removed",
    "correct_fading": "fading corrected",
    "detect": "searched for damage",
    "fill_holes": "holes filled",
    "restore": "restored",
    "clean_up": "cleaned up",
    "enlarge": "enlarged",
}

EXPECTED_MEAN = Column("expected", "expected error (%)", "lower", 2)
#: The map of expected errors as a layer: white is 64 of 255 levels or more, as in error maps.
EXPECTED = f"expected error × {ERROR_GAIN}"

DAMAGED = Column("damaged", "damage found (%)", "lower", 2)


def check_fix_page(folder: FilePath, plan: FixPlan) -> None:
    """Check that the page of a plan may be written to a folder. Writes nothing.

    Raises:
        RestoreError: exit code 2; the folder holds other files, or is an input or output of the plan, or the image goes
            through a pipe, which cannot be read again.
    """
    if plan.from_pipe or plan.output == PIPE:
        raise RestoreError("cannot be combined with standard input or output", where="--html-report", hint="use files")
    masks = None if plan.masks is None else plan.masks.path
    saved = (None if plan.for_page else plan.side_folder, plan.map_folder)
    folders = (*plan.folders, None if masks is None or not masks.is_dir() else masks, *saved)
    check_page_folder(folder, inputs=folders, outputs=(plan.output, *saved))


def write_fix_page(
    folder: FilePath,
    plan: FixPlan,
    records: Iterable[Record],
    summary: Summary,
    *,
    log: FilePath | None = None,
    progress: Callable[[int], object] | None = None,
    inputs: Sequence[str] | None = None,
    bring: Callable[[Job], object] | None = None,
) -> Path:
    """Write the page of a run, from the current files.

    Images skipped by `skip_existing` appear as finished, with results from the page of an earlier run or from the log.

    Args:
        folder: a folder that `check_fix_page` accepted before the run.
        plan: the plan of the run.
        records: the results so far, in any order.
        summary: the summary of the run.
        log: the log of this and earlier runs; None: no log.
        progress: called with the number of images written.
        inputs: what the user gave; None: the inputs of the plan.
        bring: brings the files of a job to this disk, shortly before they are read; None: they are there.

    Returns:
        The path of `index.html`.

    Raises:
        RestoreError: as `write_page`.
    """
    inputs = [os.fspath(path) for path in plan.inputs] if inputs is None else inputs
    by_input = {record.input: record for record in records}
    earlier = _earlier_results(Path(folder), log)
    results = [_result(job, by_input.get(os.fspath(job.source)), earlier, is_here=bring is None) for job in plan.jobs]
    unfinished = [
        [result.name, "not started" if result.record is None else result.record.status, result.reason(summary)]
        for result in results
        if not result.finished
    ]
    facts = _facts(summary, finished_earlier=sum(result.earlier is not None for result in results))
    tables = [PageTable("Run", list(facts), [list(facts.values())])]
    if unfinished:
        tables.append(PageTable("Not repaired", ["file", "status", "reason"], unfinished))
    claim_page_folder(folder)  # the folder was checked before the run; it may contain the outputs by now
    index = write_page(
        folder,
        title=f"{_few([Path(os.path.abspath(path)).name for path in inputs])}, before and after",
        rows=_rows(plan, results, bring),
        columns=_columns(plan),
        tables=tables,
        notes=[
            f"Before: {_few([printable(path) for path in inputs])}",
            f"After: {printable(summary.output or plan.output)}",
        ],
        reference=BEFORE,
        progress=progress,
    )
    numbers = {result.name: result.numbers() for result in results if result.finished}
    write_atomically(Path(folder) / RESULTS, json.dumps(numbers, indent=1).encode())
    return index


def _columns(plan: FixPlan) -> tuple[Column, ...]:
    damaged = (DAMAGED,) if plan.masks is not None and plan.masks.found else ()
    return (*damaged, *(() if plan.map_folder is None else (EXPECTED_MEAN,)), *COLUMNS)


def _few(names: Sequence[str]) -> str:
    """The first names of a list, and how many follow."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


@dataclass(frozen=True)
class _Result:
    """The result of one image.

    Attributes:
        name: name of the row.
        job: the job from the plan.
        record: the result of this run; None if the run did not reach the image.
        earlier: the result of an earlier run that finished the image, with keys of `Record`; None if no earlier run
            did.
    """

    name: str
    job: Job
    record: Record | None
    earlier: Mapping[str, Any] | None

    @property
    def finished(self) -> bool:
        return self.earlier is not None or (self.record is not None and self.record.status == "done")

    def reason(self, summary: Summary) -> str:
        return summary.stopped if self.record is None else self.record.reason

    def numbers(self) -> dict[str, Any]:
        """The values that a later page shows."""
        known = vars(self.record) if self.earlier is None else self.earlier
        keys = (
            "seconds", "damaged_fraction", "changed_fraction", "expected_error", "steps", "reason", "warnings"
        )  # fmt: skip
        return {key: known.get(key) for key in keys}

    def scores(self) -> dict[str, float]:
        known = self.numbers()
        scores = {"seconds": known["seconds"]}
        scores |= {key: known[f"{key}_fraction"] for key in ("damaged", "changed")}
        scores["expected"] = known["expected_error"]
        return {key: value * (1 if key == "seconds" else 100) for key, value in scores.items() if value is not None}

    def note(self) -> str:
        known = self.numbers()
        notes = ["finished by an earlier run"] if self.earlier is not None else []
        steps = known["steps"] or []
        if len(steps) > 1:  # a single one is that of all images
            notes.append(", ".join(_STEPS.get(step, step) for step in steps))
        return "; ".join([*notes, *([known["reason"]] if known["reason"] else []), *(known["warnings"] or [])])


def _result(job: Job, record: Record | None, earlier: Mapping[str, Mapping[str, Any]], *, is_here: bool) -> _Result:
    name = os.fspath(job.name)
    known: Mapping[str, Any] | None = None
    skipped = record is not None and (record.status, record.reason_code) == ("skipped", "output_exists")
    if record is not None and skipped and (not is_here or job.target.is_file()):
        known = earlier.get(os.path.abspath(record.output)) or earlier.get(name) or {}
    return _Result(name, job, record, known)


def _earlier_results(folder: Path, log: FilePath | None) -> dict[str, Mapping[str, Any]]:
    """Results of finished images: from the replaced page by row name, and from the log by absolute output path."""
    found: dict[str, Mapping[str, Any]] = {}
    try:
        numbers = json.loads((folder / RESULTS).read_bytes())
        found |= {name: result for name, result in numbers.items() if isinstance(result, dict)}
    except (OSError, ValueError, AttributeError):  # no such file, or an unrelated one
        pass
    if log is not None and os.fspath(log) != "-":
        found |= {os.path.abspath(str(entry.get("output"))): entry for entry in read_done(log)}
    return found


def _rows(plan: FixPlan, results: Iterable[_Result], bring: Callable[[Job], object] | None) -> Iterator[Row]:
    for result in results:
        if result.finished and result.job.video:
            files = (result.job.source, result.job.target)
            yield _video_row(result, is_here=bring is None or all(map(Path.is_file, files)))
        elif result.finished:
            if bring is not None:
                bring(result.job)
            job = result.job
            outputs = (
                {one.name: one for one in (job.target, *job.fill_targets)} if job.fills > 1 else {AFTER: job.target}
            )
            errors = _expected_errors(job)
            images: dict[str, np.ndarray | Path] = {BEFORE: job.source, **outputs}
            if errors is not None:
                images[EXPECTED] = errors
            yield Row(
                name=result.name,
                scores=result.scores(),
                images=images,
                mask=_mask(plan, result.job),
                note=result.note(),
                group=os.path.dirname(result.name),
                shown=next(iter(outputs)),
                layers=frozenset([EXPECTED]),
            )


def _video_row(result: _Result, *, is_here: bool) -> Row:
    """A frame from the middle of a video before and after, and the facts of the video."""
    from restore.video.stills import still_of

    images: dict[str, np.ndarray] = {}
    facts = "no frame can be shown: it is in a store"  # a video is not brought for one frame of it
    if is_here:
        try:
            images[BEFORE], known = still_of(result.job.source)
            middle = known.seconds / 2
            images[AFTER], _ = still_of(result.job.target, middle)
            length = f"{known.seconds:.1f} s" + (f", {known.frames:,} frames" if known.frames else "")
            facts = (
                f"video: {known.codec}, {known.width}×{known.height}, {length}, {float(known.rate):g} a second; "
                f"the frame at {middle:.1f} s is shown"
            )
            if images[AFTER].shape[1] == 2 * images[BEFORE].shape[1]:  # a preview
                images[BEFORE], images[AFTER] = np.split(images[AFTER], 2, axis=1)
        except (RestoreError, OSError) as error:
            facts = f"no frame can be shown: {error}"
    return Row(
        name=result.name,
        scores=result.scores(),
        images=images,
        note="; ".join([facts, *([result.note()] if result.note() else [])]),
        group=os.path.dirname(result.name),
    )


def _expected_errors(job: Job) -> np.ndarray | None:
    """The map of expected errors for the page, uint8 H×W×3; None if there is none that can be read."""
    if job.map_target is None or not job.map_target.is_file():
        return None
    try:
        pixels = read_image(job.map_target, max_pixels=MAX_PIXELS).pixels
    except (RestoreError, OSError, MemoryError):
        return None
    levels = (pixels[:, :, :1].astype(np.float32) * (255 * ERROR_GAIN / np.iinfo(pixels.dtype).max)).clip(0, 255)
    shown: np.ndarray = np.rint(levels).astype(np.uint8).repeat(3, axis=2)
    return shown


def _mask(plan: FixPlan, job: Job) -> np.ndarray | Path | None:
    """The mask of the image; None if it has none, or the mask can no longer be read."""
    if plan.masks is None or job.action == "unmasked":
        return None
    if plan.masks.found:
        return job.side_target if job.side_target is not None and job.side_target.is_file() else None
    try:
        image = read_image(job.source, max_pixels=MAX_PIXELS)
        weight = effective_mask(image, job.mask, invert=plan.masks.invert, dilate_px=0, feather_px=0)
    except (RestoreError, OSError, MemoryError):
        return None
    return weight > 0


def _facts(summary: Summary, *, finished_earlier: int) -> dict[str, str]:
    skipped = sum(summary.skipped.values()) - finished_earlier
    facts = {
        "model": summary.model,
        "files": f"{summary.total:,}",
        "done": f"{summary.done:,}",
        "copied": f"{summary.copied:,}" if summary.copied else "",
        "finished earlier": f"{finished_earlier:,}" if finished_earlier else "",
        "skipped": f"{skipped:,}" if skipped else "",
        "failed": f"{len(summary.failed):,}" if summary.failed else "",
        "not started": f"{summary.not_started:,}" if summary.not_started else "",
        "megapixels": f"{summary.megapixels:.2f}",
        "damage found in": f"{summary.damaged:,} of {summary.searched:,}" if summary.searched else "",
        "seconds": f"{summary.seconds:.1f}",
        "stopped": summary.stopped,
    }
    return {name: value for name, value in facts.items() if value}
