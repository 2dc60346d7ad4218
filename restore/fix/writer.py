"""The last stage of an image: blend its repair, encode and write it, and record the result."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from restore.files import write_atomically
from restore.fix.inputs import PIPE
from restore.fix.jobs import Job
from restore.fix.log import reason_of_done
from restore.fix.options import FixOptions
from restore.fix.pages import MemoryPage
from restore.fix.plan import FixPlan
from restore.fix.reader import WorkItem, is_lossy_reencode
from restore.fix.results import DISK_FULL, ResultRecorder
from restore.fix.steps import Models, Steps, model_provenance, steps_done
from restore.images import FORMAT_OF_SUFFIX, DecodedImage
from restore.images.decoder_output import notes_of_copy
from restore.images.encode import encode
from restore.images.fit_to_format import without_metadata

if TYPE_CHECKING:
    from restore.fix.out_of_core import SpooledPage


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
    """Notes on what was lost because pixels changed, on all pages."""
    pages = zip(sources, (output, *output.extra_pages))
    return [note for source, page in pages for note in page.notes if note not in source.notes]


def without_losses(notes: Sequence[str], image: DecodedImage) -> list[str]:
    """The notes that still hold if the output does not come from the decoded image."""
    gone = set(image.notes) - set(notes_of_copy(image.notes))
    return [note for note in notes if note not in gone]


class Writer:
    """Writes images after their steps.

    Args:
        plan: the plan of the run.
        models: those that take part, for the provenance.
        options: the options of the run.
        recorder: receives the result of every image that is written, or cannot be.
        overwrite: replace existing outputs.
        output_of, side_of: see `Stages`.
    """

    def __init__(
        self,
        plan: FixPlan,
        models: Models,
        options: FixOptions,
        recorder: ResultRecorder,
        *,
        overwrite: bool,
        output_of: Callable[[DecodedImage, MemoryPage], DecodedImage] | None,
        side_of: Callable[[WorkItem], DecodedImage | None],
    ) -> None:
        self._models, self.options, self.recorder = models, options, recorder
        self.overwrite = overwrite
        self._overwrite_side = overwrite or plan.for_page
        self._output_of, self._side_of = output_of, side_of
        self._alpha_masks = plan.masks is not None and plan.masks.alpha

    def render(self, item: WorkItem) -> RenderedImage:
        """Blend the repair into the image; a changed image gets a provenance note in its metadata."""
        before = after = item.image
        if touched := self._output_of is not None or any(page.changed for page in item.pages):
            first = self.output(before, item.pages[0]) if item.enlarged is None else item.enlarged
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
        self.record(
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
        """Write the second outputs of an image, before the output itself, so that an image skipped later has them."""
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

    def output(self, source: DecodedImage, page: MemoryPage) -> DecodedImage:
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

    def write_in_parts(self, job: Job, page: SpooledPage, steps: Steps, notes: list[str]) -> dict[str, Any]:
        """Write an image out of core. Returns keyword arguments of `record`."""
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

        models = self._models
        took_part = model_provenance(models, steps, done)["models"]
        network = models.restorer.sha256 if "fill_holes" in done and models.restorer is not None else None
        settings = self.recorder.settings | {"correct_fading": "correct_fading" in done} | more
        return with_provenance(image, took_part, settings, filled_by=network, kind=kind, notes=notes)

    def record(
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
        reason, code = reason_of_done(touched=touched, copied=copied)
        self.recorder.finish(
            job,
            "done",
            reason,
            code=code,
            size=size,
            seconds=seconds,
            **model_provenance(self._models, steps, done),
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
