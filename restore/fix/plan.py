"""What a run will do, decided and checked before the first image is read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import repeat
from pathlib import Path
from typing import Any

from restore.errors import RestoreError, printable
from restore.files import check_writable
from restore.fix.batch_options import FilePath, parse_shard
from restore.fix.collisions import Collisions, ExistingOutputs, OutputFolders
from restore.fix.inputs import (
    PIPE,
    VIDEO,
    Found,
    Listing,
    as_path,
    beginning,
    called,
    check_input,
    format_of_file,
    list_file,
    list_folder,
    list_of_folder,
    list_several,
    read_list,
    shard_of,
)
from restore.fix.jobs import NO_PREVIEW, Action, Entry, Job, Jobs, split
from restore.fix.log import ReasonCode
from restore.fix.mask_pairing import pair_masks
from restore.fix.masks import MaskSource
from restore.fix.options import EXTENSIONS, FixOptions
from restore.fix.targets import check_folder_target, new_format, piped_target, renamed, single_target, video_target
from restore.fix.video_masks import FrameMaskFinder
from restore.images import FORMAT_OF_SUFFIX, IMAGE_SUFFIXES, UNREADABLE_SUFFIXES, NotAnImage
from restore.images.formats import READ_ONLY_FORMATS, suffix_of
from restore.packed import Packed
from restore.video.formats import CONTAINER_OF_SUFFIX, is_video_file
from restore.video.sequence import is_sequence

__all__ = ["Action", "FixPlan", "Job", "Jobs", "NoImages", "plan_fix", "without_videos"]


class NoImages(RestoreError):
    """The inputs hold no image."""


@dataclass(frozen=True)
class FixPlan:
    """Everything that `run_fix` will do, in order.

    Attributes:
        inputs, output: as the user gave them; a list of files is one input.
        single: the input is one file.
        jobs: one for each image, those of a folder sorted by path, then a failing one for each folder that cannot be
            listed and each named file that cannot be read.
        masks: where masks come from; None without masks.
        unmatched_masks: mask files without an image.
        warnings: what the user should know, one line each.
        overwrite: existing outputs are replaced.
        side_folder: the folder of second outputs; None: there are none.
        for_page: second outputs are masks that the HTML report shows.
        map_folder: the folder of maps of expected errors; None: there are none.
        folders: the input folders.
        sequence: the input is this image sequence; None: it is none.
    """

    inputs: tuple[Path, ...]
    output: Path
    single: bool
    jobs: Jobs
    masks: MaskSource | None = None
    unmatched_masks: list[Path] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    overwrite: bool = False
    side_folder: Path | None = None
    for_page: bool = False
    folders: tuple[Path, ...] = ()
    sequence: Path | None = None
    map_folder: Path | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "jobs", self.jobs if isinstance(self.jobs, Jobs) else Jobs(self.jobs))

    @property
    def from_pipe(self) -> bool:
        """Whether the image comes from standard input."""
        return PIPE in self.inputs

    @property
    def has_work(self) -> bool:
        """Whether an image is to be read; otherwise all are skipped or fail, and no model is needed."""
        return self.jobs.has_work

    @property
    def input(self) -> str | list[str]:
        """The input as logs and JSON hold it: one path, or several."""
        names = [os.fspath(path) for path in self.inputs]
        return names[0] if len(names) == 1 else names

    def format(self) -> list[str]:
        """One line for each job, as `--dry-run` prints them."""
        return list(self.lines())

    def lines(self) -> Iterator[str]:
        """As `format`, one after the other."""
        for job in self.jobs:
            line = f"{called(job.source)} -> {called(job.target, 'standard output')}"
            if job.action in ("skip", "fail"):
                line = f"{called(job.source)}: {'skipped' if job.action == 'skip' else 'fails'}: {job.reason}"
            elif job.action == "unmasked":
                line += " (no mask: nothing to fill)"
            elif job.mask is not None:
                line += f" (mask {printable(job.mask)})"
            if job.action == "repair" and job.fill_targets:
                line += f" (and {len(job.fill_targets)} more fills, to {printable(job.fill_targets[-1])})"
            if job.action == "repair" and job.side_target is not None and not self.for_page:
                line += f" (saves mask {printable(job.side_target)})"
            if job.action == "repair" and job.map_target is not None:
                line += f" (maps expected errors to {printable(job.map_target)})"
            yield line

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON holds it, for scripts; paths are not escaped."""
        jobs = [
            {
                "input": entry.source,
                "output": entry.target,
                "mask": entry.mask,
                "fills": list(entry.fill_targets),
                "saved_mask": None if self.for_page else entry.side_target,
                "uncertainty": entry.map_target,
                "action": entry.action,
                "reason": entry.reason,
                "reason_code": entry.code,
            }
            for entry in self.jobs.entries()
        ]
        return {
            "input": self.input,
            "output": os.fspath(self.output),
            "jobs": jobs,
            "unmatched_masks": [os.fspath(mask) for mask in self.unmatched_masks],
            "warnings": self.warnings,
        }


