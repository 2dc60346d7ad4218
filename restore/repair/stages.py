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
from restore.repair.chain import Finder, Models, Outcome, Steps, carry_out, models_told, tiles_of
from restore.repair.loaded import FloatArray, Huge, Loaded, changed_share, opaque_where_repaired
from restore.repair.masks import doubts_of_share
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
        models: what repairs: the same on every device that takes part.
        options: how.
        ledger: is told every file's fate, once.
        watch: hears which files are in hand, and which of them are being decoded.
    """

    def __init__(
        self,
        plan: Plan,
        models: Sequence[Models],
        options: Options,
        ledger: Ledger,
        watch: Watch,
    ) -> None:
        self.plan, self.models = plan, models
        self.options, self.ledger, self.watch = options, ledger, watch
        self.reader = Reader(plan, models[0], options, ledger, watch)
        self.networks = len(models)
        # A run that was started again may have written a file that nobody has heard of.
        self.overwrite = plan.overwrite or bool(watch.past.plan)
        # Decided once, so that it does not hang on what else is in memory when a picture's turn comes.
        self._tiles = tiles_of(models, options.tile)

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
        steps, masks = self.reader.steps_of(job), self.plan.masks
        model = steps.only_model(self.models[network])
        mask = None
        if masks is not None and steps.masked:
            assert self.options.mask_dilate != "auto"  # these are in memory
            mask = MaskOf(job.mask, masks.invert, self.options.mask_dilate, self.options.mask_feather)
        with ExitStack() as until_told:
            notes: list[str] = []
            try:
                done = repair_in_parts(
                    job.source,
                    job.target,
                    model,
                    mask,
                    fade=steps.fade,
                    strength=self.options.strength,
                    match_grain=self.options.match_grain,
                    format=job.format,
                    tile_px=0 if model is None else self._tile_of(model),
                    quality=self.options.quality,
                    metadata=self.options.metadata,
                    max_pixels=self.options.max_pixels,
                    overwrite=self.overwrite,
                    decoding=self.watch.decoding(os.fspath(job.source)),
                    noted=lambda header, kind, model_ran: self._noted(
                        header, steps, kind, notes, filled=model_ran and steps.repair, cleaned=steps.clean_up
                    ),
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
            self.ledger.finish(
                job,
                "done",
                "nothing to repair" if not done.ran else "nothing was changed" if done.copied else "",
                seconds=time.monotonic() - started,
                **models_told(
                    self.models[0],
                    steps if done.ran else Steps(),
                    filled=done.model_ran and steps.repair,
                    cleaned=done.ran and steps.clean_up,
                ),
                marked_share=done.marked_share,
                input_sha256=done.input_sha256,
                output_sha256=done.output_sha256,
                changed_share=done.changed_share,
                warnings=list(dict.fromkeys([*done.notes, *doubts_of_share(done.marked_share or 0), *notes])),
                pixels=done.pixels,
            )
            return None

    def room_for(self, loaded: Loaded) -> int:
        """How many pictures like this one are repaired at once; 1: it goes alone."""
        from restore.repair.together import goes_whole, places

        model = loaded.steps.only_model(self.models[0])
        if model is None or loaded.picture.further:
            return 1
        count = places(model, *loaded.picture.size, self._tile_of(model))
        return count if count > 1 and goes_whole(model, _holes(loaded)) else 1

    def go_together(self, first: Loaded, other: Loaded) -> bool:
        """Whether a picture can be repaired along with one that there is room beside."""
        return (
            other.steps == first.steps
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
            if repaired is None and loaded.steps:
                try:
                    repaired = self.repair(loaded, network)
                except Exception as error:
                    self.ledger.fail(loaded.job, error)
                    continue
            yield loaded, repaired

    def _repair_together(self, group: Sequence[Loaded], network: int, room: int) -> list[FloatArray | None]:
        from restore.repair.together import repair_together

        started = time.monotonic()
        model = group[0].steps.only_model(self.models[network])
        assert model is not None
        holes = [weight for weight in map(_holes, group) if weight is not None]
        try:
            shown = [loaded.shown for loaded in group if loaded.shown is not None]
            keys = [self._grain_key(loaded.picture) for loaded in group]
            results = repair_together(model, shown, holes or None, room, keys)
        except Exception as error:  # alone, each picture succeeds or says what is wrong with it
            logger.debug("%d pictures at once: %s", len(group), error)
            return [None] * len(group)
        for loaded, result in zip(group, results):
            loaded.seconds += (time.monotonic() - started) / len(group)
            if result is not None:
                loaded.shown, loaded.filled, loaded.cleaned = None, loaded.steps.repair, loaded.steps.clean_up
                loaded.everywhere = loaded.steps.everywhere
        return results

    def repair(self, loaded: Loaded, network: int = 0) -> FloatArray | None:
        """Run the networks, in the caller's thread; None if there turned out to be nothing to repair, on any page.

        Raises:
            RestoreError, MemoryError, ...: it failed.
        """
        assert loaded.shown is not None
        started = time.monotonic()
        first = self._carry_out(loaded, loaded.picture, loaded.shown, loaded.weight, network)
        repaired, loaded.weight, loaded.shown = first.repaired, first.weight, None
        loaded.cleaned, loaded.everywhere = first.cleaned, first.everywhere
        pages = []
        for page, given in zip(loaded.picture.further, list(loaded.further_weights)):
            one = self._carry_out(loaded, page, self.reader.shown(page), given, network)
            pages.append(page if one.repaired is None else self._put_in(page, one.repaired, one.weight, one.everywhere))
            loaded.further_weights[len(pages) - 1] = one.weight
            loaded.filled |= one.filled
            loaded.cleaned |= one.cleaned
        loaded.further = tuple(pages)
        loaded.filled |= first.filled
        if repaired is None and (loaded.filled or loaded.cleaned):
            repaired = loaded.picture.shown()  # only a further page was repaired
        loaded.seconds += time.monotonic() - started
        return repaired

    def _carry_out(
        self, loaded: Loaded, page: Picture, shown: FloatArray, weight: FloatArray | None, network: int
    ) -> Outcome:
        return carry_out(
            self.models[network], loaded.steps, shown, weight,
            tile_of=self._tile_of, say=loaded.notes.append,
            dilate_px=self.options.mask_dilate, feather_px=self.options.mask_feather,
            grain_key=self._grain_key(page),
        )  # fmt: skip

    def _grain_key(self, page: Picture) -> int | None:
        from restore.repair.grain import pixels_key

        return pixels_key([page.pixels]) if self.options.match_grain else None

    def _tile_of(self, model: Restorer | Finder) -> int:
        return self._tiles[id(model)]

    def save(self, loaded: Loaded, repaired: FloatArray | None) -> None:
        """Put the repair into the picture and write it; copy the file where there was nothing to repair."""
        if self.ledger.summary.stopped == DISK_FULL:
            return
        started = time.monotonic()
        job, before = loaded.job, loaded.picture
        try:
            after, changed, kind = before, 0.0, job.format or before.format
            if repaired is not None:
                after = self._put_in(before, repaired, loaded.weight, loaded.everywhere)
                after = replace(after, further=loaded.further)
                changed = changed_share(before, after)
                if changed or after.alpha is not before.alpha:
                    after = self._noted(
                        after, loaded.steps, kind, loaded.notes, filled=loaded.filled, cleaned=loaded.cleaned
                    )
            data = loaded.data
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
        self.ledger.finish(
            job,
            "done",
            "nothing to repair" if repaired is None else "nothing was changed" if data is loaded.data else "",
            seconds=loaded.seconds + time.monotonic() - started,
            **models_told(self.models[0], loaded.steps, filled=loaded.filled, cleaned=loaded.cleaned),
            marked_share=loaded.marked_share,
            input_sha256=loaded.input_sha256,
            output_sha256=digest,
            changed_share=changed,
            warnings=list(dict.fromkeys(loaded.notes)),  # a tile or a turn that says what another one said
            pixels=loaded.pixels,
        )

    def _noted(
        self, picture: Picture, steps: Steps, kind: str, notes: list[str], *, filled: bool, cleaned: bool
    ) -> Picture:
        """A picture that was changed, with a note of it for its file."""
        from restore.repair.provenance import noted

        if not self.options.provenance or self.options.metadata == "strip":
            return picture
        one = self.models[0]
        told = models_told(one, steps, filled=filled, cleaned=cleaned)["models"]
        network = one.restorer.sha256 if filled and steps.masked else None
        return noted(picture, told, self.ledger.settings, filled_by=network, kind=kind, notes=notes)

    def _put_in(self, picture: Picture, repaired: FloatArray, weight: FloatArray | None, everywhere: bool) -> Picture:
        where = None if everywhere else weight
        after = picture.with_repaired(repaired, where, strength=self.options.strength)
        if self.plan.masks is not None and self.plan.masks.alpha:
            after = opaque_where_repaired(after, weight)
        return after


def _holes(loaded: Loaded) -> FloatArray | None:
    """Where the model that a picture goes through alone is to fill; None everywhere."""
    return loaded.weight if loaded.steps.repair else None
