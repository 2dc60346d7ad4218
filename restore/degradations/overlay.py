"""Shapes of real or drawn dirt from a folder of images, laid over an image: hairs, dust, lint, scratches, stains."""

from __future__ import annotations

import functools
import math
import os
from pathlib import Path
from typing import Annotated, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import field_validator
from torch import Tensor

from restore.degradations.base import Params, Probability, Range, ScaledStep, within
from restore.degradations.drawing import visible_pixels
from restore.degradations.painted import dirt_tone, log_count, log_uniform, paper_tone
from restore.devices import to_device
from restore.hashed_random import fold_in, uniform, uniform_range

_FAINTEST = 0.06  # coverage below which a pixel does not belong to a shape
_EXTENSIONS = (".png", ".webp", ".tif", ".tiff", ".bmp", ".jpg", ".jpeg")


class Overlay(ScaledStep):
    """Shapes from a folder: the gray of a shape's image is its coverage, white = opaque.

    Attributes:
        folder: of the shapes, searched recursively; or a `.txt` list of them, one path per line, relative to the list.
            Every subfolder is as likely as the others, whatever it holds.
        count: shapes per image, log-uniform.
        zoom: size of a shape relative to its file, log-uniform.
        opacity: maximum opacity.
        bright: fraction of images whose shapes are bright.
        light, shade: luminance of bright and of dark shapes, in [0, 1].
    """

    name: Literal["overlay"] = "overlay"
    folder: Path
    count: Annotated[Range, within(0, 60, whole=True)] = (1, 6)
    zoom: Annotated[Range, within(0.05, 10)] = (0.4, 1.4)
    opacity: Annotated[Range, within(0.01, 1)] = (0.3, 1.0)
    bright: Probability = 0.5
    light: Annotated[Range, within(0, 1)] = (0.75, 1.0)
    shade: Annotated[Range, within(0, 1)] = (0.0, 0.25)

    has_mask = True

    @field_validator("folder")
    @classmethod
    def _has_shapes(cls, folder: Path) -> Path:
        if not any(_shapes(str(folder))):
            raise ValueError(f"there are no images of shapes in {folder}")
        return folder

    def files(self) -> list[str]:
        """The shapes; see `Step.files`."""
        base = self.folder.parent if self.folder.suffix == ".txt" else self.folder
        return [Path(os.path.relpath(file, base)).as_posix() for kind in _shapes(str(self.folder)) for file in kind]

    def sample(self, keys: Tensor, size: tuple[int, int]) -> Params:
        """`places` [B, N, 8]: kind and file as fractions, middle x, y in pixels, angle, zoom, mirrored, opacity (0:
        none); `tone` [B, 3]."""
        n = int(self.count[1])
        there = torch.arange(n) < log_count(keys, 0, self.count)[:, None]
        # One or two kinds of dirt per image.
        kinds = torch.where(uniform(keys, 1, n) < 0.6, uniform(keys, 2, 1), uniform(keys, 3, 1))
        x, y = (uniform(keys, 4 + i, n) * side - 0.5 for i, side in enumerate((size[1], size[0])))
        zoom = log_uniform(keys, 6, self.zoom, 1) * uniform_range(keys, 7, (-0.4, 0.4), n).exp() * self.scale(size)
        opacity = log_uniform(keys, 8, self.opacity, 1) * uniform_range(keys, 9, (0.7, 1.0), n) * there
        is_bright = uniform(keys, 10, 1) < self.bright
        own = fold_in(keys, 11)
        tone = torch.where(is_bright, paper_tone(own, 0, self.light, (0.0, 0.08)), dirt_tone(own, 10, self.shade))
        columns = [kinds, uniform(keys, 12, n), x, y, 2 * math.pi * uniform(keys, 13, n), zoom]
        return {
            "places": torch.stack([*columns, (uniform(keys, 14, n) < 0.5).to(torch.float64), opacity], 2),
            "tone": tone,
        }

    def apply(self, image: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        """Lay the shapes over; see `Step.apply`."""
        height, width = image.shape[-2:]
        cover = np.stack([self._cover(places, height, width) for places in params["places"].numpy()])
        amount = to_device(torch.from_numpy(cover)[:, None], image.device)
        amount = amount.masked_fill_(amount < _FAINTEST, 0.0)
        tone = to_device(params["tone"].to(torch.float32), image.device)[..., None, None]
        damaged = image + amount * (tone - image)
        mask = visible_pixels(image, damaged, amount > 0, window=31)
        return torch.where(mask, damaged, image), mask.to(image.dtype)

    def _cover(self, places: NDArray[np.float64], height: int, width: int) -> NDArray[np.float32]:
        canvas = np.zeros((height, width), np.float32)
        kinds = _shapes(str(self.folder))
        for kind, which, x, y, angle, zoom, mirrored, opacity in places:
            if opacity == 0:
                continue
            files = kinds[int(kind * len(kinds))]
            shape = _read_shape(files[int(which * len(files))])
            # Shrunk by averaging first, or thin shapes would have holes.
            if zoom < 0.7:
                sides = [max(1, round(side * zoom)) for side in shape.shape[::-1]]
                shape = cv2.resize(shape, sides, interpolation=cv2.INTER_AREA).astype(np.uint8)
                zoom = 1.0
            c, s = zoom * math.cos(angle), zoom * math.sin(angle)
            flip = -1.0 if mirrored else 1.0
            mx, my = (shape.shape[1] - 1) / 2, (shape.shape[0] - 1) / 2
            matrix = np.array([[c * flip, -s, x - c * flip * mx + s * my], [s * flip, c, y - s * flip * mx - c * my]])
            drawn = cv2.warpAffine(shape, matrix, (width, height), flags=cv2.INTER_LINEAR)
            np.maximum(canvas, drawn.astype(np.float32) * np.float32(opacity / 255), out=canvas)
        return canvas


@functools.lru_cache(maxsize=8)
def _shapes(folder: str) -> list[list[str]]:
    """The files of every kind (subfolder), each sorted by name."""
    if folder.endswith(".txt"):
        base = Path(folder)
        lines = base.read_text(encoding="utf-8").splitlines() if base.is_file() else []
        files = [os.path.join(base.parent, line.strip()) for line in lines if line.strip()]
    else:
        files = [os.path.join(at, name) for at, _, names in os.walk(folder) for name in names]
    kinds: dict[str, list[str]] = {}
    for file in sorted(files):
        if file.lower().endswith(_EXTENSIONS):
            kinds.setdefault(os.path.dirname(file), []).append(file)
    return [kinds[kind] for kind in sorted(kinds)]


@functools.lru_cache(maxsize=4096)
def _read_shape(file: str) -> NDArray[np.uint8]:
    """The coverage of a shape, H×W, without its empty margin.

    Raises:
        ValueError: the file cannot be read.
    """
    image = cv2.imread(file, cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise ValueError(f"{file} cannot be read as the image of a shape")
    rows, columns = (np.flatnonzero((image > 12).any(axis)) for axis in (1, 0))
    if not len(rows):
        return np.zeros((1, 1), np.uint8)
    return np.ascontiguousarray(image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]).astype(np.uint8)
