"""Which image a mask is named after: `x.png`, `x.jpg.png` or `x_mask.png` for `x.jpg`, in any case of letters."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from restore.errors import printable
from restore.images.formats import composed, stem_key

_ENDING = re.compile(r"[ ._-]mask$", re.IGNORECASE)


#: How names are compared, from strict to loose.
_SPELLINGS: tuple[Callable[[str], str], ...] = (str, composed, lambda name: composed(composed(name).casefold()))


def name_in_common(relative: str) -> str:
    """What an image has in common with all masks that may be named after it: folder and name without endings."""
    folder, slash, name = _SPELLINGS[-1](relative).rpartition("/")
    name = name[0] + name[1:].partition(".")[0]
    while (shorter := _ENDING.sub("", name)) != name:
        name = shorter
    return folder + slash + name


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


def pair_by_name(
    masks: Iterable[Path], images: Sequence[Path], *, beside: bool = False
) -> tuple[dict[Path, list[Path]], dict[Path, str]]:
    """Find each image's mask by its name, in the same subfolder; see `ImageNames.of_mask`.

    Args:
        masks: paths relative to the folder of the masks.
        images: paths relative to the folder of the images.
        beside: both folders are the same, and images are among `masks`.

    Returns:
        The masks of each image (none, one, or several, which is a conflict), and the masks without an image, with the
        reason. A mask whose name fits an image exactly comes before those that fit in another case of letters.
    """
    known = ImageNames(images, beside=beside)
    stems = {stem_key(image) for image in images}
    candidates: dict[Path, list[tuple[int, Path]]] = {image: [] for image in images}
    unmatched = {}
    for mask in masks:
        found, looseness = known.of_mask(mask)
        if len({stem_key(image) for image in found}) > 1:
            unmatched[mask] = f"this mask fits several images: {' and '.join(map(printable, found))}"
        elif found:
            for image in found:
                candidates[image].append((looseness, mask))
        elif not (beside and stem_key(mask) in stems):
            unmatched[mask] = "no image for this mask"
    masks_of = {}
    for image, fitting in candidates.items():
        strictest = min((looseness for looseness, _ in fitting), default=0)
        masks_of[image] = [mask for looseness, mask in fitting if looseness == strictest]
        for looseness, mask in fitting:
            if looseness > strictest:
                unmatched[mask] = f"not used, because the name of {printable(masks_of[image][0])} fits better"
    return masks_of, unmatched
