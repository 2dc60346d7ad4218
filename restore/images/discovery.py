"""Pictures in a folder, and the key by which files of two folders belong together."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePath

from restore.errors import RestoreError
from restore.files import not_found_message
from restore.images.formats import IMAGE_SUFFIXES


def find_images(
    folder: str | os.PathLike[str],
    *,
    include: Collection[str] = (),
    exclude: Collection[str] = (),
    suffixes: Collection[str] = IMAGE_SUFFIXES,
    on_unlistable: Callable[[Path, str], object] | None = None,
) -> list[Path]:
    """All pictures below a folder, by suffix, as paths relative to it, sorted by their bytes.

    Hidden files and folders (a dot first) are left out. Links to folders are followed, each folder once.

    Args:
        folder: where to look, recursively.
        include: globs; none = everything. A glob without a slash is held against the file's name, one with a
            slash against the relative POSIX path (where `*` also spans slashes).
        exclude: globs of what is left out; stronger than `include`.
        suffixes: lower-case suffixes, with the dot.
        on_unlistable: told of a folder below that cannot be listed (relative path, reason), unless `exclude` leaves
            out what is in it; the others go on. None: that is an error.

    Raises:
        RestoreError: the folder, or one below it, cannot be listed.
    """
    root = Path(folder)
    if not root.is_dir():
        raise RestoreError(not_found_message(root, "folder"), where=root)

    def fail(error: OSError) -> None:
        if on_unlistable is None or Path(error.filename) == root:
            raise RestoreError(
                f"this folder cannot be listed: {error.strerror}", where=error.filename, exit_code=1
            ) from error
        below = Path(error.filename).relative_to(root)
        if not _matches(below / "any", exclude):
            on_unlistable(below, f"this folder cannot be listed: {error.strerror}")

    found = [
        path
        for path in _walk(root, fail)
        if path.suffix.lower() in suffixes and (not include or _matches(path, include)) and not _matches(path, exclude)
    ]
    return sorted(found, key=lambda path: os.fsencode(path.as_posix()))


def stem_key(relative: str | PurePath) -> str:
    """The key that pairs a picture with its mask or its reference: the POSIX path without the last suffix."""
    return PurePath(relative).with_suffix("").as_posix()


def _walk(root: Path, fail: Callable[[OSError], None]) -> Iterator[Path]:
    def identity(path: str) -> tuple[int, int]:
        status = os.stat(path)
        return status.st_dev, status.st_ino

    seen = {identity(os.fspath(root))}
    for top, folders, files in os.walk(root, followlinks=True, onerror=fail):
        below = []
        for name in sorted(folders, key=os.fsencode):
            if name.startswith("."):
                continue
            try:
                here = identity(os.path.join(top, name))
            except OSError:  # a link that goes in circles, or a folder gone meanwhile: nothing in it to repair
                continue
            if here not in seen:
                seen.add(here)
                below.append(name)
        folders[:] = below
        relative = Path(top).relative_to(root)
        yield from (relative / name for name in files if not name.startswith("."))


def _matches(path: Path, globs: Collection[str]) -> bool:
    return any(fnmatchcase(path.as_posix() if "/" in glob else path.name, glob) for glob in globs)
