"""`restore detect`: a folder of images -> a folder of masks of detected damage, to edit and pass to `fix --masks`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from restore.errors import RestoreError
from restore.fix.batch_options import FilePath
from restore.fix.decoder_isolation import SupervisorLink
from restore.fix.inputs import is_pipe
from restore.fix.io import check_pipes
from restore.fix.jobs import Entry
from restore.fix.options import DetectOptions
from restore.fix.pages import MemoryPage
from restore.fix.plan import FixPlan, plan_fix, without_videos
from restore.fix.reader import WorkItem
from restore.fix.results import Progress, ResultRecorder, Summary
from restore.fix.run import run_stages
from restore.fix.sensitivity import threshold_of
from restore.fix.side_outputs import preview_name, preview_of, with_side_targets
from restore.fix.stages import Stages
from restore.fix.steps import Models, Steps
from restore.images import FORMAT_OF_SUFFIX, DecodedImage
from restore.images.formats import suffix_of

if TYPE_CHECKING:
    from restore.restorers.detector import Detector


def plan_detect(
    input: FilePath | Sequence[FilePath], output: FilePath, options: DetectOptions | None = None
) -> FixPlan:
    """Plan the masks to write, with names that `fix --masks` pairs with the images.

    Args:
        input: as for `plan_fix`.
        output: a folder, which gets the same tree with `NAME_mask.png` for every image; for a single image, a `.png`
            file works, too; `-` is standard output.
        options: see `DetectOptions`; None: the defaults.

    Raises:
        RestoreError: exit code 2, as `plan_fix`; nothing has been written.
    """
    options = options or DetectOptions()
    text = os.fspath(output)
    inputs = [input] if isinstance(input, str | os.PathLike) else list(input)
    several = len(inputs) != 1 or os.path.isdir(inputs[0])
    is_folder = several or os.path.isdir(text) or text.endswith(("/", os.sep))
    ending = Path(text).suffix.lower()
    is_file = not is_folder and (ending or (not is_pipe(output) and os.path.isfile(inputs[0])))
    if is_file and FORMAT_OF_SUFFIX.get(ending) != "png":
        raise RestoreError("masks are written as PNG", where=output, hint="name a .png file, or a folder with a slash")
    suffix = "_mask" if is_folder and not is_pipe(output) else ""
    plan = writing_masks(plan_fix(input, output, options.to_fix(suffix=suffix)))
    if options.preview is None:
        return plan
    return with_side_targets(
        plan,
        options.preview,
        option="--preview",
        name_of=preview_name,
        skip_existing=options.skip_existing,
        apart=True,  # `--masks` reads all of OUTPUT
    )


def writing_masks(plan: FixPlan) -> FixPlan:
    """The plan for masks instead of repaired images: they are PNG, and videos have none."""
    plan = without_videos(plan)
    return replace(plan, jobs=plan.jobs.change(_writes_png))


def run_detect(
    plan: FixPlan,
    detector: Detector,
    options: DetectOptions | None = None,
    *,
    progress: Progress | None = None,
    link: SupervisorLink | None = None,
) -> Summary:
    """Write the masks of a plan: 8 bits, one channel, white = repair, in the size of the upright image.

    Args:
        plan: from `plan_detect`.
        detector: the detector.
        options: the options passed to `plan_detect`; None: the defaults. `sensitivity` and `dilate` change the
            detector's settings.
        progress, link: as for `run_fix`.

    Raises:
        RestoreError: exit code 2; standard input or output is a terminal. Nothing has been written.
    """
    options, link = options or DetectOptions(), link or SupervisorLink()
    detector = adjusted(detector, options)
    check_pipes(plan, None)
    summary = Summary(
        len(plan.jobs),
        model=detector.name,
        model_sha256=detector.sha256,
        settings=detect_settings(detector, options),
    )
    run_stages(
        plan,
        lambda recorder: detect_stages(plan, detector, options, recorder, link),
        summary,
        progress=progress,
        link=link,
    )
    return summary


def adjusted(detector: Detector, options: DetectOptions) -> Detector:
    """The detector with the settings that the options ask for."""
    threshold = threshold_of(options.sensitivity, detector.threshold)
    return detector.adjusted(threshold=threshold, margin_px=options.dilate)


def detect_settings(detector: Detector, options: DetectOptions) -> dict[str, Any]:
    """The options of a run and what they resolved to."""
    second = getattr(detector, "second", None)
    return {
        **options.to_dict(),
        **({} if second is None else {"second_model": second.name, "second_model_sha256": second.sha256}),
        "threshold": detector.threshold,
        "dilate": detector.margin_px,
        "device": str(detector.device),
        "precision": detector.precision,
        "engine": getattr(detector, "engine", None),
    }


def detect_stages(
    plan: FixPlan, detector: Detector, options: DetectOptions, recorder: ResultRecorder, link: SupervisorLink
) -> Stages:
    """The stages that write masks, with an adjusted detector."""
    return Stages(
        plan,
        [Models(detector=detector)],
        options.to_fix(suffix=""),
        recorder,
        link,
        steps=Steps(detect=True),
        output_of=_mask_image,
        side_of=_preview,
    )


def _mask_image(source: DecodedImage, page: MemoryPage) -> DecodedImage:
    """The mask of a page as the image to write."""
    assert page.mask is not None
    return DecodedImage((page.mask[:, :, None] * 255).astype(np.uint8))


def _preview(item: WorkItem) -> DecodedImage:
    """The first page with its damage in color, as its mask shows it."""
    mask = item.pages[0].mask
    assert mask is not None
    return preview_of(item.image, mask)


def _writes_png(entry: Entry) -> Entry:
    """The job with PNG as its output format, whatever the format of the image."""
    kind = suffix_of(entry.target)
    if entry.action == "repair" and kind and FORMAT_OF_SUFFIX.get(kind.lower()) != "png":
        kind = suffix_of(entry.source)
        reason = f"{kind} is not an image suffix, so the mask could not be paired by name; rename the file"
        return entry._replace(action="fail", reason=reason)
    return entry._replace(format="png")
