"""From a config to training batches and the fixed validation set."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from restore.data.cache import DeviceStore, FileStore, MemoryStore, Store
from restore.data.config import DataConfig, Folder
from restore.data.dataset import DuplicateIndex, TrainingImages
from restore.data.discovery import (
    PictureFiles,
    fingerprint,
    match_folders,
    pair_reader,
    picture_reader,
    side_by_side_reader,
    split_files,
)
from restore.data.loader import Batch, Source, validation_batches
from restore.data.sampler import CropPlan, FolderSampler
from restore.degradations import Damage
from restore.devices import free_in_ram, free_on_device
from restore.errors import RestoreError

_OF_DEVICE, _OF_RAM = 0.4, 0.33  # what pictures may take of what is free; building needs it twice on a device
_PROBED = 16
_MOST_THREADS = 16


def open_source(
    config: DataConfig,
    damage: Damage | None,
    *,
    multiple: int,
    device: torch.device,
    on_event: Callable[[str], None],
    minimum: int = 1,
    processes: int = 1,
) -> tuple[Source, list[Batch]]:
    """Find the pictures and settle where they wait.

    Args:
        config: what is to be read, and how.
        damage: what happens to clean pictures; None for real pairs.
        multiple, minimum: what the generator asks of the sides of a validation picture.
        device: where batches are made.
        say: told in a line each where pictures wait, what was left out and why.
        processes: of this run on this machine, which share its memory and cores.

    Returns:
        The source of training batches, and the validation batches, one picture each.

    Raises:
        RestoreError: a folder is missing or empty, pairs do not match, no picture can be used, or what was asked to
            be held does not fit.
    """
    smallest = max(minimum, multiple)
    if config.validation_size < smallest:
        raise RestoreError(
            f"must be at least {smallest} for this model", where=f"data.validation_size = {config.validation_size}"
        )
    folders, read = _reader(config)
    files = split_files(folders, config.validation_percent)
    threads = max(1, min(_MOST_THREADS, _cores() // processes))
    names, held_out = _read_validation(files, read, config, smallest, threads, on_event)
    intake = TrainingImages(
        files.training,
        read,
        patch=config.patch,
        small_images=config.small_images,
        on_error=config.on_error,
        held_out=DuplicateIndex((p[:, :, -3:] for p in held_out), config.near_duplicates or 0),
        on_event=on_event,
    )
    weighted = any(folder.weight is not None for folder in folders)
    shares = FolderSampler(files.counts, [folder.weight or 1.0 for folder in folders] if weighted else None)
    store = _open_store(config, intake, shares, device, max(2, threads), processes, on_event)
    if not names:  # a handful of pictures: score on the training set rather than not at all, and say so
        names, held_out = _some_of(intake, config.validation_count, smallest)
        on_event("no picture fell to validation: scores are on training pictures (more pictures would help)")
    on_event(f"{len(names)} pictures to validate on")
    plan = CropPlan(config.patch, config.scale, config.flip, config.rotate)
    source = Source(store, plan, damage, fingerprint(files.training))
    return source, validation_batches(names, held_out, config.validation_size, multiple, damage, device)


def _reader(config: DataConfig) -> tuple[list[Folder], Callable[[Path], np.ndarray]]:
    if config.folders:
        return list(config.folders), picture_reader(config.resize)
    if config.side_by_side is not None:
        return [Folder(path=config.side_by_side)], side_by_side_reader(config.direction, config.resize)
    assert config.input is not None
    assert config.target is not None
    return [Folder(path=config.input)], pair_reader(match_folders(config.input, config.target), config.resize)


def _read_validation(
    files: PictureFiles,
    read: Callable[[Path], np.ndarray],
    config: DataConfig,
    smallest: int,
    threads: int,
    on_event: Callable[[str], None],
) -> tuple[list[Path], list[np.ndarray]]:
    intake = TrainingImages(
        files.validation[: config.validation_count], read, on_error=config.on_error, on_event=on_event
    )
    intake.leave_out_missing()
    pictures = dict(_read_all(intake, threads))
    large = {i: p for i, p in pictures.items() if min(p.shape[:2]) >= smallest}
    if len(large) < len(pictures):
        on_event(f"{len(pictures) - len(large)} validation pictures are smaller than {smallest} px: not scored")
    return [intake.files[i] for i in large], list(large.values())


def _some_of(intake: TrainingImages, count: int, smallest: int) -> tuple[list[Path], list[np.ndarray]]:
    names: list[Path] = []
    pictures: list[np.ndarray] = []
    for index, name in enumerate(intake.files):
        picture = intake.take(index) if len(names) < count else None
        if picture is not None and min(picture.shape[:2]) >= smallest:
            names.append(name)
            pictures.append(picture)
    if not names:
        raise RestoreError(
            f"no picture is large enough to validate on: {smallest} px are needed", hint="raise data.patch"
        )
    return names, pictures


def _open_store(
    config: DataConfig,
    intake: TrainingImages,
    shares: FolderSampler,
    device: torch.device,
    threads: int,
    processes: int,
    on_event: Callable[[str], None],
) -> Store:
    """The pictures where the config wants them, or where they fit."""
    intake.leave_out_missing()
    kind, why = config.cache, ""
    limit: float | None = None
    if kind == "auto":
        on_device = free_on_device(device) * _OF_DEVICE if device.type != "cpu" else 0.0
        in_ram = free_in_ram() * _OF_RAM / processes
        needed = _probe(intake)
        if needed <= on_device:
            kind, limit = "device", on_device
        elif needed <= in_ram:
            kind, limit = "memory", in_ram
        else:
            kind, why = "none", f": about {_size(needed)}, of which {_size(max(on_device, in_ram))} fit"
    if kind != "none":
        pictures = _read_within(intake, threads, limit)
        if pictures is None:
            kind, why = "none", f": more than the {_size(limit or 0)} that fit"
        else:
            for folder in shares.folders:
                intake.refuse_nothing_left(folder)
            for line in intake.summary():
                on_event(line)
            usable = [intake.usable(i) for i in range(len(intake.files))]
            store = _held(kind, pictures, usable, shares, device)
            place = f"on {device}" if kind == "device" else "in memory"
            on_event(f"{len(store)} pictures to train on, {_size(store.nbytes)} held {place} (data.cache: {kind})")
            return store
    intake.announce = True
    _probe(intake)  # so that a folder without one good picture is found out now
    for folder in shares.folders:
        intake.refuse_nothing_left(folder)
    on_event(
        f"{len(intake.files)} pictures to train on, decoded for every step by {threads} threads (data.cache: none){why}"
        "; what is broken, too small or like a validation picture is left out when it is met"
    )
    return FileStore(intake, shares, device, threads)


def _held(
    kind: str, pictures: list[np.ndarray], usable: Sequence[bool], shares: FolderSampler, device: torch.device
) -> DeviceStore | MemoryStore:
    if kind == "memory":
        return MemoryStore(pictures, usable, shares, device)
    try:
        return DeviceStore(_handed_over(pictures), usable, shares, device)
    except torch.OutOfMemoryError as error:
        raise RestoreError(
            f"the pictures do not fit on {device}", where="data.cache = device", hint="use auto, memory or none"
        ) from error


def _handed_over(pictures: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Each picture once, in order, kept no longer than it is needed."""
    pictures.reverse()
    while pictures:
        yield pictures.pop()


