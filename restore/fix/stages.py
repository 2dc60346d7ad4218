"""The stages of an image: decode (`restore.fix.reader`), repair, encode. Every file gets one recorded result."""

from __future__ import annotations

import copy
import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from restore import progress
from restore.files import write_atomically
from restore.fix.decoder_isolation import SupervisorLink
from restore.fix.inputs import PIPE
from restore.fix.jobs import Job
from restore.fix.log import ReasonCode
from restore.fix.options import FixOptions
from restore.fix.pages import MemoryPage
from restore.fix.plan import FixPlan
from restore.fix.reader import HugeItem, Reader, WorkItem, is_lossy_reencode
from restore.fix.results import DISK_FULL, ResultRecorder
from restore.fix.sensitivity import less_sensitive
from restore.fix.steps import (
    Detector,
    Models,
    Steps,
    correct_fading,
    enlarged,
    model_provenance,
    notes_on_colors,
    restore_everywhere,
    run_steps,
    steps_done,
    tiles_of,
)
from restore.images import FORMAT_OF_SUFFIX, DecodedImage
from restore.images.decoder_output import DamagedFile, notes_of_copy
from restore.images.encode import encode
from restore.images.fit_to_format import without_metadata
from restore.signals import defer_signals

if TYPE_CHECKING:
    from restore.fix.out_of_core import MaskSpec, SpooledPage
    from restore.restorers.base import Restorer

logger = logging.getLogger(__name__)

FloatArray = npt.NDArray[np.float32]

MUCH_DAMAGE = 0.3
"""More damage than this fraction of an image causes a warning: the detector has probably mistaken its content."""


@dataclass(frozen=True)
class RenderedImage:
    """An image with its repair, ready to be encoded.

    Attributes:
        image: the image with all pages.
        format: output format.
        touched: at least one step ran.
        changed: fraction of pixels that differ from the source.
        copied: the output is a copy of the file.
    """

    image: DecodedImage
    format: str
    touched: bool
    changed: float
    copied: bool


def changed_fraction(before: DecodedImage, after: DecodedImage) -> float:
    """The fraction of pixels that differ, over all pages."""
    count, total = 0, 0
    for old, new in zip((before, *before.extra_pages), (after, *after.extra_pages)):
        if old.pixels.shape != new.pixels.shape:
            return 1.0
        changed = old.pixels[:, :, 0] != new.pixels[:, :, 0]
        for channel in range(1, old.pixels.shape[2]):
            changed |= old.pixels[:, :, channel] != new.pixels[:, :, channel]
        count, total = count + int(np.count_nonzero(changed)), total + changed.size
    return count / total


def notes_of_changes(sources: Sequence[DecodedImage], output: DecodedImage) -> list[str]:
    """Notes on what changed pixels took away, on all pages."""
    pages = zip(sources, (output, *output.extra_pages))
    return [note for source, page in pages for note in page.notes if note not in source.notes]


def without_losses(notes: Sequence[str], image: DecodedImage) -> list[str]:
    """The notes on an image whose output is not made of what decoding kept."""
    gone = set(image.notes) - set(notes_of_copy(image.notes))
    return [note for note in notes if note not in gone]


