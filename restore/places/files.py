"""The files of a run over URLs. A plan holds millions of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from restore.fix.jobs import Action, FileList
from restore.fix.log import ReasonCode


class Verdict(NamedTuple):
    """What happens to a file, as of a `Job`."""

    action: Action = "repair"
    reason: str = ""
    code: ReasonCode = ""


REPAIR = Verdict()
EXISTS = Verdict("skip", "the output exists", "output_exists")


class PlacedFile(NamedTuple):
    """A file of the plan.

    Attributes:
        root, name: the place of the input is one after the other.
        prefix: that and `name` are its path in the tree of the outputs.
        size: in bytes, if it is an object.
        mask: its mask; None: it has none, or it is not a file.
        sidecars: places of files that go along, and their names in the tree of the outputs.
        named: the user named this file.
        verdict: what happens to it.
    """

    root: str
    name: str
    prefix: str = ""
    size: int = 0
    mask: str | None = None
    sidecars: tuple[tuple[str, str], ...] = ()
    named: bool = False
    verdict: Verdict = REPAIR

    @property
    def source(self) -> str:
        """The place of the input."""
        return self.root + self.name

    @property
    def is_work(self) -> bool:
        """Whether it is to be read."""
        return self.verdict.action not in ("skip", "fail")

    @property
    def tree_name(self) -> str:
        """The path in the tree of the outputs, before suffixes change."""
        return self.prefix + self.name


class Files(FileList[PlacedFile]):
    """The files of a plan, in order."""

    def __init__(self, files: Iterable[PlacedFile] = ()) -> None:
        super().__init__()
        for file in files:
            self.append(file)

    def append(self, file: PlacedFile) -> None:
        """Add a file at the end."""
        *values, verdict = file
        row = (*values, None if verdict == REPAIR else tuple(verdict))
        self._add(row, verdict.action, verdict.reason)

    def _unpacked(self, row: tuple[Any, ...], number: int) -> PlacedFile:
        *values, verdict = row
        return PlacedFile._make((*values, REPAIR if verdict is None else Verdict(*verdict)))
