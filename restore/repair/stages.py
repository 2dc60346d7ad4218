"""The three stages of a picture: decode, restore, encode. Each ends with a result or a fate told."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from restore.images import Picture
from restore.images.decoded import Damaged
from restore.interrupts import unbroken
from restore.repair.loaded import FloatArray, Huge, Loaded, changed_share, opaque_where_repaired
from restore.repair.options import Options
from restore.repair.outputs import encoded
from restore.repair.pipes import put
from restore.repair.plan import Job, Plan
from restore.repair.reading import Reader
from restore.repair.summary import DISK_FULL, Ledger
from restore.supervise import Watch

if TYPE_CHECKING:
    from restore.restorers.base import Restorer

logger = logging.getLogger(__name__)


class Stages:
    """What happens to each picture of a run.

    Args:
        plan: the run's.
        restorers: repair: the same one on every device that takes part.
        clean_restorers: repair what has no mask and counts as clean, likewise; empty: such pictures are copied.
        options: how.
        ledger: is told every file's fate, once.
        watch: hears which files are in hand, and which of them are being decoded.
    """

    def __init__(
        self,
        plan: Plan,
        restorers: Sequence[Restorer],
        clean_restorers: Sequence[Restorer],
        options: Options,
        ledger: Ledger,
        watch: Watch,
    ) -> None:
        self.plan, self.restorer = plan, restorers[0]
        self.clean_restorer = clean_restorers[0] if clean_restorers else None
        self.options, self.ledger, self.watch = options, ledger, watch
        self.reader = Reader(plan, self.restorer, self.clean_restorer, options, ledger, watch)
        self.networks = len(restorers)
        # A run that was started again may have written a file that nobody has heard of.
        self.overwrite = plan.overwrite or bool(watch.past.plan)
        self._twins = {id(twins[0]): twins for twins in (restorers, clean_restorers) if twins}
        # Decided once, so that it does not hang on what else is in memory when a picture's turn comes.
        self.tiles = {
            key: min(_auto_tile(one) for one in twins) if str(options.tile) == "auto" else int(options.tile)
            for key, twins in self._twins.items()
        }

    def carry_through(self, jobs: Sequence[Job]) -> None:
        """One job after the other through all stages, in the caller's thread."""
        for job in jobs:
            loaded = self.reader.load(job)
            if isinstance(loaded, Huge):
                loaded = self.repair_in_parts(loaded, 0)
            for one, repaired in self.repair_group([loaded] if loaded else [], 0):
                self.save(one, repaired)

    def repair_in_parts(self, huge: Huge, network: int) -> Loaded | None:
        """All three stages of a picture that is not held in memory; what has to be is loaded, and returned."""
        from restore.repair.huge import repair_in_parts
        from restore.repair.huge_masks import MaskOf

        job, started = huge.job, time.monotonic()
        restorer, masks = self.reader.restorer_of(job), self.plan.masks
        mask = None
        if masks is not None and self.reader.is_masked(job):
            mask = MaskOf(job.mask, masks.invert, self.options.mask_dilate, self.options.mask_feather)
        with ExitStack() as until_told:
            notes: list[str] = []
            try:
                done = repair_in_parts(
                    job.source,
                    job.target,
                    None if restorer is None else self._twins[id(restorer)][network],
                    mask,
                    format=job.format,
                    tile_px=0 if restorer is None else self.tiles[id(restorer)],
                    quality=self.options.quality,
                    metadata=self.options.metadata,
                    max_pixels=self.options.max_pixels,
                    overwrite=self.overwrite,
                    decoding=self.watch.decoding(os.fspath(job.source)),
                    say=notes.append,
                    about_to_write=lambda: until_told.enter_context(unbroken()),
                )
            except Damaged as error:  # in memory there is a second decoder, and one that takes what is there
                return self.reader.load_whole(job, unless_too_large=error)
            except Exception as error:
                self.ledger.fail(job, self.reader.with_option(error))
                return None
            if done is None:
                return self.reader.load_whole(job)
            ran = restorer if done.ran else None
            self.ledger.finish(
                job,
                "done",
                "nothing to repair" if ran is None else "nothing was changed" if done.copied else "",
                seconds=time.monotonic() - started,
                model=None if ran is None else ran.name,
                model_sha256=None if ran is None else ran.sha256,
                input_sha256=done.input_sha256,
                output_sha256=done.output_sha256,
                changed_share=done.changed_share,
                warnings=[*done.notes, *notes],
                pixels=done.pixels,
            )
            return None

    def room_for(self, loaded: Loaded) -> int:
        """How many pictures like this one are repaired at once; 1: it goes alone."""
        from restore.repair.together import goes_whole, places

        if loaded.restorer is None or loaded.picture.further:
            return 1
        count = places(loaded.restorer, *loaded.picture.size, self.tiles[id(loaded.restorer)])
        return count if count > 1 and goes_whole(loaded.restorer, loaded.weight) else 1

    def go_together(self, first: Loaded, other: Loaded) -> bool:
        """Whether a picture can be repaired along with one that there is room beside."""
        return (
            other.restorer is first.restorer
            and other.picture.size == first.picture.size
            and (other.weight is None) == (first.weight is None)
            and self.room_for(other) > 1
        )

    def repair_group(self, group: Sequence[Loaded], network: int) -> Iterator[tuple[Loaded, FloatArray | None]]:
        """Run one of the networks, in the caller's thread.

        Args:
            group: some that `go_together`, mostly one.
            network: on which of the devices.

        Yields:
            What is to be saved: pictures, each with its repair, or None where there is nothing to repair. Those that
            failed are left out.
        """
        together: list[FloatArray | None] = [None] * len(group)
        room = self.room_for(group[0]) if group else 1
        if room > 1:
            together = self._repair_together(group, network, room)
        for loaded, repaired in zip(group, together):
            if repaired is None:
                repaired = self.repair(loaded, network)
            if repaired is not None or loaded.restorer is None:
                yield loaded, repaired

    def _repair_together(self, group: Sequence[Loaded], network: int, room: int) -> list[FloatArray | None]:
        from restore.repair.together import repair_together

        first = group[0]
        started = time.monotonic()
        try:
            results = repair_together(
                self._twins[id(first.restorer)][network],
                [loaded.shown for loaded in group if loaded.shown is not None],
                None if first.weight is None else [loaded.weight for loaded in group if loaded.weight is not None],
                room,
            )
        except Exception as error:  # alone, each picture succeeds or says what is wrong with it
            logger.debug("%d pictures at once: %s", len(group), error)
            return [None] * len(group)
        for loaded, result in zip(group, results):
            loaded.seconds += (time.monotonic() - started) / len(group)
            if result is not None:
                loaded.shown = None
        return results

    def repair(self, loaded: Loaded, network: int = 0) -> FloatArray | None:
        """Run the network, in the caller's thread; None if there is nothing to repair, or it failed."""
        from restore.repair.apply import repair

        if loaded.restorer is None or loaded.shown is None:
            return None
        started = time.monotonic()
        try:
            one = self._twins[id(loaded.restorer)][network]
            tile = self.tiles[id(loaded.restorer)]
            repaired = repair(one, loaded.shown, loaded.weight, tile_px=tile, say=loaded.notes.append)
            loaded.further = tuple(
                self._put_in(page, repair(one, page.shown(), weight, tile_px=tile, say=loaded.notes.append), weight)
                for page, weight in zip(loaded.picture.further, loaded.further_weights)
            )
        except Exception as error:
            self.ledger.fail(loaded.job, error)
            return None
        loaded.shown = None
        loaded.seconds += time.monotonic() - started
        return repaired

    def save(self, loaded: Loaded, repaired: FloatArray | None) -> None:
        """Put the repair into the picture and write it; copy the file where there was nothing to repair."""
        if self.ledger.summary.stopped == DISK_FULL:
            return
        started = time.monotonic()
        job, before = loaded.job, loaded.picture
        try:
            after, changed = before, 0.0
            if repaired is not None:
                after = replace(self._put_in(before, repaired, loaded.weight), further=loaded.further)
                changed = changed_share(before, after)
            data, kind = loaded.data, job.format or before.format
            same = repaired is None or (
                bool(data) and changed == 0 and after.alpha is before.alpha and self.options.quality is None
            )
            if not same or kind != before.format or self.options.metadata != "keep":
                data, notes = encoded(
                    after,
                    job.target,
                    format=kind,
                    quality=self.options.quality,
                    metadata=self.options.metadata,
                )
                loaded.notes += notes
            put(job.target, data, like=loaded.stat, overwrite=self.overwrite)
            digest = hashlib.sha256(data).hexdigest() if self.ledger.manifest.is_open else None
        except Exception as error:
            self.ledger.fail(job, error)
            return
        ran = None if repaired is None else loaded.restorer
        self.ledger.finish(
            job,
            "done",
            "nothing to repair" if ran is None else "nothing was changed" if data is loaded.data else "",
            seconds=loaded.seconds + time.monotonic() - started,
            model=None if ran is None else ran.name,
            model_sha256=None if ran is None else ran.sha256,
            input_sha256=loaded.input_sha256,
            output_sha256=digest,
            changed_share=changed,
            warnings=loaded.notes,
            pixels=loaded.pixels,
        )

    def _put_in(self, picture: Picture, repaired: FloatArray, weight: FloatArray | None) -> Picture:
        after = picture.with_repaired(repaired, weight)
        if self.plan.masks is not None and self.plan.masks.alpha:
            after = opaque_where_repaired(after, weight)
        return after


def _auto_tile(restorer: Restorer) -> int:
    from restore.tiling import auto_tile

    return auto_tile(
        1 << 20,
        1 << 20,
        device=restorer.device,
        overlap_px=restorer.needs.overlap_px,
        bytes_per_pixel=restorer.bytes_per_pixel,
    )
