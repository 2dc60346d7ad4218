"""Pairing masks with images by their names, also of millions of files."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterable
from pathlib import Path

from restore.images import IMAGE_SUFFIXES
from restore.images.formats import suffix_of, walk_files
from restore.images.mask_names import ImageNames, name_in_common, pair_by_name
from restore.packed import Packed

_TOGETHER = 10_000  # images are paired with their masks in groups of about this many, to save memory


def masks_among(names: Iterable[str], count: int) -> bytearray:
    """Which of several files are named as masks of others: 1 for each that is.

    Args:
        names: relative paths.
        count: how many.
    """
    is_mask = bytearray(count)
    for group in _alike(names, 1 + count // _TOGETHER):
        images = ImageNames([Path(name) for _, name in group], beside=True)
        for number, name in group:
            is_mask[number] = bool(images.of_mask(Path(name))[0])
    return is_mask


class PairedMasks:
    """The masks of numbered images."""

    def __init__(self, images: int) -> None:
        self._place = array("q", [-1]) * images
        self._ends = array("q", [0])
        self._paths = bytearray()
        self._several: dict[int, list[str]] = {}

    def __setitem__(self, number: int, masks: list[str]) -> None:
        if len(masks) > 1:
            self._several[number] = masks
        elif masks:
            self._place[number] = len(self._ends)
            self._paths += os.fsencode(masks[0])
            self._ends.append(len(self._paths))

    def __getitem__(self, number: int) -> list[str]:
        """Those of an image: none, one, or several, which is a conflict."""
        if (place := self._place[number]) >= 0:
            return [os.fsdecode(bytes(self._paths[self._ends[place - 1] : self._ends[place]]))]
        return self._several.get(number, [])


def pair_masks(
    folder: Path, images: Iterable[str], count: int, *, beside: bool = False
) -> tuple[PairedMasks, dict[str, str]]:
    """Find each image's mask by its name, in the same subfolder; see `pair_by_name`.

    Args:
        folder: of the masks.
        images: relative paths of the images, also of those that the user excluded; a path may occur twice.
        count: how many.
        beside: the masks are in a folder of the images.

    Returns:
        The masks of each image, by its place in `images`, and the masks without an image, with the reason.
    """
    masks = (name for name, _ in walk_files(folder) if suffix_of(name).lower() in IMAGE_SUFFIXES)
    return pair_names(masks, images, count, lambda name: os.fspath(folder / name), beside=beside)


def pair_names(
    masks: Iterable[str], images: Iterable[str], count: int, place_of: Callable[[str], str], *, beside: bool
) -> tuple[PairedMasks, dict[str, str]]:
    """As `pair_masks`, with the relative paths of the masks, and what makes their places of them."""
    paired = PairedMasks(count)
    unmatched: dict[str, str] = {}
    groups = 1 + count // _TOGETHER
    for some_images, some_masks in zip(_alike(images, groups), _alike(masks, groups)):
        names = dict.fromkeys(name for _, name in some_images)
        masks_of, strangers = pair_by_name(
            [Path(mask) for _, mask in some_masks], [Path(name) for name in names], beside=beside
        )
        for number, name in some_images:
            paired[number] = [place_of(mask.as_posix()) for mask in masks_of[Path(name)]]
        unmatched |= {place_of(mask.as_posix()): reason for mask, reason in strangers.items()}
    return paired, dict(sorted(unmatched.items()))


def _alike(names: Iterable[str], groups: int) -> list[Packed[tuple[int, str]]]:
    """Numbered paths in groups, such that an image and the masks that may have its name are in one."""
    grouped: list[Packed[tuple[int, str]]] = [Packed() for _ in range(groups)]
    for numbered in enumerate(names):
        grouped[hash(name_in_common(numbered[1])) % groups].append(numbered)
    return grouped
