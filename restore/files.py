"""Atomic file writes, and cleanup of the temporary files that killed runs leave behind."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import secrets
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from restore.errors import RestoreError, printable

#: The beginning and end of the names of temporary files, by which leftovers of killed runs are found.
TEMPORARY_PREFIX, TEMPORARY_SUFFIX = ".restore-", ".tmp"

logger = logging.getLogger(__name__)

#: The age at which temporary files of other machines, whose processes cannot be looked up, count as leftovers.
_ABANDONED_SECONDS = 24 * 3600


def write_atomically(
    path: str | os.PathLike[str],
    data: bytes,
    *,
    like: os.stat_result | None = None,
    parents: bool = True,
    overwrite: bool = True,
) -> None:
    """Write a file: to a temporary file beside it, which is synced and then renamed. The old file stays until then.

    Args:
        path: the file.
        data: its content.
        like: copy the permissions and the modification time of this status; None: those of a new file.
        parents: create missing folders.
        overwrite: replace an existing file; otherwise it is an error.

    Raises:
        RestoreError: exit code 1, with the `OSError` as its cause. The temporary file is removed, and an existing file
            is unchanged.
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
    """Yield a temporary path to write to. At the end of the block, the file is synced and renamed to `target`.

    If the block fails, the temporary file is removed. Arguments and errors are those of `write_atomically`.
    """
    temporary = temporary_path(target)
    try:
        if parents:
            _make_parents(target)
        try:
            yield temporary
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            if like is not None:
                _copy_status(temporary, like)
            if overwrite:
                os.replace(temporary, target)
            else:
                _rename_without_overwriting(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except (OSError, ValueError) as error:
        raise RestoreError(write_error_message(error), where=target, exit_code=1) from error


def _make_parents(target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        for place in reversed(target.parents):
            if os.path.lexists(place) and not place.is_dir():
                raise RestoreError(
                    folder_error_message(error),
                    where=place,
                    hint="remove or rename it, or choose another output folder",
                    exit_code=1,
                ) from error
        raise


def _rename_without_overwriting(temporary: Path, target: Path) -> None:
    """As `os.replace`, but raises `FileExistsError` if the target exists."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise
    except OSError as error:  # FAT and some network disks have no hard links
        logger.debug("%s: %s", target, error)
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(target)) from error
        os.replace(temporary, target)
    else:
        temporary.unlink()


def temporary_path(target: Path) -> Path:
    """An unused path in a file's folder. If this process is killed, the next run removes what is left there."""
    unique = f"{process_id()}-{secrets.token_hex(6)}"
    return target.parent / f"{TEMPORARY_PREFIX}{unique}{TEMPORARY_SUFFIX}"


def write_error_message(error: OSError | ValueError) -> str:
    """Why a file cannot be written, in words for the user."""
    code = getattr(error, "errno", None)
    return {
        errno.ENOSPC: "the disk is full",
        errno.EDQUOT: "the disk quota is exceeded",
        errno.EACCES: "no permission to write here",
        errno.EPERM: "no permission to write here",
        errno.EROFS: "the disk is read-only",
        errno.ENOENT: "there is no such folder",
        errno.ENOTDIR: "there is no such folder",
        errno.EEXIST: "a file with this name appeared during the run and was not overwritten",
        errno.EISDIR: "a folder with this name exists",
        errno.ENAMETOOLONG: "the file name is too long",
    }.get(code or 0, f"the file cannot be written: {getattr(error, 'strerror', None) or error}")


def user_data() -> Path:
    """The folder in the user's data directory for what outlives a run. It need not exist.

    Raises:
        RuntimeError: the user has no home, as some in containers.
    """
    if os.name == "nt":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library/Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share")
    return base / "restore"


def digest_of_names(names: Iterable[str]) -> str:
    """Eight hexadecimal digits that change if a name is added, removed or changed, or if the order changes."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(os.fsencode(name) + b"\0")
    return digest.hexdigest()[:8]


def check_writable(folder: Path) -> None:
    """Check that a folder exists or can be created, and is writable, as far as its permissions show. Writes nothing.

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


def make_folder(folder: Path) -> None:
    """Create a folder and its parents, if it does not exist.

    Raises:
        RestoreError: exit code 1: the folder cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RestoreError(folder_error_message(error), where=folder, exit_code=1) from error


def folder_error_message(error: OSError) -> str:
    """Why a folder cannot be made, in words for the user."""
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return "is a file where a folder is needed"
    return write_error_message(error)


def is_within(path: Path, folder: Path) -> bool:
    """Whether a path is a folder or below it, also through links. Neither has to exist."""
    real = Path(os.path.realpath(path))
    if not os.path.lexists(folder):
        return real.is_relative_to(os.path.realpath(folder))
    for place in (real, *real.parents):
        with suppress(OSError):
            if place.exists() and os.path.samefile(place, folder):
                return folder.is_dir()
    return False


def check_not_within(output: Path, folder: Path) -> None:
    """Check that an output folder is not an input folder or inside one, where a later run would read its files.

    Raises:
        RestoreError: exit code 2.
    """
    if is_within(output, folder):
        raise RestoreError(
            f"the output folder is {os.fsdecode(folder)}, or inside it",
            where=output,
            hint="choose another folder, because a later run would read the results as inputs",
        )


def check_unchanged(source: Path, before: os.stat_result) -> None:
    """Check that a file has the same size and time as before it was read.

    Raises:
        RestoreError: exit code 1: the file has changed.
        OSError: the file has been removed.
    """
    after = os.stat(source)
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise RestoreError("the file changed while it was read", hint="run again", exit_code=1)


def similar_path(path: Path) -> str | None:
    """The file or folder beside a missing path whose name is most like its own; None: none is alike."""
    import difflib  # imported here, as in `restore.errors`

    try:
        names = os.listdir(path.parent)
    except OSError:
        return None
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.75)
    return printable(path.parent / near[0]) if near else None


def not_found_message(path: str | os.PathLike[str], kind: str) -> str:
    """The message for a path that does not exist; it says so if the path is a link to a missing target.

    Args:
        path: the path.
        kind: what was expected there: `file`, `folder`, ...
    """
    return "a dangling link: its target does not exist" if os.path.islink(path) else f"there is no such {kind}"


def sweep_leftovers(folder: Path) -> int:
    """Remove the temporary files that killed runs left in a folder. Returns their number.

    Files of this machine go if their process has ended. Files of other machines, which may still write, go after a day.
    """
    swept = 0
    try:
        with os.scandir(folder) as listing:
            names = [name for entry in listing if (name := entry.name).startswith(TEMPORARY_PREFIX)]
    except FileNotFoundError:  # nothing was written there yet
        return 0
    for path in (folder / name for name in names if name.endswith(TEMPORARY_SUFFIX)):
        try:
            if not is_running(path.name.removeprefix(TEMPORARY_PREFIX), path):
                path.unlink()
                swept += 1
        except OSError as error:  # already removed, or owned by another user; it does no harm
            logger.debug("%s: not removed: %s", path, error)
    return swept


def remove_leftovers_of(folder: Path, process: str) -> None:
    """Remove the temporary files of a process that is gone. `process` is its `process_id()`."""
    for path in folder.glob(f"{TEMPORARY_PREFIX}{process}-*{TEMPORARY_SUFFIX}"):
        try:
            path.unlink()
        except OSError as error:  # already removed; it does no harm
            logger.debug("%s: not removed: %s", path, error)


def lock_file(file: IO[Any]) -> None:
    """Lock an open file until it is closed, or this process ends.

    Raises:
        OSError: another process has locked it, or this disk has no locks.
    """
    if os.name == "nt":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def process_id(number: int | None = None) -> str:
    """A process of this machine, as names of files hold it: `MACHINE-NUMBER`; None: this one."""
    return f"{_machine()}-{os.getpid() if number is None else number}"


def is_running(name: str, path: Path) -> bool:
    """Whether another process is at work on a file.

    Args:
        name: starts with what `process_id` returned there.
        path: the file. One of another machine, whose processes cannot be looked up, counts as left behind after a day.

    Raises:
        OSError: the file is gone, or cannot be examined.
    """
    machine, _, rest = name.partition("-")
    process = rest.partition("-")[0]
    if machine == _machine() and process.isdecimal():
        return int(process) != os.getpid() and _is_alive(int(process))
    return time.time() - path.stat().st_mtime <= _ABANDONED_SECONDS


def _copy_status(path: Path, like: os.stat_result) -> None:
    # Some disks support only one of these, or neither. The content matters more.
    try:
        os.chmod(path, like.st_mode & 0o777)
    except OSError as error:
        logger.debug("%s: permissions not copied: %s", path, error)
    try:
        os.utime(path, ns=(like.st_atime_ns, like.st_mtime_ns))
    except (OSError, OverflowError) as error:
        logger.debug("%s: modification time not copied: %s", path, error)


def _machine() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _is_alive(process: int) -> bool:
    if os.name == "nt":  # signal 0 would end the process there; besides, Windows does not remove open files
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # the process of another user
        return True
    try:  # a killed process stays in the table as a zombie until its parent waits for it, and some never do
        with open(f"/proc/{process}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except (OSError, IndexError):  # this system has no /proc
        return True
