"""Many clients at once: is every request answered right or refused (429), how fast, and does memory stay bounded?

    python benchmarks/server_load.py [--requests 200] [--clients 16] [--side 256] [--queue 8] [--seconds N]
                                     [--patient] [--connections 0]

Starts `restore serve` with `telea`, which needs no network, and sends repairs of drawn images of several sizes, formats
and masks, each client in a thread of its own. Every answer of status 200 must have the bytes that `restore.fix_folder`
writes. With `--patient`, a client that is refused waits as `Retry-After` says and tries again, until it is served. With
`--seconds`, clients go on for so long (a soak). `--connections` opens so many idle connections first. Prints one line,
and ends with exit code 1 if an answer was wrong, or memory grew by more than a fifth after the first quarter.
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


@dataclass
class Case:
    """A request, and the right answer."""

    image: Path
    mask: Path
    expected: bytes


@dataclass
class Tally:
    """What came of the requests."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)


def cases(folder: Path, side: int) -> list[Case]:
    """Images with holes, as files, and what `restore fix` makes of them."""
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
    """Run it all. Returns a line to print, and whether all was well."""
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
                    if answer.status_code == 429 and patient:
                        time.sleep(float(answer.headers["retry-after"]) * draw.uniform(0.5, 1.0))
                        continue
                    with lock:
                        _check(tally, answer, one, time.monotonic() - began)
                        tally.memory_mb.append(memory_mb(process))
                    break

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return tally, time.monotonic() - start


def _check(tally: Tally, answer: httpx.Response, case: Case, seconds: float) -> None:
    if answer.status_code == 200:
        tally.seconds.append(seconds)
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
    quarter = tally.memory_mb[: max(1, len(tally.memory_mb) // 4)]
    early, late = max(quarter, default=0.0), max(tally.memory_mb, default=0.0)
    wrong = list(tally.wrong)
    if late > early * _GROWTH:
        wrong.append(f"memory grew from {early:.0f} to {late:.0f} MB")
    if left:
        wrong.append(f"{len(left)} folders of requests were left behind")
    if code:
        wrong.append(f"the server ended with exit code {code}")
    times = sorted(tally.seconds) or [0.0]

    def percentile(share: float) -> float:
        return times[min(len(times) - 1, round(share * (len(times) - 1)))]

    answered = sum(tally.statuses.values())
    statuses = ", ".join(f"{count} x {status}" for status, count in sorted(tally.statuses.items()))
    line = (
        f"{answered} answers to {clients} clients in {took:.1f} s ({statuses}): "
        f"p50 {percentile(0.5):.2f} s, p95 {percentile(0.95):.2f} s, longest {times[-1]:.2f} s, "
        f"{len(tally.seconds) / max(took, 1e-9):.1f} repairs/s; "
        f"server and worker {early:.0f} MB early, {late:.0f} MB at most"
    )
    return "\n".join([line, *dict.fromkeys(wrong)]), not wrong


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
    line, well = run_load(**vars(given))
    print(line)
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
