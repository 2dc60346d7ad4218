"""What the inputs of a run name: one image, a folder, several of both, or the files of a list."""

from __future__ import annotations

import hashlib
import os
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from restore.errors import RestoreError, printable
from restore.files import not_found_message, similar_path
from restore.fix.batch_options import URL, FilePath
from restore.fix.log import ReasonCode
from restore.fix.masks import MaskSource
from restore.fix.options import FixOptions
from restore.images import NotAnImage, UnsupportedFile, format_of, unlistable_message
from restore.images.formats import left_out_lines, matches, walk_files
from restore.packed import Hashes, Packed
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


def shard_of(name: str | Path, parts: int) -> int:
    """The part, from 1 to `parts`, that an image belongs to.

    It depends on its path in the tree of the outputs alone: not on the other images, the machine, or the
    normalization of its name, which differs between file systems.
    """
    if parts == 1:
        return 1
    text = unicodedata.normalize("NFC", name if isinstance(name, str) else name.as_posix())
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

    source: str
    name: str
    reason: str
    code: ReasonCode


class Found(NamedTuple):
    """A file that the inputs name.

    Attributes:
        name: its path in the tree of the outputs, with slashes, before suffixes change.
        source: its path.
        named: the user named it; it was not found in a folder.
        is_link: it is a symbolic link.
        excluded: the user excluded it; only its mask is looked for, so that the mask is not without an image.
    """

    name: str
    source: str
    named: bool
    is_link: bool
    excluded: bool = False


@dataclass
class Listing:
    """The files that the inputs name.

    Attributes:
        found: the files, once; the attributes below are complete when all have been taken.
        folders: the input folders.
        named_folders: the folders of files that the user named.
        unreadable: files and folders that fail.
        warnings: what is left out without being asked for, one line each.
        narrowed: whether the user excluded files.
        several: there are several inputs, or a list.
    """

    found: Iterator[Found] = field(default_factory=lambda: iter(()))
    folders: list[Path] = field(default_factory=list)
    named_folders: dict[str, None] = field(default_factory=dict)
    unreadable: list[Unreadable] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    narrowed: bool = False
    several: bool = False

    @property
    def mask_folders(self) -> Iterable[str | Path]:
        """Where a mask may lie among the images that it is paired with: masks of several inputs lie by their names."""
        return self.named_folders if self.several else self.folders


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
        near = similar_path(source) if missing else None
        hint = f"did you mean {near}?" if near else None
        if missing and any(wildcard in source.name for wildcard in "*?"):  # a shell leaves a pattern without matches
            hint = "no file matches this pattern"
        raise RestoreError(what, where=source, hint=hint) from error
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
            if isinstance(error, NotAnImage):
                error.hint = "name an image, or a folder of images"
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
    return Listing(iter([_named(source.name, os.fspath(source))]), named_folders={os.fspath(source.parent): None})


def list_folder(source: Path, options: FixOptions, masks: MaskSource | None) -> Listing:
    """All files of a folder; it keeps its tree."""
    listing = Listing(folders=[source])
    listing.found = _in_folder(listing, source, "", options, masks)
    return listing


def list_of_folder(source: Path, listed: Packed[str], options: FixOptions, masks: MaskSource | None) -> Listing:
    """The files of a folder that a list names; they keep their places in its tree."""
    listing = Listing(folders=[source])

    def found() -> Iterator[Found]:
        if masks is not None:  # the masks of files that the list leaves out are not without an image
            for one in _in_folder(Listing(), source, "", FixOptions(), masks):
                yield one._replace(excluded=True)
        root, below = os.path.abspath(source), beginning(source)
        for path in unique(listed):
            relative = os.path.relpath(os.path.abspath(path), root)
            if relative.split(os.sep, 1)[0] == os.pardir:
                raise RestoreError(f"is not in the folder {printable(source)}", where=path, hint="leave out INPUT")
            name = relative.replace(os.sep, "/")
            if _is_wanted(name, options) and _is_readable(listing, below + relative, name):
                yield _named(name, below + relative)
        _warn_of_folders(listing, listed)

    listing.found = found()
    return listing


def list_several(
    inputs: Iterable[str], options: FixOptions, masks: MaskSource | None, *, from_list: bool = False
) -> Listing:
    """Several files and folders: a file by its own name, a folder's tree below the folder's own name.

    Args:
        inputs: as the user gave them; iterated over several times.
        options: of the run.
        masks: where masks come from.
        from_list: they come from a list, where folders stand beside the files in them.
    """
    listing = Listing(several=True)

    def found() -> Iterator[Found]:
        repeated = Hashes(map(os.path.basename, inputs)).repeated()
        sources: dict[str, str] = {}
        nothing = True
        for path in unique(inputs):
            name = os.path.basename(path)
            if os.path.isdir(path) and not from_list:  # `Path.is_dir` raises for a name that is too long
                for one in _in_named_folder(listing, Path(path), options, masks):
                    nothing = False
                    yield one
            elif _is_readable(listing, path, name):
                if hash(name) in repeated and sources.setdefault(name, path) != path:
                    raise RestoreError(
                        f"{printable(sources[name])} and {printable(path)} would both be written as {printable(name)}",
                        hint="rename one of them, or name their folder as INPUT, which keeps its tree",
                    )
                nothing = False
                yield _named(name, path)
        if from_list:
            _warn_of_folders(listing, inputs)
        if nothing and listing.unreadable:
            raise RestoreError(listing.unreadable[0].reason, where=listing.unreadable[0].source)

    listing.found = found()
    if masks is not None and masks.path is not None:
        listing.found = _without_named_masks(listing.found, masks)
    return listing


