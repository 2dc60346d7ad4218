"""Crops of the training images, which are decoded for every step, or cached in memory or on the device.

Crops are the same, bit for bit, wherever the images are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError

import numpy as np
import torch
from torch import Tensor

from restore.data.dataset import WHITE, Image, TrainingImages, depth_of, promoted
from restore.data.sampler import CropSpec, FolderSampler
from restore.devices import to_device
from restore.errors import RestoreError

# Draws of another file for one crop, before almost all files are considered unusable.
_MAX_ATTEMPTS = 10_000
# A network disk that hangs never returns an error.
_READ_SECONDS = 300.0


class CropStore:
    """Square crops of the training images.

    Args:
        images: the training files.
        sampler: chooses a file for each crop.
        device: where crops are returned.
        threads: that decode files while a step runs. 0 if all images are cached.
        cached: the decoded image of every file, None for those that are left out. None: decode for every step; a file
            is then checked when it is first read.

    Attributes:
        device: see above.
        threads: see above.
        nbytes: size of the cache.
    """

    def __init__(
        self,
        images: TrainingImages,
        sampler: FolderSampler,
        device: torch.device,
        *,
        threads: int = 0,
        cached: Sequence[Image | None] | None = None,
    ) -> None:
        self.device, self.threads = device, threads
        self.nbytes = sum(image.nbytes for image in cached or () if image is not None)
        self._images, self._sampler = images, sampler
        self._load = images.load if cached is None else cached.__getitem__
        self._pool = ThreadPoolExecutor(threads, "decode") if threads else None

    def __len__(self) -> int:
        """How many files are used, or may be: without a cache, files that were not read yet count."""
        return sum(self._images.is_usable(i) for i in range(len(self._images.files)))

    def start(self, spec: CropSpec) -> Callable[[], Tensor]:
        """Start to decode crops.

        Returns:
            A function that waits for the crops: B×C×side×side, on the device, in the depth of the deepest image: uint8,
            uint16 or float32. It raises RestoreError if a file disappeared, or cannot be read in time.
        """
        if self._pool is None:
            return lambda: self._stack([self._crop(spec, i, n) for i, n in enumerate(self._first_choice(spec))])
        waiting = [self._pool.submit(self._crop, spec, i, n) for i, n in enumerate(self._first_choice(spec))]
        return lambda: self._stack([_result_in_time(crop) for crop in waiting])

    def _first_choice(self, spec: CropSpec) -> list[int]:
        return [int(number) for number in self._sampler.pick(spec.keys, 0)]

    def _crop(self, spec: CropSpec, i: int, number: int) -> Image:
        for attempt in range(1, _MAX_ATTEMPTS):
            image = self._load(number)
            if image is not None:
                return crop_image(image, spec, i)
            if attempt % 100 == 0 or attempt <= 3:  # the check takes as long as there are files
                self._images.require_usable(next(f for f in self._sampler.folders if number in f))
            number = int(self._sampler.pick(spec.keys[i : i + 1], attempt))
        raise _almost_none_usable()

    def _stack(self, crops: Sequence[Image]) -> Tensor:
        return to_device(torch.from_numpy(np.stack(promoted(crops))), self.device).permute(0, 3, 1, 2)


class DeviceCropStore(CropStore):
    """Square crops of images that are cached on the device: one flat tensor per depth, from which a batch is a gather.

    Args:
        images, sampler, device: see `CropStore`.
        cached: see `CropStore`. Emptied: each image is released once it is on the device, to limit memory.
    """

    def __init__(
        self, images: TrainingImages, sampler: FolderSampler, device: torch.device, cached: list[Image | None]
    ) -> None:
        super().__init__(images, sampler, device, cached=())
        usable = torch.tensor([image is not None for image in cached])
        self._usable, self._slots = usable, usable.long().cumsum(0) - 1
        sizes, depths = [], []
        flat: list[list[Tensor]] = [[] for _ in WHITE]
        for number, image in enumerate(cached):
            cached[number] = None
            if image is not None:
                sizes.append(image.shape[:2])
                depths.append(depth_of(image))
                # PyTorch gathers int16, but not uint16; the bits are the same.
                pixels = torch.from_numpy(image.view(np.int16) if image.dtype == np.uint16 else image)
                flat[depths[-1]].append(pixels.view(-1, image.shape[2]).to(device))
        self._heights, self._widths = torch.tensor(sizes).unbind(1)
        self._depths = torch.tensor(depths)
        areas = self._heights * self._widths
        self._starts = torch.zeros_like(areas)
        for depth in range(len(flat)):
            of_depth = areas * (self._depths == depth)
            self._starts += (of_depth.cumsum(0) - of_depth) * (self._depths == depth)
        self._pixels = [torch.cat(pixels) if pixels else None for pixels in flat]
        self.nbytes = sum(pixels.nbytes for pixels in self._pixels if pixels is not None)
        flat.clear()
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.synchronize(device)  # other streams read the pixels without waiting for this one

    def start(self, spec: CropSpec) -> Callable[[], Tensor]:
        """See `CropStore.start`."""
        return lambda: self._gather(spec)

    def _gather(self, spec: CropSpec) -> Tensor:
        slot = self._choose(spec.keys)
        heights, widths = self._heights[slot, None], self._widths[slot, None]
        y, x = (
            (spec.offset[:, i : i + 1] * (length - spec.side + 1).clamp(min=1)).long()
            for i, length in enumerate((heights, widths))
        )
        # Mirrors and half turns reverse the order of columns or rows; quarter turns exchange rows and columns.
        backwards = ((spec.rotation == 1) | (spec.rotation == 2)) ^ spec.flip
        rows = reflect(y + _positions(spec.rotation >= 2, spec.side), heights)
        columns = reflect(x + _positions(backwards, spec.side), widths)
        lines = to_device(torch.stack([self._starts[slot, None] + rows * widths, columns]), self.device)
        index = lines[0, :, :, None] + lines[1, :, None, :]
        quarter = spec.rotation % 2 == 1
        if quarter.any():
            index = torch.where(to_device(quarter, self.device)[:, None, None], index.transpose(1, 2), index)
        return self._at(index, self._depths[slot]).permute(0, 3, 1, 2)

    def _at(self, index: Tensor, depths: Tensor) -> Tensor:
        """The pixels B×side×side×C at positions of the flat tensors, in the depth of the deepest image."""
        flat, deepest = index.reshape(-1), int(depths.max())
        crops: Tensor | None = None
        of_batch = depths.unique().tolist()
        for depth in of_batch:
            pixels = self._pixels[depth]
            assert pixels is not None
            # Positions of images in another depth may lie beyond the end; they are not used.
            inside = flat if len(of_batch) == 1 else flat.clamp(max=len(pixels) - 1)
            found = _in_depth(pixels.index_select(0, inside).view(*index.shape, -1), depth, deepest)
            of_depth = to_device(depths == depth, self.device)[:, None, None, None]
            crops = found if crops is None else torch.where(of_depth, found, crops)
        assert crops is not None
        return crops.to(torch.uint16) if deepest == 1 else crops

    def _choose(self, keys: Tensor) -> Tensor:
        """int64[B]: the cached image of each key, chosen as in `CropStore._crop`, but for all keys at once."""
        number = self._sampler.pick(keys, 0)
        for attempt in range(1, _MAX_ATTEMPTS):
            unusable = ~self._usable[number]
            if not unusable.any():
                return self._slots[number]
            number = torch.where(unusable, self._sampler.pick(keys, attempt), number)
        raise _almost_none_usable()


def _in_depth(pixels: Tensor, depth: int, deepest: int) -> Tensor:
    """Pixels of a flat tensor in a depth that is as deep or deeper, as `promoted` gives it; 16 bits as int32."""
    if depth == 1:
        pixels = pixels.to(torch.int32) & 0xFFFF
    if depth < deepest:
        return pixels.to(torch.int32) * 257 if deepest == 1 else pixels.float() / list(WHITE.values())[depth]
    return pixels


def crop_image(image: Image, spec: CropSpec, i: int) -> Image:
    """Crop `i` of a spec from an image H×W×C: side×side×C. Beyond the lower and right edges the image is mirrored."""
    side = spec.side
    y, x = (int(float(spec.offset[i, axis]) * max(image.shape[axis] - side + 1, 1)) for axis in (0, 1))
    if y + side <= image.shape[0] and x + side <= image.shape[1]:
        crop = image[y : y + side, x : x + side]
    else:
        rows, columns = (
            reflect(start + torch.arange(side), torch.tensor(length)).numpy()
            for start, length in ((y, image.shape[0]), (x, image.shape[1]))
        )
        crop = image[np.ix_(rows, columns)]
    crop = crop[:, ::-1] if spec.flip[i] else crop
    return np.rot90(crop, int(spec.rotation[i]))


def reflect(position: Tensor, size: Tensor) -> Tensor:
    """Reflect positions beyond 0 … size - 1 back inside, without repeating the edge."""
    period = (2 * (size - 1)).clamp(min=1)
    position = position.remainder(period)
    return torch.where(position < size, position, period - position)


def _positions(backwards: Tensor, side: int) -> Tensor:
    """int64[B, side]: 0 … side - 1, or the reverse."""
    forwards = torch.arange(side)
    return torch.where(backwards[:, None], side - 1 - forwards, forwards)


def _result_in_time(crop: Future[Image]) -> Image:
    try:
        return crop.result(_READ_SECONDS)
    except FutureTimeoutError:
        raise RestoreError(
            f"no image was read within {_READ_SECONDS:.0f} s", hint="check that the disk responds", exit_code=1
        ) from None


def _almost_none_usable() -> RestoreError:
    return RestoreError(
        "almost no image can be used", hint="see data.patch, data.small_images and data.near_duplicates"
    )
