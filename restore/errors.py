"""The exception for errors that the user can correct."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from typing import Any


class RestoreError(Exception):
    """An error that the user can correct. The command line prints it as one line, without a traceback.

    Args:
        what: what failed, as a sentence without a full stop.
        where: the file, folder, option or config key that failed.
        hint: what to do about it.
        exit_code: 1 = something failed during the work, 2 = the command was wrong and nothing was written, 3 = training
            diverged, 4 = training lost one of its processes (see `restore --help`).
    """

    def __init__(
        self,
        what: str,
        *,
        where: str | os.PathLike[str] | None = None,
        hint: str | None = None,
        exit_code: int = 2,
    ) -> None:
        self.what = what
        self.where = None if where is None else printable(where)
        self.hint = hint
        self.exit_code = exit_code
        super().__init__(what)

    def __str__(self) -> str:
        line = self.what if self.where is None else f"{self.where}: {self.what}"
        return line if self.hint is None else f"{line}; {self.hint}"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickling, for errors that cross from a worker process; the default cannot pass keyword arguments."""
        return _rebuild, (type(self), self.what, self.where, self.hint, self.exit_code)


def _rebuild(kind: type[RestoreError], what: str, where: str | None, hint: str | None, exit_code: int) -> RestoreError:
    return kind(what, where=where, hint=hint, exit_code=exit_code)


def printable(path: str | os.PathLike[str]) -> str:
    """A path as text that prints on one line of any terminal: undecodable bytes and control characters are escaped."""
    text = os.fsdecode(os.fspath(path))
    with suppress(UnicodeEncodeError):  # half a surrogate pair, as JSON and Windows allow, is escaped below
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def did_you_mean(name: str, known: Iterable[str], *, list_known: bool = True, cutoff: float = 0.6) -> str:
    """A hint for a name that is not known, to use as the `hint` of a `RestoreError`.

    Args:
        name: what the user wrote.
        known: the names that exist, in the order in which they are listed.
        list_known: list the known names after the nearest one; they are always listed if none is near.
        cutoff: similarity in [0, 1] from which a name counts as near; see `difflib.get_close_matches`.

    Returns:
        `did you mean 'photo'? known: inpaint, photo`, or `known: inpaint, photo` if no name is near.
    """
    import difflib  # imported here: errors are rare, and this module is loaded by every command

    names = list(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=cutoff)
    suggestion = [f"did you mean {one!r}?" for one in near]
    listed = [f"known: {', '.join(names)}"] if list_known or not near else []
    return " ".join(suggestion + listed)
