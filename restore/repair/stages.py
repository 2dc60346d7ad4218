"""The three stages of a picture: decode, restore, encode. Each ends with a result or a fate told."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from restore.images import NotAPicture, Picture, picture_from_bytes
from restore.images.decoded import Damaged, TooLarge, check_bytes
from restore.repair.loaded import FloatArray, Huge, Loaded, changed_share, opaque_where_repaired, would_suffer
from restore.repair.masks import effective_mask
from restore.repair.options import Options
from restore.repair.outputs import encoded
from restore.repair.pipes import put, take
from restore.repair.plan import Job, Plan
from restore.repair.summary import DISK_FULL, Ledger
from restore.repair.targets import PIPE
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
        self.networks = len(restorers)
        self._twins = {id(twins[0]): twins for twins in (restorers, clean_restorers) if twins}
        # Decided once, so that it does not hang on what else is in memory when a picture's turn comes.
        self.tiles = {
            key: min(_auto_tile(one) for one in twins) if str(options.tile) == "auto" else int(options.tile)
            for key, twins in self._twins.items()
        }

    def carry_through(self, jobs: Sequence[Job]) -> None:
        """One job after the other through all stages, in the caller's thread."""
        for job in jobs:
            loaded = self.load(job)
            if isinstance(loaded, Huge):
                loaded = self.repair_in_bands(loaded, 0)
            for one, repaired in self.repair_group([loaded] if loaded else [], 0):
                self.save(one, repaired)

    def load(self, job: Job) -> Loaded | Huge | None:
        """Read a picture and its mask; None if that already decided its fate."""
        from restore.repair.huge import goes_in_bands, is_huge

        name = os.fspath(job.source)
        self.watch.begin(name)
        if PIPE not in (job.source, job.target) and self.plan.masks is None and goes_in_bands(self.restorer):
            with self.watch.decoding(name):  # a header can be hostile too
                huge = is_huge(job.source)
            if huge:
                return Huge(job)
        return self._load(job)

    def repair_in_bands(self, huge: Huge, network: int) -> Loaded | None:
        """All three stages of a picture that is not held in memory; what has to be is loaded, and returned."""
        from restore.repair.huge import repair_in_bands

        job, started = huge.job, time.monotonic()
        notes: list[str] = []
        try:
            done = repair_in_bands(
                job.source,
                job.target,
                self._twins[id(self.restorer)][network],
                format=job.format,
                tile_px=self.tiles[id(self.restorer)],
                quality=self.options.quality,
                metadata=self.options.metadata,
                max_pixels=self.options.max_pixels,
                decoding=self.watch.decoding(os.fspath(job.source)),
                say=notes.append,
            )
        except Damaged as error:
            if self.options.truncated == "accept":  # what is there of it is found out in memory, and said
                return self._load(job)
            self.ledger.fail(job, self._with_option(error))
            return None
        except Exception as error:
            self.ledger.fail(job, self._with_option(error))
            return None
        if done is None:
            return self._load(job)
        self.ledger.finish(
            job,
            "done",
            "",
            seconds=time.monotonic() - started,
            model=self.restorer.name,
            model_sha256=self.restorer.sha256,
            input_sha256=done.input_sha256,
            output_sha256=done.output_sha256,
            changed_share=done.changed_share,
            warnings=[*done.notes, *notes],
            pixels=done.pixels,
        )
        return None

    def _load(self, job: Job) -> Loaded | None:
        started, name = time.monotonic(), os.fspath(job.source)
        try:
            if job.source != PIPE:
                check_bytes(os.stat(job.source).st_size, self.options.max_pixels, job.source)
            data, stat = take(job.source)
            with self.watch.decoding(name):
                picture = picture_from_bytes(
                    data,
                    job.source,
                    max_pixels=self.options.max_pixels,
                    truncated=self.options.truncated,
                    all_pages=job.format in (None, "tiff"),
                )
            masks = self.plan.masks
            if masks is not None and masks.alpha and picture.alpha is None:
                job = replace(job, **masks.when_missing())
            if job.action in ("skip", "fail"):
                self.ledger.finish(job, "skipped" if job.action == "skip" else "failed", job.reason)
                return None
            weights: list[FloatArray | None] = [None] * (1 + len(picture.further))
            restorer: Restorer | None = self.restorer
            if job.action == "unmasked":
                restorer = self.clean_restorer
            elif masks is not None:
                with self.watch.decoding(name):
                    given = [
                        effective_mask(
                            page,
                            job.mask,
                            invert=masks.invert,
                            dilate_px=self.options.mask_dilate,
                            feather_px=self.options.mask_feather,
                            max_pixels=self.options.max_pixels,
                        )
                        for page in (picture, *picture.further)
                    ]
                restorer = self.restorer if any(weight.any() for weight in given) else None
                weights = [*given]
            return Loaded(
                job,
                data if restorer is None or would_suffer(picture) else b"",
                picture,
                stat,
                restorer,
                None if restorer is None else picture.shown(),
                weights[0],
                hashlib.sha256(data).hexdigest() if self.ledger.manifest.is_open else None,
                list(picture.notes),
                time.monotonic() - started,
                weights[1:],
            )
        except NotAPicture as error:
            # A stranger in a folder is passed over; a file that was asked for by name is not.
            self.ledger.finish(job, "failed" if self.plan.single else "skipped", error.what)
        except Exception as error:
            self.ledger.fail(job, self._with_option(error))
        return None

    def _with_option(self, error: Exception) -> Exception:
        """What is refused unless an option says otherwise names that option."""
        if isinstance(error, TooLarge) and error.pixels:
            error.hint = f"if the file can be trusted: --max-pixels {error.pixels}"
        elif isinstance(error, Damaged) and self.options.truncated == "fail":
            error.hint = "the file is damaged or cut short; --truncated accept takes what is there"
        return error

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
            put(job.target, data, like=loaded.stat)
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
