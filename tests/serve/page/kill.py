"""Kill the server of the page in the midst of painting and repairing, and look at what it left.

python -m tests.serve.page.kill --count 50

Every round starts the server on the work folder of the round before, compares the mask with the operations that were
acknowledged, paints, undoes, redoes, repairs and saves, and kills the server with SIGKILL at a random moment. The mask
may hold the one operation that was not answered yet, or not. Files that were saved are whole.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from restore.serve.page import strokes
from restore.serve.page.mask_tools import painted
from restore.serve.page.tiles import tile_box

SIZE = (700, 560)
SERVER = """
import sys
from pathlib import Path
from restore.serve.app import run
from restore.serve.page.open import open_page
from restore.serve.settings import ServeSettings

if __name__ == "__main__":
    settings = ServeSettings(work=Path(sys.argv[2]), device="cpu", stop_seconds=1)
    page = open_page(Path(sys.argv[1]), settings, warm=())
    run(settings, page=page.routes, on_ready=lambda address: print(address, flush=True))
"""


@dataclass
class Model:
    """The mask as the operations make it, by the definition of the tools, without the store."""

    states: list[np.ndarray] = field(default_factory=lambda: [np.zeros((SIZE[1], SIZE[0]), np.uint8)])
    position: int = 0

    @property
    def mask(self) -> np.ndarray:
        return self.states[self.position]

    def after(self, name: str, body: dict[str, object]) -> Model:
        """The model after an operation."""
        if name in ("undo", "redo"):
            step = self.position + (1 if name == "redo" else -1)
            return Model(self.states, min(max(step, 0), len(self.states) - 1))
        new = 255 - self.mask if name == "invert" else self.mask.copy()
        if name == "stroke":
            for (x, y), coverage in strokes.stroke(body["points"], body["softness"], *SIZE).items():  # type: ignore[arg-type]
                rows, columns = tile_box(x, y, *SIZE).slices
                new[rows, columns] = painted(new[rows, columns], coverage, erase=bool(body["erase"]))
        if np.array_equal(new, self.mask):
            return self
        return Model([*self.states[: self.position + 1], new], self.position + 1)


def operation(chance: random.Random) -> tuple[str, dict[str, object]]:
    """A random operation: mostly strokes."""
    name = chance.choices(["stroke", "undo", "redo", "invert"], [10, 3, 2, 1])[0]
    if name != "stroke":
        return name, {}
    points = [[chance.uniform(-20, 720), chance.uniform(-20, 580), chance.uniform(2, 40)] for _ in range(3)]
    return name, {"points": points, "softness": chance.random(), "erase": chance.random() < 0.3}


class Round:
    """One life of the server."""

    def __init__(self, folder: Path, work: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(folder), str(work)], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        address = self.process.stdout.readline().strip()
        assert address.startswith("http"), "the server did not start"
        self.client = httpx.Client(base_url=address, timeout=60)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def open(self) -> int:
        file: int = self.client.get("/page/files").json()[0]["id"]
        while self.client.get(f"/page/files/{file}").status_code == 202:
            time.sleep(0.05)
        return file

    def mask(self, file: int) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(self.client.get(f"/page/files/{file}/mask.png").content)))


@dataclass
class Tally:
    """What came of the rounds."""

    rounds: int = 0
    operations: int = 0
    in_hand_kept: int = 0
    repairs: int = 0
    saves: int = 0


def run(count: int, base: Path, seed: int = 0, *, repair: bool = True) -> Tally:
    """Kill a server so many times.

    Raises:
        AssertionError: something acknowledged was lost, or something is half-written.
    """
    folder, work, output = base / "scans", base / "work", base / "scans-repaired"
    folder.mkdir()
    chance = random.Random(seed)
    values = np.random.default_rng(seed).integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8)
    Image.fromarray(values).save(folder / "a.png")
    possible, tally = [Model()], Tally()
    for number in range(count + 1):
        one = Round(folder, work)
        file = one.open()
        mask = one.mask(file)
        fitting = [model for model in possible if np.array_equal(model.mask, mask)]
        assert fitting, f"round {number}: the mask is none that the acknowledged operations make"
        model = fitting[-1]
        tally.in_hand_kept += len(possible) > 1 and model is possible[-1]
        check_files(one, file, output)
        if number == count:
            one.kill()
            break
        # A new operation takes the place of undone ones, so undo and redo are compared, too.
        possible = paint_until_killed(one, file, model, chance, tally, repair=repair)
        check_database(work)
        tally.rounds += 1
    return tally


def paint_until_killed(
    one: Round, file: int, model: Model, chance: random.Random, tally: Tally, *, repair: bool
) -> list[Model]:
    """Paint, and kill the server meanwhile. Returns the states that its mask may have."""
    path = f"/page/files/{file}"
    deadline = chance.uniform(0.05, 1.5)
    if repair and chance.random() < 0.4:
        answer = one.client.post(f"{path}/repair", json={"recipe": {"model": "telea"}})
        assert answer.status_code == 200, answer.text
        job = answer.json()["job"]
        until = time.monotonic() + 60
        wanted = chance.choice(["running", "done"])
        while one.client.get(f"/page/jobs/{job}").json()["state"] not in (wanted, "done", "failed"):
            assert time.monotonic() < until
            time.sleep(0.02)
        tally.repairs += 1
        if wanted == "done":
            tally.saves += one.client.post(f"{path}/save", json={"overwrite": True}).status_code == 200
        deadline = chance.uniform(0.0, 0.4)
    killer = threading.Timer(deadline, lambda: os.kill(one.process.pid, signal.SIGKILL))
    killer.start()
    name, body = "", {}
    try:
        while True:
            name, body = operation(chance)
            answer = one.client.post(f"{path}/mask/{name}", json=body)
            assert answer.status_code == 200, answer.text
            model = model.after(name, body)
            tally.operations += 1
            assert answer.json()["undo"] == model.position
    except httpx.HTTPError:
        one.process.wait()
        return [model, model.after(name, body)]
    finally:
        killer.join()


def check_files(one: Round, file: int, output: Path) -> None:
    """What is shown and saved is whole."""
    detail = one.client.get(f"/page/files/{file}").json()
    if detail["result"] is not None:
        assert one.client.get(f"/page/files/{file}/tiles/repaired/0/0/0").status_code == 200
    for path in output.glob("**/*"):
        if path.is_file() and not path.name.startswith(".restore-"):
            Image.open(path).load()


def check_database(work: Path) -> None:
    """SQLite finds nothing wrong with the database."""
    connection = sqlite3.connect(f"file:{work / 'work.db'}?mode=ro", uri=True)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=50, help="how often the server is killed")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as base:
        print(run(chosen.count, Path(base), chosen.seed))


if __name__ == "__main__":
    main()
