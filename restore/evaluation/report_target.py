"""Where `restore eval` writes its reports. Paths are validated before scoring starts, which can take hours."""

from __future__ import annotations

import json
import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from restore.errors import RestoreError
from restore.files import write_atomically, write_error_message

ReportKind = Literal["json", "csv"]

JSON_KEYS = ("convention", "summary", "images", "unmatched", "failed")
"""Top-level keys of every JSON report. An existing file with these keys is an earlier report and may be replaced."""

OPTIONAL_JSON_KEYS = ("sets", "baseline", "warnings")
"""Top-level keys that only some reports have."""

STDOUT = "-"


@dataclass(frozen=True)
class ReportTarget:
    """A validated destination for a report.

    Attributes:
        requested: the path as the user wrote it, for messages.
        path: the file with links resolved; None for standard output.
        atomic: a regular file, replaced atomically. Pipes and devices are written directly.
    """

    requested: Path
    path: Path | None
    atomic: bool

    @classmethod
    def check(cls, requested: Path, kind: ReportKind) -> ReportTarget:
        """Validate a destination without writing to it.

        Args:
            requested: a file in an existing folder (new, empty, or an earlier report of this kind), a pipe, a device,
                or `-` for standard output.
            kind: format of the report.

        Raises:
            RestoreError: exit code 2; the path is anything else, or is not writable.
        """
        if os.fspath(requested) == STDOUT:
            return cls(requested, None, False)
        path = Path(os.path.realpath(requested))
        try:
            status = os.stat(requested)
        except FileNotFoundError:
            _check_folder(requested, path.parent)
            return cls(requested, path, True)
        except (OSError, ValueError) as error:
            raise RestoreError(f"cannot be written: {getattr(error, 'strerror', error)}", where=requested) from error
        if _is_stdout(status):
            return cls(requested, None, False)
        if stat.S_ISDIR(status.st_mode):
            raise RestoreError("is a folder", where=requested, hint="name a file in it")
        if not os.access(requested, os.W_OK):
            raise RestoreError("no permission to write this file", where=requested, hint="choose another name")
        if not stat.S_ISREG(status.st_mode):
            return cls(requested, Path(requested), False)
        _check_folder(requested, path.parent)
        if status.st_size and not _is_report(path, kind):
            raise RestoreError(
                f"exists and is not a {kind.upper()} report of `restore eval`",
                where=requested,
                hint="choose another name",
            )
        return cls(requested, path, True)

    def write(self, data: bytes) -> None:
        """Write a report.

        Raises:
            RestoreError: exit code 1; the file cannot be written.
            BrokenPipeError: standard output is a pipe whose reader has gone.
        """
        if self.path is None:
            sys.stdout.flush()
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        elif self.atomic:
            write_atomically(self.path, data, parents=False)
        else:
            try:
                with open(self.path, "wb") as file:
                    file.write(data)
            except OSError as error:
                raise RestoreError(write_error_message(error), where=self.requested, exit_code=1) from error


def check_targets(json_file: Path | None, csv_file: Path | None) -> tuple[ReportTarget | None, ReportTarget | None]:
    """Validate both destinations of `restore eval`, which must differ.

    Raises:
        RestoreError: exit code 2.
    """
    json_target = None if json_file is None else ReportTarget.check(json_file, "json")
    csv_target = None if csv_file is None else ReportTarget.check(csv_file, "csv")
    if json_target is not None and csv_target is not None and json_target.path == csv_target.path:
        raise RestoreError("--json and --csv name the same place", where=csv_file, hint="choose two names")
    return json_target, csv_target


def _check_folder(requested: Path, folder: Path) -> None:
    if not folder.is_dir():
        raise RestoreError("no such folder", where=requested, hint=f"create {folder} first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise RestoreError("no permission to write in this folder", where=requested, hint="choose another")


def _is_stdout(status: os.stat_result) -> bool:
    """Whether this is the file behind standard output, under any name (such as `/dev/stdout`)."""
    try:
        return os.path.samestat(status, os.fstat(sys.stdout.fileno()))
    except (OSError, ValueError):  # standard output is closed, or not a file
        return False


def _is_report(path: Path, kind: ReportKind) -> bool:
    try:
        if kind == "csv":
            with open(path, "rb") as file:
                header = file.readline(1000).rstrip(b"\r\n")
            return header.startswith(b"name,") and header.endswith(b",note")
        with open(path, "rb") as file:
            if file.read(1) != b"{":
                return False
        values = json.loads(path.read_bytes())
    except (OSError, ValueError):  # unreadable, or not JSON
        return False
    return isinstance(values, dict) and set(JSON_KEYS) <= values.keys() <= {*JSON_KEYS, *OPTIONAL_JSON_KEYS}
