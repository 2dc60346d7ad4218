"""What the processes of a run say when one of them fails.

A process that fails leaves a message in the store through which the processes found each other, before its connections
close. The others read it when their next exchange fails. Without a message, the process was killed, or its machine or
the network failed.
"""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from lightning_fabric import Fabric

from restore.errors import RestoreError
from restore.training.config import TrainConfig
from restore.training.run_dir import RunFolder

T = TypeVar("T")

LOST_PROCESS = 4
"""Exit code of a process that lost another one."""

_STORE_SECONDS = 5.0  # the store itself may be on the machine that failed
_OTHERS_SECONDS = 1.5  # within which the other survivors notice a failure, too
# The backends raise plain `RuntimeError`s.
_FAILED_EXCHANGE = re.compile(
    r"gloo|nccl|processgroup|timed out (after|waiting)|connection (reset|closed|refused)", re.I
)
_TIMED_OUT = re.compile(r"[Tt]imed? ?out")


class LostProcessError(RestoreError):
    """Another process of the run failed.

    Attributes:
        speaks: this process reports it, and others of this machine do not.
    """

    speaks = True


@dataclass
class _Message:
    what: str
    exit_code: int


@contextmanager
def connected(config: TrainConfig, fabric: Fabric) -> Iterator[None]:
    """Launch the processes of a run. A failed exchange becomes an error that says which of them failed, and how.

    Args:
        config: of the run.
        fabric: before its launch.

    Raises:
        LostProcessError: another process failed, was killed, or did not answer for `timeout_minutes`. Its exit code is
            that of the process that failed if that is known, else `LOST_PROCESS`.
    """
    board = _Board(fabric)
    try:
        fabric.launch()
        board.sign_in()
        yield
    except Exception as error:
        if config.devices * config.nodes == 1:
            raise
        if not _is_failed_exchange(error):
            board.leave(_Message(_in_words(error), getattr(error, "exit_code", 1)))
            raise
        raise _explained(config, fabric, board, error) from error
    except KeyboardInterrupt:
        board.leave(_Message("interrupted", 130))
        raise


def _explained(config: TrainConfig, fabric: Fabric, board: _Board, error: Exception) -> LostProcessError:
    minutes = f"{config.timeout_minutes:g} minute{'s' * (config.timeout_minutes != 1)}"
    timed_out = bool(_TIMED_OUT.search(str(error)))
    if not board.is_open:
        late = timed_out and isinstance(error, torch.distributed.DistError)  # else it was gloo's own timeout
        return LostProcessError(
            f"the other processes did not arrive within {minutes}" if late else f"cannot be reached: {_line(error)}",
            where=f"devices = {config.devices}, nodes = {config.nodes}",
            hint="start the same command on all machines; each must reach the others, and MASTER_PORT on MASTER_ADDR",
            exit_code=LOST_PROCESS,
        )
    board.leave(_Message("lost another process", LOST_PROCESS), overwrite=False)
    messages = board.read()
    exit_code = LOST_PROCESS
    failed = next((rank for rank, message in (messages or {}).items() if message.exit_code != LOST_PROCESS), None)
    if messages is None:  # process 0 holds the store, unless torchrun does
        what = f"{board.name([0])} is gone: it failed itself, or it was killed, or its machine or the network failed"
    elif failed is not None:
        what = f"{board.name([failed])} failed: {messages[failed].what}"
        exit_code = messages[failed].exit_code
    else:
        silent = board.name([rank for rank in range(fabric.world_size) if rank not in messages])
        what = f"{silent} is gone: it was killed, or its machine or the network failed"
        if timed_out:
            what = f"{silent} has not answered for {minutes}"
    lost = LostProcessError(what, hint=_how_to_resume(config, timed_out and failed is None), exit_code=exit_code)
    lost.speaks = fabric.local_rank == int(fabric.node_rank == 0) if messages is None else board.claim_report()
    return lost


