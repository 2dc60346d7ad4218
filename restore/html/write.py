"""Writes a page: previews in threads, rows in order, `index.html` last."""

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
from restore.html.folder import ASSETS, DATA, GENERATOR, IMAGES, INDEX, abandon_page, begin_page, check_page_folder
from restore.html.previews import ERROR_GAIN, Previews, write_previews
from restore.html.rows import Column, PageTable, Row, plain_score, visible

_NOWRAP_CHARACTERS = 28  # table cells up to this length are not wrapped
_ASSETS = Path(__file__).parent / "assets"
_MAX_WORKERS = 8
_AHEAD = 2  # rows queued beyond one per worker
#: Rows whose images may still be read while the next one is made.
MOST_ROWS_AHEAD = _MAX_WORKERS + _AHEAD


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
    """Write a page that opens from disk and makes no network requests.

    A killed run leaves a page that says it is unfinished; a failed run leaves none. Rows are consumed one by one, so
    memory use does not grow with their number.

    Args:
        folder: new, empty, or with an earlier page, which is replaced.
        title: of the page.
        rows: in initial order. A row notes images that cannot be read.
        columns: scores, in order.
        tables: above the images, in order. Histograms of the scores follow the first table.
        notes: lines under the title.
        reference: label of the image that error maps compare with; None: no error maps.
        progress: called with the number of rows written.

    Returns:
        The path of `index.html`.

    Raises:
        RestoreError: exit code 2, the folder holds other files; exit code 1, it cannot be written.
        ValueError: an array is not an image.
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
        (place / IMAGES).mkdir(exist_ok=True)
        with _DataFile(place / DATA) as data:
            data.add(f"window.PAGE = {_json(head)};\nwindow.PAGE.rows = [\n")
            count = 0
            for count, row in enumerate(_row_dicts(rows, columns, place, reference), start=1):
                data.add(f"{_json(row)},\n")
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


class _DataFile:
    """A text file that is written in parts, and renamed to its final name when it is complete."""

    def __init__(self, path: Path) -> None:
        self.path, self.temporary = path, temporary_path(path)

    def __enter__(self) -> _DataFile:
        with self._write_errors():
            self.file = open(self.temporary, "x", encoding="ascii")
        return self

    def add(self, text: str) -> None:
        with self._write_errors():
            self.file.write(text)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            with self._write_errors():
                self.file.close()
            if kind is None:
                with replace_atomically(self.path) as synced:
                    os.replace(self.temporary, synced)
        finally:
            self.temporary.unlink(missing_ok=True)

    @contextmanager
    def _write_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RestoreError(write_error_message(error), where=self.path, exit_code=1) from error


def _row_dicts(
    rows: Iterable[Row], columns: Sequence[Column], folder: Path, reference: str | None
) -> Iterator[dict[str, Any]]:
    """The rows as plain values, in order. Threads write the previews a few rows ahead."""
    waiting: deque[tuple[Row, Future[Previews]]] = deque()
    workers = max(1, min(os.cpu_count() or 1, _MAX_WORKERS))
    pool = ThreadPoolExecutor(workers, thread_name_prefix="page")
    try:
        for number, row in enumerate(rows, start=1):
            waiting.append((row, pool.submit(write_previews, row, number, folder, reference)))
            if len(waiting) >= workers + _AHEAD:
                yield _to_dict(*_pop_result(waiting), columns)
        while waiting:
            yield _to_dict(*_pop_result(waiting), columns)
    finally:
        pool.shutdown(cancel_futures=True)


def _pop_result(waiting: deque[tuple[Row, Future[Previews]]]) -> tuple[Row, Previews]:
    row, future = waiting.popleft()
    return row, future.result()


def _to_dict(row: Row, previews: Previews, columns: Sequence[Column]) -> dict[str, Any]:
    views = [
        view | {part: {visible(label): file for label, file in view[part].items()} for part in ("images", "errors")}
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
        count=f"{count:,} image{'' if count == 1 else 's'}",
        notes="".join(f"<li>{_text(note)}</li>" for note in notes),
        first="".join(map(_table, tables[:1])),
        more="".join(map(_table, tables[1:])),
    )


def _table(table: PageTable) -> str:
    head = "".join(f'<th scope="col">{_text(cell)}</th>' for cell in table.header)
    body = "".join(
        "<tr>" + "".join(f"<td{_kind(cell)}>{_text(cell)}</td>" for cell in row) + "</tr>" for row in table.rows
    )
    content = f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    if table.folded:
        return f'<details class="table"><summary>{_text(table.title)}</summary>{content}</details>'
    return f'<figure class="table"><figcaption>{_text(table.title)}</figcaption>{content}</figure>'


def _kind(cell: str) -> str:
    """CSS class of a cell: numbers are right-aligned, short text is not wrapped."""
    try:
        float(cell.replace(",", "").removesuffix("%").strip())
    except ValueError:
        if cell.strip() not in ("-", "–", "∞"):
            return ' class="short"' if len(cell) <= _NOWRAP_CHARACTERS else ""
    return ' class="number"'


def _text(text: str) -> str:
    return escape(visible(text))
