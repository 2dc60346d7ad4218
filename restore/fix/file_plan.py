"""A plan for files whose outputs and masks are known, each with its own: for runs that get their files in groups."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from restore.errors import RestoreError
from restore.fix.collisions import Collisions, OutputFolders
from restore.fix.jobs import Entry, Jobs
from restore.fix.masks import MaskSource
from restore.fix.options import FixOptions
from restore.fix.plan import FixPlan, entry_of, with_mask


@dataclass(frozen=True)
class PlannedFile:
    """A file and its outputs.

    Attributes:
        source, target: the file, and its output.
        name: its path in the tree of all outputs.
        mask: file of its mask; None: it has none.
        named: the user named it; see `Job`.
        side_target: its second output; None: there is none.
        sidecars: files that go along, and their outputs.
    """

    source: Path
    target: Path
    name: Path
    mask: Path | None = None
    named: bool = False
    side_target: Path | None = None
    sidecars: tuple[tuple[Path, Path], ...] = ()


def plan_files(files: Sequence[PlannedFile], options: FixOptions, *, masks: MaskSource | None) -> FixPlan:
    """Plan the repair of files. An output that exists makes one file fail, not the whole run.

    Args:
        files: in the order of the jobs. Outputs must differ from each other.
        options: about existing files and reports.
        masks: what masks the run has; `MaskSource.path` is not read, because the files bring their own.

    Raises:
        RestoreError: exit code 2; an output is another's output, or a file that is read.
    """
    jobs = Jobs(_entry(file, options, masks) for file in files)
    collisions = Collisions(OutputFolders())
    for entry in jobs.entries():
        collisions.add(entry)
    collisions.refuse(jobs)
    inputs = tuple(file.source for file in files)
    output = files[0].target.parent if files else Path()
    return FixPlan(inputs, output, False, jobs, masks, overwrite=options.overwrite)


def _entry(file: PlannedFile, options: FixOptions, masks: MaskSource | None) -> Entry:
    entry = entry_of(os.fspath(file.source), os.fspath(file.target), file.name.as_posix(), named=file.named)
    if entry.action == "repair" and masks is not None:
        entry = with_mask(entry, [] if file.mask is None else [os.fspath(file.mask)], masks)
    if entry.settled:
        return entry
    if not options.overwrite and os.path.lexists(entry.target):
        if options.skip_existing:
            return entry._replace(action="skip", reason="the output exists", code="output_exists")
        error = RestoreError("exists already", where=entry.target, hint="use --overwrite or --skip-existing")
        return entry._replace(action="fail", reason=str(error), code="output_exists")
    side = (
        None if entry.video or entry.action == "unmasked" or file.side_target is None else os.fspath(file.side_target)
    )
    sidecars = tuple((os.fspath(source), os.fspath(target)) for source, target in file.sidecars)
    return entry._replace(side_target=side, sidecars=sidecars)
