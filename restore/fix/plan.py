"""What `fix` is going to do, settled and checked before the first pixel is touched."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from restore.errors import RestoreError, printable
from restore.files import check_writable, not_found_message
from restore.fix.masks import MaskSource, pair_masks
from restore.fix.options import EXTENSIONS, FilePath, FixOptions
from restore.images import (
    FORMAT_OF_SUFFIX,
    IMAGE_SUFFIXES,
    UNREADABLE_SUFFIXES,
    WRITABLE_FORMATS,
    find_images,
    format_of,
)

# Where outputs go and what they are called; everything here refuses, and writes nothing.


#: Standard input or output in a picture's place.
PIPE = Path("-")


def is_pipe(given: str | os.PathLike[str]) -> bool:
    """Whether the user means standard input or output, and no file."""
    return os.fspath(given) == "-"


def as_path(given: str | os.PathLike[str]) -> Path:
    """`-` is a pipe (`PIPE`); `./-` is the file of that name, and gets its folder so that the two differ."""
    path = Path(given)
    return Path.cwd() / path if path == PIPE and not is_pipe(given) else path


def called(path: Path, pipe: str = "standard input") -> str:
    """A picture's source (or, with its word for pipes, target) as messages name it."""
    return pipe if path == PIPE else printable(path)


def check_input(source: Path) -> None:
    """That there is something to read."""
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


def piped_target(
    source: Path, output: str | os.PathLike[str], *, suffix: str, extension: str | None
) -> tuple[Path, str | None]:
    """Where one picture goes that comes from a pipe or goes to one, and its format (None: the source's)."""
    target = as_path(output)
    if target == PIPE:
        if source.is_dir():
            raise RestoreError("a folder does not fit through a pipe", where=source, hint="name a picture")
        if suffix:
            raise RestoreError("what goes to standard output has no name", where="--suffix", hint="leave it out")
        return PIPE, None if extension is None else FORMAT_OF_SUFFIX[extension]
    if target.is_dir() or os.fspath(output).endswith(("/", os.sep)):
        raise RestoreError(
            "a folder, and what comes from standard input has no name", where=output, hint="end it with a name: x.png"
        )
    target = single_target(source, output, suffix=suffix, extension=extension)
    return target, FORMAT_OF_SUFFIX[target.suffix.lower()]


def single_target(source: Path, output: str | os.PathLike[str], *, suffix: str, extension: str | None) -> Path:
    """Where the result of one file goes: into a folder under its own name, or to the file that is named."""
    text, target = os.fspath(output), as_path(output)
    if target.is_dir() or text.endswith(("/", os.sep)):
        if target.exists() and not target.is_dir():
            raise RestoreError("is a file, not a folder", where=target, hint="leave out the slash at the end")
        target = target / renamed(Path(source.name), suffix, extension)
    else:
        kind = FORMAT_OF_SUFFIX.get(target.suffix.lower())
        same = target.suffix.lower() == source.suffix.lower()  # then the content decides, whatever the name says
        if kind is None or (kind not in WRITABLE_FORMATS and not same):
            if not target.suffix:
                hint = "end it with a slash for a folder, or with .png, .jpg, .tiff or .webp for a file"
                raise RestoreError("a file or a folder?", where=target, hint=hint)
            raise RestoreError(
                f"cannot write files of the kind {target.suffix!r}",
                where=target,
                hint=f"one of {' '.join(sorted(s for s, k in FORMAT_OF_SUFFIX.items() if k in WRITABLE_FORMATS))}",
            )
        if suffix:
            raise RestoreError("--suffix is for folders; this output has its name", where=target)
        if extension is not None and kind != FORMAT_OF_SUFFIX[extension]:
            raise RestoreError(f"--ext {extension[1:]} contradicts the output's name", where=target)
    if source != PIPE and target.exists() and os.path.samefile(source, target):
        raise RestoreError("the output is the input itself", where=target, hint="choose another name")
    return target


