"""Child processes that run tasks. One that crashes, hangs or is cancelled fails one job, and is started again.

The parent's side is `Worker`, the child's is `run_tasks`. They talk over a pipe: the parent sends (task, parameters),
the child says ("ready", None) once, then answers with any number of ("progress", ...), ("event", ...) and
("decoding", ...), and then one of ("done", result), ("failed", problem) or ("cancelled", None). What the pipe carries
is pickled; both ends are this program.
"""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import Any, Literal

from restore.errors import RestoreError
from restore.process import limit_thread_spinning, quiet_pillow, reuse_large_blocks
from restore.signals import Interrupt, defer_signals

Kind = Literal["decoder", "models"]
Json = dict[str, Any]

#: How often a worker is looked at while it works: for a cancelled job, and for one that takes too long.
_TICK_SECONDS = 0.1
#: Steps of progress that are worth a message.
_STEP = 0.005
#: How long a cancelled task may take to end by itself.
_CANCEL_SECONDS = 5.0
#: How much sooner than others Linux ends a worker when memory runs out, of at most 1000.
_OOM_SCORE = 500
#: How often a worker looks whether its parent lives.
_ORPHAN_SECONDS = 1.0

#: Classes of `RestoreError` that say what is wrong with an image -> `restore.fix.log.ReasonCode`.
_CODES = {
    "NotAnImage": "not_an_image",
    "UnsupportedFile": "unsupported",
    "ImageTooLarge": "too_large",
    "DamagedFile": "damaged",
}

logger = logging.getLogger(__name__)


class TaskFailed(Exception):
    """A task that failed for a reason that is known.

    Args:
        reason: in words, as the command line prints it.
        code: for programs; see `restore.fix.log.ReasonCode`.
    """

    def __init__(self, reason: str, code: str = "failed") -> None:
        super().__init__(reason)
        self.reason, self.code = reason, code


def problem_of(error: BaseException) -> Json:
    """An error as a job holds it: {detail, code, where, hint}. `restore.serve.problems` makes an answer of it."""
    if isinstance(error, TaskFailed):
        return {"detail": error.reason, "code": error.code, "where": None, "hint": None}
    if isinstance(error, RestoreError):
        code = "bad_request" if error.exit_code == 2 else "failed"
        # By name, because importing these classes would load the decoders.
        code = next((_CODES[one.__name__] for one in type(error).__mro__ if one.__name__ in _CODES), code)
        return {"detail": error.what, "code": code, "where": error.where, "hint": error.hint}
    if isinstance(error, MemoryError):
        return {"detail": "out of memory", "code": "out_of_memory", "where": None, "hint": "try a smaller image"}
    detail = f"unexpected {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return {"detail": detail, "code": "unexpected", "where": None, "hint": None}


# The child's side


class Report:
    """What a task says while it runs; any thread may call it.

    Attributes:
        device: the device of this worker: `auto`, `cpu`, `cuda:N` or `mps`.
        decode_seconds: the time limit of `decoding`.
    """

    def __init__(self, pipe: Connection, device: str, decode_seconds: float) -> None:
        self.device, self.decode_seconds = device, decode_seconds
        self._pipe = pipe
        self._lock = threading.Lock()

    def progress(self, fraction: float | None, message: str = "") -> None:
        """Say how far the task is.

        Args:
            fraction: in [0, 1]; None: not known.
            message: what is being done, as a participle: `repairing`.
        """
        self.send("progress", (fraction, message))

    def event(self, line: str) -> None:
        """Tell the operator, and whoever waits for the task, that something takes long or is unusual.

        Args:
            line: as the command line prints it. What is in brackets at its end is for the operator alone.
        """
        self.send("event", line)
        self.progress(None, line.partition(" (")[0])

    def steps(self, message: str, start: float = 0.0, end: float = 1.0) -> Callable[[float], None]:
        """A watch for `restore.progress.watching`, which reports a part of the task's progress, and not too often.

        Args:
            message: what is being done; it is reported at once.
            start, end: of the part.
        """
        told = start
        self.progress(start, message)

        def tell(share: float) -> None:
            nonlocal told
            reached = start + (end - start) * share
            if reached - told >= _STEP:
                told = reached
                self.progress(reached, message)

        return tell

    @contextmanager
    def decoding(self, name: str = "") -> Iterator[None]:
        """Decode inside this block: it has a time limit, and a crash is put down to the file."""
        self.send("decoding", (name, True))
        try:
            yield
        finally:
            self.send("decoding", (name, False))

    def send(self, kind: str, what: Any) -> None:
        """Send a message to the parent."""
        with defer_signals(), self._lock:  # half a message would make the next one unreadable
            self._pipe.send((kind, what))


