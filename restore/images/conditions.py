"""Condition images: what a network sees beside an image, such as a depth map."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from restore.errors import RestoreError
from restore.images.formats import find_images, index_by_stem, pair_key
from restore.images.image import DecodedImage
from restore.images.read import read_image

INFRARED = "infrared"


@dataclass(frozen=True)
class Condition:
    """A kind of condition images, as a network takes them.

    Attributes:
        name: for messages: the last part of its path in the training config.
        channels: 1 or 3.
        value_range: (black, white) of float files; None: as they are read.
    """

    name: str
    channels: int
    value_range: tuple[float, float] | None = None

    def __str__(self) -> str:
        return f"{self.name} ({self.channels} channel{'s' if self.channels > 1 else ''})"


class ConditionFiles:
    """Where the condition images of one kind are.

    Args:
        where: a folder, with `x.png` for the image `x`; a path whose last part has `{}` in place of the image's name:
            `depth/{}_depth`; one file for all images; or `infrared`: the infrared channel of the image's own file.

    Raises:
        RestoreError: there is no such file or folder, or two files of the folder have the same name.
    """

    def __init__(self, where: str | os.PathLike[str]) -> None:
        self.where = os.fspath(where)
        self._files: dict[str, Path] = {}
        self._template, folder = "{}", Path(self.where)
        if "{}" in folder.name:
            folder, self._template = folder.parent, folder.name
        self._folder = folder
        if self.where == INFRARED or folder.is_file():
            return
        if not folder.is_dir():
            raise RestoreError("there is no such folder", where=folder)
        self._files = {key: folder / file for key, file in index_by_stem(folder, find_images(folder)).items()}

    def file_of(self, name: str) -> Path | None:
        """The file for an image; None for its own infrared channel.

        Args:
            name: relative path of the image without suffix.

        Raises:
            RestoreError: exit code 1; there is none.
        """
        if self.where == INFRARED:
            return None
        if self._folder.is_file():
            return self._folder
        found = self._files.get(name_from_template(name, self._template))
        if found is None:
            raise RestoreError(f"no condition image for the image {name}", where=self.where, exit_code=1)
        return found

    def read(self, name: str, image: Callable[[], DecodedImage]) -> DecodedImage:
        """The condition image of an image.

        Args:
            name: see `file_of`.
            image: reads the image itself; called for its infrared channel.

        Raises:
            RestoreError: exit code 1; there is none, or it cannot be read.
        """
        file = self.file_of(name)
        if file is not None:
            return read_image(file)
        infrared = image().infrared
        if infrared is None:
            raise RestoreError("has no infrared channel", where=name, exit_code=1)
        return infrared


def name_from_template(name: str, template: str) -> str:
    """The relative path without suffix that a template gives for an image's: `city/a`, `{}_depth` -> `city/a_depth`."""
    folder, slash, last = name.rpartition("/")
    return pair_key(f"{folder}{slash}{template.replace('{}', last)}.x")


def condition_pixels(found: DecodedImage, condition: Condition, where: str | os.PathLike[str]) -> np.ndarray:
    """The values of a condition image, as they are in the file: profiles are ignored.

    Returns:
        H×W×channels: uint8, uint16, or float32 in [0, 1].

    Raises:
        RestoreError: exit code 1; it has more channels than the network takes.
    """
    pixels = found.pixels
    if pixels.dtype == np.float32:
        ranged = found if condition.value_range is None else found.with_range(*condition.value_range)
        pixels = np.clip(ranged.values(), 0, 1)
    if pixels.shape[2] == condition.channels:
        return np.ascontiguousarray(pixels)
    if pixels.shape[2] == 1:
        return np.repeat(pixels, condition.channels, axis=2)
    raise RestoreError(f"has {pixels.shape[2]} channels, but {condition} is expected", where=where, exit_code=1)


def as_unit(pixels: np.ndarray) -> np.ndarray:
    """Values of any of the three depths as float32 in [0, 1]."""
    if pixels.dtype == np.float32:
        return pixels
    unit: np.ndarray = np.divide(pixels, np.float32(np.iinfo(pixels.dtype).max), dtype=np.float32)
    return unit


def check_condition_size(found: tuple[int, int], size: tuple[int, int], where: str | os.PathLike[str]) -> None:
    """Check that a condition image has the size of its image, both (H, W).

    Raises:
        RestoreError: exit code 1.
    """
    if found != size:
        raise RestoreError(
            f"the condition image has {found[1]}×{found[0]} pixels, its image {size[1]}×{size[0]}",
            where=where,
            exit_code=1,
        )
