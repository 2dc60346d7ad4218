"""What a run will do, decided and checked before the first image is read."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from restore.errors import RestoreError, printable
from restore.files import check_not_within, check_writable, not_found_message
from restore.fix.log import ReasonCode
from restore.fix.masks import MaskSource, pair_masks
from restore.fix.options import EXTENSIONS, FilePath, FixOptions
from restore.images import (
    FORMAT_OF_SUFFIX,
    IMAGE_SUFFIXES,
    UNREADABLE_SUFFIXES,
    WRITABLE_FORMATS,
    NotAnImage,
    find_images,
    format_of,
    unlistable_message,
)

#: Standard input or output in the place of a file.
PIPE = Path("-")


def is_pipe(given: str | os.PathLike[str]) -> bool:
    """Whether a path is standard input or output."""
    return os.fspath(given) == "-"


def as_path(given: str | os.PathLike[str]) -> Path:
    """A path; `-` is `PIPE`. The file `./-` gets its folder, so that the two differ."""
    path = Path(given)
    return Path.cwd() / path if path == PIPE and not is_pipe(given) else path


def called(path: Path, pipe: str = "standard input") -> str:
    """An input (or with `pipe`, an output) as messages name it."""
    return pipe if path == PIPE else printable(path)


def check_input(source: Path) -> None:
    """Check that an input can be read.

    Raises:
        RestoreError: exit code 2; it cannot, or is a single file that is not an image.
    """
    try:
        source.stat()
    except OSError as error:
        missing = isinstance(error, (FileNotFoundError, NotADirectoryError))
        what = not_found_message(source, "file or folder") if missing else f"cannot be read: {error.strerror}"
        raise RestoreError(what, where=source) from error
    if source.is_dir():
        if not os.access(source, os.R_OK | os.X_OK):
            raise RestoreError("no permission to read this folder", where=source)
    elif not source.is_file():
        raise RestoreError("neither a file nor a folder", where=source)
    elif not os.access(source, os.R_OK):
        raise RestoreError("no permission to read this file", where=source)
    else:
        try:
            _format_of_file(source)
        except RestoreError as error:
            error.exit_code = 2
            raise
        except OSError as error:
            raise RestoreError(f"cannot be read: {error.strerror}", where=source) from error


def piped_target(
    source: Path, output: str | os.PathLike[str], *, suffix: str, extension: str | None
) -> tuple[Path, str | None]:
    """The output of an image that comes from a pipe or goes to one, and its format (None: the source's)."""
    target = as_path(output)
    if target == PIPE:
        if source.is_dir():
            raise RestoreError("a folder cannot be written to standard output", where=source, hint="choose one image")
        if suffix:
            raise RestoreError("does not apply to standard output", where="--suffix", hint="leave it out")
        return PIPE, None if extension is None else FORMAT_OF_SUFFIX[extension]
    if target.is_dir() or os.fspath(output).endswith(("/", os.sep)):
        raise RestoreError(
            "is a folder, and standard input has no file name", where=output, hint="add a file name: x.png"
        )
    target = single_target(source, output, suffix=suffix, extension=extension)
    return target, FORMAT_OF_SUFFIX[target.suffix.lower()]


def single_target(source: Path, output: str | os.PathLike[str], *, suffix: str, extension: str | None) -> Path:
    """The output of one file: in a folder under its own name, or the file that was named."""
    text, target = os.fspath(output), as_path(output)
    if target.is_dir() or text.endswith(("/", os.sep)):
        if target.exists() and not target.is_dir():
            raise RestoreError("is a file, not a folder", where=target, hint="remove the slash at the end")
        target = target / renamed(Path(source.name), suffix, extension)
    else:
        kind = FORMAT_OF_SUFFIX.get(target.suffix.lower())
        same = target.suffix.lower() == source.suffix.lower()  # then the content decides on the format
        if kind is None or (kind not in WRITABLE_FORMATS and not same):
            if not target.suffix:
                hint = "add a slash for a folder, or .png, .jpg, .tiff or .webp for a file"
                raise RestoreError("could be a file or a folder", where=target, hint=hint)
            raise RestoreError(
                f"cannot write files of the kind {target.suffix!r}",
                where=target,
                hint=f"one of {' '.join(sorted(s for s, k in FORMAT_OF_SUFFIX.items() if k in WRITABLE_FORMATS))}",
            )
        if suffix:
            raise RestoreError("does not apply to an output that is a file", where="--suffix", hint="leave it out")
        if extension is not None and kind != FORMAT_OF_SUFFIX[extension]:
            raise RestoreError(
                f"{extension[1:]} contradicts the name of the output", where="--ext", hint="leave it out"
            )
    if source != PIPE and target.exists() and os.path.samefile(source, target):
        raise RestoreError("the output is the input itself", where=target, hint="choose another name")
    return target


def check_folder_target(source: Path, target: Path) -> None:
    """Check that the output of a folder is a folder, and neither the input nor inside it, also by another name."""
    if target.is_dir():
        pass
    elif target.exists():
        raise RestoreError("the input is a folder, but the output is a file", where=target, hint="choose a folder")
    elif target.suffix.lower() in FORMAT_OF_SUFFIX:
        raise RestoreError(
            "the input is a folder, but the output looks like a file", where=target, hint="choose a folder"
        )
    check_not_within(target, source)


def renamed(name: Path, suffix: str, extension: str | None) -> Path:
    """The relative output path. A suffix that already names the format stays; so does an unknown one."""
    ending, known = name.suffix, FORMAT_OF_SUFFIX.get(name.suffix.lower())
    if extension is not None and known not in (None, FORMAT_OF_SUFFIX[extension]):
        ending = extension
    return name if not suffix and ending == name.suffix else name.with_name(f"{name.stem}{suffix}{ending}")


def new_format(name: Path, target: Path) -> str | None:
    """The format to write if the suffixes differ; None keeps the source's format."""
    if name.suffix.lower() == target.suffix.lower():
        return None
    return FORMAT_OF_SUFFIX[target.suffix.lower()]


Action = Literal["repair", "unmasked", "skip", "fail"]


class _AnySuffix(frozenset[str]):
    """Lists every file, since an image with a strange suffix must not be skipped silently."""

    def __contains__(self, suffix: object) -> bool:
        return True


@dataclass(frozen=True)
class Job:
    """One image: where it comes from, where it goes, and what happens to it.

    Attributes:
        source: the image.
        target: the output; no other job has it, and it is no file that is read.
        mask: file of its mask; None: there is none, or it is the image's own alpha or detected.
        action: `repair`; `unmasked`: it has no mask and nothing to fill; `skip`, `fail`: it is not read.
        reason: why it is skipped or fails.
        code: the same for programs; see `restore.fix.log.ReasonCode`.
        format: to write; None: that of the source's content.
        side_target: a second output: the mask that was used, or a preview; None: there is none.
    """

    source: Path
    target: Path
    mask: Path | None = None
    action: Action = "repair"
    reason: str = ""
    code: ReasonCode = ""
    format: str | None = None
    side_target: Path | None = None

    @property
    def targets(self) -> tuple[Path, ...]:
        """All files that this job writes."""
        return (self.target,) if self.side_target is None else (self.target, self.side_target)


@dataclass(frozen=True)
class FixPlan:
    """Everything that `run_fix` will do, in order.

    Attributes:
        input, output: as the user gave them.
        single: the input is one file.
        jobs: one for each image, sorted by path, then a failing one for each folder that cannot be listed.
        masks: where masks come from; None without masks.
        unmatched_masks: mask files without an image.
        warnings: what the user should know, one line each.
        overwrite: existing outputs are replaced.
        side_folder: the folder of second outputs; None: there are none.
        for_page: second outputs are masks that the HTML report shows.
    """

    input: Path
    output: Path
    single: bool
    jobs: list[Job]
    masks: MaskSource | None = None
    unmatched_masks: list[Path] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    overwrite: bool = False
    side_folder: Path | None = None
    for_page: bool = False

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
            "input": os.fspath(self.input),
            "output": os.fspath(self.output),
            "jobs": jobs,
            "unmatched_masks": [os.fspath(mask) for mask in self.unmatched_masks],
            "warnings": self.warnings,
        }