Task = Callable[[Json, Report], Json]
Tasks = dict[str, Task]


class _InterruptTasks(Interrupt):
    """Raises `KeyboardInterrupt` while a task runs; a signal that comes too late is ignored."""

    running = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.running:
            super().__call__(number, frame)


def run_tasks(pipe: Connection, device: str, decode_seconds: float, module: str, parent: int) -> None:
    """The life of a worker process: run the tasks of a module until the parent closes the pipe, or dies."""
    if hasattr(os, "setsid"):
        os.setsid()  # Ctrl-C in a terminal is for the server, which lets its workers finish
    interrupt = _InterruptTasks(once=False)
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    threading.Thread(target=_end_with, args=(parent,), daemon=True, name="restore-parent").start()
    _give_way()
    _quiet()
    quiet_pillow()
    limit_thread_spinning()
    reuse_large_blocks()
    report = Report(pipe, device, decode_seconds)
    report.send("ready", None)
    tasks: Tasks = importlib.import_module(module).TASKS
    with suppress(EOFError, BrokenPipeError, ConnectionError):
        while True:
            task, params = pipe.recv()
            try:
                answer = _answer(tasks[task], params, report, interrupt)
            except KeyboardInterrupt:
                interrupt.running = False
                answer = ("cancelled", {})
            report.send(*answer)
    os._exit(0)


def _answer(task: Task, params: Json, report: Report, interrupt: _InterruptTasks) -> tuple[str, Json]:
    try:
        interrupt.running = True
        return "done", task(params, report)
    except Exception as error:
        logger.debug("%s", task, exc_info=error)
        return "failed", problem_of(error)
    finally:
        interrupt.running = False


def _end_with(parent: int) -> None:
    """End this process when its parent is gone: nobody would take its results."""
    while os.getppid() == parent:
        time.sleep(_ORPHAN_SECONDS)
    os._exit(1)


def _give_way() -> None:
    """Let Linux end this process first when memory runs out: the server and other programs live on."""
    with suppress(OSError, ValueError), open("/proc/self/oom_score_adj", "r+") as file:
        score = int(file.read())
        file.seek(0)
        file.write(str(max(score, _OOM_SCORE)))


def _quiet() -> None:
    """Discard the standard streams: messages of C libraries name no file. Notes and errors report what matters."""
    with suppress(OSError):
        null = os.open(os.devnull, os.O_RDWR)
        for handle in (0, 1, 2):
            os.dup2(null, handle)


# The parent's side


@dataclass(frozen=True)
class Outcome:
    """How a task ended.

    Attributes:
        state: `done`, `failed` or `cancelled`.
        result: of a task that is done.
        problem: of one that failed; see `problem_of`.
    """

    state: Literal["done", "failed", "cancelled"]
    result: Json | None = None
    problem: Json | None = None


