"""Where outputs go and what they are called; everything here refuses, and writes nothing."""

from __future__ import annotations

import os
from pathlib import Path

from restore.errors import RestoreError, printable
from restore.files import absent
from restore.images import FORMAT_OF_SUFFIX, WRITABLE_FORMATS

#: What `--ext` knows, and the suffix that it gives.
EXTENSIONS = {"png": ".png", "jpg": ".jpg", "webp": ".webp", "tiff": ".tiff"}

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
        what = absent(source, "file or folder") if missing else f"cannot be read: {error.strerror}"
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