def _without_named_masks(found: Iterable[Found], masks: MaskSource) -> Iterator[Found]:
    """The files without those that the user named, and that are masks, perhaps of others named in their folder."""
    files = Packed(map(tuple, found))
    named: dict[str, list[tuple[str, bool]]] = {}
    for one in map(Found._make, files):
        if one.named:
            folder, name = os.path.split(one.source)
            named.setdefault(folder, []).append((name, one.is_link))
    images = {
        os.path.join(folder, name)
        for folder, names in named.items()
        for name, _ in masks.without_masks(Path(folder), names)
    }
    for one in map(Found._make, files):
        if not one.named or one.source in images:
            yield one


def read_list(place: FilePath, spelled: Callable[[str], str] | None = None) -> Packed[str]:
    """The files that a list names: one path a line, or ended by NUL (`find -print0`); `-` is standard input.

    Args:
        place: of the list.
        spelled: what a line stands for, also if it is a URL; None: every line is a path.

    Raises:
        RestoreError: exit code 2; the list cannot be read, is empty, or holds a URL in the place of a path.
    """
    try:
        data = sys.stdin.buffer.read() if is_pipe(place) else Path(place).read_bytes()
    except OSError as error:
        raise RestoreError(f"the list cannot be read: {error.strerror}", where=place) from error
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):  # as PowerShell writes it
        data = data.decode("utf-16", "replace").encode()
    data = data.removeprefix(b"\xef\xbb\xbf")
    lines = _parts(data, b"\0") if b"\0" in data else (line.removesuffix(b"\r") for line in _parts(data, b"\n"))
    numbered = ((number, os.fsdecode(line)) for number, line in enumerate(lines, 1) if line.strip())
    if spelled is None:
        paths = Packed(_listed_path(line, number, place) for number, line in numbered)
    else:
        paths = Packed(spelled(line) for _, line in numbered)
    if not paths:
        raise RestoreError("this list names no files", where=place)
    return paths


def _listed_path(line: str, number: int, place: FilePath) -> str:
    if URL.match(line):
        what = f"line {number} is a URL, but this list is read as a list of paths"
        hint = "name the URLs in a file of their own, or put one of them first"
        raise RestoreError(what, where="standard input" if is_pipe(place) else place, hint=hint)
    return os.fspath(as_path(line))


def _parts(data: bytes, separator: bytes) -> Iterator[bytes]:
    """As `data.split`, one after the other."""
    start = 0
    while (end := data.find(separator, start)) >= 0:
        yield data[start:end]
        start = end + 1
    yield data[start:]


def unique(paths: Iterable[str], key: Callable[[str], str] = os.path.abspath) -> Iterator[str]:
    """The paths without those that name a file again, which have the same key; links are other files.

    Iterates twice over `paths`.
    """
    repeated = Hashes(map(key, paths)).repeated()
    seen: set[str] = set()
    for path in paths:
        place = key(path)
        if hash(place) in repeated:
            if place in seen:
                continue
            seen.add(place)
        yield path


def beginning(folder: Path) -> str:
    """What stands before the names in a folder to make their paths."""
    return "" if folder == Path() else os.path.join(folder, "")


def _named(name: str, source: str) -> Found:
    return Found(name, source, True, os.path.islink(source))


def _is_wanted(name: str, options: FixOptions) -> bool:
    return (not options.include or matches(name, options.include)) and not matches(name, options.exclude)


def _is_readable(listing: Listing, source: str, name: str) -> bool:
    """Whether a path that the user named is a file that can be read; another file than that is listed as such."""
    if os.path.isdir(source):
        return False
    try:
        check_input(Path(source))
    except RestoreError as error:
        reason = error.what if error.hint is None else f"{error.what}; {error.hint}"
        listing.unreadable.append(Unreadable(source, name, reason, _code_of(error)))
        return False
    listing.named_folders.setdefault(os.path.dirname(source) or os.curdir)
    return True


def _in_named_folder(listing: Listing, source: Path, options: FixOptions, masks: MaskSource | None) -> Iterator[Found]:
    """All files of one folder of several; the folder itself fails if it cannot be read."""
    name = os.path.basename(os.path.abspath(source))
    try:
        check_input(source)
    except RestoreError as error:
        listing.unreadable.append(Unreadable(os.fspath(source), name, error.what, _code_of(error)))
        return
    listing.folders.append(source)
    yield from _in_folder(listing, source, f"{name}/", options, masks)


def _in_folder(
    listing: Listing, source: Path, prefix: str, options: FixOptions, masks: MaskSource | None
) -> Iterator[Found]:
    """All files of a folder, in the order of their paths; `prefix` begins their names.

    Raises:
        RestoreError: exit code 1; the folder cannot be listed.
    """
    unlistable: dict[Path, OSError] = {}
    left_out: list[Path] = []
    files = walk_files(
        source, exclude=options.exclude, on_unlistable=unlistable.setdefault, on_left_out=left_out.append
    )
    below = beginning(source)
    for name, is_link in files if masks is None else masks.without_masks(source, files):
        wanted = _is_wanted(name, options)
        listing.narrowed |= not wanted
        place = name if os.sep == "/" else name.replace("/", os.sep)
        yield Found(prefix + name, below + place, False, is_link, not wanted)
    for folder, error in unlistable.items():
        code: ReasonCode = "no_permission" if isinstance(error, PermissionError) else "io_error"
        name = prefix + folder.as_posix()
        listing.unreadable.append(Unreadable(os.fspath(source / folder), name, unlistable_message(error), code))
    listing.warnings += left_out_lines(left_out, hint="name one as INPUT to repair it")


def _warn_of_folders(listing: Listing, listed: Iterable[str]) -> None:
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
