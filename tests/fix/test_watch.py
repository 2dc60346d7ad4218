"""`restore fix --watch`: whole images are repaired once, whatever arrives, and through crashes and restarts."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from restore.errors import RestoreError
from restore.fix import watch
from restore.fix.decoder_isolation import SupervisorLink
from restore.fix.options import FixOptions
from restore.fix.plan import FixPlan
from restore.fix.results import Summary
from restore.fix.watch import Watched, watch_folder
from tests.fix.conftest import Filler, Inverter, hole, logged, photo, run_with, save
from tests.processes import Nursery, until

SETTLE = 0.3


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(watch, "SLOW_POLL_SECONDS", 1.0)


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    return tmp_path


def watch_until(outcomes: int, restorer=None, **options) -> tuple[Watched, list[str]]:
    """Watch `in`, until this number of images are done or have failed; all that is told."""
    told: list[str] = []
    chosen = FixOptions(log="log", clean_up=None, **options)
    seen = 0

    def run(plan: FixPlan, link: SupervisorLink) -> Summary:
        nonlocal seen
        summary = run_with(plan, restorer or Inverter(), chosen)
        seen += len(plan.jobs)
        if seen >= outcomes:
            summary.interrupted = True
        return summary

    watched = watch_folder("in", "out", chosen, run, on_event=told.append, settle_seconds=SETTLE)
    return watched, told


def writing(action) -> threading.Thread:
    thread = threading.Thread(target=action)
    thread.start()
    return thread


def test_what_is_there_and_what_arrives_is_repaired_once(there: Path) -> None:
    save(there / "in/first.png", photo(6, 5))
    whole = save(there / "elsewhere/x.png", photo(40, 50)).read_bytes()

    def arrive() -> None:
        with open(there / "in/slow.png", "wb", buffering=0) as file:
            for start in range(0, len(whole), 1 + len(whole) // 6):
                file.write(whole[start : start + 1 + len(whole) // 6])
                time.sleep(SETTLE / 2)
        (there / "in/later.png.part").write_bytes(whole)
        time.sleep(2 * SETTLE)
        os.rename(there / "in/later.png.part", there / "in/later.png")
        (there / "in/sub").mkdir()
        save(there / "in/sub/deep.png", photo(4, 4))

    thread = writing(arrive)
    watched, _ = watch_until(4)
    thread.join()
    assert (watched.done, watched.failed, watched.exit_code) == (4, [], 0)
    images = Counter(line["input"] for line in logged(there / "log"))
    assert images == dict.fromkeys(["in/first.png", "in/slow.png", "in/later.png", "in/sub/deep.png"], 1)
    assert not list(there.glob("out/*.part*"))


def test_an_image_that_failed_is_tried_again_when_it_changes(there: Path) -> None:
    whole = save(there / "elsewhere/x.png", photo(40, 50)).read_bytes()
    (there / "in/half.png").write_bytes(whole[: len(whole) // 2])

    def finish() -> None:
        time.sleep(8 * SETTLE)
        (there / "in/half.png").write_bytes(whole)

    thread = writing(finish)
    watched, told = watch_until(2)
    thread.join()
    assert [line["status"] for line in logged(there / "log")] == ["failed", "done"]
    assert (watched.done, len(watched.failed), watched.exit_code) == (1, 1, 1)
    assert any(line.startswith("failed: in/half.png") for line in told)


def test_an_image_waits_for_its_mask(there: Path) -> None:
    save(there / "in/a.png", photo(20, 30))
    (there / "masks").mkdir()
    thread = writing(lambda: (time.sleep(4 * SETTLE), save(there / "masks/a.png", hole(20, 30, (2, 2, 5, 5)))))
    watched, _ = watch_until(1, Filler(), masks="masks")
    thread.join()
    assert [line["status"] for line in logged(there / "log")] == ["done"]
    assert watched.exit_code == 0


def test_a_collision_waits_for_a_person(there: Path) -> None:
    save(there / "in/a.png", photo(4, 4))

    def collide() -> None:
        until(lambda: (there / "out/a.png").exists())
        save(there / "in/a.bmp", photo(4, 4))
        save(there / "in/b.png", photo(4, 4))
        time.sleep(4 * SETTLE)
        (there / "in/a.bmp").unlink()

    thread = writing(collide)
    watched, told = watch_until(2, ext="png")
    thread.join()
    assert watched.done == 2
    waiting = [line for line in told if line.startswith("waiting: ")]
    assert len(waiting) == 1
    assert "would both be written here" in waiting[0]


@pytest.mark.parametrize("options", [{"overwrite": True}, {"files_from": "list"}, {"html_report": "page"}])
def test_what_does_not_suit_a_watch_is_refused(there: Path, options: dict[str, object]) -> None:
    with pytest.raises(RestoreError, match="cannot be combined with --watch"):
        watch_until(1, **options)


def test_only_folders_are_watched(there: Path) -> None:
    for source in ("none", "-", os.fspath(save(there / "in/a.png", photo(4, 4)))):
        with pytest.raises(RestoreError, match="takes a folder as INPUT"):
            watch_folder(source, "out", FixOptions(), lambda *_: Summary(0), on_event=print)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the watch is supervised on Linux")
def test_a_whole_watch_survives_a_crash_and_ends_when_asked(there: Path) -> None:
    nursery = Nursery(there)
    try:
        run = nursery.start("fix", there / "in", there / "out", "--watch", "--log", there / "log")
        until(lambda: "watching" in run.stderr)
        for name in ("a", "b_segv", "c"):
            save(there / f"in/{name}.png", photo(12, 12))
        until(lambda: (there / "out/a.png").exists() and (there / "out/c.png").exists())
        save(there / "in/d.png", photo(12, 12))
        until(lambda: (there / "out/d.png").exists())
        os.kill(run.pid, signal.SIGTERM)
        run.wait()
    finally:
        nursery.close()
    assert run.returncode == 1
    outcomes = Counter((Path(line["input"]).name, line["status"]) for line in logged(there / "log"))
    assert outcomes == {("a.png", "done"): 1, ("c.png", "done"): 1, ("d.png", "done"): 1, ("b_segv.png", "failed"): 1}
