"""Writing a page: pictures by threads, rows one after the other, the page itself last."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from restore.errors import RestoreError
from restore.files import replace_atomically, temporary_path, write_atomically, write_error_message
from restore.html.folder import ASSETS, DATA, GENERATOR, INDEX, PICTURES, abandon_page, begin_page, check_page_folder
from restore.html.previews import ERROR_GAIN, Previews, write_previews
from restore.html.rows import Column, PageTable, Row, plain_score, visible

_SHORT = 28  # characters
_ASSETS = Path(__file__).parent / "assets"
_WORKERS_AT_MOST = 8
_AHEAD = 2  # rows that may wait, beside those being worked on


def write_page(
    folder: str | os.PathLike[str],
    *,
    title: str,
    rows: Iterable[Row],
    columns: Sequence[Column],
    tables: Sequence[PageTable] = (),
    notes: Sequence[str] = (),
    reference: str | None = None,
    progress: Callable[[int], object] | None = None,
) -> Path:
    """Write a page that opens from the disk and asks nothing of any network.

    A run that is killed leaves a page that says it is unfinished; one that fails leaves none. Rows are taken one by
    one, so that memory does not grow with their number.

    Args:
        folder: new, empty, or with an earlier page, which is replaced.
        title: of the page.
        rows: in their first order. A picture that cannot be read is noted in its row.
        columns: scores, in order.
        tables: shown above the pictures, in order; after the first come histograms of the scores.
        notes: lines under the title.
        reference: label of the picture that error maps are against; None: there are no error maps.
        progress: called with the number of rows that are written.

    Returns:
        The path of `index.html`.

    Raises:
        RestoreError: exit code 2: the folder holds something else. Exit code 1: it cannot be written.
        ValueError: an array that is no picture.
    """
    check_page_folder(folder)
    place = Path(folder)
    begin_page(place)
    try:
        head = {
            "columns": [vars(column) | {"title": visible(column.title)} for column in columns],
            "reference": None if reference is None else visible(reference),
            "gain": ERROR_GAIN,
        }
        (place / PICTURES).mkdir(exist_ok=True)
        with _Lines(place / DATA) as data:
            data.add(f"window.PAGE = {_json(head)};\nwindow.PAGE.rows = [\n")
            count = 0
            for count, facts in enumerate(_facts_of_rows(rows, columns, place, reference), start=1):
                data.add(f"{_json(facts)},\n")
                if progress is not None:
                    progress(count)
            data.add("];\n")
        for name in ASSETS:
            write_atomically(place / name, (_ASSETS / name).read_bytes())
        write_atomically(place / INDEX, _index(title, tables, notes, count).encode())
    except BaseException:
        abandon_page(place)
        raise
    return place / INDEX


class _Lines:
    """A text file that is added to, and takes its name when it is whole."""

    def __init__(self, path: Path) -> None:
        self.path, self.temporary = path, temporary_path(path)

    def __enter__(self) -> _Lines:
        with self._telling():
            self.file = open(self.temporary, "x", encoding="ascii")
        return self

    def add(self, text: str) -> None:
        with self._telling():
            self.file.write(text)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            with self._telling():
                self.file.close()
            if kind is None:
                with replace_atomically(self.path) as synced:
                    os.replace(self.temporary, synced)
        finally:
            self.temporary.unlink(missing_ok=True)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RestoreError(write_error_message(error), where=self.path, exit_code=1) from error


def _facts_of_rows(
    rows: Iterable[Row], columns: Sequence[Column], folder: Path, reference: str | None
) -> Iterator[dict[str, Any]]:
    """What the page has to know of each row, in order; its pictures are written by threads, a few rows ahead."""
    waiting: deque[tuple[Row, Future[Previews]]] = deque()
    workers = max(1, min(os.cpu_count() or 1, _WORKERS_AT_MOST))
    pool = ThreadPoolExecutor(workers, thread_name_prefix="page")
    try:
        for number, row in enumerate(rows, start=1):
            waiting.append((row, pool.submit(write_previews, row, number, folder, reference)))
            if len(waiting) >= workers + _AHEAD:
                yield _facts(*_first(waiting), columns)
        while waiting:
            yield _facts(*_first(waiting), columns)
    finally:
        pool.shutdown(cancel_futures=True)


def _first(waiting: deque[tuple[Row, Future[Previews]]]) -> tuple[Row, Previews]:
    row, future = waiting.popleft()
    return row, future.result()


def _facts(row: Row, previews: Previews, columns: Sequence[Column]) -> dict[str, Any]:
    views = [
        view | {part: {visible(label): file for label, file in view[part].items()} for part in ("pictures", "errors")}
        for view in previews.views
    ]
    return {
        "name": visible(row.name),
        "group": visible(row.group),
        "note": "; ".join([*([visible(row.note)] if row.note else []), *previews.notes]),
        "scores": [plain_score(row.scores.get(column.key)) for column in columns],
        "size": previews.size,
        "thumbnail": previews.thumbnail,
        "views": views,
    }


def _json(value: Any) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def _index(title: str, tables: Sequence[PageTable], notes: Sequence[str], count: int) -> str:
    return Template((_ASSETS / "index.html").read_text(encoding="utf-8")).substitute(
        generator=GENERATOR,
        title=_text(title),
        count=f"{count:,} picture{'' if count == 1 else 's'}",
        notes="".join(f"<li>{_text(note)}</li>" for note in notes),
        first="".join(map(_table, tables[:1])),
        more="".join(map(_table, tables[1:])),
    )


def _table(table: PageTable) -> str:
    head = "".join(f'<th scope="col">{_text(cell)}</th>' for cell in table.header)
    body = "".join(
        "<tr>" + "".join(f"<td{_kind(cell)}>{_text(cell)}</td>" for cell in row) + "</tr>" for row in table.rows
    )
    whole = f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    if table.folded:
        return f'<details class="table"><summary>{_text(table.title)}</summary>{whole}</details>'
    return f'<figure class="table"><figcaption>{_text(table.title)}</figcaption>{whole}</figure>'


def _kind(cell: str) -> str:
    """Numbers stand under each other by their last digit; what is short stays in one line."""
    try:
        float(cell.replace(",", "").removesuffix("%").strip())
    except ValueError:
        if cell.strip() not in ("-", "–", "∞"):
            return ' class="short"' if len(cell) <= _SHORT else ""
    return ' class="number"'


def _text(text: str) -> str:
    return escape(visible(text))
