"""Lines of the log that workers keep for a driver that is killed."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import pytest
from typer.testing import CliRunner

from restore.cli.main import app
from restore.cluster import worker as workers
from restore.cluster.kept_lines import KeptLines, kept_by_workers
from restore.cluster.worker import Assignment, Worker
from restore.fix.log import Record, read_done
from restore.fix.plan import FixPlan
from restore.fix.results import RunLog
from tests.fix.conftest import photo, save


def record(name: str, status: Any = "done", **more: Any) -> Record:
    return Record(f"in/{name}", f"out/{name}", status, time="2026-11-01T12:00:00.000Z", run="first", **more)


class Hand:
    """Finishes what it is given: names that begin with x fail."""

    facts: ClassVar[dict[str, Any]] = {"model": "", "model_sha256": None, "settings": {}}

    def take(self, items: Any, line: workers.Line, *, again: bool) -> None:
        for name in items:
            line.end(name, {"record": asdict(record(name, "failed" if name[0] == "x" else "done"))})

    def stop(self, reason: str) -> None:
        pass


def killed(log: Path, monkeypatch: pytest.MonkeyPatch, *groups: list[str]) -> None:
    """What a worker has kept of groups when its driver is killed."""
    folder = log.with_name(log.name + ".workers") / "first"
    folder.mkdir(parents=True)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # `open` sets it
    monkeypatch.setattr(workers, "_hand", lambda work: Hand())
    one = Worker(Assignment(FixPlan((), Path(), False, ()), None, None, ".", (), "first", True, str(folder)))
    assert one.open("node").name.split("/")[1] == "node"
    for number, names in enumerate(groups):
        one.run(number, names, again=False)
    with open(folder / "99.jsonl", "w") as file:
        file.write('{"event": "image", "inp')  # by a worker that was killed, too


@pytest.mark.parametrize("name", ["log.jsonl", "log.parquet"])
def test_the_next_run_adds_what_a_killed_driver_did_not_know(tmp_path, monkeypatch, name):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    log = tmp_path / name
    with RunLog(log) as lines:
        lines.write(record("a.png", worker="known"))
    killed(log, monkeypatch, ["a.png", "b.png"], ["x.png", "c.png"])
    with RunLog(log) as lines, kept_by_workers(lines, log, "second") as folder:
        assert Path(folder).is_dir()
        KeptLines(folder, "mine").keep(1, {"record": asdict(record("d.png"))})
        lines.write(Record("in/d.png", "out/d.png", "done", time="2026-11-01T12:00:01.000Z", run="second"))
    rows = {(row["run"], row["input"]): row["worker"] for row in read_done(log)}
    assert list(rows) == [("first", "in/a.png"), ("second", "in/d.png"), ("first", "in/b.png"), ("first", "in/c.png")]
    assert (rows["first", "in/a.png"], rows["second", "in/d.png"]) == ("known", None)
    assert rows["first", "in/b.png"].split("/")[1] == "node"
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_run_that_fails_leaves_the_lines_to_the_next_one(tmp_path, monkeypatch):
    log = tmp_path / "log.jsonl"
    killed(log, monkeypatch, ["a.png"])
    with pytest.raises(ZeroDivisionError), RunLog(log) as lines, kept_by_workers(lines, log, "second"):
        raise ZeroDivisionError
    kept = [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*.jsonl"))]
    assert kept == ["log.jsonl", "log.jsonl.workers/first/0.jsonl", "log.jsonl.workers/first/99.jsonl"]
    assert not (tmp_path / "log.jsonl.workers/second").exists()


def test_a_log_that_cannot_be_written_leaves_the_lines_to_the_next_run(tmp_path, monkeypatch):
    log = tmp_path / "log.jsonl"
    killed(log, monkeypatch, ["a.png", "b.png"])
    with RunLog(log) as lines, kept_by_workers(lines, log, "second"):
        monkeypatch.setattr(lines, "write", lambda line: open("/dev/full/x"))
    assert list(read_done(log)) == []
    with RunLog(log) as lines, kept_by_workers(lines, log, "third"):
        pass
    assert [row["input"] for row in read_done(log)] == ["in/a.png", "in/b.png"]
    assert not list(tmp_path.glob("*.workers"))


def test_a_worker_keeps_the_last_groups_alone(tmp_path, monkeypatch):
    log = tmp_path / "log.jsonl"
    killed(log, monkeypatch, *([f"{number}.png"] for number in range(20)))
    assert len(list(tmp_path.rglob("[0-9].jsonl"))) + len(list(tmp_path.rglob("1[0-9].jsonl"))) == 8


@pytest.mark.skipif(sys.platform == "win32", reason="logs are not locked there")
@pytest.mark.parametrize("name", ["log.jsonl", "log.parquet"])
def test_a_second_command_with_the_same_log_is_refused_and_takes_nothing(tmp_path, name):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    log = tmp_path / name
    with RunLog(log, alone=True) as lines, kept_by_workers(lines, log, "first") as folder:
        KeptLines(folder, "worker").keep(1, {"record": asdict(record("a.png"))})
        second = [sys.executable, "-m", "restore.cli", "fix", "scans", "out", "--ray", "local", "--log", name]
        save(tmp_path / "scans/a.png", photo(8, 8))
        save(tmp_path / "out/a.png", photo(8, 8))
        done = subprocess.run([*second, "--skip-existing"], cwd=tmp_path, text=True, capture_output=True)
        assert done.returncode == 2
        assert f"{name}: another command is writing to this log; give each command a log of its own" in done.stderr
        assert [path.name for path in Path(folder).iterdir()] == ["1.jsonl"]
    assert [row["input"] for row in read_done(log)] == ["in/a.png"]
    with RunLog(log, alone=True):
        pass


def test_a_machine_that_does_not_see_the_log_keeps_nothing(tmp_path):
    for folder in ("", str(tmp_path / "elsewhere/first")):
        KeptLines(folder, "mine").keep(1, {"record": asdict(record("a.png"))})
    assert list(tmp_path.iterdir()) == []
    with RunLog(None) as lines, kept_by_workers(lines, None, "second") as folder:
        assert folder == ""


def test_a_run_with_nothing_to_do_adds_them_too(tmp_path, monkeypatch):
    save(tmp_path / "scans/a.png", photo(8, 8))
    save(tmp_path / "out/a.png", photo(8, 8))
    log = tmp_path / "log.jsonl"
    killed(log, monkeypatch, ["a.png"])
    arguments = ["fix", tmp_path / "scans", tmp_path / "out", "--ray", "local", "--skip-existing", "--log", log]
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == 0
    events = [(line["event"], line.get("status")) for line in map(json.loads, log.read_text().splitlines())]
    assert events == [("start", None), ("image", "skipped"), ("image", "done")]
    assert not list(tmp_path.glob("*.workers"))
