"""Long lists in little memory, for plans of millions of files."""

from __future__ import annotations

import marshal
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Generic, TypeVar

T = TypeVar("T")

BLOCK = 1000
"""Items that are compressed together."""

_DIGEST_BYTES = 16


class Packed(Generic[T]):
    """A list of strings, or of tuples of simple values, that is only appended to.

    Paths in the order of their folders take about a tenth of their length.
    """

    def __init__(self, items: Iterable[T] = ()) -> None:
        self._blocks: list[bytes] = []
        self._last: list[T] = []
        for item in items:
            self.append(item)

    def append(self, item: T) -> None:
        """Add an item at the end."""
        self._last.append(item)
        if len(self._last) == BLOCK:
            self._blocks.append(zlib.compress(marshal.dumps(self._last), 1))
            self._last = []

    def block(self, number: int) -> list[T]:
        """The items from `number * BLOCK` on, at most `BLOCK`."""
        if number == len(self._blocks):
            return self._last
        items: list[T] = marshal.loads(zlib.decompress(self._blocks[number]))  # noqa: S302: from `append`
        return items

    def __len__(self) -> int:
        return len(self._blocks) * BLOCK + len(self._last)

    def __iter__(self) -> Iterator[T]:
        for number in range(len(self._blocks) + 1):
            yield from self.block(number)


class Hashes:
    """The hashes of many strings, in 8 bytes each: to find the few that may be equal, and compare only those."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._values = array("q", map(hash, texts))

    def add(self, text: str) -> None:
        """Add a string."""
        self._values.append(hash(text))

    def repeated(self) -> set[int]:
        """The hashes that occur more than once."""
        import numpy as np

        values = np.sort(np.asarray(self._values))
        return set(values[1:][values[1:] == values[:-1]].tolist())

    def shared(self, other: Hashes) -> set[int]:
        """The hashes that occur in both."""
        import numpy as np

        return set(np.intersect1d(np.asarray(self._values), np.asarray(other._values)).tolist())


class Names:
    """A set of many strings, in 16 bytes each, that is only asked whether it holds one.

    It keeps their BLAKE2 digests. Two strings have the same with a chance of 1 to 2¹²⁸.
    """

    def __init__(self, names: Iterable[str]) -> None:
        import numpy as np

        digests = bytearray()
        for name in names:
            digests += _digest(name)
        self._digests = np.sort(np.frombuffer(digests, f"S{_DIGEST_BYTES}"))

    def __len__(self) -> int:
        return len(self._digests)

    def __contains__(self, name: str) -> bool:
        digest = _digest(name).rstrip(b"\0")  # as NumPy gives them
        place = bisect_left(self._digests, digest)
        return place < len(self) and bool(self._digests[place] == digest)


def _digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).digest()