def check_folder_target(source: Path, target: Path) -> None:
    """That a folder's results go to a folder, which is neither the input nor inside it, by whatever name."""
    if target.is_dir():
        pass
    elif target.exists():
        raise RestoreError("the input is a folder, and the output is a file", where=target, hint="name a folder")
    elif target.suffix.lower() in FORMAT_OF_SUFFIX:
        raise RestoreError(
            "the input is a folder, and the output looks like a file", where=target, hint="name a folder"
        )
    real = Path(os.path.realpath(target))
    for folder in (real, *real.parents):
        if folder.exists() and os.path.samefile(folder, source):
            what = "the output folder is the input folder" if folder == real else "the output is inside the input"
            raise RestoreError(what, where=target, hint="choose a folder beside it")


def renamed(name: Path, suffix: str, extension: str | None) -> Path:
    """The relative output path. A suffix that says the wanted format stays; so does an unknown one."""
    ending, known = name.suffix, FORMAT_OF_SUFFIX.get(name.suffix.lower())
    if extension is not None and known not in (None, FORMAT_OF_SUFFIX[extension]):
        ending = extension
    return name if not suffix and ending == name.suffix else name.with_name(f"{name.stem}{suffix}{ending}")


def new_format(name: Path, target: Path) -> str | None:
    """What to write where the target's suffix differs from the source's; None keeps the source's format."""
    if name.suffix.lower() == target.suffix.lower():
        return None
    return FORMAT_OF_SUFFIX[target.suffix.lower()]


Action = Literal["repair", "unmasked", "skip", "fail"]


class _AnySuffix(frozenset[str]):
    """Lists every file: a picture under a strange name is not to be left behind in silence."""

    def __contains__(self, suffix: object) -> bool:
        return True


@dataclass(frozen=True)
class Job:
    """One picture: from where, to where, and what is to happen.

    Attributes:
        source: the picture.
        target: where the result goes; differs from every other job's and is no file that is read.
        mask: its mask's file, or None (no masks, or the picture's own alpha).
        action: `repair`; `unmasked`: it has no mask and counts as clean; `skip`, `fail`: it is not even read.
        reason: why it is skipped or fails.
        format: to write; None: the source's own, whatever its name says.
    """

    source: Path
    target: Path
    mask: Path | None = None
    action: Action = "repair"
    reason: str = ""
    format: str | None = None


