"""The jobs of a run: one for each image. A plan holds millions of them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from restore.fix.log import ReasonCode
from restore.packed import BLOCK, Packed

T = TypeVar("T")

#: Why an image is skipped in a run with `--preview`.
NO_PREVIEW = "only videos have previews"

Action = Literal["repair", "unmasked", "skip", "fail"]

#: What happens to a file, in one byte.
_TO_DO, _SKIP, _FAIL = 0, 1, 2
_KINDS: dict[Action, int] = {"repair": _TO_DO, "unmasked": _TO_DO, "skip": _SKIP, "fail": _FAIL}


@dataclass(frozen=True)
class Job:
    """One image: where it comes from, where it goes, and what happens to it.

    Attributes:
        source: the image.
        target: the output; no other job has it, and it is no file that is read.
        name: the path of the image in the tree of the outputs, before `suffix` and `ext` change it.
        named: the user named this file; it was not found in a folder.
        mask: file of its mask; None: there is none, or it is the image's own alpha or detected.
        action: `repair`; `unmasked`: it has no mask and nothing to fill; `skip`, `fail`: it is not read.
        reason: why it is skipped or fails.
        code: the same for programs; see `restore.fix.log.ReasonCode`.
        format: to write; None: that of the source's content.
        video: it is a video, not an image.
        side_target: a second output: the mask that was used, or a preview; None: there is none.
        sidecars: files that go along, and their outputs.
        number: its place in the plan, from 0.
        fills: outputs with a fill of their own: `target` and `fill_targets`.
        map_target: a map of expected errors; None: there is none.
    """

    source: Path
    target: Path
    mask: Path | None = None
    action: Action = "repair"
    reason: str = ""
    code: ReasonCode = ""
    format: str | None = None
    video: bool = False
    side_target: Path | None = None
    name: Path = Path()
    named: bool = False
    sidecars: tuple[tuple[Path, Path], ...] = ()
    number: int = 0
    fills: int = 1
    map_target: Path | None = None

    @property
    def fill_targets(self) -> tuple[Path, ...]:
        """The outputs with the second fill and all others: x.2.png and so on beside x.png."""
        return tuple(map(Path, _fill_targets(os.fspath(self.target), self.fills)))

    @property
    def targets(self) -> tuple[Path, ...]:
        """All files that this job writes."""
        side = tuple(path for path in (self.side_target, self.map_target) if path is not None)
        return (self.target, *side, *(target for _, target in self.sidecars), *self.fill_targets)


class Entry(NamedTuple):
    """A job as a plan makes and keeps it: its paths are strings, and `name` has slashes on every system."""

    source: str
    target: str
    mask: str | None = None
    action: Action = "repair"
    reason: str = ""
    code: ReasonCode = ""
    format: str | None = None
    video: bool = False
    side_target: str | None = None
    name: str = "."
    named: bool = False
    sidecars: tuple[tuple[str, str], ...] = ()
    fills: int = 1
    map_target: str | None = None

    @classmethod
    def of(cls, job: Job) -> Entry:
        """The entry of a job."""
        return cls(
            os.fspath(job.source), os.fspath(job.target), None if job.mask is None else os.fspath(job.mask),
            job.action, job.reason, job.code, job.format, job.video,
            None if job.side_target is None else os.fspath(job.side_target), job.name.as_posix(), job.named,
            tuple((os.fspath(source), os.fspath(target)) for source, target in job.sidecars), job.fills,
            None if job.map_target is None else os.fspath(job.map_target),
        )  # fmt: skip

    def job(self, number: int) -> Job:
        """The job, at its place in the plan."""
        return Job(
            Path(self.source), Path(self.target), None if self.mask is None else Path(self.mask),
            self.action, self.reason, self.code, self.format, self.video,
            None if self.side_target is None else Path(self.side_target), Path(self.name), self.named,
            tuple((Path(source), Path(target)) for source, target in self.sidecars), number, self.fills,
            None if self.map_target is None else Path(self.map_target),
        )  # fmt: skip

    @property
    def settled(self) -> bool:
        """Whether it is not read, because the plan skips or fails it."""
        return _KINDS[self.action] != _TO_DO

    @property
    def sources(self) -> tuple[str, ...]:
        """All files that it reads."""
        mask = () if self.mask is None else (self.mask,)
        return (self.source, *mask, *(source for source, _ in self.sidecars))

    @property
    def fill_targets(self) -> tuple[str, ...]:
        """See `Job.fill_targets`."""
        return _fill_targets(self.target, self.fills)

    @property
    def targets(self) -> tuple[str, ...]:
        """All files that it writes."""
        side = tuple(path for path in (self.side_target, self.map_target) if path is not None)
        return (self.target, *side, *(target for _, target in self.sidecars), *self.fill_targets)


class FileList(Generic[T]):
    """Files in order, in about ten bytes each, with what a plan has decided about each.

    Attributes:
        skipped: reasons, and how many files are skipped for each.
    """

    def __init__(self) -> None:
        self._rows: Packed[tuple[Any, ...]] = Packed()
        self._kinds = bytearray()
        self.skipped: Counter[str] = Counter()

    def _add(self, row: tuple[Any, ...], action: Action, reason: str) -> None:
        self._rows.append(row)
        self._kinds.append(_KINDS[action])
        if action == "skip":
            self.skipped[reason] += 1

    def _unpacked(self, row: tuple[Any, ...], number: int) -> T:
        """The file of a row, at its place in the plan."""
        raise NotImplementedError

    def to_do(self) -> Iterator[T]:
        """The files that the plan has not settled."""
        return self._of(_TO_DO)

    def failing(self) -> Iterator[T]:
        """The files that the plan fails."""
        return self._of(_FAIL)

    def settled(self) -> Iterator[T]:
        """The files that the plan skips or fails."""
        return self._of(_SKIP, _FAIL)

    @property
    def work(self) -> int:
        """How many files the plan has not settled."""
        return self._kinds.count(_TO_DO)

    def _of(self, *kinds: int) -> Iterator[T]:
        for start in range(0, len(self), BLOCK):
            if any(kind in self._kinds[start : start + BLOCK] for kind in kinds):
                for number, row in enumerate(self._rows.block(start // BLOCK), start):
                    if self._kinds[number] in kinds:
                        yield self._unpacked(row, number)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[T]:
        return (self._unpacked(row, number) for number, row in enumerate(self._rows))

    def __getitem__(self, number: int) -> T:
        place = range(len(self))[number]
        return self._unpacked(self._rows.block(place // BLOCK)[place % BLOCK], place)


class Jobs(FileList[Job]):
    """The jobs of a plan, in order.

    Attributes:
        folders: those of all outputs.
    """

    def __init__(self, jobs: Iterable[Job | Entry] = ()) -> None:
        super().__init__()
        self.folders: dict[str, None] = {}
        for job in jobs:
            self.append(job if isinstance(job, Entry) else Entry.of(job))

    def append(self, entry: Entry) -> None:
        """Add a job at the end."""
        self._add(tuple(entry), entry.action, entry.reason)
        for target in entry.targets:
            self.folders.setdefault(split(target)[0])

    def entries(self) -> Iterator[Entry]:
        """All jobs, as a plan makes them."""
        return map(Entry._make, self._rows)

    def change(self, function: Callable[[Entry], Entry]) -> Jobs:
        """The jobs with a change to each."""
        return Jobs(map(function, self.entries()))

    @property
    def has_work(self) -> bool:
        """Whether the plan has not settled all jobs."""
        return _TO_DO in self._kinds

    def _unpacked(self, row: tuple[Any, ...], number: int) -> Job:
        return Entry._make(row).job(number)


def _fill_targets(target: str, fills: int) -> tuple[str, ...]:
    stem, suffix = os.path.splitext(target)
    return tuple(f"{stem}.{number}{suffix}" for number in range(2, fills + 1))


def split(path: str) -> tuple[str, str]:
    """The folder and the name of a path that `Path` has made; faster than `os.path.split`."""
    folder, slash, name = path.rpartition(os.sep)
    return folder or slash or os.curdir, name
