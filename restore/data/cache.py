"""Where decoded pictures wait, and crops of them: on the device, in memory, or nowhere.

The three give the same crops, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotInTime
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from restore.data.dataset import TrainingImages
from restore.data.sampler import CropSpec, FolderSampler
from restore.devices import to_device
from restore.errors import RestoreError

_ATTEMPTS = 10_000
_READ_SECONDS = 300.0


class Store(Protocol):
    """Pictures, and square crops of them.

    Attributes:
        device: where crops are handed out.
        threads: that decode while a step runs; 0: nothing is decoded any more.
        nbytes: held in all.
    """

    device: torch.device
    threads: int
    nbytes: int

    def __len__(self) -> int:
        """How many pictures are drawn from."""

    def start(self, wish: CropSpec) -> Callable[[], Tensor]:
        """Ask for crops; what is returned waits for them and gives uint8, B×C×side×side, on the device.

        Calling that raises RestoreError where a file has vanished, or cannot be read in time.
        """


class HeldStore:
    """What the two stores that hold their pictures share: which one a key draws.

    Args:
        usable: bool per file: whether a picture is held for it.
        shares: which file a key draws.
    """

    def __init__(self, usable: Sequence[bool], shares: FolderSampler) -> None:
        self.threads = 0
        self._usable = torch.tensor(list(usable))
        self._held_as = self._usable.long().cumsum(0) - 1
        self._shares = shares

    def __len__(self) -> int:
        return int(self._usable.sum())

    def _pick(self, keys: Tensor) -> Tensor:
        index = self._shares.pick(keys, 0)
        for attempt in range(1, _ATTEMPTS):
            wrong = ~self._usable[index]
            if not wrong.any():
                return self._held_as[index]
            index = torch.where(wrong, self._shares.pick(keys, attempt), index)
        raise _hardly_any()


class DeviceStore(HeldStore):
    """Pictures of any sizes in one flat uint8 tensor on the device, from which a batch of crops is one gather.

    Args:
        pictures: those of the usable files: H×W×C uint8 each, C the same for all; taken up one by one.
        usable, shares: see `HeldStore`.
        device: where they are held.
    """

    def __init__(
        self, pictures: Iterable[np.ndarray], usable: Sequence[bool], shares: FolderSampler, device: torch.device
    ) -> None:
        super().__init__(usable, shares)
        self.device = device
        sizes, flat = [], []
        for picture in pictures:
            sizes.append(picture.shape[:2])
            flat.append(torch.from_numpy(np.ascontiguousarray(picture)).view(-1, picture.shape[2]).to(device))
        self._heights, self._widths = torch.tensor(sizes).unbind(1)
        areas = self._heights * self._widths
        self._starts = areas.cumsum(0) - areas
        self._pixels = torch.cat(flat)
        self.nbytes = self._pixels.numel()
        flat.clear()
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.synchronize(device)  # from here on, any stream may read them

    def start(self, wish: CropSpec) -> Callable[[], Tensor]:
        """See `Store`."""
        return lambda: self._gather(wish)

    def _gather(self, wish: CropSpec) -> Tensor:
        index = self._pick(wish.keys)
        heights, widths = self._heights[index, None], self._widths[index, None]
        y, x = (
            (wish.place[:, i : i + 1] * (length - wish.side + 1).clamp(min=1)).long()
            for i, length in enumerate((heights, widths))
        )
        # Mirrors and half turns run the lines backwards; quarter turns exchange rows and columns.
        rows = mirrored(y + _line(wish.turn >= 2, wish.side), heights)
        columns = mirrored(x + _line(((wish.turn == 1) | (wish.turn == 2)) ^ wish.flip, wish.side), widths)
        lines = to_device(torch.stack([self._starts[index, None] + rows * widths, columns]), self.device)
        where = lines[0, :, :, None] + lines[1, :, None, :]
        quarter = wish.turn % 2 == 1
        if quarter.any():
            where = torch.where(to_device(quarter, self.device)[:, None, None], where.transpose(1, 2), where)
        crops = self._pixels.index_select(0, where.reshape(-1))
        return crops.view(*where.shape, -1).permute(0, 3, 1, 2)


class MemoryStore(HeldStore):
    """Pictures of any sizes as uint8 in memory, from which crops are copied to the device.

    Args:
        pictures, usable, shares: see `DeviceStore`.
        device: where crops are handed out.
    """

    def __init__(
        self, pictures: Iterable[np.ndarray], usable: Sequence[bool], shares: FolderSampler, device: torch.device
    ) -> None:
        super().__init__(usable, shares)
        self.device = device
        self._pictures = [np.ascontiguousarray(picture) for picture in pictures]
        self.nbytes = sum(picture.nbytes for picture in self._pictures)

    def start(self, wish: CropSpec) -> Callable[[], Tensor]:
        """See `Store`."""

        def crops() -> Tensor:
            index = self._pick(wish.keys).tolist()
            return _together([cut(self._pictures[held], wish, i) for i, held in enumerate(index)], self.device)

        return crops


class FileStore:
    """Pictures that stay in their files: decoded for every step by threads, judged when they are first met.

    Args:
        intake: the files.
        shares: which file a key draws.
        device: where crops are handed out.
        threads: that decode.
    """

    def __init__(self, intake: TrainingImages, shares: FolderSampler, device: torch.device, threads: int) -> None:
        self.device, self.threads, self.nbytes = device, threads, 0
        self._intake, self._shares = intake, shares
        self._pool = ThreadPoolExecutor(threads, "decode")

    def __len__(self) -> int:
        return sum(self._intake.usable(i) for i in range(len(self._intake.files)))

    def start(self, wish: CropSpec) -> Callable[[], Tensor]:
        """See `Store`."""
        waiting = [self._pool.submit(self._crop, wish, i) for i in range(len(wish.keys))]
        return lambda: _together([_in_time(crop) for crop in waiting], self.device)

    def _crop(self, wish: CropSpec, i: int) -> np.ndarray:
        for attempt in range(_ATTEMPTS):
            index = int(self._shares.pick(wish.keys[i : i + 1], attempt))
            picture = self._intake.take(index)
            if picture is not None:
                return cut(picture, wish, i)
            if attempt % 100 == 99 or attempt < 3:
                self._intake.refuse_nothing_left(next(f for f in self._shares.folders if index in f))
        raise _hardly_any()


def cut(picture: np.ndarray, wish: CropSpec, i: int) -> np.ndarray:
    """Crop `i` of a wish out of its picture H×W×C: side×side×C, mirrored beyond the lower and right edges."""
    side = wish.side
    y, x = (int(float(wish.place[i, axis]) * max(picture.shape[axis] - side + 1, 1)) for axis in (0, 1))
    if y + side <= picture.shape[0] and x + side <= picture.shape[1]:
        crop = picture[y : y + side, x : x + side]
    else:
        rows, columns = (
            mirrored(start + torch.arange(side), torch.tensor(length)).numpy()
            for start, length in ((y, picture.shape[0]), (x, picture.shape[1]))
        )
        crop = picture[np.ix_(rows, columns)]
    crop = crop[:, ::-1] if wish.flip[i] else crop
    return np.rot90(crop, int(wish.turn[i]))


def mirrored(position: Tensor, size: Tensor) -> Tensor:
    """Positions beyond 0..size-1 reflected back inside (without repeating the edge)."""
    period = (2 * (size - 1)).clamp(min=1)
    position = position.remainder(period)
    return torch.where(position < size, position, period - position)


def _line(backwards: Tensor, side: int) -> Tensor:
    forwards = torch.arange(side)
    return torch.where(backwards[:, None], side - 1 - forwards, forwards)


def _together(crops: Sequence[np.ndarray], device: torch.device) -> Tensor:
    return to_device(torch.from_numpy(np.stack(crops)), device).permute(0, 3, 1, 2)


def _in_time(crop: Future[np.ndarray]) -> np.ndarray:
    try:
        return crop.result(_READ_SECONDS)
    except NotInTime:
        raise RestoreError(
            f"no picture came within {_READ_SECONDS:.0f} s", hint="does the disk answer?", exit_code=1
        ) from None


def _hardly_any() -> RestoreError:
    return RestoreError(
        "almost no image can be used", hint="see data.patch, data.small_images and data.near_duplicates"
    )
