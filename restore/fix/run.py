"""Carrying out a plan: decode | restore | encode overlap; every file is done or failed, never in between."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restore.errors import RestoreError
from restore.files import sweep_leftovers
from restore.fix.decoder_isolation import SupervisorLink, SupervisorState
from restore.fix.io import Metadata, check_pipes
from restore.fix.masks import Dilate, MaskMissing
from restore.fix.options import MAX_PIXELS, Options
from restore.fix.plan import PIPE, FixPlan, Job, plan_fix
from restore.fix.results import Manifest, Progress, ResultRecorder, Summary
from restore.fix.scheduler import stream
from restore.fix.stages import Stages
from restore.fix.steps import Finder, Models
from restore.images.read import Truncated

if TYPE_CHECKING:
    from restore.restorers.base import Restorer


def run_fix(
    plan: FixPlan,
    restorer: Restorer | Sequence[Restorer],
    *,
    clean_up: Restorer | Sequence[Restorer] | None = None,
    finder: Finder | Sequence[Finder] | None = None,
    mask_dilate: Dilate = 0,
    mask_feather: int = 0,
    tile: str | int = "auto",
    quality: int | None = None,
    metadata: Metadata = "keep",
    log: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    fail_fast: bool = False,
    max_pixels: int = MAX_PIXELS,
    truncated: Truncated = "fail",
    strength: float = 1,
    fade: bool = False,
    provenance: bool = True,
    match_grain: bool = False,
    spare_clean: bool = False,
    watch: SupervisorLink | None = None,
) -> Summary:
    """Carry out a plan.

    Ctrl-C lets what is being written finish, and returns a summary with `interrupted` set.

    Args:
        plan: from `plan_fix`.
        restorer: what repairs; or the same on several devices, which then share the pictures (`open_restorers`).
        clean_up: goes over whole pictures when their holes are filled, and over those that have no mask under
            `mask_missing="clean"`, on as many devices; None leaves known pixels as they are, and copies those pictures.
        finder: makes the masks where they are to be found, on as many devices.
        mask_dilate: grow holes by so many pixels; `auto`: as far as the damage goes beyond them.
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
        strength: how much of the repair is taken, in [0, 1]: source + strength · (repair − source).
        fade: undo fading first; see `restore.fix.fade_correction`.
        provenance: note in the XMP of repaired pictures what was done; see `restore.fix.provenance`.
        match_grain: give what is filled the grain of its surroundings; see `restore.fix.grain`.
        spare_clean: where masks are found, no `clean_up` of pictures that it would hardly change; see
            `restore.fix.steps.CLEAN_LEVELS`.
        watch: the line to a process that starts this one again if it crashes (see `restore.fix.decoder_isolation`).

    Raises:
        RestoreError: exit code 2; options out of range, a restorer that needs masks without masks, a log that
            cannot be written. Nothing has been written.
    """
    options = Options(
        mask_dilate,
        mask_feather,
        tile,
        quality,
        metadata,
        max_pixels,
        truncated,
        strength,
        fade,
        provenance,
        match_grain,
        spare_clean,
    )
    watch = watch or SupervisorLink()
    models = _on_each_device(restorer, clean_up, finder)
    restorer, cleaner = models[0].restorer, models[0].clean_up
    check_pipes(plan, log)
    if plan.masks is None and restorer.needs.needs_mask:
        raise RestoreError(
            f"{restorer.name} fills holes and has to be told where they are",
            hint="give --masks, or another --model",
        )
    if plan.masks is not None and restorer.needs.scale != 1:
        raise RestoreError(f"{restorer.name} changes the size; it works on whole pictures", hint="leave out --masks")
    if plan.masks is not None and plan.masks.found and models[0].finder is None:
        raise RestoreError("masks are to be found, and nothing finds them", hint="open a detector, or give masks")
    if strength != 1 and restorer.needs.scale != 1:
        raise RestoreError(
            f"{restorer.name} changes the size; its pictures cannot be mixed with their sources",
            where="--strength",
            hint="leave it out, or choose another --model",
        )
    if cleaner is not None and plan.masks is None:
        raise RestoreError("cleaning up follows the filling of holes, and there are no masks", hint="give masks")
    if cleaner is not None and (cleaner.needs.needs_mask or cleaner.needs.scale != 1):
        raise RestoreError(f"{cleaner.name} cannot clean up whole pictures", hint="choose a model that needs no masks")
    if match_grain and (plan.masks is None or cleaner is not None):
        raise RestoreError(
            "fills holes with the grain around them, and there are no masks"
            if plan.masks is None
            else "would be in vain: cleaning up takes away the grain of the whole picture",
            where="--match-grain",
            hint="give --masks" if plan.masks is None else "choose --no-clean-up, or leave it out",
        )
    summary = Summary(
        len(plan.jobs),
        warnings=list(plan.warnings),
        unmatched_masks=len(plan.unmatched_masks),
        model=restorer.name,
        model_sha256=restorer.sha256,
        settings=_settings(plan, models, options),
    )
    run_stages(
        plan,
        lambda ledger: Stages(plan, models, options, ledger, watch),
        summary,
        log=log,
        progress=progress,
        fail_fast=fail_fast,
        watch=watch,
    )
    return summary


def run_stages(
    plan: FixPlan,
    stages_of: Callable[[ResultRecorder], Stages],
    summary: Summary,
    *,
    log: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    fail_fast: bool = False,
    watch: SupervisorLink,
) -> None:
    """Take every job of a plan through stages, and enter what came of it in a summary.

    Args:
        plan: from `plan_fix`.
        stages_of: the stages, which tell every file's fate to the ledger that they are given.
        summary: is filled.
        log, progress, fail_fast, watch: see `run_fix`.

    Raises:
        RestoreError: exit code 2; a log that cannot be written. Nothing has been written.
    """
    summary.stopped = watch.past.stop
    try:
        with Manifest(None if log is None else Path(log)) as manifest:
            ledger = ResultRecorder(summary, manifest, summary.settings, progress, fail_fast, watch)
            _carry_out(plan, stages_of(ledger), ledger, watch.past)
    finally:
        watch.finish()
    order = {job.source: number for number, job in enumerate(plan.jobs)}
    summary.failed.sort(key=lambda failure: order[failure.path])
    summary.seconds = time.monotonic() - watch.past.started


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


def _on_each_device(
    restorer: Restorer | Sequence[Restorer],
    clean_up: Restorer | Sequence[Restorer] | None,
    finder: Finder | Sequence[Finder] | None,
) -> list[Models]:
    """The models sorted by device.

    Raises:
        RestoreError: they are not on the same devices.
    """
    restorers = restorer if isinstance(restorer, Sequence) else [restorer]
    none = [None] * len(restorers)
    cleaners = none if clean_up is None else clean_up if isinstance(clean_up, Sequence) else [clean_up]
    finders = none if finder is None else finder if isinstance(finder, Sequence) else [finder]
    if {len(cleaners), len(finders)} != {len(restorers)}:
        raise RestoreError("all models have to be on the same devices", where=restorers[0].name)
    return [Models(*together) for together in zip(restorers, cleaners, finders)]


def _settings(plan: FixPlan, models: Sequence[Models], options: Options) -> dict[str, Any]:
    """What decides the results, as the manifest tells it."""
    masks, cleaner = plan.masks, models[0].clean_up
    return {
        "masks": None if masks is None else masks.named,
        "mask_invert": masks is not None and masks.invert,
        **asdict(options),
        "clean_up": None if cleaner is None else cleaner.name,
        "device": ",".join(str(one.restorer.device) for one in models),
        "precision": models[0].restorer.precision,
    }


def _carry_out(plan: FixPlan, stages: Stages, ledger: ResultRecorder, past: SupervisorState) -> None:
    try:
        for folder in dict.fromkeys(job.target.parent for job in plan.jobs if job.target != PIPE):
            if folder.is_dir():
                sweep_leftovers(folder)
        alone, waiting = _enter_what_is_settled(plan, ledger, past)
        if plan.input == PIPE:  # a thread that waits for a pipe could not be interrupted
            stages.carry_through([*alone, *waiting])
            return
        for jobs in (*([job] for job in alone), waiting):
            stream(jobs, stages, ledger)
    except KeyboardInterrupt:
        ledger.summary.interrupted = True


def _enter_what_is_settled(plan: FixPlan, ledger: ResultRecorder, past: SupervisorState) -> tuple[list[Job], list[Job]]:
    """Enter the fates that the plan or earlier starts have settled. Returns the jobs to do alone, and all others."""
    alone: list[Job] = []
    others: list[Job] = []
    for job in plan.jobs:
        name = os.fspath(job.source)
        if name in past.ended:
            ledger.recall(past.ended[name])
        elif name in past.blamed:
            ledger.finish(job, "failed", past.blamed[name])
        elif job.action in ("skip", "fail"):
            ledger.finish(job, "skipped" if job.action == "skip" else "failed", job.reason)
        else:
            (alone if name in past.suspects else others).append(job)
    return alone, others
