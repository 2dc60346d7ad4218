"""Which image a mask is named after: `x.png`, `x.jpg.png` or `x_mask.png` for `x.jpg`, in any case of letters."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

from restore.images import stem_key

_ENDING = re.compile(r"[ ._-]mask$", re.IGNORECASE)


def _composed(name: str) -> str:
    """One spelling of accented letters: macOS stores é as two characters, other systems as one."""
    return unicodedata.normalize("NFC", name)


#: How names are compared, from strict to loose.
_SPELLINGS: tuple[Callable[[str], str], ...] = (str, _composed, lambda name: _composed(_composed(name).casefold()))


class ImageNames:
    """Finds images by the names of their masks.

    Args:
        images: paths relative to their folder.
        beside: the masks are in the images' own folder, where `x.png` is an image and not a mask.
    """

    def __init__(self, images: Iterable[Path], *, beside: bool) -> None:
        self._beside = beside
        self._by_stem: list[dict[str, list[Path]]] = [defaultdict(list) for _ in _SPELLINGS]
        self._by_name: list[dict[str, list[Path]]] = [defaultdict(list) for _ in _SPELLINGS]
        for image in images:
            for spelling, stems, names in zip(_SPELLINGS, self._by_stem, self._by_name):
                stems[spelling(stem_key(image))].append(image)
                names[spelling(image.as_posix())].append(image)

    def of_mask(self, mask: Path) -> tuple[list[Path], int]:
        """The images that a mask (a relative path) is named after.

        Names are compared exactly, then in any Unicode normalization, then in any case of letters. In each of these,
        `x` comes before `x.jpg` (an image's whole name), and a name as it is before one without the ending `_mask`.
        The first of these that finds images decides.

        Returns:
            The images: none, one, or several that differ only in what the comparison ignores; those that differ only in
            their suffix share a mask. And how loosely the names were compared: 0 = exactly.
        """
        stem = stem_key(mask)
        shorter = _ENDING.sub("", stem)
        for looseness, spelling in enumerate(_SPELLINGS):
            stems, names = self._by_stem[looseness], self._by_name[looseness]
            found = [] if self._beside else stems.get(spelling(stem), [])
            found = found or names.get(spelling(stem), [])
            if shorter != stem:
                found = found or stems.get(spelling(shorter), []) or names.get(spelling(shorter), [])
            if found:
                return found, looseness
        return [], 0
