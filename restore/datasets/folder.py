"""Folders of pictures, held as uint8 on the device, and crops cut from them there."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from restore.errors import RestoreError
from restore.images import find_pictures, read_rgb8


@dataclass(frozen=True)
class PictureFiles:
    """Pictures of one or several folders, split by file name, so that the split never depends on what else is there.

    Attributes:
        training: files to train on, in order.
        validation: files that are never trained on.
    """

    training: list[Path]
    validation: list[Path]


def split_files(folders: Sequence[Path], validation_percent: float) -> PictureFiles:
    """List the pictures of the folders and set some of them aside for validation.

    A file belongs to validation when the SHA-256 of its name (without folder and suffix) falls below the percentage:
    adding or removing other files does not move it.

    Raises:
        RestoreError: a folder is missing, or holds no picture.
    """
    training: list[Path] = []
    validation: list[Path] = []
    for folder in folders:
        if not folder.is_dir():
            raise RestoreError(
                "there is no such folder",
                where=folder,
                hint="set data.folders=[...] to your clean photographs",
            )
        found = find_pictures(folder)
        if not found:
            raise RestoreError("no pictures in this folder", where=folder)
        for relative in found:
            (validation if _share(relative.stem) < validation_percent / 100 else training).append(folder / relative)
    if not training:
        raise RestoreError("all pictures fall to validation", where=folders[0], hint="lower data.validation_percent")
    return PictureFiles(training, validation)


def _share(name: str) -> float:
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


class PictureStore:
    """Pictures of any sizes in one flat uint8 tensor on the device, from which a batch of crops is one gather.

    Args:
        pictures: H×W×C uint8 each, C the same for all.
        device: where they are held.
    """

    def __init__(self, pictures: Sequence[np.ndarray], device: torch.device | str = "cpu") -> None:
        self.channels = pictures[0].shape[2]
        self.heights = torch.tensor([p.shape[0] for p in pictures])
        self.widths = torch.tensor([p.shape[1] for p in pictures])
        sizes = self.heights * self.widths
        self.starts = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)[:-1]])
        flat = torch.empty(int(sizes.sum()), self.channels, dtype=torch.uint8)
        for start, size, picture in zip(self.starts.tolist(), sizes.tolist(), pictures):
            flat[start : start + size] = torch.from_numpy(np.ascontiguousarray(picture)).view(-1, self.channels)
        self.pixels = flat.to(device)

    def __len__(self) -> int:
        return len(self.heights)

    @property
    def nbytes(self) -> int:
        """Bytes held on the device."""
        return self.pixels.numel()

    def crops(self, index: Tensor, y: Tensor, x: Tensor, size: int) -> Tensor:
        """Cut square crops.

        Args:
            index: int64[B], which pictures.
            y, x: int64[B], upper left corners. Beyond the lower and right edges the picture is mirrored.
            size: side in pixels.

        Returns:
            uint8, B×C×size×size, on the device.
        """
        steps = torch.arange(size)
        rows = mirrored(y[:, None] + steps, self.heights[index, None])
        columns = mirrored(x[:, None] + steps, self.widths[index, None])
        offsets = self.starts[index, None] + rows * self.widths[index, None]
        device = self.pixels.device
        where = offsets.to(device)[:, :, None] + columns.to(device)[:, None, :]
        return self.pixels[where].permute(0, 3, 1, 2)


def mirrored(position: Tensor, size: Tensor) -> Tensor:
    """Positions beyond 0..size-1 reflected back inside (without repeating the edge)."""
    period = (2 * (size - 1)).clamp(min=1)
    position = position.remainder(period)
    return torch.where(position < size, position, period - position)


def read_pictures(
    files: Sequence[Path],
    read: Callable[[Path], np.ndarray] = read_rgb8,
    *,
    on_error: str = "skip",
    threads: int = 4,
    report: Callable[[str], None] = lambda line: None,
) -> tuple[list[Path], list[np.ndarray]]:
    """Decode files side by side.

    Args:
        files: what to read.
        read: a file -> H×W×C uint8.
        on_error: `skip` reports what cannot be read and leaves it out, `fail` raises at once.
        threads: decoding threads.
        report: called with one line per file left out.

    Returns:
        The files that could be read, and their pictures, in the order given.

    Raises:
        RestoreError: a file cannot be read and `on_error` is `fail`; or none can be read.
    """

    def attempt(path: Path) -> np.ndarray | RestoreError:
        try:
            return read(path)
        except RestoreError as error:
            return error

    good_files, pictures = [], []
    first_error: RestoreError | None = None
    with ThreadPoolExecutor(threads) as pool:
        for path, result in zip(files, pool.map(attempt, files)):
            if isinstance(result, RestoreError):
                if on_error == "fail":
                    raise result
                first_error = first_error or result
                report(f"left out: {result}")
            else:
                good_files.append(path)
                pictures.append(result)
    if not pictures and first_error is not None:
        raise RestoreError(f"none of the {len(files)} pictures can be read; the first: {first_error}")
    return good_files, pictures


def shrink(crops: Tensor, size: int) -> Tensor:
    """uint8 B×C×S×S -> float32 B×C×size×size in [0, 1], antialiased bicubic where the size differs."""
    picture = crops.float().div_(255)
    if picture.shape[-1] == size:
        return picture
    return F.interpolate(picture, size=(size, size), mode="bicubic", antialias=True, align_corners=False).clamp_(0, 1)
