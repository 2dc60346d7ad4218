"""Which pictures there are, and which of them belong to validation."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from restore.data.config import Folder
from restore.errors import RestoreError, printable
from restore.images import find_images, read_rgb8, stem_key

_HINT = "set data.folders=[...] to your clean photographs"


@dataclass(frozen=True)
class PictureFiles:
    """Pictures of one or several folders, split by file name, so that the split never depends on what else is there.

    Attributes:
        training: files to train on, folder after folder.
        validation: files that are never trained on; those that come first are scored, whichever folder they are from.
        counts: how many of `training` each folder gave.
    """

    training: list[Path]
    validation: list[Path]
    counts: list[int]


def list_pictures(path: Path) -> list[Path]:
    """The pictures of a folder, recursively, or those that a `.txt` names: one path per line, relative to the list.

    Empty lines of a list, and lines that begin with `#`, say nothing. What a list names need not exist.

    Raises:
        RestoreError: neither a folder nor a list, unreadable, or without pictures.
    """
    if path.suffix.lower() == ".txt" and path.is_file():
        try:
            lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines()
        except OSError as error:
            raise RestoreError(f"cannot be read: {error.strerror}", where=path) from error
        names = [os.fsdecode(line.strip()) for line in lines if line.strip() and not line.startswith(b"#")]
        if not names:
            raise RestoreError("this list names no picture", where=path)
        return [path.parent / name for name in dict.fromkeys(names)]
    if path.is_file():
        raise RestoreError("neither a folder nor a list (.txt) of pictures", where=path, hint=_HINT)
    if not path.is_dir():
        raise RestoreError("there is no such folder", where=path, hint=_HINT)
    found = find_images(path)
    if not found:
        raise RestoreError("no pictures in this folder", where=path, hint=_HINT)
    return [path / relative for relative in found]


def split_files(folders: Sequence[Folder], validation_percent: float) -> PictureFiles:
    """List the pictures of the folders and set some of them aside for validation.

    A file belongs to validation when the SHA-256 of its name (without folder and suffix) falls below the percentage:
    adding or removing other files does not move it.

    Raises:
        RestoreError: a folder is missing, holds no picture, or leaves none to train on.
    """
    training: list[Path] = []
    validation: list[Path] = []
    counts = []
    for folder in folders:
        found = list_pictures(folder.path)
        mine = [file for file in found if _share(file) >= validation_percent / 100]
        if not mine and (folder.weight is not None or len(folders) == 1):
            raise RestoreError(
                f"all {len(found)} pictures fall to validation",
                where=folder.path,
                hint="lower data.validation_percent",
            )
        training += mine
        validation += [file for file in found if _share(file) < validation_percent / 100]
        counts.append(len(mine))
    if not training:
        raise RestoreError(
            "all pictures fall to validation", where=folders[0].path, hint="lower data.validation_percent"
        )
    return PictureFiles(training, sorted(validation, key=_share), counts)


def fingerprint(files: Sequence[Path]) -> str:
    """Eight hexadecimal digits that change when a file joins, leaves, or is renamed."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(os.fsencode(file.name) + b"\0")
    return digest.hexdigest()[:8]


def _share(file: Path) -> float:
    digest = hashlib.sha256(file.stem.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


# Real pairs: two folders by relative name, or one picture that holds both side by side.


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
        for relative in find_images(folder):
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
