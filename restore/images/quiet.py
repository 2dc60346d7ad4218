"""Keeps libraries from writing to standard error. What matters of it becomes a note or an error of the file.

Warning filters, loggers and handlers are process-wide: the first thread that needs silence changes them, and the last
one restores them.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import os
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import PIL

#: Where warnings come from. No other code has a filter with this pattern, so that none is removed with it.
_WARNING_MODULES = r"(?:PIL|pillow_heif)(?:\..*)?"


class Quiet:
    """A context manager: a library is silent while any thread is in it.

    Args:
        silence: makes the library silent, and returns a function that undoes it.
    """

    def __init__(self, silence: Callable[[], Callable[[], None]]) -> None:
        self._silence = silence
        self._undo: Callable[[], None] = lambda: None
        self._lock, self._users = threading.Lock(), 0

    def __enter__(self) -> None:
        with self._lock:
            if not self._users:
                self._undo = self._silence()
            self._users += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                self._undo()


def _silence_pillow() -> Callable[[], None]:
    """Silence Pillow, and the libtiff inside its wheel."""
    filters = []
    for category in (UserWarning, RuntimeWarning):
        warnings.filterwarnings("ignore", category=category, module=_WARNING_MODULES)
        filters.append(warnings.filters[0])
    log, no_log = logging.getLogger("PIL"), logging.NullHandler()
    log.addHandler(no_log)
    handlers = [(setter, setter(None)) for setter in _libtiff_setters()]

    def undo() -> None:
        for entry in filters:
            with suppress(ValueError):  # another thread has replaced the list
                cast(list[Any], warnings.filters).remove(entry)
        log.removeHandler(no_log)
        for setter, handler in handlers:
            setter(handler)

    return undo


@functools.cache
def _libtiff_setters() -> list[Any]:
    """The C functions that set libtiff's handlers and return the old ones; none if Pillow uses the system's libtiff."""
    setters = []
    for library in Path(PIL.__file__).parents[1].glob("pillow.libs/libtiff*.so*"):
        tiff = ctypes.CDLL(os.fspath(library))
        for setter in (tiff.TIFFSetErrorHandler, tiff.TIFFSetWarningHandler):
            setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
            setters.append(setter)
    return setters


def _silence_opencv() -> Callable[[], None]:
    import cv2

    log = cv2.utils.logging
    before = log.setLogLevel(log.LOG_LEVEL_SILENT)
    return lambda: cast(None, log.setLogLevel(before))


QUIET_PILLOW, QUIET_OPENCV = Quiet(_silence_pillow), Quiet(_silence_opencv)
