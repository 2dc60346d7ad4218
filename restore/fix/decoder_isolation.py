"""Run the work in a child process that is started again when a decoder crashes or hangs.

Decoders are written in C and read hostile files. One that crashes ends its process, and one that hangs in C cannot be
stopped from inside. So the process forks before anything is loaded. The child works and reports to its parent, over a
pipe, which files are in work; the parent waits, and keeps the results that were reported for the next child. Forking
costs milliseconds, a second interpreter would cost a second. It needs Linux; elsewhere the work is done in the calling
process, without isolation.

A worker process for decoders alone would keep the model loaded, and need no Linux. Its hand-over is no obstacle: 12
JPEGs of 1 to 4 megapixels (30 in all, two busy cores) were decoded in 13.3 ms per megapixel in the process itself, and
in 13.1 to 13.9 by a worker that hands pixels over in shared memory, where `photo` takes 1.5 s per megapixel. The whole
process is restarted all the same, because that also survives what such a worker does not: a model that crashes, and the
system killing the process when memory runs out. Both are reported as the failure of one file, and the run continues.
"""

from __future__ import annotations

import json
import os
import pickle
import secrets
import select
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from restore.signals import STOP_SIGNALS, interrupt_by_signals

#: Signals of a process that did something wrong itself; any other one was sent by somebody.
_CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)
_TICK_SECONDS = 1.0
_HEADER = struct.Struct(">cI")
#: After this many crashes outside of decoders the machine or the model is at fault, not the files.
_OTHER_CRASHES = 3


@dataclass
class SupervisorState:
    """What is known from earlier starts of a run.

    Attributes:
        plan: pickled, as the first start made it; empty before.
        ended: the records (as dictionaries) of files with a result, by name.
        blamed: files that ended the process, by name, and how.
        suspects: files one of which ended the process; each is tried alone.
        stop: why the run must end now; empty: it need not.
        started: `time.monotonic()` at the first start.
        run: identifies the run in its log.
    """

    plan: bytes = b""
    ended: dict[str, dict[str, Any]] = field(default_factory=dict)
    blamed: dict[str, str] = field(default_factory=dict)
    suspects: list[str] = field(default_factory=list)
    stop: str = ""
    started: float = field(default_factory=time.monotonic)
    run: str = field(default_factory=lambda: secrets.token_hex(6))


class SupervisorLink:
    """The child's connection to its parent. Without a parent it does nothing.

    Files have names, any unique strings. All methods may be called from any thread.

    Args:
        past: what is known from earlier starts.
        pipe: to write to; None: there is no parent.
    """

    def __init__(self, past: SupervisorState | None = None, pipe: int | None = None) -> None:
        self.past = past or SupervisorState()
        self._pipe = pipe
        self._lock = threading.Lock()

    @property
    def plan(self) -> Any:
        """What an earlier start passed to `keep`, or None."""
        # The bytes were written by this program and came through an unnamed pipe, so unpickling them is safe.
        return pickle.loads(self.past.plan) if self.past.plan else None  # noqa: S301

    def keep(self, plan: Any) -> None:
        """Pass the plan on to later starts."""
        if self._pipe is not None and not self.past.plan:
            self._send(b"P", pickle.dumps(plan))

    def begin(self, name: str) -> None:
        """Report that this file is in work."""
        self._send(b"B", os.fsencode(name))

    @contextmanager
    def decoding(self, name: str) -> Iterator[None]:
        """While this is entered, the file is decoded, within limited time."""
        self._send(b"D", os.fsencode(name))
        try:
            yield
        finally:
            self._send(b"d", os.fsencode(name))

    def end(self, name: str, record: dict[str, Any]) -> None:
        """Report the result of this file; its record is written."""
        if self._pipe is not None:
            self._send(b"E", os.fsencode(name) + b"\0" + json.dumps(record).encode())

    def finish(self) -> None:
        """Report that all files have results, or that the rest is left out on purpose."""
        self._send(b"F", b"")

    def _send(self, kind: bytes, payload: bytes) -> None:
        if self._pipe is None:
            return
        message = memoryview(_HEADER.pack(kind, len(payload)) + payload)
        with self._lock:
            while message:
                message = message[os.write(self._pipe, message) :]


def supervise(decode_seconds: float, on_event: Callable[[str], None]) -> SupervisorLink:
    """Return in a child process. The calling process stays in here, and ends with the child's exit code.

    Ctrl-C and SIGTERM become one `KeyboardInterrupt` in the child: a terminal sends Ctrl-C to both, and the parent
    passes it on. The second time, the parent kills the child.

    Args:
        decode_seconds: a file that is in `SupervisorLink.decoding` for longer is given up.
        on_event: called with a line when the work is started again.
    """
    if sys.platform != "linux":
        interrupt_by_signals(once=False)
        return SupervisorLink()
    past, parent = SupervisorState(), os.getpid()
    while True:
        reader, writer = os.pipe()
        held = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        child = os.fork()
        if child == 0:
            os.close(reader)
            _die_with(parent)
            interrupt_by_signals(once=True)
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
            return SupervisorLink(past, writer)
        os.close(writer)
        supervisor = _Supervisor(child, reader, past, decode_seconds)
        before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
        for number, handler in before.items():
            if handler != signal.SIG_IGN:
                signal.signal(number, supervisor.pass_on)
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        exit_code = supervisor.wait(on_event)
        os.close(reader)
        if exit_code is not None or supervisor.interrupted is not None:
            sys.exit(130 if exit_code is None else exit_code)