def plan_fix(input: FilePath | Sequence[FilePath], output: FilePath, options: FixOptions | None = None) -> FixPlan:
    """List the images, pair their masks, decide the outputs' names, and refuse what could lose anything.

    Args:
        input: an image, or a folder (recursive; hidden files are left out); `-` is standard input. Several of them:
            each image goes into the output folder by its name, each folder's tree into a folder of its name. Empty: the
            files are those of `options.files_from`. A name with `%d` or `%06d` in it: the image sequence of that name.
        output: for a folder or several inputs: a folder, made if missing. For an image: a file with an image's
            suffix, or a folder (existing, or ending in a slash); `-` is standard output.
        options: about masks, files and reports; None: the defaults. In mask files white = repair.

    Raises:
        RestoreError: exit code 2; nothing has been written. The input is missing, unreadable or holds no image; the
            output is the input, inside it, or of the wrong kind; two images would get one name; outputs exist and
            neither `overwrite` nor `skip_existing` is set; masks are missing; the output cannot be written to.
    """
    options = options or FixOptions()
    given: list[FilePath] = [input] if isinstance(input, str | os.PathLike) else list(input)
    sequence: Path | None = None
    gaps: list[str] = []
    if len(given) == 1 and is_sequence(given[0]):
        from restore.fix.sequence import as_files

        sequence = Path(given[0])
        given, output, gaps = as_files(sequence, output, options)
    inputs, listed = _check_given(given, output, options)
    target = as_path(output)
    masks = options.masks
    mask_source = (
        None if masks is None else MaskSource.open(masks, invert=options.mask_invert, missing=options.mask_missing)
    )
    single = len(inputs) == 1 and (inputs[0] == PIPE or not inputs[0].is_dir())
    if single:
        if options.include or options.exclude or options.shard is not None:
            raise RestoreError("is a file; --include, --exclude and --shard only apply to folders", where=inputs[0])
        listing = list_file(inputs[0])
    else:
        listing = _list_to_folder(inputs, listed, target, options, mask_source)

    def entries(found: Iterable[Found]) -> Iterable[Entry]:
        if single:
            return (_single_entry(inputs[0], output, options, mask_source) for _ in found)
        return _entries_to_folder(found, listing, target, options, inputs[0] if inputs else None)

    frame_masks = FrameMaskFinder(mask_source, sequence, alone=single)
    jobs, unmatched = _checked_jobs(listing, entries, target, options, mask_source, frame_masks)
    unmatched = frame_masks.still_unmatched(unmatched)
    plan = FixPlan(
        tuple(inputs) or (as_path(options.files_from or ""),),
        target,
        single,
        jobs,
        mask_source,
        [Path(mask) for mask in unmatched],
        [f"{printable(path)}: {reason}" for path, reason in unmatched.items()] + listing.warnings + gaps,
        options.overwrite,
        folders=tuple(listing.folders),
        sequence=sequence,
    )
    if options.save_masks is not None or (options.html_report is not None and masks == "auto"):
        from restore.fix.side_outputs import with_saved_masks

        plan = with_saved_masks(plan, options)
    if options.uncertainty is not None:
        from restore.fix.side_outputs import with_maps

        plan = with_maps(plan, options)
    if options.preview is not None:
        plan = replace(plan, jobs=plan.jobs.change(_without_preview))
    if options.html_report is not None:
        from restore.fix.html_report import check_fix_page

        check_fix_page(options.html_report, plan)
    return plan


