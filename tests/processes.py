"""The command line many times over: all is loaded once, and every run is a fork of that.

A run of a few small pictures takes a fraction of a second then, and the imports before it some seconds. The names of
pictures say what their decoder does: crash by a signal, call `exit`, hang, be slow.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
RUN = "cli.main()"

_SERVER = """
import json, os, resource, signal, sys, time, traceback
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
import torch, restore.fix.steps, restore.fix.stages, restore.restorers.registry
from restore.fix import plan, run as repair
from restore.cli import main as cli
from restore.fix import decoder_isolation as supervise
from restore.images import read
torch.set_num_threads(1)
sound = read.decode

def decode(data, kind, name, **options):
    what = os.path.basename(os.fspath(name))
    for word, number in (("segv", signal.SIGSEGV), ("bus", signal.SIGBUS), ("shot", signal.SIGKILL)):
        if word in what:
            signal.raise_signal(number)
    if "abort" in what:
        os.abort()
    if "exit" in what:
        os._exit(0)
    if "hang" in what:
        time.sleep(1000)
    if "slow" in what:
        time.sleep(0.05)
    return sound(data, kind, name, **options)

read.decode = decode
print("ready", flush=True)
for line in sys.stdin:
    order = json.loads(line)
    process = os.fork()
    if process == 0:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for handle in (1, 2):
            os.dup2(os.open(order["told"] + str(handle), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), handle)
        sys.argv = ["restore", *order["arguments"]]
        code = 0
        try:
            exec(order["program"])
        except SystemExit as error:
            code = error.code or 0
        except BaseException:
            traceback.print_exc()
            code = 99
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    print(process, flush=True)
    _, status, used = os.wait4(process, 0)
    print(os.waitstatus_to_exitcode(status), used.ru_maxrss >> 10, used.ru_utime + used.ru_stime, flush=True)
"""


class Run:
    """One run of the command line that has been started.

    Attributes:
        pid: of the process that was called; it leads a group of its own.
        returncode: once `wait` has returned.
        peak_mb: the resident memory of its largest process, once `wait` has returned.
        cpu_seconds: of all its processes, once `wait` has returned.
    """

    def __init__(self, server: subprocess.Popen[str], told: Path) -> None:
        self._server, self._told = server, told
        self.pid = int(self._read())
        self.returncode: int | None = None
        self.peak_mb, self.cpu_seconds = 0, 0.0

    def _read(self) -> str:
        assert self._server.stdout is not None
        return self._server.stdout.readline()

    def wait(self) -> Run:
        code, peak, seconds = self._read().split()
        self.returncode, self.peak_mb, self.cpu_seconds = int(code), int(peak), float(seconds)
        return self

    @property
    def stdout(self) -> str:
        return Path(f"{self._told}1").read_text()

    @property
    def stderr(self) -> str:
        return Path(f"{self._told}2").read_text()

    def worker(self) -> int:
        """The process that does the work; 0 where there is none."""
        try:
            children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        except OSError:
            return 0
        return int(children[0]) if children else 0

    def has_begun(self) -> bool:
        """The work is in its process's hands, or all over."""
        return bool(self.worker()) or is_dead(self.pid)


class Nursery:
    """Starts runs, one at a time.

    Args:
        folder: for what they print.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._number = folder, 0
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self._server = subprocess.Popen(
            [sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self._server.stdout is not None
        assert self._server.stdout.readline() == "ready\n"

    def start(self, *arguments: object, program: str = RUN) -> Run:
        self._number += 1
        told = self._folder / f"told{self._number}_"
        for handle in (1, 2):
            Path(f"{told}{handle}").touch()
        order = {"arguments": [str(argument) for argument in arguments], "program": program, "told": str(told)}
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(order) + "\n")
        self._server.stdin.flush()
        return Run(self._server, told)

    def run(self, *arguments: object, program: str = RUN) -> Run:
        return self.start(*arguments, program=program).wait()

    def close(self) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(timeout=60)


def alive(process: int) -> bool:
    """Whether a process does anything still: one that is dead and was not fetched does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def is_dead(process: int) -> bool:
    return not alive(process)


def until(true: Callable[[], object], seconds: float = 60) -> None:
    """Wait for something, for a limited time."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def kill(process: int) -> None:
    """Kill -9, whether or not it is still there."""
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        return
