"""What a run will do, decided and checked before the first image is read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from restore.errors import RestoreError, printable
from restore.files import check_writable
from restore.fix.inputs import (
    PIPE,
    VIDEO,
    Listing,
    as_path,
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
from restore.fix.log import ReasonCode
from restore.fix.masks import MaskSource, pair_masks
from restore.fix.options import EXTENSIONS, FilePath, FixOptions, parse_shard
from restore.fix.targets import check_folder_target, new_format, piped_target, renamed, single_target, video_target
from restore.images import FORMAT_OF_SUFFIX, IMAGE_SUFFIXES, UNREADABLE_SUFFIXES, NotAnImage
from restore.images.formats import READ_ONLY_FORMATS
from restore.video.formats import CONTAINER_OF_SUFFIX, is_video_file

Action = Literal["repair", "unmasked", "skip", "fail"]


class NoImages(RestoreError):
    """The inputs hold no image."""


@dataclass(frozen=True)
class Job:
    """One image: where it comes from, where it goes, and what happens to it.

    Attributes:
        source: the image.
        target: the output; no other job has it, and it is no file that is read.
        name: the path of the image in the tree of the outputs, before `suffix` and `ext` change it.
        named: the user named this file; it was not found in a folder.
        mask: file of its mask; None: there is none, or it is the image's own alpha or detected.
        action: `repair`; `unmasked`: it has no mask and nothing to fill; `skip`, `fail`: it is not read.
        reason: why it is skipped or fails.
        code: the same for programs; see `restore.fix.log.ReasonCode`.
        format: to write; None: that of the source's content.
        video: it is a video, not an image.
        side_target: a second output: the mask that was used, or a preview; None: there is none.
        sidecars: files that go along, and their outputs.
    """

    source: Path
    target: Path
    mask: Path | None = None
    action: Action = "repair"
    reason: str = ""
    code: ReasonCode = ""
    format: str | None = None
    video: bool = False
    side_target: Path | None = None
    name: Path = Path()
    named: bool = False
    sidecars: tuple[tuple[Path, Path], ...] = ()

    @property
    def targets(self) -> tuple[Path, ...]:
        """All files that this job writes."""
        side = () if self.side_target is None else (self.side_target,)
        return (self.target, *side, *(target for _, target in self.sidecars))


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
        folders: the input folders.
    """

    inputs: tuple[Path, ...]
    output: Path
    single: bool
    jobs: list[Job]
    masks: MaskSource | None = None
    unmatched_masks: list[Path] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    overwrite: bool = False
    side_folder: Path | None = None
    for_page: bool = False
    folders: tuple[Path, ...] = ()

    @property
    def from_pipe(self) -> bool:
        """Whether the image comes from standard input."""
        return any(job.source == PIPE for job in self.jobs)

    @property
    def has_work(self) -> bool:
        """Whether an image is to be read; otherwise all are skipped or fail, and no model is needed."""
        return any(job.action not in ("skip", "fail") for job in self.jobs)

    @property
    def input(self) -> str | list[str]:
        """The input as logs and JSON hold it: one path, or several."""
        names = [os.fspath(path) for path in self.inputs]
        return names[0] if len(names) == 1 else names

    def format(self) -> list[str]:
        """One line for each job, as `--dry-run` prints them."""
        lines = []
        for job in self.jobs:
            line = f"{called(job.source)} -> {called(job.target, 'standard output')}"
            if job.action in ("skip", "fail"):
                line = f"{called(job.source)}: {'skipped' if job.action == 'skip' else 'fails'}: {job.reason}"
            elif job.action == "unmasked":
                line += " (no mask: nothing to fill)"
            elif job.mask is not None:
                line += f" (mask {printable(job.mask)})"
            if job.action == "repair" and job.side_target is not None and not self.for_page:
                line += f" (saves mask {printable(job.side_target)})"
            lines.append(line)
        return lines

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON holds it, for scripts; paths are not escaped."""
        jobs = [
            {
                "input": os.fspath(job.source),
                "output": os.fspath(job.target),
                "mask": None if job.mask is None else os.fspath(job.mask),
                "saved_mask": None if job.side_target is None or self.for_page else os.fspath(job.side_target),
                "action": job.action,
                "reason": job.reason,
                "reason_code": job.code,
            }
            for job in self.jobs
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
            files are those of `options.files_from`.
        output: for a folder or several inputs: a folder, made if missing. For an image: a file with an image's
            suffix, or a folder (existing, or ending in a slash); `-` is standard output.
        options: about masks, files and reports; None: the defaults. In mask files white = repair.

    Raises:
        RestoreError: exit code 2; nothing has been written. The input is missing, unreadable or holds no image; the
            output is the input, inside it, or of the wrong kind; two images would get one name; outputs exist and
            neither `overwrite` nor `skip_existing` is set; masks are missing; the output cannot be written to.
    """
    options = options or FixOptions()
    given = [input] if isinstance(input, str | os.PathLike) else list(input)
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
        jobs = [_single_job(inputs[0], output, options, mask_source)]
    else:
        listing = _list_to_folder(inputs, listed, target, options, mask_source)
        jobs = _jobs_to_folder(listing, target, options, inputs[0] if inputs else None)
    if options.metadata == "keep":
        from restore.fix.sidecars import with_sidecars

        jobs = with_sidecars(jobs)
        sidecars = {source for job in jobs for source, _ in job.sidecars}
        jobs = [job for job in jobs if job.action != "skip" or job.source not in sidecars]
    unmatched: dict[Path, str] = {}
    if mask_source is not None:
        jobs, unmatched = _with_masks(jobs, listing, mask_source, one_input=len(inputs) == 1)
    refuse_collisions(jobs)
    unreadable = listing.unreadable
    if options.shard is not None:
        # Only now, so that every shard refuses two images with one output name, and pairs masks and sidecars alike.
        part, parts = parse_shard(options.shard)
        jobs = [job for job in jobs if shard_of(job.name, parts) == part]
        unreadable = [bad for bad in unreadable if shard_of(bad.name, parts) == part]
    jobs = _settle_existing(jobs, overwrite=options.overwrite, skip_existing=options.skip_existing)
    for bad in unreadable:
        failed = Job(bad.source, target / bad.name, action="fail", reason=bad.reason, code=bad.code, name=bad.name)
        jobs.append(failed)
    plan = FixPlan(
        tuple(inputs) or (as_path(options.files_from or ""),),
        target,
        single,
        jobs,
        mask_source,
        list(unmatched),
        [f"{printable(path)}: {reason}" for path, reason in unmatched.items()] + listing.warnings,
        options.overwrite,
        folders=tuple(listing.folders),
    )
    if options.save_masks is not None or (options.html_report is not None and masks == "auto"):
        from restore.fix.side_outputs import with_saved_masks

        plan = with_saved_masks(plan, options)
    if options.html_report is not None:
        from restore.fix.html_report import check_fix_page

        check_fix_page(options.html_report, plan)
    return plan


