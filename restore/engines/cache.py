"""Networks that engines have compiled, on the disk. Losing a file costs the time to compile it again, and nothing else.

A file is a line of JSON about the network, then what the engine loads. The line holds the hash of the rest, so a
damaged file is found and made again. Files are written atomically, so several processes may share the folder.

An empty file `KEY.PROCESS.begun` lies beside them while a process tries an engine. Where one is left without its
process, the attempt ended the program.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from restore import __version__
from restore.errors import RestoreError
from restore.files import is_running, process_id, sweep_leftovers, write_atomically

#: Files that no run has used for so long are removed when another is written.
_UNUSED_SECONDS = 60 * 24 * 3600
_SUFFIX, _BEGUN = ".engine", ".begun"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """What is known of a network and an engine.

    Attributes:
        facts: for people: the network's name, the engine, the result of its check.
        payload: what the engine loads; empty: the engine failed the check.
    """

    facts: Mapping[str, Any]
    payload: bytes


def cache_folder() -> Path | None:
    """Where compiled networks are kept: `RESTORE_CACHE`, else `restore` in the user's cache directory.

    None: the user has no home, so nothing is kept.
    """
    if own := os.environ.get("RESTORE_CACHE"):
        return Path(own) / "engines"
    try:
        if os.name == "nt":
            base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local")
        elif sys.platform == "darwin":
            base = Path.home() / "Library/Caches"
        else:
            base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        return None
    return base / "restore" / "engines"


def key_of(**parts: Any) -> str:
    """The name of what depends on these parts, this package's code and PyTorch, 32 hexadecimal digits."""
    whole = {"code": _code(), "torch": torch.__version__, **parts}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:32]


def find(key: str) -> Entry | None:
    """What is stored under a key; None: nothing, or a damaged file."""
    path = _path(key)
    if path is None:
        return None
    try:
        head, _, payload = path.read_bytes().partition(b"\n")
        facts = json.loads(head)
        if facts["sha256"] != hashlib.sha256(payload).hexdigest():
            raise ValueError("damaged")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.debug("%s is not used: %s", path, error)
        return None
    with suppress(OSError):
        os.utime(path)
    return Entry(facts, payload)


def store(key: str, entry: Entry) -> None:
    """Store something under a key. A folder that cannot be written to is no error: it is compiled again next time."""
    path = _path(key)
    if path is None:
        return
    head = json.dumps({**entry.facts, "sha256": hashlib.sha256(entry.payload).hexdigest()})
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(path, head.encode() + b"\n" + entry.payload)
        _sweep(path.parent)
    except (OSError, RestoreError) as error:
        logger.debug("%s cannot be written: %s", path, error)


def forget(key: str) -> None:
    """Remove what is stored under a key, if it can be removed."""
    path = _path(key)
    if path is not None:
        with suppress(OSError):
            path.unlink()


@contextmanager
def attempt(key: str) -> Iterator[None]:
    """Remember that something is tried in the block: if that ends the program, `has_ended_a_program` says so later."""
    folder = cache_folder()
    if folder is not None:
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            (folder / f"{key}.{process_id()}{_BEGUN}").touch()
    try:
        yield
    finally:
        for marker in _ended(key):  # this process's own, and of those before it
            with suppress(OSError):
                marker.unlink()


def has_ended_a_program(key: str) -> bool:
    """Whether a process has ended while it tried this: it crashed, was killed, or the machine went down."""
    return bool(_ended(key))


def _ended(key: str) -> list[Path]:
    folder, found = cache_folder(), []
    for marker in () if folder is None else folder.glob(f"{key}.*{_BEGUN}"):
        with suppress(OSError):  # another process has removed it
            if not is_running(marker.name.split(".")[1], marker):
                found.append(marker)
    return found


def stored_bytes() -> int:
    """The size of all files."""
    folder = cache_folder()
    if folder is not None:
        with suppress(OSError):
            return sum(path.stat().st_size for path in folder.glob(f"*{_SUFFIX}"))
    return 0


def _path(key: str) -> Path | None:
    folder = cache_folder()
    return None if folder is None else folder / f"{key}{_SUFFIX}"


def _sweep(folder: Path) -> None:
    sweep_leftovers(folder)
    for path in (*folder.glob(f"*{_SUFFIX}"), *folder.glob(f"*{_BEGUN}")):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _UNUSED_SECONDS:
                path.unlink()


@cache
def _code() -> str:
    """The version of this package, and a hash of the code that computes: an installation from source may change."""
    digest = hashlib.sha256()
    package = Path(__file__).parents[1]
    for folder in ("models", "engines"):
        for path in sorted((package / folder).glob("*.py")):
            digest.update(path.read_bytes())
    return f"{__version__} {digest.hexdigest()}"
