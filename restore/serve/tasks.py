"""The tasks of a worker process: each takes parameters and a report, and returns its result, all of them JSON.

A task is interrupted by `KeyboardInterrupt`. It raises `TaskFailed` or `RestoreError` for a reason that is known.
Modules are imported inside, so that a worker that only decodes never loads PyTorch.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from restore import progress
from restore.errors import RestoreError
from restore.serve.page.tasks import PAGE_TASKS
from restore.serve.workers import Json, Report, TaskFailed, Tasks, problem_of

if TYPE_CHECKING:
    from restore.fix.decoder_isolation import SupervisorLink
    from restore.fix.log import Record
    from restore.fix.options import FixOptions
    from restore.fix.results import Summary
    from restore.fix.steps import Models
    from restore.restorers.detector import Detector

#: Models that stay open in a worker; beyond that, the one that was not used for longest is dropped.
_OPEN_MODELS = 6

_opened: OrderedDict[tuple[str, ...], Any] = OrderedDict()


def fix(params: Json, report: Report) -> Json:
    """Repair an image, as `restore fix` does: the same plan, the same run, the same bytes.

    Params:
        input, output: paths, as for `restore.fix.plan.plan_fix`.
        mask: the path of its mask; None or left out: `options` say where to repair.
        options: of `FixOptions`, as JSON; the device is the worker's.
        model: what repairs; None or left out: as `restore fix` chooses.

    Returns:
        {output, reason, reason_code, width, height, model, steps, seconds, mask_coverage, damaged_fraction,
        changed_fraction, warnings}.
    """
    from restore.fix.plan import plan_fix, without_videos
    from restore.fix.run import run_fix

    options = _fix_options(params, report)
    report.progress(None, "reading")
    plan = without_videos(plan_fix(params["input"], params["output"], options))
    models = [open_models(params.get("model"), options, report)]
    records: list[Record] = []
    with progress.watching(report.steps("repairing")):
        summary = run_fix(
            plan, models, options, link=_link(report), progress=lambda record, done, total: records.append(record)
        )
    return _result(summary, records)


def fix_together(params: Json, report: Report) -> Json:
    """Repair several images in one run, in which small ones of one size share batches on a GPU. The bytes are the same.

    Params:
        items: the parameters of `fix` for each; options and model are the same, but for the paths of masks.

    Returns:
        {items}: for each {result, problem}, one of them None.
    """
    from restore.fix.jobs import Jobs
    from restore.fix.options import FixOptions
    from restore.fix.plan import plan_fix, without_videos
    from restore.fix.run import run_fix

    items = params["items"]
    ended: dict[str, Json] = {}
    plans, options = [], FixOptions()
    report.progress(None, "reading")
    for item in items:
        try:
            options = _fix_options(item, report)
            plans.append(without_videos(plan_fix(item["input"], item["output"], options)))
        except RestoreError as error:
            ended[item["input"]] = {"result": None, "problem": problem_of(error)}
    if plans:
        jobs = Jobs(entry for plan in plans for entry in plan.jobs.entries())
        models = [open_models(items[0].get("model"), options, report)]
        report.progress(None, "repairing")

        def finished(record: Record, done: int, total: int) -> None:
            try:
                ended[record.input] = {"result": _of_record(record), "problem": None}
            except TaskFailed as error:
                ended[record.input] = {"result": None, "problem": problem_of(error)}

        summary = run_fix(replace(plans[0], jobs=jobs), models, options, link=_link(report), progress=finished)
        if summary.interrupted:
            raise KeyboardInterrupt
    missing = {"result": None, "problem": problem_of(TaskFailed("the run ended before this image"))}
    return {"items": [ended.get(item["input"], missing) for item in items]}


def detect(params: Json, report: Report) -> Json:
    """Write the mask of the detected damage, as `restore detect` does.

    Params:
        input, output: paths; the output ends with .png.
        options: of `DetectOptions`, as JSON; the device is the worker's.
        model: a detector; None or left out: the shipped one.

    Returns:
        As `fix`.
    """
    from restore.fix.detect import plan_detect, run_detect
    from restore.fix.options import DetectOptions

    options = DetectOptions.from_dict(dict(params.get("options") or {}) | {"device": report.device})
    report.progress(None, "reading")
    plan = plan_detect(params["input"], params["output"], options)
    name = params.get("model") or "detector"
    detector = open_detector(name, report, precision=options.precision, engine=options.engine)
    records: list[Record] = []
    with progress.watching(report.steps("detecting")):
        summary = run_detect(
            plan, detector, options, link=_link(report), progress=lambda record, done, total: records.append(record)
        )
    return _result(summary, records)


def evaluate(params: Json, report: Report) -> Json:
    """Score a restored image against its reference, as `restore eval` does.

    Params:
        restored, reference: paths of images.
        mask: a path; None: there is none.
        max_pixels: the limit.
        metrics, convention, crop_border: as for `restore.evaluate`.

    Returns:
        The report, as `restore eval --json` writes it.
    """
    from restore.api import evaluate as score
    from restore.images import read_image

    for name in ("restored", "reference", "mask"):
        if params[name] is not None:  # within the limits of the server; scoring has its own
            with report.decoding(name):
                read_image(params[name], max_pixels=params["max_pixels"])
    done = score(
        params["restored"],
        params["reference"],
        masks=params["mask"],
        metrics=params.get("metrics") or ("psnr", "ssim"),
        convention=params.get("convention", "skimage"),
        crop_border=params.get("crop_border", 0),
        device=report.device,
    )
    if done.exit_code:
        raise TaskFailed("; ".join(done.problems(3)) or "the images cannot be scored")
    return done.to_json()


def warm(params: Json, report: Report) -> Json:
    """Open models, so that the first request need not wait for them.

    Params:
        models: names; `detector` and other detectors among them.

    Returns:
        {models, device, catalog}: the names, where networks run, and all models that have a name, as `list_models`.
    """
    from restore.devices import pick_device
    from restore.fix.options import FixOptions

    _prepare_torch()
    names = list(params.get("models") or ())
    for number, name in enumerate(names):
        report.progress(number / len(names), f"opening {name}")
        if name == "detector":
            open_detector(name, report)
        else:
            open_models(name, FixOptions(device=report.device), report)
    return {"models": names, "device": str(pick_device(report.device)), **list_models({}, report)}


def list_models(params: Json, report: Report) -> Json:
    """The models that have names, as `restore models --json` lists them: {catalog}."""
    from restore.restorers.registry import list_restorers

    return {"catalog": [asdict(info) for info in list_restorers()]}


#: What a worker can do, by name.
TASKS: Tasks = PAGE_TASKS | {
    "fix": fix,
    "fix_together": fix_together,
    "detect": detect,
    "evaluate": evaluate,
    "warm": warm,
    "list_models": list_models,
}


# Shared by tasks


def open_models(model: str | None, options: FixOptions, report: Report) -> Models:
    """The models of a repair on this worker's device; those that were opened before are still warm.

    Args:
        model: a name or path; None: as `restore fix` chooses.
        options: those of the repair.
        report: is told when a network is prepared for an engine.

    Raises:
        RestoreError: as `restore.fix.run_models.open_models`.
    """
    from restore.fix.run_models import open_models as open_anew
    from restore.fix.run_models import with_enlarger
    from restore.fix.steps import Models
    from restore.restorers.registry import open_restorer

    _prepare_torch()
    of_pix2pix = options.pix2pix_batch_norm == "instance" or options.pix2pix_dropout is not None
    if of_pix2pix or options.model_args:  # they change what they open
        return open_anew(model, options, on_event=report.event)[0]
    how: dict[str, Any] = {"precision": options.precision, "engine": options.engine}

    def restorer(name: str) -> Any:
        return kept(
            (name, *how.values()),
            lambda: open_restorer(name, device=options.device, on_event=report.event, **how),
        )

    name = model or options.default_model
    opened, enlarger = with_enlarger(restorer(name), options, restorer)
    cleaner = restorer("photo") if options.cleans_up else None
    detector = None
    if options.masks == "auto":
        detector = open_detector(os.fspath(options.detector), report, **how)
    return open_anew(Models(opened, cleaner, detector, enlarger), options)[0]


def open_detector(name: str, report: Report, *, precision: str = "auto", engine: str = "auto") -> Detector:
    """A detector on this worker's device, as `open_models` opens those of a repair.

    Raises:
        RestoreError: as `restore.restorers.detector.open_detector`.
    """
    from restore.restorers.detector import open_detector as open_anew

    how = {"device": report.device, "precision": precision, "engine": engine}
    found: Detector = kept(("detector", name, precision, engine), lambda: open_anew(name, on_event=report.event, **how))
    return found


def kept(key: tuple[str, ...], make: Callable[[], Any]) -> Any:
    """What was made for this key before, or is made now; a few are kept, of which the least used goes first."""
    if key not in _opened:
        _opened[key] = make()
    _opened.move_to_end(key)
    while len(_opened) > _OPEN_MODELS:
        _opened.popitem(last=False)
    return _opened[key]


def _fix_options(params: Json, report: Report) -> FixOptions:
    from restore.fix.options import FixOptions

    given = dict(params.get("options") or {}) | {"device": report.device}
    if params.get("mask") is not None:
        given["masks"] = params["mask"]
    return FixOptions.from_dict(given)


def _prepare_torch() -> None:
    from restore.devices import limit_threads

    limit_threads()


def _link(report: Report) -> SupervisorLink:
    """Reports to the server when an image is being decoded, as a run of the command line reports to its parent."""
    from restore.fix.decoder_isolation import SupervisorLink

    class Link(SupervisorLink):
        @contextmanager
        def decoding(self, name: str) -> Iterator[None]:
            with report.decoding(name):
                yield

    return Link()


def _result(summary: Summary, records: list[Record]) -> Json:
    """What came of one image.

    Raises:
        TaskFailed: it failed.
        KeyboardInterrupt: the run was interrupted.
    """
    if summary.interrupted:
        raise KeyboardInterrupt
    if summary.failed:
        raise TaskFailed(summary.failed[0].reason, summary.failed[0].code)
    return _of_record(records[0])


def _of_record(record: Record) -> Json:
    """The record of an image as a result.

    Raises:
        TaskFailed: it failed.
    """
    if record.status != "done":
        raise TaskFailed(record.reason, record.reason_code or "failed")
    names = (
        "output", "reason", "reason_code", "width", "height", "model", "steps", "seconds", "mask_coverage",
        "damaged_fraction", "changed_fraction", "warnings",
    )  # fmt: skip
    return {name: getattr(record, name) for name in names}
