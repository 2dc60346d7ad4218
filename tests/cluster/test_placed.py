"""`--ray` with URLs: what workers bring, repair and take away."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from restore.cluster.options import ClusterOptions
from restore.cluster.placed import PlacedHand, run_on_cluster
from restore.cluster.worker import Assignment, Line
from restore.fix.options import DetectOptions, FixOptions
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


def test_outputs_of_a_worker_that_is_gone_are_written_again_and_others_stay(memory, scans):
    options = FixOptions(masks="memory://masks/all.png", device="cpu", skip_existing=True)
    hand, plan = hand_of(options, "telea")
    memory.pipe_file("/out/a.png", b"written meanwhile")
    first, second = Line(), Line()
    hand.take([plan.files[0]], first, again=False)
    assert first.results[0]["record"]["reason_code"] == "output_exists"
    assert memory.cat_file("/out/a.png") == b"written meanwhile"
    hand.take([plan.files[0]], second, again=True)
    assert second.results[0]["record"]["status"] == "done"
    assert memory.cat_file("/out/a.png")[:4] == b"\x89PNG"


def test_a_stopped_worker_begins_nothing(memory, scans):
    hand, plan = hand_of(FixOptions(masks="memory://masks/all.png", device="cpu"), "telea")
    hand.stop("enough")
    line = Line()
    hand.take(list(plan.files), line, again=False)
    assert line.results == []
    assert not memory.exists("/out")


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
