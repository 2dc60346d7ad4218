"""What a run over URLs will do, decided from names alone: no object is read, and nothing is written.

Outputs have the names that `restore.fix.plan` gives them, and the same is refused. What needs the content of a file is
settled when its group has come.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from restore.errors import RestoreError, printable
from restore.files import check_writable
from restore.fix.batch_options import BatchOptions, FilePath, parse_shard
from restore.fix.inputs import is_pipe, shard_of
from restore.fix.jobs import NO_PREVIEW
from restore.fix.log import Record, Status
from restore.fix.masks import MaskSource
from restore.fix.options import EXTENSIONS, DetectOptions, FixOptions
from restore.fix.parquet_log import SUFFIX as PARQUET_SUFFIX
from restore.fix.plan import NoImages
from restore.fix.results import now
from restore.fix.side_outputs import mask_name, preview_name
from restore.fix.targets import check_folder_target, check_named_target, check_video_name, renamed
from restore.images import FORMAT_OF_SUFFIX, IMAGE_SUFFIXES
from restore.images.formats import left_out_lines, suffix_of
from restore.places.files import Files, PlacedFile, Verdict
from restore.places.listing import Listing, kind_of, listed_places
from restore.places.outputs import GroupFile, masks_for_page
from restore.places.pairing import may_meet_inputs, refuse_collisions, settle_existing, with_masks, with_sidecars
from restore.places.store import StoreError
from restore.places.urls import any_url, as_folder, is_below, is_url, name_of, settle
from restore.video.formats import VIDEO_SUFFIXES

#: A group has at most this many files and bytes of inputs, unless one file alone is larger.
GROUP_FILES = 64
#: The first group has this many files, and each further one twice as many: the first image waits for few others.
FIRST_FILES = 8
GROUP_BYTES = 512 << 20


@dataclass
class PlacesPlan:
    """Everything that a run over URLs will do.

    Attributes:
        inputs, output: places, as the user gave them.
        files: in the order of the listing.
        file_output: the output is this file, not a folder.
        side: the folder of second outputs; None: there are none.
        for_page: second outputs are masks that the HTML report shows.
        suffix, extension: added to names, and put in the place of their suffix.
        kind: `fix` or `detect`.
        masks: the run has masks; where from, says `restore.fix.masks.MaskSource`.
        unmatched_masks: masks without an image.
        warnings: what the user should know, one line each.
    """

    inputs: list[str]
    output: str
    files: Files = field(default_factory=Files)
    file_output: str | None = None
    side: str | None = None
    for_page: bool = False
    suffix: str = ""
    extension: str | None = None
    kind: str = "fix"
    masks: MaskSource | None = None
    unmatched_masks: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def input(self) -> str | list[str]:
        """The input as logs and JSON hold it: one place, or several."""
        return self.inputs[0] if len(self.inputs) == 1 else self.inputs

    def goal(self, file: PlacedFile) -> str:
        """The name of an output in the tree of the outputs."""
        name = file.tree_name
        if not self.suffix and self.extension is None:
            return name
        path = Path(name)  # one without a name is of a file that fails
        return renamed(path, self.suffix, self.extension).as_posix() if path.name else name

    def target(self, file: PlacedFile) -> str:
        """The place of an output."""
        return self.file_output or as_folder(self.output) + self.goal(file)

    def side_target(self, file: PlacedFile) -> str | None:
        """The place of a second output."""
        if self.side is None:
            return None
        name_for = preview_name if self.kind == "detect" else mask_name
        return as_folder(self.side) + name_for(Path(file.tree_name)).as_posix()

    def sidecar_targets(self, file: PlacedFile) -> tuple[tuple[str, str], ...]:
        """Sidecars and the places of their outputs."""
        folder = self.target(file).rpartition("/")[0]
        return tuple((source, f"{folder}/{name}") for source, name in file.sidecars)

    def group_file(self, file: PlacedFile) -> GroupFile:
        """A file as groups take it."""
        return GroupFile(
            file.source, self.target(file), file.mask, file.tree_name, self.side_target(file),
            self.sidecar_targets(file), file.named,
        )  # fmt: skip

    def groups(self) -> Iterator[list[GroupFile]]:
        """The files with work, in groups that grow from `FIRST_FILES` to `GROUP_FILES`, of at most `GROUP_BYTES`."""
        group: list[GroupFile] = []
        size, most = 0, min(FIRST_FILES, GROUP_FILES)
        for file in self.files.to_do():
            if group and (len(group) == most or size + file.size > GROUP_BYTES):
                yield group
                group, size, most = [], 0, min(2 * most, GROUP_FILES)
            group.append(self.group_file(file))
            size += file.size
        if group:
            yield group

    def settled(self, files: Iterable[PlacedFile]) -> Iterator[Record]:
        """Records of files that the plan has decided: they are skipped, or fail."""
        for file in files:
            action, reason, code = file.verdict
            status: Status = "skipped" if action == "skip" else "failed"
            yield Record(file.source, self.target(file), status, reason, code, time=now())

    def format(self) -> Iterator[str]:
        """One line for each file, as `--dry-run` prints them."""
        for file in self.files:
            action, reason, _ = file.verdict
            if action in ("skip", "fail"):
                yield f"{printable(file.source)}: {'skipped' if action == 'skip' else 'fails'}: {reason}"
                continue
            line = f"{printable(file.source)} -> {printable(self.target(file))}"
            if action == "unmasked":
                line += " (no mask: nothing to fill)"
            elif file.mask is not None:
                line += f" (mask {printable(file.mask)})"
            if action == "repair" and self.side is not None and not self.for_page:
                line += f" (saves mask {printable(self.side_target(file) or '')})"
            yield line

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON holds it, with the keys of a `FixPlan`."""
        jobs = [
            {
                "input": file.source,
                "output": self.target(file),
                "mask": file.mask,
                "saved_mask": self.side_target(file) if file.verdict.action == "repair" and not self.for_page else None,
                "action": file.verdict.action,
                "reason": file.verdict.reason,
                "reason_code": file.verdict.code,
            }
            for file in self.files
        ]
        return {
            "input": self.input,
            "output": self.output,
            "jobs": jobs,
            "unmatched_masks": self.unmatched_masks,
            "warnings": self.warnings,
        }


