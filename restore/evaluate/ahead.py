"""Work on pairs by threads, a few ahead of who takes the results: the same order always, and bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

from restore.errors import RestoreError
from restore.evaluate.pairs import Loaded, Pair

_READ_AHEAD = 2  # pairs that may wait, beside those being worked on
_BATCH_PIXELS_GPU = 2**22

T = TypeVar("T")


def in_order(
    work: Callable[[Pair], T],
    pairs: Sequence[Pair],
    workers: int,
    failed: list[dict[str, str]],
    done: Callable[[], None],
) -> Iterator[T]:
    """`work` on every pair, in threads of one core each; results in the pairs' order.

    Args:
        work: a `RestoreError` from it is this pair's alone.
        pairs: what to work on.
        workers: how many threads.
        failed: gets `{"name", "reason"}` of pairs that failed.
        done: called after every pair, in the caller's thread.
    """
    waiting: deque[tuple[Pair, Future[T]]] = deque()

    def next_result() -> Iterator[T]:
        pair, future = waiting.popleft()
        try:
            yield future.result()
        except RestoreError as error:
            failed.append({"name": pair.name, "reason": str(error)})
        done()

    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    try:
        for pair in pairs:
            waiting.append((pair, pool.submit(work, pair)))
            if len(waiting) >= workers + _READ_AHEAD:
                yield from next_result()
        while waiting:
            yield from next_result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # the workers' number has become that of threads to come


def batches(loaded: Iterable[Loaded]) -> Iterator[list[Loaded]]:
    """Consecutive pairs of one size, all with a mask or all without, as many as a GPU is glad of."""
    batch: list[Loaded] = []
    for pair in loaded:
        full = (len(batch) + 1) * pair.restored[0].numel() > _BATCH_PIXELS_GPU
        other = batch and (
            pair.restored.shape != batch[0].restored.shape or (pair.mask is None) != (batch[0].mask is None)
        )
        if batch and (full or other):
            yield batch
            batch = []
        batch.append(pair)
    if batch:
        yield batch