def _check_given(
    given: Sequence[FilePath], output: FilePath, options: FixOptions
) -> tuple[list[Path], list[Path] | None]:
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


def _jobs_to_folder(listing: Listing, target: Path, options: FixOptions, source: Path | None) -> list[Job]:
    """The jobs of images that go into a folder, of which there must be one. `source`: the first input; None: a list."""
    ending = None if options.ext is None else EXTENSIONS[options.ext]
    jobs = [
        job_of(path, target / renamed(name, options.suffix, ending), name, named=name in listing.named)
        for name, path in listing.files.items()
    ]
    for parent in dict.fromkeys(job.target.parent for job in jobs if job.action != "skip"):
        check_writable(parent)
    if all(job.action == "skip" for job in jobs) and not listing.unreadable:
        narrowed = " match --include and --exclude" if len(listing.everything) > len(listing.files) else ""
        left_out = f" ({listing.warnings[0]})" if listing.warnings else ""
        what = f"no images in this {'list' if source is None else 'folder'}{narrowed}{left_out}"
        raise NoImages(what, where=options.files_from if source is None else source)
    return jobs


def _with_masks(
    jobs: list[Job], listing: Listing, masks: MaskSource, *, one_input: bool
) -> tuple[list[Job], dict[Path, str]]:
    """The jobs with their masks, and the masks without an image, with the reason."""
    folders = listing.folders if one_input else [listing.files[name].parent for name in listing.named]
    beside = masks.path is not None and os.path.realpath(masks.path) in map(os.path.realpath, folders)
    masks_of, unmatched = pair_masks(masks, listing.files, listing.everything, beside=beside)
    jobs = [job if job.action == "skip" else with_mask(job, masks_of[job.name], masks) for job in jobs]
    if listing.named and not listing.folders:
        unmatched = {}  # the folder may hold masks of images that were not named
    return jobs, unmatched


