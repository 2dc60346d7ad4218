"""The HTML report of a run over URLs, on this machine or in a store. The finished images come once more for it."""

from __future__ import annotations

import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from restore.errors import RestoreError, printable
from restore.fix.batch_options import FilePath
from restore.fix.jobs import Entry, Job, Jobs
from restore.fix.log import Record
from restore.fix.plan import FixPlan
from restore.fix.results import Summary
from restore.html.folder import GENERATOR, INDEX, claim_page_folder
from restore.html.write import MOST_ROWS_AHEAD
from restore.images.formats import suffix_of
from restore.places.files import PlacedFile
from restore.places.store import TRANSFERS, NotThere, store_of
from restore.places.urls import as_folder, file_name_for, is_below, is_url, settle
from restore.places.work import WorkFolder
from restore.video.formats import VIDEO_SUFFIXES

if TYPE_CHECKING:
    from restore.places.plan import PlacesPlan

#: Images that are on this disk at a time. A page reads none of earlier rows.
_IMAGES = MOST_ROWS_AHEAD + 1


def write_places_page(
    folder: FilePath,
    plan: PlacesPlan,
    records: Iterable[Record],
    summary: Summary,
    *,
    work: WorkFolder,
    log: FilePath | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> FilePath:
    """Write the page of a run; see `restore.fix.html_report.write_fix_page`.

    Args:
        folder, records, summary: as there; the folder may be a URL.
        plan: of the run.
        work: the work folder of the run, or another one.
        log: on this disk.
        progress: called with (done, total).

    Returns:
        The place of `index.html`.
    """
    from restore.fix.html_report import RESULTS, write_fix_page

    def written(done: int) -> None:
        if progress is not None:
            progress(done, len(plan.files))

    here = _Here(plan, work.path / "files")
    page = work.path / "page" if is_url(folder) else Path(folder)
    if is_url(folder):
        shutil.rmtree(page, ignore_errors=True)  # a crash may have left it
        page.mkdir()
        with suppress(NotThere):  # of an earlier run
            store = store_of(settle(folder))
            (page / RESULTS).write_bytes(store.read(as_folder(settle(folder)) + RESULTS))
        claim_page_folder(page)  # which makes of it a page that may be replaced
    index = write_fix_page(
        page, here.plan(), here.records(records), summary, log=log, progress=written, inputs=plan.inputs,
        bring=here.bring,
    )  # fmt: skip
    return _uploaded(page, as_folder(settle(folder))) if is_url(folder) else index


def check_page_place(folder: str, *, inputs: Iterable[str], outputs: Iterable[str]) -> None:
    """Check that a page may be written to a folder of a store; see `restore.html.check_page_folder`.

    Raises:
        RestoreError: exit code 2.
    """
    for place in inputs:
        if is_below(folder, place):
            what = f"the page would be inside {printable(place)}, an input folder"
            raise RestoreError(what, where=folder, hint="choose a folder outside it")
    if folder.rstrip("/") in [place.rstrip("/") for place in outputs]:
        raise RestoreError(
            "the page and the restored images need separate folders", where=folder, hint="choose another"
        )
    store, root = store_of(folder), as_folder(folder)
    if next(store.list(root), None) is not None and not _holds_page(root):
        what = "the folder is not empty and does not hold an earlier page"
        raise RestoreError(what, where=folder, hint="choose a new folder")


def claim_page(folder: FilePath) -> None:
    """Put an unfinished page into a folder that gets other files during the run; see `claim_page_folder`."""
    if not is_url(folder):
        claim_page_folder(folder)
        return
    root = as_folder(settle(folder))
    if not _holds_page(root):
        with WorkFolder() as work:
            claim_page_folder(work.path / "page")
            _uploaded(work.path / "page", root)


def _holds_page(root: str) -> bool:
    try:
        return GENERATOR.encode() in store_of(root).head(root + INDEX, 1000)
    except NotThere:
        return False


def _uploaded(page: Path, root: str) -> str:
    """Write the files of a page to a store, `index.html` last. Returns its place."""
    store = store_of(root)

    def upload(path: Path) -> None:
        store.upload(path, root + path.relative_to(page).as_posix(), overwrite=True)

    files = [path for path in page.rglob("*") if path.is_file() and path != page / INDEX]
    with ThreadPoolExecutor(TRANSFERS) as pool:
        deque(pool.map(upload, files), maxlen=0)
    upload(page / INDEX)
    return root + INDEX


class _Here:
    """The files of a plan as they will lie on this disk.

    Args:
        plan: of the run.
        work: a temporary folder.
    """

    def __init__(self, plan: PlacesPlan, work: Path) -> None:
        self._plan, self._work = plan, work
        self._brought: deque[Path] = deque()

    def plan(self) -> FixPlan:
        """A plan of the same files on this disk."""
        plan = self._plan
        return FixPlan((), Path(plan.output), False, Jobs(self._entries()), plan.masks)

    def records(self, records: Iterable[Record]) -> Iterator[Record]:
        """Records with the inputs of that plan."""
        numbers = {file.source: number for number, file in enumerate(self._plan.files)}
        for record in records:
            number = numbers[record.input]
            yield replace(record, input=self._place(number, "in", record.input))

    def bring(self, job: Job) -> None:
        """Bring the files of a job. What does not come is missing on the page, which says so."""
        file = self._plan.files[job.number]
        pairs: list[tuple[str | None, Path | None]] = [
            (file.source, job.source), (self._plan.target(file), job.target), (file.mask, job.mask),
            (self._plan.side_target(file), job.side_target),
        ]  # fmt: skip
        for place, path in pairs:
            if place is not None and path is not None and is_url(place):
                path.parent.mkdir(parents=True, exist_ok=True)
                with suppress(RestoreError, OSError):
                    store_of(place).download(place, path)
        self._brought.append(self._work / str(job.number))
        if len(self._brought) > _IMAGES:
            shutil.rmtree(self._brought.popleft(), ignore_errors=True)

    def _entries(self) -> Iterator[Entry]:
        for number, file in enumerate(self._plan.files):
            yield self._entry(number, file)

    def _entry(self, number: int, file: PlacedFile) -> Entry:
        action, reason, code = file.verdict
        side = self._plan.side_target(file)
        return Entry(
            self._place(number, "in", file.source), self._place(number, "out", self._plan.target(file)),
            None if file.mask is None else self._place(number, "mask", file.mask), action, reason, code,
            video=suffix_of(file.name).lower() in VIDEO_SUFFIXES,
            side_target=None if side is None else self._place(number, "side", side), name=file.tree_name,
        )  # fmt: skip

    def _place(self, number: int, kind: str, place: str) -> str:
        return os.fspath(self._work / str(number) / kind / file_name_for(place)) if is_url(place) else place
