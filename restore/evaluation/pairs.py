"""Pairs restored images with references and masks by their relative stem, and reads them. Nothing is resized."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
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

#: The files of a folder: name without suffix -> name with it -> the files, which are several if they differ only in the
#: ending that pairs leave out, or in how accented letters are encoded.
Named = dict[str, dict[str, list[Path]]]


@dataclass(frozen=True)
class Pair:
    """The files of a pair.

    Attributes:
        name: relative POSIX path without the last suffix; with it where both folders have several such files.
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


def pair_up(restored: Path, reference: Path, masks: Path | None, role: str = "restored", *, suffix: str = "") -> Paired:
    """Pair the images of two folders by relative path without the last suffix; or two files, whatever their names.

    Where both folders have the same files with a name, such as `a.jpg` and `a.png`, each is paired with its namesake.

    Args:
        restored: images to score: a folder, or one file.
        reference: clean images: likewise.
        masks: masks, named as those of `restore fix` are (see `pair_by_name`); for two files a folder or one file; or
            None.
        role: what messages call the images to score.
        suffix: an ending of the names of restored images that the references lack: `x4` pairs `0001x4.png` with
            `0001.png`. Names without it are taken as they are.

    Raises:
        RestoreError: exit code 2; no such folder or file, or one is a folder and the other a file.
    """
    if restored.is_file() != reference.is_file():
        file, other = (restored, reference) if restored.is_file() else (reference, restored)
        if not other.is_dir():
            raise RestoreError("there is no such file", where=other)
        raise RestoreError("this is a file, and the other a folder", where=file, hint="give two folders or two files")
    (mine, mine_dir), (theirs, theirs_dir) = _by_name(restored, suffix, reference), _by_name(reference)
    (found_masks, masks_dir) = _files(masks) if masks is not None else ([], Path())
    masks_of, strangers = _pair_masks(found_masks, mine, alone=masks is not None and masks.is_file())
    pairs, failed, without_mask = [], [], []
    for name, images, references in _in_common(mine, theirs):
        candidates = masks_of[images[0]]
        if masks is not None and not candidates:
            without_mask.append(name)
        several = next((f for f in (images, references, candidates) if len(f) > 1), None)
        if several:
            listed = ", ".join(path.name for path in several)
            failed.append({"name": name, "reason": f"several files have this name: {listed}; rename all but one"})
            continue
        mask = masks_dir / candidates[0] if candidates else None
        pairs.append(Pair(name, mine_dir / images[0], theirs_dir / references[0], mask, role))
    unmatched = Unmatched(
        restored=_without_counterpart(mine, theirs),
        reference=_without_counterpart(theirs, mine),
        masks=strangers,
        without_mask=without_mask,
        empty=[printable(folder) for folder, found in ((restored, mine), (reference, theirs)) if not found],
    )
    return Paired(pairs, unmatched, failed)


def _files(images: Path) -> tuple[list[Path], Path]:
    """The images of a folder, or one file; and the folder that they are relative to."""
    return ([Path(images.name)], images.parent) if images.is_file() else (find_images(images), images)


def _by_name(images: Path, suffix: str = "", reference: Path | None = None) -> tuple[Named, Path]:
    """The files by name, and the folder that they are relative to. A single file has the name of a single reference."""
    files, folder = _files(images)
    found: Named = defaultdict(lambda: defaultdict(list))
    for path in files:
        name = pair_key(path)
        shorter = name.removesuffix(suffix)
        if images.is_file() and reference is not None and reference.is_file():
            name = pair_key(reference.name)
        elif shorter and not shorter.endswith("/"):  # else the ending is the whole name
            name = shorter
        found[name][name + path.suffix].append(path)
    return dict(found), folder


def _in_common(mine: Named, theirs: Named) -> Iterator[tuple[str, list[Path], list[Path]]]:
    """The names that both folders have, sorted, and the files with each."""
    for name in sorted(mine.keys() & theirs.keys()):
        ours, others = mine[name], theirs[name]
        if len(ours) > 1 and ours.keys() == others.keys() and not ours.keys() & mine.keys():
            yield from ((whole, ours[whole], others[whole]) for whole in ours)
        else:
            yield name, [*chain(*ours.values())], [*chain(*others.values())]


def _pair_masks(masks: list[Path], images: Named, *, alone: bool) -> tuple[dict[Path, list[Path]], list[str]]:
    """The masks of each image, and those without an image. A mask that is a single file is that of the one image."""
    # A mask is named after the image, or after the name without the ending that pairs leave out.
    called = {path: Path(name) for names in images.values() for name, paths in names.items() for path in paths}
    if alone and len(called) == 1:
        return dict.fromkeys(called, masks), []
    masks_of, strangers = pair_by_name(masks, list(called.values()))
    return {path: masks_of[name] for path, name in called.items()}, sorted(mask.as_posix() for mask in strangers)


def _without_counterpart(files: Named, others: Iterable[str]) -> list[str]:
    return [path.as_posix() for name in sorted(files.keys() - set(others)) for path in chain(*files[name].values())]


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
