"""Files that are there whole or not at all; what killed runs have left of theirs; where files can be written."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from restore.errors import RestoreError

#: Names of files that are being written begin and end like this; what is left of a killed run can be swept.
TEMPORARY_PREFIX, TEMPORARY_SUFFIX = ".restore-", ".tmp"

logger = logging.getLogger(__name__)

_ABANDONED_SECONDS = 24 * 3600


def write_atomically(
    path: str | os.PathLike[str],
    data: bytes,
    *,
    like: os.stat_result | None = None,
    parents: bool = True,
    overwrite: bool = True,
) -> None:
    """Write beside, sync, rename: what has its name is complete, and the old file stays whole until the new one is.

    Args:
        path: the file.
        data: all of it.
        like: gives its permissions and its modification time, before the rename; None: those of any new file.
        parents: make missing folders.
        overwrite: replace what is there; else that is an error.

    Raises:
        RestoreError: exit code 1, with the `OSError` as its cause; nothing of the attempt is left, and what was there
            before is untouched.
    """
    target = Path(path)
    with (
        replace_atomically(target, like=like, parents=parents, overwrite=overwrite) as temporary,
        open(temporary, "xb") as file,
    ):
        file.write(data)


@contextmanager
def replace_atomically(
    target: Path, *, like: os.stat_result | None = None, parents: bool = True, overwrite: bool = True
) -> Iterator[Path]:
    """A name beside a file, for it to be written under; at the end it is synced and takes the file's name.

    Arguments and errors as for `write_atomically`; where the block fails, nothing of it is left.
    """
    temporary = temporary_path(target)
    try:
        if parents:
            target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            if like is not None:
                _make_alike(temporary, like)
            if overwrite:
                os.replace(temporary, target)
            else:
                _rename(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except (OSError, ValueError) as error:
        raise RestoreError(write_error_message(error), where=target, exit_code=1) from error


def _rename(temporary: Path, target: Path) -> None:
    """As `os.replace`, but what has its name keeps it."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise
    except OSError as error:  # FAT and some network disks know no second name for a file
        logger.debug("%s: %s", target, error)
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(target)) from error
        os.replace(temporary, target)
    else:
        temporary.unlink()


def temporary_path(target: Path) -> Path:
    """A name in a file's folder that nobody uses, and that the next run sweeps if this process is killed."""
    unique = f"{_machine()}-{os.getpid()}-{secrets.token_hex(6)}"
    return target.parent / f"{TEMPORARY_PREFIX}{unique}{TEMPORARY_SUFFIX}"


def write_error_message(error: OSError | ValueError) -> str:
    """What stands in the way of writing, in words."""
    code = getattr(error, "errno", None)
    return {
        errno.ENOSPC: "the disk is full",
        errno.EDQUOT: "the disk quota is used up",
        errno.EACCES: "no permission to write here",
        errno.EPERM: "no permission to write here",
        errno.EROFS: "this disk is read-only",
        errno.ENOENT: "there is no such folder",
        errno.ENOTDIR: "there is no such folder",
        errno.EEXIST: "a file of this name has appeared meanwhile, and is left as it is",
        errno.EISDIR: "a folder of this name is in the way",
        errno.ENAMETOOLONG: "the name is too long",
    }.get(code or 0, f"cannot be written: {getattr(error, 'strerror', None) or error}")


def check_writable(folder: Path) -> None:
    """That a folder is there, or can be made, and can be written to, as far as asking tells. Writes nothing.

    Raises:
        RestoreError: exit code 2.
    """
    existing = folder
    while not os.path.lexists(existing) and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise RestoreError("is a file where a folder is needed", where=existing, hint="choose another output")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise RestoreError("no permission to write in this folder", where=existing, hint="choose another output")


def not_found_message(path: str | os.PathLike[str], kind: str) -> str:
    """What to say where there is no file or folder: a link that leads nowhere is called that.

    Args:
        path: what was asked for.
        kind: what it should have been: `file`, `folder`, ...
    """
    return "a dangling link: what it points to is not there" if os.path.islink(path) else f"there is no such {kind}"


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


def _make_alike(path: Path, like: os.stat_result) -> None:
    for make in (
        lambda: os.chmod(path, like.st_mode & 0o777),
        lambda: os.utime(path, ns=(like.st_atime_ns, like.st_mtime_ns)),
    ):
        try:
            make()
        except (OSError, OverflowError) as error:  # some disks have one or neither; the content matters more
            logger.debug("%s: %s", path, error)


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
    try:  # one that was killed stays in the table until its parent asks for it, and some never do
        with open(f"/proc/{process}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except (OSError, IndexError):  # no such table on this system
        return True
