"""The stages of an image: decode, repair, encode. Every file ends with one result, which is recorded."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from restore.files import check_unchanged, write_atomically
from restore.fix.decoder_isolation import SupervisorLink
from restore.fix.log import ReasonCode
from restore.fix.options import FixOptions
from restore.fix.plan import PIPE, FixPlan, Job
from restore.fix.results import DISK_FULL, ResultRecorder
from restore.fix.steps import (
    Detector,
    MemoryPage,
    Models,
    Steps,
    correct_fading,
    model_provenance,
    run_steps,
    tiles_of,
)
from restore.images import IMAGE_SUFFIXES, DecodedImage, NotAnImage, image_from_bytes, read_bytes
from restore.images.decode import DamagedFile, ImageTooLarge, check_bytes
from restore.images.encode import encode, without_metadata
from restore.signals import defer_signals

if TYPE_CHECKING:
    from restore.fix.out_of_core import MaskSpec, SpooledPage
    from restore.restorers.base import Restorer

logger = logging.getLogger(__name__)

FloatArray = npt.NDArray[np.float32]

HUGE_PIXELS = 40_000_000
"""An image with more pixels goes through in parts, out of core; in memory a pixel takes some 40 bytes."""

HUGE_FILE_BYTES = 200_000_000
"""A larger file is not read into memory to look at its header: it goes through in parts at once."""

_PIXEL_BYTES = 40  # of an image in memory: its own values, what a network sees, and what comes out


@dataclass
class WorkItem:
    """An image on its way through the stages.

    Attributes:
        job: what is to be done.
        data: the file, where it may be copied; else empty.
        image: decoded; with the further pages of a TIFF.
        stat: the file's, when it was read; None of a pipe.
        steps: what is done to it.
        pages: what the steps work on, one for each page of `image`.
        input_sha256: of the file, where there is a log.
        notes: what the user should know, growing on the way.
        seconds: spent on it so far.
        outputs: what is written of the further pages.
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

    @property
    def sources(self) -> tuple[DecodedImage, ...]:
        """All pages as they were decoded."""
        return (self.image, *self.image.extra_pages)

    @property
    def pixels(self) -> int:
        """Of all pages."""
        return sum(page.size[0] * page.size[1] for page in self.sources)

    @property
    def mask_coverage(self) -> float | None:
        """The fraction of pixels in holes, on all pages; None without masks."""
        masks = [page.mask for page in self.pages if page.mask is not None]
        if len(masks) < len(self.pages):
            return None
        return sum(int(np.count_nonzero(mask)) for mask in masks) / self.pixels


@dataclass(frozen=True)
class RenderedImage:
    """An image with its repair, ready to be encoded.

    Attributes:
        image: with all pages.
        format: to write.
        touched: a step ran.
        changed: fraction of pixels that differ from the source's.
        copied: the file itself is the output.
    """

    image: DecodedImage
    format: str
    touched: bool
    changed: float
    copied: bool


@dataclass(frozen=True)
class HugeItem:
    """An image that goes through all stages out of core when its turn comes."""

    job: Job
    pixels: int = 0  # in memory


def is_lossy_reencode(image: DecodedImage) -> bool:
    """Whether encoding an image again loses quality, though it would look as in its file: then, if a model changes
    nothing, the file itself is the better output.
    """
    lossy = image.format == "jpeg" or image.compression == "lossy"
    return lossy and not image.reoriented and not image.notes


def changed_fraction(before: DecodedImage, after: DecodedImage) -> float:
    """The fraction of pixels that differ, on all pages."""
    count, total = 0, 0
    for old, new in zip((before, *before.extra_pages), (after, *after.extra_pages)):
        if old.pixels.shape != new.pixels.shape:
            return 1.0
        changed = old.pixels[:, :, 0] != new.pixels[:, :, 0]
        for channel in range(1, old.pixels.shape[2]):
            changed |= old.pixels[:, :, channel] != new.pixels[:, :, channel]
        count, total = count + int(np.count_nonzero(changed)), total + changed.size
    return count / total