def _how_to_resume(config: TrainConfig, timed_out: bool) -> str:
    assert config.out is not None
    step = RunFolder.facts(config.out).get("step")
    hint = "no state was saved yet, so the same command starts again"
    if step is not None:
        hint = f"the same command resumes from step {step}, the last state"
    return hint + ("; raise timeout_minutes if it was only slow" if timed_out else "")


class _Board:
    """Messages of the processes in their store. Every access is bounded in time and may fail."""

    def __init__(self, fabric: Fabric) -> None:
        self._fabric = fabric
        self._hosts: list[str] = []

    @property
    def is_open(self) -> bool:
        return torch.distributed.is_available() and torch.distributed.is_initialized()

    def sign_in(self) -> None:
        """Exchange the names of the machines, once all processes are connected."""
        if self._fabric.world_size > 1:
            hosts: list[str] = [""] * self._fabric.world_size
            torch.distributed.all_gather_object(hosts, socket.gethostname())
            self._hosts = hosts

    def name(self, ranks: list[int]) -> str:
        """`process 1 on HOST`; `another process` if it is not clear which."""
        named = [f"process {rank}" + (f" on {self._hosts[rank]}" if self._hosts else "") for rank in ranks]
        return " or ".join(named) if 0 < len(named) <= 4 else "another process"

    def _store(self) -> Any:
        default = torch.distributed.distributed_c10d._get_default_store()
        store = torch.distributed.PrefixStore("restore", default)  # type: ignore[attr-defined]
        store.set_timeout(timedelta(seconds=_STORE_SECONDS))
        return store

    def leave(self, message: _Message, *, overwrite: bool = True) -> None:
        """Leave a message for the others."""
        if not self.is_open:
            return
        name, text = f"message/{self._fabric.global_rank}", json.dumps([message.what, message.exit_code])

        def write() -> None:
            store = self._store()
            if overwrite or not store.check([name]):
                store.set(name, text)

        _within(_STORE_SECONDS, write)

    def read(self) -> dict[int, _Message] | None:
        """The messages by rank; None if the store cannot be read.

        Waits a moment for messages of all but one process, unless one has said why it failed.
        """
        ranks = range(self._fabric.world_size)

        def read() -> dict[int, _Message]:
            store = self._store()
            names = {rank: f"message/{rank}" for rank in ranks}
            return {rank: _Message(*json.loads(store.get(n))) for rank, n in names.items() if store.check([n])}

        deadline = time.monotonic() + _OTHERS_SECONDS
        found = _within(_STORE_SECONDS, read)
        while found is not None and time.monotonic() < deadline:
            if len(found) >= len(ranks) - 1 or any(one.exit_code != LOST_PROCESS for one in found.values()):
                break
            time.sleep(0.1)
            found = _within(_STORE_SECONDS, read)
        return found

    def claim_report(self) -> bool:
        """Whether this process is the first of its machine that reports the failure."""
        count = _within(_STORE_SECONDS, lambda: self._store().add(f"reports/{self._fabric.node_rank}", 1))
        return count is None or count == 1


def _within(seconds: float, action: Callable[[], T]) -> T | None:
    """The result of an action; None if it fails or takes longer, as the store does if its machine is gone."""
    found: list[T] = []

    def run() -> None:
        try:
            found.append(action())
        except Exception:  # whatever a store of any version raises
            return

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    return found[0] if found else None


def _is_failed_exchange(error: Exception) -> bool:
    if isinstance(error, RestoreError):
        return False
    if isinstance(error, torch.distributed.DistError):
        return True
    return isinstance(error, RuntimeError) and bool(_FAILED_EXCHANGE.search(str(error)))


def _in_words(error: Exception) -> str:
    return str(error) if isinstance(error, RestoreError) else f"{type(error).__name__}: {_line(error)}"


def _line(error: Exception) -> str:
    first = (str(error).splitlines() or [""])[0]
    return re.sub(r"^\[\S*\] ", "", first)  # the file and line of C++ code
