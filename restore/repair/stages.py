"""The three stages of a picture: decode, restore, encode. Each ends with a result or a fate told."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from restore.errors import RestoreError
from restore.files import write_atomically
from restore.images import MAX_PIXELS, NotAPicture, Picture, picture_from_bytes, read_bytes
from restore.images.decoded import Damaged, TooLarge, check_bytes
from restore.images.read import Truncated
from restore.repair.masks import effective_mask
from restore.repair.outputs import Metadata, encoded
from restore.repair.plan import Job, Plan
from restore.repair.summary import Ledger
from restore.supervise import Watch

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
    max_pixels: int = MAX_PIXELS
    truncated: Truncated = "fail"

    def __post_init__(self) -> None:
        for name, value, limit in (("dilate", self.mask_dilate, 500), ("feather", self.mask_feather, 500)):
            if not 0 <= value <= limit:
                raise RestoreError(f"{value} is out of range", where=f"--mask-{name}", hint=f"0 to {limit} pixels")
        if str(self.tile) != "auto" and not str(self.tile).isdecimal():
            raise RestoreError(f"{self.tile!r} is no tile", where="--tile", hint="auto, 0 (never), or a side in pixels")
        if self.max_pixels < 1:
            raise RestoreError(f"{self.max_pixels} lets no picture in", where="--max-pixels", hint="1 or more")
        if self.truncated not in ("fail", "accept"):
            raise RestoreError(f"cannot be {self.truncated!r}", where="--truncated", hint="fail or accept")


@dataclass
class Loaded:
    """A picture on its way through the stages.

    Attributes:
        job: what is to happen to it.
        data: the file, where it is copied; else empty.
        picture: decoded.
        stat: the file's, when it was read.
        restorer: what repairs it; None: there is nothing to repair.
        shown, weight: what the restorer gets.
        input_sha256: of the file, where there is a log.
        notes: what the user should know, growing on the way.
        seconds: spent on it so far.
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

    @property
    def pixels(self) -> int:
        """Its size."""
        return self.picture.size[0] * self.picture.size[1]


@dataclass(frozen=True)
class Huge:
    """A picture that is not held in memory: it goes through all stages in bands when its turn comes."""

    job: Job
    pixels: int = 0


