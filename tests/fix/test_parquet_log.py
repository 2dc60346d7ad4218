"""`--log x.parquet`: a row for every image, also of runs that were killed."""

from __future__ import annotations

import json

import pytest

from restore.errors import RestoreError
from restore.fix.log import Record, RunStart, Segment, read_done
from restore.fix.parquet_log import append_journal, journal_of
from restore.fix.results import RunLog
from tests.fix.conftest import Filler, fix_with, hole, save

pq = pytest.importorskip("pyarrow.parquet")
START = RunStart(
    time="2026-01-31T12:00:00.000Z", input="in", output="out", images=1, model="x", model_sha256=None, settings={}
)


def record(name: str, **facts: object) -> Record:
    return Record(name, f"out/{name}", "done", time="2026-01-31T12:00:01.250Z", run="abc", **facts)  # type: ignore[arg-type]


def test_a_run_writes_a_row_for_each_image_and_appends(tmp_path, pictures):
    save(tmp_path / "mask.png", hole(20, 30, (2, 2, 6, 6)))
    log = tmp_path / "log.parquet"
    for number, target in enumerate(("one.png", "two.png")):
        fix_with(pictures / "a.png", tmp_path / target, Filler(), masks=tmp_path / "mask.png", log=log)
        rows = pq.read_table(log).to_pylist()
        assert [row["output"] for row in rows] == [str(tmp_path / name) for name in ("one.png", "two.png")][
            : number + 1
        ]
    assert rows[0]["steps"] == ["fill_holes"]
    assert rows[0]["models"] == [("filler", None)]
    assert (rows[0]["width"], rows[0]["height"], rows[0]["worker"]) == (30, 20, None)
    assert len(rows[0]["input_sha256"]) == 64
    assert rows[0]["run"] != rows[1]["run"]
    runs = json.loads(pq.read_schema(log).metadata[b"restore.runs"])
    assert [run["run"] for run in runs] == [row["run"] for row in rows]
    assert not journal_of(log).exists()
    assert [row["output"] for row in read_done(log)] == [row["output"] for row in rows]


def test_the_rows_of_a_killed_run_come_with_the_next(tmp_path):
    log = tmp_path / "log.parquet"
    killed = RunLog(log)
    killed.write(START)
    killed.write(record("a", warnings=["dust"], worker="host/1/2"))
    killed._file.close()  # as the end of its process does
    with open(journal_of(log), "a") as torn:
        torn.write('{"event": "ima')
    with RunLog(log) as lines:
        lines.write(record("b\udcff"))
    rows = pq.read_table(log).to_pylist()
    assert [row["input"] for row in rows] == ["a", r"b\xff"]
    assert (rows[0]["warnings"], rows[0]["worker"]) == (["dust"], "host/1/2")


def test_a_journal_that_could_not_be_removed_is_not_taken_twice(tmp_path):
    log = tmp_path / "log.parquet"
    with RunLog(log) as lines:
        lines.write(START)
        lines.write(record("a"))
        kept = journal_of(log).read_bytes()
    journal_of(log).write_bytes(kept)  # as if the run had been killed before
    with RunLog(log) as lines:
        lines.write(record("b"))
    assert [row["input"] for row in pq.read_table(log).to_pylist()] == ["a", "b"]


def test_log_of_an_earlier_version_gets_the_new_columns(tmp_path):
    log = tmp_path / "log.parquet"
    with RunLog(log) as lines:
        lines.write(record("a"))
    pq.write_table(pq.read_table(log).drop_columns(["expected_error"]), log)
    with RunLog(log) as lines:
        lines.write(record("b"))
    rows = pq.read_table(log).to_pylist()
    assert [(row["input"], row["expected_error"]) for row in rows] == [("a", None), ("b", None)]


def test_segments_are_rows_too(tmp_path):
    log = tmp_path / "log.parquet"
    segment = Segment(
        time="2026-01-31T12:00:01.250Z", input="reel", output="out", first_frame=30, frames=10, start_seconds=1.5,
        seconds=2.0, damaged_fraction=0.1, mask_coverage=0.2, changed_fraction=0.3,
    )  # fmt: skip
    with RunLog(log) as lines:
        lines.write(segment)
    (row,) = pq.read_table(log).to_pylist()
    assert (row["event"], row["first_frame"], row["mask_coverage"]) == ("segment", 30, 0.2)


@pytest.mark.parametrize("other", ["text", "table"])
def test_another_file_is_refused(tmp_path, other):
    import pyarrow as pa

    log = tmp_path / "log.parquet"
    if other == "text":
        log.write_text("letters")
    else:
        pq.write_table(pa.table({"x": [1]}), log)
    before = log.read_bytes()
    with pytest.raises(RestoreError, match="exists and is not a log"):
        RunLog(log)
    assert log.read_bytes() == before


def test_a_failed_conversion_keeps_the_journal(tmp_path, monkeypatch):
    log = tmp_path / "log.parquet"
    lines = RunLog(log)
    lines.write(record("a"))
    monkeypatch.setattr(pq, "ParquetWriter", _full)
    with pytest.raises(RestoreError, match="the disk is full"):
        append_journal(log)
    assert "a" in journal_of(log).read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["log.parquet.jsonl"]


def _full(*arguments: object) -> None:
    raise OSError(28, "No space left on device")
