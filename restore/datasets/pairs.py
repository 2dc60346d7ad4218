"""Real pairs: two folders by relative name, or one picture that holds both side by side."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from restore.errors import RestoreError, printable
from restore.images import find_pictures, read_rgb8, stem_key


def match_folders(damaged: Path, clean: Path) -> dict[Path, Path]:
    """Pictures of two folders that share their relative name without suffix: damaged file -> clean file.

    Raises:
        RestoreError: a folder is missing, two files share a name, or a picture has no partner; names are given.
    """
    sides = []
    for folder in (damaged, clean):
        if not folder.is_dir():
            raise RestoreError("there is no such folder", where=folder)
        by_stem: dict[str, Path] = {}
        for relative in find_pictures(folder):
            if stem_key(relative) in by_stem:
                raise RestoreError(f"shares its name with {by_stem[stem_key(relative)].name}", where=folder / relative)
            by_stem[stem_key(relative)] = folder / relative
        sides.append(by_stem)
    for mine, other, folder in ((sides[0], sides[1], clean), (sides[1], sides[0], damaged)):
        lonely = sorted(set(mine) - set(other))
        if lonely:
            names = ", ".join(printable(name) for name in lonely[:3]) + (", ..." if len(lonely) > 3 else "")
            raise RestoreError(f"{len(lonely)} picture(s) have no partner here: {names}", where=folder)
    if not sides[0]:
        raise RestoreError("no pictures in this folder", where=damaged)
    return {sides[0][stem]: sides[1][stem] for stem in sorted(sides[0])}


def pair_reader(partners: dict[Path, Path], resize: int | None = None) -> Callable[[Path], np.ndarray]:
    """A reader of one damaged file that gives H×W×6 uint8: damaged, then its partner.

    The reader raises RestoreError where the two differ in size.
    """

    def read(path: Path) -> np.ndarray:
        damaged, clean = read_rgb8(path), read_rgb8(partners[path])
        if damaged.shape != clean.shape:
            sizes = f"{damaged.shape[1]}×{damaged.shape[0]} and {clean.shape[1]}×{clean.shape[0]}"
            raise RestoreError(f"the two of a pair have different sizes: {sizes}", where=path, exit_code=1)
        return np.concatenate([resized(damaged, resize), resized(clean, resize)], axis=2)

    return read


def side_by_side_reader(direction: str, resize: int | None = None) -> Callable[[Path], np.ndarray]:
    """A reader of pix2pix's aligned format (A left, B right) that gives H×W×6 uint8: input, then target.

    Args:
        direction: `AtoB` (A is the input) or `BtoA`.
        resize: every half to this square; None = as it is.
    """

    def read(path: Path) -> np.ndarray:
        both = read_rgb8(path)
        half = both.shape[1] // 2
        if not half:
            raise RestoreError("too narrow to hold two pictures side by side", where=path, exit_code=1)
        a, b = both[:, :half], both[:, half : 2 * half]
        first, second = (a, b) if direction == "AtoB" else (b, a)
        return np.concatenate([resized(first, resize), resized(second, resize)], axis=2)

    return read


def picture_reader(resize: int | None = None) -> Callable[[Path], np.ndarray]:
    """A reader of one clean picture: H×W×3 uint8, to a square of side `resize` where that is given."""
    return lambda path: resized(read_rgb8(path), resize)


def resized(picture: np.ndarray, side: int | None) -> np.ndarray:
    """To a square, bicubic as pix2pix loads pictures (area where it shrinks: no aliasing); None leaves it."""
    if side is None:
        return picture
    shrinks = min(picture.shape[:2]) > side
    return cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