class Worker:
    """A worker process. It is used by one thread; it runs one task at a time.

    Args:
        kind: `decoder` loads no network.
        device: of its networks.
        decode_seconds: how long a file may take to decode.
        tasks: the module whose `TASKS` it runs.
    """

    def __init__(
        self, kind: Kind, device: str = "auto", *, decode_seconds: float = 120.0, tasks: str = "restore.serve.tasks"
    ) -> None:
        self.kind, self.device, self.decode_seconds = kind, device, decode_seconds
        self._is_ready = False
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=run_tasks,
            args=(theirs, device, decode_seconds, tasks, os.getpid()),
            name=f"restore-{kind}",
            daemon=True,
        )
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        """The process's identifier."""
        return self._process.pid or 0

    @property
    def alive(self) -> bool:
        """Whether it can take a task."""
        return self._process.is_alive()

    def run(
        self,
        task: str,
        params: Json,
        *,
        is_cancelled: Callable[[], bool],
        seconds: float | None = None,
        on_progress: Callable[[float | None, str], None] | None = None,
    ) -> Outcome:
        """Run a task, and wait for it.

        Args:
            task: a name of `restore.serve.tasks.TASKS`.
            params: what the task takes.
            is_cancelled: asked now and then; if it says yes, the task is interrupted.
            seconds: the time limit; None: there is none.
            on_progress: called with the fraction (None: not known) and a message.

        Returns:
            The outcome. If it is not `done`, the process may have been killed: see `alive`.
        """
        try:
            self._pipe.send((task, params))
        except (BrokenPipeError, ConnectionError, OSError):
            return self._crashed(False)
        start = time.monotonic()
        decoding: dict[str, float] = {}
        asked_to_stop: float | None = None
        while True:
            wait([self._pipe, self._process.sentinel], _TICK_SECONDS)
            try:
                while self._pipe.poll():
                    kind, what = self._pipe.recv()
                    if kind == "ready":
                        self._is_ready = True
                    elif kind == "progress" and on_progress is not None:
                        on_progress(*what)
                    elif kind == "event":
                        logger.warning("%s", what)
                    elif kind == "decoding":
                        name, begins = what
                        decoding.pop(name, None)
                        if begins:
                            decoding[name] = time.monotonic()
                    elif kind == "done":
                        return Outcome("done", result=what)
                    elif kind == "cancelled":
                        return Outcome("cancelled")
                    elif kind == "failed":
                        return Outcome("failed", problem=what)
            except (EOFError, ConnectionError, OSError):
                return Outcome("cancelled") if asked_to_stop is not None else self._crashed(bool(decoding))
            now = time.monotonic()
            if not self._process.is_alive() and not self._pipe.poll():
                return Outcome("cancelled") if asked_to_stop is not None else self._crashed(bool(decoding))
            if any(now - since > self.decode_seconds for since in decoding.values()):
                self.kill()
                detail = f"decoding took longer than {self.decode_seconds:g} seconds"
                return Outcome("failed", problem=problem_of(TaskFailed(detail, "crashed")))
            if seconds is not None and now - start > seconds:
                self.kill()
                detail = f"took longer than {seconds:g} seconds"
                return Outcome("failed", problem=problem_of(TaskFailed(detail, "late")))
            if is_cancelled():
                # Windows has no signal that a program can catch, nor can one that is still being started.
                if os.name == "nt" or not self._is_ready:
                    self.kill()
                    return Outcome("cancelled")
                if asked_to_stop is None:
                    asked_to_stop = now
                    self._interrupt()
                elif now - asked_to_stop > _CANCEL_SECONDS:
                    self.kill()
                    return Outcome("cancelled")

    def _interrupt(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGINT)

    def _crashed(self, decoding: bool) -> Outcome:
        self._process.join(1)
        code = self._process.exitcode
        how = "is gone" if code is None else _signal_name(-code) if code < 0 else f"exit {code}"
        self.kill()
        reason = f"the process that did the work was terminated by {how}"
        if decoding:
            reason = f"the decoder crashed ({how})"
        return Outcome("failed", problem=problem_of(TaskFailed(reason, "crashed")))

    def kill(self) -> None:
        """End the process at once."""
        with suppress(ValueError, OSError):
            self._process.kill()
            self._process.join(5)
        with suppress(OSError):
            self._pipe.close()


def _signal_name(number: int) -> str:
    """`SIGKILL`; those for real-time use have numbers alone."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def devices_of(spec: str) -> list[str]:
    """The devices that workers are started for.

    Args:
        spec: as `ServeSettings.device`. PyTorch is asked, in another process, only where the name alone does not say.
    """
    if spec != "cuda:all":
        return [part.strip() for part in spec.split(",") if part.strip()] or ["auto"]
    import subprocess

    code = "from restore.devices import pick_devices; print(*pick_devices('cuda:all'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RestoreError("no CUDA device found", where=f"device {spec}", hint="use auto or cpu")
    return done.stdout.split()
