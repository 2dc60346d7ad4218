"""The batches of a run in order, the next ones prepared while a step runs, where that pays.

With pictures in memory on a CPU it does not: making a batch takes 3 to 6 % of a step, of the same cores. There,
batches are made when they are asked for. Files are asked for ahead everywhere. On a GPU a thread makes the next
batches on a stream of its own, several steps in one go, since small batches cost launches more than arithmetic.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from restore.data.cache import Store
from restore.data.sampler import CropPlan, make_wish, shrink
from restore.degradations import Damage
from restore.devices import to_device
from restore.hashed_random import key

# What a step of training and a pass of validation see, and where it is made.


_VALIDATION = 3  # what a key is for: apart from those of training steps


@dataclass(frozen=True)
class Batch:
    """Float32 on one device: `damaged` and `clean` B×3×H×W in [0, 1], `mask` B×1×H×W with 1 = missing.

    `keys`, int64[B], are what everything random about each image hangs on: with the rest on a CUDA device, so that a
    step waits for nothing; else on the CPU.
    """

    damaged: Tensor
    mask: Tensor
    clean: Tensor
    keys: Tensor

    def parts(self, count: int) -> list[Batch]:
        """The same images in `count` equal batches, in order; nothing is copied.

        Raises:
            ValueError: they cannot be parted equally.
        """
        size, rest = divmod(len(self.keys), count)
        if rest:
            raise ValueError(f"{len(self.keys)} images in {count} parts")
        tensors = (self.damaged, self.mask, self.clean, self.keys)
        return [Batch(*one) for one in zip(*(t.split(size) for t in tensors))]


class Source:
    """Where training batches come from; (seed, step, index) alone decide every image.

    Args:
        store: clean pictures of three channels; or pairs of six, damaged, then clean.
        plan: how crops are drawn; both halves of a pair are cut alike.
        damage: what happens to clean pictures, on their device; None for pairs.
        fingerprint: of the files; see `folder.fingerprint`.
    """

    def __init__(self, store: Store, plan: CropPlan, damage: Damage | None, fingerprint: str = "") -> None:
        self.store, self.plan, self.damage, self.fingerprint = store, plan, damage, fingerprint

    def batch(self, seed: int, step: int, count: int, first: int = 0) -> Batch:
        """Images `first` … `first + count - 1` of a step.

        Raises:
            RestoreError: a file has vanished, or cannot be read in time.
        """
        return self.start(seed, [step], count, first)()[0]

    def start(self, seed: int, steps: Sequence[int], count: int, first: int = 0) -> Callable[[], list[Batch]]:
        """`batch` for several steps, damaged together: files are asked for now; calling the result finishes them."""
        wishes = [make_wish(self.plan, seed, step, count, first) for step in steps]
        crops = [self.store.start(wish) for wish in wishes]

        def finish() -> list[Batch]:
            pixels = torch.cat([shrink(get(), self.plan.patch) for get in crops])
            return self._batch(pixels, torch.cat([wish.keys for wish in wishes])).parts(len(steps))

        return finish

    def _batch(self, pixels: Tensor, keys: Tensor) -> Batch:
        there = to_device(keys, pixels.device) if pixels.is_cuda else keys
        if self.damage is None:
            return Batch(pixels[:, :3], torch.zeros_like(pixels[:, :1]), pixels[:, 3:], there)
        damaged, mask = self.damage.apply(pixels, self.damage.sample(keys, (self.plan.patch, self.plan.patch)))
        return Batch(damaged, mask, pixels, there)


def validation_batches(
    names: Sequence[Path],
    pictures: Sequence[np.ndarray],
    size: int,
    multiple: int,
    damage: Damage | None,
    device: torch.device,
) -> list[Batch]:
    """The fixed validation set, one picture a batch: centre crops, damaged by a key of the file's name alone.

    Args:
        names, pictures: files and their H×W×3 (clean) or H×W×6 (damaged, then clean) uint8 pixels, no side shorter
            than `multiple`.
        size: largest side of the crop.
        multiple: sides are cut to a multiple of this.
        damage: None for real pairs.
        device: where the batches are made and stay.
    """
    batches = []
    for name, picture in zip(names, pictures):
        height, width = (min(size, side) // multiple * multiple for side in picture.shape[:2])
        top, left = (picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2
        cut = np.ascontiguousarray(picture[top : top + height, left : left + width])
        pixels = torch.from_numpy(cut).permute(2, 0, 1)[None].to(device).float().div_(255)
        key_ = torch.tensor([key(_VALIDATION, name.stem)])
        if damage is None:
            batches.append(Batch(pixels[:, :3], torch.zeros_like(pixels[:, :1]), pixels[:, 3:], key_))
        else:
            damaged, mask = damage.apply(pixels, damage.sample(key_, (height, width)))
            batches.append(Batch(damaged, mask, pixels, key_))
    return batches


_TOGETHER_PIXELS = 256 * 128 * 128  # damaged in one go on a GPU: enough to fill it, and to be ahead of small steps
_TOGETHER_STEPS = 256
_SWITCH_SECONDS = 1e-4


def steps_together(source: Source, count: int) -> int:
    """How many steps of `count` images are damaged in one go."""
    if source.store.device.type != "cuda":
        return 1
    return max(1, min(_TOGETHER_STEPS, _TOGETHER_PIXELS // (count * source.plan.patch**2)))


class BatchStream(Iterator[Batch]):
    """Batches of the steps `start`, `start + 1`, ..., each of the images `first` … `first + count - 1` of its step.

    Where a run begins does not change what a step sees, bit for bit. Without end; a context manager, since threads
    may have to be stopped.

    Args:
        source: where they come from.
        seed: of the run.
        start: the first step.
        count: images of this process in a step.
        first: this process's offset into the global batch.
    """

    def __init__(self, source: Source, *, seed: int, start: int, count: int, first: int = 0) -> None:
        self._source, self._seed, self._count, self._first = source, seed, count, first
        self._device = source.store.device
        self._cuda = self._device.type == "cuda"
        self._together = steps_together(source, count)
        # Files: as many images ahead as keep all threads busy, and a batch in hand. The rest: one batch in hand.
        images = self._together * count
        self._ahead = 2 + -(-2 * source.store.threads // images) if source.store.threads else 1 + self._cuda
        self._worker = ThreadPoolExecutor(1, "batches") if self._cuda else None
        self._side = torch.cuda.Stream(self._device) if self._cuda else None
        # Two threads give work to the GPU, and the one that trains must not wait for the other's turn to end.
        self._switch_seconds = sys.getswitchinterval()
        if self._cuda:
            sys.setswitchinterval(min(self._switch_seconds, _SWITCH_SECONDS))
        self._making = threading.Lock()
        self._waiting: deque[Callable[[], list[Batch]]] = deque()
        self._ready: deque[Batch] = deque()
        # Steps that are damaged together are always the same ones: 0 to n - 1, n to 2 n - 1, ...
        self._next_group, self._skip = divmod(start, self._together)

    def __next__(self) -> Batch:
        """The next step's batch.

        Raises:
            RestoreError: a file has vanished, or cannot be read in time.
        """
        if not self._ready:
            self._ask()
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
        """Drop what is being prepared."""
        sys.setswitchinterval(self._switch_seconds)
        if self._worker is not None:
            self._worker.shutdown(wait=True, cancel_futures=True)
        self._waiting.clear()

    def paused(self) -> AbstractContextManager[Any]:
        """A context in which no batch is being made on the device."""
        return self._making

    def _ask(self) -> None:
        while len(self._waiting) < self._ahead:
            steps = range(self._next_group * self._together, (self._next_group + 1) * self._together)
            self._next_group += 1
            finish = self._source.start(self._seed, steps, self._count, self._first)
            self._waiting.append(self._aside(finish) if self._cuda else finish)

    def _aside(self, finish: Callable[[], list[Batch]]) -> Callable[[], list[Batch]]:
        assert self._worker is not None
        made: Future[tuple[list[Batch], Any]] = self._worker.submit(self._make, finish)

        def wait() -> list[Batch]:
            batches, done = made.result()
            here = torch.cuda.current_stream(self._device)
            here.wait_event(done)
            for batch in batches:
                for tensor in (batch.damaged, batch.mask, batch.clean, batch.keys):
                    tensor.record_stream(here)  # its memory is not given away before this stream is through with it
            return batches

        return wait

    def _make(self, finish: Callable[[], list[Batch]]) -> tuple[list[Batch], Any]:
        with self._making, torch.cuda.device(self._device), torch.cuda.stream(self._side):
            batches = finish()
            return batches, torch.cuda.current_stream(self._device).record_event()