def plan_fix(input: FilePath, output: FilePath, options: FixOptions | None = None) -> FixPlan:
    """List the images, pair their masks, decide the outputs' names, and refuse what could lose anything.

    Args:
        input: an image, or a folder (recursive; hidden files are left out); `-` is standard input.
        output: for a folder: a folder, made if missing. For an image: a file with an image's suffix, or a folder
            (existing, or ending in a slash); `-` is standard output.
        options: about masks, files and reports; None: the defaults. In mask files white = repair.

    Raises:
        RestoreError: exit code 2; nothing has been written. The input is missing, unreadable or holds no image; the
            output is the input, inside it, or of the wrong kind; two images would get one name; outputs exist and
            neither `overwrite` nor `skip_existing` is set; masks are missing; the output cannot be written to.
    """
    options = options or FixOptions()
    for name, path in (("INPUT", input), ("OUTPUT", output)):
        if not os.fspath(path):  # as a shell makes it of a variable that is not set
            raise RestoreError("must not be empty", where=name, hint="the current folder is .")
    options.check_masks(has_masks=options.masks is not None)
    source, target, suffix, include, exclude = (
        as_path(input), as_path(output), options.suffix, options.include, options.exclude,
    )  # fmt: skip
    extension = None if options.ext is None else EXTENSIONS[options.ext]
    if source != PIPE:
        check_input(source)
    masks = options.masks
    mask_source = (
        None if masks is None else MaskSource.open(masks, invert=options.mask_invert, missing=options.mask_missing)
    )

    single = source == PIPE or not source.is_dir()
    if single and (include or exclude):
        raise RestoreError("is a file; --include and --exclude only apply to folders", where=source)
    unlistable: dict[Path, OSError] = {}
    left_out: list[Path] = []
    if PIPE in (source, target):
        if source == PIPE and mask_source is not None and mask_source.folder:
            raise RestoreError(
                "is a folder, and standard input has no name to find its mask by", where=masks, hint="choose a file"
            )
        folder, names = source.parent, [Path(source.name)]
        everything = names
        goal, kind = piped_target(source, output, suffix=suffix, extension=extension)
        if goal != PIPE:
            check_writable(goal.parent)
        jobs = [Job(source, goal, format=kind)]
    elif single:
        folder, names = source.parent, [Path(source.name)]
        everything = names
        goal = single_target(source, output, suffix=suffix, extension=extension)
        check_writable(goal.parent)
        jobs = [Job(source, goal, format=new_format(source, goal))]
    else:
        folder = source
        check_folder_target(source, target)
        check_writable(target)
        everything = find_images(
            source,
            suffixes=_AnySuffix(),
            on_unlistable=unlistable.setdefault,
            on_left_out=left_out.append,
        )
        names = everything
        if include or exclude:
            unlistable.clear()
            left_out.clear()
            names = find_images(
                source,
                include=include,
                exclude=exclude,
                suffixes=_AnySuffix(),
                on_unlistable=unlistable.setdefault,
                on_left_out=left_out.append,
            )
        if mask_source is not None:
            names = mask_source.without_masks(source, names, everything)
            everything = mask_source.without_masks(source, everything, everything)
        jobs = [_job(source, target, name, suffix, extension) for name in names]
        for parent in dict.fromkeys(job.target.parent for job in jobs if job.action != "skip"):
            check_writable(parent)
        if all(job.action == "skip" for job in jobs) and not unlistable:
            narrowed = " match --include and --exclude" if len(everything) > len(names) else ""
            raise RestoreError(f"no images in this folder{narrowed}", where=source)

    unmatched: dict[Path, str] = {}
    if mask_source is not None:
        masks_of, unmatched = pair_masks(mask_source, folder, names, everything)
        jobs = [
            job if job.action == "skip" else _with_mask(job, masks_of[name], mask_source)
            for job, name in zip(jobs, names)
        ]
        if single:
            unmatched = {}
    refuse_collisions(jobs)
    jobs = _settle_existing(jobs, overwrite=options.overwrite, skip_existing=options.skip_existing)
    for place, error in unlistable.items():
        code: ReasonCode = "no_permission" if isinstance(error, PermissionError) else "io_error"
        jobs.append(Job(source / place, target / place, action="fail", reason=unlistable_message(error), code=code))
    warnings = [f"{printable(path)}: {reason}" for path, reason in unmatched.items()] + left_out_lines(left_out)
    plan = FixPlan(source, target, single, jobs, mask_source, list(unmatched), warnings, options.overwrite)
    if options.save_masks is not None or (options.html_report is not None and masks == "auto"):
        from restore.fix.side_outputs import with_saved_masks

        plan = with_saved_masks(plan, options)
    if options.html_report is not None:
        from restore.fix.html_report import check_fix_page

        check_fix_page(options.html_report, plan)
    return plan


