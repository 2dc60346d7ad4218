"""A folder of pictures -> a folder of masks: what a detector finds, for `fix`, or for a person to correct first."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from restore.errors import RestoreError
from restore.fix.decoder_isolation import SupervisorLink
from restore.fix.io import check_pipes
from restore.fix.options import DetectOptions, FilePath, FixOptions
from restore.fix.plan import FixPlan, Job, is_pipe, plan_fix
from restore.fix.results import Progress, ResultRecorder, Summary
from restore.fix.run import run_stages
from restore.fix.stages import FloatArray, Huge, Stages, WorkItem
from restore.fix.steps import Models, RepairResult
from restore.images import FORMAT_OF_SUFFIX, DecodedImage

if TYPE_CHECKING:
    from restore.restorers.detector import Detector


def plan_detect(input: FilePath, output: FilePath, options: DetectOptions | None = None) -> FixPlan:
    """Plan which image's mask is written where, under names by which `fix --masks` finds them.

    Args:
        input: an image, or a folder (recursive); `-` is standard input.
        output: a folder, which gets the same tree with `NAME_mask.png` for every image; for one image also a file that
            ends with `.png`; `-` is standard output.
        options: see `DetectOptions`; None: the defaults.

    Raises:
        RestoreError: exit code 2, as `plan_fix`; nothing has been written.
    """
    options = options or DetectOptions()
    text = os.fspath(output)
    is_folder = os.path.isdir(input) or os.path.isdir(text) or text.endswith(("/", os.sep))
    ending = Path(text).suffix.lower()
    if not is_folder and ending and FORMAT_OF_SUFFIX.get(ending) != "png":
        raise RestoreError("a mask is written as PNG", where=output, hint="end it with .png, or with a slash")
    suffix = "_mask" if is_folder and not is_pipe(output) else ""
    plan = plan_fix(input, output, options.to_fix(suffix=suffix))
    return replace(plan, jobs=[_writes_png(job) for job in plan.jobs])


def run_detect(
    plan: FixPlan,
    detector: Detector,
    options: DetectOptions | None = None,
    *,
    progress: Progress | None = None,
    link: SupervisorLink | None = None,
) -> Summary:
    """Write the masks of a plan: 8 bits, one channel, white = repair, of the size of the upright image.

    Args:
        plan: from `plan_detect`.
        detector: what finds damage.
        options: those that the plan was made with; None: the defaults. `threshold` and `dilate` replace the detector's.
        progress, link: as for `run_fix`.

    Raises:
        RestoreError: exit code 2; standard input or output is a terminal. Nothing has been written.
    """
    options, link = options or DetectOptions(), link or SupervisorLink()
    detector = detector.adjusted(threshold=options.threshold, margin_px=options.dilate)
    check_pipes(plan, None)
    summary = Summary(
        len(plan.jobs),
        model=detector.name,
        model_sha256=detector.sha256,
        settings={
            **options.to_dict(),
            "threshold": detector.threshold,
            "dilate": detector.margin_px,
            "device": str(detector.device),
            "precision": detector.precision,
        },
    )
    reading = options.to_fix(suffix="")
    run_stages(
        plan,
        lambda recorder: _DetectionStages(plan, detector, reading, recorder, link),
        summary,
        progress=progress,
        link=link,
    )
    return summary


class _DetectionStages(Stages):
    """The stages of a repair, with the mask in the place of the repaired picture."""

    def __init__(
        self, plan: FixPlan, detector: Detector, options: FixOptions, recorder: ResultRecorder, link: SupervisorLink
    ) -> None:
        super().__init__(plan, [Models(detector)], options, recorder, link)
        self.detector = detector

    def repair_in_parts(self, huge: Huge, network: int) -> WorkItem | None:
        """A mask is made in memory, whatever its size."""
        return self.reader.load_whole(huge.job)

    def room_for(self, loaded: WorkItem) -> int:
        """One: a picture is looked at on several scales."""
        return 1

    def _carry_out(
        self, loaded: WorkItem, page: DecodedImage, shown: FloatArray, weight: FloatArray | None, network: int
    ) -> RepairResult:
        mask = self.detector.find(shown, tile_px=self._tile_of(self.detector), on_event=loaded.notes.append)
        return RepairResult(mask[:, :, None], None, filled=True, cleaned=False, everywhere=True)

    def _put_in(
        self, picture: DecodedImage, repaired: FloatArray, weight: FloatArray | None, everywhere: bool
    ) -> DecodedImage:
        return DecodedImage((repaired * 255).astype(np.uint8))


def _writes_png(job: Job) -> Job:
    """A job that writes PNG, whatever its picture is."""
    if job.action == "repair" and job.target.suffix and FORMAT_OF_SUFFIX.get(job.target.suffix.lower()) != "png":
        reason = f"{job.source.suffix} is no picture's ending, and its mask would not be found by that name; rename it"
        return replace(job, action="fail", reason=reason)
    return replace(job, format="png")
