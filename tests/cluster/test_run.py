"""`--ray`: the outputs of a cluster are those of this machine. One cluster of Ray serves all tests."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from restore.cluster import driver
from restore.cluster.options import ClusterOptions
from restore.cluster.run import detect_on_cluster, fix_on_cluster
from restore.cluster.scoring import scored_on_cluster
from restore.cluster.worker import Scoring
from restore.errors import RestoreError
from restore.evaluation.scoring import score_folders
from restore.fix.detect import plan_detect, run_detect
from restore.fix.options import DetectOptions, FixOptions
from restore.fix.plan import plan_fix
from restore.fix.results import Summary
from restore.fix.run import fix_folder
from tests.cluster.odd_worker import OddWorker
from tests.fix.conftest import hole, logged, photo, save, snapshot

ray = pytest.importorskip("ray")
ONE = ClusterOptions(address="local", workers=1)
TWO = ClusterOptions(address="local", workers=2, silent_seconds=15)


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """Workers are processes that import PyTorch, each: this takes most of the time."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Workers find the tests where this process does.
    root = os.fspath(Path(__file__).parents[2])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([root, *([before] if before else [])])
    ray.init(address="local", num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    for number in range(12):
        folder = tmp_path / "in" / f"{number % 3}"
        save(folder / f"{number}.png", photo(24, 32, number))
        save(tmp_path / "masks" / f"{number % 3}" / f"{number}.png", hole(24, 32, (4, 4, 9, 12 + number)))
    return tmp_path / "in"


def fix(scans: Path, cluster: ClusterOptions = TWO, **options: Any) -> tuple[Summary, list[str]]:
    """Repair to `out` with the cluster."""
    events: list[str] = []
    chosen = FixOptions(masks=scans.parent / "masks", **options)
    plan = plan_fix(scans, scans.parent / "out", chosen)
    return fix_on_cluster(plan, "telea", chosen, cluster, on_event=events.append), events


def locally(scans: Path) -> dict[str, bytes]:
    """What this process makes of the images."""
    fix_folder(scans, scans.parent / "alone", "telea", options=FixOptions(masks=scans.parent / "masks"))
    return snapshot(scans.parent / "alone")


def test_the_outputs_and_the_log_are_those_of_one_machine(scans):
    log = scans.parent / "log.jsonl"
    summary, events = fix(scans, log=log)
    assert (summary.done, summary.exit_code, events) == (12, 0, [])
    assert snapshot(scans.parent / "out") == locally(scans)
    lines = logged(log)
    assert Counter(line["input"] for line in lines) == Counter(str(path) for path in scans.rglob("*.png"))
    assert {len(line["output_sha256"]) for line in lines} == {64}
    assert all(line["worker"].count("/") == 2 for line in lines)  # the second may come too late for twelve
    assert {line["run"] for line in lines} == {summary.run}
    assert lines[0]["settings"]["masks"] == str(scans.parent / "masks")
    assert summary.settings["device"] == "cpu"
    assert summary.megapixels == pytest.approx(12 * 24 * 32 / 1e6)
    # And again: everything is skipped, by the driver alone.
    again, _ = fix(scans, skip_existing=True)
    assert (again.done, again.skipped) == (0, {"the output exists": 12})


def test_a_crash_and_a_worker_that_stands_still_cost_one_image(scans, monkeypatch):
    monkeypatch.setattr(driver, "Worker", OddWorker)
    for name in ("0/crash.png", "1/still.png"):
        save(scans / name, photo(24, 32))
        save(scans.parent / "masks" / name, hole(24, 32, (4, 4, 9, 12)))
    log = scans.parent / "log.jsonl"
    summary, events = fix(scans, log=log)
    (failure,) = summary.failed
    assert (failure.path.name, failure.code) == ("crash.png", "crashed")
    assert "workers died, each alone with this file" in failure.reason
    expected = locally(scans)
    del expected["0/crash.png"]
    assert snapshot(scans.parent / "out") == expected  # also without temporary files
    assert Counter(line["input"] for line in logged(log)) == Counter(str(path) for path in scans.rglob("*.png"))
    assert any("said nothing for 15 s" in event for event in events)


def test_ctrl_c_lets_workers_finish_and_the_same_command_goes_on(scans):
    interrupt = threading.Timer(0, os.kill, (os.getpid(), signal.SIGINT))

    def progress(record: object, done: int, total: int) -> None:
        if done == 1:
            interrupt.start()
            time.sleep(0.3)

    options = FixOptions(masks=scans.parent / "masks", skip_existing=True)
    plan = plan_fix(scans, scans.parent / "out", options)
    summary = fix_on_cluster(plan, "telea", options, TWO, progress=progress)
    assert (summary.interrupted, summary.exit_code) == (True, 130)
    assert 0 < summary.done < 12
    assert len(snapshot(scans.parent / "out")) == summary.done
    rest, _ = fix(scans, skip_existing=True)
    assert (rest.done, rest.exit_code) == (12 - summary.done, 0)
    assert snapshot(scans.parent / "out") == locally(scans)


def test_masks_are_those_of_one_machine(scans):
    options = DetectOptions()
    plan = plan_detect(scans, scans.parent / "found", options)
    summary = detect_on_cluster(plan, "detector", options, ONE)
    assert (summary.done, summary.searched) == (12, 12)
    from restore.restorers.detector import open_detector

    own = plan_detect(scans, scans.parent / "alone", options)
    alone = run_detect(own, open_detector("detector", device="cpu"), options)
    assert snapshot(scans.parent / "found") == snapshot(scans.parent / "alone")
    assert summary.settings == alone.settings
    # What a worker cannot do is refused before anything is written.
    plan = plan_fix(scans, scans.parent / "new", FixOptions())
    with pytest.raises(RestoreError, match="telea fills holes and requires --masks"):
        fix_on_cluster(plan, "telea", FixOptions(), ONE)
    assert not (scans.parent / "new").exists()


def test_scores_are_those_of_one_machine(scans):
    """Also of a pair that cannot be scored, and of another method beside it."""
    save(scans / "2/2.png", photo(8, 8))
    folders = {"restored_dir": scans, "reference_dir": scans.parent / "masks", "baseline_dir": scans}
    metrics = ("psnr", "ssim")
    alone = score_folders(**folders, metrics=metrics, device="cpu")
    scoring = Scoring(metrics, "skimage", 0, "alex", None, None, "cpu", False)
    shared = score_folders(**folders, metrics=metrics, device="cpu", scored_by=scored_on_cluster(scoring, ONE))
    assert shared.to_json() == alone.to_json()
    assert (len(shared.images), [one["name"] for one in shared.failed]) == (11, ["2/2"])


def test_pipes_and_lists_of_devices_are_refused(scans):
    plan = plan_fix(scans / "0/0.png", "-", FixOptions())
    with pytest.raises(RestoreError, match="standard input or output"):
        fix_on_cluster(plan, "telea", FixOptions(), TWO)
    plan = plan_fix(scans, scans.parent / "out", FixOptions(device="cuda:0,cuda:1"))
    with pytest.raises(RestoreError, match="names several devices"):
        fix_on_cluster(plan, "telea", FixOptions(device="cuda:0,cuda:1"), TWO)