class _Supervisor:
    """The parent's side of one start: reads reports, limits decoding time, and finds the file to blame for a crash.

    Args:
        child: its process.
        pipe: to read its reports from.
        past: is updated.
        decode_seconds: the time limit of a decoder.
    """

    def __init__(self, child: int, pipe: int, past: SupervisorState, decode_seconds: float) -> None:
        self.child, self.pipe, self.past, self.decode_seconds = child, pipe, past, decode_seconds
        self.unread = bytearray()
        self.in_work: dict[str, None] = {}
        self.decoding: dict[str, float] = {}
        self.finished = False
        self.interrupted: float | None = None
        self.seconds = 0.0
        self.out_of_memory = _times_out_of_memory()

    def pass_on(self, number: int, frame: FrameType | None) -> None:
        """A signal handler: send the signal to the child; the second time, kill it."""
        now = time.monotonic()
        with suppress(ProcessLookupError):  # it has just ended
            if self.interrupted is None:
                self.interrupted = now
                os.kill(self.child, number)
            elif now - self.interrupted > 1:
                os.kill(self.child, signal.SIGKILL)

    def wait(self, on_event: Callable[[str], None]) -> int | None:
        """Wait for the child's end. Returns the exit code; None: start another one, with `past`."""
        late: list[str] = []
        status: int | None = None
        last = time.monotonic()
        while status is None:
            ready, _, _ = select.select([self.pipe], [], [], _TICK_SECONDS)
            now = time.monotonic()
            # The time that this process sees: not the hours in which both were stopped by Ctrl-Z.
            self.seconds += min(now - last, 2 * _TICK_SECONDS)
            last = now
            report = os.read(self.pipe, 1 << 16) if ready else b""
            self._receive(report)
            if not report:
                ended, result = os.waitpid(self.child, 0 if ready else os.WNOHANG)
                status = result if ended else None
            if not late:
                late = [name for name, since in self.decoding.items() if self.seconds - since > self.decode_seconds]
                if late:
                    os.kill(self.child, signal.SIGKILL)
        return self._judge(status, late, on_event)

    def _receive(self, report: bytes) -> None:
        self.unread += report
        while len(self.unread) >= _HEADER.size:
            kind, length = _HEADER.unpack_from(self.unread)
            end = _HEADER.size + length
            if len(self.unread) < end:
                return
            what = bytes(self.unread[_HEADER.size : end])
            del self.unread[:end]
            if kind == b"P":
                self.past.plan = what
            elif kind == b"F":
                self.finished = True
            else:
                encoded, _, record = what.partition(b"\0")
                self._follow(kind, os.fsdecode(encoded), record)

    def _follow(self, kind: bytes, name: str, record: bytes) -> None:
        if kind == b"B":
            self.in_work[name] = None
        elif kind == b"D":
            self.decoding[name] = self.seconds
        elif kind == b"d":
            self.decoding.pop(name, None)
        elif kind == b"E":
            self.in_work.pop(name, None)
            self.past.ended[name] = json.loads(record)

    def _judge(self, status: int, late: list[str], on_event: Callable[[str], None]) -> int | None:
        code = os.waitstatus_to_exitcode(status)
        # A decoder that calls `exit` is no better than one that crashes.
        if code >= 0 and (self.finished or not self.in_work):
            return code
        _show_cursor()
        if self.interrupted is not None:
            on_event("stopped at once; the same command with --skip-existing goes on")
            return 130
        how = signal.Signals(-code).name if code < 0 else f"exit {code}"
        if late:
            for name in late:
                self.past.blamed[name] = (
                    f"its decoder took longer than {self.decode_seconds:g} seconds; --decode-timeout gives it more"
                )
            how = "its parent, after a decoder's timeout"
        elif code == -signal.SIGKILL and _times_out_of_memory() > self.out_of_memory:
            how = "the system, out of memory"
        elif code < 0 and -code not in _CRASHES:
            on_event(f"error: ended by {how}; the same command with --skip-existing goes on")
            return 128 - code
        if self.finished or not self.in_work:
            on_event(f"error: the worker was terminated by {how}; no input file is implicated")
            return 1
        if not late:
            self._blame(how)
        known = self.past.ended.keys() | self.past.blamed.keys()
        self.past.suspects = [name for name in self.past.suspects if name not in known]
        on_event(f"the worker was terminated by {how} and is started again")
        return None

    def _blame(self, how: str) -> None:
        """Blame the file in work; if there are several, have each tried alone."""
        if len(self.in_work) > 1:
            self.past.suspects = [*self.in_work, *self.past.suspects]
            return
        (name,) = self.in_work
        if name in self.decoding:
            self.past.blamed[name] = f"its decoder crashed ({how}); the run was started again without it"
            return
        self.past.blamed[name] = f"the process that repaired it was ended by {how}"
        others = sum(reason.startswith("the process") for reason in self.past.blamed.values())
        if others >= _OTHER_CRASHES:
            self.past.stop = f"{others} crashes outside of decoders are not the files' doing (try --device cpu)"


def _die_with(parent: int) -> None:
    """Have this process killed when its parent is, which nobody would wait for then."""
    import ctypes

    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
    if os.getppid() != parent:  # it is gone already
        os._exit(1)


def _times_out_of_memory() -> int:
    """How often the system has killed a process for lack of memory: in this control group, or the whole machine."""
    times = 0
    for path in ("/sys/fs/cgroup/memory.events", "/proc/vmstat"):
        try:
            with open(path, encoding="ascii") as file:
                times += sum(int(line.split()[1]) for line in file if line.startswith("oom_kill "))
        except (OSError, ValueError):
            continue
    return times


def _show_cursor() -> None:
    """Show the cursor, which a progress bar that was killed has hidden."""
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K\x1b[?25h")
        sys.stderr.flush()
