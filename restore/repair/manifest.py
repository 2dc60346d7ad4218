"""The log of a run: one JSON object per file, written as it goes."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal

from restore.errors import RestoreError

Status = Literal["done", "skipped", "failed"]


@dataclass(frozen=True)
class Record:
    """What became of one file. The fields are the manifest's keys.

    Attributes:
        input, output: paths.
        status: `done`: the output is complete; `skipped`: nothing was to be done;
            `failed`: nothing was written.
        reason: why it was skipped or failed, or what was special; empty otherwise.
        seconds: wall time spent on this file alone, without waiting for its turn.
        model: the restorer's name; of several the one that filled holes; `fade` where only fading was undone; None
            where nothing repaired.
        model_sha256: of the weights' file, None for what has none.
        models: every model that took part, in order, with its hash.
        settings: the options that decide the result.
        input_sha256, output_sha256: of the files; None where there is none.
        marked_share: pixels that a mask marks, of all; None without masks.
        changed_share: pixels that differ from the input's, of all.
        warnings: what the user should know about this file.
    """

    input: str
    output: str
    status: Status
    reason: str = ""
    seconds: float = 0.0
    model: str | None = None
    model_sha256: str | None = None
    models: dict[str, str | None] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    input_sha256: str | None = None
    output_sha256: str | None = None
    marked_share: float | None = None
    changed_share: float | None = None
    warnings: list[str] = field(default_factory=list)


_FIRST_KEY = b'{"input"'


def _begins_manifest(start: bytes) -> bool:
    """Whether a file may be added to: a manifest, the beginning of one (of a run that was killed), or nothing."""
    return _FIRST_KEY.startswith(start)


class Manifest:
    """A JSON-lines file that is added to; earlier runs' lines stay. Not safe for several threads at once.

    Args:
        path: the file; `-` is standard output; None writes nothing.

    Raises:
        RestoreError: exit code 2; it cannot be written to, or holds something that is no manifest.
    """

    def __init__(self, path: Path | None) -> None:
        self._file: IO[str] | None = None
        self._closes = False
        if path is None:
            return
        if os.fspath(path) == "-":
            self._file = sys.stdout
            return
        try:
            if path.is_file():
                with open(path, "rb") as existing:
                    if not _begins_manifest(existing.read(len(_FIRST_KEY))):
                        raise RestoreError("exists and is no manifest", where=path, hint="give --log another name")
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file, self._closes = open(path, "a", encoding="utf-8"), True
        except OSError as error:
            raise RestoreError(f"the log cannot be written: {error.strerror}", where=path) from error
        if path.is_file():
            self._end_torn_line(path)

    @property
    def is_open(self) -> bool:
        """Whether anything is written at all."""
        return self._file is not None

    def _end_torn_line(self, path: Path) -> None:
        """A run that was killed may have left half a line; the next one starts on its own."""
        with open(path, "rb") as existing:
            if existing.seek(0, os.SEEK_END):
                existing.seek(-1, os.SEEK_END)
                if existing.read(1) != b"\n" and self._file is not None:
                    self._file.write("\n")

    def write(self, record: Record) -> None:
        """Add a line; it is in the system's hands when this returns."""
        if self._file is not None:
            self._file.write(json.dumps(asdict(record)) + "\n")
            self._file.flush()

    def __enter__(self) -> Manifest:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None and self._closes:
            # What could not be written was told when it was tried; closing tries again.
            with suppress(OSError):
                self._file.close()
