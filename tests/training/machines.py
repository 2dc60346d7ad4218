"""Processes of a run as launchers start them on several machines: forks of a server that has PyTorch loaded."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.processes import ROOT

_SERVER = """
import json, os, sys, traceback
import matplotlib.pyplot, torch, restore.training.loop
from restore.cli import main as cli
torch.set_num_threads(1)
print("ready", flush=True)
for line in sys.stdin:
    order = json.loads(line)
    if "wait" in order:
        process, status = os.waitpid(order["wait"], os.WNOHANG)
        print(os.waitstatus_to_exitcode(status) if process else "runs", flush=True)
        continue
    process = os.fork()
    if process:
        print(process, flush=True)
        continue
    os.setsid()
    os.environ.update(order["environment"])
    for handle in (1, 2):
        os.dup2(os.open(order["told"] + str(handle), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), handle)
    os.chdir(order["folder"])
    sys.argv = ["restore", *order["arguments"]]
    code = 0
    try:
        cli.main()
    except SystemExit as error:
        code = error.code or 0
    except BaseException:
        traceback.print_exc()
        code = 99
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def torchrun(rank: int, port: int) -> dict[str, str]:
    """The variables of the only process of a machine, of two."""
    return {
        "RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "GROUP_RANK": str(rank),
        "TORCHELASTIC_RUN_ID": "test", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip


def srun(rank: int, port: int) -> dict[str, str]:
    """The variables of a task of a step of two, one on each node."""
    return {
        "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_NNODES": "2", "SLURM_STEP_NUM_NODES": "2", "SLURM_PROCID": str(rank), "SLURM_LOCALID": "0",
        "SLURM_NODEID": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip


class Machine:
    """A machine with one process of a run.

    Attributes:
        pid: of the process.
    """

    def __init__(self, machines: Machines, pid: int, told: Path) -> None:
        self._machines, self.pid, self._told = machines, pid, told
        self._code: int | None = None

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    @property
    def code(self) -> int | None:
        """Exit code; None while the process runs."""
        if self._code is None:
            answer = self._machines.ask({"wait": self.pid})
            self._code = None if answer == "runs" else int(answer)
        return self._code

    def wait(self, seconds: float = 60) -> int:
        deadline = time.monotonic() + seconds
        while self.code is None:
            assert time.monotonic() < deadline, f"still runs: {self.stderr}"
            time.sleep(0.02)
        return self.code

    @property
    def stdout(self) -> str:
        return Path(f"{self._told}1").read_text()

    @property
    def stderr(self) -> str:
        return Path(f"{self._told}2").read_text()


class Machines:
    """Starts processes of runs.

    Args:
        folder: for what they print.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._started = folder, list[Machine]()
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self._server = subprocess.Popen(
            [sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self._server.stdout is not None
        assert self._server.stdout.readline() == "ready\n"

    def ask(self, order: dict[str, object]) -> str:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(order) + "\n")
        self._server.stdin.flush()
        return self._server.stdout.readline().strip()

    def start(self, arguments: list[str], environment: dict[str, str], folder: Path) -> Machine:
        told = self._folder / f"told{len(self._started)}_"
        order = {"arguments": arguments, "environment": environment, "told": str(told), "folder": str(folder)}
        self._started.append(Machine(self, int(self.ask(order)), told))
        return self._started[-1]

    def close(self) -> None:
        for machine in self._started:
            if machine.code is None:
                machine.send(signal.SIGKILL)
        self._server.kill()
        self._server.wait(timeout=60)
