"""Keeps the messages of libvips apart: all threads share one buffer, and a success may leave warnings in it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import pyvips

#: How long an operation that failed waits to be repeated alone. Then it is repeated beside others.
_WAIT_SECONDS = 5.0

T = TypeVar("T")


def _take_any_bytes() -> None:
    """Let pyvips take messages that quote bytes of a file.

    By itself, it raises `UnicodeDecodeError`, even in operations that succeed: these clear the buffer, and may find the
    message of another thread in it. The buffer is then not cleared, and all later operations fail.
    """

    def to_string(text: Any) -> str:
        content = "NULL" if text == pyvips.ffi.NULL else pyvips.ffi.string(text)
        return content.decode("utf-8", "backslashreplace") if isinstance(content, bytes) else str(content)

    for module in (pyvips, pyvips.error):  # the first one for what libvips logs
        if hasattr(module, "_to_string"):
            module._to_string = to_string


_take_any_bytes()

_changed = threading.Condition()
_running = 0
_started = 0  # in this process so far
_alone = False


def with_own_errors(operation: Callable[[], T]) -> T:
    """Run an operation of libvips. If it fails, the message of its error holds nothing of other operations.

    An operation that fails while others run is repeated alone.

    Args:
        operation: may run twice.

    Raises:
        pyvips.Error, UnicodeDecodeError: of the operation.
    """
    by_itself, before = _begin(_is_free)
    try:
        return operation()
    except (pyvips.Error, UnicodeDecodeError):
        if by_itself and before == _started:
            raise
    finally:
        _end()
    global _alone
    by_itself, _ = _begin(_is_quiet, alone=True)
    try:
        return operation()
    finally:
        if by_itself:
            _alone = False
        _end()


def _is_free() -> bool:
    return not _alone


def _is_quiet() -> bool:
    return not _alone and not _running


def _begin(ready: Callable[[], bool], *, alone: bool = False) -> tuple[bool, int]:
    """Wait until an operation may start, and clear the buffer if no other runs.

    Returns:
        Whether no other operation runs (with `alone`, or will start), and how many have started.
    """
    global _running, _started, _alone
    with _changed:
        end = time.monotonic() + _WAIT_SECONDS
        while not ready() and (left := end - time.monotonic()) > 0:
            _changed.wait(left)
        by_itself = _running == 0
        if by_itself:
            pyvips.vips_lib.vips_error_clear()
            _alone = alone
        _running += 1
        _started += 1
        return by_itself, _started


def _end() -> None:
    global _running
    with _changed:
        _running -= 1
        _changed.notify_all()