def _read_all(intake: TrainingImages, threads: int) -> Iterator[tuple[int, np.ndarray]]:
    """(index, picture) of all usable files, in order, decoded side by side."""
    with ThreadPoolExecutor(threads, "decode") as pool:
        waiting = [pool.submit(intake.take, i) for i in range(len(intake.files))]
        waiting.reverse()
        try:
            for index in range(len(intake.files)):
                picture = waiting.pop().result()
                if picture is not None:
                    yield index, picture
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _read_within(intake: TrainingImages, threads: int, limit: float | None) -> list[np.ndarray] | None:
    """All usable pictures; None where they take more bytes than `limit` (None: any)."""
    pictures, total = [], 0
    for _, picture in _read_all(intake, threads):
        pictures.append(picture)
        total += picture.nbytes
        if limit is not None and total > limit:
            return None
    return pictures


def _probe(intake: TrainingImages) -> float:
    """Bytes that all pictures will take, estimated from some that lie far apart."""
    stride = max(1, len(intake.files) // _PROBED)
    sizes = [p.nbytes for i in range(0, len(intake.files), stride) if (p := intake.take(i)) is not None]
    return float(np.mean(sizes)) * len(intake.files) if sizes else 0.0


def _size(count: float) -> str:
    return f"{count / 2**30:.1f} GB" if count >= 2**30 else f"{count / 2**20:.0f} MB"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