def plan_places(inputs: Sequence[FilePath], output: FilePath, options: BatchOptions) -> PlacesPlan:
    """List the inputs, pair masks, decide the names of the outputs, and refuse what could lose anything.

    Args:
        inputs, output: places: URLs and paths, as for `plan_fix`.
        options: a `FixOptions`, or a `DetectOptions` for a run that writes masks.

    Raises:
        RestoreError: exit code 2; nothing has been written. As `plan_fix`, and if a store cannot be listed.
    """
    try:
        return _Planner(inputs, output, options).plan()
    except StoreError as error:
        error.exit_code = 2
        raise


class _Planner:
    def __init__(self, inputs: Sequence[FilePath], output: FilePath, options: BatchOptions) -> None:
        self.detects = isinstance(options, DetectOptions)
        self.output = settle(output, what="OUTPUT")
        _check_given([*inputs, output], options)
        self.inputs = [settle(place, what="INPUT") for place in inputs]
        self.listed = None if options.files_from is None else listed_places(options.files_from)
        side = options.preview if isinstance(options, DetectOptions) else getattr(options, "save_masks", None)
        self.side = None if side is None else settle(side, what="--preview" if self.detects else "--save-masks")
        assert isinstance(options, FixOptions | DetectOptions)
        self.options: FixOptions = options.to_fix(suffix="") if isinstance(options, DetectOptions) else options
        page = masks_for_page(self.options)
        page = None if page is None else settle(page, what="--html-report")
        self.side, self.for_page = self.side or page, page is not None
        self.options.check_masks(has_masks=self.options.masks is not None)
        masks = self.options.masks
        self.mask_place = None if masks in (None, "auto", "alpha", "infrared") else settle(str(masks), what="--masks")

    def plan(self) -> PlacesPlan:
        options, masks = self.options, self._masks()
        kinds = {place: kind_of(place) for place in self.inputs}
        single = self.listed is None and len(self.inputs) == 1 and kinds[self.inputs[0]] == "file"
        if single and (options.include or options.exclude or options.shard is not None):
            raise RestoreError(
                "is a file; --include, --exclude and --shard only apply to folders", where=self.inputs[0]
            )
        to_file = single and not self.output.endswith("/") and (is_url(self.output) or not os.path.isdir(self.output))
        if not self.inputs and self.listed is None:
            raise RestoreError("is missing (the last name is OUTPUT)", where="INPUT", hint="name images or a folder")
        ending = options.suffix if to_file else "_mask" if self.detects else options.name_ending
        plan = PlacesPlan(
            list(self.inputs) or [os.fspath(options.files_from or "")], self.output,
            file_output=self.output if to_file else None, side=self.side, for_page=self.for_page, suffix=ending,
            extension=None if options.ext is None else EXTENSIONS[options.ext],
            kind="detect" if self.detects else "fix", masks=masks,
        )  # fmt: skip
        if to_file:
            self._check_file_output(options.suffix)
        else:
            self._check_folders(kinds)
        if options.html_report is not None:
            self._check_page(options.html_report, kinds)
        self._find_files(plan, Listing(self.inputs, self.listed, kinds, options, self.mask_place))
        return plan

    def _find_files(self, plan: PlacesPlan, listing: Listing) -> None:
        """Give the plan its files, one step after the other, so that little is kept of each."""
        options = self.options
        files, sidecars = Files(listing.files()), False
        if options.metadata == "keep":
            files, sidecars = with_sidecars(plan, files, listing)
        plan.warnings += left_out_lines(listing.left_out, hint="name one as INPUT to repair it")
        if self.mask_place is not None and plan.masks is not None:
            files = with_masks(plan, files, listing, self.mask_place, plan.masks)
        narrowed = bool(options.include or options.exclude)
        plan.files = Files(filter(listing.is_wanted, files)) if narrowed else files
        if not plan.files:
            what = f"no images in this folder{' match --include and --exclude' if narrowed else ''}"
            raise NoImages(what, where=plan.inputs[0])
        # Else names differ, and the suffix is added to each.
        if len(self.inputs) != 1 or plan.extension is not None or sidecars or may_meet_inputs(plan, self.mask_place):
            refuse_collisions(plan)
        if options.shard is not None:
            part, parts = parse_shard(options.shard)
            plan.files = Files(file for file in plan.files if shard_of(file.tree_name, parts) == part)
        if options.preview is not None:
            plan.files = Files(map(_without_preview, plan.files))
        settle_existing(plan, options)

    # Places.

    def _masks(self) -> MaskSource | None:
        """Where masks come from; for `plan.masks` and outcomes alone, since groups bring their own."""
        options = self.options
        if options.masks is None:
            return None
        if self.mask_place is None or not is_url(self.mask_place):
            return MaskSource.open(
                options.masks if self.mask_place is None else self.mask_place,
                invert=options.mask_invert,
                missing=options.mask_missing,
            )
        kind = kind_of(self.mask_place, "there is no such folder or file of masks")
        return MaskSource(Path("masks"), kind == "folder", options.mask_invert, options.mask_missing)

    def _check_file_output(self, suffix: str) -> None:
        """Check the output of a single file."""
        source, target = PurePosixPath(name_of(self.inputs[0])), PurePosixPath(name_of(self.output))
        if is_url(self.output) and "/" not in self.output.partition("://")[2]:
            raise RestoreError("could be a file or a folder", where=self.output, hint="add a slash for a folder")
        if source.suffix.lower() in VIDEO_SUFFIXES and not self.detects:
            check_video_name(target)
        elif self.detects and FORMAT_OF_SUFFIX.get(target.suffix.lower()) != "png":
            raise RestoreError("masks are written as PNG", where=self.output, hint="name a .png file, or add a slash")
        else:
            extension = None if self.options.ext is None else EXTENSIONS[self.options.ext]
            check_named_target(source, target, suffix=suffix, extension=extension)
        if self.output == self.inputs[0]:
            raise RestoreError("the output is the input itself", where=self.output, hint="choose another name")
        if not is_url(self.output):
            check_writable(Path(self.output).parent)

    def _check_folders(self, kinds: dict[str, str]) -> None:
        """Check that the output is a folder apart from those that are read."""
        read = [place for place, kind in kinds.items() if kind == "folder"]
        sides = (
            [] if self.side is None or self.for_page else [("--preview" if self.detects else "--save-masks", self.side)]
        )
        for option, target in [("OUTPUT", self.output), *sides]:
            if not is_url(target):
                check_folder_target(None, Path(target))
                for place in read:
                    if not is_url(place):
                        check_folder_target(Path(place), Path(target))
                check_writable(Path(target))
                continue
            for folder in read:
                if is_url(folder) and is_below(target, folder):
                    what = f"the output folder is {printable(folder)}, or inside it"
                    hint = "choose another folder, because a later run would read the results as inputs"
                    raise RestoreError(what, where=target, hint=hint)
            other = [self.mask_place] if self.mask_place is not None and is_url(self.mask_place) else []
            other += [self.output] if option != "OUTPUT" and is_url(self.output) else []
            for folder in other:
                if is_below(target, folder) or is_below(folder, target):
                    what = f"{option} needs a folder apart from {printable(folder)}"
                    raise RestoreError(what, where=target, hint="choose another folder")

    def _check_page(self, folder: FilePath, kinds: dict[str, str]) -> None:
        """Check that the HTML report may be written to a folder."""
        from restore.html import check_page_folder

        place = settle(folder, what="--html-report")
        read = [place for place, kind in kinds.items() if kind == "folder"]
        read += [self.mask_place] if self.mask_place is not None and os.path.isdir(self.mask_place) else []
        written = [self.output, *([] if self.side is None or self.for_page else [self.side])]
        inputs, outputs = ([one for one in places if is_url(one) == is_url(place)] for places in (read, written))
        if not is_url(place):
            check_page_folder(place, inputs=inputs, outputs=outputs)
            return
        from restore.places.report import check_page_place

        inputs += [self.mask_place] if self.mask_place is not None and is_url(self.mask_place) else []
        check_page_place(place, inputs=inputs, outputs=outputs)


