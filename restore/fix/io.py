"""Standard input and output in the place of files (`-`)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from restore.errors import RestoreError
from restore.files import write_error_message
from restore.fix.plan import PIPE, FixPlan, is_pipe

_CHUNK = 1 << 20


def check_pipes(plan: FixPlan, log: str | os.PathLike[str] | None) -> None:
    """That images do not go to a terminal, or come from one, or to the same place as the log.

    Raises:
        RestoreError: exit code 2.
    """
    if plan.input == PIPE and (sys.stdin is None or sys.stdin.isatty()):
        raise RestoreError("nothing is piped into standard input", where="-", hint="redirect it: < image.png")
    if log is not None and not is_pipe(log):
        place = os.path.realpath(log)
        if any(os.path.realpath(job.target) == place for job in plan.jobs if job.target.name == Path(log).name):
            raise RestoreError("an image goes where the log would be", where="--log", hint="give it another name")
    if plan.output == PIPE:
        if log is not None and is_pipe(log):
            raise RestoreError("the image goes to standard output already", where="--log", hint="name a file")
        if sys.stdout is None or sys.stdout.isatty():
            raise RestoreError("a terminal cannot show an image's file", where="-", hint="redirect it: > fixed.png")


def read_pipe() -> bytes:
    """All of standard input.

    Raises:
        RestoreError: exit code 1; it is empty, or more than memory has room for: a pipe need not end.
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
        raise RestoreError("there is not enough memory for what comes in", exit_code=1) from error
    if not data:
        raise RestoreError("is empty", exit_code=1)
    return bytes(data)


def write_pipe(data: bytes) -> None:
    """Write to standard output, past Python's buffer, which would try again at exit what has failed here.

    Raises:
        RestoreError: exit code 1.
    """
    left = memoryview(data)
    try:
        sys.stdout.flush()
        while left:
            left = left[os.write(sys.stdout.fileno(), left[:_CHUNK]) :]
    except BrokenPipeError as error:
        raise RestoreError("whoever was reading has closed it", exit_code=1) from error
    except OSError as error:
        raise RestoreError(write_error_message(error), exit_code=1) from error
