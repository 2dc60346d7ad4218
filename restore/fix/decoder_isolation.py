"""A run that outlives crashes: the work is done in a child, and a parent that has loaded nothing starts it again.

Decoders are written in C and meet hostile files. One that crashes takes its process with it, and one that hangs in C
cannot be stopped from inside. So the process forks before anything is loaded: the child works and tells its parent
over a pipe which files are in its hands; the parent waits. It keeps what the child tells as bytes, and hands them to
the next child if there has to be one. Forking costs milliseconds, a second interpreter would cost a second. It needs
Linux: elsewhere (a fork of a process that has threads, or has none to offer) the work is done where it was called.
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

#: What ends a process that did something wrong by itself; any other signal is somebody's wish.
_CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)
_TICK_SECONDS = 1.0
_HEADER = struct.Struct(">cI")
#: So many crashes outside of decoders are no hostile files: the machine or the model is at fault.
_OTHER_CRASHES = 3


@dataclass
class SupervisorState:
    """What earlier starts of a run have come to.

    Attributes:
        plan: pickled, as the first start made it; empty before.
        ended: the records (as dictionaries) of files that have their fate, by name.
        blamed: files that brought the process down, by name, and how they did.
        suspects: files, one of which brought it down: they are to be tried alone, one after the other.
        stop: why the run has to end now, "" if it has not.
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
    """The working process's line to the one that watches over it. Without one it does nothing.

    Files go by names, any strings that are one file's only. All methods may be called from any thread.

    Args:
        past: what earlier starts came to.
        pipe: where to tell; None: nobody listens.
    """

    def __init__(self, past: SupervisorState | None = None, pipe: int | None = None) -> None:
        self.past = past or SupervisorState()
        self._pipe = pipe
        self._lock = threading.Lock()

    @property
    def plan(self) -> Any:
        """What an earlier start gave to `keep`, or None."""
        # Bytes of this very program, which came through an unnamed pipe from its own earlier self.
        return pickle.loads(self.past.plan) if self.past.plan else None  # noqa: S301

    def keep(self, plan: Any) -> None:
        """Hand on what later starts need to know."""
        if self._pipe is not None and not self.past.plan:
            self._tell(b"P", pickle.dumps(plan))

    def begin(self, name: str) -> None:
        """This file is in our hands from now on."""
        self._tell(b"B", os.fsencode(name))

    @contextmanager
    def decoding(self, name: str) -> Iterator[None]:
        """Meanwhile this file is decoded, within limited time."""
        self._tell(b"D", os.fsencode(name))
        try:
            yield
        finally:
            self._tell(b"d", os.fsencode(name))

    def end(self, name: str, record: dict[str, Any]) -> None:
        """This file has its fate, and the record of it is written."""
        if self._pipe is not None:
            self._tell(b"E", os.fsencode(name) + b"\0" + json.dumps(record).encode())

    def finish(self) -> None:
        """All files have their fates; or the rest is meant to be left."""
        self._tell(b"F", b"")

    def _tell(self, kind: bytes, what: bytes) -> None:
        if self._pipe is None:
            return
        message = memoryview(_HEADER.pack(kind, len(what)) + what)
        with self._lock:
            while message:
                message = message[os.write(self._pipe, message) :]


