"""The files of a run over URLs. A plan holds millions of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from restore.fix.jobs import Action
from restore.fix.log import ReasonCode
from restore.packed import BLOCK, Packed


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


#: What happens to a file, in one byte.
_TO_DO, _SKIP, _FAIL = 0, 1, 2


class Files:
    """Files in order, in about ten bytes each.

    Attributes:
        skipped: reasons, and how many files are skipped for each.
    """

    def __init__(self, files: Iterable[PlacedFile] = ()) -> None:
        self._rows: Packed[tuple[Any, ...]] = Packed()
        self._kinds = bytearray()
        self.skipped: Counter[str] = Counter()
        for file in files:
            self.append(file)

    def append(self, file: PlacedFile) -> None:
        """Add a file at the end."""
        *values, verdict = file
        self._rows.append((*values, None if verdict == REPAIR else tuple(verdict)))
        self._kinds.append(_TO_DO if file.is_work else _SKIP if verdict.action == "skip" else _FAIL)
        if verdict.action == "skip":
            self.skipped[verdict.reason] += 1

    @property
    def work(self) -> int:
        """How many are to be read."""
        return self._kinds.count(_TO_DO)

    def to_do(self) -> Iterator[PlacedFile]:
        """The files that are to be read."""
        return self._of(_TO_DO)

    def settled(self) -> Iterator[PlacedFile]:
        """The files that the plan skips or fails."""
        return self._of(_SKIP, _FAIL)

    def failing(self) -> Iterator[PlacedFile]:
        """The files that the plan fails."""
        return self._of(_FAIL)

    def _of(self, *kinds: int) -> Iterator[PlacedFile]:
        for start in range(0, len(self), BLOCK):
            if any(kind in self._kinds[start : start + BLOCK] for kind in kinds):
                for number, row in enumerate(self._rows.block(start // BLOCK), start):
                    if self._kinds[number] in kinds:
                        yield _file(row)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[PlacedFile]:
        return map(_file, self._rows)

    def __getitem__(self, number: int) -> PlacedFile:
        place = range(len(self))[number]
        return _file(self._rows.block(place // BLOCK)[place % BLOCK])


def _file(row: tuple[Any, ...]) -> PlacedFile:
    *values, verdict = row
    return PlacedFile._make((*values, REPAIR if verdict is None else Verdict(*verdict)))
