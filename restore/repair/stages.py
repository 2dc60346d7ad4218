"""The three stages of a picture: decode, restore, encode. Each ends with a result or a fate told."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from restore.errors import RestoreError
from restore.files import write_atomically
from restore.images import NotAPicture, Picture, picture_from_bytes, read_bytes
from restore.repair.masks import effective_mask
from restore.repair.outputs import Metadata, encoded
from restore.repair.plan import Job, Plan
from restore.repair.summary import Ledger

if TYPE_CHECKING:
    from restore.restorers.base import Restorer

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Options:
    """How pictures are repaired and written; see `run_fix`."""

    mask_dilate: int = 0
    mask_feather: int = 0
    tile: str | int = "auto"
    quality: int | None = None
    metadata: Metadata = "keep"

    def __post_init__(self) -> None:
        for name, value, limit in (("dilate", self.mask_dilate, 500), ("feather", self.mask_feather, 500)):
            if not 0 <= value <= limit:
                raise RestoreError(f"{value} is out of range", where=f"--mask-{name}", hint=f"0 to {limit} pixels")
        if str(self.tile) != "auto" and not str(self.tile).isdecimal():
            raise RestoreError(f"{self.tile!r} is no tile", where="--tile", hint="auto, 0 (never), or a side in pixels")


@dataclass
class Loaded:
    """A picture on its way through the stages.

    Attributes:
        job: what is to happen to it.
        data: the file, where it may be copied; else empty.
        picture: decoded.
        stat: the file's, when it was read.
        restorer: what repairs it; None: there is nothing to repair.
        shown, weight: what the restorer gets.
        input_sha256: of the file, where there is a log.
        notes: what the user should know, growing on the way.
        seconds: spent on it so far.
        further_weights: where to repair the further pages of a TIFF; None everywhere.
        further: these pages, repaired.
    """

    job: Job
    data: bytes
    picture: Picture
    stat: os.stat_result
    restorer: Restorer | None
    shown: FloatArray | None
    weight: FloatArray | None
    input_sha256: str | None
    notes: list[str]
    seconds: float
    further_weights: list[FloatArray | None] = field(default_factory=list)
    further: tuple[Picture, ...] = ()

    @property
    def pixels(self) -> int:
        """Its size, with all pages."""
        return sum(page.size[0] * page.size[1] for page in (self.picture, *self.picture.further))


class Stages:
    """What happens to each picture of a run.

    Args:
        plan: the run's.
        restorer: repairs.
        clean_restorer: repairs what has no mask and counts as clean; None: such pictures are copied.
        options: how.
        ledger: is told every file's fate, once.
    """

    def __init__(
        self,
        plan: Plan,
        restorer: Restorer,
        clean_restorer: Restorer | None,
        options: Options,
        ledger: Ledger,
    ) -> None:
        from restore.tiling import auto_tile

        self.plan, self.restorer, self.clean_restorer = plan, restorer, clean_restorer
        self.options, self.ledger = options, ledger
        # Decided once, so that it does not hang on what else is in memory when a picture's turn comes.
        self.tiles = {
            id(one): auto_tile(1 << 20, 1 << 20, device=getattr(one, "device", "cpu"), overlap_px=one.needs.overlap_px)
            if str(options.tile) == "auto"
            else int(options.tile)
            for one in (restorer, clean_restorer)
            if one is not None
        }

    def load(self, job: Job) -> Loaded | None:
        """Read a picture and its mask; None if that already decided its fate."""
        started = time.monotonic()
        try:
            before = os.stat(job.source)
            data = read_bytes(job.source)
            after = os.stat(job.source)
            if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
                raise RestoreError("the file changed while it was read", hint="run again", exit_code=1)
            picture = picture_from_bytes(data, job.source, all_pages=job.format in (None, "tiff"))
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
                given = [
                    effective_mask(
                        page,
                        job.mask,
                        invert=masks.invert,
                        dilate_px=self.options.mask_dilate,
                        feather_px=self.options.mask_feather,
                    )
                    for page in (picture, *picture.further)
                ]
                restorer = self.restorer if any(weight.any() for weight in given) else None
                weights = [*given]
            return Loaded(
                job,
                data if restorer is None or _would_suffer(picture) else b"",
                picture,
                after,
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
            self.ledger.fail(job, error)
        return None

    def repair(self, loaded: Loaded) -> FloatArray | None:
        """Run the network, in the caller's thread; None if there is nothing to repair, or it failed."""
        from restore.repair.apply import repair

        if loaded.restorer is None or loaded.shown is None:
            return None
        started = time.monotonic()
        try:
            tile = self.tiles[id(loaded.restorer)]
            repaired = repair(loaded.restorer, loaded.shown, loaded.weight, tile_px=tile, say=loaded.notes.append)
            loaded.further = tuple(
                self._put_in(
                    page, repair(loaded.restorer, page.shown(), weight, tile_px=tile, say=loaded.notes.append), weight
                )
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
        started = time.monotonic()
        job, before = loaded.job, loaded.picture
        try:
            after, changed = before, 0.0
            if repaired is not None:
                after = replace(self._put_in(before, repaired, loaded.weight), further=loaded.further)
                changed = _changed_share(before, after)
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
            write_atomically(job.target, data, like=loaded.stat)
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
        )

    def _put_in(self, picture: Picture, repaired: FloatArray, weight: FloatArray | None) -> Picture:
        after = picture.with_repaired(repaired, weight)
        if self.plan.masks is not None and self.plan.masks.alpha:
            after = _opaque_where_repaired(after, weight)
        return after


def _would_suffer(picture: Picture) -> bool:
    """Whether writing it again would cost quality, and it is in its file as it goes out: then, where the model
    changed nothing, the file itself is the better output.
    """
    lossy = picture.format == "jpeg" or picture.compression == "lossy"
    return lossy and not picture.turned and not picture.notes


def _opaque_where_repaired(picture: Picture, weight: FloatArray | None) -> Picture:
    """Alpha said where to repair, and has done its work: left transparent, the repair could not be seen."""
    if picture.alpha is None or weight is None:
        return picture
    alpha = picture.alpha.copy()
    alpha[weight > 0] = picture.white
    return replace(picture, alpha=alpha)


def _changed_share(before: Picture, after: Picture) -> float:
    """Of all pixels, on all pages."""
    count, total = 0, 0
    for old, new in zip((before, *before.further), (after, *after.further)):
        if old.pixels.shape != new.pixels.shape:
            return 1.0
        changed = old.pixels[:, :, 0] != new.pixels[:, :, 0]
        for channel in range(1, old.pixels.shape[2]):
            changed |= old.pixels[:, :, channel] != new.pixels[:, :, channel]
        count, total = count + int(np.count_nonzero(changed)), total + changed.size
    return count / total