class Stages:
    """What happens to each picture of a run.

    Args:
        plan: the run's.
        restorer: repairs.
        clean_restorer: repairs what has no mask and counts as clean; None: such pictures are copied.
        options: how.
        ledger: is told every file's fate, once.
        watch: hears which files are in hand, and which of them are being decoded.
    """

    def __init__(
        self,
        plan: Plan,
        restorer: Restorer,
        clean_restorer: Restorer | None,
        options: Options,
        ledger: Ledger,
        watch: Watch,
    ) -> None:
        from restore.tiling import auto_tile

        self.plan, self.restorer, self.clean_restorer = plan, restorer, clean_restorer
        self.options, self.ledger, self.watch = options, ledger, watch
        # Decided once, so that it does not hang on what else is in memory when a picture's turn comes.
        self.tiles = {
            id(one): auto_tile(
                1 << 20,
                1 << 20,
                device=getattr(one, "device", "cpu"),
                overlap_px=one.needs.overlap_px,
                bytes_per_pixel=one.bytes_per_pixel,
            )
            if str(options.tile) == "auto"
            else int(options.tile)
            for one in (restorer, clean_restorer)
            if one is not None
        }

    def load(self, job: Job) -> Loaded | Huge | None:
        """Read a picture and its mask; None if that already decided its fate."""
        from restore.repair.huge import goes_in_bands, is_huge

        self.watch.begin(os.fspath(job.source))
        if self.plan.masks is None and goes_in_bands(self.restorer) and is_huge(job.source):
            return Huge(job)
        return self._load(job)

    def repair_in_bands(self, huge: Huge) -> Loaded | None:
        """All three stages of a picture that is not held in memory; what has to be is loaded, and returned."""
        from restore.repair.huge import repair_in_bands

        job, started = huge.job, time.monotonic()
        notes: list[str] = []
        try:
            done = repair_in_bands(
                job.source,
                job.target,
                self.restorer,
                format=job.format,
                tile_px=self.tiles[id(self.restorer)],
                quality=self.options.quality,
                metadata=self.options.metadata,
                max_pixels=self.options.max_pixels,
                truncated=self.options.truncated,
                say=notes.append,
            )
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
        )
        return None

    def _load(self, job: Job) -> Loaded | None:
        started, name = time.monotonic(), os.fspath(job.source)
        try:
            before = os.stat(job.source)
            check_bytes(before.st_size, self.options.max_pixels, job.source)
            data = read_bytes(job.source)
            after = os.stat(job.source)
            if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
                raise RestoreError("the file changed while it was read", hint="run again", exit_code=1)
            with self.watch.decoding(name):
                picture = picture_from_bytes(
                    data, job.source, max_pixels=self.options.max_pixels, truncated=self.options.truncated
                )
            masks = self.plan.masks
            if masks is not None and masks.alpha and picture.alpha is None:
                job = replace(job, **masks.when_missing())
            if job.action in ("skip", "fail"):
                self.ledger.finish(job, "skipped" if job.action == "skip" else "failed", job.reason)
                return None
            weight = None
            restorer: Restorer | None = self.restorer
            if job.action == "unmasked":
                restorer = self.clean_restorer
            elif masks is not None:
                with self.watch.decoding(name):
                    weight = effective_mask(
                        picture,
                        job.mask,
                        invert=masks.invert,
                        dilate_px=self.options.mask_dilate,
                        feather_px=self.options.mask_feather,
                        max_pixels=self.options.max_pixels,
                    )
                restorer = self.restorer if weight.any() else None
            return Loaded(
                job,
                data if restorer is None else b"",
                picture,
                after,
                restorer,
                None if restorer is None else picture.shown(),
                weight,
                hashlib.sha256(data).hexdigest() if self.ledger.manifest.is_open else None,
                list(picture.notes),
                time.monotonic() - started,
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

    def repair(self, loaded: Loaded) -> FloatArray | None:
        """Run the network, in the caller's thread; None if there is nothing to repair, or it failed."""
        from restore.repair.apply import repair

        if loaded.restorer is None or loaded.shown is None:
            return None
        started = time.monotonic()
        try:
            repaired = repair(
                loaded.restorer,
                loaded.shown,
                loaded.weight,
                tile_px=self.tiles[id(loaded.restorer)],
                say=loaded.notes.append,
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
                after = before.with_repaired(repaired, loaded.weight)
                if self.plan.masks is not None and self.plan.masks.alpha:
                    after = _opaque_where_repaired(after, loaded.weight)
                changed = _changed_share(before, after)
            data, kind = loaded.data, job.format or before.format
            if repaired is not None or kind != before.format or self.options.metadata != "keep":
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
            "" if ran is not None else "nothing to repair",
            seconds=loaded.seconds + time.monotonic() - started,
            model=None if ran is None else ran.name,
            model_sha256=None if ran is None else ran.sha256,
            input_sha256=loaded.input_sha256,
            output_sha256=digest,
            changed_share=changed,
            warnings=loaded.notes,
        )


def _opaque_where_repaired(picture: Picture, weight: FloatArray | None) -> Picture:
    """Alpha said where to repair, and has done its work: left transparent, the repair could not be seen."""
    if picture.alpha is None or weight is None:
        return picture
    alpha = picture.alpha.copy()
    alpha[weight > 0] = picture.white
    return replace(picture, alpha=alpha)


def _changed_share(before: Picture, after: Picture) -> float:
    if before.pixels.shape != after.pixels.shape:
        return 1.0
    changed = before.pixels[:, :, 0] != after.pixels[:, :, 0]
    for channel in range(1, before.pixels.shape[2]):
        changed |= before.pixels[:, :, channel] != after.pixels[:, :, channel]
    return float(changed.mean())
