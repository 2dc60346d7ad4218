"""Standard input and output instead of files (`-`)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from restore.errors import RestoreError
from restore.files import write_error_message
from restore.fix.inputs import PIPE, is_pipe
from restore.fix.jobs import split
from restore.fix.plan import FixPlan

_CHUNK = 1 << 20


def check_pipes(plan: FixPlan, log: str | os.PathLike[str] | None) -> None:
    """Check that images do not come from or go to a terminal, and do not share their destination with the log.

    Raises:
        RestoreError: exit code 2.
    """
    if plan.from_pipe and (sys.stdin is None or sys.stdin.isatty()):
        raise RestoreError("standard input is a terminal", where="-", hint="redirect it: < image.png")
    if log is not None and not is_pipe(log):
        place, name = os.path.realpath(log), Path(log).name
        folders = {folder for folder in plan.jobs.folders if os.path.realpath(os.path.join(folder, name)) == place}
        if folders and any(
            folder in folders and last == name
            for entry in plan.jobs.entries()
            for folder, last in map(split, entry.targets)
        ):
            raise RestoreError("an output image has the same path", where="--log", hint="choose another name")
    if plan.output == PIPE:
        if log is not None and is_pipe(log):
            raise RestoreError("the image already goes to standard output", where="--log", hint="name a file")
        if sys.stdout is None or sys.stdout.isatty():
            raise RestoreError("standard output is a terminal", where="-", hint="redirect it: > fixed.png")


def read_pipe() -> bytes:
    """All of standard input.

    Raises:
        RestoreError: exit code 1; it is empty, or does not fit in a quarter of the free memory. The limit is needed
            because a pipe may never end.
    """
    from restore.devices import free_ram

    limit = free_ram() // 4
    data = bytearray()
    try:
        while chunk := sys.stdin.buffer.read(_CHUNK):
            data += chunk
            if len(data) > limit:
                raise MemoryError
    except MemoryError as error:
        raise RestoreError("out of memory while reading standard input", exit_code=1) from error
    if not data:
        raise RestoreError("is empty", exit_code=1)
    return bytes(data)


def write_pipe(data: bytes) -> None:
    """Write to standard output without Python's buffer, which would retry a failed write at exit.

    Raises:
        RestoreError: exit code 1.
    """
    left = memoryview(data)
    try:
        sys.stdout.flush()
        while left:
            left = left[os.write(sys.stdout.fileno(), left[:_CHUNK]) :]
    except BrokenPipeError as error:
        raise RestoreError("the reader closed the pipe", exit_code=1) from error
    except OSError as error:
        raise RestoreError(write_error_message(error), exit_code=1) from error
