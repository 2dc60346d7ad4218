"""Run the work in a child process that is restarted when a decoder crashes or hangs.

Decoders are written in C and read hostile files. A crash ends the whole process, and a hang in C cannot be stopped from
inside. So the process forks before it loads anything. The child does the work and reports over a pipe which files are
in work. The parent waits, and keeps the reported results for the next child. Forking costs milliseconds; a second
interpreter would cost a second. Isolation needs Linux; elsewhere the work runs in the calling process.

A worker process for decoders alone would keep the model loaded and would not need Linux. The transfer of pixels is no
obstacle: 12 JPEGs of 1 to 4 megapixels (30 in all, two busy cores) took 13.3 ms per megapixel in the process itself and
13.1 to 13.9 in a worker with shared memory, while `photo` takes 1.5 s per megapixel. The whole process is restarted all
the same, because a restart also survives a model that crashes and a process killed for lack of memory. Both are
reported as the failure of one file, and the run continues.
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

from restore.packed import Packed
from restore.signals import STOP_SIGNALS, interrupt_by_signals

#: Signals that a process raises by its own fault. Any other signal was sent from outside.
_CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)
_TICK_SECONDS = 1.0
_HEADER = struct.Struct(">cI")
#: After this number of crashes outside decoders, the run stops: the machine or the model is at fault, not the files.
_OTHER_CRASHES = 3


@dataclass
class SupervisorState:
    """The state of a run that survives restarts.

    Attributes:
        plan: the pickled plan of the first start; empty until it is made.
        ended: the results of files, as `SupervisorLink.end` got them, in JSON.
        blamed: reasons for files that crashed the process, by name.
        suspects: files of which one crashed the process; each is tried alone.
        stop: reason to end the run now; empty: none.
        started: `time.monotonic()` at the first start.
        run: identifies the run in its log.
    """

    plan: bytes = b""
    ended: Packed[str] = field(default_factory=Packed)
    blamed: dict[str, str] = field(default_factory=dict)
    suspects: list[str] = field(default_factory=list)
    stop: str = ""
    started: float = field(default_factory=time.monotonic)
    run: str = field(default_factory=lambda: secrets.token_hex(6))

    def results(self) -> Iterator[dict[str, Any]]:
        """What earlier starts gave to `SupervisorLink.end`, in order."""
        return map(json.loads, self.ended)


class SupervisorLink:
    """The child's connection to its parent. Without a parent it does nothing.

    Files have names, any unique strings. All methods may be called from any thread.

    Args:
        past: state from earlier starts.
        pipe: file descriptor to write to; None: no parent.
        parent: process ID of the parent.

    Attributes:
        parent: as above; None: there is none.
        takes_each: `end` is wanted also for each file that the plan skips, which a parent can do without.
    """

    takes_each = False

    def __init__(self, past: SupervisorState | None = None, pipe: int | None = None, parent: int | None = None) -> None:
        self.past = past or SupervisorState()
        self.parent, self._pipe = parent, pipe
        self._lock = threading.Lock()

    @property
    def plan(self) -> Any:
        """The plan that an earlier start passed to `keep`, or None."""
        # The bytes were written by this program and came through an unnamed pipe, so unpickling them is safe.
        return pickle.loads(self.past.plan) if self.past.plan else None  # noqa: S301

    def keep(self, plan: Any) -> None:
        """Pass the plan on to later starts."""
        if self._pipe is not None and not self.past.plan:
            self._send(b"P", pickle.dumps(plan))

    def renew(self) -> None:
        """Forget a plan that is carried out; another one follows."""
        self.past = SupervisorState()
        self._send(b"N", self.past.run.encode())

    def begin(self, name: str) -> None:
        """Report that this file is in work."""
        self._send(b"B", os.fsencode(name))

    @contextmanager
    def decoding(self, name: str) -> Iterator[None]:
        """Report that the file is being decoded, which has a time limit."""
        self._send(b"D", os.fsencode(name))
        try:
            yield
        finally:
            self._send(b"d", os.fsencode(name))

    def end(self, name: str, result: dict[str, Any]) -> None:
        """Report the result of this file, with its record, which is written."""
        if self._pipe is not None:
            self._send(b"E", os.fsencode(name) + b"\0" + json.dumps(result).encode())

    def finish(self) -> None:
        """Report that all files have results, or that the rest is skipped on purpose."""
        self._send(b"F", b"")

    def _send(self, kind: bytes, payload: bytes) -> None:
        if self._pipe is None:
            return
        message = memoryview(_HEADER.pack(kind, len(payload)) + payload)
        with self._lock:
            while message:
                message = message[os.write(self._pipe, message) :]


def supervise(decode_seconds: float, on_event: Callable[[str], None]) -> SupervisorLink:
    """Fork, and return in the child. The calling process never returns; it exits with the exit code of the child.

    Ctrl-C and SIGTERM become one `KeyboardInterrupt` in the child: a terminal sends Ctrl-C to both processes, and the
    parent forwards it. At the second signal, the parent kills the child.

    Args:
        decode_seconds: time limit for a file in `SupervisorLink.decoding`.
        on_event: called with a line when the child is restarted.
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
            return SupervisorLink(past, writer, parent)
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
        child: process ID of the child.
        pipe: file descriptor of the child's reports.
        past: state of the run, updated in place.
        decode_seconds: time limit of a decoder.
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
        """Signal handler: forward the signal to the child; the second time, kill the child."""
        now = time.monotonic()
        with suppress(ProcessLookupError):  # the child has just ended
            if self.interrupted is None:
                self.interrupted = now
                os.kill(self.child, number)
            elif now - self.interrupted > 1:
                os.kill(self.child, signal.SIGKILL)

    def wait(self, on_event: Callable[[str], None]) -> int | None:
        """Wait for the child to end. Returns its exit code; None: start another child, with `past`."""
        late: list[str] = []
        status: int | None = None
        last = time.monotonic()
        while status is None:
            ready, _, _ = select.select([self.pipe], [], [], _TICK_SECONDS)
            now = time.monotonic()
            # Limits the step, so that time during which Ctrl-Z has stopped both processes does not count.
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
            elif kind == b"N":
                self.finished = False
                for attribute, value in vars(SupervisorState(run=what.decode())).items():
                    setattr(self.past, attribute, value)
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
            self.past.ended.append(record.decode())
            self.past.suspects = [suspect for suspect in self.past.suspects if suspect != name]

    def _judge(self, status: int, late: list[str], on_event: Callable[[str], None]) -> int | None:
        code = os.waitstatus_to_exitcode(status)
        # A decoder that calls `exit` counts as crashed.
        if code >= 0 and (self.finished or not self.in_work):
            return code
        _show_cursor()
        if self.interrupted is not None:
            on_event("stopped immediately; run the same command with --skip-existing to continue")
            return 130
        how = signal.Signals(-code).name if code < 0 else f"exit {code}"
        if late:
            for name in late:
                self.past.blamed[name] = (
                    f"decoding took longer than {self.decode_seconds:g} seconds; raise --decode-timeout to allow more"
                )
            how = "its parent, after a decoder's timeout"
        elif code == -signal.SIGKILL and _times_out_of_memory() > self.out_of_memory:
            how = "the system, out of memory"
        elif code < 0 and -code not in _CRASHES:
            on_event(f"error: terminated by {how}; run the same command with --skip-existing to continue")
            return 128 - code
        if self.finished or not self.in_work:
            on_event(f"error: the worker was terminated by {how}; no input file is implicated")
            return 1
        if not late:
            self._blame(how)
        self.past.suspects = [name for name in self.past.suspects if name not in self.past.blamed]
        on_event(f"the worker was terminated by {how}; restarting it")
        return None

    def _blame(self, how: str) -> None:
        """Blame the file in work; if there are several, have each tried alone."""
        if len(self.in_work) > 1:
            self.past.suspects = [*self.in_work, *self.past.suspects]
            return
        (name,) = self.in_work
        if name in self.decoding:
            self.past.blamed[name] = f"the decoder crashed ({how}); the run continued without this file"
            return
        self.past.blamed[name] = f"the process that repaired it was terminated by {how}"
        others = sum(reason.startswith("the process") for reason in self.past.blamed.values())
        if others >= _OTHER_CRASHES:
            self.past.stop = f"{others} crashes outside decoders are not caused by the files (try --device cpu)"


def _die_with(parent: int) -> None:
    """Ask the kernel to kill this process when its parent dies, because nobody would wait for it then."""
    import ctypes

    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
    if os.getppid() != parent:  # the parent died before the call
        os._exit(1)


def _times_out_of_memory() -> int:
    """Number of out-of-memory kills by the system so far, in this control group and on the whole machine."""
    times = 0
    for path in ("/sys/fs/cgroup/memory.events", "/proc/vmstat"):
        try:
            with open(path, encoding="ascii") as file:
                times += sum(int(line.split()[1]) for line in file if line.startswith("oom_kill "))
        except (OSError, ValueError):
            continue
    return times


def _show_cursor() -> None:
    """Show the cursor again after a killed progress bar has hidden it."""
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K\x1b[?25h")
        sys.stderr.flush()
