"""Finding training images, splitting off the validation set, and reading single images and pairs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from restore.data.config import Folder
from restore.data.dataset import Image
from restore.errors import RestoreError, printable
from restore.images import find_images, index_by_stem, read_rgb8
from restore.images.formats import composed

_HINT = "set data.folders=[...] to your clean photographs"


@dataclass(frozen=True)
class ImageFiles:
    """The files of one or several folders, split into training and validation.

    Attributes:
        training: files to train on, folder after folder.
        validation: files that are never trained on. The first ones are scored, whichever folder they are from.
        counts: number of files of each folder in `training`.
    """

    training: list[Path]
    validation: list[Path]
    counts: list[int]


def list_images(path: Path) -> list[Path]:
    """The images of a folder, recursively, or those of a `.txt`: one path per line, relative to the list.

    Empty lines of a list and lines that begin with `#` are ignored. Files of a list need not exist.

    Raises:
        RestoreError: `path` is neither a folder nor a list, cannot be read, or has no images.
    """
    if path.suffix.lower() == ".txt" and path.is_file():
        try:
            lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines()
        except OSError as error:
            raise RestoreError(f"cannot be read: {error.strerror}", where=path) from error
        names = [os.fsdecode(line.strip()) for line in lines if line.strip() and not line.startswith(b"#")]
        if not names:
            raise RestoreError("this list has no images", where=path)
        return [path.parent / name for name in dict.fromkeys(names)]
    if path.is_file():
        raise RestoreError("neither a folder nor a list (.txt) of images", where=path, hint=_HINT)
    if not path.is_dir():
        raise RestoreError("there is no such folder", where=path, hint=_HINT)
    found = find_images(path)
    if not found:
        raise RestoreError("no images in this folder", where=path, hint=_HINT)
    return [path / relative for relative in found]


def split_files(folders: Sequence[Folder], validation_percent: float) -> ImageFiles:
    """List the images of the folders, and set some of them aside for validation.

    A file belongs to validation if the SHA-256 of its name (without folder and suffix) falls below the percentage. So
    adding or removing files does not move the others.

    Raises:
        RestoreError: a folder does not exist, has no images, or has none left to train on.
    """
    training: list[Path] = []
    validation: list[Path] = []
    counts = []
    for folder in folders:
        found = list_images(folder.path)
        mine = [file for file in found if _hashed_share(file) >= validation_percent / 100]
        if not mine and (folder.weight is not None or len(folders) == 1):
            raise RestoreError(
                f"all {len(found)} images are set aside for validation",
                where=folder.path,
                hint="lower data.validation_percent",
            )
        training += mine
        validation += [file for file in found if _hashed_share(file) < validation_percent / 100]
        counts.append(len(mine))
    if not training:
        raise RestoreError(
            "all images are set aside for validation", where=folders[0].path, hint="lower data.validation_percent"
        )
    # By hash rather than by folder, so that every folder is represented among the first ones, which are scored.
    return ImageFiles(training, sorted(validation, key=_hashed_share), counts)


def fingerprint(files: Sequence[Path]) -> str:
    """Eight hexadecimal digits that change if a file is added, removed or renamed."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(os.fsencode(file.name) + b"\0")
    return digest.hexdigest()[:8]


def _hashed_share(file: Path) -> float:
    # Of the stem, so that a damaged JPEG and its clean PNG, or two encodings of an image, fall on the same side.
    digest = hashlib.sha256(composed(file.stem).encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def image_reader(resize: int | None = None) -> Callable[[Path], Image]:
    """A function that reads a clean image: H×W×3 uint8, or a square of side `resize`."""
    return lambda path: resize_to_square(read_rgb8(path), resize)


def match_folders(damaged: Path, clean: Path) -> dict[Path, Path]:
    """Pair the images of two folders by their relative names without suffix: damaged file -> clean file.

    Raises:
        RestoreError: a folder does not exist, two files of a folder have the same name, or a file has no counterpart.
    """
    sides = []
    for folder in (damaged, clean):
        if not folder.is_dir():
            raise RestoreError("there is no such folder", where=folder)
        index = index_by_stem(folder, find_images(folder))
        sides.append({key: folder / relative for key, relative in index.items()})
    for mine, other, folder in ((sides[0], sides[1], clean), (sides[1], sides[0], damaged)):
        unmatched = sorted(set(mine) - set(other))
        if unmatched:
            names = ", ".join(printable(name) for name in unmatched[:3]) + (", ..." if len(unmatched) > 3 else "")
            raise RestoreError(f"{len(unmatched)} image(s) have no counterpart here: {names}", where=folder)
    if not sides[0]:
        raise RestoreError("no images in this folder", where=damaged)
    return {sides[0][stem]: sides[1][stem] for stem in sorted(sides[0])}


def pair_reader(partners: dict[Path, Path], resize: int | None = None) -> Callable[[Path], Image]:
    """A function that reads a damaged file and its clean counterpart: H×W×6 uint8, damaged, then clean.

    It raises RestoreError if the two differ in size.
    """

    def read(path: Path) -> Image:
        damaged, clean = read_rgb8(path), read_rgb8(partners[path])
        if damaged.shape != clean.shape:
            sizes = f"{damaged.shape[1]}×{damaged.shape[0]} and {clean.shape[1]}×{clean.shape[0]}"
            raise RestoreError(f"the two images of a pair have different sizes: {sizes}", where=path, exit_code=1)
        return np.concatenate([resize_to_square(damaged, resize), resize_to_square(clean, resize)], axis=2)

    return read


def side_by_side_reader(direction: str, resize: int | None = None) -> Callable[[Path], Image]:
    """A function that reads pix2pix's aligned format (A left, B right): H×W×6 uint8, input, then target.

    Args:
        direction: `AtoB` (A is the input) or `BtoA`.
        resize: resize each half to a square of this side; None: no resizing.
    """

    def read(path: Path) -> Image:
        both = read_rgb8(path)
        half = both.shape[1] // 2
        if not half:
            raise RestoreError("too narrow for two images side by side", where=path, exit_code=1)
        a, b = both[:, :half], both[:, half : 2 * half]
        first, second = (a, b) if direction == "AtoB" else (b, a)
        return np.concatenate([resize_to_square(first, resize), resize_to_square(second, resize)], axis=2)

    return read


def resize_to_square(image: Image, side: int | None) -> Image:
    """Resize by bicubic interpolation, as pix2pix loads images; by area if it shrinks, against aliasing."""
    if side is None:
        return image
    shrinks = min(image.shape[:2]) > side
    resized = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    return np.asarray(resized, np.uint8)
