"""The state of each image of an opened folder: its mask, recipe, detected damage, repair and saved file."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from restore.errors import RestoreError, printable
from restore.files import sweep_leftovers
from restore.serve.page import recipe as recipes
from restore.serve.page.listing import Listing, is_inside, stamp_of
from restore.serve.page.mask_store import Change, MaskStore
from restore.serve.page.tiles import level_sizes
from restore.serve.page.work_folder import NotFound, WorkFolder, restored, stored


class Workspace(WorkFolder):
    """The state of all images of an opened folder. Several threads may use it; it is opened by one process at a time.

    Args:
        listing: what was opened.
        work: the work folder; it is made if it does not exist.

    Raises:
        RestoreError: exit code 2; the work folder cannot be used, lies among the originals, or is in use.
    """

    def __init__(self, listing: Listing, work: Path) -> None:
        super().__init__(work, listing.folder)
        self.listing, self.folder, self.output = listing, listing.folder, listing.output
        self._claim(stored(os.fsdecode(listing.opened)))
        self.masks = MaskStore(self.database)
        self._sources = {stored(one.name): one.source for one in listing.images}
        self._scan()
        for place in {(self.output / restored(name)).parent for name in self._sources}:
            if place.is_dir():
                sweep_leftovers(place)
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

    # Files

    def _scan(self) -> None:
        """Enter the files that are there. Those that have changed lose everything made from their pixels."""
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
                    self._forget_file(row["id"], one.stamp, one.reason, one.code)
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

    def has_changed(self, file: int) -> bool:
        """Whether the original has changed on the disk since it was read. If so, everything made from it is forgotten.

        Its mask stays, unless the image turns out to have another size.
        """
        row = self.row(file)
        stamp = stamp_of(self._sources[row["name"]])
        if row["ground"] is not None or stamp in ("", row["stamp"]):  # nothing is read from it; or it is not there
            return False
        with self.database.transaction():
            self._forget_file(file, stamp, "", "")
        return True

    def _forget_file(self, file: int, stamp: str, reason: str, code: str) -> None:
        """The original of an image is another one now."""
        if self.database.row("SELECT 1 FROM operations WHERE file = ? AND facts IS NOT NULL", file):
            self.masks.forget(file)  # its history leads back to the file as it was
        self._forget_pixels(file)
        self._set(file, {"stamp": stamp, "reason": reason, "code": code})

    def _forget_pixels(self, file: int) -> None:
        """Forget everything made from the pixels of a file."""
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
            "original": {"revision": row["original"], "is_repair": row["ground"] is not None, "stamp": row["stamp"]},
            "mask": self.masks.state(file).to_dict(),
            "found": found,
            "recipe": self.recipe(file),
            "result": result,
        }

    def _state(self, row: sqlite3.Row) -> str:
        if row["reason"]:
            return "failed"
        if row["saved"] is not None and row["saved"] == self.output_key(row):
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
        """Redo the last undone operation."""
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

    def output_key(self, row: sqlite3.Row) -> str:
        """What would be saved now."""
        return f"{row['ground']}:{row['result']}"

    def _set(self, file: int, values: dict[str, Any]) -> None:
        names = ", ".join(f"{name} = ?" for name in values)
        self.database.run(f"UPDATE files SET {names} WHERE id = ?", *values.values(), file)


#: What an operation `ground` changes beside the mask.
_GROUND = (
    "ground", "original", "revision", "result", "result_name", "result_of", "result_notes", "found", "found_fraction",
    "found_facts",
)  # fmt: skip
