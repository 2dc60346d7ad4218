"""The work folder of an opened folder: what is known of each image, in a database, and the files that belong to it.

    work.db         everything that a person did: masks with all operations, recipes, what was found, repaired and saved
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
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from restore.errors import RestoreError, printable
from restore.files import make_folder, replace_atomically, sweep_leftovers, user_data
from restore.serve.page import recipe as recipes
from restore.serve.page.database import Database
from restore.serve.page.listing import Listing, is_inside, stamp_of
from restore.serve.page.mask_store import Change, MaskStore
from restore.serve.page.tiles import level_sizes

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


class Workspace:
    """The state of all images of an opened folder. Several threads may use it; it is opened by one process at a time.

    Args:
        listing: what was opened.
        work: the work folder; it is made if it does not exist.

    Raises:
        RestoreError: exit code 2; the work folder cannot be used, lies among the originals, or is in use.
    """

    def __init__(self, listing: Listing, work: Path) -> None:
        work = Path(os.path.realpath(work))
        self.listing, self.folder, self.output, self.work = listing, listing.folder, listing.output, work
        if is_inside(work, self.folder) and not _is_hidden(work, self.folder):
            raise RestoreError("lies in the folder that is opened", where=work, hint="choose another one with --work")
        is_new = not work.exists()
        try:
            make_folder(work)
        except RestoreError as error:
            raise RestoreError(error.what, where=work, hint="choose another one with --work") from error
        if is_new:  # it will hold copies of the photographs, which need not be for everybody
            work.chmod(0o700)
        for name in _FOLDERS:
            make_folder(work / name)
        self._lock_file = _locked(work / "lock")
        self.database = Database(work / "work.db")
        self._claim(stored(os.fsdecode(listing.opened)))
        self.masks = MaskStore(self.database)
        self._sources = {stored(one.name): one.source for one in listing.images}
        self._scan()
        self._sweep()

    def _claim(self, opened: str) -> None:
        """Names of files mean something in one folder only."""
        self.database.run("INSERT OR IGNORE INTO facts VALUES ('opened', ?)", opened)
        row = self.database.row("SELECT value FROM facts WHERE name = 'opened'")
        if row is not None and row["value"] != opened:
            self.close()
            raise RestoreError(
                f"is the work folder of {printable(restored(row['value']))}",
                where=self.work,
                hint="choose another --work",
            )

    def close(self) -> None:
        """Close the database, and let others open the work folder."""
        self.database.close()
        self._lock_file.close()

    # Files

    def _scan(self) -> None:
        """Enter the files that are there. Those that have changed lose what was made from their pixels."""
        with self.database.transaction():
            known = {row["name"]: row for row in self.database.rows("SELECT * FROM files")}
            for one in self.listing.images:
                row = known.get(stored(one.name))
                if row is None:
                    self.database.run(
                        "INSERT INTO files (name, stamp, reason, code) VALUES (?, ?, ?, ?)",
                        stored(one.name), one.stamp, one.reason, one.code,
                    )  # fmt: skip
                elif row["stamp"] != one.stamp:
                    if self.database.row("SELECT 1 FROM operations WHERE file = ? AND facts IS NOT NULL", row["id"]):
                        self.masks.forget(row["id"])  # its history leads back to the file as it was
                    self._forget_pixels(row["id"])
                    self._set(row["id"], {"stamp": one.stamp, "reason": one.reason, "code": one.code})
                elif one.reason or row["reason"]:  # may be mended by now, like a permission: it is tried again
                    self.database.run(
                        "UPDATE files SET reason = ?, code = ? WHERE id = ?", one.reason, one.code, row["id"]
                    )
        self.ids = {row["name"]: row["id"] for row in self.database.rows("SELECT id, name FROM files")}
        self._order = [self.ids[stored(one.name)] for one in self.listing.images]
        self._known = set(self._order)
        for file in self._order:
            self.forget_lost(file)

    def forget_lost(self, file: int) -> None:
        """Forget a repair whose file has vanished from the work folder, so that it can be made again."""
        row = self.row(file)
        if row["ground"] is not None and not (self.work / restored(row["ground"])).is_file():
            with self.database.transaction():
                self.masks.forget(file)  # its history leads back to the lost repair
                self._forget_pixels(file)
        elif row["result"] is not None and not self.result(file)[0].is_file():
            self._set(file, {"result": None, "revision": self.new_revision()})

    def _forget_pixels(self, file: int) -> None:
        """Forget what was made from the pixels of a file."""
        revision = self.new_revision()
        lost = dict.fromkeys(("ground", "found", "found_fraction", "result", "saved"))
        self._set(file, lost | {"revision": revision, "original": revision})

    def row(self, file: int) -> sqlite3.Row:
        """What the database says of a file.

        Raises:
            NotFound: there is none.
        """
        row = self.database.row("SELECT * FROM files WHERE id = ?", file) if file in self._known else None
        if row is None:
            raise NotFound("there is no such image", where=str(file))
        return row

    def ids_in_order(self) -> list[int]:
        """The files of the folder."""
        return list(self._order)

    def file(self, file: int) -> dict[str, Any]:
        """A file as the contact sheet shows it."""
        row = self.row(file)
        return {
            "id": row["id"],
            "name": printable(restored(row["name"])),
            "width": row["width"],
            "height": row["height"],
            "state": self._state(row),
            "reason": row["reason"],
            "found_fraction": row["found_fraction"],
            "revision": row["revision"],
            "saved": row["saved_path"] if row["saved"] is not None else None,
        }

    def detail(self, file: int) -> dict[str, Any]:
        """A file as the editor shows it; it has been prepared."""
        row = self.row(file)
        result = None
        if row["result"] is not None:
            result = {
                "revision": row["result"],
                "current": row["result_of"] == self.repair_key(row),
                "notes": json.loads(row["result_notes"]),
            }
        found: dict[str, Any] = {"ready": row["found"] is not None, "revision": row["found"], "threshold": None}
        found["sensitivities"] = {}
        if row["found"] is not None:
            from restore.fix.sensitivity import threshold_of

            own = float(json.loads(row["found_facts"])["threshold"])
            found["threshold"] = own
            found["sensitivities"] = {name: threshold_of(name, own) for name in ("gentle", "normal", "strong")}
        return self.file(file) | {
            "levels": [{"width": w, "height": h} for w, h in level_sizes(row["width"], row["height"])],
            "original": {"revision": row["original"], "is_repair": row["ground"] is not None},
            "mask": self.masks.state(file).to_dict(),
            "found": found,
            "recipe": self.recipe(file),
            "result": result,
        }

    def _state(self, row: sqlite3.Row) -> str:
        if row["reason"]:
            return "failed"
        if row["saved"] is not None and row["saved"] == self._output_key(row):
            return "saved"
        if row["result"] is not None or row["ground"] is not None:
            return "repaired"
        if row["found"] is not None or row["position"] or not self.masks.is_empty(row["id"]):
            return "found"
        return "untouched"

    def is_untouched(self, file: int) -> bool:
        """Whether nobody and nothing has worked on a file yet."""
        return self._state(self.row(file)) == "untouched"

    def source(self, file: int) -> Path:
        """The original file of an image.

        Raises:
            RestoreError: exit code 1; it has vanished, or has become a link out of the folder.
        """
        row = self.row(file)
        path = self._sources[row["name"]]
        if not is_inside(path, self.folder):
            raise RestoreError("leads out of the folder", where=path, exit_code=1)
        if not path.is_file():  # of a folder in its place, everything would be repaired
            raise RestoreError("there is no such file", where=path, exit_code=1)
        return path

    def original(self, file: int) -> Path:
        """The file that repairs start from: the original, or the repair that became the new ground."""
        row = self.row(file)
        return self.source(file) if row["ground"] is None else self.work / restored(row["ground"])

    def size(self, file: int) -> tuple[int, int]:
        """(width, height).

        Raises:
            RestoreError: it is not known yet.
        """
        row = self.row(file)
        if row["width"] is None:
            raise RestoreError(
                "the image is still being read", where=restored(row["name"]), hint="try again", exit_code=1
            )
        return row["width"], row["height"]

    # What jobs found out

    def read(self, file: int, width: int, height: int) -> None:
        """An image has been decoded, and has this size. A mask of another size is lost."""
        with self.database.transaction():
            row = self.row(file)
            if (row["width"], row["height"]) not in ((None, None), (width, height)):
                self.masks.forget(file)
            self.database.run(
                "UPDATE files SET width = ?, height = ?, reason = '', code = '' WHERE id = ?", width, height, file
            )

    def failed(self, file: int, reason: str, code: str) -> None:
        """An image cannot be read."""
        self.database.run("UPDATE files SET reason = ?, code = ? WHERE id = ?", reason, code, file)

    def found(self, file: int, revision: int, fraction: float, facts: dict[str, Any]) -> None:
        """Damage was searched for. What was found before goes."""
        before = self.row(file)
        self.database.run(
            "UPDATE files SET found = ?, found_fraction = ?, found_facts = ? WHERE id = ?",
            revision, fraction, json.dumps(facts), file,
        )  # fmt: skip
        if before["found"] is not None:
            self._remove(self.probabilities(file, before["found"]), self._kept())

    def repaired(self, file: int, revision: int, name: str, key: str, notes: list[str]) -> None:
        """A repair is complete: the file `name` in the folder `result_folder(file, revision)`. The one before goes."""
        before = self.row(file)
        self.database.run(
            "UPDATE files SET result = ?, result_name = ?, result_of = ?, result_notes = ?, revision = ? WHERE id = ?",
            revision, stored(name), key, json.dumps(notes), revision, file,
        )  # fmt: skip
        kept = self._kept()
        old = before["result"]
        self._remove(self.thumbnail(before), kept)
        if old is not None:
            self._remove(self.result_folder(file, old), kept)
            self._remove(self.pyramid(before, "repaired"), kept)

    # Where files are

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
        """The tiles of what was found."""
        return self.work / "found" / f"{file}-{revision}.tiles"

    def result_folder(self, file: int, revision: int) -> Path:
        """The folder of a repair."""
        return self.work / "results" / f"{file}-{revision}"

    def new_revision(self) -> int:
        """A number that no state of any file has had."""
        with self.database.transaction():
            self.database.run("INSERT INTO revisions DEFAULT VALUES")
            return self.database.number("SELECT max(id) FROM revisions")

    def result(self, file: int) -> tuple[Path, list[str]]:
        """The repaired file to save, and its notes.

        Raises:
            RestoreError: it has not been repaired.
        """
        row = self.row(file)
        if row["result"] is not None:
            return self.result_folder(file, row["result"]) / restored(row["result_name"]), json.loads(
                row["result_notes"]
            )
        if row["ground"] is not None:
            return self.work / restored(row["ground"]), []
        raise RestoreError("the image has not been repaired", where=restored(row["name"]), hint="repair it first")

    # Recipes

    def recipe(self, file: int) -> recipes.Recipe:
        """The recipe of a file, complete."""
        stored = json.loads(self.row(file)["recipe"])
        return recipes.defaults() | {name: value for name, value in stored.items() if name in recipes.defaults()}

    def set_recipe(self, file: int, values: dict[str, Any]) -> recipes.Recipe:
        """Change settings of a recipe; those that are not given stay.

        Raises:
            RestoreError: as `restore.serve.page.recipe.checked`.
        """
        with self.database.transaction():
            recipe = recipes.checked(self.recipe(file) | values)
            self.replace_recipe(file, recipe)
        return recipe

    def replace_recipe(self, file: int, recipe: recipes.Recipe) -> None:
        """Give a file a recipe that has been checked."""
        self.database.run("UPDATE files SET recipe = ? WHERE id = ?", json.dumps(recipe), file)

    def repair_key(self, row: sqlite3.Row, recipe: recipes.Recipe | None = None) -> str:
        """What a repair of the file as it is now depends on; `recipe` in the place of its own."""
        return json.dumps([row["original"], row["mask"], recipe or self.recipe(row["id"])])

    # Ground, undo, redo

    def make_ground(self, file: int) -> Change:
        """Let the repair become the original, and empty the mask: an operation like any other.

        Raises:
            RestoreError: it has not been repaired.
        """
        with self.database.transaction():
            self.forget_lost(file)
            row = self.row(file)
            if row["result"] is None:
                raise RestoreError(
                    "the image has not been repaired", where=restored(row["name"]), hint="repair it first"
                )
            ground = self.result_folder(file, row["result"]) / restored(row["result_name"])
            revision = self.new_revision()
            self._copy_pyramid(row, revision)
            after = dict.fromkeys(_GROUND) | {
                "ground": stored(ground.relative_to(self.work).as_posix()),
                "original": revision,
                "revision": row["revision"],
                "result_notes": row["result_notes"],
            }
            facts = {"before": {name: row[name] for name in _GROUND}, "after": after}
            masked = self.masks.masked_tiles(file)
            change = self.masks.change(
                file, "ground", masked, lambda old, x, y: np.zeros_like(old), self.size(file), facts=facts
            )
            self._set(file, after)
            return change

    def _copy_pyramid(self, row: sqlite3.Row, revision: int) -> None:
        """Show the tiles of the repair as those of the new original, too."""
        old = self.pyramid(row, "repaired")
        if old.exists():
            shutil.copyfile(old, self.work / "pyramids" / f"{row['id']}-original-{revision}.tiles")

    def undo(self, file: int) -> Change:
        """Undo the last operation."""
        return self._step(file, self.masks.undo, "before", "after")

    def redo(self, file: int) -> Change:
        """Redo what was undone last."""
        return self._step(file, self.masks.redo, "after", "before")

    def _step(
        self, file: int, step: Callable[[int], tuple[Change, dict[str, Any] | None]], to: str, back: str
    ) -> Change:
        with self.database.transaction():
            change, facts = step(file)
            if facts is not None:
                row = self.row(file)
                number = row["position"] + (1 if to == "before" else 0)
                # Repairs that were made since come back with the next step in the other direction.
                facts[back] = {name: row[name] for name in _GROUND}
                self.database.run(
                    "UPDATE operations SET facts = ? WHERE file = ? AND number = ?", json.dumps(facts), file, number
                )
                self._set(file, facts[to])
            return change

    def _set(self, file: int, values: dict[str, Any]) -> None:
        names = ", ".join(f"{name} = ?" for name in values)
        self.database.run(f"UPDATE files SET {names} WHERE id = ?", *values.values(), file)

    # Saving

    def save(self, file: int, *, overwrite: bool) -> tuple[Path, list[str]]:
        """Copy a repaired file, and what belongs to it, to the output folder, atomically.

        Args:
            file: it has been repaired.
            overwrite: replace a file that this page has not written itself.

        Returns:
            The file, and the notes of the repair.

        Raises:
            RestoreError: it has not been repaired, or the file exists or cannot be written.
        """
        self.forget_lost(file)
        source, notes = self.result(file)
        row = self.row(file)
        target = self.output / restored(row["name"])
        pairs = [(other, target.with_name(other.name)) for other in sorted(source.parent.iterdir()) if other != source]
        pairs.append((source, target))  # last, so that what belongs to it is there with it
        own = row["saved_path"] == printable(target) and row["saved_stamp"] == stamp_of(target)
        for _, place in pairs:
            if os.path.lexists(place) and not (overwrite or own):
                raise FileExists("exists already", where=place, hint="overwrite it, or choose another --output")
        for other, place in pairs:
            with replace_atomically(place, like=other.stat()) as temporary:
                shutil.copyfile(other, temporary)
        self.database.run(
            "UPDATE files SET saved = ?, saved_path = ?, saved_stamp = ? WHERE id = ?",
            self._output_key(row), printable(target), stamp_of(target), file,
        )  # fmt: skip
        return target, notes

    def _output_key(self, row: sqlite3.Row) -> str:
        """What would be saved now."""
        return f"{row['ground']}:{row['result']}"

    # Cleaning

    def _sweep(self) -> None:
        """Remove what no state refers to: what jobs were writing when the server was killed, and older states."""
        names = (restored(name) for name in self._sources)
        for place in {(self.output / name).parent for name in names}:
            if place.is_dir():
                sweep_leftovers(place)
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


#: What an operation `ground` changes beside the mask.
_GROUND = (
    "ground", "original", "revision", "result", "result_name", "result_of", "result_notes", "found", "found_fraction",
    "found_facts",
)  # fmt: skip


class FileExists(RestoreError):
    """A file that would be overwritten."""


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
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise RestoreError(
            "this folder is open in another `restore open`",
            where=printable(path.parent),
            hint="use that one, or choose another work folder with --work",
        ) from error
    return file
