"""Carrying out a plan: decode | restore | encode overlap; every file is done or failed, never in between."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restore.errors import RestoreError
from restore.files import sweep_leftovers
from restore.images import MAX_PIXELS
from restore.images.read import Truncated
from restore.repair.manifest import Manifest, Record
from restore.repair.masks import MaskMissing
from restore.repair.outputs import Metadata
from restore.repair.plan import Job, Plan, plan_fix
from restore.repair.stages import Huge, Loaded, Options, Stages
from restore.repair.summary import Ledger, Progress, Summary
from restore.supervise import Past, Watch

if TYPE_CHECKING:
    from restore.restorers.base import Restorer

#: Pictures that wait before the network, and likewise behind it.
_WAITING_PICTURES = 4
#: How many pixels they may have together before reading pauses (a pixel takes some 30 bytes).
_WAITING_PIXELS = 48_000_000


def run_fix(
    plan: Plan,
    restorer: Restorer,
    *,
    clean_restorer: Restorer | None = None,
    mask_dilate: int = 0,
    mask_feather: int = 0,
    tile: str | int = "auto",
    quality: int | None = None,
    metadata: Metadata = "keep",
    log: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    fail_fast: bool = False,
    max_pixels: int = MAX_PIXELS,
    truncated: Truncated = "fail",
    watch: Watch | None = None,
) -> Summary:
    """Carry out a plan.

    Ctrl-C lets what is being written finish, and returns a summary with `interrupted` set.

    Args:
        plan: from `plan_fix`.
        restorer: what repairs.
        clean_restorer: repairs pictures that have no mask under `mask_missing="clean"`; None copies them.
        mask_dilate: grow holes by so many pixels.
        mask_feather: fade the repair out over so many pixels around holes.
        tile: `auto`, 0 (never), or the largest side of a tile in pixels.
        quality: of JPEG and WebP, 1 to 100; None: the source's.
        metadata: `keep` or `strip` EXIF and XMP.
        log: a file that gets a JSON line per file (see `Record`); lines that are there stay. `-`: standard output.
        progress: called after every file with its record, the number finished and the total; from several
            threads, but never by two at once.
        fail_fast: stop after the first failure.
        max_pixels: a picture with more of them is refused by what its header says, before it is decoded.
        truncated: of a damaged or cut picture, `accept` repairs what is there, with a warning; `fail` refuses it.
        watch: the line to a process that starts this one again if it crashes (see `restore.supervise`).

    Raises:
        RestoreError: exit code 2; options out of range, a restorer that needs masks without masks, a log that
            cannot be written. Nothing has been written.
    """
    options = Options(mask_dilate, mask_feather, tile, quality, metadata, max_pixels, truncated)
    watch = watch or Watch()
    if plan.masks is None and restorer.needs.needs_mask:
        raise RestoreError(
            f"{restorer.name} fills holes and has to be told where they are",
            hint="give --masks, or another --model",
        )
    if plan.masks is not None and restorer.needs.scale != 1:
        raise RestoreError(f"{restorer.name} changes the size; it works on whole pictures", hint="leave out --masks")
    if clean_restorer is not None and clean_restorer.needs.needs_mask:
        raise RestoreError(f"{clean_restorer.name} needs masks", hint="choose a model without for clean pictures")
    summary = Summary(len(plan.jobs), warnings=list(plan.warnings), unmatched_masks=len(plan.unmatched_masks))
    summary.stopped = watch.past.stop
    try:
        with Manifest(None if log is None else Path(log)) as manifest:
            ledger = Ledger(summary, manifest, _settings(plan, restorer, options), progress, fail_fast, watch)
            _carry_out(plan, Stages(plan, restorer, clean_restorer, options, ledger, watch), ledger, watch.past)
    finally:
        watch.finish()
    order = {job.source: number for number, job in enumerate(plan.jobs)}
    summary.failed.sort(key=lambda failure: order[failure.path])
    summary.seconds = time.monotonic() - watch.past.started
    return summary


def fix_folder(
    input: str | os.PathLike[str],
    output: str | os.PathLike[str],
    restorer: Restorer,
    *,
    masks: str | os.PathLike[str] | None = None,
    mask_invert: bool = False,
    mask_missing: MaskMissing = "fail",
    overwrite: bool = False,
    skip_existing: bool = False,
    include: Collection[str] = (),
    exclude: Collection[str] = (),
    ext: str | None = None,
    suffix: str = "",
    **options: Any,
) -> Summary:
    """Repair a picture or a folder of pictures: `plan_fix`, then `run_fix`, whose further options go along.

        from restore import fix_folder, open_restorer
        summary = fix_folder("scans", "repaired", open_restorer("photo"), log="log.jsonl")

    Raises:
        RestoreError: as `plan_fix` and `run_fix` do, before anything is written. Single files that fail
            raise nothing: they stand in the summary.
    """
    plan = plan_fix(
        input,
        output,
        masks=masks,
        mask_invert=mask_invert,
        mask_missing=mask_missing,
        overwrite=overwrite,
        skip_existing=skip_existing,
        include=include,
        exclude=exclude,
        ext=ext,
        suffix=suffix,
    )
    return run_fix(plan, restorer, **options)


def _settings(plan: Plan, restorer: Restorer, options: Options) -> dict[str, Any]:
    """What decides the results, as the manifest tells it."""
    masks = plan.masks
    return {
        "masks": None if masks is None else "alpha" if masks.path is None else os.fspath(masks.path),
        "mask_invert": masks is not None and masks.invert,
        **asdict(options),
        "device": str(restorer.device),
        "precision": restorer.precision,
    }


def _carry_out(plan: Plan, stages: Stages, ledger: Ledger, past: Past) -> None:
    threads = max(1, min(4, (os.cpu_count() or 2) // 2))
    try:
        for folder in dict.fromkeys(job.target.parent for job in plan.jobs):
            if folder.is_dir():
                sweep_leftovers(folder)
        alone, waiting = _enter_what_is_settled(plan, ledger, past)
        with (
            ThreadPoolExecutor(threads, "restore-read") as reading,
            ThreadPoolExecutor(threads, "restore-write") as writing,
        ):
            try:
                for jobs in (*([job] for job in alone), waiting):
                    _stream(jobs, stages, ledger, reading, writing)
            finally:
                reading.shutdown(wait=False, cancel_futures=True)
    except KeyboardInterrupt:
        ledger.summary.interrupted = True


def _enter_what_is_settled(plan: Plan, ledger: Ledger, past: Past) -> tuple[list[Job], list[Job]]:
    """Enter the fates that the plan or earlier starts have settled. Returns the jobs to do alone, and all others."""
    alone: list[Job] = []
    others: list[Job] = []
    for job in plan.jobs:
        name = os.fspath(job.source)
        if name in past.ended:
            ledger.recall(Record(**past.ended[name]))
        elif name in past.blamed:
            ledger.finish(job, "failed", past.blamed[name])
        elif job.action in ("skip", "fail"):
            ledger.finish(job, "skipped" if job.action == "skip" else "failed", job.reason)
        else:
            (alone if name in past.suspects else others).append(job)
    return alone, others


def _stream(
    jobs: list[Job], stages: Stages, ledger: Ledger, reading: ThreadPoolExecutor, writing: ThreadPoolExecutor
) -> None:
    """Jobs through the stages in order; what waits between them is bounded in number and in pixels."""
    to_read = deque(jobs)
    reads: deque[Future[Loaded | Huge | None]] = deque()
    writes: deque[tuple[Future[None], int]] = deque()

    def pixels_waiting() -> int:
        read = (future.result() for future in reads if future.done())
        return sum(one.pixels for one in read if one is not None) + sum(pixels for _, pixels in writes)

    while (to_read or reads) and not ledger.summary.stopped:
        while to_read and len(reads) < _WAITING_PICTURES and (not reads or pixels_waiting() < _WAITING_PIXELS):
            reads.append(reading.submit(stages.load, to_read.popleft()))
        loaded = reads.popleft().result()
        if isinstance(loaded, Huge):
            loaded = stages.repair_in_bands(loaded)
        if loaded is None:
            continue
        repaired = stages.repair(loaded)
        if repaired is None and loaded.restorer is not None:
            continue
        while writes and (writes[0][0].done() or len(writes) >= _WAITING_PICTURES):
            writes.popleft()[0].result()
        writes.append((writing.submit(stages.save, loaded, repaired), loaded.pixels))
    for future, _ in writes:
        future.result()