class Reader:
    """The first stage: reads images and their masks; see `Stages`."""

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
        self._alpha_masks = plan.masks is not None and plan.masks.alpha
        # Once, so that it does not depend on what else is in memory when an image's turn comes.
        self._pixels_for_memory = _pixels_for_memory()

    def load(self, job: Job) -> WorkItem | HugeItem | None:
        """Read an image and its mask; None if that already decided its result."""
        self.link.begin(os.fspath(job.source))
        steps = self.steps_of(job)
        # Automatic dilation looks at the surroundings of whole holes.
        in_parts = steps.work_in_parts(self.models) and not (steps.masked and self.options.mask_dilate == "auto")
        if not in_parts or PIPE in (job.source, job.target):
            return self._load(job)
        return self._load(job, huge_pixels=HUGE_PIXELS)

    def load_whole(self, job: Job, *, unless_too_large: Exception | None = None) -> WorkItem | None:
        """As `load`, into memory whatever its size; where that is too small, it fails with `unless_too_large`."""
        item = self._load(job, unless_too_large=unless_too_large)
        assert not isinstance(item, HugeItem)
        return item

    def steps_of(self, job: Job, *, holes: bool = True) -> Steps:
        """The steps of a job's image, as far as the plan tells; `holes`: its mask has some, as far as is known."""
        if self._steps is not None:
            return self._steps
        if self.options.strength == 0:
            return Steps()
        masks, unmasked = self.plan.masks, job.action == "unmasked"
        detected = masks is not None and masks.found
        return Steps(
            correct_fading=self.options.correct_fading,
            detect=detected,
            restore=holes and not unmasked,
            clean_up=self.models.clean_up is not None,
            masked=masks is not None and not unmasked,
            spare_clean=detected and self._spare_clean,
        )

    def _load(
        self, job: Job, *, huge_pixels: int | None = None, unless_too_large: Exception | None = None
    ) -> WorkItem | HugeItem | None:
        """`huge_pixels`: a larger image is not decoded."""
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
            if self._alpha_masks and image.alpha is None:
                assert self.plan.masks is not None
                job = replace(job, **self.plan.masks.when_missing())
            if job.action in ("skip", "fail"):
                self.recorder.finish_early(job)
                return None
            notes = [*image.notes]
            steps = self.steps_of(job)
            pages = [MemoryPage(source.to_srgb) for source in (image, *image.extra_pages)]
            if steps.masked and not steps.detect:
                with self.link.decoding(name):
                    read = self._read_masks(job, (image, *image.extra_pages), notes)
                pages = [MemoryPage(source.to_srgb, mask) for source, mask in zip((image, *image.extra_pages), read)]
                steps = self.steps_of(job, holes=any(bool(mask.any()) for mask in read))
            if steps:
                # These need no model, and the threads that read have time.
                if steps.correct_fading:
                    correct_fading(pages[0])
                else:
                    pages[0].image  # noqa: B018
            may_copy = (
                not steps or (steps.detect and (steps.spare_clean or not steps.everywhere)) or is_lossy_reencode(image)
            )
            digest = hashlib.sha256(data).hexdigest() if self.recorder.log.is_open else None
            seconds = time.monotonic() - started
            return WorkItem(job, data if may_copy else b"", image, stat, steps, pages, digest, notes, seconds)
        except NotAnImage as error:
            # Files in a folder that are no images are skipped; one that the user named fails.
            if self.plan.single:
                self.recorder.finish(job, "failed", error.what, code="not_an_image")
            else:
                expected = job.source.suffix.lower() in IMAGE_SUFFIXES
                warnings = [f"skipped: {error.what}"] if expected else []
                self.recorder.finish(job, "skipped", error.what, code="not_an_image", warnings=warnings)
        except Exception as error:
            too_large = _too_large(error)
            if huge_pixels and too_large and huge_pixels <= too_large.pixels <= self.options.max_pixels:
                return HugeItem(job)
            reason = unless_too_large if isinstance(error, ImageTooLarge) else None
            self.recorder.fail(job, self.with_option(reason or error))
        return None

    def _read_masks(self, job: Job, pages: Sequence[DecodedImage], notes: list[str]) -> list[FloatArray]:
        """The mask of each page; what is odd about them goes into `notes`."""
        from restore.fix.masks import effective_mask, mask_warnings

        assert self.plan.masks is not None
        masks = [
            effective_mask(
                page,
                job.mask,
                invert=self.plan.masks.invert,
                dilate_px=self.options.mask_dilate,
                feather_px=self.options.mask_feather,
                max_pixels=self.options.max_pixels,
            )
            for page in pages
        ]
        notes += mask_warnings(masks)
        return masks

    def with_option(self, error: Exception) -> Exception:
        """What is refused unless an option says otherwise names that option."""
        if isinstance(error, ImageTooLarge) and 0 < error.pixels <= self.options.max_pixels:
            gigabytes = error.pixels * _PIXEL_BYTES / 1e9
            error.what = f"has to be in memory as a whole, and takes about {gigabytes:.1f} GB: more than there is"
            error.hint = "convert it to a plain TIFF, or use a machine with more memory"
        elif isinstance(error, ImageTooLarge) and error.pixels:
            # It was held against what memory has room for, if that is less.
            error.what = f"{error.size} is over the limit of {self.options.max_pixels / 1e6:g} megapixels"
            error.hint = f"if the file can be trusted: --max-pixels {error.pixels}"
        elif isinstance(error, DamagedFile) and not self.options.allow_truncated:
            error.hint = "the file is damaged or cut short; --allow-truncated repairs what can be decoded"
        return error


