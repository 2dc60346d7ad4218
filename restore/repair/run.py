"""Carrying out a plan: decode | restore | encode overlap; every file is done or failed, never in between."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restore.errors import RestoreError
from restore.files import sweep_leftovers
from restore.repair.flow import stream
from restore.repair.manifest import Manifest
from restore.repair.masks import MaskMissing
from restore.repair.outputs import Metadata
from restore.repair.pipes import check_pipes
from restore.repair.plan import Plan, plan_fix
from restore.repair.stages import Options, Stages
from restore.repair.summary import Ledger, Progress, Summary
from restore.repair.targets import PIPE

if TYPE_CHECKING:
    from restore.restorers.base import Restorer


def run_fix(
    plan: Plan,
    restorer: Restorer | Sequence[Restorer],
    *,
    clean_restorer: Restorer | Sequence[Restorer] | None = None,
    mask_dilate: int = 0,
    mask_feather: int = 0,
    tile: str | int = "auto",
    quality: int | None = None,
    metadata: Metadata = "keep",
    log: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    fail_fast: bool = False,
) -> Summary:
    """Carry out a plan.

    Ctrl-C lets what is being written finish, and returns a summary with `interrupted` set.

    Args:
        plan: from `plan_fix`.
        restorer: what repairs; or the same on several devices, which then share the pictures (`open_restorers`).
        clean_restorer: repairs pictures that have no mask under `mask_missing="clean"`, on as many devices; None
            copies them.
        mask_dilate: grow holes by so many pixels.
        mask_feather: fade the repair out over so many pixels around holes.
        tile: `auto`, 0 (never), or the largest side of a tile in pixels.
        quality: of JPEG and WebP, 1 to 100; None: the source's.
        metadata: `keep` or `strip` EXIF and XMP.
        log: a file that gets a JSON line per file (see `Record`); lines that are there stay. `-`: standard output.
        progress: called after every file with its record, the number finished and the total; from several
            threads, but never by two at once.
        fail_fast: stop after the first failure.

    Raises:
        RestoreError: exit code 2; options out of range, a restorer that needs masks without masks, a log that
            cannot be written. Nothing has been written.
    """
    options = Options(mask_dilate, mask_feather, tile, quality, metadata)
    restorers, clean_restorers = _each(restorer), _each(clean_restorer)
    restorer, clean_restorer = restorers[0], clean_restorers[0] if clean_restorers else None
    check_pipes(plan, log)
    if plan.masks is None and restorer.needs.needs_mask:
        raise RestoreError(
            f"{restorer.name} fills holes and has to be told where they are",
            hint="give --masks, or another --model",
        )
    if plan.masks is not None and restorer.needs.scale != 1:
        raise RestoreError(f"{restorer.name} changes the size; it works on whole pictures", hint="leave out --masks")
    if clean_restorer is not None and clean_restorer.needs.needs_mask:
        raise RestoreError(f"{clean_restorer.name} needs masks", hint="choose a model without for clean pictures")
    if clean_restorers and len(clean_restorers) != len(restorers):
        raise RestoreError("both models have to be on the same devices", where=restorer.name)
    started = time.monotonic()
    with Manifest(None if log is None else Path(log)) as manifest:
        summary = Summary(
            len(plan.jobs),
            warnings=list(plan.warnings),
            unmatched_masks=len(plan.unmatched_masks),
            model=restorer.name,
            model_sha256=restorer.sha256,
            settings=_settings(plan, restorers, options),
        )
        ledger = Ledger(summary, manifest, summary.settings, progress, fail_fast)
        _carry_out(plan, Stages(plan, restorers, clean_restorers, options, ledger), ledger)
    order = {job.source: number for number, job in enumerate(plan.jobs)}
    summary.failed.sort(key=lambda failure: order[failure.path])
    summary.seconds = time.monotonic() - started
    return summary


def fix_folder(
    input: str | os.PathLike[str],
    output: str | os.PathLike[str],
    restorer: Restorer | Sequence[Restorer],
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


def _each(given: Restorer | Sequence[Restorer] | None) -> Sequence[Restorer]:
    """One restorer, several or none as a sequence."""
    if given is None:
        return []
    return given if isinstance(given, Sequence) else [given]


def _settings(plan: Plan, restorers: Sequence[Restorer], options: Options) -> dict[str, Any]:
    """What decides the results, as the manifest tells it."""
    masks = plan.masks
    return {
        "masks": None if masks is None else "alpha" if masks.path is None else os.fspath(masks.path),
        "mask_invert": masks is not None and masks.invert,
        **asdict(options),
        "device": ",".join(str(one.device) for one in restorers),
        "precision": restorers[0].precision,
    }


def _carry_out(plan: Plan, stages: Stages, ledger: Ledger) -> None:
    for folder in dict.fromkeys(job.target.parent for job in plan.jobs if job.target != PIPE):
        if folder.is_dir():
            sweep_leftovers(folder)
    waiting = []
    for job in plan.jobs:
        if job.action in ("skip", "fail"):
            ledger.finish(job, "skipped" if job.action == "skip" else "failed", job.reason)
        else:
            waiting.append(job)
    try:
        if plan.input == PIPE:  # a thread that waits for a pipe could not be interrupted
            stages.carry_through(waiting)
        else:
            stream(waiting, stages, ledger)
    except KeyboardInterrupt:
        ledger.summary.interrupted = True