def _check_given(
    given: Sequence[FilePath], output: FilePath, options: FixOptions
) -> tuple[list[Path], Packed[str] | None]:
    """The inputs as paths, and the files of the list, if there is one, after a check of all that the user gave."""
    for name, path in (*(("INPUT", path) for path in given), ("OUTPUT", output)):
        if not os.fspath(path):  # as a shell makes it of a variable that is not set
            raise RestoreError("must not be empty", where=name, hint="the current folder is .")
    options.check_masks(has_masks=options.masks is not None)
    inputs = [as_path(path) for path in given]
    listed = None if options.files_from is None else read_list(options.files_from)
    if not inputs and listed is None:
        what = "is missing (the last name is OUTPUT)"
        raise RestoreError(what, where="INPUT", hint="name images or a folder, or use --files-from")
    if len(inputs) == 1 and inputs[0] != PIPE:
        check_input(inputs[0])
    if listed is not None and (len(inputs) > 1 or (inputs and not inputs[0].is_dir())):
        raise RestoreError("takes one folder as INPUT, or none", where="--files-from", hint="leave out INPUT")
    return inputs, listed


def _checked_jobs(
    listing: Listing,
    entries_of: Callable[[Iterable[Found]], Iterable[Entry]],
    target: Path,
    options: FixOptions,
    masks: MaskSource | None,
    frame_masks: FrameMaskFinder,
) -> tuple[Jobs, dict[str, str]]:
    """The jobs of all files, made one after the other, so that little is kept of each; and the masks without an image.

    Args:
        listing: the files.
        entries_of: makes their jobs, still without masks and sidecars.
        target: the output.
        options: of the run.
        masks: where masks come from.
        frame_masks: finds those of videos.

    Raises:
        RestoreError: exit code 2; as `plan_fix`.
    """
    folders = OutputFolders()
    collisions, existing = Collisions(folders), ExistingOutputs(folders, options)
    sidecars: set[str] = set()
    masks_of, unmatched = _masks_of(listing, masks)
    entries = entries_of(_included(listing, collisions))
    if options.metadata == "keep":
        from restore.fix.sidecars import with_sidecars

        entries = with_sidecars(entries, sidecars)
    part, parts = (1, 1) if options.shard is None else parse_shard(options.shard)
    jobs = Jobs()
    for entry, own in zip(entries, masks_of):
        if masks is not None and entry.action != "skip":
            entry = with_mask(entry, frame_masks.of(entry, own), masks)
        if entry.action == "repair" and not entry.video and entry.target != os.fspath(PIPE):
            entry = entry._replace(fills=options.fills)
        collisions.add(entry)
        jobs.append(existing.settle(entry) if shard_of(entry.name, parts) == part else entry)
    # Every shard refuses two images with one output name, though it has only one of them.
    collisions.refuse(jobs)
    existing.refuse()
    if parts > 1 or sidecars:
        jobs = Jobs(
            entry
            for entry in jobs.entries()
            if shard_of(entry.name, parts) == part and (entry.action != "skip" or entry.source not in sidecars)
        )
    for bad in listing.unreadable:
        if shard_of(bad.name, parts) == part:
            goal = os.fspath(target / bad.name)
            jobs.append(Entry(bad.source, goal, action="fail", reason=bad.reason, code=bad.code, name=bad.name))
    return jobs, unmatched


def _masks_of(listing: Listing, masks: MaskSource | None) -> tuple[Iterable[list[str]], dict[str, str]]:
    """The masks of each file that is not excluded, in their order, and the masks without an image, with the reason."""
    if masks is None or masks.path is None:
        return repeat([]), {}
    if not masks.folder:
        return repeat([os.fspath(masks.path)]), {}
    files = Packed(map(tuple, listing.found))
    listing.found = map(Found._make, files)
    beside = os.path.realpath(masks.path) in map(os.path.realpath, listing.mask_folders)
    names = (one.name for one in map(Found._make, files))
    paired, unmatched = pair_masks(masks.path, names, len(files), beside=beside)
    if listing.named_folders and not listing.folders:
        unmatched = {}  # the folder may hold masks of images that were not named
    return (paired[number] for number, one in enumerate(map(Found._make, files)) if not one.excluded), unmatched


def _included(listing: Listing, collisions: Collisions) -> Iterator[Found]:
    """The files that are not excluded."""
    for one in listing.found:
        if not one.excluded:
            if one.is_link:
                collisions.add_link(one.source)
            yield one


