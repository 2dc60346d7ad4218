"""Pairs restored images with references and masks by their relative stem, and reads them. Nothing is resized."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from restore.errors import RestoreError, printable
from restore.evaluation.report import Unmatched
from restore.images import find_images, pair_key, read_image, read_mask
from restore.images.mask_names import pair_by_name
from restore.metrics.preprocessing import HOLE_THRESHOLD


@dataclass(frozen=True)
class Pair:
    """The files of a pair.

    Attributes:
        name: relative POSIX path without the last suffix.
        restored: the image to score.
        reference: the clean image.
        mask: None if there is no mask.
        role: what messages call the image to score: `restored` or `baseline`.
    """

    name: str
    restored: Path
    reference: Path
    mask: Path | None
    role: str = "restored"


@dataclass(frozen=True)
class LoadedPair:
    """A pair in memory: float32 3×H×W, sRGB, [0, 1]; mask 1×H×W, or None with the reason in `mask_problem`."""

    name: str
    restored: Tensor
    reference: Tensor
    mask: Tensor | None
    mask_problem: str | None


@dataclass(frozen=True)
class Paired:
    """The pairs of two folders.

    Attributes:
        pairs: sorted by name.
        unmatched: files without a counterpart.
        failed: `{"name", "reason"}` of names shared by several files.
    """

    pairs: list[Pair]
    unmatched: Unmatched
    failed: list[dict[str, str]]

    def only(self, others: Paired) -> Paired:
        """Keep only pairs whose names are also in `others`."""
        names = {pair.name for pair in others.pairs}
        return replace(self, pairs=[pair for pair in self.pairs if pair.name in names])


def pair_up(restored_dir: Path, reference_dir: Path, masks_dir: Path | None, role: str = "restored") -> Paired:
    """Pair images by relative path without the last suffix.

    Args:
        restored_dir: images to score.
        reference_dir: clean images.
        masks_dir: masks, named as those of `restore fix` are (see `pair_by_name`), or None.
        role: what messages call the images to score.

    Raises:
        RestoreError: exit code 2; no such folder.
    """
    restored, reference = _by_stem(restored_dir), _by_stem(reference_dir)
    masks_of, strangers = pair_by_name(
        [] if masks_dir is None else find_images(masks_dir), [path for paths in restored.values() for path in paths]
    )
    pairs, failed, without_mask = [], [], []
    for name in sorted(restored.keys() & reference.keys()):
        candidates = masks_of[restored[name][0]]
        if masks_dir is not None and not candidates:
            without_mask.append(name)
        several = next((f for f in (restored[name], reference[name], candidates) if len(f) > 1), None)
        if several:
            listed = ", ".join(path.name for path in several)
            failed.append({"name": name, "reason": f"several files have this name: {listed}"})
            continue
        mask = masks_dir / candidates[0] if masks_dir is not None and candidates else None
        pairs.append(Pair(name, restored_dir / restored[name][0], reference_dir / reference[name][0], mask, role))
    unmatched = Unmatched(
        restored=_without_counterpart(restored, reference),
        reference=_without_counterpart(reference, restored),
        masks=sorted(mask.as_posix() for mask in strangers),
        without_mask=without_mask,
        empty=[
            printable(folder) for folder, found in ((restored_dir, restored), (reference_dir, reference)) if not found
        ],
    )
    return Paired(pairs, unmatched, failed)


def _by_stem(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = defaultdict(list)
    for path in find_images(folder):
        found[pair_key(path)].append(path)
    return dict(found)


def _without_counterpart(files: dict[str, list[Path]], others: Iterable[str]) -> list[str]:
    return [path.as_posix() for name in sorted(files.keys() - set(others)) for path in files[name]]


def _read(path: Path) -> Tensor:
    """Read an image as float32, 3×H×W, sRGB, [0, 1]."""
    image = read_image(path)
    if image.pixels.dtype != np.float32 and image.profile is None:
        # The common case, already sRGB: the same values as `to_srgb` in a single pass.
        values = torch.tensor(image.pixels).permute(2, 0, 1)  # copies: decoded pixels may be read-only
        unit = values.to(torch.float32, memory_format=torch.contiguous_format).div_(image.white)
        return unit.expand(3, -1, -1).contiguous()
    if image.pixels.dtype == np.float32 and not np.isfinite(image.pixels).all():
        raise RestoreError("contains NaN or Inf", where=path, exit_code=1)
    return torch.from_numpy(np.ascontiguousarray(image.to_srgb().clip(0, 1).transpose(2, 0, 1)))


def load_pair(pair: Pair) -> LoadedPair:
    """Read both images and the mask, upright, at full bit depth.

    Raises:
        RestoreError: exit code 1; an image is unreadable or contains NaN or Inf, or the sizes differ.
    """
    restored, reference = _read(pair.restored), _read(pair.reference)
    if restored.shape != reference.shape:
        sizes = " but ".join(
            f"{role} is {x.shape[2]}×{x.shape[1]}" for role, x in ((pair.role, restored), ("reference", reference))
        )
        raise RestoreError(f"the sizes differ: {sizes}", exit_code=1)
    mask, problem = None, None
    if pair.mask is not None:
        try:
            mask = read_mask(pair.mask, size=(restored.shape[1], restored.shape[2]))
            if not (mask >= HOLE_THRESHOLD).any():
                raise RestoreError("the mask has no white pixels, so there is no hole to score", where=pair.mask)
        except RestoreError as error:
            mask, problem = None, str(error)
    hole = None if mask is None else torch.from_numpy(mask)[None]
    return LoadedPair(pair.name, restored, reference, hole, problem)


# Pairs in parallel, with results in order and bounded memory.


_READ_AHEAD = 2  # finished or queued pairs beyond one per worker
_BATCH_PIXELS_GPU = 2**22

T = TypeVar("T")


def in_order(
    work: Callable[[Pair], T],
    pairs: Sequence[Pair],
    workers: int,
    failed: list[dict[str, str]],
    done: Callable[[], None],
) -> Iterator[T]:
    """Apply `work` to every pair in single-threaded workers, and yield the results in the order of the pairs.

    Args:
        work: a `RestoreError` from it fails this pair only.
        pairs: the pairs.
        workers: number of threads.
        failed: receives `{"name", "reason"}` of pairs that failed.
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
        torch.set_num_threads(threads)  # a worker's setting also becomes the default of later threads


def batches(loaded: Iterable[LoadedPair]) -> Iterator[list[LoadedPair]]:
    """Group consecutive pairs of one size, all with or all without a mask, up to `_BATCH_PIXELS_GPU` pixels."""
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
