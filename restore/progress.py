"""How far a computation is, told from wherever the work is done: whoever wants to know watches from outside."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import accumulate


@dataclass
class _Watch:
    tell: Callable[[float], object]
    told: float = 0.0


#: The watch, and the part of the whole that is being done: where it starts, and its share.
_current: ContextVar[tuple[_Watch, float, float] | None] = ContextVar("restore_progress", default=None)


@contextmanager
def watching(tell: Callable[[float], object]) -> Iterator[None]:
    """Have the progress of the block reported, as far as it runs in this thread.

    Args:
        tell: called with the share that is done, in [0, 1]; it never falls.
    """
    token = _current.set((_Watch(tell), 0.0, 1.0))
    try:
        yield
    finally:
        _current.reset(token)


@contextmanager
def part(start: float, share: float) -> Iterator[None]:
    """What the block does is this share of the part around it, from `start` on."""
    now = _current.get()
    if now is None:
        yield
        return
    watch, first, size = now
    token = _current.set((watch, first + size * start, size * share))
    try:
        yield
        done(1.0)
    finally:
        _current.reset(token)


def shares(weights: Sequence[float]) -> list[tuple[float, float]]:
    """The arguments of `part` for each of several parts, as long as its weight says."""
    total = sum(weights) or 1.0
    starts = [0.0, *accumulate(weights)]
    return [(start / total, weight / total) for start, weight in zip(starts, weights)]


def done(share: float) -> None:
    """This share of the part is done."""
    now = _current.get()
    if now is None:
        return
    watch, first, size = now
    reached = min(first + size * share, 1.0)
    if reached > watch.told:
        watch.told = reached
        watch.tell(reached)