def _job(source: Path, target: Path, name: Path, suffix: str, extension: str | None) -> Job:
    goal = renamed(name, suffix, extension)
    job = Job(source / name, target / goal, format=new_format(name, goal))
    if name.suffix.lower() in IMAGE_SUFFIXES:
        return job
    try:
        _format_of_file(job.source)
    except RestoreError as error:
        if name.suffix.lower() not in UNREADABLE_SUFFIXES:
            return replace(job, action="skip", reason="not an image", code="not_an_image")
        reason = error.what if error.hint is None else f"{error.what}; {error.hint}"
        code: ReasonCode = "not_an_image" if isinstance(error, NotAnImage) else "unsupported"
        return replace(job, action="fail", reason=reason, code=code)
    except OSError:  # reading it will say why
        pass
    return job


def left_out_lines(paths: Iterable[Path]) -> list[str]:
    """What a folder holds that is not repaired without being asked for, in at most one line."""
    counts = Counter("._*" if path.name.startswith("._") else printable(path.name) for path in paths)
    if not counts:
        return []
    named = [f"{name} ({count} times)" if count > 1 else name for name, count in counts.most_common(5)]
    more = f" and {len(counts) - len(named)} more" if len(counts) > len(named) else ""
    return [f"left out, as hidden or made by a system: {', '.join(named)}{more}; name one as INPUT to repair it"]


