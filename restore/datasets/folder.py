"""Which pictures there are, and which of them belong to validation."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from restore.datasets.config import Folder
from restore.errors import RestoreError
from restore.images import find_pictures

_HINT = "set data.folders=[...] to your clean photographs"


@dataclass(frozen=True)
class PictureFiles:
    """Pictures of one or several folders, split by file name, so that the split never depends on what else is there.

    Attributes:
        training: files to train on, folder after folder.
        validation: files that are never trained on; those that come first are scored, whichever folder they are from.
        counts: how many of `training` each folder gave.
    """

    training: list[Path]
    validation: list[Path]
    counts: list[int]


def list_pictures(path: Path) -> list[Path]:
    """The pictures of a folder, recursively, or those that a `.txt` names: one path per line, relative to the list.

    Empty lines of a list, and lines that begin with `#`, say nothing. What a list names need not exist.

    Raises:
        RestoreError: neither a folder nor a list, unreadable, or without pictures.
    """
    if path.suffix.lower() == ".txt" and path.is_file():
        try:
            lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines()
        except OSError as error:
            raise RestoreError(f"cannot be read: {error.strerror}", where=path) from error
        names = [os.fsdecode(line.strip()) for line in lines if line.strip() and not line.startswith(b"#")]
        if not names:
            raise RestoreError("this list names no picture", where=path)
        return [path.parent / name for name in dict.fromkeys(names)]
    if path.is_file():
        raise RestoreError("neither a folder nor a list (.txt) of pictures", where=path, hint=_HINT)
    if not path.is_dir():
        raise RestoreError("there is no such folder", where=path, hint=_HINT)
    found = find_pictures(path)
    if not found:
        raise RestoreError("no pictures in this folder", where=path, hint=_HINT)
    return [path / relative for relative in found]


def split_files(folders: Sequence[Folder], validation_percent: float) -> PictureFiles:
    """List the pictures of the folders and set some of them aside for validation.

    A file belongs to validation when the SHA-256 of its name (without folder and suffix) falls below the percentage:
    adding or removing other files does not move it.

    Raises:
        RestoreError: a folder is missing, holds no picture, or leaves none to train on.
    """
    training: list[Path] = []
    validation: list[Path] = []
    counts = []
    for folder in folders:
        found = list_pictures(folder.path)
        mine = [file for file in found if _share(file) >= validation_percent / 100]
        if not mine and (folder.weight is not None or len(folders) == 1):
            raise RestoreError(
                f"all {len(found)} pictures fall to validation",
                where=folder.path,
                hint="lower data.validation_percent",
            )
        training += mine
        validation += [file for file in found if _share(file) < validation_percent / 100]
        counts.append(len(mine))
    if not training:
        raise RestoreError(
            "all pictures fall to validation", where=folders[0].path, hint="lower data.validation_percent"
        )
    return PictureFiles(training, sorted(validation, key=_share), counts)


def fingerprint(files: Sequence[Path]) -> str:
    """Eight hexadecimal digits that change when a file joins, leaves, or is renamed."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(os.fsencode(file.name) + b"\0")
    return digest.hexdigest()[:8]


def _share(file: Path) -> float:
    digest = hashlib.sha256(file.stem.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