def supervise(decode_seconds: float, on_event: Callable[[str], None]) -> SupervisorLink:
    """Go on in a child process. The caller's own process stays in here, and ends with the work's exit code.

    Ctrl-C and SIGTERM become `KeyboardInterrupt` in the process that works, once: a terminal sends it to both, and the
    parent passes it on. Asked a second time, the parent ends the other process at once.

    Args:
        decode_seconds: a file that is in `SupervisorLink.decoding` for longer is given up.
        say: told in a line when the work is started again.
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
        attendant = _Attendant(child, reader, past, decode_seconds)
        before = {wish: signal.getsignal(wish) for wish in STOP_SIGNALS}
        for wish, handler in before.items():
            if handler != signal.SIG_IGN:
                signal.signal(wish, attendant.pass_on)
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        exit_code = attendant.wait(on_event)
        os.close(reader)
        if exit_code is not None or attendant.interrupted is not None:
            sys.exit(130 if exit_code is None else exit_code)


class _Attendant:
    """The parent's side of one start: listens, keeps the time, and finds out who was to blame.

    Args:
        child: its process.
        pipe: what it tells.
        past: is brought up to date.
        decode_seconds: the most that a decoder may take.
    """

    def __init__(self, child: int, pipe: int, past: SupervisorState, decode_seconds: float) -> None:
        self.child, self.pipe, self.past, self.decode_seconds = child, pipe, past, decode_seconds
        self.unread = bytearray()
        self.in_hand: dict[str, None] = {}
        self.decoding: dict[str, float] = {}
        self.finished = False
        self.interrupted: float | None = None
        self.seconds = 0.0
        self.out_of_memory = _times_out_of_memory()

    def pass_on(self, number: int, frame: FrameType | None) -> None:
        """A signal handler: the child has the same wish to fulfil. Who asks twice does not want to wait."""
        now = time.monotonic()
        with suppress(ProcessLookupError):  # it has just ended
            if self.interrupted is None:
                self.interrupted = now
                os.kill(self.child, number)
            elif now - self.interrupted > 1:
                os.kill(self.child, signal.SIGKILL)

    def wait(self, on_event: Callable[[str], None]) -> int | None:
        """Until the child has ended. Returns the exit code, or None: start another one, `past` says with what."""
        late: list[str] = []
        status: int | None = None
        last = time.monotonic()
        while status is None:
            ready, _, _ = select.select([self.pipe], [], [], _TICK_SECONDS)
            now = time.monotonic()
            # The time that this process sees: not the hours in which both were stopped by Ctrl-Z.
            self.seconds += min(now - last, 2 * _TICK_SECONDS)
            last = now
            told = os.read(self.pipe, 1 << 16) if ready else b""
            self._hear(told)
            if not told:
                ended, result = os.waitpid(self.child, 0 if ready else os.WNOHANG)
                status = result if ended else None
            if not late:
                late = [name for name, since in self.decoding.items() if self.seconds - since > self.decode_seconds]
                if late:
                    os.kill(self.child, signal.SIGKILL)
        return self._judge(status, late, on_event)

    def _hear(self, told: bytes) -> None:
        self.unread += told
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
            self.in_hand[name] = None
        elif kind == b"D":
            self.decoding[name] = self.seconds
        elif kind == b"d":
            self.decoding.pop(name, None)
        elif kind == b"E":
            self.in_hand.pop(name, None)
            self.past.ended[name] = json.loads(record)

    def _judge(self, status: int, late: list[str], on_event: Callable[[str], None]) -> int | None:
        code = os.waitstatus_to_exitcode(status)
        # A decoder that calls `exit` is no better than one that crashes.
        if code >= 0 and (self.finished or not self.in_hand):
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
            how = "a decoder that did not come to an end"
        elif code == -signal.SIGKILL and _times_out_of_memory() > self.out_of_memory:
            how = "the system, which had no memory left"
        elif code < 0 and -code not in _CRASHES:
            on_event(f"error: ended by {how}; the same command with --skip-existing goes on")
            return 128 - code
        if self.finished or not self.in_hand:
            on_event(f"error: the process that repairs was ended by {how}; this was no file's doing")
            return 1
        if not late:
            self._blame(how)
        known = self.past.ended.keys() | self.past.blamed.keys()
        self.past.suspects = [name for name in self.past.suspects if name not in known]
        on_event(f"the process that repairs was ended by {how}; it is started again")
        return None

    def _blame(self, how: str) -> None:
        """One file in hand did it; of several, each is tried alone."""
        if len(self.in_hand) > 1:
            self.past.suspects = [*self.in_hand, *self.past.suspects]
            return
        (name,) = self.in_hand
        if name in self.decoding:
            self.past.blamed[name] = f"its decoder crashed ({how}); the run was started again without it"
            return
        self.past.blamed[name] = f"the process that repaired it was ended by {how}"
        others = sum(reason.startswith("the process") for reason in self.past.blamed.values())
        if others >= _OTHER_CRASHES:
            self.past.stop = f"{others} crashes outside of decoders are not the files' doing (try --device cpu)"


def _die_with(parent: int) -> None:
    """Be killed when the parent is: nobody would know of this process any more."""
    import ctypes

    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
    if os.getppid() != parent:  # it is gone already
        os._exit(1)


def _times_out_of_memory() -> int:
    """How often the system has killed for want of memory: this process's group, or the whole machine."""
    times = 0
    for path in ("/sys/fs/cgroup/memory.events", "/proc/vmstat"):
        try:
            with open(path, encoding="ascii") as file:
                times += sum(int(line.split()[1]) for line in file if line.startswith("oom_kill "))
        except (OSError, ValueError):
            continue
    return times


def _show_cursor() -> None:
    """A progress bar hides it, and died before it could bring it back."""
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K\x1b[?25h")
        sys.stderr.flush()