def _list_to_folder(
    inputs: Sequence[Path], listed: Packed[str] | None, target: Path, options: FixOptions, masks: MaskSource | None
) -> Listing:
    """List inputs whose outputs go into a folder, after a check of the folder."""
    if target == PIPE:
        where = inputs[0] if len(inputs) == 1 else "OUTPUT"
        what = "a folder" if len(inputs) == 1 else "several images"
        raise RestoreError(f"{what} cannot be written to standard output", where=where, hint="choose one image")
    if PIPE in inputs:
        raise RestoreError("cannot be one of several inputs", where="-", hint="name files")
    if len(inputs) != 1:
        check_folder_target(None, target)
    for source in inputs:
        if os.path.isdir(source):
            check_folder_target(source, target)
    check_writable(target)
    if listed is not None and inputs:
        return list_of_folder(inputs[0], listed, options, masks)
    if listed is not None:
        return list_several(listed, options, masks, from_list=True)
    if len(inputs) == 1:
        return list_folder(inputs[0], options, masks)
    if (options.include or options.exclude) and not any(map(os.path.isdir, inputs)):
        raise RestoreError("only apply to folders, and all inputs are files", where="--include, --exclude")
    return list_several([os.fspath(path) for path in inputs], options, masks)


def _single_entry(source: Path, output: FilePath, options: FixOptions, masks: MaskSource | None) -> Entry:
    """The job of an image that is the only input."""
    extension = None if options.ext is None else EXTENSIONS[options.ext]
    if PIPE in (source, as_path(output)):
        if source != PIPE and is_video_file(source):
            raise RestoreError("a video cannot be written to standard output", where=source, hint="name a file")
        if source == PIPE and masks is not None and masks.folder:
            raise RestoreError(
                "is a folder, and standard input has no name to find its mask by",
                where=masks.path,
                hint="choose a file",
            )
        goal, kind = piped_target(source, output, suffix=options.suffix, extension=extension)
    elif is_video_file(source):
        goal = video_target(source, output, suffix=options.suffix, ending=options.name_ending)
        check_writable(goal.parent)
        return Entry(os.fspath(source), os.fspath(goal), video=True, name=source.name, named=True)
    else:
        goal = single_target(source, output, suffix=options.suffix, extension=extension)
        kind = new_format(source, goal)
    if goal != PIPE:
        check_writable(goal.parent)
    entry = Entry(os.fspath(source), os.fspath(goal), format=kind, name=source.name, named=True)
    if only_read := _only_read(entry):
        raise RestoreError(only_read, where=source, hint="choose another format with --ext, such as tiff")
    return entry


def _entries_to_folder(
    found: Iterable[Found], listing: Listing, target: Path, options: FixOptions, source: Path | None
) -> Iterator[Entry]:
    """The jobs of images that go into a folder; there must be one. `source`: the first input; None: a list."""
    below, writable, nothing = beginning(target), set[str](), True
    naming = _Naming(options)
    for one in found:
        goal, kind, is_plain = naming.of(one.name)
        goal = goal if os.sep == "/" else goal.replace("/", os.sep)
        entry = Entry(one.source, below + goal, format=kind, name=one.name, named=one.named)
        if not is_plain:
            entry = _inspected(entry)
        if entry.action != "skip":
            nothing = False
            folder = split(entry.target)[0]
            if folder not in writable:
                check_writable(Path(folder))
                writable.add(folder)
        yield entry
    if nothing and not listing.unreadable:
        narrowed = " match --include and --exclude" if listing.narrowed else ""
        left_out = f" ({listing.warnings[0]})" if listing.warnings else ""
        what = f"no images in this {'list' if source is None else 'folder'}{narrowed}{left_out}"
        raise NoImages(what, where=options.files_from if source is None else source)


