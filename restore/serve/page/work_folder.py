"""The work folder of an opened folder: a database, and the files that belong to it.

    work.db         everything that a person did: masks with all operations, recipes, detections, repairs and saves
    thumbnails/     ID-REVISION.jpg
    pyramids/       ID-original-REVISION.tiles, ID-repaired-REVISION.tiles: what the page shows
    found/          ID-REVISION.tiles: how likely each pixel is damaged
    results/        ID-REVISION/NAME: repaired files, as `restore fix` writes them
    masks/, previews/   for jobs in work; emptied when the folder is opened

Nothing is written beside the originals. What a file of the work folder is called says which state it belongs to, so
that it need not be changed together with the database: what the database does not name is removed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import IO

from restore.errors import RestoreError, printable
from restore.files import lock_file, make_folder, user_data
from restore.serve.page.database import Database
from restore.serve.page.listing import is_inside

_FOLDERS = ("thumbnails", "pyramids", "found", "results", "masks", "previews")
_TEMPORARY = ("masks", "previews")

#: The beginning of a name that is no valid UTF-8; other paths do not begin like this.
_BYTES = "//bytes:"

#: What tiles of images may take on the disk when a folder is opened; those that were not used for longest go.
_PYRAMID_BYTES = 4 << 30


class NotFound(RestoreError):
    """What a request names does not exist."""


def stored(name: str) -> str:
    """A path as the database holds it. Linux allows names that are no valid UTF-8, which SQLite does not take."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return _BYTES + os.fsencode(name).decode("latin-1")
    return name


def restored(name: str) -> str:
    """The path that `stored` was given."""
    return os.fsdecode(name.removeprefix(_BYTES).encode("latin-1")) if name.startswith(_BYTES) else name


def default_work(folder: Path) -> Path:
    """The work folder of a folder, in the user's data directory.

    Raises:
        RestoreError: exit code 2; the user has no home, as some in containers.
    """
    try:
        base = user_data()
    except RuntimeError as error:
        hint = "choose a work folder with --work"
        raise RestoreError("this user has no home folder for the work in progress", hint=hint) from error
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    return base / "work" / digest


class WorkFolder:
    """A work folder that this process alone has open.

    Args:
        work: the folder; it is made if it does not exist.
        folder: the folder that is opened, with all links resolved.

    Raises:
        RestoreError: exit code 2; it cannot be used, lies among the originals, or is in use.
    """

    def __init__(self, work: Path, folder: Path) -> None:
        self.work = Path(os.path.realpath(work))
        if is_inside(self.work, folder) and not _is_hidden(self.work, folder):
            raise RestoreError("lies in the opened folder", where=self.work, hint="choose another one with --work")
        is_new = not self.work.exists()
        try:
            make_folder(self.work)
        except RestoreError as error:
            raise RestoreError(error.what, where=self.work, hint="choose another one with --work") from error
        if is_new:  # it will hold copies of the photographs, which need not be for everybody
            self.work.chmod(0o700)
        for name in _FOLDERS:
            make_folder(self.work / name)
        self._lock_file = _locked(self.work / "lock")
        self.database = Database(self.work / "work.db")

    def close(self) -> None:
        """Close the database, and let others open the work folder."""
        self.database.close()
        self._lock_file.close()

    def thumbnail(self, row: sqlite3.Row) -> Path:
        """The thumbnail of a file, whether or not it is there."""
        return self.work / "thumbnails" / f"{row['id']}-{row['revision']}.jpg"

    def pyramid(self, row: sqlite3.Row, which: str) -> Path:
        """The tiles of a file, whether or not they are there.

        Args:
            row: of the file.
            which: `original` or `repaired`.

        Raises:
            NotFound: it has not been repaired.
        """
        revision = row["original" if which == "original" else "result"]
        if revision is None:
            raise NotFound("the image has not been repaired", where=restored(row["name"]))
        return self.work / "pyramids" / f"{row['id']}-{which}-{revision}.tiles"

    def probabilities(self, file: int, revision: int) -> Path:
        """The tiles of the detected damage."""
        return self.work / "found" / f"{file}-{revision}.tiles"

    def result_folder(self, file: int, revision: int) -> Path:
        """The folder of a repair."""
        return self.work / "results" / f"{file}-{revision}"

    def _sweep(self) -> None:
        """Remove what no state refers to: what jobs were writing when the server was killed, and older states."""
        kept = self._kept()
        for folder in _FOLDERS:
            for path in (self.work / folder).iterdir():
                self._remove(path, set() if folder in _TEMPORARY else kept)
        room = _PYRAMID_BYTES
        pyramids = [(path.stat().st_mtime, path.stat().st_size, path) for path in (self.work / "pyramids").iterdir()]
        for _, size, path in sorted(pyramids, reverse=True):
            room -= size
            if room < 0:  # made anew when the image is opened again
                self._remove(path, set())

    def _kept(self) -> set[str]:
        """The names of files and folders that some state refers to, one that can be undone or redone among them."""
        kept = set()
        for row in self.database.rows("SELECT * FROM files"):
            kept |= {self.thumbnail(row).name, f"{row['id']}-original-{row['original']}.tiles"}
            kept |= {f"{row['id']}-repaired-{row['result']}.tiles"}
            kept |= {f"{row['id']}-{row['found']}.tiles", f"{row['id']}-{row['result']}"}
            kept |= {Path(restored(row["ground"])).parts[1]} if row["ground"] else set()
        for operation in self.database.rows("SELECT file, facts FROM operations WHERE facts IS NOT NULL"):
            file = operation["file"]
            for side in json.loads(operation["facts"]).values():
                kept |= {f"{file}-{side['result']}", f"{file}-{side['found']}.tiles", f"{file}-{side['revision']}.jpg"}
                kept |= {Path(restored(side["ground"])).parts[1]} if side["ground"] else set()
        return kept

    def _remove(self, path: Path, kept: set[str]) -> None:
        if path.name not in kept:
            with suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _is_hidden(path: Path, folder: Path) -> bool:
    """Whether listing a folder leaves out a place in it."""
    return any(part.startswith(".") for part in Path(os.path.realpath(path)).relative_to(folder).parts)


def _locked(path: Path) -> IO[bytes]:
    """Open a file that only one process may have open.

    Raises:
        RestoreError: exit code 2; another process has it open.
    """
    try:
        file = open(path, "ab")
        lock_file(file)
    except OSError as error:
        raise RestoreError(
            "this folder is open in another `restore open`",
            where=printable(path.parent),
            hint="use that one, or choose another work folder with --work",
        ) from error
    return file
