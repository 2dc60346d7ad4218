"""An opened folder at work: what a person asks for becomes jobs, and what jobs find out becomes the state of images."""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from restore import __version__
from restore.errors import RestoreError, printable
from restore.files import write_atomically
from restore.serve.jobs import Job, Jobs
from restore.serve.page import mask_tools
from restore.serve.page.mask_store import Change
from restore.serve.page.pyramid import png
from restore.serve.page.recipe import FILLING_MODELS, RECIPE, checked, fix_options
from restore.serve.page.tiles import TILE_PX, Box, TileFile, level_sizes
from restore.serve.page.workspace import NotFound, Workspace, restored
from restore.serve.workers import Kind, Outcome, problem_of

Bytes = npt.NDArray[np.uint8]
Json = dict[str, Any]
Listener = Callable[[str, Json], None]

#: Priorities of jobs: what a person waits for goes first.
_URGENT, _ASKED, _SOON, _BACKGROUND = 30, 10, 5, 0

#: A preview shows at most this many pixels; a larger part is repaired at a coarser level.
_PREVIEW_PIXELS = 1 << 20
#: Pixels around the holes of a preview, and more for larger holes: what a filler looks at.
_CONTEXT_PX, _CONTEXT = 96, 1.0
#: Thumbnails that wait for the decoder at a time.
_QUEUED_THUMBNAILS = 4
#: Thumbnails that come before models are opened.
_FIRST_THUMBNAILS = 12

#: The beginning of `Job.about` of the page's jobs; a file's identifier follows.
_OURS = "page:"

logger = logging.getLogger(__name__)


