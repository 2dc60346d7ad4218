"""Where a report may be written: checked before the scoring, so that no hour's work ends at a closed door."""

from __future__ import annotations

import json
import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from restore.errors import RestoreError
from restore.files import why_not_written, write_atomically

Kind = Literal["json", "csv"]

JSON_KEYS = ("convention", "summary", "images", "unmatched", "failed")
"""The keys of every report as JSON; by them an earlier one is known, which a new one may replace."""

FURTHER_JSON_KEYS = ("sets", "baseline")
"""Those of some reports."""

STDOUT = "-"


@dataclass(frozen=True)
class ReportTarget:
    """A place that a report can be written to.

    Attributes:
        given: as the user named it.
        path: the file, links resolved; None: standard output.
        whole: it is a regular file, or will be one: it is there complete, or as it was. Others (pipes, devices) are
            written straight.
    """

    given: Path
    path: Path | None
    whole: bool

    @classmethod
    def check(cls, given: Path, kind: Kind) -> ReportTarget:
        """Look, and write nothing.

        Args:
            given: a file in a folder that is there, new, empty, or an earlier report of this kind; a pipe or a
                device; or `-` for standard output.
            kind: which report.

        Raises:
            RestoreError: exit code 2; it is something else, or cannot be written to.
        """
        if os.fspath(given) == STDOUT:
            return cls(given, None, False)
        path = Path(os.path.realpath(given))
        try:
            found = os.stat(given)
        except FileNotFoundError:
            _check_folder(given, path.parent)
            return cls(given, path, True)
        except (OSError, ValueError) as error:
            raise RestoreError(f"cannot be written: {getattr(error, 'strerror', error)}", where=given) from error
        if _is_stdout(found):
            return cls(given, None, False)
        if stat.S_ISDIR(found.st_mode):
            raise RestoreError("is a folder", where=given, hint="name a file in it")
        if not os.access(given, os.W_OK):
            raise RestoreError("no permission to write this file", where=given, hint="choose another name")
        if not stat.S_ISREG(found.st_mode):
            return cls(given, Path(given), False)
        _check_folder(given, path.parent)
        if found.st_size and not _is_report(path, kind):
            raise RestoreError(
                f"exists, and is no {kind.upper()} report of `restore eval`", where=given, hint="choose another name"
            )
        return cls(given, path, True)

    def write(self, data: bytes) -> None:
        """Write a report there.

        Raises:
            RestoreError: exit code 1; it cannot be written.
            BrokenPipeError: nobody reads standard output any more.
        """
        if self.path is None:
            sys.stdout.flush()
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        elif self.whole:
            write_atomically(self.path, data, parents=False)
        else:
            try:
                with open(self.path, "wb") as file:
                    file.write(data)
            except OSError as error:
                raise RestoreError(why_not_written(error), where=self.given, exit_code=1) from error


def check_targets(json_file: Path | None, csv_file: Path | None) -> tuple[ReportTarget | None, ReportTarget | None]:
    """Both targets of `restore eval`, which must not be one.

    Raises:
        RestoreError: exit code 2.
    """
    as_json = None if json_file is None else ReportTarget.check(json_file, "json")
    as_csv = None if csv_file is None else ReportTarget.check(csv_file, "csv")
    if as_json is not None and as_csv is not None and as_json.path == as_csv.path:
        raise RestoreError("--json and --csv name the same place", where=csv_file, hint="name two")
    return as_json, as_csv


def _check_folder(given: Path, folder: Path) -> None:
    if not folder.is_dir():
        raise RestoreError("there is no such folder to write into", where=given, hint=f"make {folder} first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise RestoreError("no permission to write in this folder", where=given, hint="choose another")


def _is_stdout(found: os.stat_result) -> bool:
    """Whether it is what standard output goes to, by whatever name (`/dev/stdout`, or the file behind it)."""
    try:
        return os.path.samestat(found, os.fstat(sys.stdout.fileno()))
    except (OSError, ValueError):  # closed, or no file at all
        return False


def _is_report(path: Path, kind: Kind) -> bool:
    try:
        if kind == "csv":
            with open(path, "rb") as file:
                header = file.readline(1000).rstrip(b"\r\n")
            return header.startswith(b"name,") and header.endswith(b",note")
        with open(path, "rb") as file:
            if file.read(1) != b"{":
                return False
        values = json.loads(path.read_bytes())
    except (OSError, ValueError):  # unreadable, or no JSON: then it is none of ours
        return False
    return isinstance(values, dict) and set(JSON_KEYS) <= values.keys() <= {*JSON_KEYS, *FURTHER_JSON_KEYS}
