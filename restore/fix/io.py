"""Where a picture's bytes come from and go to: files, and for `-` standard input and output."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from restore.errors import RestoreError
from restore.files import write_atomically, write_error_message
from restore.fix.options import Metadata
from restore.fix.plan import PIPE, FixPlan, is_pipe
from restore.images import DecodedImage, read_bytes
from restore.images.encode import encode, without_metadata

_CHUNK = 1 << 20


def check_pipes(plan: FixPlan, log: str | os.PathLike[str] | None) -> None:
    """That pictures do not go to a terminal, or come from one, or to the same place as the log.

    Raises:
        RestoreError: exit code 2.
    """
    if plan.input == PIPE and (sys.stdin is None or sys.stdin.isatty()):
        raise RestoreError("nothing is piped into standard input", where="-", hint="redirect it: < picture.png")
    if log is not None and not is_pipe(log):
        place = os.path.realpath(log)
        if any(os.path.realpath(job.target) == place for job in plan.jobs if job.target.name == Path(log).name):
            raise RestoreError("a picture goes where the log would be", where="--log", hint="give it another name")
    if plan.output == PIPE:
        if log is not None and is_pipe(log):
            raise RestoreError("the picture goes to standard output already", where="--log", hint="name a file")
        if sys.stdout is None or sys.stdout.isatty():
            raise RestoreError("a terminal cannot show a picture's file", where="-", hint="redirect it: > fixed.png")


def take(source: Path) -> tuple[bytes, os.stat_result | None]:
    """The content of a file, and its state; of standard input, without one.

    Raises:
        RestoreError, OSError: it cannot be read, or changed meanwhile.
    """
    if source == PIPE:
        return _read_pipe(), None
    before = os.stat(source)
    data = read_bytes(source)
    check_unchanged(source, before)
    return data, before


def check_unchanged(source: Path, before: os.stat_result) -> None:
    """That a file is as it was before it was read.

    Raises:
        RestoreError: exit code 1; it changed meanwhile.
        OSError: it is gone.
    """
    after = os.stat(source)
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise RestoreError("the file changed while it was read", hint="run again", exit_code=1)


def put(target: Path, data: bytes, *, like: os.stat_result | None, overwrite: bool) -> None:
    """Write a file whole or not at all (see `write_atomically`), or to standard output.

    Raises:
        RestoreError: exit code 1.
    """
    if target == PIPE:
        _write_pipe(data)
    else:
        write_atomically(target, data, like=like, overwrite=overwrite)


def _read_pipe() -> bytes:
    """All of standard input, unless it is more than memory has room for: a pipe need not end."""
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


def _write_pipe(data: bytes) -> None:
    """Past Python's buffer, which would try again at the end what has failed here."""
    left = memoryview(data)
    try:
        sys.stdout.flush()
        while left:
            left = left[os.write(sys.stdout.fileno(), left[:_CHUNK]) :]
    except BrokenPipeError as error:
        raise RestoreError("whoever was reading has closed it", exit_code=1) from error
    except OSError as error:
        raise RestoreError(write_error_message(error), exit_code=1) from error


# What an output's file holds, as bytes; `restore.files` puts them in place.


def encoded(
    picture: DecodedImage, target: Path, *, format: str, quality: int | None, metadata: Metadata
) -> tuple[bytes, list[str]]:
    """A picture as the bytes of its output, and what its format could not hold.

    Args:
        picture: what to write.
        target: its name, for messages.
        format: as in `DecodedImage.format`.
        quality: of JPEG, WebP and AVIF; None as the source.
        metadata: `strip` leaves out EXIF, XMP and the like; the profile stays.

    Raises:
        RestoreError: exit code 1: the format cannot hold this picture.
    """
    if metadata == "strip":
        picture = without_metadata(picture)
    return encode(picture, format, target, quality=quality)