def _without_preview(file: PlacedFile) -> PlacedFile:
    """The file in a run with `--preview`, which images are left out of."""
    if not file.is_work or suffix_of(file.name).lower() not in IMAGE_SUFFIXES:
        return file
    return file._replace(verdict=Verdict("skip", NO_PREVIEW))


def _check_given(places: Sequence[FilePath], options: BatchOptions) -> None:
    for place in places:
        if not os.fspath(place):
            raise RestoreError("must not be empty", where="INPUT or OUTPUT", hint="the current folder is .")
        if is_pipe(place):
            raise RestoreError("cannot be combined with URLs", where="-", hint="name a file")
    for name, plain in (("fills", 1), ("uncertainty", None)):
        if getattr(options, name, plain) != plain:
            raise RestoreError("cannot be combined with URLs", where=f"--{name}", hint="leave it out")
    log = getattr(options, "log", None)
    if is_url(log) and str(log).endswith(PARQUET_SUFFIX):
        raise RestoreError("a Parquet log must be on this machine", where="--log", hint="choose .jsonl, or a path")
    for name in ("condition", "detector", "files_from"):
        value = getattr(options, name, None)
        if any_url(value if isinstance(value, tuple) else [value]):
            raise RestoreError("must be on this machine", where=f"--{name.replace('_', '-')}", hint="name a path")
