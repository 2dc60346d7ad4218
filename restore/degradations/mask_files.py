"""Holes from mask files: a folder of masks drawn at random, or one mask for each image."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from restore.degradations.base import Params
from restore.degradations.inpainting_masks import BlankHoles
from restore.devices import to_device
from restore.errors import RestoreError
from restore.hashed_random import uniform
from restore.images import find_images, pair_key, read_mask

_PROBED_FILES = 16
_MOST_COVERAGE = 0.75  # of a folder of masks, on average; above, black is probably the hole
_FILE, _FLIP, _TURN, _TOP, _LEFT = range(5)  # columns of the table


class MaskFiles(BlankHoles):
    """Holes from the files of a folder.

    A mask is mirrored and turned at random, scaled until it covers the image (with `scale_with_image: false`, only if
    it is smaller than the image), and cropped at random. With `paired`, each image has the mask with its name and size.

    Attributes:
        folder: of the masks, searched recursively; or a `.txt` list of them, one path per line, relative to the list.
        hole: which color is the hole. The testing masks of NVIDIA's irregular mask dataset have white holes, the
            training masks (`disocclusion_img_mask`) black ones.
        paired: each image has its own mask: `x.png` or `x_mask.png` for the image `x`, in the same subfolder.
        flip, rotate: mirror and turn masks at random.
    """

    name: Literal["masks"] = "masks"
    folder: Path
    hole: Literal["white", "black"] = "white"
    paired: bool = False
    flip: bool = True
    rotate: bool = True
    max_coverage: Annotated[float, Field(gt=0, le=1)] = 1

    @model_validator(mode="after")
    def _has_masks(self) -> MaskFiles:
        try:
            files = mask_files(str(self.folder))
        except RestoreError as error:
            raise ValueError(str(error)) from error
        if not files:
            raise ValueError(f"there are no masks in {self.folder}")
        probed = files[:: max(1, len(files) // _PROBED_FILES)][:_PROBED_FILES]
        try:
            covered = float(np.mean([_read(str(path_of(self.folder, file)), self.hole).mean() for file in probed]))
        except RestoreError as error:
            raise ValueError(str(error)) from error
        if covered > _MOST_COVERAGE and not self.paired:
            other = "black" if self.hole == "white" else "white"
            raise ValueError(
                f"the masks in {self.folder} cover {covered:.0%} of the image on average; if {other} is the hole, set "
                f"hole: {other}"
            )
        return self

    def files(self) -> list[str]:
        """The masks; see `Step.files`."""
        return list(mask_files(str(self.folder)))

    def sample(self, keys: Tensor, size: tuple[int, int]) -> Params:
        """`masks`: float64[B, 5]: the file, mirrored, turned, and the place of the crop, as fractions."""
        return {"masks": self._sample_within_limits(keys, size, self._table)}

    def sample_named(self, names: Sequence[str], size: tuple[int, int]) -> Params:
        """As `sample`, for `paired`: the mask of each image by its name (relative path without suffix).

        Raises:
            RestoreError: exit code 1; an image has no mask, or several.
        """
        files = mask_files(str(self.folder))
        number = {file: at for at, file in enumerate(files)}
        table = torch.zeros(len(names), 5, dtype=torch.float64)
        for row, name in enumerate(names):
            table[row, _FILE] = (number[mask_of(self.folder, name)] + 0.5) / len(files)
        return {"masks": table}

    def apply(self, image: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        """Cut the holes; see `Step.apply`."""
        height, width = image.shape[-2:]
        masks = np.stack([self._mask(row, height, width) for row in params["masks"].tolist()])
        mask = to_device(torch.from_numpy(masks.astype(np.float32))[:, None], image.device).to(image.dtype)
        if self.paired:
            return image.masked_fill(mask > 0, self.fill), mask
        return self._filled(image, mask)

    def _table(self, keys: Tensor, size: tuple[int, int]) -> Tensor:
        return uniform(keys, 0, 5).to(torch.float64)

    def _coverage(self, table: Tensor, size: tuple[int, int], precise_above: float) -> Tensor:
        # Of the whole file: the crop may cover a little more or less.
        return torch.tensor([_read(self._file(row), self.hole).mean() for row in table.tolist()], dtype=torch.float64)

    def _file(self, row: Sequence[float]) -> str:
        files = mask_files(str(self.folder))
        return str(path_of(self.folder, files[int(row[_FILE] * len(files))]))

    def _mask(self, row: Sequence[float], height: int, width: int) -> NDArray[np.bool_]:
        mask = _read(self._file(row), self.hole)
        if self.paired:
            if mask.shape != (height, width):
                raise RestoreError(
                    f"the mask has {mask.shape[1]}×{mask.shape[0]} pixels, its image {width}×{height}",
                    where=self._file(row),
                    exit_code=1,
                )
            return mask
        if self.rotate:
            mask = np.rot90(mask, int(row[_TURN] * 4))
        if self.flip and row[_FLIP] < 0.5:
            mask = mask[:, ::-1]
        factor = max(height / mask.shape[0], width / mask.shape[1])
        mask = resized(mask, factor if self.scale_with_image else max(1.0, factor), (height, width))
        top = int(row[_TOP] * (mask.shape[0] - height + 1))
        left = int(row[_LEFT] * (mask.shape[1] - width + 1))
        return np.ascontiguousarray(mask[top : top + height, left : left + width])


def resized(mask: NDArray[np.bool_], factor: float, least: tuple[int, int]) -> NDArray[np.bool_]:
    """Scale a mask H×W. A pixel is in the hole if at least half of it is.

    Args:
        mask: True = hole.
        factor: new side / old side.
        least: (height, width) that the result has at least.
    """
    height, width = (max(low, round(side * factor)) for low, side in zip(least, mask.shape))
    if (height, width) == mask.shape:
        return mask
    way = cv2.INTER_AREA if factor < 1 else cv2.INTER_NEAREST
    scaled = cv2.resize(mask.astype(np.uint8) * 255, (width, height), interpolation=way)
    half: NDArray[np.bool_] = scaled >= 127.5
    return half


@functools.lru_cache(maxsize=8)
def mask_files(folder: str) -> tuple[str, ...]:
    """The masks of a folder, or of a `.txt` list, relative to the folder or to that of the list; sorted.

    Raises:
        RestoreError: there is no such folder or list.
    """
    if folder.endswith(".txt") and Path(folder).is_file():
        lines = Path(folder).read_text(encoding="utf-8").splitlines()
        return tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))
    return tuple(path.as_posix() for path in find_images(folder))


@functools.lru_cache(maxsize=8)
def _by_name(folder: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for file in mask_files(folder):
        found.setdefault(pair_key(file), []).append(file)
    return found


def mask_of(folder: Path, name: str) -> str:
    """The mask of an image, as in `mask_files`.

    Args:
        folder: of the masks.
        name: relative path of the image without suffix.

    Raises:
        RestoreError: exit code 1; there is none, or several.
    """
    known = _by_name(str(folder))
    found = known.get(pair_key(f"{name}.x")) or known.get(pair_key(f"{name}_mask.x")) or []
    if len(found) != 1:
        what = "no mask" if not found else f"several masks ({', '.join(found)})"
        raise RestoreError(f"{what} for the image {name}", where=folder, exit_code=1)
    return found[0]


def path_of(folder: Path, file: str) -> Path:
    """The path of one of `mask_files`."""
    return (folder.parent if folder.suffix == ".txt" else folder) / file


@functools.lru_cache(maxsize=4096)
def _packed(file: str, hole: str) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    mask = read_mask(file, invert=hole == "black") >= 0.5
    return np.packbits(mask, axis=1), (mask.shape[0], mask.shape[1])


def _read(file: str, hole: str) -> NDArray[np.bool_]:
    """A mask file, H×W, True = hole. Thousands of them are kept in memory, with one bit per pixel."""
    bits, (_, width) = _packed(file, hole)
    return np.unpackbits(bits, axis=1, count=width).astype(bool)


def read_mask_file(folder: Path, name: str, hole: str = "white") -> NDArray[np.bool_]:
    """The mask of an image by its name (see `mask_of`), H×W, True = hole.

    Raises:
        RestoreError: exit code 1; there is none, there are several, or it cannot be read.
    """
    return _read(str(path_of(folder, mask_of(folder, name))), hole)
