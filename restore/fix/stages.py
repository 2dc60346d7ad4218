"""The three stages of a picture: decode, restore, encode. Each ends with a result or a fate told."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from restore.fix.decoder_isolation import SupervisorLink
from restore.fix.fade_correction import unfaded
from restore.fix.io import encoded, put, take
from restore.fix.masks import doubts_of_share, effective_mask, mask_warnings
from restore.fix.options import FixOptions
from restore.fix.plan import PIPE, FixPlan, Job
from restore.fix.results import DISK_FULL, ResultRecorder
from restore.fix.steps import Finder, Models, RepairResult, Steps, carry_out, model_provenance, tiles_of
from restore.images import IMAGE_SUFFIXES, DecodedImage, NotAnImage, image_from_bytes
from restore.images.decode import DamagedFile, ImageTooLarge, check_bytes
from restore.signals import defer_signals

if TYPE_CHECKING:
    from restore.restorers.base import Restorer


# A picture on its way through the stages, and what became of it.


FloatArray = npt.NDArray[np.float32]


@dataclass
class WorkItem:
    """A picture on its way through the stages.

    Attributes:
        job: what is to happen to it.
        data: the file, where it may be copied; else empty.
        picture: decoded.
        stat: the file's, when it was read; None of a pipe.
        steps: what is done to it.
        shown, weight: what the first model gets; the weight, also where it was found on the way, is the picture's mask.
        input_sha256: of the file, where there is a log.
        notes: what the user should know, growing on the way.
        seconds: spent on it so far.
        further_weights: where to repair the further pages of a TIFF; None everywhere.
        further: these pages, repaired.
        filled: the restorer ran, on some page.
        cleaned: so did what cleans up, and its work was taken.
        everywhere: known pixels of the first page changed, too.
    """

    job: Job
    data: bytes
    picture: DecodedImage
    stat: os.stat_result | None
    steps: Steps
    shown: FloatArray | None
    weight: FloatArray | None
    input_sha256: str | None
    notes: list[str]
    seconds: float
    further_weights: list[FloatArray | None] = field(default_factory=list)
    extra_pages: tuple[DecodedImage, ...] = ()
    filled: bool = False
    cleaned: bool = False
    everywhere: bool = False

    @property
    def pixels(self) -> int:
        """Its size, with all pages."""
        return sum(page.size[0] * page.size[1] for page in (self.picture, *self.picture.extra_pages))

    @property
    def marked_share(self) -> float | None:
        """Of all pixels, on all pages, those that a mask marks; None without masks."""
        weights = [self.weight, *self.further_weights]
        marked = [int(np.count_nonzero(weight)) for weight in weights if weight is not None]
        return sum(marked) / self.pixels if len(marked) == len(weights) else None


@dataclass(frozen=True)
class Huge:
    """A picture that is not held in memory: it goes through all stages in bands when its turn comes."""

    job: Job
    pixels: int = 0


def is_lossy_reencode(picture: DecodedImage) -> bool:
    """Whether writing it again would cost quality, and it is in its file as it goes out: then, where the model
    changed nothing, the file itself is the better output.
    """
    lossy = picture.format == "jpeg" or picture.compression == "lossy"
    return lossy and not picture.reoriented and not picture.notes


def opaque_where_repaired(picture: DecodedImage, weight: FloatArray | None) -> DecodedImage:
    """Alpha said where to repair, and has done its work: left transparent, the repair could not be seen."""
    if picture.alpha is None or weight is None:
        return picture
    alpha = picture.alpha.copy()
    alpha[weight > 0] = picture.white
    return replace(picture, alpha=alpha)


def changed_share(before: DecodedImage, after: DecodedImage) -> float:
    """Of all pixels, on all pages."""
    count, total = 0, 0
    for old, new in zip((before, *before.extra_pages), (after, *after.extra_pages)):
        if old.pixels.shape != new.pixels.shape:
            return 1.0
        changed = old.pixels[:, :, 0] != new.pixels[:, :, 0]
        for channel in range(1, old.pixels.shape[2]):
            changed |= old.pixels[:, :, channel] != new.pixels[:, :, channel]
        count, total = count + int(np.count_nonzero(changed)), total + changed.size
    return count / total


# The first stage of a picture: read, with its mask, and its fate settled where that is all there is to it.


_PIXEL_BYTES = 40  # of a picture in memory: its own values, what a network is shown, and what comes out


class Reader:
    """What reads the pictures of a run; see `Stages`."""

    def __init__(
        self,
        plan: FixPlan,
        models: Models,
        options: FixOptions,
        ledger: ResultRecorder,
        watch: SupervisorLink,
    ) -> None:
        self.plan, self.models = plan, models
        self.options, self.ledger, self.watch = options, ledger, watch

    def load(self, job: Job) -> WorkItem | Huge | None:
        """Read a picture and its mask; None if that already decided its fate."""
        from restore.fix.out_of_core import goes_in_parts, is_huge

        name = os.fspath(job.source)
        self.watch.begin(name)
        steps = self.steps_of(job)
        # how far a mask is widened is a matter of all that a hole lies in
        to_parts = goes_in_parts(self.models, steps) and not (steps.masked and self.options.mask_dilate == "auto")
        if PIPE not in (job.source, job.target) and to_parts:
            with self.watch.decoding(name):  # a header can be hostile too
                huge = is_huge(job.source)
            if huge:
                return Huge(job)
        return self.load_whole(job)

    def steps_of(self, job: Job, *, holes: bool = True) -> Steps:
        """What is done to a job's picture, as far as the plan tells; `holes`: there are some, as far as is known."""
        if self.options.strength == 0:
            return Steps()
        masks, unmasked = self.plan.masks, job.action == "unmasked"
        found = masks is not None and masks.found
        return Steps(
            fade=self.options.correct_fading,
            find=found,
            repair=holes and not unmasked,
            clean_up=self.models.clean_up is not None,
            masked=masks is not None and not unmasked,
            spare_clean=self.options.spare_clean and found,
        )

    def to_srgb(self, picture: DecodedImage) -> FloatArray:
        """What the first model sees of a picture: H×W×3, sRGB, [0, 1]."""
        shown = picture.to_srgb()
        return unfaded(shown) if self.options.correct_fading else shown

    def load_whole(self, job: Job, *, unless_too_large: Exception | None = None) -> WorkItem | None:
        """As `load`, into memory whatever its size; where that is too small, it fails with `unless_too_large`."""
        started, name = time.monotonic(), os.fspath(job.source)
        try:
            if job.source != PIPE:
                check_bytes(os.stat(job.source).st_size, self.options.max_pixels, job.source)
            data, stat = take(job.source)
            with self.watch.decoding(name):
                picture = image_from_bytes(
                    data,
                    job.source,
                    max_pixels=min(self.options.max_pixels, _pixels_for_memory()),
                    truncated="accept" if self.options.allow_truncated else "fail",
                    all_pages=job.format in (None, "tiff"),
                )
            masks = self.plan.masks
            if masks is not None and masks.alpha and picture.alpha is None:
                job = replace(job, **masks.when_missing())
            if job.action in ("skip", "fail"):
                self.ledger.finish(job, "skipped" if job.action == "skip" else "failed", job.reason)
                return None
            notes: list[str] = []
            weights: list[FloatArray | None] = [None] * (1 + len(picture.extra_pages))
            steps = self.steps_of(job)
            if steps.masked and not steps.find:
                assert masks is not None
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
                        for page in (picture, *picture.extra_pages)
                    ]
                strongest = max(float(weight.max(initial=0)) for weight in given)
                steps = self.steps_of(job, holes=strongest > 0)
                notes += mask_warnings(given)
                weights = [*given]
            return WorkItem(
                job,
                data
                if not steps
                or (steps.find and (steps.spare_clean or not steps.everywhere))
                or is_lossy_reencode(picture)
                else b"",
                picture,
                stat,
                steps,
                self.to_srgb(picture) if steps else None,
                weights[0],
                hashlib.sha256(data).hexdigest() if self.ledger.manifest.is_open else None,
                [*picture.notes, *notes],
                time.monotonic() - started,
                weights[1:],
            )
        except NotAnImage as error:
            # A stranger in a folder is passed over; a file that was asked for by name is not.
            if self.plan.single:
                self.ledger.finish(job, "failed", error.what)
            else:
                said = job.source.suffix.lower() in IMAGE_SUFFIXES  # it should have been one
                self.ledger.finish(job, "skipped", error.what, warnings=[f"skipped: {error.what}"] if said else [])
        except ImageTooLarge as error:
            self.ledger.fail(job, self.with_option(unless_too_large or error))
        except Exception as error:
            self.ledger.fail(job, self.with_option(error))
        return None

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


