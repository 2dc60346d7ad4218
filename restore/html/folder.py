"""The folder of a page: who may have it, and what of an earlier page has to go."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from restore.errors import RestoreError
from restore.files import TEMPORARY_PREFIX, check_writable, sweep_leftovers, write_atomically

INDEX = "index.html"
PICTURES = "pictures"
DATA = "data.js"
ASSETS = ("page.css", "page.js", "viewer.js")

#: Stands in the first bytes of every page, finished or not: by it an earlier one is known, which may be replaced.
GENERATOR = '<meta name="generator" content="restore page">'

_UNFINISHED = f"""<!doctype html>
<meta charset="utf-8">
{GENERATOR}
<title>Unfinished page</title>
<p>This page is being written, or its run was stopped before it was. The same command writes it anew.</p>
"""
_OUR_PICTURE = re.compile(r"\d{6,}-[a-z0-9]+\.(jpg|png)")


def check_page_folder(
    folder: str | os.PathLike[str],
    *,
    apart: Iterable[str | os.PathLike[str] | None] = (),
    beside: Iterable[str | os.PathLike[str] | None] = (),
) -> None:
    """Look whether a page may be written here. Writes nothing.

    Args:
        folder: new, empty, or with an earlier page, which is replaced.
        apart: folders that are read; the page may neither be one of them nor inside one, or it would be read, too.
            None is passed over.
        beside: folders that something else is written to; the page's may be inside or around, but not the same.

    Raises:
        RestoreError: exit code 2.
    """
    path = Path(folder)
    real = Path(os.path.realpath(path))
    for other in apart:
        if other is not None and _is_within(real, Path(other)):
            raise RestoreError(
                f"the page would be inside {os.fsdecode(other)}, whose pictures it shows",
                where=path,
                hint="choose a folder beside it",
            )
    expected = set()
    for other in beside:
        if other is not None:
            output = Path(os.path.realpath(other))
            if output in (real, real / PICTURES):
                raise RestoreError("the page and the pictures need a folder each", where=path, hint="choose another")
            if output.is_relative_to(real):
                expected.add(output.relative_to(real).parts[0])
    if os.path.lexists(path) and not path.is_dir():
        raise RestoreError("is a file where a folder for the page is needed", where=path, hint="choose another name")
    check_writable(path)
    try:
        names = {entry.name for entry in os.scandir(path)} if path.is_dir() else set()
        names = {name for name in names if not name.startswith(TEMPORARY_PREFIX)}  # what a killed run has left
    except OSError as error:
        raise RestoreError(f"this folder cannot be listed: {error.strerror}", where=path) from error
    if names - expected and not _holds_page(path):
        raise RestoreError(
            "is not empty, and holds no page of an earlier run", where=path, hint="choose a new folder for the page"
        )


def claim_page_folder(folder: str | os.PathLike[str]) -> None:
    """Make the folder and say in it that a page is to come, unless an earlier one is there: other things may then be
    written beside it without making it a stranger's.

    Raises:
        RestoreError: exit code 1; it cannot be written.
    """
    if not _holds_page(Path(folder)):
        write_atomically(Path(folder) / INDEX, _UNFINISHED.encode())


def begin_page(folder: Path) -> None:
    """From here on there is no page that looks whole, and nothing left of an earlier one."""
    write_atomically(folder / INDEX, _UNFINISHED.encode())
    sweep_leftovers(folder)
    _remove_contents(folder)


def abandon_page(folder: Path) -> None:
    """Remove all that a failed run has written: a full disk has no room for half a page."""
    _remove_contents(folder)
    with suppress(OSError):
        (folder / INDEX).unlink()
        folder.rmdir()


def _remove_contents(folder: Path) -> None:
    """What a page consists of, by its names; what else lies there is left alone."""
    pictures = folder / PICTURES
    with suppress(OSError):
        for entry in os.scandir(pictures):
            if _OUR_PICTURE.fullmatch(entry.name):
                os.unlink(entry.path)
    for name in (*ASSETS, DATA):
        with suppress(OSError):
            (folder / name).unlink()
    with suppress(OSError):
        pictures.rmdir()


def _holds_page(folder: Path) -> bool:
    try:
        with open(folder / INDEX, "rb") as file:
            return GENERATOR.encode() in file.read(1000)
    except OSError:
        return False


def _is_within(real: Path, folder: Path) -> bool:
    """Whether a resolved path is a folder or below it, by whatever name."""
    for place in (real, *real.parents):
        with suppress(OSError):
            if place.exists() and os.path.samefile(place, folder):
                return folder.is_dir()
    return False
