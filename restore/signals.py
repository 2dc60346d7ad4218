"""Ctrl-C and SIGTERM: when they interrupt, and when they have to wait."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: Signals by which somebody wishes the work to end.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: What C calls, and lets no exception through: what pyvips is told by libvips, and finalizers.
_SWALLOW = ("_log_handler_callback", "__del__")
_AGAIN_SECONDS = 0.02


class Interrupt:
    """A signal handler that interrupts: the first time, or every time.

    Not where Python was called from C and would print the exception and forget it: there it tries again soon.
    """

    def __init__(self, once: bool) -> None:
        self.once, self.done = once, False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Raises KeyboardInterrupt, now or soon."""
        if self.once and self.done:
            return
        while frame is not None:
            if frame.f_code.co_name in _SWALLOW:
                threading.Timer(_AGAIN_SECONDS, os.kill, (os.getpid(), number)).start()
                return
            frame = frame.f_back
        self.done = True
        raise KeyboardInterrupt


def interrupt_by_signals(*, once: bool) -> None:
    """Ctrl-C and SIGTERM become `KeyboardInterrupt`, the first time or every time."""
    handler = Interrupt(once)
    for wish in STOP_SIGNALS:
        if signal.getsignal(wish) != signal.SIG_IGN:  # what `nohup` and the like have settled
            signal.signal(wish, handler)


@contextmanager
def defer_signals() -> Iterator[None]:
    """Meanwhile no signal interrupts: it does at the end. Nothing is held back outside of the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {wish: signal.getsignal(wish) for wish in STOP_SIGNALS}
    for wish, handler in before.items():
        if callable(handler):  # neither ignored, nor the end of the process
            signal.signal(wish, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        for wish, handler in before.items():
            if callable(handler):
                signal.signal(wish, handler)
        if came:
            signal.raise_signal(came[0])
