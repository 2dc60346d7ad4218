"""The files of an export, before they are written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from restore.errors import RestoreError


def refuse_existing(files: Sequence[Path], overwrite: bool, source: Path | None = None) -> None:
    """Refuse to replace files, unless it is asked for, and what is exported in any case.

    Raises:
        RestoreError: one of them exists, or is the source.
    """
    for file in files:
        if source is not None and file.exists() and file.samefile(source):
            raise RestoreError("is what is exported", where=file, hint="choose another name")
        if file.exists() and not overwrite:
            raise RestoreError("exists already", where=file, hint="choose another name, or add --overwrite")


def check_suffix(out: Path, suffix: str, kind: str) -> None:
    """Refuse a name that the programs that open such files would not know.

    Raises:
        RestoreError: it has another suffix.
    """
    if out.suffix.lower() != suffix:
        raise RestoreError(f"{kind} must end with {suffix}", where=out)
