"""What the inputs of a run name: one image, a folder, several of both, or the files of a list."""

from __future__ import annotations

import hashlib
import os
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from restore.errors import RestoreError, printable
from restore.files import not_found_message
from restore.fix.log import ReasonCode
from restore.fix.masks import MaskSource
from restore.fix.options import FilePath, FixOptions
from restore.images import NotAnImage, UnsupportedFile, find_images, format_of, unlistable_message
from restore.images.formats import left_out_lines, matches
from restore.video.formats import check_readable, is_video

#: Standard input or output in the place of a file.
PIPE = Path("-")
#: What `format_of_file` calls a video.
VIDEO = "video"


def is_pipe(given: FilePath) -> bool:
    """Whether a path is standard input or output."""
    return os.fspath(given) == "-"


def as_path(given: FilePath) -> Path:
    """A path; `-` is `PIPE`. The file `./-` gets its folder, so that the two differ."""
    path = Path(given)
    return Path.cwd() / path if path == PIPE and not is_pipe(given) else path


def called(path: FilePath, pipe: str = "standard input") -> str:
    """An input (or with `pipe`, an output) as messages name it."""
    return pipe if os.fspath(path) == "-" else printable(path)


def shard_of(name: Path, parts: int) -> int:
    """The part, from 1 to `parts`, that an image belongs to.

    It depends on its path in the tree of the outputs alone: not on the other images, the machine, or the
    normalization of its name, which differs between file systems.
    """
    text = unicodedata.normalize("NFC", name.as_posix())
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") % parts + 1


@dataclass(frozen=True)
class Unreadable:
    """A file that fails before it is read, or a folder that cannot be listed.

    Attributes:
        source: its path.
        name: its path in the tree of the outputs.
        reason, code: why; see `restore.fix.log.ReasonCode`.
    """

    source: Path
    name: Path
    reason: str
    code: ReasonCode


@dataclass
class Listing:
    """The files that the inputs name. Names are paths in the tree of the outputs, before suffixes change.

    Attributes:
        files: the files to take to outputs, by name.
        everything: these, and the files that the user excluded, by name.
        named: names of the files that the user named, in contrast to those found in a folder.
        folders: the input folders.
        unreadable: files and folders that fail.
        warnings: what is left out without being asked for, one line each.
    """

    files: dict[Path, Path] = field(default_factory=dict)
    everything: dict[Path, Path] = field(default_factory=dict)
    named: set[Path] = field(default_factory=set)
    folders: list[Path] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add(self, name: Path, source: Path) -> None:
        """Add a file that the user named.

        Raises:
            RestoreError: exit code 2; another file has this name.
        """
        other = self.files.setdefault(name, source)
        if other != source:
            raise RestoreError(
                f"{printable(other)} and {printable(source)} would both be written as {printable(name)}",
                hint="rename one of them, or name their folder as INPUT, which keeps its tree",
            )
        self.everything[name] = source
        self.named.add(name)


class _AnySuffix(frozenset[str]):
    """Lists every file, since an image with a strange suffix must not be skipped silently."""

    def __contains__(self, suffix: object) -> bool:
        return True


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
            raise RestoreError("no permission to read this folder", where=source) from PermissionError()
    elif not source.is_file():
        raise RestoreError("neither a file nor a folder", where=source)
    elif not os.access(source, os.R_OK):
        raise RestoreError("no permission to read this file", where=source) from PermissionError()
    else:
        try:
            format_of_file(source)
        except RestoreError as error:
            error.exit_code = 2
            raise
        except OSError as error:
            raise RestoreError(f"cannot be read: {error.strerror}", where=source) from error


def format_of_file(path: Path) -> str:
    """The format of a file by its first bytes; of a video, `VIDEO`.

    Raises:
        NotAnImage: it is not an image, or not even a file.
        RestoreError: it is an image of a format that is not read.
        OSError: it cannot be read.
    """
    if not path.is_file():
        raise NotAnImage("not a regular file", where=path)
    with open(path, "rb") as file:
        data = file.read(1024)
    if is_video(data, path):
        check_readable(path)
        return VIDEO
    return format_of(data, path)


def list_file(source: Path) -> Listing:
    """One file; its name in an output folder is its own."""
    listing = Listing()
    listing.add(Path(source.name), source)
    return listing


def list_folder(source: Path, options: FixOptions, masks: MaskSource | None) -> Listing:
    """All files of a folder; it keeps its tree.

    Raises:
        RestoreError: exit code 2; there is none.
    """
    listing = Listing()
    _add_folder(listing, source, Path(), options, masks)
    return listing


def list_of_folder(source: Path, listed: Sequence[Path], options: FixOptions, masks: MaskSource | None) -> Listing:
    """The files of a folder that a list names; they keep their places in its tree.

    Raises:
        RestoreError: exit code 2; a file of the list is not in the folder.
    """
    listing = list_folder(source, FixOptions(), masks)
    whole = Listing(everything=listing.everything, folders=listing.folders)
    root = os.path.abspath(source)
    for path in unique(listed):
        name = Path(os.path.relpath(os.path.abspath(path), root))
        if name.parts[:1] == ("..",):
            raise RestoreError(f"is not in the folder {printable(source)}", where=path, hint="leave out INPUT")
        if (not options.include or matches(name, options.include)) and not matches(name, options.exclude):
            _add_named(whole, source / name, name)
    _warn_of_folders(whole, listed)
    return whole


