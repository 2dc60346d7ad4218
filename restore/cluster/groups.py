"""Which images a worker gets next: the queue of a run in the driver."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

#: Bytes of a group at most, where the sizes of files are known.
MOST_BYTES = 512 << 20
#: Images of a group at most; what a lost worker had of a group is done again by others.
MOST_IMAGES = 256
#: Images of a group at most, until it is known how long one takes.
FIRST_IMAGES = 8
#: A group is as large as to take about so long.
GROUP_SECONDS = 20.0
#: Images that a worker may have begun to read since its last report.
_READ_AHEAD = 16
#: An image is to blame when this number of workers died, each alone with it.
DEATHS_TO_BLAME = 3


class Item(Protocol):
    """An image to repair: a job, or a file of a plan over URLs. One of the latter has a `size` in bytes, too."""

    @property
    def source(self) -> str | os.PathLike[str]:
        """The path or URL of the image."""


@dataclass
class Group:
    """Images that go to a worker together.

    Attributes:
        number: of the group.
        left: images without a result, by name, in order.
        again: a worker that is gone may have written some of their outputs.
        size: how many there were.
        results: how many results were received, segments of videos included.
        begun: how many the worker has begun to read, as of its last report.
    """

    number: int
    left: dict[str, Item]
    again: bool
    size: int
    results: int = 0
    begun: int = 0

    @property
    def items(self) -> list[Item]:
        """The images without a result."""
        return list(self.left.values())


class Queue:
    """Hands out images in groups, and takes back those of workers that are gone.

    Args:
        items: the images to repair, which are read as they are handed out.
        total: how many these are.
        workers: how many workers share them.
    """

    def __init__(self, items: Iterable[Item], total: int, workers: int) -> None:
        self._items: Iterator[Item] = iter(items)
        self._total, self._workers = total, workers
        self._returned: deque[tuple[list[Item], bool]] = deque()
        self._deaths: Counter[str] = Counter()
        self._number = 0
        self._ended = False
        self._seconds_per_image: float | None = None

    def take(self, *, busy: bool = False) -> Group | None:
        """The next group; None if there is nothing to hand out, now or ever.

        Args:
            busy: the worker has other groups, so it gets no image that may end it.
        """
        alone = bool(self._returned) and len(self._returned[0][0]) == 1 and self._returned[0][1]
        if self._returned and not (busy and alone):
            items, again = self._returned.popleft()
        else:
            items, again = self._next(), False
        if not items:
            self._ended = True
            return None
        self._number += 1
        return Group(self._number, {os.fspath(item.source): item for item in items}, again, len(items))

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left to hand out; known when `take` has returned None once."""
        return self._ended and not self._returned

    def _next(self) -> list[Item]:
        each = self._seconds_per_image
        wanted, least = FIRST_IMAGES, 1
        if each is not None:
            wanted, least = int(GROUP_SECONDS / each), max(1, int(1 / each))
        # Towards the end, groups become small, so that the workers end together.
        wanted = max(least, min(wanted, self._total // (3 * self._workers)))
        items: list[Item] = []
        size = 0
        while len(items) < min(wanted, MOST_IMAGES) and size < MOST_BYTES:
            item = next(self._items, None)
            if item is None:
                break
            items.append(item)
            size += getattr(item, "size", 0)
        self._total -= len(items)
        return items

    def took(self, images: int, seconds: float) -> None:
        """Learn how long a group of images took."""
        if images:
            each = max(seconds / images, 1e-3)
            before = self._seconds_per_image
            self._seconds_per_image = each if before is None else (before + each) / 2

    def put_back(self, group: Group) -> None:
        """Take back a group that its worker has not begun, or whose worker is gone with its machine."""
        if group.left:
            self._returned.append((group.items, group.again or group.begun > 0 or group.results > 0))

    def died(self, group: Group) -> Item | None:
        """Take back a group whose worker died of it, perhaps. Images that may be the reason go alone.

        Returns:
            The image to blame: it was alone with its worker for the last time.
        """
        if group.size == 1:
            for name, item in group.left.items():
                self._deaths[name] += 1
                if self._deaths[name] >= DEATHS_TO_BLAME:
                    return item
        names = list(group.left)
        begun = max(0, group.begun - (group.size - len(names))) + _READ_AHEAD
        for name in names[:begun]:
            self._returned.append(([group.left[name]], True))
        if rest := names[begun:]:
            self._returned.append(([group.left[name] for name in rest], True))
        return None
