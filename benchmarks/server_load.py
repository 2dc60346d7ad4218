"""Checks a server under many clients: correct answers or refusals (429), response times, and bounded memory.

    python benchmarks/server_load.py [--requests 200] [--clients 16] [--side 256] [--queue 8] [--seconds N]
                                     [--patient] [--connections 0]

Starts `restore serve` with `telea`, which needs no network, and requests repairs of drawn images of several sizes,
formats and masks. Each client runs in its own thread. Every answer of status 200 must have the bytes that
`restore.fix_folder` writes. With `--patient`, a refused client waits as `Retry-After` says and tries again until it is
served. `--seconds` is the duration of a soak test: `--seconds 1800 --patient` takes half an hour, and reports its
progress on standard error every minute. `--connections` is the number of idle connections to open first. Prints a table
with the response times and the memory in each tenth of the run, and ends with exit code 1 if an answer was wrong, or
memory grew by more than a fifth after the first quarter.
"""

from __future__ import annotations

import argparse
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import httpx
import numpy as np
from PIL import Image

from restore.fix.options import FixOptions
from restore.fix.run import fix_folder

#: Memory may grow by this factor after the first quarter of the requests.
_GROWTH = 1.2
#: Rows of the table, beside that of the whole.
_PARTS = 10
#: How often memory is looked at.
_LOOK_SECONDS = 0.5


@dataclass
class Case:
    """A request, and the right answer."""

    image: Path
    mask: Path
    expected: bytes


@dataclass
class Tally:
    """The outcomes of the requests."""

    statuses: Counter[int] = field(default_factory=Counter)
    served: list[tuple[float, float]] = field(default_factory=list)  # seconds after the start, and those it took
    refused: list[float] = field(default_factory=list)  # seconds after the start
    wrong: list[str] = field(default_factory=list)
    memory_mb: list[tuple[float, float]] = field(default_factory=list)  # seconds after the start, and megabytes


