"""Training batches in order, prepared ahead while a step runs, and the validation set.

Batches are prepared ahead if images are read from files, and on a GPU. With images in memory on a CPU, this would save
nothing: a batch takes 3 to 6 % of a step, on the same cores, so batches are made on demand. On a GPU, a thread makes
them on a separate stream, for several steps at a time, because small batches cost more in kernel launches than in
arithmetic.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from restore.data.cache import CropStore
from restore.data.dataset import Image
from restore.data.layout import Layout
from restore.data.sampler import CropPlan, in_unit_range, resize_crops, sample_crops
from restore.degradations import Degradation
from restore.degradations.resize import downscaled
from restore.devices import to_device
from restore.hashed_random import key
from restore.linear_light import from_linear, to_linear


@dataclass(frozen=True)
class Batch:
    """B images on one device.

    Attributes:
        damaged: float32, B×3×H×W, [0, 1], sRGB or in linear light; gray: B×1×H×W.
        mask: float32, B×1×H×W, 1 = repair.
        clean: as `damaged`; for a network that enlarges, larger by its factor.
        keys: int64[B], from which everything random about each image follows. On the CPU, or with the rest on a CUDA
            device, so that a step does not wait for a transfer.
        condition: float32, B×K×H×W, [0, 1]: the condition images; None: there are none.
        degraded: the clean images with drawn damage, where `damaged` ones belong to others; None: there are none.
    """

    damaged: Tensor
    mask: Tensor
    clean: Tensor
    keys: Tensor
    condition: Tensor | None = None
    degraded: Tensor | None = None

    @property
    def seen(self) -> Tensor:
        """What a network takes as its image: the damaged one, and the condition behind it."""
        return self.damaged if self.condition is None else torch.cat([self.damaged, self.condition], 1)

    def map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """A batch of what a function makes of each tensor."""
        more = (None if x is None else function(x) for x in (self.condition, self.degraded))
        return Batch(function(self.damaged), function(self.mask), function(self.clean), function(self.keys), *more)

    def parts(self, count: int) -> list[Batch]:
        """The same images in `count` equal batches, in order; nothing is copied.

        Raises:
            ValueError: B is not a multiple of `count`.
        """
        size, rest = divmod(len(self.keys), count)
        if rest:
            raise ValueError(f"{len(self.keys)} images in {count} parts")

        def part(i: int) -> Batch:
            return self.map(lambda tensor: tensor[i * size : (i + 1) * size])

        return [part(i) for i in range(count)]


class Source:
    """Makes training batches. Every image follows from (seed, step, index) alone.

    Args:
        store: the images.
        plan: how crops are sampled. All parts of an image are cropped alike.
        damage: degrades clean images, on their device; None for pairs, and where masks are all the damage.
        fingerprint: of the files; see `restore.data.discovery.fingerprint`.
        layout: the channels of the images.
        linear: batches are in linear light.
        shrink: clean images are made smaller by this factor before they are degraded; 1: they are not.
    """

    def __init__(
        self,
        store: CropStore,
        plan: CropPlan,
        damage: Degradation | None,
        fingerprint: str = "",
        layout: Layout = Layout(),  # noqa: B008 - frozen
        *,
        linear: bool = False,
        shrink: int = 1,
    ) -> None:
        self.store, self.plan, self.damage, self.fingerprint = store, plan, damage, fingerprint
        self.layout, self.linear, self.shrink = layout, linear, shrink

    @property
    def stores(self) -> tuple[CropStore, ...]:
        """Where the images are; `store` is the first."""
        return (self.store,)

    def batch(self, seed: int, step: int, count: int, first: int = 0) -> Batch:
        """The images `first` … `first + count - 1` of a step.

        Raises:
            RestoreError: a file disappeared, or cannot be read in time.
        """
        return self.start(seed, [step], count, first)()[0]

    def start(self, seed: int, steps: Sequence[int], count: int, first: int = 0) -> Callable[[], list[Batch]]:
        """Start to decode the images of several steps.

        Returns:
            A function that waits for them, degrades them together, and returns one batch per step; see `batch`.
        """
        specs = [sample_crops(self.plan, seed, step, count, first) for step in steps]
        crops = [self.store.start(spec) for spec in specs]

        def finish() -> list[Batch]:
            images = torch.cat([resize_crops(get(), self.plan.patch) for get in crops])
            return self._batch(images, torch.cat([spec.keys for spec in specs])).parts(len(steps))

        return finish

    def _batch(self, images: Tensor, keys: Tensor) -> Batch:
        keys_there = to_device(keys, images.device) if images.is_cuda else keys
        batch = degrade(images, keys, self.damage, self.layout, self.shrink)
        return replace(in_linear_light(batch) if self.linear else batch, keys=keys_there)


def enlarged(image: Tensor, like: Tensor) -> Tensor:
    """A small image, B×C×h×w, at the size of another: each pixel is repeated. Itself if it has that size."""
    size = (like.shape[-2], like.shape[-1])
    return image if image.shape[-2:] == size else F.interpolate(image, size, mode="nearest-exact")


_FILL = 0.5  # of holes that are cut into clean images, as `BlankHoles.fill`


def degrade(images: Tensor, keys: Tensor, damage: Degradation | None, layout: Layout, shrink: int = 1) -> Batch:
    """A batch from what a store holds.

    Args:
        images: float32, B×C×H×W.
        keys: int64[B] on the CPU.
        damage: degrades clean images; None for pairs and for masks alone.
        layout: the channels of `images`.
        shrink: clean images are made smaller by this factor first. H and W divide by it, and the layout is one image.
    """
    mask, condition, damaged, clean = layout.split(images)
    if shrink > 1:
        damaged = downscaled(clean, shrink)
    if mask is not None:
        mask = (mask >= 0.5).to(images.dtype)
        if not layout.pair:
            damaged = damaged.masked_fill(mask > 0, _FILL)
    if damage is not None:
        sampled = damage.sample(keys, (damaged.shape[-2], damaged.shape[-1]))
        damaged, more = damage.apply(damaged, sampled)
        mask = more if mask is None else torch.maximum(mask, more)
    if mask is None:
        mask = torch.zeros_like(damaged[:, :1])
    return Batch(damaged, mask, clean, keys, condition)


def in_linear_light(batch: Batch) -> Batch:
    """The batch with its images, but not their conditions, decoded from sRGB."""
    damaged, clean = (_per_image(to_linear, image) for image in (batch.damaged, batch.clean))
    return replace(batch, damaged=damaged, clean=clean)


def in_srgb(batch: Batch) -> Batch:
    """The reverse of `in_linear_light`."""
    return replace(batch, damaged=from_linear(batch.damaged), clean=from_linear(batch.clean))


def _per_image(function: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    # One by one on the CPU, where the last bits of an image depend on its position in the batch.
    if images.device.type != "cpu":
        return function(images)
    return torch.cat([function(image) for image in images.split(1)])


_VALIDATION = 3  # first part of a key, different from those of training (see sampler.py)


def validation_batches(
    names: Sequence[str],
    images: Sequence[Image],
    size: int,
    multiple: int,
    damage: Degradation | None,
    device: torch.device,
    layout: Layout,
    *,
    linear: bool = False,
    shrink: int = 1,
) -> list[Batch]:
    """The fixed validation set: center crops, one image per batch, degraded by a key of the file's name alone.

    Args:
        names: of the files; see `restore.data.discovery.named_images`.
        images: their content (see `restore.data.dataset.Image`), no side shorter than `multiple`.
        size: maximum side of the crop.
        multiple: sides of the crop are multiples of this.
        damage: None for real pairs.
        device: of the batches.
        layout: the channels of `images`.
        linear: the batches are in linear light.
        shrink: see `degrade`; `size` and `multiple` are those of the clean images.
    """
    batches = []
    for name, image in zip(names, images):
        height, width = (min(size, side) // multiple * multiple for side in image.shape[:2])
        top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
        crop = image[top : top + height, left : left + width].copy()  # the image may be read-only
        pixels = torch.from_numpy(crop).permute(2, 0, 1)[None]
        pixels = in_unit_range(pixels.to(device))
        keys = torch.tensor([key(_VALIDATION, name)])
        batch = degrade(pixels, keys, damage, layout, shrink)
        batches.append(in_linear_light(batch) if linear else batch)
    return batches


# Images that are degraded at a time on a GPU: enough to keep it busy, and to stay ahead of small steps.
_GROUP_PIXELS = 256 * 128 * 128
_MAX_GROUP_STEPS = 256
_SWITCH_SECONDS = 1e-4


def steps_per_group(source: Source, count: int) -> int:
    """How many steps of `count` images are degraded at a time."""
    if source.store.device.type != "cuda":
        return 1
    return max(1, min(_MAX_GROUP_STEPS, _GROUP_PIXELS // (count * source.plan.patch**2)))


class BatchStream(Iterator[Batch]):
    """The batches of the steps `start`, `start + 1`, ..., each with the images `first` … `first + count - 1`.

    A step's batch is the same, bit for bit, wherever a run starts or resumes. Endless; a context manager, because
    threads must be stopped.

    Args:
        source: makes the batches.
        seed: of the run.
        start: the first step.
        count: images per step in this process.
        first: index of this process's first image in the batch of all processes.
    """

    def __init__(self, source: Source, *, seed: int, start: int, count: int, first: int = 0) -> None:
        self._source, self._seed, self._count, self._first = source, seed, count, first
        self._device = source.store.device
        self._cuda = self._device.type == "cuda"
        self._group_steps = steps_per_group(source, count)
        # Files: as many images ahead as keep all threads busy, and one batch. Cached images: one batch on a GPU.
        images = self._group_steps * count
        self._groups_ahead = 2 + -(-2 * source.store.threads // images) if source.store.threads else 1 + self._cuda
        self._worker = ThreadPoolExecutor(1, "batches") if self._cuda else None
        self._stream = cast(Any, torch.cuda.Stream)(self._device) if self._cuda else None  # untyped in PyTorch
        # Both threads launch kernels. Python switches between them every 5 ms by default; the training thread would
        # wait that long for its turn.
        self._switch_seconds = sys.getswitchinterval()
        if self._cuda:
            sys.setswitchinterval(min(self._switch_seconds, _SWITCH_SECONDS))
        self._making = threading.Lock()
        self._waiting: deque[Callable[[], list[Batch]]] = deque()
        self._ready: deque[Batch] = deque()
        # Steps are grouped by number (0 to n - 1, n to 2 n - 1, ...) wherever the run starts, because on a GPU the last
        # bits of an image depend on the images that it is degraded with.
        self._next_group, self._skip = divmod(start, self._group_steps)

    def __next__(self) -> Batch:
        """The next step's batch.

        Raises:
            RestoreError: a file disappeared, or cannot be read in time.
        """
        if not self._ready:
            self._request_groups()
            self._ready.extend(self._waiting.popleft()())
            for _ in range(self._skip):
                self._ready.popleft()
            self._skip = 0
        return self._ready.popleft()

    def __enter__(self) -> BatchStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop preparing batches."""
        sys.setswitchinterval(self._switch_seconds)
        if self._worker is not None:
            self._worker.shutdown(wait=True, cancel_futures=True)
        self._waiting.clear()

    def paused(self) -> AbstractContextManager[Any]:
        """A context in which no batch is made on the device."""
        return self._making

    def _request_groups(self) -> None:
        while len(self._waiting) < self._groups_ahead:
            steps = range(self._next_group * self._group_steps, (self._next_group + 1) * self._group_steps)
            self._next_group += 1
            finish = self._source.start(self._seed, steps, self._count, self._first)
            self._waiting.append(self._in_worker(finish) if self._cuda else finish)

    def _in_worker(self, finish: Callable[[], list[Batch]]) -> Callable[[], list[Batch]]:
        assert self._worker is not None
        made: Future[tuple[list[Batch], Any]] = self._worker.submit(self._make, finish)

        def wait() -> list[Batch]:
            batches, done = made.result()
            current = torch.cuda.current_stream(self._device)
            current.wait_event(done)

            def in_use(tensor: Tensor) -> Tensor:
                tensor.record_stream(current)  # keeps the allocator from reusing its memory too early
                return tensor

            for batch in batches:
                batch.map(in_use)
            return batches

        return wait

    def _make(self, finish: Callable[[], list[Batch]]) -> tuple[list[Batch], Any]:
        with self._making, torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            batches = finish()
            return batches, torch.cuda.current_stream(self._device).record_event()
