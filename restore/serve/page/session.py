"""The session of an opened folder: requests become jobs, and the results of jobs become the state of images."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from restore import __version__
from restore.errors import RestoreError, printable
from restore.serve.jobs import Job, Jobs
from restore.serve.page.pyramid import png
from restore.serve.page.recipe import FILLING_MODELS, RECIPE
from restore.serve.page.tiles import TILE_PX, Box, TileFile
from restore.serve.page.work_folder import NotFound, restored
from restore.serve.page.workspace import Workspace
from restore.serve.workers import Kind, Outcome, problem_of

Bytes = npt.NDArray[np.uint8]
Json = dict[str, Any]
Listener = Callable[[str, Json], None]

#: Priorities of jobs: those that a person waits for come first.
URGENT, ASKED, SOON, BACKGROUND = 30, 10, 5, 0

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
        self._locks: dict[int, threading.RLock] = {}
        #: Taken for work that needs several bytes for every pixel of an image: many requests need no more than one.
        self.whole_image = threading.Lock()
        self._running: dict[tuple[str, int], Job] = {}
        self._listeners: list[Listener] = []
        self._opened: OrderedDict[Path, TileFile] = OrderedDict()
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
        """The tiles of the detected damage.

        Raises:
            NotFound: damage has not been detected yet.
        """
        row = self.workspace.row(file)
        if row["found"] is None:
            raise NotFound("damage has not been detected yet", where=restored(row["name"]), hint="find damage first")
        return self._tile_file(self.workspace.probabilities(file, row["found"]))

    def _tile_file(self, path: Path) -> TileFile:
        with self._lock:
            opened = self._opened.get(path)
            if opened is None:
                try:
                    opened = TileFile.open(path)
                except (OSError, RestoreError) as error:
                    if isinstance(error, RestoreError):  # damaged: it is made anew
                        path.unlink(missing_ok=True)
                    raise NotFound("the image is not prepared yet", where=path.name, hint="try again") from error
                self._opened[path] = opened
                while len(self._opened) > 16:
                    self._opened.popitem(last=False)
            self._opened.move_to_end(path)
            return opened

    def _has_tiles(self, path: Path) -> bool:
        try:
            self._tile_file(path)
        except NotFound:
            return False
        return True

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
        if row["result"] is not None and self.workspace.result(file)[0].is_file():
            source = self.workspace.result(file)[0]
        params = {
            "source": str(source),
            "thumbnail": str(self.workspace.thumbnail(row)),
            "max_pixels": self.max_pixels,
        }
        return self.submit(
            "thumbnail", params, file,
            worker="decoder", priority=SOON if asked else BACKGROUND, done=self._read_done(file),
            failed=lambda problem: self.unreadable(file, problem), after=self._thumbnail_over,
        )  # fmt: skip

    def prepare(self, file: int) -> Job | None:
        """The job that prepares a file for the editor; None: it is prepared.

        Raises:
            RestoreError: it cannot be read.
        """
        self.check_disk(file)
        self.workspace.forget_lost(file)
        row = self.workspace.row(file)
        if row["reason"]:
            raise RestoreError(row["reason"], where=restored(row["name"]), exit_code=1)
        for which in ("original", "repaired") if row["result"] is not None else ("original",):
            path = self.workspace.pyramid(row, which)
            if row["width"] is not None and self._has_tiles(path):
                continue
            source = self.workspace.original(file) if which == "original" else self.workspace.result(file)[0]
            params = {
                "source": str(source), "pyramid": str(path), "max_pixels": self.max_pixels,
                "like": None if which == "original" else str(self.workspace.pyramid(row, "original")),
            }  # fmt: skip
            return self.submit(
                "prepare", params, file,
                worker="decoder", priority=URGENT, done=self._read_done(file),
                failed=lambda problem: self.unreadable(file, problem),
            )  # fmt: skip
        return None

    def check_disk(self, file: int) -> None:
        """Take notice if the original has changed on the disk."""
        with self.lock_of(file):
            has_changed = self.workspace.has_changed(file)
        if has_changed:
            self.tell(file)

    def check_prepared(self, file: int) -> None:
        """Check that the page can show a file as it is now.

        Raises:
            RestoreError: it is being read, as when it has changed on the disk; or it cannot be read.
        """
        if self.prepare(file) is not None:
            name = restored(self.workspace.row(file)["name"])
            raise RestoreError(
                "the file has changed on the disk and is read again", where=name, hint="look at it, and try again",
                exit_code=1,
            )  # fmt: skip

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

    def unreadable(self, file: int, problem: Json | None) -> None:
        """An image cannot be read; without a problem, reading it was cancelled."""
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
            self.submit("warm", {"models": list(warm)}, None, priority=SOON)

    def lock_of(self, file: int) -> threading.RLock:
        """The lock that a change of a file's mask takes."""
        with self._lock:
            return self._locks.setdefault(file, threading.RLock())

    def mask_png(self, file: int) -> bytes:
        """The mask of a file: 8 bits, gray, white = repair."""
        size = self.workspace.size(file)
        with self.whole_image:
            return png(self.workspace.masks.read(file, Box(0, 0, *size), size))

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

    def submit(
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
            again: even if the same is in work for the file; what still waits is replaced.
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
            before = None if file is None else self._running.get((task, file))
        if before is not None and not before.is_finished:
            if not again and (before.state != "queued" or before.priority >= priority):
                return before
            if before.state == "queued":
                before.cancel()
        # A file may become a link to elsewhere while its job waits.
        params = params | {"roots": [str(self.workspace.folder), str(self.workspace.work)]}
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
