"""Ctrl-C and SIGTERM: how they interrupt, and how to defer them."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: The signals that ask the program to stop.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: Functions that are called from C, which prints and drops their exceptions: the log handler of pyvips, finalizers.
_DROP_EXCEPTIONS = ("_log_handler_callback", "__del__")
_RETRY_SECONDS = 0.02


class Interrupt:
    """A signal handler that raises `KeyboardInterrupt`.

    Inside a function that would drop the exception, it sends the signal again a moment later.

    Args:
        once: interrupt only the first time.
    """

    def __init__(self, once: bool) -> None:
        self.once, self.done = once, False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Raise KeyboardInterrupt, now or a moment later."""
        if self.once and self.done:
            return
        while frame is not None:
            if frame.f_code.co_name in _DROP_EXCEPTIONS:
                threading.Timer(_RETRY_SECONDS, os.kill, (os.getpid(), number)).start()
                return
            frame = frame.f_back
        self.done = True
        raise KeyboardInterrupt


def interrupt_by_signals(*, once: bool) -> None:
    """Let Ctrl-C and SIGTERM raise `KeyboardInterrupt`, every time or only `once`."""
    handler = Interrupt(once)
    for number in STOP_SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # `nohup` and the like ignore signals for their programs
            signal.signal(number, handler)


@contextmanager
def defer_signals() -> Iterator[None]:
    """Defer the signals that arrive during the block to its end. Does nothing outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    for number, handler in handlers.items():
        if callable(handler):  # not SIG_IGN or SIG_DFL
            signal.signal(number, lambda number, frame: received.append(number))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if callable(handler):
                signal.signal(number, handler)
        if received:
            signal.raise_signal(received[0])
