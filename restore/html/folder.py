"""The folder of a page: where a page may be written, and cleanup of an earlier page."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from restore.errors import RestoreError
from restore.files import TEMPORARY_PREFIX, check_writable, is_within, sweep_leftovers, write_atomically

INDEX = "index.html"
IMAGES = "images"
_OLD_IMAGES = "pictures"  # in pages of earlier releases; vocabulary: ok
DATA = "data.js"
ASSETS = ("shared.css", "page.css", "shared.js", "page.js", "viewer.js")

#: In the first bytes of every page, finished or not. A folder with such a page may be overwritten.
GENERATOR = '<meta name="generator" content="restore page">'

_UNFINISHED = f"""<!doctype html>
<meta charset="utf-8">
{GENERATOR}
<title>Unfinished page</title>
<p>This page is being written, or its run was stopped. Run the same command again to write it.</p>
"""
_OUR_IMAGE = re.compile(r"\d{6,}-[a-z0-9]+\.(jpg|png)")


def check_page_folder(
    folder: str | os.PathLike[str],
    *,
    inputs: Iterable[str | os.PathLike[str] | None] = (),
    outputs: Iterable[str | os.PathLike[str] | None] = (),
) -> None:
    """Check that a page may be written here, without writing anything.

    Args:
        folder: new, empty, or with an earlier page, which is replaced.
        inputs: folders that are read. The page must not be inside one, or a later run would read its images. None is
            ignored.
        outputs: folders that the command writes other files to. The page may contain one or be inside one, but must
            not be the same folder. None is ignored.

    Raises:
        RestoreError: exit code 2.
    """
    path = Path(folder)
    real = Path(os.path.realpath(path))
    for other in inputs:
        if other is not None and is_within(real, Path(other)):
            raise RestoreError(
                f"the page would be inside {os.fsdecode(other)}, an input folder",
                where=path,
                hint="choose a folder outside it",
            )
    expected = set()
    for other in outputs:
        if other is not None:
            output = Path(os.path.realpath(other))
            if output in (real, real / IMAGES):
                raise RestoreError(
                    "the page and the restored images need separate folders", where=path, hint="choose another"
                )
            if output.is_relative_to(real):
                expected.add(output.relative_to(real).parts[0])
    if os.path.lexists(path) and not path.is_dir():
        raise RestoreError("is a file, but the page needs a folder", where=path, hint="choose another name")
    check_writable(path)
    try:
        names = {entry.name for entry in os.scandir(path)} if path.is_dir() else set()
        names = {name for name in names if not name.startswith(TEMPORARY_PREFIX)}  # of a killed run
    except OSError as error:
        raise RestoreError(f"this folder cannot be listed: {error.strerror}", where=path) from error
    if names - expected and not _holds_page(path):
        raise RestoreError(
            "is not empty and does not hold an earlier page", where=path, hint="choose a new folder for the page"
        )


def claim_page_folder(folder: str | os.PathLike[str]) -> None:
    """Create the folder with an unfinished page, unless it holds an earlier one.

    Call this before other files are written to the folder, so that `check_page_folder` still recognizes it later.

    Raises:
        RestoreError: exit code 1; it cannot be written.
    """
    if not _holds_page(Path(folder)):
        write_atomically(Path(folder) / INDEX, _UNFINISHED.encode())


def begin_page(folder: Path) -> None:
    """Replace an earlier page with an unfinished one, and remove its files."""
    write_atomically(folder / INDEX, _UNFINISHED.encode())
    sweep_leftovers(folder)
    _remove_contents(folder)


def abandon_page(folder: Path) -> None:
    """Remove all files of a failed run, because an incomplete page is useless and the disk may be full."""
    _remove_contents(folder)
    with suppress(OSError):
        (folder / INDEX).unlink()
        folder.rmdir()


def _remove_contents(folder: Path) -> None:
    """Remove the files of a page, which are recognized by name; other files stay."""
    for images in (folder / IMAGES, folder / _OLD_IMAGES):
        with suppress(OSError):
            for entry in os.scandir(images):
                if _OUR_IMAGE.fullmatch(entry.name):
                    os.unlink(entry.path)
            images.rmdir()
    for name in (*ASSETS, DATA):
        with suppress(OSError):
            (folder / name).unlink()


def _holds_page(folder: Path) -> bool:
    try:
        with open(folder / INDEX, "rb") as file:
            return GENERATOR.encode() in file.read(1000)
    except OSError:
        return False
