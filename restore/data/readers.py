"""Reading training images: clean ones, pairs in two files, and pairs side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from PIL import Image as PillowImage

from restore.data.dataset import WHITE, Image, promoted
from restore.data.discovery import RULES, list_images
from restore.degradations.mask_files import read_mask_file, resized
from restore.errors import RestoreError, printable
from restore.images import find_images, index_by_stem, read_image, read_rgb8
from restore.images.conditions import (
    Condition,
    ConditionFiles,
    check_condition_size,
    condition_pixels,
    name_from_template,
)

Reader = Callable[[Path], Image]


@dataclass(frozen=True)
class ReadAs:
    """How pixels are read.

    Attributes:
        rules: see `RULES`.
        gray: one channel instead of three.
        float_range: (black, white) of float images; None: (0, white), with white as `DecodedImage` says.
        on_event: called with a line where white was guessed.
    """

    rules: int = RULES
    gray: bool = False
    float_range: tuple[float, float] | None = None
    on_event: Callable[[str], None] = lambda line: None


_AS_USUAL = ReadAs()
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


def read_pixels(path: Path, how: ReadAs = _AS_USUAL) -> Image:
    """Read an image, upright, without alpha.

    Returns:
        H×W×3, sRGB, or H×W×1 (gray; of a color image, its luma): uint8; uint16 if the file has more than 8 bits; or
        float32 in [0, 1] if it holds floats.
    """
    if how.rules == 1:
        return _in_channels(read_rgb8(path), gray=how.gray)
    image = read_image(path)
    if image.pixels.dtype == np.uint8:
        pixels = read_rgb8(path) if image.profile is not None else np.ascontiguousarray(image.pixels)
        return _in_channels(pixels, gray=how.gray, is_gray=image.gray)
    if image.pixels.dtype == np.float32:
        if how.float_range is not None:
            image = replace(image, alpha=None).with_range(*how.float_range)
        elif image.white != 1:
            how.on_event(f"{printable(path)}: {image.white:g} is taken as white; set data.float_range to choose it")
    values = _in_channels(np.clip(np.nan_to_num(image.to_srgb()), 0, 1), gray=how.gray, is_gray=image.gray)
    if image.pixels.dtype == np.float32 and how.rules >= 3:
        return values
    deep: Image = np.rint(values * 65535).astype(np.uint16)
    return deep


def _in_channels(pixels: Image, *, gray: bool, is_gray: bool = False) -> Image:
    """H×W×1 (`gray`) or H×W×3, from either; `is_gray`: the channels are equal, if there are several."""
    if not gray:
        return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels
    if pixels.shape[2] == 1 or is_gray:
        return np.ascontiguousarray(pixels[:, :, :1])
    luma = (pixels.astype(np.float32) @ _LUMA)[:, :, None]
    return luma if pixels.dtype == np.float32 else np.rint(luma).astype(pixels.dtype)


def image_reader(resize: int | None = None, how: ReadAs = _AS_USUAL) -> Reader:
    """A function that reads a clean image, or a square of side `resize`; see `read_pixels`."""
    return lambda path: resize_to_square(read_pixels(path, how), resize, how.rules)


def match_pairs(damaged: Path, clean: Path, name_template: str = "{}") -> dict[Path, Path]:
    """Pair the images of two folders by their relative names without suffix, or two lists line by line.

    Args:
        damaged: a folder, or a `.txt` list of images.
        clean: likewise, of the same kind.
        name_template: name of a damaged image without suffix, where `{}` stands for that of the clean one: `{}x4`
            pairs `0001x4.png` with `0001.png`. Not for lists.

    Returns:
        damaged file -> clean file, by name; or in the order of the lists.

    Raises:
        RestoreError: a folder or list does not exist, two files of a folder have the same name, a file has no
            counterpart, or two lists differ in length.
    """
    if damaged.is_file() or clean.is_file():
        return _match_lists(damaged, clean)
    sides = []
    for folder in (damaged, clean):
        if not folder.is_dir():
            raise RestoreError("there is no such folder", where=folder)
        index = index_by_stem(folder, find_images(folder))
        sides.append({key: folder / relative for key, relative in index.items()})
    partners = {name_from_template(key, name_template): key for key in sides[1]}
    unmatched = (
        (sorted(set(sides[0]) - set(partners)), clean),
        (sorted(key for name, key in partners.items() if name not in sides[0]), damaged),
    )
    for names, folder in unmatched:
        if names:
            listed = ", ".join(printable(name) for name in names[:3]) + (", ..." if len(names) > 3 else "")
            raise RestoreError(f"{len(names)} image(s) have no counterpart here: {listed}", where=folder)
    if not sides[0]:
        raise RestoreError("no images in this folder", where=damaged)
    return {sides[0][stem]: sides[1][partners[stem]] for stem in sorted(sides[0])}


def _match_lists(damaged: Path, clean: Path) -> dict[Path, Path]:
    for path, other in ((damaged, clean), (clean, damaged)):
        if not path.exists():
            raise RestoreError("there is no such list", where=path)
        if not path.is_file():
            raise RestoreError("this is a folder, and the other a list", where=path, hint=f"make a list for {other}")
    sides = [list_images(path, repeats=True) for path in (damaged, clean)]
    if len(sides[0]) != len(sides[1]):
        raise RestoreError(
            f"has {len(sides[0])} images, {printable(clean)} has {len(sides[1])}",
            where=damaged,
            hint="two lists are paired line by line",
        )
    repeated = len(sides[0]) - len(set(sides[0]))
    if repeated:
        raise RestoreError(f"{repeated} images are there more than once", where=damaged, hint="one line per pair")
    return dict(zip(*sides))


def pair_reader(partners: Mapping[Path, Path], resize: int | None = None, how: ReadAs = _AS_USUAL) -> Reader:
    """A function that reads a damaged file and its clean counterpart: H×W×6 (gray: 2), damaged, then clean.

    It raises RestoreError if the two differ in size.
    """

    def read(path: Path) -> Image:
        damaged, clean = read_pixels(path, how), read_pixels(partners[path], how)
        if damaged.shape != clean.shape:
            sizes = f"{damaged.shape[1]}×{damaged.shape[0]} and {clean.shape[1]}×{clean.shape[0]}"
            raise RestoreError(f"the two images of a pair have different sizes: {sizes}", where=path, exit_code=1)
        both = promoted([resize_to_square(side, resize, how.rules) for side in (damaged, clean)])
        return np.concatenate(both, axis=2)

    return read


def side_by_side_reader(direction: str, resize: int | None = None, how: ReadAs = _AS_USUAL) -> Reader:
    """A function that reads pix2pix's aligned format (A left, B right): H×W×6 (gray: 2), input, then target.

    Args:
        direction: `AtoB` (A is the input) or `BtoA`.
        resize: resize each half to a square of this side; None: no resizing.
        how: how pixels are read.
    """

    def read(path: Path) -> Image:
        both = read_pixels(path, how)
        half = both.shape[1] // 2
        if not half:
            raise RestoreError("too narrow for two images side by side", where=path, exit_code=1)
        a, b = both[:, :half], both[:, half : 2 * half]
        first, second = (a, b) if direction == "AtoB" else (b, a)
        return np.concatenate([resize_to_square(side, resize, how.rules) for side in (first, second)], axis=2)

    return read


def resize_to_square(image: Image, side: int | None, rules: int = RULES) -> Image:
    """Resize H×W×3 or H×W×1 as pix2pix loads images: Pillow's BICUBIC, which filters along each axis as it shrinks.

    uint16 and float32 are filtered in float32, one channel at a time, because Pillow resizes no 16-bit colors.
    """
    if side is None or image.shape[:2] == (side, side):
        return image
    if rules == 1:
        shrinks = min(image.shape[:2]) > side
        resized = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
        return np.asarray(resized, np.uint8).reshape(side, side, -1)
    bicubic = PillowImage.Resampling.BICUBIC
    if image.dtype == np.uint8:
        whole = PillowImage.fromarray(np.ascontiguousarray(image if image.shape[2] > 1 else image[:, :, 0]))
        return np.asarray(whole.resize((side, side), bicubic)).reshape(side, side, -1)
    channels = [PillowImage.fromarray(image[:, :, c].astype(np.float32)) for c in range(image.shape[2])]
    values = np.stack([np.asarray(channel.resize((side, side), bicubic)) for channel in channels], axis=2)
    values = values.clip(0, WHITE[image.dtype.name])
    return values if image.dtype == np.float32 else np.rint(values).astype(image.dtype)


def with_conditions(
    read: Reader,
    conditions: Sequence[tuple[ConditionFiles, Condition]],
    names: Mapping[Path, str],
    resize: int | None,
) -> Reader:
    """A function that reads an image as `read` does, with its condition images before the other channels.

    Args:
        read: see there.
        conditions: the kinds of condition images, in order.
        names: of the images.
        resize: as for `read`.
    """

    def read_all(path: Path) -> Image:
        image = read(path)
        parts = []
        for files, condition in conditions:
            found = files.read(names[path], partial(read_image, path))
            place = files.file_of(names[path]) or path
            part = resize_to_square(condition_pixels(found, condition, place), resize)
            check_condition_size(part.shape[:2], image.shape[:2], place)
            parts.append(part)
        return np.concatenate(promoted([*parts, image]), axis=2)

    return read_all


def with_labels(read: Reader, names: Mapping[Path, str], classes: Sequence[str]) -> Reader:
    """A function that reads an image as `read` does, with the number of its class / 255 as one channel before it.

    Args:
        read: see there.
        names: of the images, which begin with their class.
        classes: in the order of their numbers.
    """

    def read_both(path: Path) -> Image:
        image = read(path)
        white = 1 if image.dtype == np.float32 else WHITE[image.dtype.name]
        label = white * classes.index(names[path].partition("/")[0]) / 255
        return np.concatenate([np.full_like(image[:, :, :1], label), image], axis=2)

    return read_both


def with_masks(read: Reader, masks: Path, names: Mapping[Path, str], resize: int | None, hole: str = "white") -> Reader:
    """A function that reads an image as `read` does, with its mask as one channel before the others.

    Args:
        read: see there.
        masks: a folder; see `restore.degradations.mask_files.mask_of`.
        names: of the images.
        resize: as for `read`.
        hole: which color of a mask is the hole.
    """

    def read_both(path: Path) -> Image:
        image = read(path)
        mask = read_mask_file(masks, names[path], hole)
        if resize is not None:
            mask = resized(mask, resize / max(mask.shape), (resize, resize))
        if mask.shape != image.shape[:2]:
            raise RestoreError(
                f"the mask has {mask.shape[1]}×{mask.shape[0]} pixels, its image {image.shape[1]}×{image.shape[0]}",
                where=path,
                exit_code=1,
            )
        white = image.dtype.type(WHITE[image.dtype.name])
        return np.concatenate([mask[:, :, None].astype(image.dtype) * white, image], axis=2)

    return read_both