def cases(folder: Path, side: int) -> list[Case]:
    """Images with holes, as files, and the outputs of `restore fix` for them."""
    made = []
    draw = np.random.default_rng(0)
    for number, (kind, part) in enumerate((("png", 1), ("jpg", 1), ("webp", 2), ("png", 3))):
        height, width = side // part, side * 3 // 2 // part
        rows, columns = np.mgrid[0:height, 0:width]
        image = np.stack([rows * 200 // height, columns * 200 // width, (rows + columns) % 256], 2)
        image = (image + draw.integers(0, 20, image.shape)).clip(0, 255).astype(np.uint8)
        mask = np.zeros((height, width), np.uint8)
        mask[height // 3 : height // 3 + height // 10, width // 4 : width // 2] = 255
        source, mask_file, output = (
            folder / f"{number}.{kind}",
            folder / f"m{number}.png",
            folder / f"out{number}.{kind}",
        )
        Image.fromarray(image).save(source, quality=90)
        Image.fromarray(mask).save(mask_file)
        fix_folder(source, output, "telea", options=FixOptions(masks=mask_file, device="cpu"))
        made.append(Case(source, mask_file, output.read_bytes()))
    return made


def run_load(
    *, requests: int, clients: int, side: int, queue: int, seconds: float | None, patient: bool, connections: int = 0
) -> tuple[str, bool]:
    """Run the whole test. Returns the report, and whether it passed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        known = cases(folder, side)
        command = [sys.executable, "-m", "restore.cli", "serve", "--port", "0", "--warm", "telea", "--device", "cpu"]
        server = subprocess.Popen(
            [*command, "--queue", str(queue), "--work", str(folder / "work")], stderr=subprocess.PIPE, text=True
        )
        try:
            assert server.stderr is not None
            line = server.stderr.readline()
            assert line.startswith("serving at "), line + server.stderr.read()
            address = line.split()[2]
            wait_until_ready(address)
            held = _connect(address, connections)
            tally, took = _send(address, known, requests, clients, seconds, patient, server.pid)
            for connection in held:
                connection.close()
            left = _left(folder / "work")
        finally:
            server.terminate()
            code = server.wait(60)
    return _judge(tally, took, clients, left, code)


def _left(work: Path) -> list[Path]:
    """The folders of requests; the last is removed a moment after its answer."""
    deadline = time.monotonic() + 10
    while (left := [path for path in work.glob("*/*") if path.is_dir()]) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def wait_until_ready(address: str) -> None:
    """Wait until the models are open."""
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            if httpx.get(f"{address}ready").status_code == 200:
                return
        time.sleep(0.2)
    raise TimeoutError("the server is not ready")


def _connect(address: str, count: int) -> list[socket.socket]:
    host, port = address.removeprefix("http://").rstrip("/").split(":")
    made: list[socket.socket] = []
    for _ in range(count):
        with suppress(OSError):
            made.append(socket.create_connection((host, int(port)), timeout=5))
    return made


def _send(
    address: str, known: list[Case], requests: int, clients: int, seconds: float | None, patient: bool, process: int
) -> tuple[Tally, float]:
    tally, lock, numbers = Tally(), threading.Lock(), iter(range(1 << 60))
    start = time.monotonic()

    def goes_on(number: int) -> bool:
        return number < requests if seconds is None else time.monotonic() - start < seconds

    def client(seed: int) -> None:
        draw = random.Random(seed)
        with httpx.Client(timeout=600) as http:
            while True:
                with lock:
                    number = next(numbers)
                if not goes_on(number):
                    return
                one = draw.choice(known)
                began = time.monotonic()
                while True:
                    files = {
                        "image": (one.image.name, one.image.read_bytes()),
                        "mask": ("m.png", one.mask.read_bytes()),
                    }
                    try:
                        answer = http.post(f"{address}v1/fix", files=files, data={"model": "telea"})
                    except httpx.TransportError as error:
                        with lock:
                            tally.wrong.append(f"{type(error).__name__}: {error}")
                        break
                    with lock:
                        tally.statuses[answer.status_code] += 1
                        if answer.status_code == 429:
                            tally.refused.append(time.monotonic() - start)
                    if answer.status_code == 429 and patient:
                        time.sleep(float(answer.headers["retry-after"]) * draw.uniform(0.5, 1.0))
                        continue
                    with lock:
                        _check(tally, answer, one, time.monotonic() - start, time.monotonic() - began)
                    break

    over = threading.Event()

    def watch() -> None:
        told = 0.0
        while not over.wait(_LOOK_SECONDS):
            now, memory = time.monotonic() - start, memory_mb(process)
            with lock:
                tally.memory_mb.append((now, memory))
                served, wrong = len(tally.served), len(tally.wrong)
            if now - told >= 60:
                told = now
                print(f"{now:.0f} s: {served} served, {wrong} wrong, {memory:.0f} MB", file=sys.stderr, flush=True)

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(clients)]
    watching = threading.Thread(target=watch)
    for thread in (*threads, watching):
        thread.start()
    for thread in threads:
        thread.join()
    took = time.monotonic() - start
    tally.memory_mb.append((took, memory_mb(process)))
    over.set()
    watching.join()
    return tally, took


def _check(tally: Tally, answer: httpx.Response, case: Case, at: float, seconds: float) -> None:
    if answer.status_code == 200:
        tally.served.append((at, seconds))
        if answer.content != case.expected:
            tally.wrong.append(f"{case.image.name}: other bytes than restore fix")
    elif answer.status_code != 429:
        tally.wrong.append(f"status {answer.status_code}: {answer.text[:200]}")
    elif "retry-after" not in answer.headers:
        tally.wrong.append("429 without Retry-After")


def memory_mb(process: int) -> float:
    """Resident memory of a process and its children, in megabytes."""
    kilobytes = 0
    waiting = [process]
    while waiting:
        one = waiting.pop()
        with suppress(OSError, ValueError, IndexError):
            kilobytes += int(Path(f"/proc/{one}/status").read_text().split("VmRSS:")[1].split()[0])
            for children in Path(f"/proc/{one}/task").glob("*/children"):
                waiting += [int(child) for child in children.read_text().split()]
    return kilobytes / 1024


def _judge(tally: Tally, took: float, clients: int, left: list[Path], code: int) -> tuple[str, bool]:
    early = max((memory for at, memory in tally.memory_mb if at <= took / 4), default=0.0)
    late = max((memory for _, memory in tally.memory_mb), default=0.0)
    wrong = list(tally.wrong)
    if early and late > early * _GROWTH:
        wrong.append(f"memory grew from {early:.0f} to {late:.0f} MB")
    if left:
        wrong.append(f"{len(left)} folders of requests were left behind")
    if code:
        wrong.append(f"the server ended with exit code {code}")
    lines = [
        f"{sum(tally.statuses.values())} answers to {clients} clients in {took:.1f} s "
        f"({', '.join(f'{count} x {status}' for status, count in sorted(tally.statuses.items()))}); "
        f"{len(tally.served) / max(took, 1e-9):.1f} repairs/s; {len(wrong)} wrong",
        "",
        "| seconds | right | 429 | p50 | p95 | longest | memory, MB |",
        "|---|---|---|---|---|---|---|",
        *(_row(tally, took * part / _PARTS, took * (part + 1) / _PARTS) for part in range(_PARTS)),
        _row(tally, 0, took),
    ]
    return "\n".join([*lines, *dict.fromkeys(wrong)]), not wrong


def _row(tally: Tally, start: float, end: float) -> str:
    """A line of the table: the answers between two times."""
    times = sorted(seconds for at, seconds in tally.served if start <= at <= end)
    refused = sum(start <= at <= end for at in tally.refused)
    memory = max((memory for at, memory in tally.memory_mb if start <= at <= end), default=0.0)

    def percentile(share: float) -> str:
        return f"{times[round(share * (len(times) - 1))]:.2f} s" if times else "-"

    return (
        f"| {start:.0f} to {end:.0f} | {len(times)} | {refused} | {percentile(0.5)} | {percentile(0.95)} "
        f"| {percentile(1)} | {f'{memory:.0f}' if memory else '-'} |"
    )


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--queue", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=None)
    parser.add_argument("--patient", action="store_true")
    parser.add_argument("--connections", type=int, default=0)
    given = parser.parse_args()
    table, well = run_load(**vars(given))
    print(table)
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