class _Naming:
    """The outputs of names in a folder; what `renamed` and `new_format` decide depends on the suffix alone."""

    def __init__(self, options: FixOptions) -> None:
        self._suffix = options.name_ending
        self._extension = None if options.ext is None else EXTENSIONS[options.ext]
        self._known: dict[str, tuple[str, str | None, bool]] = {}

    def of(self, name: str) -> tuple[str, str | None, bool]:
        """The output of a name, its format (None: that of the source), and whether a look at the file is needless."""
        suffix = suffix_of(name)
        if suffix not in self._known:
            self._known[suffix] = self._of_suffix(suffix)
        ending, kind, is_plain = self._known[suffix]
        if not self._suffix and ending == suffix:
            return name, kind, is_plain
        return f"{name[: len(name) - len(suffix)]}{self._suffix}{ending}", kind, is_plain

    def _of_suffix(self, suffix: str) -> tuple[str, str | None, bool]:
        goal = renamed(Path(f"x{suffix}"), "", self._extension)
        kind = new_format(Path(f"x{suffix}"), goal)
        known = FORMAT_OF_SUFFIX.get(suffix.lower())
        is_plain = suffix.lower() in IMAGE_SUFFIXES and (kind is not None or known not in READ_ONLY_FORMATS)
        return goal.suffix, kind, is_plain


def entry_of(source: str, target: str, name: str, *, named: bool) -> Entry:
    """The job of a file whose output is known; see `Job` for the arguments. The file need not be an image."""
    kind = new_format(Path(name), Path(target))
    return _inspected(Entry(source, target, format=kind, name=name, named=named))


def _inspected(entry: Entry) -> Entry:
    """A job whose name does not say what the file is, after a look at the file."""
    if only_read := _only_read(entry):
        reason = f"{only_read}; choose another format with --ext, such as tiff"
        return entry._replace(action="fail", reason=reason, code="unsupported")
    source, suffix = Path(entry.source), suffix_of(entry.name).lower()
    if suffix in IMAGE_SUFFIXES:
        return entry
    try:
        if format_of_file(source) == VIDEO:
            return _video_entry(entry)
    except RestoreError as error:
        if suffix not in UNREADABLE_SUFFIXES and not is_video_file(source):
            return entry._replace(action="skip", reason="not an image", code="not_an_image")
        reason = error.what if error.hint is None else f"{error.what}; {error.hint}"
        code: ReasonCode = "not_an_image" if isinstance(error, NotAnImage) else "unsupported"
        return entry._replace(action="fail", reason=reason, code=code)
    except OSError:  # reading it will say why
        pass
    return entry


def _video_entry(entry: Entry) -> Entry:
    """The job of a video; it fails if its kind of file cannot be written."""
    kind = suffix_of(entry.target)
    if kind.lower() in CONTAINER_OF_SUFFIX:
        return entry._replace(video=True)
    reason = f"videos of the kind {kind} can be read but not written; repair it alone, into an .mkv file"
    return entry._replace(video=True, action="fail", reason=reason, code="unsupported")


def _without_preview(entry: Entry) -> Entry:
    """The job of a run with `--preview`, which images are left out of."""
    if entry.video or entry.settled:
        return entry
    return entry._replace(action="skip", reason=NO_PREVIEW, code="")


def without_videos(plan: FixPlan) -> FixPlan:
    """The plan for a program that takes images only: videos are skipped, or fail if the user named them, and the frames
    of a sequence are images."""

    def without(entry: Entry) -> Entry:
        if not entry.video:
            return entry
        return entry._replace(action="fail" if entry.named else "skip", reason="not an image", code="not_an_image")

    return replace(plan, jobs=plan.jobs.change(without), sequence=None)


def _only_read(entry: Entry) -> str:
    """Why an image cannot be written in its own format; "" if it can."""
    kind = FORMAT_OF_SUFFIX.get(suffix_of(os.path.basename(entry.source)).lower())
    if entry.format is not None or entry.source == os.fspath(PIPE) or kind not in READ_ONLY_FORMATS:
        return ""
    try:
        known = READ_ONLY_FORMATS.get(format_of_file(Path(entry.source)))  # the content decides
    except (RestoreError, OSError):  # reading it will say why
        return ""
    return "" if known is None else f"this is {known}, which can be read but not written"


def with_mask(entry: Entry, masks: Sequence[str], source: MaskSource) -> Entry:
    """The job with the masks that were found for its image: none, one, or several, which is a conflict."""
    if len(masks) > 1:
        named = " and ".join(printable(mask) for mask in masks)
        return entry._replace(action="fail", reason=f"has more than one mask: {named}", code="several_masks")
    if masks:
        return entry._replace(mask=masks[0])
    if source.path is None:
        return entry
    return entry._replace(**source.when_missing())
