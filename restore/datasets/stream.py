"""The batches of a run in order, the next ones prepared while a step runs, where that pays.

With pictures in memory on a CPU it does not: making a batch takes 3 to 6 % of a step, of the same cores. There,
batches are made when they are asked for. Files are asked for ahead everywhere. On a GPU a thread makes the next
batches on a stream of its own, several steps in one go, since small batches cost launches more than arithmetic.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

import torch

from restore.datasets.batch import Batch, Source

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