def _pixels_for_memory() -> int:
    """The largest picture that can be in memory as a whole while it is repaired."""
    from restore.tiling import free_memory, half_of_memory

    return max(free_memory("cpu"), half_of_memory()) // _PIXEL_BYTES


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
        plan: FixPlan,
        models: Sequence[Models],
        options: FixOptions,
        ledger: ResultRecorder,
        watch: SupervisorLink,
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

    def repair_in_parts(self, huge: Huge, network: int) -> WorkItem | None:
        """All three stages of a picture that is not held in memory; what has to be is loaded, and returned."""
        from restore.fix.out_of_core import MaskSpec, repair_in_parts

        job, started = huge.job, time.monotonic()
        steps, masks = self.reader.steps_of(job), self.plan.masks
        model = steps.only_model(self.models[network])
        mask = None
        if masks is not None and steps.masked:
            assert self.options.mask_dilate != "auto"  # these are in memory
            mask = MaskSpec(job.mask, masks.invert, self.options.mask_dilate, self.options.mask_feather)
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
                    on_event=notes.append,
                    about_to_write=lambda: until_told.enter_context(defer_signals()),
                )
            except DamagedFile as error:  # in memory there is a second decoder, and one that takes what is there
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
                **model_provenance(
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

    def room_for(self, loaded: WorkItem) -> int:
        """How many pictures like this one are repaired at once; 1: it goes alone."""
        from restore.fix.steps import goes_whole, places

        model = loaded.steps.only_model(self.models[0])
        if model is None or loaded.picture.extra_pages:
            return 1
        count = places(model, *loaded.picture.size, self._tile_of(model))
        return count if count > 1 and goes_whole(model, _holes(loaded)) else 1

    def go_together(self, first: WorkItem, other: WorkItem) -> bool:
        """Whether a picture can be repaired along with one that there is room beside."""
        return (
            other.steps == first.steps
            and other.picture.size == first.picture.size
            and (other.weight is None) == (first.weight is None)
            and self.room_for(other) > 1
        )

    def repair_group(self, group: Sequence[WorkItem], network: int) -> Iterator[tuple[WorkItem, FloatArray | None]]:
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

    def _repair_together(self, group: Sequence[WorkItem], network: int, room: int) -> list[FloatArray | None]:
        from restore.fix.steps import repair_together

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

    def repair(self, loaded: WorkItem, network: int = 0) -> FloatArray | None:
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
        for page, given in zip(loaded.picture.extra_pages, list(loaded.further_weights)):
            one = self._carry_out(loaded, page, self.reader.to_srgb(page), given, network)
            pages.append(page if one.repaired is None else self._put_in(page, one.repaired, one.weight, one.everywhere))
            loaded.further_weights[len(pages) - 1] = one.weight
            loaded.filled |= one.filled
            loaded.cleaned |= one.cleaned
        loaded.extra_pages = tuple(pages)
        loaded.filled |= first.filled
        if repaired is None and (loaded.filled or loaded.cleaned):
            repaired = loaded.picture.to_srgb()  # only a further page was repaired
        loaded.seconds += time.monotonic() - started
        return repaired

    def _carry_out(
        self, loaded: WorkItem, page: DecodedImage, shown: FloatArray, weight: FloatArray | None, network: int
    ) -> RepairResult:
        return carry_out(
            self.models[network], loaded.steps, shown, weight,
            tile_of=self._tile_of, on_event=loaded.notes.append,
            dilate_px=self.options.mask_dilate, feather_px=self.options.mask_feather,
            grain_key=self._grain_key(page),
        )  # fmt: skip

    def _grain_key(self, page: DecodedImage) -> int | None:
        from restore.fix.grain import pixels_key

        return pixels_key([page.pixels]) if self.options.match_grain else None

    def _tile_of(self, model: Restorer | Finder) -> int:
        return self._tiles[id(model)]

    def save(self, loaded: WorkItem, repaired: FloatArray | None) -> None:
        """Put the repair into the picture and write it; copy the file where there was nothing to repair."""
        if self.ledger.summary.stopped == DISK_FULL:
            return
        started = time.monotonic()
        job, before = loaded.job, loaded.picture
        try:
            after, changed, kind = before, 0.0, job.format or before.format
            if repaired is not None:
                after = self._put_in(before, repaired, loaded.weight, loaded.everywhere)
                after = replace(after, extra_pages=loaded.extra_pages)
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
            **model_provenance(self.models[0], loaded.steps, filled=loaded.filled, cleaned=loaded.cleaned),
            marked_share=loaded.marked_share,
            input_sha256=loaded.input_sha256,
            output_sha256=digest,
            changed_share=changed,
            warnings=list(dict.fromkeys(loaded.notes)),  # a tile or a turn that says what another one said
            pixels=loaded.pixels,
        )

    def _noted(
        self, picture: DecodedImage, steps: Steps, kind: str, notes: list[str], *, filled: bool, cleaned: bool
    ) -> DecodedImage:
        """A picture that was changed, with a note of it for its file."""
        from restore.fix.provenance import noted

        if not self.options.provenance or self.options.metadata == "strip":
            return picture
        one = self.models[0]
        told = model_provenance(one, steps, filled=filled, cleaned=cleaned)["models"]
        network = one.restorer.sha256 if filled and steps.masked else None
        return noted(picture, told, self.ledger.settings, filled_by=network, kind=kind, notes=notes)

    def _put_in(
        self, picture: DecodedImage, repaired: FloatArray, weight: FloatArray | None, everywhere: bool
    ) -> DecodedImage:
        where = None if everywhere else weight
        after = picture.blend(repaired, where, strength=self.options.strength)
        if self.plan.masks is not None and self.plan.masks.alpha:
            after = opaque_where_repaired(after, weight)
        return after


def _holes(loaded: WorkItem) -> FloatArray | None:
    """Where the model that a picture goes through alone is to fill; None everywhere."""
    return loaded.weight if loaded.steps.repair else None
