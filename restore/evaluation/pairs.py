"""Which files belong together, and how a pair is read: by relative stem, never by order, never resized."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from restore.errors import RestoreError, printable
from restore.evaluation.report import Unmatched
from restore.images import find_images, read_image, read_mask, stem_key
from restore.metrics.preprocessing import HOLE_THRESHOLD


@dataclass(frozen=True)
class Pair:
    """Files that belong together; `mask` is None where there is none, `what` the first picture is."""

    name: str
    restored: Path
    reference: Path
    mask: Path | None
    what: str = "restored"


@dataclass(frozen=True)
class LoadedPair:
    """A pair in memory: float32 3×H×W, sRGB, [0, 1]; mask 1×H×W, or None; `mask_problem` says why not."""

    name: str
    restored: Tensor
    reference: Tensor
    mask: Tensor | None
    mask_problem: str | None


@dataclass(frozen=True)
class Paired:
    """What `pair_up` found.

    Attributes:
        pairs: sorted by name.
        unmatched: files without a counterpart.
        failed: `{"name", "reason"}` of names that stand for more than one file.
    """

    pairs: list[Pair]
    unmatched: Unmatched
    failed: list[dict[str, str]]

    def only(self, others: Paired) -> Paired:
        """Without the pairs whose names are not among `others`."""
        names = {pair.name for pair in others.pairs}
        return replace(self, pairs=[pair for pair in self.pairs if pair.name in names])


def pair_up(restored_dir: Path, reference_dir: Path, masks_dir: Path | None, what: str = "restored") -> Paired:
    """Pairs by relative stem.

    Args:
        restored_dir: pictures.
        reference_dir: the true ones.
        masks_dir: their masks, or None.
        what: the first are called in complaints.

    Raises:
        RestoreError: exit code 2; no such folder.
    """
    restored, reference = _by_stem(restored_dir), _by_stem(reference_dir)
    masks = {} if masks_dir is None else _by_stem(masks_dir)
    pairs, failed, used, without_mask = [], [], set(), []
    for name in sorted(restored.keys() & reference.keys()):
        keys = [key for key in (name, f"{name}_mask") if key in masks]
        used.update(keys)
        candidates = [path for key in keys for path in masks[key]]
        if masks_dir is not None and not candidates:
            without_mask.append(name)
        several = next((f for f in (restored[name], reference[name], candidates) if len(f) > 1), None)
        if several:
            listed = ", ".join(path.name for path in several)
            failed.append({"name": name, "reason": f"more than one file has this name: {listed}"})
            continue
        mask = masks_dir / candidates[0] if masks_dir is not None and candidates else None
        pairs.append(Pair(name, restored_dir / restored[name][0], reference_dir / reference[name][0], mask, what))
    unmatched = Unmatched(
        restored=_without_counterpart(restored, reference),
        reference=_without_counterpart(reference, restored),
        masks=_without_counterpart(masks, used),
        without_mask=without_mask,
        empty=[
            printable(folder) for folder, found in ((restored_dir, restored), (reference_dir, reference)) if not found
        ],
    )
    return Paired(pairs, unmatched, failed)


def _by_stem(folder: Path) -> dict[str, list[PurePath]]:
    found: dict[str, list[PurePath]] = defaultdict(list)
    for path in find_images(folder):
        found[stem_key(path)].append(path)
    return dict(found)


def _without_counterpart(files: dict[str, list[PurePath]], others: Iterable[str]) -> list[str]:
    return [path.as_posix() for name in sorted(files.keys() - set(others)) for path in files[name]]


def _read(path: Path) -> Tensor:
    """A picture as float32, 3×H×W, sRGB, [0, 1]; one that is not all numbers has no score."""
    picture = read_image(path)
    if picture.pixels.dtype != np.float32 and picture.profile is None:  # most are: the same numbers in one pass
        values = torch.from_numpy(picture.pixels).permute(2, 0, 1)
        unit = values.to(torch.float32, memory_format=torch.contiguous_format).div_(picture.white)
        return unit.expand(3, -1, -1).contiguous()
    if picture.pixels.dtype == np.float32 and not np.isfinite(picture.pixels).all():
        raise RestoreError("some of its pixels are not finite numbers", where=path, exit_code=1)
    return torch.from_numpy(np.ascontiguousarray(picture.to_srgb().clip(0, 1).transpose(2, 0, 1)))


def load_pair(pair: Pair) -> LoadedPair:
    """Both pictures and the mask, upright, at their full depth.

    Raises:
        RestoreError: exit code 1: unreadable, of different size, or not all numbers.
    """
    restored, reference = _read(pair.restored), _read(pair.reference)
    if restored.shape != reference.shape:
        sizes = " but ".join(
            f"{what} is {x.shape[2]}×{x.shape[1]}" for what, x in ((pair.what, restored), ("reference", reference))
        )
        raise RestoreError(f"the sizes differ: {sizes}", exit_code=1)
    mask, problem = None, None
    if pair.mask is not None:
        try:
            mask = read_mask(pair.mask, size=(restored.shape[1], restored.shape[2]))
            if not (mask >= HOLE_THRESHOLD).any():
                raise RestoreError("the mask has no white: there is no hole to score", where=pair.mask)
        except RestoreError as error:
            mask, problem = None, str(error)
    hole = None if mask is None else torch.from_numpy(mask)[None]
    return LoadedPair(pair.name, restored, reference, hole, problem)


# Work on pairs by threads, a few ahead of who takes the results: the same order always, and bounded memory.


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


def batches(loaded: Iterable[LoadedPair]) -> Iterator[list[LoadedPair]]:
    """Consecutive pairs of one size, all with a mask or all without, as many as a GPU is glad of."""
    batch: list[LoadedPair] = []
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
