"""Endurance: kill -9 at random moments, and a large folder with broken files in it. `make soak` runs it at full length.

Each function raises AssertionError where the product does not hold what it promises, and returns what it saw.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import statistics
import tempfile
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np

from restore.files import TEMPORARY_PREFIX
from restore.images import write_png
from tests.processes import Nursery, Run, alive, is_dead, kill, until


def make_pictures(folder: Path, count: int, side: int, seed: int = 0) -> None:
    """Small pictures of noise, in subfolders of a hundred."""
    numbers = np.random.default_rng(seed)
    for index in range(count):
        path = folder / f"{index // 100:03}" / f"{index:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_png(path, numbers.integers(0, 256, (side, side, 3), dtype=np.uint8))


def break_some(folder: Path, count: int, seed: int = 0) -> set[str]:
    """Break so many of the pictures, each in one of a few ways. Returns their relative names."""
    chance = random.Random(seed)
    chosen = chance.sample(sorted(folder.rglob("*.png")), count)
    for number, path in enumerate(chosen):
        data = path.read_bytes()
        half = len(data) // 2
        broken = (data[:half], data[:20], data[:half] + bytes(half), b"no picture at all", b"", bytes(len(data)))
        path.write_bytes(broken[number % len(broken)])
    return {path.relative_to(folder).as_posix() for path in chosen}


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder that has a final name, and a hash of what is in it."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(TEMPORARY_PREFIX)
    }


def leftovers(folder: Path) -> list[Path]:
    """Temporary files below a folder."""
    return list(folder.rglob(f"{TEMPORARY_PREFIX}*"))


def has_come_to(run: Run, out: Path, count: int) -> bool:
    """So many outputs are there, or no more will come."""
    return sum(1 for _ in out.rglob("*.png")) >= count or is_dead(run.pid)


def kill_and_go_on(folder: Path, kills: int, pictures: int, seed: int = 0) -> str:
    """Kill a run so many times at random moments, going on with --skip-existing; then let it end.

    After every kill, whatever has its final name equals what an undisturbed run makes. Of four kills, three hit the
    process that was called and one hits the one that works. A run that ends before it is killed loses half of its
    outputs again.
    """
    chance = random.Random(seed)
    make_pictures(folder / "in", pictures, side=24)
    nursery = Nursery(folder)
    out, log = folder / "out", folder / "log.jsonl"
    whole = nursery.run("fix", folder / "in", folder / "undisturbed")
    assert whole.returncode == 0, whole.stderr
    expected = contents(folder / "undisturbed")
    assert len(expected) == pictures
    seen_leftovers, mid_run, ended = 0, 0, 0
    before: dict[str, str] = {}
    left = kills
    while left:
        run = nursery.start("fix", folder / "in", out, "--skip-existing", "--log", log)
        worker = 0
        if chance.random() < 0.95:  # otherwise before it has come to anything
            until(run.has_begun)
            worker = run.worker()
            if chance.random() < 0.8:
                some = len(before) + chance.randint(1, max(2 * pictures // kills, 2))
                until(partial(has_come_to, run, out, min(some, pictures)))
                time.sleep(chance.random() * 0.03)
            else:
                time.sleep(chance.random())
        if not alive(run.pid):  # done: there has to be something left to do
            assert run.wait().returncode == 0, run.stderr
            ended += 1
            for path in chance.sample(sorted(out.rglob("*.png")), pictures // 2):
                path.unlink()
            before = contents(out)
            continue
        by_worker = worker and chance.random() < 0.25
        kill(worker if by_worker else run.pid)
        run.wait()
        assert run.returncode in (-9, 137, 0), (run.returncode, run.stderr)
        if worker:
            until(partial(is_dead, worker))
        left -= 1
        found = contents(out)
        assert found.items() <= expected.items(), "a file under a final name is not what it should be"
        assert before.items() <= found.items(), "what was there stays"
        mid_run += before.keys() < found.keys() and len(found) < pictures
        seen_leftovers += len(leftovers(out))
        before = found
    last = nursery.run("fix", folder / "in", out, "--skip-existing", "--log", log)
    assert last.returncode == 0, last.stderr
    assert contents(out) == expected
    assert leftovers(out) == [], "left-over temporary files are swept"
    inputs = {
        line["input"]
        for line in map(json.loads, filter(None, log.read_text().splitlines()))
        if line["event"] == "image"
    }
    assert len(inputs) == pictures, "the log has all of them"
    nursery.close()
    return (
        f"{kills} kills: {mid_run} of them after some pictures and before the last, {seen_leftovers} temporary files "
        f"left and swept, {ended} runs came to their end; all {pictures} outputs as of an undisturbed run"
    )


def large_folder(folder: Path, pictures: int, broken: int) -> str:
    """A folder with broken pictures in it: all are accounted for, and memory does not grow."""
    make_pictures(folder / "in", pictures, side=16)
    names = break_some(folder / "in", broken)
    nursery = Nursery(folder)
    out, log = folder / "out", folder / "log.jsonl"
    started = time.monotonic()
    run = nursery.start("fix", folder / "in", out, "--log", log)
    sizes: list[tuple[int, float]] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.05):
            worker = run.worker()
            if worker and log.exists():
                try:
                    status = Path(f"/proc/{worker}/status").read_text()
                except OSError:
                    continue
                rss = next((int(line.split()[1]) / 1024 for line in status.splitlines() if "VmRSS" in line), None)
                if rss is not None:
                    sizes.append((log.stat().st_size, rss))

    watching = threading.Thread(target=watch)
    watching.start()
    run.wait()
    stop.set()
    watching.join()
    seconds = time.monotonic() - started
    nursery.close()
    assert run.returncode == 1, run.stderr
    records = [line for line in map(json.loads, log.read_text().splitlines()) if line["event"] == "image"]
    assert len(records) == len({record["input"] for record in records}) == pictures
    fates = Counter(record["status"] for record in records)
    bad = {Path(r["input"]).relative_to(folder / "in").as_posix() for r in records if r["status"] != "done"}
    assert bad == names
    assert all(record["reason"] for record in records if record["status"] != "done")
    assert len(contents(out)) == fates["done"] == pictures - broken
    # Early is from a tenth to two tenths of the way, as the log's length tells it; late is the last tenth.
    end = sizes[-1][0]
    early = statistics.median(rss for at, rss in sizes if 0.1 * end <= at <= 0.25 * end)
    late = statistics.median(rss for at, rss in sizes if at >= 0.9 * end)
    assert late < early + 20 + pictures / 250, f"memory grew from {early:.0f} to {late:.0f} MB"
    return (
        f"{pictures} pictures, {broken} of them broken: {dict(fates)} in {seconds:.0f} s; "
        f"resident memory {early:.0f} MB early, {late:.0f} MB late"
    )


def main() -> None:
    """Run both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--pictures", type=int, default=5000)
    parser.add_argument("--broken", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    for name in ("kills", "large"):
        folder = Path(tempfile.mkdtemp(prefix="restore-soak-"))
        try:
            if name == "kills":
                print(kill_and_go_on(folder, chosen.kills, 20 * chosen.kills, chosen.seed), flush=True)
            else:
                print(large_folder(folder, chosen.pictures, chosen.broken), flush=True)
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