def list_several(
    inputs: Sequence[Path], options: FixOptions, masks: MaskSource | None, *, from_list: bool = False
) -> Listing:
    """Several files and folders: a file by its own name, a folder's tree below the folder's own name.

    Args:
        inputs: as the user gave them.
        options: of the run.
        masks: where masks come from.
        from_list: they come from a list, where folders stand beside the files in them.

    Raises:
        RestoreError: exit code 2; two would be written to one place, or none can be read.
    """
    listing = Listing()
    for path in unique(inputs):
        if os.path.isdir(path) and not from_list:  # `Path.is_dir` raises for a name that is too long
            prefix = Path(os.path.basename(os.path.abspath(path)))
            try:
                check_input(path)
            except RestoreError as error:
                listing.unreadable.append(Unreadable(path, prefix, error.what, _code_of(error)))
            else:
                _add_folder(listing, path, prefix, options, masks)
        else:
            _add_named(listing, path, Path(path.name))
    if from_list:
        _warn_of_folders(listing, inputs)
    if masks is not None:
        named = {name: listing.files[name] for name in listing.named}
        for folder in {source.parent for source in named.values()}:
            own = {Path(source.name): name for name, source in named.items() if source.parent == folder}
            for name in own.keys() - set(masks.without_masks(folder, list(own), list(own))):
                del listing.files[own[name]], listing.everything[own[name]]
                listing.named.remove(own[name])
    if not listing.files and listing.unreadable:
        first = listing.unreadable[0]
        raise RestoreError(first.reason, where=first.source)
    return listing


def read_list(place: FilePath) -> list[Path]:
    """The files that a list names: one path a line, or ended by NUL (`find -print0`); `-` is standard input.

    Raises:
        RestoreError: exit code 2; the list cannot be read, or is empty.
    """
    try:
        data = sys.stdin.buffer.read() if is_pipe(place) else Path(place).read_bytes()
    except OSError as error:
        raise RestoreError(f"the list cannot be read: {error.strerror}", where=place) from error
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):  # as PowerShell writes it
        data = data.decode("utf-16", "replace").encode()
    data = data.removeprefix(b"\xef\xbb\xbf")
    lines = data.split(b"\0") if b"\0" in data else [line.removesuffix(b"\r") for line in data.split(b"\n")]
    paths = [as_path(os.fsdecode(line)) for line in lines if line.strip()]
    if not paths:
        raise RestoreError("this list names no files", where=place)
    return paths


def unique(paths: Iterable[Path]) -> list[Path]:
    """The paths without those that name a file again; links are other files."""
    first: dict[str, Path] = {}
    for path in paths:
        first.setdefault(os.path.abspath(path), path)
    return list(first.values())


def _add_named(listing: Listing, source: Path, name: Path) -> None:
    """Add a file that the user named, unless it is a folder."""
    if os.path.isdir(source):
        return
    try:
        check_input(source)
    except RestoreError as error:
        reason = error.what if error.hint is None else f"{error.what}; {error.hint}"
        listing.unreadable.append(Unreadable(source, name, reason, _code_of(error)))
    else:
        listing.add(name, source)


def _add_folder(listing: Listing, source: Path, prefix: Path, options: FixOptions, masks: MaskSource | None) -> None:
    """Add all files of a folder below a name.

    Raises:
        RestoreError: exit code 2; there is none, or a file that the user named has the place of one.
    """
    unlistable: dict[Path, OSError] = {}
    left_out: list[Path] = []
    everything = find_images(
        source, suffixes=_AnySuffix(), on_unlistable=unlistable.setdefault, on_left_out=left_out.append
    )
    names = everything
    if options.include or options.exclude:
        unlistable.clear()
        left_out.clear()
        names = find_images(
            source,
            include=options.include,
            exclude=options.exclude,
            suffixes=_AnySuffix(),
            on_unlistable=unlistable.setdefault,
            on_left_out=left_out.append,
        )
    if masks is not None:
        names = masks.without_masks(source, names, everything)
        everything = masks.without_masks(source, everything, everything)
    listing.folders.append(source)
    found = {prefix / name: source / name for name in everything}
    for name in names:
        path = found.get(prefix / name, source / name)
        other = listing.files.setdefault(prefix / name, path)
        if other != path:
            raise RestoreError(
                f"{printable(other)} and {printable(path)} would both be written as {printable(prefix / name)}",
                hint="rename one of them, or repair them apart",
            )
    listing.everything |= found
    for place, error in unlistable.items():
        code: ReasonCode = "no_permission" if isinstance(error, PermissionError) else "io_error"
        listing.unreadable.append(Unreadable(source / place, prefix / place, unlistable_message(error), code))
    listing.warnings += left_out_lines(left_out, hint="name one as INPUT to repair it")


def _warn_of_folders(listing: Listing, listed: Sequence[Path]) -> None:
    folders = [path for path in listed if os.path.isdir(path)]
    if folders:
        more = f" and {len(folders) - 1} more" if len(folders) > 1 else ""
        listing.warnings.append(f"left out: {printable(folders[0])}{more}; only files of a list are read, not folders")


def _code_of(error: RestoreError) -> ReasonCode:
    """Why an input cannot be read, for programs."""
    if isinstance(error, NotAnImage):
        return "not_an_image"
    if isinstance(error, UnsupportedFile):
        return "unsupported"
    if isinstance(error.__cause__, (FileNotFoundError, NotADirectoryError)):
        return "not_found"
    return "no_permission" if isinstance(error.__cause__, PermissionError) else "io_error"
