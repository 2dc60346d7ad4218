"""`--ray` with URLs: what workers bring, repair and take away."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from restore.cluster.kept_lines import KeptLines, kept_by_workers
from restore.cluster.options import ClusterOptions
from restore.cluster.placed import PlacedHand, PlacedResults, run_on_cluster
from restore.cluster.worker import Assignment, Line
from restore.fix.log import Record, read_done
from restore.fix.options import DetectOptions, FixOptions
from restore.fix.results import ResultRecorder, RunLog, Summary
from restore.places.plan import PlacesPlan, plan_places
from restore.places.run import fix_places
from tests.fix.conftest import logged
from tests.places.conftest import image_bytes, mask_bytes, memory, quick_retries, s3, s3_address

__all__ = ["memory", "quick_retries", "s3", "s3_address"]  # fixtures
NAMES = ["a.png", "deep/b c.png", "e.jpg"]


@pytest.fixture
def scans(memory: Any) -> dict[str, bytes]:
    for number, name in enumerate(NAMES):
        memory.pipe_file(f"/in/{name}", image_bytes(number, Path(name).suffix))
    memory.pipe_file("/masks/all.png", mask_bytes())
    return {name: memory.cat_file(f"/in/{name}") for name in NAMES}


def hand_of(options: FixOptions | DetectOptions, model: str, *, logged: bool = True) -> tuple[PlacedHand, PlacesPlan]:
    plan = plan_places(["memory://in"], "memory://out", options)
    return PlacedHand(Assignment(plan, model, options, "/", (), "run", logged)), plan


def outputs(memory: Any, folder: str = "/out") -> dict[str, bytes]:
    return {path.removeprefix(f"{folder}/"): memory.cat_file(path) for path in memory.find(folder)}


def test_a_worker_writes_what_one_machine_writes(memory, scans):
    options = FixOptions(masks="memory://masks/all.png", device="cpu")
    fix_places("memory://in", "memory://alone", "telea", options)
    hand, plan = hand_of(options, "telea")
    line = Line()
    hand.take(list(plan.files), line, again=False)
    assert outputs(memory) == outputs(memory, "/alone")
    records = [result["record"] for result in line.results]
    assert [(one["input"], one["output"]) for one in records] == [
        (f"memory://in/{name}", f"memory://out/{name}") for name in NAMES
    ]
    assert {one["status"] for one in records} == {"done"}
    assert {len(one["output_sha256"]) for one in records} == {64}
    assert [result["pixels"] for result in line.results] == [48 * 32] * 3
    assert line.begun == 3
    assert hand.facts["model"] == "telea"


def killed_while_it_uploads(memory: Any, plan: PlacesPlan, hand: PlacedHand, kept: KeptLines, number: int) -> None:
    """Repair a file; the worker is killed when the store has the output, and the worker does not know it yet."""

    class Killed(BaseException):
        pass

    def killed(*given: Any, **more: Any) -> None:
        put(*given, **more)
        raise Killed

    put = memory.put_file
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(memory), "put_file", staticmethod(killed))
        with pytest.raises(Killed):
            hand.take([plan.files[number]], Line(None, kept, number), again=False)


def test_what_a_worker_has_written_before_it_died_is_its_own_and_what_others_wrote_stays(memory, scans, tmp_path):
    options = FixOptions(masks="memory://masks/all.png", device="cpu", skip_existing=True)
    hand, plan = hand_of(options, "telea")
    killed_while_it_uploads(memory, plan, hand, KeptLines(str(tmp_path), "first"), 0)
    memory.pipe_file("/out/deep/b c.png", b"written meanwhile")
    line = Line(None, KeptLines(str(tmp_path), "second"), 7)
    hand.take(list(plan.files), line, again=True)
    records = {result["record"]["input"]: result["record"] for result in line.results}
    own, others, new = (records[f"memory://in/{name}"] for name in NAMES)
    assert (own["status"], own["worker"], own["reason_code"]) == ("done", "first", "unreported")
    assert own["reason"] == "its worker ended before it reported this"
    assert own["output_sha256"] == hashlib.sha256(memory.cat_file("/out/a.png")).hexdigest()
    assert (others["status"], others["reason_code"]) == ("skipped", "output_exists")
    assert memory.cat_file("/out/deep/b c.png") == b"written meanwhile"
    assert (new["status"], new["worker"]) == ("done", None)
    assert line.begun == 2


def test_without_lines_of_its_worker_an_output_is_compared_with_the_repair(memory, scans):
    options = FixOptions(masks="memory://masks/all.png", device="cpu")
    hand, plan = hand_of(options, "telea")
    killed_while_it_uploads(memory, plan, hand, KeptLines("", ""), 0)
    memory.pipe_file("/out/deep/b c.png", b"written meanwhile")
    line = Line()
    hand.take(list(plan.files), line, again=True)
    assert [result["record"]["status"] for result in line.results] == ["done", "failed", "done"]
    assert memory.cat_file("/out/deep/b c.png") == b"written meanwhile"


def test_the_next_run_finds_who_wrote_an_output_when_all_were_killed(memory, scans, tmp_path):
    options = FixOptions(masks="memory://masks/all.png", device="cpu")
    hand, plan = hand_of(options, "telea")
    folder = tmp_path / "log.jsonl.workers/first"
    folder.mkdir(parents=True)
    kept = KeptLines(str(folder), "machine/node/1")
    for number in (0, 1):
        killed_while_it_uploads(memory, plan, hand, kept, number)
    memory.pipe_file("/out/deep/b c.png", b"written by another program since")
    with RunLog(tmp_path / "log.jsonl") as log, kept_by_workers(log, tmp_path / "log.jsonl", "second"):
        pass
    (line,) = read_done(tmp_path / "log.jsonl")
    assert (line["input"], line["worker"], line["run"]) == ("memory://in/a.png", "machine/node/1", "first")
    assert (line["status"], line["reason_code"]) == ("done", "unreported")


def test_what_a_killed_worker_was_about_to_write_is_not_its_own_when_a_later_run_wrote_the_same(
    memory, scans, tmp_path
):
    options = FixOptions(masks="memory://masks/all.png", device="cpu")
    hand, plan = hand_of(options, "telea")
    log = tmp_path / "log.jsonl"
    first, second = Path(f"{log}.workers/first"), Path(f"{log}.workers/second")
    first.mkdir(parents=True)
    killed_while_it_uploads(memory, plan, hand, KeptLines(str(first), "machine/node/1"), 0)
    memory.rm_file("/out/a.png")  # as if it had been killed a moment before
    second.mkdir()
    killed_while_it_uploads(memory, plan, hand, KeptLines(str(second), "machine/node/2"), 0)
    with RunLog(log) as lines, kept_by_workers(lines, log, "third"):
        pass
    assert [(line["worker"], line["run"]) for line in read_done(log)] == [("machine/node/2", "second")]


def test_what_a_killed_worker_was_about_to_write_is_not_its_own_when_the_log_names_another(memory, scans, tmp_path):
    options = FixOptions(masks="memory://masks/all.png", device="cpu")
    hand, plan = hand_of(options, "telea")
    log = tmp_path / "log.jsonl"
    folder = Path(f"{log}.workers/first")
    folder.mkdir(parents=True)
    killed_while_it_uploads(memory, plan, hand, KeptLines(str(folder), "machine/node/1"), 0)
    memory.rm_file("/out/a.png")
    line = Line()
    hand.take([plan.files[0]], line, again=False)
    with RunLog(log) as lines, kept_by_workers(lines, log, "second"):
        lines.write(Record(**{**line.results[0]["record"], "run": "second", "worker": "machine/node/2"}))
    assert [line["worker"] for line in read_done(log)] == ["machine/node/2"]


def test_a_stopped_worker_begins_nothing(memory, scans):
    hand, plan = hand_of(FixOptions(masks="memory://masks/all.png", device="cpu"), "telea")
    hand.stop("enough")
    line = Line()
    hand.take(list(plan.files), line, again=False)
    assert line.results == []
    assert not memory.exists("/out")


def test_no_worker_waits_until_skipped_files_are_recorded(memory, scans, tmp_path):
    memory.pipe_file("/out/a.png", b"done before")
    memory.pipe_file("/in/../x.png", b"has a name that no folder can hold")
    options = FixOptions(masks="memory://masks/all.png", device="cpu", skip_existing=True)
    plan = plan_places(["memory://in"], "memory://out", options)
    with RunLog(tmp_path / "log.jsonl") as log:
        results = PlacedResults(plan, ResultRecorder(Summary(len(plan.files)), log), print, None)
        results.start()
        assert [file.name for file in results.items()] == NAMES[1:]
        assert (results.recorder.summary.skipped, len(results.recorder.summary.failed)) == ({}, 1)
        results.settle(skipped=True)
    assert results.recorder.summary.skipped == {"the output exists": 1}


def test_the_choice_of_old_photos_stays(memory, scans):
    """`masks` and the clean-up are chosen once, also where a worker writes again."""
    options = FixOptions(old_photos=True, masks="none", clean_up=False, correct_fading=True, device="cpu")
    hand, plan = hand_of(options, "photo")
    line = Line()
    hand.take([plan.files[0]], line, again=True)
    record = line.results[0]["record"]
    assert record["status"] == "done"
    assert "detect" not in record["steps"]


def test_a_cluster_repairs_in_a_store(s3, tmp_path):
    ray = pytest.importorskip("ray")
    for number, name in enumerate(NAMES):
        s3.put_object(Bucket="scans", Key=f"in/{name}", Body=image_bytes(number, Path(name).suffix))
    s3.put_object(Bucket="scans", Key="mask.png", Body=mask_bytes())
    options = FixOptions(masks="s3://scans/mask.png", device="cpu", skip_existing=True, log=tmp_path / "log.jsonl")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if ray.is_initialized():
        ray.shutdown()  # its workers do not know the address of the store
    plan = plan_places(["s3://scans/in"], "s3://repaired/out", options)
    events: list[str] = []
    cluster = ClusterOptions(address="local", workers=1)
    summary = run_on_cluster(plan, "telea", options, cluster, on_event=events.append)
    assert (summary.done, summary.failed, summary.stopped, events) == (3, [], "", [])
    fix_places("s3://scans/in", "s3://repaired/alone", "telea", FixOptions(masks="s3://scans/mask.png", device="cpu"))
    for name in NAMES:
        one, other = (s3.get_object(Bucket="repaired", Key=f"{folder}/{name}") for folder in ("out", "alone"))
        assert one["Body"].read() == other["Body"].read()
        assert one["ContentType"] == other["ContentType"]
    lines = logged(tmp_path / "log.jsonl")
    assert Counter(line["input"] for line in lines) == Counter(f"s3://scans/in/{name}" for name in NAMES)
    assert all(line["worker"] and line["run"] == summary.run for line in lines)
    assert lines[0]["settings"]["masks"] == "s3://scans/mask.png"
    # And again: everything is skipped, by the driver alone.
    plan = plan_places(["s3://scans/in"], "s3://repaired/out", options)
    assert run_on_cluster(plan, "telea", options, cluster).skipped == {"the output exists": 3}
    assert not ray.is_initialized()
