"""Repairs photographs on a cluster whose workers, machines and driver are killed, and compares with this machine alone.

    python benchmarks/cluster_kill.py [--count 2000] [--every 20] [--size 96x64] [--model telea] [--workers 3] [--s3]
        [--calm]

The photographs and their masks are synthetic. With `--s3`, inputs and outputs are on an S3 server on this machine
(moto). The cluster is `ray.cluster_utils.Cluster` with three nodes on this machine. There are three runs, each from the
command line:

1. alone: one process with `--shard I/N` for each worker, at the same time. Its outputs are the reference.
2. calm: the cluster with as many workers. The benchmark prints its overhead over the first run, with and without the
   start (until the first result), and in processor time, which other work on the machine changes little.
3. killed: from the first result on, a worker chosen by `--seed` is killed (`kill -9`) every `--every` seconds. When a
   third of the images are done, a node is removed. When half are done, the driver is killed, and the same command is
   run again.

At the end, all outputs must equal the reference byte for byte, and no other file may be beside them. The Parquet logs
must list every image once as done, with its worker, and none as failed. Without `--s3`, one image of each worker may
have no row, because killing the driver may end the worker between an output and its row. `--calm` skips the third run.
Prints Markdown, and ends with exit code 1 if anything differs.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_worker_niceness", "0")  # as the processes that they are compared with

import numpy as np
import pyarrow.parquet as pq
from PIL import Image, ImageDraw
from ray.cluster_utils import Cluster

NODES = 3


def draw(folder: Path, count: int, size: tuple[int, int], seed: int) -> None:
    """Draw photographs of gradients, disks and grain in folders of 100, and a mask with one scratch for each."""
    width, height = size
    for number in range(count):
        random_ = np.random.default_rng([seed, number])
        name = Path(f"{number // 100:04}") / f"{number:06}.png"
        ramp = np.linspace(*random_.uniform(40, 220, (2, 3)), width)
        image = Image.fromarray(np.broadcast_to(ramp, (height, width, 3)).astype(np.uint8))
        pen = ImageDraw.Draw(image)
        for x, y, radius, *color in random_.uniform(0, 255, (4, 6)):
            x, y, radius = x / 255 * width, y / 255 * height, 2 + radius / 255 * height / 3
            pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=tuple(map(int, color)))
        noisy = np.asarray(image) + random_.normal(0, 4, (height, width, 3))
        mask = Image.new("L", size)
        ends = random_.uniform(0, 1, 4) * [width, height, width, height]
        ImageDraw.Draw(mask).line(list(ends), fill=255, width=3)
        for place, picture in (("in", Image.fromarray(noisy.clip(0, 255).astype(np.uint8))), ("masks", mask)):
            path = folder / place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path, compress_level=1)


class Disk:
    """Inputs and outputs are in a folder of this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def place(self, name: str) -> str:
        """A folder as the command takes it."""
        return name

    def files(self, name: str) -> dict[str, bytes]:
        """All files below a folder, hidden ones included."""
        root = self.folder / name
        return {os.fspath(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}

    def count(self, name: str) -> int:
        """The number of finished outputs below a folder."""
        return sum(path.suffix == ".png" and path.name[0] != "." for path in (self.folder / name).rglob("*"))

    def close(self) -> None:
        """End the server of the files, if there is one."""


class Bucket(Disk):
    """Inputs and outputs are on an S3 server."""

    def __init__(self, folder: Path) -> None:
        import boto3
        from moto.server import ThreadedMotoServer

        super().__init__(folder)
        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it logs each request
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        host, port = self._server.get_host_and_port()
        # For this process, and for those that it starts: the commands, and the nodes of the cluster with their workers.
        os.environ |= {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }  # fmt: skip
        self._client = boto3.client("s3")
        self._client.create_bucket(Bucket="bench")
        for name in ("in", "masks"):
            for path, data in super().files(name).items():
                self._client.put_object(Bucket="bench", Key=f"{name}/{path}", Body=data)

    def place(self, name: str) -> str:
        """A folder as the command takes it."""
        return f"s3://bench/{name}"

    def _keys(self, name: str) -> list[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket="bench", Prefix=f"{name}/")
        return [entry["Key"] for page in pages for entry in page.get("Contents", ())]

    def files(self, name: str) -> dict[str, bytes]:
        """All objects below a folder."""
        objects = {key: self._client.get_object(Bucket="bench", Key=key) for key in self._keys(name)}
        return {key.partition("/")[2]: one["Body"].read() for key, one in objects.items()}

    def count(self, name: str) -> int:
        """The number of finished outputs below a folder."""
        return len(self._keys(name))

    def close(self) -> None:
        """End the server."""
        self._server.stop()


@dataclass
class Runner:
    """The command, and the settings that all runs share."""

    folder: Path
    model: str
    store: Disk
    out: str = ""
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, *more: str) -> subprocess.Popen[bytes]:
        """Start `restore fix` with further arguments."""
        command = [sys.executable, "-m", "restore.cli", "fix", *map(self.store.place, ("in", self.out))]
        command += ["--masks", self.store.place("masks"), "--model", self.model, "--device", "cpu", *more]
        with open(self.folder / f"{self.out}.txt", "ab") as text:
            process = subprocess.Popen(command, cwd=self.folder, stdout=text, stderr=text)
        self.processes.append(process)
        return process

    def rows(self, pattern: str) -> list[dict[str, Any]]:
        """The rows of Parquet logs."""
        return [row for path in sorted(self.folder.glob(pattern)) for row in pq.read_table(path).to_pylist()]


