"""The stages of an image: decode (`restore.fix.reader`), repair, write (`restore.fix.writer`)."""

from __future__ import annotations

import copy
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from restore import progress
from restore.fix.decoder_isolation import SupervisorLink
from restore.fix.jobs import Job
from restore.fix.options import FixOptions
from restore.fix.pages import MemoryPage
from restore.fix.plan import FixPlan
from restore.fix.reader import HugeItem, Reader, WorkItem
from restore.fix.results import ResultRecorder
from restore.fix.sensitivity import less_sensitive
from restore.fix.steps import (
    Detector,
    Models,
    Steps,
    correct_fading,
    enlarged,
    notes_on_colors,
    restore_everywhere,
    run_steps,
    tiles_of,
)
from restore.fix.writer import Writer
from restore.images import DecodedImage
from restore.images.decoder_output import DamagedFile
from restore.signals import defer_signals

if TYPE_CHECKING:
    from restore.fix.out_of_core import MaskSpec
    from restore.restorers.base import Restorer

logger = logging.getLogger(__name__)

FloatArray = npt.NDArray[np.float32]

MUCH_DAMAGE = 0.3
"""More damage than this fraction of an image causes a warning: the detector has probably mistaken its content."""


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
        # Computed once, so tiles do not depend on other data in memory when an image's turn comes.
        self._tiles = tiles_of(models, options.tile)
        # Before a restart, the worker may have written a file without recording its result.
        overwrite = plan.overwrite or bool(link.past.plan)
        self.writer = Writer(
            plan, models[0], options, recorder, overwrite=overwrite, output_of=output_of, side_of=side_of
        )

    def run_serially(self, jobs: Iterable[Job]) -> None:
        """Take one job after the other through all stages, in the caller's thread."""
        for job in jobs:
            item = self.reader.load(job)
            if isinstance(item, HugeItem):
                item = self.repair_in_parts(item, 0)
            for repaired in self.repair_group([item] if item else [], 0):
                self.writer.save(repaired)

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
                    dilate_px=self.options.dilate, feather_px=self.options.mask_feather,
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
                extra_pages.append(self.writer.output(source, page))
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
        """The image with another fill: its pages before the repair, with their masks, go through the steps again."""
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
            outputs.append(self.writer.output(source, page))
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

    def _enlarged(self, source: DecodedImage, page: MemoryPage, network: int, notes: list[str]) -> DecodedImage:
        """The output of a page, enlarged."""
        enlarger = self.models[network].enlarger
        assert enlarger is not None
        return enlarged(page, self.writer.output(source, page), enlarger, self.tile_of(enlarger), notes.append)

    def grain_key(self, source: DecodedImage) -> Callable[[], int] | None:
        """The key for the grain of an image; None: it gets none. See `run_steps`."""
        if not self.options.match_grain:
            return None
        from restore.fix.grain import pixels_key

        return lambda: pixels_key([source.pixels])

    def tile_of(self, model: Restorer | Detector) -> int:
        """The largest side of a tile for a model."""
        return self._tiles[id(model)]

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
                        facts = self.writer.write_in_parts(job, page, steps, notes)
            except HoleTooLarge:
                page = None
            except DamagedFile as error:  # loading into memory has a second decoder and tolerates truncated files
                return self.reader.load_whole(job, unless_too_large=error)
            except Exception as error:
                self.recorder.fail(job, self.reader.with_option(error))
                return None
            if page is not None:
                self.writer.record(job, steps, seconds=time.monotonic() - started, **facts)
                return None
        return self.reader.load_whole(job)

    def _mask_spec(self, job: Job, steps: Steps) -> MaskSpec | None:
        from restore.fix.out_of_core import MaskSpec

        if not steps.masked:
            return None
        assert self.plan.masks is not None
        dilate = self.options.dilate
        assert not isinstance(dilate, str)  # such images are processed in memory, see `Reader.load`
        return MaskSpec(job.mask, self.plan.masks.invert, dilate, self.options.mask_feather)