class Session:
    """The page's view of a workspace. Any thread may call it.

    Args:
        workspace: the opened folder.
        jobs: of the server.
        max_pixels: of an image.
        warm: models to open in the background, when the first thumbnails are there.
    """

    def __init__(
        self,
        workspace: Workspace,
        jobs: Jobs,
        *,
        max_pixels: int,
        warm: tuple[str, ...] = ("inpaint", "detector"),
    ) -> None:
        self.workspace, self.jobs, self.max_pixels = workspace, jobs, max_pixels
        self._warm = warm
        self._lock = threading.RLock()
        self._painting: dict[int, threading.RLock] = {}
        self._running: dict[tuple[str, int], Job] = {}
        self._listeners: list[Listener] = []
        self._opened: OrderedDict[Path, TileFile] = OrderedDict()
        self._likely: tuple[Path, Bytes] | None = None
        self._before_warm = 0
        self._missing: deque[int] = deque()
        jobs.listen(self._changed)

    def start(self) -> None:
        """Make the thumbnails that are missing, and open the models."""
        missing = [file for file in self.workspace.ids_in_order() if self._needs_thumbnail(file)]
        self._missing.extend(missing)
        self._before_warm = min(len(missing), _FIRST_THUMBNAILS)
        for _ in range(_QUEUED_THUMBNAILS):
            self._next_thumbnail()
        if not missing:
            self._warm_up()

    def _next_thumbnail(self) -> None:
        """Queue another thumbnail; of thousands only a few wait at a time."""
        while True:
            with self._lock:
                file = self._missing.popleft() if self._missing else None
            if file is None or self.thumbnail_job(file) is not None:
                return

    # Listening

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Have events reported, from any thread: `file` with a file, `job` with a job. Returns what ends it."""
        with self._lock:
            self._listeners.append(listener)

        def stop() -> None:
            with self._lock, suppress(ValueError):
                self._listeners.remove(listener)

        return stop

    def tell(self, file: int) -> None:
        """Report that a file has changed."""
        self._report("file", self.workspace.file(file))

    def _report(self, event: str, what: Json) -> None:
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            listener(event, what)

    # What is there

    def describe(self) -> Json:
        """The session, for the page."""
        workspace = self.workspace
        return {
            "folder": printable(workspace.folder),
            "output": printable(workspace.output),
            "version": __version__,
            "files": len(workspace.ids_in_order()),
            "models": list(FILLING_MODELS),
            "recipe": [one.to_dict() for one in RECIPE],
            "tile": TILE_PX,
            "warnings": workspace.listing.warnings,
        }

    def files(self) -> list[Json]:
        """All files, in order."""
        return [self.workspace.file(file) for file in self.workspace.ids_in_order()]

    def detail(self, file: int) -> Json:
        """A file for the editor, or `{"state": "preparing", "job": ...}` while it is being prepared.

        Raises:
            RestoreError: it cannot be read.
        """
        job = self.prepare(file)
        if job is not None:
            return {"state": "preparing", "job": job.id}
        return self.workspace.detail(file)

    def tiles(self, file: int, which: str) -> TileFile:
        """The tiles of `original` or `repaired`.

        Raises:
            NotFound: they are not there.
        """
        return self._tile_file(self.workspace.pyramid(self.workspace.row(file), which))

    def probabilities(self, file: int) -> TileFile:
        """The tiles of what was found.

        Raises:
            NotFound: damage has not been searched for.
        """
        row = self.workspace.row(file)
        if row["found"] is None:
            raise NotFound("damage has not been searched for", where=restored(row["name"]), hint="find damage first")
        return self._tile_file(self.workspace.probabilities(file, row["found"]))

    def _tile_file(self, path: Path) -> TileFile:
        with self._lock:
            opened = self._opened.get(path)
            if opened is None:
                try:
                    opened = TileFile.open(path)
                except OSError as error:
                    raise NotFound("the image is not prepared yet", where=path.name, hint="try again") from error
                self._opened[path] = opened
                while len(self._opened) > 16:
                    self._opened.popitem(last=False)
            self._opened.move_to_end(path)
            return opened

    # Reading images

    def _needs_thumbnail(self, file: int) -> bool:
        row = self.workspace.row(file)
        return not row["reason"] and (row["width"] is None or not self.workspace.thumbnail(row).exists())

    def thumbnail_job(self, file: int, *, asked: bool = False) -> Job | None:
        """The job that makes the thumbnail of a file; None: it is there, or cannot be made."""
        if not self._needs_thumbnail(file):
            return None
        row, source = self.workspace.row(file), self._source(file)
        if source is None:
            return None
        if row["result"] is not None:
            source = self.workspace.result(file)[0]
        params = {
            "source": str(source),
            "thumbnail": str(self.workspace.thumbnail(row)),
            "max_pixels": self.max_pixels,
        }
        return self._submit(
            "thumbnail", params, file,
            worker="decoder", priority=_SOON if asked else _BACKGROUND, done=self._read_done(file),
            failed=lambda problem: self._unreadable(file, problem), after=self._thumbnail_over,
        )  # fmt: skip

    def prepare(self, file: int) -> Job | None:
        """The job that prepares a file for the editor; None: it is prepared.

        Raises:
            RestoreError: it cannot be read.
        """
        row = self.workspace.row(file)
        if row["reason"]:
            raise RestoreError(row["reason"], where=restored(row["name"]), exit_code=1)
        for which in ("original", "repaired") if row["result"] is not None else ("original",):
            path = self.workspace.pyramid(row, which)
            if path.exists() and row["width"] is not None:
                continue
            source = self.workspace.original(file) if which == "original" else self.workspace.result(file)[0]
            params = {
                "source": str(source), "pyramid": str(path), "max_pixels": self.max_pixels,
                "like": None if which == "original" else str(self.workspace.pyramid(row, "original")),
            }  # fmt: skip
            return self._submit(
                "prepare", params, file,
                worker="decoder", priority=_URGENT, done=self._read_done(file),
                failed=lambda problem: self._unreadable(file, problem),
            )  # fmt: skip
        return None

    def _source(self, file: int) -> Path | None:
        """The file that repairs start from; None: it has vanished or leads out of the folder, and has failed."""
        try:
            return self.workspace.original(file)
        except RestoreError as error:
            self.workspace.failed(file, error.what, "failed")
            self.tell(file)
            return None

    def _read_done(self, file: int) -> Callable[[Json], Json | None]:
        def done(result: Json) -> None:
            self.workspace.read(file, result["width"], result["height"])
            self.tell(file)

        return done

    def _unreadable(self, file: int, problem: Json | None) -> None:
        if problem is not None and problem["code"] != "unexpected":
            self.workspace.failed(file, problem["detail"], problem["code"])
            self.tell(file)

    def _thumbnail_over(self) -> None:
        with self._lock:
            self._before_warm -= 1
            last = self._before_warm == 0
        if last:
            self._warm_up()
        self._next_thumbnail()

    def _warm_up(self) -> None:
        with self._lock:
            warm, self._warm = self._warm, ()
        if warm:
            self._submit("warm", {"models": list(warm)}, None, priority=_SOON)

    # Masks

    def painting(self, file: int) -> threading.RLock:
        """The lock that a change of a file's mask takes."""
        with self._lock:
            return self._painting.setdefault(file, threading.RLock())

    def stroke(self, file: int, points: list[list[float]], softness: float, *, erase: bool) -> Change:
        """Paint a stroke; see `mask_tools.stroke`."""
        size = self.workspace.size(file)
        coverage = mask_tools.stroke(points, softness, *size)
        return self._paint(file, "erase" if erase else "stroke", coverage, size, erase=erase)

    def polygon(self, file: int, points: list[list[float]], *, erase: bool) -> Change:
        """Fill a polygon; see `mask_tools.polygon`."""
        size = self.workspace.size(file)
        return self._paint(file, "polygon", mask_tools.polygon(points, *size), size, erase=erase)

    def paint_found(self, file: int, threshold: float, at: list[float] | None, *, erase: bool) -> Change:
        """Paint what was found: all of it, or the part that is connected with a point."""
        size = self.workspace.size(file)
        mask = self.found_mask(file, threshold)
        if at is not None:
            mask = mask_tools.connected(mask, at[0], at[1])
        tiles = mask_tools.in_tiles(mask, Box(0, 0, *size), *size)
        return self._paint(file, "found", {place: t for place, t in tiles.items() if t.any()}, size, erase=erase)

    def found_mask(self, file: int, threshold: float) -> Bytes:
        """What was found at a threshold, H×W of 0 and 255: as `restore detect` writes it, but for the probabilities,
        which are kept in steps of 1/255."""
        import cv2

        if not 0 < threshold < 1:
            raise RestoreError(f"must be a number between 0 and 1, not {threshold}", where="threshold")
        tiles = self.probabilities(file)
        with self._lock:
            kept = self._likely
        if kept is None or kept[0] != tiles.path:
            kept = (tiles.path, tiles.read_box(Box(0, 0, *tiles.size), channels=1))
            with self._lock:
                self._likely = kept
        damaged = kept[1] >= threshold * 255
        margin = tiles.facts["margin_px"]
        if margin and damaged.any():
            distance = cv2.distanceTransform((~damaged).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
            damaged = np.asarray(distance) <= margin
        return damaged.astype(np.uint8) * np.uint8(255)

    def change(self, file: int, what: str, px: int = 0) -> Change:
        """Change a whole mask: `invert`, `clear`, `grow`, `undo`, `redo` or `ground`."""
        size = self.workspace.size(file)
        masks = self.workspace.masks
        with self.painting(file):
            before = self.workspace.file(file)
            change = {
                "invert": lambda: masks.invert(file, size),
                "clear": lambda: masks.clear(file, size),
                "grow": lambda: masks.grow(file, px, size),
                "undo": lambda: self.workspace.undo(file),
                "redo": lambda: self.workspace.redo(file),
                "ground": lambda: self.workspace.make_ground(file),
            }[what]()
            if self.workspace.file(file) != before:
                self.tell(file)
        return change

    def load_mask(self, file: int, mask: Path) -> Job:
        """Replace a mask by that of a file."""
        target = mask.with_suffix(".npy")
        params = {
            "mask": str(mask), "source": str(self.workspace.original(file)), "target": str(target),
            "max_pixels": self.max_pixels,
        }  # fmt: skip

        def done(result: Json) -> Json:
            with self.painting(file):
                change = self.workspace.masks.replace(file, "load", _loaded(target))
            self.tell(file)
            return change.to_dict() | result

        def clean() -> None:
            mask.unlink(missing_ok=True)
            target.unlink(missing_ok=True)

        return self._submit(
            "read_mask", params, file,
            worker="decoder", priority=_URGENT, again=True, done=done, after=clean,
        )  # fmt: skip

    def mask_png(self, file: int) -> bytes:
        """The mask of a file: 8 bits, gray, white = repair."""
        size = self.workspace.size(file)
        return png(self.workspace.masks.read(file, Box(0, 0, *size), size))

    def _paint(self, file: int, kind: str, coverage: mask_tools.Tiles, size: tuple[int, int], *, erase: bool) -> Change:
        with self.painting(file):
            before = self.workspace.file(file)["state"]
            change = self.workspace.masks.paint(file, kind, coverage, size, erase=erase)
            if self.workspace.file(file)["state"] != before:
                self.tell(file)
        return change

    # Models at work

    def detect(self, file: int) -> Job:
        """Search for damage; the probabilities are kept."""
        self.workspace.size(file)
        revision = self.workspace.new_revision()
        target = self.workspace.probabilities(file, revision)
        original = self.workspace.row(file)["original"]
        params = {
            "source": str(self.workspace.original(file)), "target": str(target), "max_pixels": self.max_pixels,
        }  # fmt: skip

        def done(result: Json) -> None:
            if self.workspace.row(file)["original"] == original:
                facts = {name: result[name] for name in ("threshold", "margin_px", "detector")}
                self.workspace.found(file, revision, result["fraction"], facts)
                self.tell(file)

        return self._submit("probability", params, file, priority=_ASKED, done=done)

    def preview(self, file: int, box: list[float] | None) -> Job:
        """Fill the holes of a part of a file, for display.

        Args:
            file: it is prepared.
            box: [left, top, right, bottom]; None: all holes.

        Raises:
            RestoreError: nothing is masked there.
        """
        size = self.workspace.size(file)
        if box is not None and not np.isfinite(box).all():
            raise RestoreError("the numbers must be finite", where="box")
        masked = self.workspace.masks.box(file, size)
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
        number = self.workspace.new_revision()
        folder = self.workspace.work / "previews"
        mask, target = folder / f"{file}-{number}.npy", folder / f"{file}-{number}.jpg"
        _save(mask, self._reduced_mask(file, crop, level, size))
        recipe = self.workspace.recipe(file)
        options = {"match_grain": recipe["match_grain"] and not recipe["clean_up"]}
        params = {
            "pyramid": str(self.tiles(file, "original").path), "level": level, "box": crop.to_list(),
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

        return self._submit(
            "preview", params, file,
            priority=_URGENT, again=True, done=done, after=lambda: mask.unlink(missing_ok=True),
        )  # fmt: skip

    def _holes(self, file: int, part: Box, size: tuple[int, int]) -> Box | None:
        """The pixels from the first to the last masked one in a part of an image."""
        mask = self.workspace.masks.read(file, part, size)
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            return None
        return Box(
            part.left + int(columns[0]), part.top + int(rows[0]),
            part.left + int(columns[-1]) + 1, part.top + int(rows[-1]) + 1,
        )  # fmt: skip

    def _reduced_mask(self, file: int, crop: Box, level: int, size: tuple[int, int]) -> Bytes:
        """The mask of a part of a level."""
        from restore.serve.page.tiles import put, tile_box

        if level == 0:
            return self.workspace.masks.read(file, crop, size)
        out = np.zeros((crop.height, crop.width), np.uint8)
        for x, y in crop.tiles():
            tile = self.workspace.masks.reduced(file, level, x, y, size)
            if tile is not None:
                put(out, crop, tile, tile_box(x, y, *level_sizes(*size)[level]))
        return out

    def preview_file(self, file: int, number: int) -> Path:
        """The JPEG of a preview.

        Raises:
            NotFound: there is none.
        """
        path = self.workspace.work / "previews" / f"{file}-{number}.jpg"
        if not 0 < number < 1 << 63 or not path.is_file():
            raise NotFound("there is no such preview")
        return path

    def repair(self, file: int, recipe: Mapping[str, Any] | None = None) -> Job:
        """Repair a file by its mask, exactly as `restore fix` does.

        Args:
            file: it is prepared.
            recipe: settings to change first; None: none.

        Raises:
            RestoreError: a wrong recipe.
        """
        if recipe is not None:
            self.workspace.set_recipe(file, dict(recipe))
        self.workspace.size(file)
        with self.painting(file):
            row = self.workspace.row(file)
            key = self.workspace.repair_key(row)
            mask = self.workspace.work / "masks" / f"{file}-{self.workspace.new_revision()}.png"
            write_atomically(mask, self.mask_png(file))
        options = fix_options(self.workspace.recipe(file), masks=str(mask)).to_dict()
        return self._repair(file, options, mask, key, priority=_ASKED)

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
            chosen = [file for file in self.workspace.ids_in_order() if self.workspace.is_untouched(file)]
        else:
            chosen = [file for file in dict.fromkeys(files) if not self.workspace.row(file)["reason"]]
        jobs = []
        for file in chosen:
            self.workspace.set_recipe(file, complete)
            if self.workspace.masks.is_empty(file):
                jobs.append(self._repair_without_mask(file))
            else:
                jobs.append(self.repair(file))
        return jobs

    def _repair_without_mask(self, file: int) -> Job:
        """Repair a file whose mask is empty, in the background: the detector makes one, if the recipe says so."""
        place = self.workspace.work / "masks" / f"{file}-{self.workspace.new_revision()}"
        recipe = self.workspace.recipe(file)
        if recipe["find"]:
            options = fix_options(recipe, masks="auto").to_dict() | {"save_masks": str(place)}
            return self._repair(file, options, None, None, priority=_BACKGROUND, found=place)
        mask = place.with_suffix(".png")
        options = fix_options(recipe, masks=str(mask)).to_dict()
        return self._repair(file, options, mask, None, priority=_BACKGROUND, blank=True)

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
        revision = self.workspace.new_revision()
        folder = self.workspace.result_folder(file, revision)
        row, recipe = self.workspace.row(file), self.workspace.recipe(file)
        pyramids = self.workspace.work / "pyramids"
        array = None if found is None else found.with_suffix(".npy")
        is_shown = priority > _BACKGROUND or self.workspace.pyramid(row, "original").exists()
        params = {
            "input": str(self.workspace.original(file)),
            "output": f"{folder}{os.sep}",
            "mask": None if mask is None else str(mask),
            "blank": blank,
            "options": options | {"max_pixels": self.max_pixels},
            "model": recipe["model"],
            # In the background there may be thousands; tiles are made when somebody looks at one that was never open.
            "pyramid": str(pyramids / f"{file}-repaired-{revision}.tiles") if is_shown else None,
            "thumbnail": str(self.workspace.work / "thumbnails" / f"{file}-{revision}.jpg"),
            "like": str(self.workspace.pyramid(row, "original")),
            "mask_array": None if array is None else str(array),
            "max_pixels": self.max_pixels,
        }

        def done(result: Json) -> Json:
            with self.painting(file):
                if self.workspace.row(file)["original"] != row["original"]:
                    raise RestoreError("the image has changed since", hint="repair it again")
                self.workspace.read(file, result["width"], result["height"])
                own = key
                if own is None and self.workspace.row(file)["mask"] == row["mask"]:  # nobody has painted since
                    if array is not None:
                        self.workspace.masks.replace(file, "found", _loaded(array))
                    own = self.workspace.repair_key(self.workspace.row(file), recipe)
                self.workspace.repaired(file, revision, Path(result["output"]).name, own or "", result["warnings"])
            self.tell(file)
            return {"revision": revision, "notes": result["warnings"], "seconds": result["seconds"]}

        def failed(problem: Json | None) -> None:
            _remove(folder)
            if self.workspace.row(file)["width"] is None:  # it was not read before
                self._unreadable(file, problem)

        def clean() -> None:
            for path in (mask, array):
                if path is not None:
                    path.unlink(missing_ok=True)
            if found is not None:
                _remove(found)

        return self._submit(
            "repair", params, file, priority=priority, again=True, done=done, failed=failed, after=clean
        )

    def save(self, file: int, *, overwrite: bool) -> Json:
        """Write the repaired file to the output folder, with the bytes of `restore fix`."""
        with self.painting(file):
            path, notes = self.workspace.save(file, overwrite=overwrite)
        self.tell(file)
        return {"path": printable(path), "notes": notes}

    # Jobs

    def job(self, identifier: str) -> Json:
        """A job, as the page shows it.

        Raises:
            NotFound: there is none.
        """
        return self._shown(self._job(identifier))

    def cancel(self, identifier: str) -> Json:
        """Cancel a job, and say how it is."""
        job = self._job(identifier)
        job.cancel()
        return self._shown(job)

    def _job(self, identifier: str) -> Job:
        job = self.jobs.get(identifier)
        if job is None or not job.about.startswith(_OURS):
            raise NotFound("there is no such job")
        return job

    def _shown(self, job: Job) -> Json:
        file = job.about.removeprefix(_OURS)
        known = job.to_dict()
        names = ("id", "task", "state", "progress", "message", "result", "problem")
        return {"file": int(file) if file else None} | {name: known[name] for name in names}

    def _submit(
        self,
        task: str,
        params: Json,
        file: int | None,
        *,
        worker: Kind = "models",
        priority: int,
        again: bool = False,
        done: Callable[[Json], Json | None] = lambda result: None,
        failed: Callable[[Json | None], None] = lambda problem: None,
        after: Callable[[], object] = lambda: None,
    ) -> Job:
        """Submit a job of the page. Its state changes when the functions below have returned.

        Args:
            task, params, worker, priority: as for `Jobs.submit`.
            file: that it concerns.
            again: even if the same is waiting for the file.
            done: enters its result; may return what the page gets of it.
            failed: called with the problem if it fails, and with None if it is cancelled.
            after: called in the end.
        """

        def finishing(outcome: Outcome) -> Outcome:
            try:
                if outcome.state == "done":
                    try:
                        return Outcome("done", result=done(outcome.result or {}) or {})
                    except Exception as error:
                        logger.debug("%s", task, exc_info=error)
                        outcome = Outcome("failed", problem=problem_of(error))
                failed(outcome.problem if outcome.state == "failed" else None)
                return outcome
            finally:
                after()

        with self._lock:
            before = None if file is None or again else self._running.get((task, file))
        if before is not None and not before.is_finished:
            if before.state != "queued" or before.priority >= priority:
                return before
            before.cancel()
        job = self.jobs.submit(
            task, params, worker=worker, priority=priority, about=f"{_OURS}{file or ''}", finishing=finishing
        )
        if file is not None:
            with self._lock:
                self._running[task, file] = job
        return job

    def _changed(self, job: Job) -> None:
        """Report a job that has changed. The lock of the jobs may be held here."""
        if job.about.startswith(_OURS) and job.task != "thumbnail":
            self._report("job", self._shown(job))


def _loaded(path: Path) -> Bytes:
    """An array that a task has written."""
    return np.asarray(np.load(path, allow_pickle=False), np.uint8)


def _save(path: Path, array: Bytes) -> None:
    with open(path, "wb") as file:
        np.save(file, array, allow_pickle=False)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
