"""Plans of very many files: little is kept of each, and the first image does not wait for those that are skipped."""

from __future__ import annotations

import pickle
import tracemalloc
from pathlib import Path

import pytest

from restore.fix import mask_pairing, run
from restore.fix.collisions import Collisions, OutputFolders
from restore.fix.jobs import Entry, Jobs
from restore.packed import BLOCK
from tests.fix.conftest import Inverter, fix_with, hole, logged, photo, plan_with, save


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """4000 empty files of image names, in four folders."""
    for number in range(4000):
        folder = tmp_path / f"in/{number // 1000}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"scan_{number:05}.png").touch()
    return tmp_path / "in"


def test_little_is_kept_of_each_file(many: Path, tmp_path: Path) -> None:
    plan_with(many / "0", tmp_path / "out")  # imports, and caches of a fixed size
    tracemalloc.start()
    try:
        plan = plan_with(many, tmp_path / "out")
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(plan.jobs) == 4000
    # With caches of a fixed size, which are most of it here; a job in memory takes a kilobyte.
    assert kept / 4000 < 100
    assert peak / 4000 < 400, "one folder of a thousand names, and a block of jobs"
    assert len(pickle.dumps(plan)) / 4000 < 25


def test_jobs_keep_their_order_places_and_kinds() -> None:
    actions = ("repair", "skip", "fail", "unmasked")
    entries = [
        Entry(f"in/{number}.png", f"out/{number}.png", action=actions[number % 4], reason="because")
        for number in range(2 * BLOCK + 3)
    ]
    jobs = Jobs(entries)
    assert list(jobs.entries()) == entries
    assert [job.number for job in jobs] == list(range(len(entries)))
    assert [Entry.of(job) for job in jobs] == entries
    assert Entry.of(jobs[-1]) == entries[-1]
    assert [job.number % 4 for job in jobs.to_do()][:3] == [0, 3, 0]
    assert {job.action for job in jobs.settled()} == {"skip", "fail"}
    assert {job.action for job in jobs.failing()} == {"fail"}
    assert (jobs.has_work, jobs.folders, jobs.skipped["because"]) == (True, {"out": None}, (len(entries) + 2) // 4)
    assert jobs.work == len(list(jobs.to_do())) == BLOCK + 1
    assert not jobs.change(lambda entry: entry._replace(action="skip")).has_work


def test_skipped_images_are_recorded_once_though_the_first_image_does_not_wait(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(run, "_SETTLED_FIRST_SECONDS", 0)
    for number in range(40):
        save(tmp_path / f"in/{number:02}.png", photo(4, 4, number))
        if number % 4:
            save(tmp_path / f"out/{number:02}.png", photo(4, 4, number))
    for log in (None, tmp_path / "log"):
        summary = fix_with(tmp_path / "in", tmp_path / "out", Inverter(), skip_existing=True, log=log)
        assert sum(summary.skipped.values()) + summary.done == 40
    assert [line["status"] for line in logged(tmp_path / "log")] == ["skipped"] * 40


def test_equal_hashes_of_unequal_names_are_no_collision(monkeypatch) -> None:
    monkeypatch.setattr("restore.packed.hash", len, raising=False)
    monkeypatch.setattr("restore.fix.collisions.hash", len, raising=False)
    jobs = Jobs(Entry(f"in/{name}", f"out/{name}") for name in ("a.png", "b.png"))
    collisions = Collisions(OutputFolders())
    for entry in jobs.entries():
        collisions.add(entry)
    collisions.refuse(jobs)


def test_masks_are_found_in_small_groups_as_in_one(tmp_path: Path, monkeypatch) -> None:
    for number in range(30):
        save(tmp_path / f"in/{number % 3}/{number}.png", photo(4, 4))
        save(tmp_path / f"masks/{number % 3}/{number}{'_mask' if number % 2 else ''}.png", hole(4, 4))
    save(tmp_path / "masks/stray.png", hole(4, 4))
    whole = plan_with(tmp_path / "in", tmp_path / "out", masks=tmp_path / "masks")
    assert all(job.mask is not None for job in whole.jobs)
    monkeypatch.setattr(mask_pairing, "_TOGETHER", 1)
    grouped = plan_with(tmp_path / "in", tmp_path / "out", masks=tmp_path / "masks")
    assert list(grouped.jobs) == list(whole.jobs)
    assert grouped.warnings == whole.warnings
