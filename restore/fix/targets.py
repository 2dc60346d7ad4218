"""Where outputs go, and in which format: decided by the names of inputs and outputs, `--suffix` and `--ext`."""

from __future__ import annotations

import os
from pathlib import Path, PurePath

from restore.errors import RestoreError
from restore.files import check_not_within
from restore.fix.inputs import PIPE, as_path
from restore.images import FORMAT_OF_SUFFIX, WRITABLE_FORMATS
from restore.video.formats import CONTAINER_OF_SUFFIX


def piped_target(
    source: Path, output: str | os.PathLike[str], *, suffix: str, extension: str | None
) -> tuple[Path, str | None]:
    """The output of an image that comes from a pipe or goes to one, and its format (None: the source's)."""
    target = as_path(output)
    if target == PIPE:
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
        check_named_target(source, target, suffix=suffix, extension=extension)
    if source != PIPE and target.exists() and os.path.samefile(source, target):
        raise RestoreError("the output is the input itself", where=target, hint="choose another name")
    return target


def check_named_target(source: PurePath, target: PurePath, *, suffix: str, extension: str | None) -> None:
    """Check that the name of an output says in which format to write it, and agrees with `--suffix` and `--ext`.

    Raises:
        RestoreError: exit code 2.
    """
    kind = FORMAT_OF_SUFFIX.get(target.suffix.lower())
    same = target.suffix.lower() == source.suffix.lower()  # then the content decides on the format
    if kind is None or (kind not in WRITABLE_FORMATS and not same):
        if not target.suffix:
            hint = "add a slash for a folder, or .png, .jpg, .tiff, .webp or .avif for a file"
            raise RestoreError("could be a file or a folder", where=target, hint=hint)
        raise RestoreError(
            f"cannot write files of the kind {target.suffix!r}",
            where=target,
            hint=f"one of {' '.join(sorted(s for s, k in FORMAT_OF_SUFFIX.items() if k in WRITABLE_FORMATS))}",
        )
    if suffix:
        raise RestoreError("does not apply to an output that is a file", where="--suffix", hint="leave it out")
    if extension is not None and kind != FORMAT_OF_SUFFIX[extension]:
        raise RestoreError(f"{extension[1:]} contradicts the name of the output", where="--ext", hint="leave it out")


def video_target(source: Path, output: str | os.PathLike[str], *, suffix: str, ending: str) -> Path:
    """The output of one video: in a folder under its own name with `ending`, or the file that was named."""
    text, target = os.fspath(output), as_path(output)
    if target.is_dir() or text.endswith(("/", os.sep)):
        if target.exists() and not target.is_dir():
            raise RestoreError("is a file, not a folder", where=target, hint="remove the slash at the end")
        target = target / renamed(Path(source.name), ending, None)
    elif suffix:
        raise RestoreError("does not apply to an output that is a file", where="--suffix", hint="leave it out")
    check_video_name(target)
    if target.exists() and os.path.samefile(source, target):
        raise RestoreError("the output is the input itself", where=target, hint="choose another name")
    return target


def check_video_name(target: PurePath) -> None:
    """Check that the name of an output is that of a video that can be written.

    Raises:
        RestoreError: exit code 2.
    """
    if target.suffix.lower() not in CONTAINER_OF_SUFFIX:
        raise RestoreError(
            f"cannot write videos of the kind {target.suffix!r}",
            where=target,
            hint=f"one of {' '.join(sorted(CONTAINER_OF_SUFFIX))}",
        )


def check_folder_target(source: Path | None, target: Path) -> None:
    """Check that the output is a folder, and neither an input folder nor inside it, also by another name.

    Args:
        source: the input folder; None: several files.
        target: the output.
    """
    inputs = "there are several inputs" if source is None else "the input is a folder"
    if target.is_dir():
        pass
    elif target.exists():
        raise RestoreError(f"{inputs}, but the output is a file", where=target, hint="choose a folder")
    elif target.suffix.lower() in FORMAT_OF_SUFFIX.keys() | CONTAINER_OF_SUFFIX.keys():
        raise RestoreError(f"{inputs}, but the output looks like a file", where=target, hint="choose a folder")
    if source is not None:
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