@dataclass(frozen=True)
class FixPlan:
    """Everything that `run_fix` will do, in order. Making it writes nothing.

    Attributes:
        input, output: as the user gave them.
        single: the input is one file.
        jobs: one per picture, sorted by path, and then one that fails per folder that cannot be listed.
        masks: where masks come from, None without masks.
        unmatched_masks: mask files that belong to no picture.
        warnings: things that the user should know, one line each.
        overwrite: outputs that exist are replaced.
    """

    input: Path
    output: Path
    single: bool
    jobs: list[Job]
    masks: MaskSource | None = None
    unmatched_masks: list[Path] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    overwrite: bool = False

    def format(self) -> list[str]:
        """One line per job, as `--dry-run` shows it."""
        lines = []
        for job in self.jobs:
            line = f"{called(job.source)} -> {called(job.target, 'standard output')}"
            if job.action in ("skip", "fail"):
                line = f"{called(job.source)}: {'skipped' if job.action == 'skip' else 'fails'}: {job.reason}"
            elif job.action == "unmasked":
                line += " (no mask: counts as clean)"
            elif job.mask is not None:
                line += f" (mask {printable(job.mask)})"
            lines.append(line)
        return lines

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON holds it, for scripts: paths as they are, whatever their bytes."""
        jobs = [
            {
                "input": os.fspath(job.source),
                "output": os.fspath(job.target),
                "mask": None if job.mask is None else os.fspath(job.mask),
                "action": job.action,
                "reason": job.reason,
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
        raise RestoreError("--include and --exclude choose among the files of a folder, and this is none", where=source)
    unlistable: dict[Path, str] = {}
    if PIPE in (source, target):
        if source == PIPE and mask_source is not None and mask_source.folder:
            raise RestoreError(
                "what comes from standard input has no name to find its mask by", where=masks, hint="name one mask"
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
        everything = find_images(source, suffixes=_AnySuffix(), on_unlistable=unlistable.setdefault)
        names = everything
        if include or exclude:
            unlistable.clear()
            names = find_images(
                source,
                include=include,
                exclude=exclude,
                suffixes=_AnySuffix(),
                on_unlistable=unlistable.setdefault,
            )
        if mask_source is not None:
            names = mask_source.without_masks(source, names, everything)
            everything = mask_source.without_masks(source, everything, everything)
        jobs = [_job(source, target, name, suffix, extension) for name in names]
        for parent in dict.fromkeys(job.target.parent for job in jobs if job.action != "skip"):
            check_writable(parent)
        if all(job.action == "skip" for job in jobs) and not unlistable:
            narrowed = " that --include and --exclude leave" if len(everything) > len(names) else ""
            raise RestoreError(f"no pictures{narrowed} in this folder", where=source)

    unmatched: list[Path] = []
    if mask_source is not None:
        masks_of, unmatched = pair_masks(mask_source, folder, names, everything)
        jobs = [
            job if job.action == "skip" else _with_mask(job, masks_of[name], mask_source)
            for job, name in zip(jobs, names)
        ]
        if single:
            unmatched = []
    _refuse_collisions(jobs)
    jobs = _settle_existing(jobs, overwrite=options.overwrite, skip_existing=options.skip_existing)
    jobs += [Job(source / name, target / name, action="fail", reason=why) for name, why in unlistable.items()]
    warnings = [f"{printable(path)}: a mask with no picture" for path in unmatched]
    return FixPlan(source, target, single, jobs, mask_source, unmatched, warnings, options.overwrite)


def _job(source: Path, target: Path, name: Path, suffix: str, extension: str | None) -> Job:
    goal = renamed(name, suffix, extension)
    job = Job(source / name, target / goal, format=new_format(name, goal))
    if name.suffix.lower() in IMAGE_SUFFIXES | UNREADABLE_SUFFIXES or _is_picture(job.source):
        return job
    return replace(job, action="skip", reason="no picture by its content")


def _is_picture(path: Path) -> bool:
    """Whether a file whose name does not say so holds a picture that can be read."""
    try:
        if not path.is_file():
            return False
        with open(path, "rb") as file:
            format_of(file.read(1024), path)
    except RestoreError:
        return False
    except OSError:  # not known; reading it will tell why
        return True
    return True


def _with_mask(job: Job, masks: list[Path], source: MaskSource) -> Job:
    if len(masks) > 1:
        named = " and ".join(printable(mask) for mask in masks)
        return replace(job, action="fail", reason=f"has more than one mask: {named}; leave one")
    if masks:
        return replace(job, mask=masks[0])
    if source.path is None:
        return job
    return replace(job, **source.when_missing())


def _refuse_collisions(jobs: Iterable[Job]) -> None:
    """No two outputs of one name, no output that is also read, no output that is a folder."""
    read: set[str] = set()
    for job in jobs:
        for path in (job.source, job.mask):
            if path is not None and path != PIPE:
                read.add(os.path.realpath(path))
                read.add(os.path.join(os.path.realpath(path.parent), path.name))
    folders: dict[Path, tuple[str, bool]] = {}
    taken: dict[str, Job] = {}
    for job in jobs:
        if job.action == "skip" or job.target == PIPE:
            continue
        parent = job.target.parent
        if parent not in folders:
            folders[parent] = (os.path.realpath(parent), _ignores_case(parent))
        real, ignores_case = folders[parent]
        place = os.path.join(real, job.target.name)
        if place in read:
            raise RestoreError(
                "this output would replace a file that is read",
                where=job.target,
                hint="choose another output folder",
            )
        if job.target.is_dir():
            raise RestoreError("a folder stands where this output goes", where=job.target)
        other = taken.setdefault(place.lower() if ignores_case else place, job)
        if other is not job:
            raise RestoreError(
                f"{printable(other.source)} and {printable(job.source)} would both be written here",
                where=job.target,
                hint="rename one of them, or repair them apart with --exclude",
            )


def _ignores_case(folder: Path) -> bool:
    """Whether `A` and `a` are one file there, as on most disks of macOS and Windows."""
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
        raise RestoreError(f"exists already{more}", where=first, hint="--overwrite replaces, --skip-existing goes on")
    return [replace(job, action="skip", reason="the output exists") if job.target in existing else job for job in jobs]