class Stages:
    """The stages of a run.

    Args:
        plan: the plan of the run.
        models: the same models for every device of the run.
        options: the options of the run.
        recorder: receives the result of every file, once.
        link: receives which files are in work and which are being decoded.
        steps: the same steps for all images; None: steps from the plan and options.
        output_of: makes the output of a page from its source and the processed page; None: the source with its repair.
        side_of: makes the second output of an image; it returns None if there is none.
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
        side_of: Callable[[WorkItem], DecodedImage | None] = WorkItem.saved_mask,
    ) -> None:
        self.plan, self.models = plan, models
        self.options, self.recorder, self.link = options, recorder, link
        self.reader = Reader(plan, models[0], options, recorder, link, steps)
        self.networks = len(models)
        # Before a restart, the worker may have written a file without recording its result.
        self.overwrite = plan.overwrite or bool(link.past.plan)
        self._overwrite_side = self.overwrite or plan.for_page
        # Computed once, so tiles do not depend on other data in memory when an image's turn comes.
        self._tiles = tiles_of(models, options.tile)
        self._output_of, self._side_of = output_of, side_of
        self._alpha_masks = plan.masks is not None and plan.masks.alpha

    def run_serially(self, jobs: Iterable[Job]) -> None:
        """Take one job after the other through all stages, in the caller's thread."""
        for job in jobs:
            item = self.reader.load(job)
            if isinstance(item, HugeItem):
                item = self.repair_in_parts(item, 0)
            for repaired in self.repair_group([item] if item else [], 0):
                self.save(repaired)

    # Batches of small images.

    def room_for(self, item: WorkItem) -> int:
        """The size of the batch in which images like this one are repaired; 1: alone."""
        model = item.steps.only_model(self.models[0])
        if (
            item.job.fill_targets
            or item.job.map_target is not None
            or model is None
            or not model.max_batch_pixels
            or len(item.pages) > 1
            or model.requirements.conditions
        ):
            return 1
        from restore.fix.batches import goes_whole, places

        count = places(model, *item.image.size, self.tile_of(model))
        mask = item.pages[0].mask if item.steps.restore else None
        return count if count > 1 and goes_whole(model, mask) else 1

    def go_together(self, first: WorkItem, other: WorkItem) -> bool:
        """Whether two images can be repaired in one batch; `first` must have `room_for` another."""
        return (
            other.steps == first.steps
            and other.image.size == first.image.size
            and other.pages[0].has_mask == first.pages[0].has_mask
            and self.room_for(other) > 1
        )

    def _repair_together(self, group: Sequence[WorkItem], network: int, room: int) -> list[bool]:
        """Repair a batch; False for each image that must be repaired alone."""
        from restore.fix.batches import repair_together

        started, steps = time.monotonic(), group[0].steps
        model = steps.only_model(self.models[network])
        assert model is not None
        pages = [item.pages[0] for item in group]
        for page in pages:
            page.everywhere = page.fading_corrected or steps.clean_up or not steps.masked
        try:
            keys = [key() if (key := self.grain_key(item.image)) else None for item in group]
            repaired = repair_together(model, pages, room, keys)
        except Exception as error:  # repaired alone, each image succeeds or gets an error of its own
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
            group: images that `go_together`, mostly one.
            network: index of the device.

        Yields:
            The images that did not fail.
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
            RestoreError, MemoryError, ...: a step failed.
        """
        started = time.monotonic()
        mapped = item.job.map_target is not None
        again = [copy.copy(page) for page in item.pages] if item.job.fill_targets or mapped else []
        extra_pages = []
        shares = progress.shares([1] * len(item.pages))
        for number, (source, page, share) in enumerate(zip(item.sources, item.pages, shares)):
            with progress.part(*share):
                run_steps(
                    page, item.steps, self.models[network],
                    tile_of=self.tile_of, on_event=item.notes.append,
                    dilate_px=self.options.mask_dilate, feather_px=self.options.mask_feather,
                    grain_key=self.grain_key(source),
                )  # fmt: skip
            if mapped:
                item.errors.append(self._expected_error(item, page, again[number], network))
            if item.steps.enlarge:
                bigger = self._enlarged(source, page, network, item.notes)
                if number:
                    extra_pages.append(bigger)
                else:
                    item.enlarged = bigger
            elif number:  # blended here, so only one page is in memory as floats
                extra_pages.append(self._output(source, page))
        item.outputs = tuple(extra_pages)
        for page, done in zip(again, item.pages):  # what was detected
            page.mask, page.has_mask = done.mask, done.has_mask
        numbers = range(1, 1 + len(item.job.fill_targets))
        item.fills = tuple(self._filled_again(item, again, number, network) for number in numbers)
        damaged = item.damaged_fraction
        if damaged is not None and damaged > MUCH_DAMAGE:
            less = less_sensitive(self.recorder.settings.get("sensitivity", "normal"))
            item.notes.append(f"damage was found in {damaged:.0%} of the image, which is rarely right: {less}")
        item.seconds += time.monotonic() - started

    def _filled_again(self, item: WorkItem, pages: Sequence[MemoryPage], number: int, network: int) -> DecodedImage:
        """The image with another fill: pages as they were before their steps, but with their masks, filled anew."""
        restorer = self.models[network].restorer
        assert restorer is not None
        other = restorer.with_seed(self.options.seed + number)
        models, outputs = replace(self.models[network], restorer=other), []
        for source, before in zip(item.sources, pages):
            page = copy.copy(before)
            run_steps(
                page, replace(item.steps, detect=False), models,
                tile_of=lambda model: self.tile_of(restorer if model is other else model), on_event=item.notes.append,
                grain_key=self.grain_key(source),
            )  # fmt: skip
            outputs.append(self._output(source, page))
        return replace(outputs[0], extra_pages=tuple(outputs[1:]))

    def _expected_error(self, item: WorkItem, done: MemoryPage, before: MemoryPage, network: int) -> FloatArray:
        """The expected error of a page: `done` after its steps, `before` as it was before them."""
        from restore.fix.uncertainty import MIRRORS, expected_error, mirrored, with_seed

        restorer = self.models[network].restorer
        assert restorer is not None
        before = copy.copy(before)
        before.mask, before.has_mask = done.mask, done.has_mask
        if not done.filled or done.repaired is None or done.mask is None:
            return np.zeros(before.size, np.float32)
        if item.steps.correct_fading:  # of the whole page alike, before it is mirrored
            correct_fading(before)
        steps, repairs = replace(item.steps, detect=False, correct_fading=False), [done.repaired]
        for number, (rows, columns) in enumerate(MIRRORS, start=1):
            other, page = with_seed(restorer, self.options.seed + number), mirrored(before, rows, columns)
            run_steps(
                page, steps, replace(self.models[network], restorer=other),
                tile_of=lambda model: self.tile_of(restorer), on_event=item.notes.append,
            )  # fmt: skip
            assert page.repaired is not None
            repairs.append(page.repaired[:: -1 if rows else 1, :: -1 if columns else 1])
        return expected_error(repairs, done.mask > 0)

    def _output(self, source: DecodedImage, page: MemoryPage) -> DecodedImage:
        """The output of a page."""
        if self._output_of is not None:
            return self._output_of(source, page)
        if not page.changed:
            return source
        after = page.put_into(source, self.options.strength)
        if self._alpha_masks:
            from restore.fix.masks import opaque_where_repaired

            after = opaque_where_repaired(after, page.mask)
        return after

    def _enlarged(self, source: DecodedImage, page: MemoryPage, network: int, notes: list[str]) -> DecodedImage:
        """The output of a page, enlarged."""
        enlarger = self.models[network].enlarger
        assert enlarger is not None
        return enlarged(page, self._output(source, page), enlarger, self.tile_of(enlarger), notes.append)

    def grain_key(self, source: DecodedImage) -> Callable[[], int] | None:
        """The key for the grain of an image; None: it gets none. See `run_steps`."""
        if not self.options.match_grain:
            return None
        from restore.fix.grain import pixels_key

        return lambda: pixels_key([source.pixels])

    def tile_of(self, model: Restorer | Detector) -> int:
        """The largest side of a tile for a model."""
        return self._tiles[id(model)]

    # The third stage.

    def render(self, item: WorkItem) -> RenderedImage:
        """Blend the repair into the image; a changed image gets a provenance note in its metadata."""
        before = after = item.image
        if touched := self._output_of is not None or any(page.changed for page in item.pages):
            first = self._output(before, item.pages[0]) if item.enlarged is None else item.enlarged
            after = replace(first, extra_pages=item.outputs)
        changed = changed_fraction(before, after) if touched else 0.0
        kind = item.job.format or before.format
        is_changed = bool(changed) or after.alpha is not before.alpha
        copied = self._output_of is None and self._copies(
            before, kind, touched=touched, changed=is_changed, keep=bool(item.data)
        )
        if is_changed and not copied:
            done, error = steps_done(item.pages, item.steps), item.expected_error
            more = {} if error is None else {"expected_error": f"{error:.4f}"}
            after = self._with_note(after, item.steps, done, kind, item.notes, **more)
        return RenderedImage(after, kind, touched, changed, copied)

    def save(self, item: WorkItem) -> None:
        """Blend the repair into the image and write it, or copy the file if there is nothing to repair."""
        if self.recorder.summary.stopped == DISK_FULL:
            return
        started = time.monotonic()
        job, data = item.job, item.data
        try:
            rendered = self.render(item)
            if rendered.copied or self._output_of is not None:  # what decoding leaves out is not missing in the output
                item.notes = without_losses(item.notes, item.image)
            if not rendered.copied:
                after = without_metadata(rendered.image) if self.options.metadata == "strip" else rendered.image
                data, notes = encode(after, rendered.format, job.target, quality=self.options.quality)
                item.notes += [*notes_of_changes(item.sources, rendered.image), *notes]
            self._save_side(item)
            self._save_fills(item, rendered, data)
            resized = item.enlarged is not None or rendered.image.reoriented
            upright = None if rendered.copied or not resized else rendered.image.size
            self.save_sidecars(job, upright, item.notes, reoriented=rendered.image.reoriented)
            # Before the file is written, so that little lies between that and its record.
            digest = hashlib.sha256(data).hexdigest() if self.recorder.log.is_open else None
            if job.target == PIPE:
                from restore.fix.io import write_pipe

                write_pipe(data)
            else:
                write_atomically(job.target, data, like=item.stat, overwrite=self.overwrite)
        except Exception as error:
            self.recorder.fail(job, error)
            return
        self._record(
            job,
            item.steps,
            touched=rendered.touched,
            done=steps_done(item.pages, item.steps),
            copied=rendered.copied,
            notes=item.notes,
            seconds=item.seconds + time.monotonic() - started,
            damaged_fraction=item.damaged_fraction,
            mask_coverage=item.mask_coverage,
            expected_error=item.expected_error,
            input_sha256=item.input_sha256,
            output_sha256=digest,
            changed=rendered.changed,
            size=item.image.size,
            pixels=item.pixels,
        )

    def _save_fills(self, item: WorkItem, rendered: RenderedImage, copied: bytes) -> None:
        """Write the other fills, before the output itself, as `_save_side` does."""
        done = steps_done(item.pages, item.steps)
        for number, (target, image) in enumerate(zip(item.job.fill_targets, item.fills), start=1):
            data = copied
            if not rendered.copied:
                seed = {"seed": self.options.seed + number}
                after = self._with_note(image, item.steps, done, rendered.format, item.notes, **seed)
                after = without_metadata(after) if self.options.metadata == "strip" else after
                data, _ = encode(after, rendered.format, target, quality=self.options.quality)
            write_atomically(target, data, like=item.stat, overwrite=self.overwrite or self.options.skip_existing)
        if item.fills and all(np.array_equal(fill.pixels, rendered.image.pixels) for fill in item.fills):
            item.notes.append("all fills are the same: only deep holes can be filled in several ways")

    def _save_side(self, item: WorkItem) -> None:
        """Write the second outputs of an image, before the output itself: what is skipped later then has all."""
        from restore.fix.side_outputs import side_file

        job = item.job
        for target, image_of in ((job.side_target, self._side_of), (job.map_target, WorkItem.error_map)):
            image = None if target is None else image_of(item)
            if target is None or image is None:
                continue
            overwrite = self._overwrite_side if target is job.side_target else self.overwrite
            with side_file(target, overwrite=overwrite, notes=item.notes) as path:
                if path is not None:
                    path.write_bytes(encode(image, FORMAT_OF_SUFFIX[target.suffix], target)[0])

    def save_sidecars(
        self, job: Job, upright: tuple[int, int] | None, notes: list[str], *, reoriented: bool = True
    ) -> None:
        """Write the sidecars of an image, before the output itself, as `_save_side` does; see `write_sidecars`."""
        if job.sidecars:
            from restore.fix.sidecars import write_sidecars

            write_sidecars(job, upright, overwrite=self.overwrite, notes=notes, reoriented=reoriented)

    # All stages of an image that is too large for memory.

    def repair_in_parts(self, huge: HugeItem, network: int) -> WorkItem | None:
        """Take an image through all stages out of core. If it needs memory after all, load and return it.

        A video, which no memory holds, goes through them frame by frame.
        """
        if huge.job.video:
            from restore.fix.video import repair_video

            repair_video(self, huge.job, network)
            return None
        if huge.job.fill_targets or huge.job.map_target is not None:  # they are made in memory
            return self.reader.load_whole(huge.job)
        from restore.fix.grain import pixels_key
        from restore.fix.out_of_core import HoleTooLarge, open_page

        job, started = huge.job, time.monotonic()
        steps = self.reader.steps_of(job)
        enlarger = self.models[network].enlarger if steps.enlarge else None
        notes: list[str] = []
        with ExitStack() as until_recorded:
            try:
                with open_page(
                    job.source,
                    job.target,
                    self._mask_spec(job, steps),
                    format=job.format,
                    strength=self.options.strength,
                    scale=1 if enlarger is None else enlarger.requirements.scale,
                    max_pixels=self.options.max_pixels,
                    max_crop_pixels=self.reader.huge_pixels,
                    decoding=self.link.decoding(os.fspath(job.source)),
                ) as page:
                    if page is not None:
                        strips = page.source_strips
                        header = page.before.header
                        notes += notes_on_colors(self.models[network], steps, lambda: header.gray)
                        run_steps(
                            page, steps, self.models[network],
                            tile_of=self.tile_of, on_event=notes.append,
                            grain_key=(lambda: pixels_key(strips())) if self.options.match_grain else None,
                        )  # fmt: skip
                        if enlarger is not None:
                            restore_everywhere(page, enlarger, self.tile_of(enlarger), notes.append)
                            page.enlarged = True
                        until_recorded.enter_context(defer_signals())
                        facts = self._write_in_parts(job, page, steps, notes)
            except HoleTooLarge:
                page = None
            except DamagedFile as error:  # loading into memory has a second decoder and tolerates truncated files
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
        assert self.options.mask_dilate != "auto"  # such images are processed in memory, see `Reader.load`
        return MaskSpec(job.mask, self.plan.masks.invert, self.options.mask_dilate, self.options.mask_feather)

    def _write_in_parts(self, job: Job, page: SpooledPage, steps: Steps, notes: list[str]) -> dict[str, Any]:
        """Write an image out of core. Returns keyword arguments of `_record`."""
        from restore.fix.masks import coverage_warnings
        from restore.fix.out_of_core import write_mask, write_page
        from restore.fix.side_outputs import side_file

        before, header, done = page.before.header, page.after.header, steps_done([page], steps)
        kind, changed = job.format or before.format, page.changed_fraction()
        copy = self._copies(before, kind, touched=page.changed, changed=bool(changed), keep=is_lossy_reencode(before))
        if changed and not copy:
            header = self._with_note(header, steps, done, kind, notes)
        if page.has_mask:
            with side_file(job.side_target, overwrite=self._overwrite_side, notes=notes) as path:
                if path is not None:
                    write_mask(page, path)
        resized = before.reoriented or page.enlarged
        upright = None if copy or not resized else page.after.size
        self.save_sidecars(job, upright, notes, reoriented=before.reoriented)
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
            "done": done,
            "copied": copy,
            "notes": [
                *(notes_of_copy(before.notes) if copy else before.notes),
                *written,
                *coverage_warnings(page.mask_coverage or 0),
                *notes,
            ],
            "damaged_fraction": None,
            "mask_coverage": page.mask_coverage,
            "input_sha256": input_sha256,
            "output_sha256": output_sha256,
            "changed": changed,
            "size": page.size,
            "pixels": page.size[0] * page.size[1],
        }

    # The end of both ways.

    def _copies(self, source: DecodedImage, kind: str, *, touched: bool, changed: bool, keep: bool) -> bool:
        """Whether the output is a copy of the file.

        Args:
            source: the decoded image.
            kind: output format.
            touched: at least one step ran.
            changed: a step changed the image.
            keep: copying an unchanged image is at least as good as encoding it again.
        """
        if kind != source.format or self.options.metadata != "keep":
            return False
        return not touched or (keep and not changed and self.options.quality is None)

    def _with_note(
        self, image: DecodedImage, steps: Steps, done: Sequence[str], kind: str, notes: list[str], **more: Any
    ) -> DecodedImage:
        """Add a provenance note to the metadata of a changed image."""
        if not self.options.provenance or self.options.metadata == "strip":
            return image
        from restore.fix.provenance import with_provenance

        models = self.models[0]
        took_part = model_provenance(models, steps, done)["models"]
        network = models.restorer.sha256 if "fill_holes" in done and models.restorer is not None else None
        settings = self.recorder.settings | {"correct_fading": "correct_fading" in done} | more
        return with_provenance(image, took_part, settings, filled_by=network, kind=kind, notes=notes)

    def _record(
        self,
        job: Job,
        steps: Steps,
        *,
        touched: bool,
        done: list[str],
        copied: bool,
        notes: list[str],
        seconds: float,
        damaged_fraction: float | None,
        mask_coverage: float | None,
        input_sha256: str | None,
        output_sha256: str | None,
        changed: float,
        size: tuple[int, int],
        pixels: int,
        expected_error: float | None = None,
    ) -> None:
        """Record a finished image."""
        code: ReasonCode = "nothing_to_repair" if not touched else "nothing_changed" if copied else ""
        reason = {"nothing_changed": "nothing was changed", "nothing_to_repair": "nothing to repair"}.get(code, "")
        self.recorder.finish(
            job,
            "done",
            reason,
            code=code,
            size=size,
            seconds=seconds,
            **model_provenance(self.models[0], steps, done),
            steps=done,
            damaged_fraction=damaged_fraction,
            mask_coverage=mask_coverage,
            input_sha256=input_sha256,
            output_sha256=output_sha256,
            changed_fraction=changed,
            expected_error=expected_error,
            warnings=list(dict.fromkeys(notes)),  # tiles and steps may report the same
            pixels=pixels,
        )