def _format_of_file(path: Path) -> str:
    """The format of a file by its first bytes.

    Raises:
        NotAnImage: it is not an image, or not even a file.
        RestoreError: it is an image of a format that is not read.
        OSError: it cannot be read.
    """
    if not path.is_file():
        raise NotAnImage("not a regular file", where=path)
    with open(path, "rb") as file:
        return format_of(file.read(1024), path)


def _with_mask(job: Job, masks: list[Path], source: MaskSource) -> Job:
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
    for job in jobs:
        for path in (job.source, job.mask):
            if path is not None and path != PIPE:
                read.add(os.path.realpath(path))
                read.add(os.path.join(os.path.realpath(path.parent), path.name))
    folders: dict[Path, tuple[str, bool]] = {}
    taken: dict[str, tuple[Job, Path]] = {}
    for job, target in ((one, target) for one in jobs for target in one.targets):
        if job.action == "skip" or target == PIPE:
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
    existing = {
        job.target
        for job in jobs
        if job.action not in ("skip", "fail") and job.target != PIPE and os.path.lexists(job.target)
    }
    if existing and not skip_existing:
        first = next(job.target for job in jobs if job.target in existing)
        more = f" (and {len(existing) - 1} more outputs)" if len(existing) > 1 else ""
        raise RestoreError(f"exists already{more}", where=first, hint="use --overwrite or --skip-existing")
    done: dict[str, Any] = {"action": "skip", "reason": "the output exists", "code": "output_exists"}
    return [replace(job, **done) if job.target in existing else job for job in jobs]