def _single_job(source: Path, output: FilePath, options: FixOptions, masks: MaskSource | None) -> Job:
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
        goal = video_target(source, output, suffix=options.suffix)
        check_writable(goal.parent)
        return Job(source, goal, video=True, name=Path(source.name), named=True)
    else:
        goal = single_target(source, output, suffix=options.suffix, extension=extension)
        kind = new_format(source, goal)
    if goal != PIPE:
        check_writable(goal.parent)
    job = Job(source, goal, format=kind, name=Path(source.name), named=True)
    if only_read := _only_read(job):
        raise RestoreError(only_read, where=source, hint="choose another format with --ext, such as tiff")
    return job


def _list_to_folder(
    inputs: Sequence[Path], listed: Sequence[Path] | None, target: Path, options: FixOptions, masks: MaskSource | None
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
    return list_several(inputs, options, masks)


def job_of(source: Path, target: Path, name: Path, *, named: bool) -> Job:
    """The job of a file whose output is known; see `Job` for the arguments. The file need not be an image."""
    job = Job(source, target, format=new_format(name, target), name=name, named=named)
    if only_read := _only_read(job):
        hint = "choose another format with --ext, such as tiff"
        return replace(job, action="fail", reason=f"{only_read}; {hint}", code="unsupported")
    if name.suffix.lower() in IMAGE_SUFFIXES:
        return job
    try:
        if format_of_file(job.source) == VIDEO:
            return _video_job(job)
    except RestoreError as error:
        if name.suffix.lower() not in UNREADABLE_SUFFIXES and not is_video_file(job.source):
            return replace(job, action="skip", reason="not an image", code="not_an_image")
        reason = error.what if error.hint is None else f"{error.what}; {error.hint}"
        code: ReasonCode = "not_an_image" if isinstance(error, NotAnImage) else "unsupported"
        return replace(job, action="fail", reason=reason, code=code)
    except OSError:  # reading it will say why
        pass
    return job


def _video_job(job: Job) -> Job:
    """The job of a video; it fails if its kind of file cannot be written."""
    if job.target.suffix.lower() in CONTAINER_OF_SUFFIX:
        return replace(job, video=True)
    reason = f"videos of the kind {job.target.suffix} can be read but not written; repair it alone, into an .mkv file"
    return replace(job, video=True, action="fail", reason=reason, code="unsupported")


def without_videos(plan: FixPlan) -> FixPlan:
    """The plan for a program that takes images only: videos are skipped, or fail if the user named them."""
    reason: dict[str, Any] = {"reason": "not an image", "code": "not_an_image"}
    return replace(
        plan,
        jobs=[
            replace(job, action="fail" if job.named else "skip", **reason) if job.video else job for job in plan.jobs
        ],
    )


def _only_read(job: Job) -> str:
    """Why an image cannot be written in its own format; "" if it can."""
    suffix = job.source.suffix.lower()
    if job.format is not None or job.source == PIPE or FORMAT_OF_SUFFIX.get(suffix) not in READ_ONLY_FORMATS:
        return ""
    try:
        kind = READ_ONLY_FORMATS.get(format_of_file(job.source))  # the content decides
    except (RestoreError, OSError):  # reading it will say why
        return ""
    return "" if kind is None else f"this is {kind}, which can be read but not written"


def with_mask(job: Job, masks: Sequence[Path], source: MaskSource) -> Job:
    """The job with its mask; without one, or with several, as `source` says."""
    if len(masks) > 1:
        named = " and ".join(printable(mask) for mask in masks)
        return replace(job, action="fail", reason=f"has more than one mask: {named}", code="several_masks")
    if masks:
        return replace(job, mask=masks[0])
    if source.path is None:
        return job
    return replace(job, **source.when_missing())


def refuse_collisions(jobs: Iterable[Job]) -> None:
    """Refuse two outputs with one name, outputs that are also read, and outputs that are folders.

    Raises:
        RestoreError: exit code 2.
    """
    read: set[str] = set()
    real_folders: dict[Path, str] = {}
    for job in jobs:
        for path in (job.source, job.mask, *(sidecar for sidecar, _ in job.sidecars)):
            if path is not None and path != PIPE:
                if path.parent not in real_folders:
                    real_folders[path.parent] = os.path.realpath(path.parent)
                read.add(os.path.join(real_folders[path.parent], path.name))
                if os.path.islink(path):
                    read.add(os.path.realpath(path))
    folders: dict[Path, tuple[str, bool]] = {}
    taken: dict[str, tuple[Job, Path]] = {}
    for job, target in ((one, target) for one in jobs for target in one.targets):
        if job.action in ("skip", "fail") or target == PIPE:
            continue
        parent = target.parent
        if parent not in folders:
            folders[parent] = (os.path.realpath(parent), _ignores_case(parent))
        real, ignores_case = folders[parent]
        place = os.path.join(real, target.name)
        if place in read:
            raise RestoreError(
                "this output would replace an input",
                where=target,
                hint="choose another output folder",
            )
        if target.is_dir():
            raise RestoreError("this output would replace a folder", where=target)
        other, place_of_other = taken.setdefault(place.lower() if ignores_case else place, (job, target))
        if other is job and place_of_other != target:
            raise RestoreError(f"both outputs of {printable(job.source)} would be written here", where=target)
        if other is not job:
            raise RestoreError(
                f"{printable(other.source)} and {printable(job.source)} would both be written here",
                where=target,
                hint="rename one of them, or use --exclude",
            )


def _ignores_case(folder: Path) -> bool:
    """Whether `A` and `a` are the same file in a folder, as on most disks of macOS and Windows."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    swapped = folder.with_name(folder.name.swapcase()) if folder.name else folder
    return swapped != folder and swapped.exists() and os.path.samefile(swapped, folder)


def _settle_existing(jobs: list[Job], *, overwrite: bool, skip_existing: bool) -> list[Job]:
    if overwrite:
        return jobs
    running = [job for job in jobs if job.action not in ("skip", "fail") and job.target != PIPE]
    existing = {job.target for job in running if os.path.lexists(job.target)}
    sidecars = {target for job in running for _, target in job.sidecars if os.path.lexists(target)}
    if (existing or sidecars) and not skip_existing:
        first = next(target for job in running for target in job.targets if target in existing | sidecars)
        count = len(existing) + len(sidecars) - 1
        more = f" (and {count} more outputs)" if count else ""
        raise RestoreError(f"exists already{more}", where=first, hint="use --overwrite or --skip-existing")
    done: dict[str, Any] = {"action": "skip", "reason": "the output exists", "code": "output_exists"}
    return [replace(job, **done) if job.target in existing else job for job in jobs]
