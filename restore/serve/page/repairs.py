"""Models at work on an opened folder: finding damage, previews, repairs, and saving them."""

from __future__ import annotations

import filecmp
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from restore.errors import RestoreError, printable
from restore.files import write_atomically
from restore.serve.jobs import Job
from restore.serve.page.mask_store import loaded
from restore.serve.page.recipe import checked, fix_options
from restore.serve.page.saving import save
from restore.serve.page.session import ASKED, BACKGROUND, URGENT, Json, Session
from restore.serve.page.tiles import Box, level_sizes, put, tile_box
from restore.serve.page.work_folder import NotFound

Bytes = npt.NDArray[np.uint8]

#: A preview shows at most this many pixels; a larger part is repaired at a coarser level.
_PREVIEW_PIXELS = 1 << 20
#: Pixels around the holes of a preview, and more for larger holes: what a filler looks at.
_CONTEXT_PX, _CONTEXT = 96, 1.0


class Repairs:
    """Repairs images. Any thread may call it; the work is done by jobs.

    Args:
        session: of the opened folder.
    """

    def __init__(self, session: Session) -> None:
        self._session, self._workspace = session, session.workspace

    def detect(self, file: int) -> Job:
        """Search for damage; the probabilities are kept."""
        self._workspace.size(file)
        self._session.check_prepared(file)
        revision = self._workspace.new_revision()
        target = self._workspace.probabilities(file, revision)
        original = self._workspace.row(file)["original"]
        params = {
            "source": str(self._workspace.original(file)),
            "target": str(target),
            "max_pixels": self._session.max_pixels,
        }

        def done(result: Json) -> None:
            self._session.check_disk(file)
            if self._workspace.row(file)["original"] == original:
                facts = {name: result[name] for name in ("threshold", "margin_px", "detector")}
                self._workspace.found(file, revision, result["fraction"], facts)
                self._session.tell(file)

        return self._session.submit("probability", params, file, priority=ASKED, done=done)

    def preview(self, file: int, box: list[float] | None) -> Job:
        """Fill the holes of a part of a file, for display.

        Args:
            file: it is prepared.
            box: [left, top, right, bottom]; None: all holes.

        Raises:
            RestoreError: nothing is masked there.
        """
        size = self._workspace.size(file)
        self._session.check_prepared(file)
        if box is not None and not np.isfinite(box).all():
            raise RestoreError("the numbers must be finite", where="box")
        masked = self._workspace.masks.box(file, size)
        part = Box(0, 0, *size) if box is None else Box.around(*box).within(*size)
        if masked is not None:
            part = Box(
                max(part.left, masked.left), max(part.top, masked.top),
                min(part.right, masked.right), min(part.bottom, masked.bottom),
            )  # fmt: skip
        holes = None if masked is None or part.empty else self._holes(file, part, size)
        if holes is None:
            raise RestoreError("nothing is masked here", hint="paint over the damage first")
        crop = holes.grown(_CONTEXT_PX + round(_CONTEXT * max(holes.width, holes.height))).within(*size)
        level = 0
        while (crop.width >> level) * (crop.height >> level) > _PREVIEW_PIXELS:
            level += 1
        level = min(level, len(level_sizes(*size)) - 1)
        crop = Box(  # whole pixels of the level
            crop.left >> level, crop.top >> level, -(-crop.right >> level), -(-crop.bottom >> level)
        ).within(*level_sizes(*size)[level])
        number = self._workspace.new_revision()
        folder = self._workspace.work / "previews"
        mask, target = folder / f"{file}-{number}.npy", folder / f"{file}-{number}.jpg"
        _save(mask, self._reduced_mask(file, crop, level, size))
        recipe = self._workspace.recipe(file)
        shared = fix_options(recipe, masks="mask.png").to_dict()
        options = {name: shared[name] for name in ("mask_dilate", "match_grain", "strength", "seed")}
        params = {
            "pyramid": str(self._session.tiles(file, "original").path), "level": level, "box": crop.to_list(),
            "mask": str(mask), "options": options, "model": recipe["model"], "target": str(target),
        }  # fmt: skip
        scale = 1 << level
        shown = Box(crop.left * scale, crop.top * scale, crop.right * scale, crop.bottom * scale).within(*size)

        def done(result: Json) -> Json:
            for path in folder.glob(f"{file}-*.jpg"):
                if path != target:
                    path.unlink(missing_ok=True)
            return {
                "url": f"/page/files/{file}/previews/{number}", "x": shown.left, "y": shown.top,
                "width": shown.width, "height": shown.height,
            }  # fmt: skip

        return self._session.submit(
            "preview", params, file,
            priority=URGENT, again=True, done=done, after=lambda: mask.unlink(missing_ok=True),
        )  # fmt: skip

    def _holes(self, file: int, part: Box, size: tuple[int, int]) -> Box | None:
        """The pixels from the first to the last masked one in a part of an image."""
        mask = self._workspace.masks.read(file, part, size)
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            return None
        return Box(
            part.left + int(columns[0]), part.top + int(rows[0]),
            part.left + int(columns[-1]) + 1, part.top + int(rows[-1]) + 1,
        )  # fmt: skip

    def _reduced_mask(self, file: int, crop: Box, level: int, size: tuple[int, int]) -> Bytes:
        """The mask of a part of a level."""
        if level == 0:
            return self._workspace.masks.read(file, crop, size)
        out = np.zeros((crop.height, crop.width), np.uint8)
        for x, y in crop.tiles():
            tile = self._workspace.masks.reduced(file, level, x, y, size)
            if tile is not None:
                put(out, crop, tile, tile_box(x, y, *level_sizes(*size)[level]))
        return out

    def preview_file(self, file: int, number: int) -> Path:
        """The JPEG of a preview.

        Raises:
            NotFound: there is none.
        """
        self._workspace.row(file)
        path = self._workspace.work / "previews" / f"{file}-{number}.jpg"
        if not 0 < number < 1 << 63 or not path.is_file():
            raise NotFound("there is no such preview")
        return path

    def repair(self, file: int, recipe: Mapping[str, Any] | None = None) -> Job:
        """Repair a file by its mask, exactly as `restore fix` does.

        Args:
            file: it is prepared.
            recipe: settings to change first; None: none.

        Raises:
            RestoreError: a wrong recipe, or the file has changed on the disk.
        """
        if recipe is not None:
            self._workspace.set_recipe(file, dict(recipe))
        self._session.check_prepared(file)
        return self._repair_by_mask(file)

    def _repair_by_mask(self, file: int) -> Job:
        self._workspace.size(file)
        with self._session.lock_of(file):
            row = self._workspace.row(file)
            key = self._workspace.repair_key(row)
            mask = self._workspace.work / "masks" / f"{file}-{self._workspace.new_revision()}.png"
            write_atomically(mask, self._session.mask_png(file))
        options = fix_options(self._workspace.recipe(file), masks=str(mask)).to_dict()
        return self._repair(file, options, mask, key, priority=ASKED)

    def apply(self, files: Iterable[int] | None, recipe: Mapping[str, Any]) -> list[Job]:
        """Repair files by a recipe in the background. With `find` in the recipe, the detector makes their masks, which
        can be edited afterwards; without, masks are those that the files have.

        Args:
            files: None: all that nobody has touched.
            recipe: the settings that differ from the defaults.

        Raises:
            RestoreError: a wrong recipe.
        """
        complete = checked(recipe)
        if files is None:
            chosen = [file for file in self._workspace.ids_in_order() if self._workspace.is_untouched(file)]
        else:
            chosen = [file for file in dict.fromkeys(files) if not self._workspace.row(file)["reason"]]
        # Checking options takes a millisecond, which thousands of files would wait for.
        options = fix_options(complete, masks="auto" if complete["find"] else "mask.png").to_dict()
        jobs = []
        for file in chosen:
            self._session.check_disk(file)
            self._workspace.replace_recipe(file, complete)
            if self._workspace.masks.is_empty(file):
                jobs.append(self._repair_without_mask(file, options, find=bool(complete["find"])))
            else:
                jobs.append(self._repair_by_mask(file))
        return jobs

    def _repair_without_mask(self, file: int, options: Json, *, find: bool) -> Job:
        """Repair a file whose mask is empty, in the background; with `find`, the detector makes one."""
        place = self._workspace.work / "masks" / f"{file}-{self._workspace.new_revision()}"
        if find:
            options = options | {"save_masks": str(place)}
            return self._repair(file, options, None, None, priority=BACKGROUND, found=place)
        mask = place.with_suffix(".png")
        options = options | {"masks": str(mask)}
        return self._repair(file, options, mask, None, priority=BACKGROUND, blank=True)

    def _repair(
        self,
        file: int,
        options: Json,
        mask: Path | None,
        key: str | None,
        *,
        priority: int,
        found: Path | None = None,
        blank: bool = False,
    ) -> Job:
        """Submit a repair.

        Args:
            file: to repair.
            options: of `FixOptions`.
            mask: the file of the mask; None: the detector makes it.
            key: what the repair depends on, see `Workspace.repair_key`; None: on what the file is afterwards.
            priority: of the job.
            found: the folder for the mask if the detector makes it.
            blank: the file of the mask is not there yet, and is to be empty.
        """
        revision = self._workspace.new_revision()
        folder = self._workspace.result_folder(file, revision)
        row, recipe = self._workspace.row(file), self._workspace.recipe(file)
        pyramids, pyramid = self._workspace.work / "pyramids", f"{file}-repaired-{revision}.tiles"
        array = None if found is None else found.with_suffix(".npy")
        is_shown = priority > BACKGROUND or self._workspace.pyramid(row, "original").exists()
        params = {
            "input": str(self._workspace.original(file)),
            "output": f"{folder}{os.sep}",
            "mask": None if mask is None else str(mask),
            "blank": blank,
            "options": options | {"max_pixels": self._session.max_pixels},
            "model": recipe["model"],
            # In the background there may be thousands; tiles are made when somebody looks at one that was never open.
            "pyramid": str(pyramids / pyramid) if is_shown else None,
            "thumbnail": str(self._workspace.work / "thumbnails" / f"{file}-{revision}.jpg"),
            "like": str(self._workspace.pyramid(row, "original")),
            "mask_array": None if array is None else str(array),
            "max_pixels": self._session.max_pixels,
        }

        def done(result: Json) -> Json:
            self._session.check_disk(file)
            with self._session.lock_of(file):
                if self._workspace.row(file)["original"] != row["original"]:
                    raise RestoreError("the image has changed since the repair began", hint="repair it again")
                self._workspace.read(file, result["width"], result["height"])
                own = key
                if own is None and self._workspace.row(file)["mask"] == row["mask"]:  # nobody has painted since
                    if array is not None:
                        self._workspace.masks.replace(file, "found", loaded(array))
                    own = self._workspace.repair_key(self._workspace.row(file), recipe)
                is_same = is_shown and self._looks_like_before(file, pyramids / pyramid)
                self._workspace.repaired(file, revision, Path(result["output"]).name, own or "", result["warnings"])
            self._session.tell(file)
            return {
                "revision": revision, "notes": result["warnings"], "seconds": result["seconds"], "is_same": is_same,
            }  # fmt: skip

        def failed(problem: Json | None) -> None:
            _remove(folder)
            if self._workspace.row(file)["width"] is None:  # it was not read before
                self._session.unreadable(file, problem)

        def clean() -> None:
            for path in (mask, array):
                if path is not None:
                    path.unlink(missing_ok=True)
            if found is not None:
                _remove(found)

        return self._session.submit(
            "repair", params, file, priority=priority, again=True, done=done, failed=failed, after=clean
        )

    def _looks_like_before(self, file: int, pyramid: Path) -> bool:
        """Whether a new repair has the tiles of the one before."""
        row = self._workspace.row(file)
        before = None if row["result"] is None else self._workspace.pyramid(row, "repaired")
        return before is not None and before.is_file() and filecmp.cmp(before, pyramid, shallow=False)

    def save(self, file: int, *, overwrite: bool) -> Json:
        """Write the repaired file to the output folder, with the bytes of `restore fix`."""
        with self._session.lock_of(file):
            path, notes = save(self._workspace, file, overwrite=overwrite)
        self._session.tell(file)
        return {"path": printable(path), "notes": notes}


def _save(path: Path, array: Bytes) -> None:
    with open(path, "wb") as file:
        np.save(file, array, allow_pickle=False)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
