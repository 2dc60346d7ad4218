"""The HTML report of a run over URLs: a page on this machine, for which the finished images come once more."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from restore.errors import RestoreError
from restore.fix.batch_options import FilePath
from restore.fix.jobs import Entry, Job, Jobs
from restore.fix.log import Record
from restore.fix.plan import FixPlan
from restore.fix.results import Summary
from restore.html.write import MOST_ROWS_AHEAD
from restore.places.files import PlacedFile
from restore.places.plan import PlacesPlan
from restore.places.store import store_of
from restore.places.urls import file_name_for, is_url

#: Images that are on this disk at a time. A page reads none of earlier rows.
_IMAGES = MOST_ROWS_AHEAD + 1


def write_places_page(
    folder: FilePath,
    plan: PlacesPlan,
    records: Iterable[Record],
    summary: Summary,
    *,
    log: FilePath | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the page of a run; see `restore.fix.html_report.write_fix_page`.

    Args:
        folder, records, summary: as there.
        plan: of the run.
        log: on this disk.
        progress: called with (done, total).
    """
    from restore.fix.html_report import write_fix_page

    def written(done: int) -> None:
        if progress is not None:
            progress(done, len(plan.files))

    with tempfile.TemporaryDirectory(prefix="restore-page-") as work:
        here = _Here(plan, Path(work))
        return write_fix_page(
            folder, here.plan(), here.records(records), summary, log=log, progress=written, inputs=plan.inputs,
            bring=here.bring,
        )  # fmt: skip


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
            side_target=None if side is None else self._place(number, "side", side), name=file.tree_name,
        )  # fmt: skip

    def _place(self, number: int, kind: str, place: str) -> str:
        return os.fspath(self._work / str(number) / kind / file_name_for(place)) if is_url(place) else place
