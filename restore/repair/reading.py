"""The first stage of a picture: read, with its mask, and its fate settled where that is all there is to it."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import replace

from restore.images import PICTURE_SUFFIXES, NotAPicture, Picture, picture_from_bytes
from restore.images.decoded import Damaged, TooLarge, check_bytes
from restore.repair.chain import Models, Steps
from restore.repair.fade import unfaded
from restore.repair.loaded import FloatArray, Huge, Loaded, would_suffer
from restore.repair.masks import doubts, effective_mask
from restore.repair.options import Options
from restore.repair.pipes import take
from restore.repair.plan import Job, Plan
from restore.repair.summary import Ledger
from restore.repair.targets import PIPE
from restore.supervise import Watch

_PIXEL_BYTES = 40  # of a picture in memory: its own values, what a network is shown, and what comes out


class Reader:
    """What reads the pictures of a run; see `Stages`."""

    def __init__(
        self,
        plan: Plan,
        models: Models,
        options: Options,
        ledger: Ledger,
        watch: Watch,
    ) -> None:
        self.plan, self.models = plan, models
        self.options, self.ledger, self.watch = options, ledger, watch

    def load(self, job: Job) -> Loaded | Huge | None:
        """Read a picture and its mask; None if that already decided its fate."""
        from restore.repair.huge import goes_in_parts, is_huge

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
            fade=self.options.fade,
            find=found,
            repair=holes and not unmasked,
            clean_up=self.models.clean_up is not None,
            masked=masks is not None and not unmasked,
            spare_clean=self.options.spare_clean and found,
        )

    def shown(self, picture: Picture) -> FloatArray:
        """What the first model sees of a picture: H×W×3, sRGB, [0, 1]."""
        shown = picture.shown()
        return unfaded(shown) if self.options.fade else shown

    def load_whole(self, job: Job, *, unless_too_large: Exception | None = None) -> Loaded | None:
        """As `load`, into memory whatever its size; where that is too small, it fails with `unless_too_large`."""
        started, name = time.monotonic(), os.fspath(job.source)
        try:
            if job.source != PIPE:
                check_bytes(os.stat(job.source).st_size, self.options.max_pixels, job.source)
            data, stat = take(job.source)
            with self.watch.decoding(name):
                picture = picture_from_bytes(
                    data,
                    job.source,
                    max_pixels=min(self.options.max_pixels, _pixels_for_memory()),
                    truncated=self.options.truncated,
                    all_pages=job.format in (None, "tiff"),
                )
            masks = self.plan.masks
            if masks is not None and masks.alpha and picture.alpha is None:
                job = replace(job, **masks.when_missing())
            if job.action in ("skip", "fail"):
                self.ledger.finish(job, "skipped" if job.action == "skip" else "failed", job.reason)
                return None
            notes: list[str] = []
            weights: list[FloatArray | None] = [None] * (1 + len(picture.further))
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
                        for page in (picture, *picture.further)
                    ]
                strongest = max(float(weight.max(initial=0)) for weight in given)
                steps = self.steps_of(job, holes=strongest > 0)
                notes += doubts(given)
                weights = [*given]
            return Loaded(
                job,
                data
                if not steps or (steps.find and (steps.spare_clean or not steps.everywhere)) or would_suffer(picture)
                else b"",
                picture,
                stat,
                steps,
                self.shown(picture) if steps else None,
                weights[0],
                hashlib.sha256(data).hexdigest() if self.ledger.manifest.is_open else None,
                [*picture.notes, *notes],
                time.monotonic() - started,
                weights[1:],
            )
        except NotAPicture as error:
            # A stranger in a folder is passed over; a file that was asked for by name is not.
            if self.plan.single:
                self.ledger.finish(job, "failed", error.what)
            else:
                said = job.source.suffix.lower() in PICTURE_SUFFIXES  # it should have been one
                self.ledger.finish(job, "skipped", error.what, warnings=[f"skipped: {error.what}"] if said else [])
        except TooLarge as error:
            self.ledger.fail(job, self.with_option(unless_too_large or error))
        except Exception as error:
            self.ledger.fail(job, self.with_option(error))
        return None

    def with_option(self, error: Exception) -> Exception:
        """What is refused unless an option says otherwise names that option."""
        if isinstance(error, TooLarge) and 0 < error.pixels <= self.options.max_pixels:
            gigabytes = error.pixels * _PIXEL_BYTES / 1e9
            error.what = f"has to be in memory as a whole, and takes about {gigabytes:.1f} GB: more than there is"
            error.hint = "convert it to a plain TIFF, or use a machine with more memory"
        elif isinstance(error, TooLarge) and error.pixels:
            # It was held against what memory has room for, if that is less.
            error.what = f"{error.size} is over the limit of {self.options.max_pixels / 1e6:g} megapixels"
            error.hint = f"if the file can be trusted: --max-pixels {error.pixels}"
        elif isinstance(error, Damaged) and self.options.truncated == "fail":
            error.hint = "the file is damaged or cut short; --truncated accept takes what is there"
        return error


def _pixels_for_memory() -> int:
    """The largest picture that can be in memory as a whole while it is repaired."""
    from restore.tiling import free_memory, half_of_memory

    return max(free_memory("cpu"), half_of_memory()) // _PIXEL_BYTES
