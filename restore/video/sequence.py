"""Image sequences: files that a number in their names puts in order, such as `frames/frame_%06d.tif`."""

from __future__ import annotations

import os
import re
from itertools import pairwise
from pathlib import Path

from restore.errors import RestoreError

#: The place of the number, as in C: `%d`, or `%06d` for six digits at least.
_PLACE = re.compile(r"%(?:0([1-9]))?d")
#: Missing stretches that are told one by one.
_MOST_TOLD = 5


def is_sequence(path: str | os.PathLike[str]) -> bool:
    """Whether a path stands for an image sequence: its name has one place for a number, and no file has this name."""
    name = Path(path).name
    return len(_PLACE.findall(name)) == 1 and name.count("%") == 1 and not os.path.lexists(path)


def number_of(pattern: Path, file: Path) -> int | None:
    """The number in the name of a file; None: it does not belong to the sequence."""
    found = _PLACE.search(pattern.name)
    assert found is not None
    before, after = pattern.name[: found.start()], pattern.name[found.end() :]
    name = file.name
    digits = name[len(before) : len(name) - len(after)]
    if not (name.startswith(before) and name.endswith(after) and digits.isascii() and digits.isdigit()):
        return None
    least = int(found[1] or 1)
    return int(digits) if len(digits) == max(least, len(str(int(digits)))) else None


def files_of(pattern: Path) -> dict[int, Path]:
    """The files of a sequence by their numbers, in order.

    Raises:
        RestoreError: exit code 2; there is none, or the folder cannot be read.
    """
    try:
        names = os.listdir(pattern.parent)
    except OSError as error:
        raise RestoreError(f"the folder cannot be listed: {error.strerror}", where=pattern.parent) from error
    files = {}
    for name in names:
        number = number_of(pattern, Path(name))
        if number is not None:
            files[number] = pattern.parent / name
    if not files:
        raise RestoreError("no file belongs to this sequence", where=pattern)
    return dict(sorted(files.items()))


def gaps(numbers: list[int]) -> str:
    """The numbers that are missing between the first and the last, in words; "" if none is."""
    missing = [(a + 1, b - 1) for a, b in pairwise(numbers) if b > a + 1]
    told = [str(first) if first == last else f"{first} to {last}" for first, last in missing[:_MOST_TOLD]]
    more = f" and {len(missing) - _MOST_TOLD} more stretches" if len(missing) > _MOST_TOLD else ""
    return ", ".join(told) + more
