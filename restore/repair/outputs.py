"""Outputs that are there whole or not at all, and the sweeping of what a killed run has left."""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import Literal

from restore.images import Picture
from restore.images.encode import encode
from restore.images.write import TEMPORARY_PREFIX, TEMPORARY_SUFFIX

Metadata = Literal["keep", "strip"]

logger = logging.getLogger(__name__)

_ABANDONED_SECONDS = 24 * 3600


def encoded(
    picture: Picture, target: Path, *, format: str, quality: int | None, metadata: Metadata
) -> tuple[bytes, list[str]]:
    """A picture as the bytes of its output, and what its format could not hold.

    Args:
        picture: what to write.
        target: its name, for messages.
        format: as in `Picture.format`.
        quality: of JPEG, WebP and AVIF; None as the source.
        metadata: `strip` leaves out EXIF, XMP and the like; the profile stays.

    Raises:
        RestoreError: exit code 1: the format cannot hold this picture.
    """
    if metadata == "strip":
        picture = replace(picture, exif=None, xmp=None, carried=b"")
    return encode(picture, format, target, quality=quality)


def publish(path: Path, data: bytes, like: os.stat_result) -> None:
    """Write a file atomically, with the permissions and the modification time of another.

    It gets these, and is synced, before it gets its name: what has its name is complete.

    Raises:
        OSError: nothing of the attempt is left, and what was there before is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unique = f"{_machine()}-{os.getpid()}-{secrets.token_hex(6)}"
    temporary = path.parent / f"{TEMPORARY_PREFIX}{unique}{TEMPORARY_SUFFIX}"
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.chmod(temporary, like.st_mode & 0o777)
            os.utime(temporary, ns=(like.st_atime_ns, like.st_mtime_ns))
        except PermissionError as error:  # FAT and some network disks have neither; the picture matters more
            logger.debug("%s: %s", path, error)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sweep_leftovers(folder: Path) -> int:
    """Remove temporary files that dead runs have left in a folder: those of this machine's processes that are no
    more, others after a day (another machine may be writing here too). Returns how many.
    """
    swept = 0
    for path in folder.glob(f"{TEMPORARY_PREFIX}*{TEMPORARY_SUFFIX}"):
        machine, _, rest = path.name.removeprefix(TEMPORARY_PREFIX).partition("-")
        process = rest.partition("-")[0]
        try:
            if machine == _machine() and process.isdecimal():
                abandoned = int(process) == os.getpid() or not _is_alive(int(process))
            else:
                abandoned = time.time() - path.stat().st_mtime > _ABANDONED_SECONDS
            if abandoned:
                path.unlink()
                swept += 1
        except OSError as error:  # gone meanwhile, or not ours: in nobody's way
            logger.debug("%s: not swept: %s", path, error)
    return swept


def _machine() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _is_alive(process: int) -> bool:
    if os.name == "nt":  # there, signal 0 would end it; and an open file cannot be removed anyway
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return True
