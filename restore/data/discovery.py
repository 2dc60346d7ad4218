"""Finding training images, and splitting off the validation set."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from restore.data.config import Folder
from restore.errors import RestoreError
from restore.files import digest_of_names
from restore.images import find_images, pair_key
from restore.images.formats import composed

RULES = 3
"""How images are split and read. A run keeps the rules that it started with.

1: of earlier releases: the split and the damage of validation images follow from the name without the folder; images
are read with 8 bits, and resized by area where they shrink in both directions, by bicubic interpolation of the nearest
16 pixels otherwise.
2: split and damage follow from the relative path; images with more than 8 bits are read with 16, also float ones;
images are resized as by Pillow's BICUBIC.
3: float images stay float.
"""


@dataclass(frozen=True)
class ImageFiles:
    """The files of one or several folders, split into training and validation.

    Attributes:
        training: files to train on, folder after folder.
        validation: files that are never trained on. The first ones are scored, whichever folder they are from.
        counts: number of files of each folder in `training`.
        names: of all files: what the split and the damage of validation images follow from.
    """

    training: list[Path]
    validation: list[Path]
    counts: list[int]
    names: dict[Path, str] = field(default_factory=dict)


def list_images(path: Path, *, repeats: bool = False, hint: str | None = None) -> list[Path]:
    """The images of a folder, recursively, or those of a `.txt`: one path per line, relative to the list.

    Empty lines of a list and lines that begin with `#` are ignored. Files of a list need not exist. With `repeats`, a
    file that a list names twice is there twice. `hint` says which keys name the folder or list.

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
        return [path.parent / name for name in (names if repeats else dict.fromkeys(names))]
    if path.is_file():
        raise RestoreError("neither a folder nor a list (.txt) of images", where=path, hint=hint)
    if not path.is_dir():
        raise RestoreError("there is no such folder", where=path, hint=hint)
    found = find_images(path)
    if not found:
        raise RestoreError("no images in this folder", where=path, hint=hint)
    return [path / relative for relative in found]


def named_images(path: Path, rules: int = RULES, *, hint: str | None = None) -> dict[Path, str]:
    """The images of a folder or list (see `list_images`, also for `hint`), and the name of each.

    The name is the path relative to the folder, or as the list has it, without the last suffix. So a damaged JPEG and
    its clean PNG, or two encodings of an image, have one name.
    """
    files = list_images(path, hint=hint)
    if rules == 1:
        return {file: file.stem for file in files}
    if path.is_dir():
        return {file: pair_key(file.relative_to(path)) for file in files}
    return {file: _name_in_list(file, path.parent) for file in files}


def _name_in_list(file: Path, folder: Path) -> str:
    relative = file.relative_to(folder) if file.is_relative_to(folder) else file
    return pair_key(Path(*[part for part in relative.parts if part not in ("..", file.anchor)]))


def split_files(
    folders: Sequence[Folder], validation_percent: float, rules: int = RULES, *, hint: str | None = None
) -> ImageFiles:
    """List the images of the folders, and set some of them aside for validation.

    A file belongs to validation if the SHA-256 of its name (see `named_images`) falls below the percentage. So adding
    or removing files does not move the others, and files of one name in several folders fall on the same side. `hint`
    says which keys name the folders.

    Raises:
        RestoreError: a folder does not exist, has no images, or has none left to train on.
    """
    training: list[Path] = []
    validation: list[Path] = []
    names: dict[Path, str] = {}
    counts = []
    for folder in folders:
        found = named_images(folder.path, rules, hint=hint)
        for file, name in found.items():
            names.setdefault(file, name)
        mine = [file for file in found if _hashed_share(names[file]) >= validation_percent / 100]
        if not mine and (folder.weight is not None or len(folders) == 1):
            raise RestoreError(
                f"all {len(found)} images are set aside for validation",
                where=folder.path,
                hint="lower data.validation_percent",
            )
        training += mine
        validation += [file for file in found if _hashed_share(names[file]) < validation_percent / 100]
        counts.append(len(mine))
    if not training:
        raise RestoreError(
            "all images are set aside for validation", where=folders[0].path, hint="lower data.validation_percent"
        )
    # By hash rather than by folder, so that every folder is represented among the first ones, which are scored.
    return ImageFiles(training, sorted(validation, key=lambda file: _hashed_share(names[file])), counts, names)


def fingerprint(files: Sequence[Path], names: Mapping[Path, str] | None = None) -> str:
    """Eight hexadecimal digits that change if a file is added, removed or renamed.

    Args:
        files: in order.
        names: as in `ImageFiles`, so that renamed folders count; None: of the files alone, as in rules 1.
    """
    return digest_of_names(file.name if names is None else names[file] + file.suffix for file in files)


def _hashed_share(name: str) -> float:
    digest = hashlib.sha256(composed(name).encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
