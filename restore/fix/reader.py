"""The first stage of an image: the file and its mask are read and decoded."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from restore.errors import RestoreError
from restore.files import check_unchanged
from restore.fix.decoder_isolation import SupervisorLink
from restore.fix.inputs import PIPE
from restore.fix.jobs import NO_PREVIEW, Job
from restore.fix.options import FixOptions
from restore.fix.pages import MemoryPage
from restore.fix.plan import FixPlan
from restore.fix.results import ResultRecorder
from restore.fix.steps import Models, Steps, correct_fading, in_range_of, notes_on_colors
from restore.images import IMAGE_SUFFIXES, DecodedImage, NotAnImage, image_from_bytes, pair_key, read_bytes
from restore.images.conditions import ConditionFiles, as_unit, check_condition_size, condition_pixels
from restore.images.decoder_output import DamagedFile, ImageTooLarge, check_bytes

FloatArray = npt.NDArray[np.float32]

HUGE_PIXELS = 40_000_000
"""An image with more pixels is processed in parts, out of core. In memory a pixel takes about 40 bytes."""

HUGE_FILE_BYTES = 200_000_000
"""A larger file is processed in parts without being read into memory for its header first."""

_PIXEL_BYTES = 40  # memory per pixel of an image: its decoded values, the network's input and its output


@dataclass
class WorkItem:
    """An image on its way through the stages.

    Attributes:
        job: the job from the plan.
        data: the bytes of the file if they may be copied to the output; otherwise empty.
        image: the decoded image, with the extra pages of a TIFF.
        stat: state of the file when it was read; None for a pipe.
        steps: the steps of this image.
        pages: the pages that the steps work on, one for each page of `image`.
        input_sha256: hash of the file; None without a log.
        notes: warnings for the user; stages append to it.
        seconds: processing time so far.
        outputs: the extra pages to write.
        fills: the image with the second fill and all others.
        enlarged: the first page to write, if images are enlarged.
        errors: the expected errors of each page, H×W, if they are asked for.
    """

    job: Job
    data: bytes
    image: DecodedImage
    stat: os.stat_result | None
    steps: Steps
    pages: list[MemoryPage]
    input_sha256: str | None
    notes: list[str]
    seconds: float
    outputs: tuple[DecodedImage, ...] = ()
    fills: tuple[DecodedImage, ...] = ()
    enlarged: DecodedImage | None = None
    errors: list[FloatArray] = field(default_factory=list)

    @property
    def sources(self) -> tuple[DecodedImage, ...]:
        """All decoded pages."""
        return (self.image, *self.image.extra_pages)

    @property
    def pixels(self) -> int:
        """Number of pixels of all pages."""
        return sum(page.size[0] * page.size[1] for page in self.sources)

    @property
    def mask_coverage(self) -> float | None:
        """The fraction of pixels in holes over all pages; None without masks."""
        masks = [page.mask for page in self.pages if page.mask is not None]
        if len(masks) < len(self.pages):
            return None
        return sum(int(np.count_nonzero(mask)) for mask in masks) / self.pixels

    @property
    def damaged_fraction(self) -> float | None:
        """The fraction of pixels that the detector found damaged over all pages; None if it did not run."""
        counts = [page.damaged_pixels for page in self.pages if page.damaged_pixels is not None]
        return sum(counts) / self.pixels if counts else None

    @property
    def expected_error(self) -> float | None:
        """The mean expected error in the holes of all pages; None if it is not known, or there are no holes."""
        from restore.fix.uncertainty import mean_error

        return mean_error(self.errors, self.pages) if self.errors else None

    def error_map(self) -> DecodedImage:
        """The expected errors of all pages as an image to write."""
        from restore.fix.uncertainty import map_of_pages

        nothing = [np.zeros(page.pixels.shape[:2], np.float32) for page in self.sources]  # no step ran
        return map_of_pages(self.errors or nothing, self.notes)

    def saved_mask(self) -> DecodedImage | None:
        """The masks of all pages as an image to write, of the size of the output; None without masks."""
        from restore.fix.side_outputs import mask_of_pages

        masks = [page.mask for page in self.pages]
        if self.enlarged is not None:
            factor = self.enlarged.size[0] // self.image.size[0]
            masks = [None if mask is None else mask.repeat(factor, 0).repeat(factor, 1) for mask in masks]
        return mask_of_pages(masks, self.notes)


@dataclass(frozen=True)
class HugeItem:
    """An image that goes through all stages out of core when its turn comes."""

    job: Job
    pixels: int = 0  # none in memory, so the scheduler's memory limit ignores it


def is_lossy_reencode(image: DecodedImage) -> bool:
    """Whether encoding an unchanged image again would lose quality, so that a copy of the file is the better output."""
    lossy = image.format == "jpeg" or image.compression == "lossy"
    return lossy and not image.reoriented and not image.notes


class Reader:
    """The first stage: read images and their masks.

    Args:
        plan: the plan of the run.
        models: the models of the run, on any of its devices.
        options: the options of the run.
        recorder: receives the result of every file that goes no further.
        link: receives which files are in work and which are being decoded.
        steps: the same steps for all images; None: steps from the plan and options.

    Attributes:
        huge_pixels: an image with more pixels is processed in parts.
    """

    def __init__(
        self,
        plan: FixPlan,
        models: Models,
        options: FixOptions,
        recorder: ResultRecorder,
        link: SupervisorLink,
        steps: Steps | None,
    ) -> None:
        self.plan, self.models = plan, models
        self.options, self.recorder, self.link = options, recorder, link
        self._steps = steps
        self._spare_clean = options.spare_clean
        kinds = () if models.restorer is None else models.restorer.requirements.conditions
        self._conditions = list(zip(map(ConditionFiles, options.condition), kinds))
        scale = 1 if models.enlarger is None else models.enlarger.requirements.scale
        self.huge_pixels = HUGE_PIXELS // scale**2
        # Computed once, so the limit does not depend on other data in memory when an image's turn comes.
        self._copies = 1 if scale == 1 else 1 + scale**2  # of an image, in memory at once
        self._pixels_for_memory = _pixels_for_memory() // self._copies

    def load(self, job: Job) -> WorkItem | HugeItem | None:
        """Read an image and its mask; None if the result is already recorded."""
        self.link.begin(os.fspath(job.source))
        if job.video:
            return HugeItem(job)
        if self.options.preview is not None:
            self.recorder.finish(job, "skipped", NO_PREVIEW)
            return None
        steps = self.steps_of(job)
        # `auto` dilates by the surroundings of whole holes, `scan` by the size of the image: neither works on parts.
        # An infrared channel is judged by its whole image, too.
        whole = isinstance(self.options.dilate, str) or (self.plan.masks is not None and self.plan.masks.infrared)
        in_parts = steps.work_in_parts(self.models) and not (steps.masked and whole) and not self._conditions
        if not in_parts or PIPE in (job.source, job.target):
            return self._load(job)
        return self._load(job, huge_pixels=self.huge_pixels)

    def load_whole(self, job: Job, *, unless_too_large: Exception | None = None) -> WorkItem | None:
        """As `load`, but into memory at any size. If memory is too small, the job fails with `unless_too_large`."""
        item = self._load(job, unless_too_large=unless_too_large)
        assert not isinstance(item, HugeItem)
        return item

    def steps_of(self, job: Job, *, holes: bool = True) -> Steps:
        """The steps of a job according to the plan. Pass `holes=False` once the mask is known to be empty."""
        if self._steps is not None:
            return self._steps
        enlarge = self.models.enlarger is not None
        if self.options.strength == 0:
            return Steps(enlarge=enlarge)
        masks, unmasked = self.plan.masks, job.action == "unmasked"
        detected = masks is not None and masks.found
        return Steps(
            correct_fading=bool(self.options.correct_fading),
            detect=detected,
            restore=holes
            and not unmasked
            and self.models.restorer is not None
            and (masks is not None or self.options.restores_everywhere),
            clean_up=self.models.clean_up is not None,
            masked=masks is not None and not unmasked,
            spare_clean=detected and self._spare_clean,
            enlarge=enlarge,
        )

    def _load(
        self, job: Job, *, huge_pixels: int | None = None, unless_too_large: Exception | None = None
    ) -> WorkItem | HugeItem | None:
        """Read an image; one with at least `huge_pixels` pixels is returned as a `HugeItem` without decoding."""
        started, name = time.monotonic(), os.fspath(job.source)
        limit = min(self.options.max_pixels, self._pixels_for_memory)
        try:
            if job.source != PIPE:
                size = os.stat(job.source).st_size
                check_bytes(size, self.options.max_pixels, job.source)
                if huge_pixels and size > HUGE_FILE_BYTES:
                    return HugeItem(job)
            data, stat = _read(job.source)
            with self.link.decoding(name):
                image = image_from_bytes(
                    data,
                    job.source,
                    max_pixels=limit if huge_pixels is None else min(limit, huge_pixels - 1),
                    allow_truncated=self.options.allow_truncated,
                    all_pages=job.format in (None, "tiff"),
                )
            image = in_range_of(self.models, image, job.source)
            if self.plan.masks is not None and not self.plan.masks.is_in(image):
                job = replace(job, **self.plan.masks.when_missing())
            if job.action in ("skip", "fail"):
                self.recorder.finish_early(job)
                return None
            notes = [*image.notes]
            steps = self.steps_of(job)
            pages = [MemoryPage(source.to_srgb) for source in (image, *image.extra_pages)]
            if steps.masked and not steps.detect:
                with self.link.decoding(name):
                    read = self.read_masks(job, (image, *image.extra_pages), notes)
                pages = [MemoryPage(source.to_srgb, mask) for source, mask in zip((image, *image.extra_pages), read)]
                steps = self.steps_of(job, holes=any(bool(mask.any()) for mask in read))
            if self._conditions and steps.restore:
                with self.link.decoding(name):
                    pages[0].condition = self._read_conditions(job, image)
            notes += notes_on_colors(
                self.models, steps, lambda: all(page.is_neutral() for page in (image, *image.extra_pages))
            )
            if steps.repair:
                # Fading correction and color conversion need no model, so the idle reader threads do them.
                if steps.correct_fading and not steps.detect:  # a detector sees the image as it was
                    correct_fading(pages[0])
                else:
                    pages[0].image  # noqa: B018
            may_copy = not steps or steps.may_change_nothing or is_lossy_reencode(image)
            digest = hashlib.sha256(data).hexdigest() if self.recorder.log.is_open else None
            seconds = time.monotonic() - started
            return WorkItem(job, data if may_copy else b"", image, stat, steps, pages, digest, notes, seconds)
        except NotAnImage as error:
            # A file fails if the user or its name says that it is an image; others of a folder are skipped.
            expected = job.named or job.source.suffix.lower() in IMAGE_SUFFIXES
            self.recorder.finish(job, "failed" if expected else "skipped", error.what, code="not_an_image")
        except Exception as error:
            too_large = _too_large(error)
            if huge_pixels and too_large and huge_pixels <= too_large.pixels <= self.options.max_pixels:
                return HugeItem(job)
            reason = unless_too_large if isinstance(error, ImageTooLarge) else None
            self.recorder.fail(job, self.with_option(reason or error))
        return None

    def _read_conditions(self, job: Job, image: DecodedImage) -> FloatArray:
        """The condition images of an image, h×w×K.

        Raises:
            RestoreError: exit code 1; there are none, they do not fit, or the image has several pages.
        """
        if image.extra_pages:
            raise RestoreError(
                f"condition images belong to one page, but this file has {1 + len(image.extra_pages)}",
                where=job.source,
                hint="--ext with another format than TIFF repairs the first page",
                exit_code=1,
            )
        parts = []
        for files, condition in self._conditions:
            where = files.file_of(pair_key(job.name)) or job.source
            pixels = condition_pixels(files.read(pair_key(job.name), lambda: image), condition, where)
            check_condition_size((pixels.shape[0], pixels.shape[1]), image.size, where)
            parts.append(as_unit(pixels))
        return np.concatenate(parts, axis=2)

    def read_masks(self, job: Job, pages: Sequence[DecodedImage], notes: list[str]) -> list[FloatArray]:
        """Read the mask of each page, and append warnings about the masks to `notes`."""
        from restore.fix.masks import effective_mask, mask_warnings

        assert self.plan.masks is not None
        masks = [
            effective_mask(
                page,
                job.mask,
                invert=self.plan.masks.invert,
                dilate_px=self.options.dilate,
                feather_px=self.options.mask_feather,
                infrared=self.plan.masks.infrared,
                max_pixels=self.options.max_pixels,
                on_event=notes.append,
            )
            for page in pages
        ]
        notes += mask_warnings(masks)
        return masks

    def with_option(self, error: Exception) -> Exception:
        """Add the option that would allow a rejected image to its error."""
        if isinstance(error, ImageTooLarge) and 0 < error.pixels <= self.options.max_pixels:
            gigabytes = error.pixels * self._copies * _PIXEL_BYTES / 1e9
            error.what = f"must fit in memory as a whole, but needs about {gigabytes:.1f} GB, more than is available"
            error.hint = "convert it to a plain TIFF, or use a machine with more memory"
        elif isinstance(error, ImageTooLarge) and error.pixels:
            # The decoder may have reported the limit of memory, which can be lower than `max_pixels`.
            error.what = f"{error.size} is over the limit of {self.options.max_pixels / 1e6:g} megapixels"
            error.hint = f"if the file can be trusted: --max-pixels {error.pixels}"
        elif isinstance(error, DamagedFile) and error.partly and not self.options.allow_truncated:
            error.hint = "the file is damaged or cut short; --allow-truncated repairs what can be decoded"
        return error


def _read(source: Path) -> tuple[bytes, os.stat_result | None]:
    """The content and state of a file; standard input has no state (None).

    Raises:
        RestoreError, OSError: it cannot be read, or it changed while it was read.
    """
    if source == PIPE:
        from restore.fix.io import read_pipe

        return read_pipe(), None
    stat = os.stat(source)
    data = read_bytes(source)
    check_unchanged(source, stat)
    return data, stat


def _too_large(error: BaseException | None) -> ImageTooLarge | None:
    """The `ImageTooLarge` in the chain of causes of an error, or None."""
    while error is not None and not isinstance(error, ImageTooLarge):
        error = error.__cause__
    return error


def _pixels_for_memory() -> int:
    """The number of pixels of the largest image that can be repaired in memory."""
    from restore.devices import free_ram, installed_ram

    return max(free_ram(), installed_ram() // 2) // _PIXEL_BYTES