class Meter(threading.Thread):
    """Adds up the processor seconds of all processes that this one has started, and of those that they start."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._seconds: dict[int, float] = {}

    def run(self) -> None:
        """Look every second: what a process uses after the last look is missing."""
        while True:
            self.total()
            time.sleep(1)

    def total(self) -> float:
        """What they have used until now."""
        found: dict[int, tuple[int, float]] = {}
        for entry in Path("/proc").iterdir():
            with suppress(OSError, IndexError, ValueError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                used = int(fields[11]) + int(fields[12])
                found[int(entry.name)] = int(fields[1]), used / os.sysconf("SC_CLK_TCK")
        ours = {os.getpid()}
        while more := {number for number, (parent, _) in found.items() if parent in ours} - ours:
            ours |= more
        self._seconds |= {number: found[number][1] for number in ours - {os.getpid()}}
        return sum(self._seconds.values())


def seconds_of(rows: list[dict[str, Any]]) -> float:
    """From the first result to the last."""
    times = [row["time"] for row in rows]
    return (max(times) - min(times)).total_seconds()


def alone(runner: Runner, workers: int, meter: Meter) -> tuple[float, float, float]:
    """Repair with a process for each worker. Returns seconds: all, first to last result, processors."""
    runner.out, began, before = "alone", time.monotonic(), meter.total()
    started = [runner.start("--shard", f"{n + 1}/{workers}", "--log", f"alone{n}.parquet") for n in range(workers)]
    codes = [process.wait() for process in started]
    assert codes == [0] * workers, (runner.folder / "alone.txt").read_text()
    return time.monotonic() - began, seconds_of(runner.rows("alone*.parquet")), meter.total() - before


def calm(runner: Runner, workers: int, address: str, meter: Meter) -> tuple[float, float, float]:
    """Repair with the workers of the cluster. Returns as `alone`."""
    runner.out, began, before = "calm", time.monotonic(), meter.total()
    code = runner.start("--ray", address, "--ray-workers", str(workers), "--log", "calm.parquet").wait()
    assert code == 0, (runner.folder / "calm.txt").read_text()
    return time.monotonic() - began, seconds_of(runner.rows("calm.parquet")), meter.total() - before


def workers_of(cluster: Cluster) -> list[int]:
    """Process IDs of the workers that the nodes of the cluster run."""
    raylets = set()
    for node in cluster.list_all_nodes():
        raylets |= {one.process.pid for one in node.all_processes.get("raylet", [])}
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError, IndexError, ValueError):
            if b"ray::Worker" in (entry / "cmdline").read_bytes():
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if parent in raylets:
                    found.append(int(entry.name))
    return sorted(found)


class Killer(threading.Thread):
    """Kills a worker every few seconds, until it is told to end."""

    def __init__(self, cluster: Cluster, every: float, seed: int) -> None:
        super().__init__(daemon=True)
        self._cluster, self._every, self._random = cluster, every, random.Random(seed)
        self.ended, self.killed = threading.Event(), 0

    def run(self) -> None:
        """Kill."""
        while not self.ended.wait(self._every):
            if workers := workers_of(self._cluster):
                with suppress(ProcessLookupError):
                    os.kill(self._random.choice(workers), signal.SIGKILL)
                    self.killed += 1


def killed(runner: Runner, cluster: Cluster, count: int, args: argparse.Namespace) -> tuple[int, float]:
    """Repair while workers, a node and the driver are killed. Returns the number of killed workers, and the seconds."""
    runner.out, began = "killed", time.monotonic()
    command = ("--ray", cluster.address, "--ray-workers", str(args.workers), "--skip-existing", "--log")
    driver = runner.start(*command, "killed.parquet")
    killer = Killer(cluster, args.every, args.seed)

    def until(share: float) -> None:
        while runner.store.count("killed") < share * count and driver.poll() is None:
            time.sleep(0.2)

    until(1 / count)
    killer.start()
    until(1 / 3)
    print(f"removing a node at {runner.store.count('killed')} of {count}", file=sys.stderr)
    cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
    until(1 / 2)
    print(f"killing the driver at {runner.store.count('killed')} of {count}", file=sys.stderr)
    driver.kill()
    driver.wait()
    code = runner.start(*command, "killed.parquet").wait()
    killer.ended.set()
    killer.join()
    if code != 0:
        print((runner.folder / "killed.txt").read_text(), file=sys.stderr)
    return killer.killed, time.monotonic() - began


def check(runner: Runner, count: int, workers: int, outs: Sequence[str]) -> tuple[list[str], list[str]]:
    """Compare outputs and logs. Returns the errors, and the images per worker as rows of a table."""
    wrong = []
    store = runner.store
    reference, names = store.files("alone"), set(store.files("in"))
    if set(reference) != names:
        wrong.append("the reference is not whole")
    for out in outs:
        found = store.files(out)
        missing, more = reference.keys() - found.keys(), found.keys() - reference.keys()
        differing = [name for name in reference.keys() & found.keys() if reference[name] != found[name]]
        wrong += [
            f"{out}: {len(what)} outputs {how}, such as {sorted(what)[0]}"
            for what, how in ((missing, "missing"), (more, "too many"), (differing, "differ"))
            if what
        ]
    rows = runner.rows(f"{outs[-1]}.parquet")
    done = Counter(row["input"] for row in rows if row["status"] == "done")
    if twice := [name for name, times in done.items() if times > 1]:
        wrong.append(f"{len(twice)} images are done twice in the log")
    if failed := [row for row in rows if row["status"] == "failed"]:
        wrong.append(f"{len(failed)} images failed: {failed[0]['reason']}")
    if unknown := names - {row["input"].removeprefix(f"{store.place('in')}/") for row in rows}:
        wrong.append(f"{len(unknown)} images are not in the log")
    wrong += [f"{path.name} is still there" for path in sorted(runner.folder.glob(f"{outs[-1]}.parquet.*"))]
    by = Counter(row["worker"] for row in rows if row["status"] == "done")
    table = [f"| {worker} | {images} |" for worker, images in sorted(by.items())]
    missing = count - sum(by.values())
    late = sum(row["reason_code"] == "unreported" for row in rows)
    table.append(f"| of these, killed before it reported the image | {late} |")
    table.append(f"| unknown: the worker was killed between the output and its row | {missing} |")
    if missing > (0 if isinstance(store, Bucket) else workers):
        wrong.append(f"{missing} images have no row that says who did them")
    return wrong, table


def main() -> int:
    """Run all three, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--every", type=float, default=20.0, metavar="SECONDS")
    parser.add_argument("--size", default="96x64", metavar="WxH")
    parser.add_argument("--model", default="telea")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--calm", action="store_true", help="leave out the third run, in which things are killed")
    parser.add_argument("--s3", action="store_true", help="inputs and outputs on an S3 server")
    args = parser.parse_args()
    width, height = map(int, args.size.split("x"))
    with tempfile.TemporaryDirectory(prefix="cluster-kill-") as temporary:
        draw(Path(temporary), args.count, (width, height), args.seed)
        store = (Bucket if args.s3 else Disk)(Path(temporary))
        runner = Runner(Path(temporary), args.model, store)
        meter = Meter()
        meter.start()
        cluster: Cluster | None = None
        try:
            times = {"alone": alone(runner, args.workers, meter)}
            # Room for the workers also when a node is gone.
            cpus = {"num_cpus": -(-args.workers // (NODES - 1)), "include_dashboard": False}
            cluster = Cluster(initialize_head=True, head_node_args=cpus)
            for _ in range(NODES - 1):
                cluster.add_node(num_cpus=cpus["num_cpus"])
            times["cluster"] = calm(runner, args.workers, cluster.address, meter)
            if not args.calm:
                deaths, seconds = killed(runner, cluster, args.count, args)
        finally:
            for process in runner.processes:
                if process.poll() is None:
                    process.kill()
            if cluster is not None:
                cluster.shutdown()
        wrong, table = check(runner, args.count, args.workers, ("calm",) if args.calm else ("calm", "killed"))
        store.close()
    overhead = [f"{of_cluster / of_one - 1:+.0%}" for of_cluster, of_one in zip(times["cluster"], times["alone"])]
    print(f"{args.count} photographs of {args.size}, {args.model}, {args.workers} workers{', S3' * args.s3}\n")
    print("| | whole command | from the first result to the last | processor time |\n|---|---|---|---|")
    for name, of_run in times.items():
        print(f"| {name} | {' | '.join(f'{seconds:.1f} s' for seconds in of_run)} |")
    print(f"| overhead | {' | '.join(overhead)} |\n")
    if not args.calm:
        what = f"{deaths} workers killed, one every {args.every:g} s, one node removed, the driver killed once"
        print(f"{what}: {seconds:.0f} s\n")
    print("| worker (machine/node/process) | images |\n|---|---|")
    print("\n".join(table))
    print("\nwrong: " + ("; ".join(wrong) or "nothing"))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
