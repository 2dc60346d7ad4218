"""Logs as Parquet (`--log x.parquet`): a row for every image, and for every segment of a video.

A Parquet file is readable only when its footer is written, which a killed run never does. So lines go at once
to a journal of JSON lines beside it, `x.parquet.jsonl`. When the run ends, or a later one if it was killed, the rows of
the journal are appended to the Parquet file, which is replaced as a whole, and the journal is removed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restore.errors import RestoreError
from restore.files import replace_atomically

if TYPE_CHECKING:
    from pyarrow import Schema

#: How the file and its journal are named.
SUFFIX, JOURNAL_SUFFIX = ".parquet", ".jsonl"
_MAGIC = b"PAR1"
_ROWS = 10_000
#: Keys of the file's own metadata: the first lines of the runs, and what of a journal has been appended.
_RUNS, _TAKEN = b"restore.runs", b"restore.journal"


def journal_of(path: Path) -> Path:
    """The journal of a Parquet log."""
    return path.with_name(path.name + JOURNAL_SUFFIX)


def check_parquet_log(path: Path) -> None:
    """Check that a Parquet log can be written to.

    Raises:
        RestoreError: exit code 2; PyArrow is not installed, or the file is something else.
        OSError: the file cannot be read.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise RestoreError(
            "a Parquet log needs PyArrow",
            where=path,
            hint='pip install "restore-toolkit[ray]", or log to a .jsonl file',
        ) from error
    if path.exists():
        with open(path, "rb") as file:
            if file.read(4) != _MAGIC or "worker" not in _schema_of(path).names:
                raise RestoreError("exists and is not a log", where=path, hint="choose another file for --log")


def append_journal(path: Path) -> None:
    """Append the rows of the journal to a Parquet log, and remove the journal.

    Raises:
        RestoreError: exit code 1; the file cannot be written. The journal stays.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    journal, schema = journal_of(path), _schema()
    old = pq.ParquetFile(path) if path.exists() else None
    known = dict(old.schema_arrow.metadata or {}) if old is not None else {}
    skipped = _taken(journal, json.loads(known.get(_TAKEN, b"null")))
    runs = json.loads(known.get(_RUNS, b"[]"))
    runs += [line for line in _lines(journal, skipped) if line["event"] == "start"]
    rows = (_row(line) for line in _lines(journal, skipped) if line["event"] != "start")
    size, digest = journal.stat().st_size, _digest(journal, None)
    metadata = {_RUNS: json.dumps(runs).encode(), _TAKEN: json.dumps([size, digest]).encode()}
    with replace_atomically(path) as temporary, pq.ParquetWriter(temporary, schema.with_metadata(metadata)) as writer:
        if old is not None:
            for batch in old.iter_batches(_ROWS):
                table = pa.Table.from_batches([batch])  # of an earlier version perhaps, with fewer columns
                whole = pa.concat_tables([schema.empty_table(), table], promote_options="permissive")
                writer.write_table(whole.cast(schema))
        while part := list(islice(rows, _ROWS)):
            writer.write_table(pa.Table.from_pylist(part, schema))
    journal.unlink()


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet log, oldest first, with the keys of log lines."""
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(path).iter_batches(_ROWS):
        for row in batch.to_pylist():
            yield row | {"models": dict(row["models"] or ()), "time": row["time"].isoformat()}


def _schema() -> Schema:
    import pyarrow as pa

    kinds = {
        "event": pa.string(), "time": pa.timestamp("ms", "UTC"), "run": pa.string(), "version": pa.string(),
        "worker": pa.string(), "input": pa.string(), "output": pa.string(), "status": pa.string(),
        "reason": pa.string(), "reason_code": pa.string(), "seconds": pa.float64(), "width": pa.int32(),
        "height": pa.int32(), "model": pa.string(), "model_sha256": pa.string(),
        "models": pa.map_(pa.string(), pa.string()), "steps": pa.list_(pa.string()), "input_sha256": pa.string(),
        "output_sha256": pa.string(), "damaged_fraction": pa.float64(), "mask_coverage": pa.float64(),
        "changed_fraction": pa.float64(), "warnings": pa.list_(pa.string()), "first_frame": pa.int64(),
        "frames": pa.int64(), "start_seconds": pa.float64(), "expected_error": pa.float64(),
    }  # fmt: skip
    return pa.schema(list(kinds.items()))


def _schema_of(path: Path) -> Schema:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_schema(path)
    except pa.ArrowException:
        return pa.schema([])


def _row(line: dict[str, Any]) -> dict[str, Any]:
    """A line as a row. Names of files that are no Unicode keep their bytes as escapes."""
    row = {key: _text(value) for key, value in line.items()}
    row["time"] = datetime.fromisoformat(line["time"].replace("Z", "+00:00"))
    row["models"] = list((line.get("models") or {}).items())
    row["warnings"] = [_text(one) for one in line.get("warnings") or ()]
    return row


def _text(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _lines(journal: Path, skipped: int) -> Iterator[dict[str, Any]]:
    """The lines of a journal after its first bytes. A line that a killed run left incomplete is skipped."""
    with open(journal, "rb") as file:
        file.seek(skipped)
        for line in file:
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and "event" in entry and "time" in entry:
                yield entry


def _taken(journal: Path, taken: list[Any] | None) -> int:
    """Bytes of a journal that are rows already: the run was killed before it could remove the journal."""
    if taken is None or journal.stat().st_size < taken[0] or _digest(journal, taken[0]) != taken[1]:
        return 0
    return int(taken[0])


def _digest(journal: Path, size: int | None) -> str:
    digest = hashlib.sha256()
    with open(journal, "rb") as file:
        while part := file.read(1 << 20 if size is None else min(size, 1 << 20)):
            digest.update(part)
            size = None if size is None else size - len(part)
    return digest.hexdigest()