def _read(source: Path) -> tuple[bytes, os.stat_result | None]:
    """The content of a file, and its state; of standard input, without one.

    Raises:
        RestoreError, OSError: it cannot be read, or changed meanwhile.
    """
    if source == PIPE:
        from restore.fix.io import read_pipe

        return read_pipe(), None
    stat = os.stat(source)
    data = read_bytes(source)
    check_unchanged(source, stat)
    return data, stat


def _too_large(error: BaseException | None) -> ImageTooLarge | None:
    """The error that an image, or a further page of it, has too many pixels."""
    while error is not None and not isinstance(error, ImageTooLarge):
        error = error.__cause__
    return error


def _pixels_for_memory() -> int:
    """The largest image that can be in memory as a whole while it is repaired."""
    from restore.devices import free_ram, installed_ram

    return max(free_ram(), installed_ram() // 2) // _PIXEL_BYTES


class Stages:
    """The stages of a run.

    Args:
        plan: the run's.
        models: what repairs: the same on every device that takes part.
        options: how.
        recorder: is given every file's result, once.
        link: hears which files are in work, and which of them are being decoded.
        steps: the same for all images; None: as plan and options say.
        output_of: what is written of a page, from its source and the page after its steps; None: the source with its
            repair.
    """

    def __init__(
        self,
        plan: FixPlan,
        models: Sequence[Models],
        options: FixOptions,
        recorder: ResultRecorder,
        link: SupervisorLink,
        *,
        steps: Steps | None = None,
        output_of: Callable[[DecodedImage, MemoryPage], DecodedImage] | None = None,
    ) -> None:
        self.plan, self.models = plan, models
        self.options, self.recorder, self.link = options, recorder, link
        self.reader = Reader(plan, models[0], options, recorder, link, steps)
        self.networks = len(models)
        # A run that was started again may have written a file whose result was not recorded.
        self.overwrite = plan.overwrite or bool(link.past.plan)
        # Decided once, so that it does not depend on what else is in memory when an image's turn comes.
        self._tiles = tiles_of(models, options.tile)
        self._output_of = output_of
        self._alpha_masks = plan.masks is not None and plan.masks.alpha

    def run_serially(self, jobs: Sequence[Job]) -> None:
        """One job after the other through all stages, in the caller's thread."""
        for job in jobs:
            item = self.reader.load(job)
            if isinstance(item, HugeItem):
                item = self.repair_in_parts(item, 0)
            for repaired in self.repair_group([item] if item else [], 0):
                self.save(repaired)

    # Several small images at once.

    def room_for(self, item: WorkItem) -> int:
        """How many images like this one are repaired at once; 1: it goes alone."""
        model = item.steps.only_model(self.models[0])
        if model is None or not model.max_batch_pixels or len(item.pages) > 1:
            return 1
        from restore.fix.steps import goes_whole, places

        count = places(model, *item.image.size, self._tile_of(model))
        mask = item.pages[0].mask if item.steps.restore else None
        return count if count > 1 and goes_whole(model, mask) else 1

    def go_together(self, first: WorkItem, other: WorkItem) -> bool:
        """Whether an image can be repaired along with one that there is room beside."""
        return (
            other.steps == first.steps
            and other.image.size == first.image.size
            and other.pages[0].has_mask == first.pages[0].has_mask
            and self.room_for(other) > 1
        )

    def _repair_together(self, group: Sequence[WorkItem], network: int, room: int) -> list[bool]:
        """Repair a group; False for an image that has to be repaired alone."""
        from restore.fix.steps import repair_together

        started, steps = time.monotonic(), group[0].steps
        model = steps.only_model(self.models[network])
        assert model is not None
        pages = [item.pages[0] for item in group]
        for page in pages:
            page.everywhere = steps.everywhere
        try:
            keys = [key() if (key := self._grain_key(item.image)) else None for item in group]
            repaired = repair_together(model, pages, room, keys)
        except Exception as error:  # alone, each image succeeds or says what is wrong with it
            logger.debug("%d images at once: %s", len(group), error)
            return [False] * len(group)
        for item, page, done in zip(group, pages, repaired):
            item.seconds += (time.monotonic() - started) / len(group)
            if done:
                page.filled, page.cleaned = steps.restore, steps.clean_up
                page.finish()
        return repaired

    # The second stage: the models run, in the caller's thread.

    def repair_group(self, group: Sequence[WorkItem], network: int) -> Iterator[WorkItem]:
        """Repair images on one of the devices.

        Args:
            group: some that `go_together`, mostly one.
            network: the device.

        Yields:
            Those that did not fail.
        """
        room = self.room_for(group[0]) if group else 1
        repaired = self._repair_together(group, network, room) if room > 1 else [False] * len(group)
        for item, done in zip(group, repaired):
            if not done and item.steps:
                try:
                    self.repair(item, network)
                except Exception as error:
                    self.recorder.fail(item.job, error)
                    continue
            yield item

    def repair(self, item: WorkItem, network: int = 0) -> None:
        """Take all pages of an image through their steps.

        Raises:
            RestoreError, MemoryError, ...: it failed.
        """
        started = time.monotonic()
        extra_pages = []
        for number, (source, page) in enumerate(zip(item.sources, item.pages)):
            run_steps(
                page, item.steps, self.models[network],
                tile_of=self._tile_of, on_event=item.notes.append,
                dilate_px=self.options.mask_dilate, feather_px=self.options.mask_feather,
                grain_key=self._grain_key(source),
            )  # fmt: skip
            if number:  # blended here, so that the pages are not in memory as floats all at once
                extra_pages.append(self._output(source, page))
        item.outputs = tuple(extra_pages)
        item.seconds += time.monotonic() - started

    def _output(self, source: DecodedImage, page: MemoryPage) -> DecodedImage:
        """What is written of a page."""
        if self._output_of is not None:
            return self._output_of(source, page)
        if not page.changed:
            return source
        after = page.put_into(source, self.options.strength)
        if self._alpha_masks:
            from restore.fix.masks import opaque_where_repaired

            after = opaque_where_repaired(after, page.mask)
        return after

    def _grain_key(self, source: DecodedImage) -> Callable[[], int] | None:
        if not self.options.match_grain:
            return None
        from restore.fix.grain import pixels_key

        return lambda: pixels_key([source.pixels])

    def _tile_of(self, model: Restorer | Detector) -> int:
        return self._tiles[id(model)]

    # The third stage.

    def render(self, item: WorkItem) -> RenderedImage:
        """Blend the repair into the image, with a note in its metadata if that changed it."""
        before = after = item.image
        filled, cleaned = any(page.filled for page in item.pages), any(page.cleaned for page in item.pages)
        if touched := self._output_of is not None or any(page.changed for page in item.pages):
            after = replace(self._output(before, item.pages[0]), extra_pages=item.outputs)
        changed = changed_fraction(before, after) if touched else 0.0
        kind = item.job.format or before.format
        is_changed = bool(changed) or after.alpha is not before.alpha
        copied = self._output_of is None and self._copies(
            before, kind, touched=touched, changed=is_changed, keep=bool(item.data)
        )
        if is_changed and not copied:
            after = self._with_note(after, item.steps, kind, item.notes, filled=filled, cleaned=cleaned)
        return RenderedImage(after, kind, touched, changed, copied)

    def save(self, item: WorkItem) -> None:
        """Blend the repair into the image and write it; copy the file if there was nothing to repair."""
        if self.recorder.summary.stopped == DISK_FULL:
            return
        started = time.monotonic()
        job, data = item.job, item.data
        try:
            rendered = self.render(item)
            if not rendered.copied:
                after = without_metadata(rendered.image) if self.options.metadata == "strip" else rendered.image
                data, notes = encode(after, rendered.format, job.target, quality=self.options.quality)
                item.notes += notes
            if job.target == PIPE:
                from restore.fix.io import write_pipe

                write_pipe(data)
            else:
                write_atomically(job.target, data, like=item.stat, overwrite=self.overwrite)
            digest = hashlib.sha256(data).hexdigest() if self.recorder.log.is_open else None
        except Exception as error:
            self.recorder.fail(job, error)
            return
        self._record(
            job,
            item.steps,
            touched=rendered.touched,
            filled=any(page.filled for page in item.pages),
            cleaned=any(page.cleaned for page in item.pages),
            copied=rendered.copied,
            notes=item.notes,
            seconds=item.seconds + time.monotonic() - started,
            mask_coverage=item.mask_coverage,
            input_sha256=item.input_sha256,
            output_sha256=digest,
            changed=rendered.changed,
            size=item.image.size,
            pixels=item.pixels,
        )

    # All stages of an image that is too large for memory.

    def repair_in_parts(self, huge: HugeItem, network: int) -> WorkItem | None:
        """Take an image through all stages out of core; one that has to be in memory is loaded, and returned."""
        from restore.fix.grain import pixels_key
        from restore.fix.out_of_core import HoleTooLarge, open_page

        job, started = huge.job, time.monotonic()
        steps = self.reader.steps_of(job)
        notes: list[str] = []
        with ExitStack() as until_recorded:
            try:
                with open_page(
                    job.source,
                    job.target,
                    self._mask_spec(job, steps),
                    format=job.format,
                    strength=self.options.strength,
                    max_pixels=self.options.max_pixels,
                    max_crop_pixels=HUGE_PIXELS,
                    decoding=self.link.decoding(os.fspath(job.source)),
                ) as page:
                    if page is not None:
                        strips = page.source_strips
                        run_steps(
                            page, steps, self.models[network],
                            tile_of=self._tile_of, on_event=notes.append,
                            grain_key=(lambda: pixels_key(strips())) if self.options.match_grain else None,
                        )  # fmt: skip
                        until_recorded.enter_context(defer_signals())
                        facts = self._write_in_parts(job, page, steps, notes)
            except HoleTooLarge:
                page = None
            except DamagedFile as error:  # in memory a second decoder tries, and one that takes what it can
                return self.reader.load_whole(job, unless_too_large=error)
            except Exception as error:
                self.recorder.fail(job, self.reader.with_option(error))
                return None
            if page is not None:
                self._record(job, steps, seconds=time.monotonic() - started, **facts)
                return None
        return self.reader.load_whole(job)

    def _mask_spec(self, job: Job, steps: Steps) -> MaskSpec | None:
        from restore.fix.out_of_core import MaskSpec

        if not steps.masked:
            return None
        assert self.plan.masks is not None
        assert self.options.mask_dilate != "auto"  # these are in memory
        return MaskSpec(job.mask, self.plan.masks.invert, self.options.mask_dilate, self.options.mask_feather)

    def _write_in_parts(self, job: Job, page: SpooledPage, steps: Steps, notes: list[str]) -> dict[str, Any]:
        """Write an image out of core; returns what `_record` needs to know."""
        from restore.fix.masks import coverage_warnings
        from restore.fix.out_of_core import write_page

        before, header = page.before.header, page.after.header
        kind, changed = job.format or before.format, page.changed_fraction()
        copy = self._copies(before, kind, touched=page.changed, changed=bool(changed), keep=is_lossy_reencode(before))
        if changed and not copy:
            header = self._with_note(header, steps, kind, notes, filled=page.filled, cleaned=page.cleaned)
        written, input_sha256, output_sha256 = write_page(
            page,
            header,
            job.target,
            format=kind,
            copy=copy,
            quality=self.options.quality,
            metadata=self.options.metadata,
            overwrite=self.overwrite,
        )
        return {
            "touched": page.changed,
            "filled": page.filled,
            "cleaned": page.cleaned,
            "copied": copy,
            "notes": [*before.notes, *written, *coverage_warnings(page.mask_coverage or 0), *notes],
            "mask_coverage": page.mask_coverage,
            "input_sha256": input_sha256,
            "output_sha256": output_sha256,
            "changed": changed,
            "size": page.size,
            "pixels": page.size[0] * page.size[1],
        }

    # What both ways end with.

    def _copies(self, source: DecodedImage, kind: str, *, touched: bool, changed: bool, keep: bool) -> bool:
        """Whether the file itself is the output.

        Args:
            source: decoded.
            kind: the output's format.
            touched: a step ran.
            changed: it changed something.
            keep: of an image in which nothing changed the file is the better output, or as good.
        """
        if kind != source.format or self.options.metadata != "keep":
            return False
        return not touched or (keep and not changed and self.options.quality is None)

    def _with_note(
        self, image: DecodedImage, steps: Steps, kind: str, notes: list[str], *, filled: bool, cleaned: bool
    ) -> DecodedImage:
        """An image that was changed, with a note of that in its metadata."""
        if not self.options.provenance or self.options.metadata == "strip":
            return image
        from restore.fix.provenance import with_provenance

        models = self.models[0]
        took_part = model_provenance(models, steps, filled=filled, cleaned=cleaned)["models"]
        network = models.restorer.sha256 if filled and steps.masked and models.restorer is not None else None
        return with_provenance(image, took_part, self.recorder.settings, filled_by=network, kind=kind, notes=notes)

    def _record(
        self,
        job: Job,
        steps: Steps,
        *,
        touched: bool,
        filled: bool,
        cleaned: bool,
        copied: bool,
        notes: list[str],
        seconds: float,
        mask_coverage: float | None,
        input_sha256: str | None,
        output_sha256: str | None,
        changed: float,
        size: tuple[int, int],
        pixels: int,
    ) -> None:
        """Record an image that is done."""
        code: ReasonCode = "nothing_to_repair" if not touched else "nothing_changed" if copied else ""
        reason = {"nothing_changed": "nothing was changed", "nothing_to_repair": "nothing to repair"}.get(code, "")
        self.recorder.finish(
            job,
            "done",
            reason,
            code=code,
            size=size,
            seconds=seconds,
            **model_provenance(self.models[0], steps, filled=filled, cleaned=cleaned),
            mask_coverage=mask_coverage,
            input_sha256=input_sha256,
            output_sha256=output_sha256,
            changed_fraction=changed,
            warnings=list(dict.fromkeys(notes)),  # tiles and steps may report the same
            pixels=pixels,
        )
