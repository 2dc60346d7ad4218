"""From a config to training batches and the fixed validation set."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from restore.data.cache import CropStore, DeviceCropStore
from restore.data.config import DataConfig, Folder
from restore.data.dataset import DuplicateIndex, Image, TrainingImages
from restore.data.discovery import RULES, fingerprint, named_images, split_files
from restore.data.layout import Layout
from restore.data.loader import Batch, Source, validation_batches
from restore.data.readers import (
    ReadAs,
    Reader,
    image_reader,
    match_pairs,
    pair_reader,
    side_by_side_reader,
    with_conditions,
    with_labels,
    with_masks,
)
from restore.data.sampler import CropPlan, FolderSampler
from restore.degradations import Degradation
from restore.degradations.mask_files import mask_of
from restore.devices import free_memory, free_ram, usable_cpus
from restore.errors import RestoreError
from restore.files import digest_of_names
from restore.images import read_image
from restore.images.conditions import Condition, ConditionFiles
from restore.images.formats import left_out_of

# Share of the free memory that images may take. On a device, concatenating them into one tensor needs it twice.
_DEVICE_SHARE, _RAM_SHARE = 0.4, 0.33
_PROBED_FILES = 16
_MAX_THREADS = 16


def open_source(
    config: DataConfig,
    damage: Degradation | None,
    *,
    multiple: int,
    device: torch.device,
    on_event: Callable[[str], None],
    minimum: int = 1,
    processes: int = 1,
    rules: int = RULES,
    expected: str | None = None,
    largest_patch: int = 0,
    shrink: int = 1,
) -> tuple[Source, list[Batch]]:
    """Find the images, and decide where they are cached.

    Args:
        config: which images, and how they are used.
        damage: degrades clean images; None for real pairs.
        multiple: sides of validation images are multiples of this.
        device: where batches are made.
        on_event: called with lines about where images are cached and which images are left out.
        minimum: minimum side of a validation image.
        processes: of this run on this machine, which share its memory and cores.
        rules: see `restore.data.discovery.RULES`.
        shrink: clean images are made smaller by this factor; the sizes above are those of the clean ones.
        largest_patch: images must be at least as large as this, too.
        expected: fingerprint of the training images; None: any. Checked before an image is read.

    Returns:
        The source of training batches, and the validation batches with one image each.

    Raises:
        RestoreError: a folder does not exist or has no images, pairs do not match, no image can be used, the images
            are not the expected ones, or the requested cache does not fit.
    """
    smallest = max(minimum, multiple)
    if config.validation_size < smallest:
        raise RestoreError(
            f"must be at least {smallest} for this model", where=f"data.validation_size = {config.validation_size}"
        )
    layout = layout_of(config)
    how = ReadAs(rules, gray=config.channels == "gray", float_range=config.float_range, on_event=_once(on_event))
    folders, read = _open_reader(config, how)
    places = [folder.path for folder in folders] + [config.target]
    for line in left_out_of(places, hint="to train on one, name it in data.folders"):
        on_event(line)
    named = config.validation.is_set
    files = split_files(folders, 0 if named else config.validation_percent, rules, hint=_hint(config))
    print_ = fingerprint(files.training, None if rules == 1 else files.names)
    if config.masks is not None:
        print_ = digest_of_names([print_, *_masks_of(config.masks, [files.names[file] for file in files.training])])
    conditions = [(ConditionFiles(condition.path), condition.kind) for condition in config.conditions]
    of_images = [_condition_files(conditions, files.names[file]) for file in files.training]
    if conditions:
        print_ = digest_of_names([print_, *(path.name for paths in of_images for path in paths)])
    if expected is not None and print_ != expected:
        raise RestoreError(
            "this run started with other training images" + (" or masks" if config.masks is not None else ""),
            hint="use another out=, or the same images; to change them on purpose, set resume.allow=[data.folders]",
        )
    held_out_files, held_out_names, read_held_out = files.validation, files.names, read
    if named:
        held_out_folders, read_held_out = _open_validation_reader(config, how)
        held_out_names = named_images(held_out_folders, rules, hint="set data.validation to your images for validation")
        held_out_files = list(held_out_names)
        shared = set(map(os.path.realpath, held_out_files)) & set(map(os.path.realpath, files.training))
        if shared:
            raise RestoreError(
                f"{len(shared)} of these images are also training images, so the scores would be too good",
                where=held_out_folders,
                hint="remove them from one of the two",
            )
    if conditions:
        for file in held_out_files:
            _condition_files(conditions, held_out_names[file])
        read_held_out = with_conditions(read_held_out, conditions, held_out_names, config.resize)
        read = with_conditions(read, conditions, files.names, config.resize)
    if config.classes:
        read, read_held_out = (
            with_labels(read, files.names, config.classes),
            with_labels(read_held_out, held_out_names, config.classes),
        )
    if config.masks is not None:
        read = with_masks(read, config.masks, files.names, config.resize)
        read_held_out = with_masks(read_held_out, config.masks, held_out_names, config.resize)
        _masks_of(config.masks, [held_out_names[file] for file in held_out_files])
    # Validation images are read first: training images are compared with them.
    threads = max(1, min(_MAX_THREADS, usable_cpus() // processes))
    found, held_out = _read_validation(held_out_files, read_held_out, config, smallest, threads, on_event)
    names = [held_out_names[file] for file in found]
    if named and not names:
        raise RestoreError("none of these images can be used for validation", where=held_out_folders)
    images = TrainingImages(
        files.training,
        read,
        patch=max(config.patch, largest_patch),
        small_images=config.small_images,
        on_error=config.on_error,
        held_out=DuplicateIndex((image[:, :, -layout.image :] for image in held_out), config.near_duplicates or 0),
        clean_channels=layout.image,
        on_event=on_event,
    )
    weighted = any(folder.weight is not None for folder in folders)
    sampler = FolderSampler(files.counts, [folder.weight or 1.0 for folder in folders] if weighted else None)
    store = _open_store(config, images, sampler, device, max(2, threads), processes, on_event)
    if not names:  # a few training images give a rough score; none would give no score at all
        found, held_out = _first_training_images(images, config.validation_count, smallest)
        names = [files.names[file] for file in found]
        why = "no image is set aside for validation"
        if files.validation:
            why = f"none of the {len(files.validation)} images that are set aside for validation can be used"
        on_event(f"{why}, so training images are scored; use more images")
    on_event(f"{len(names)} validation images")
    source = Source(store, crop_plan(config), damage, print_, layout, linear=config.is_linear, shrink=shrink)
    shown = replace(layout, pair=layout.pair or config.validation.input is not None)
    return source, validation_batches(
        names,
        held_out,
        config.validation_size,
        multiple,
        damage,
        device,
        shown,
        linear=config.is_linear,
        shrink=shrink,
    )


def layout_of(config: DataConfig) -> Layout:
    """The channels of the stored images."""
    mask, pair = config.masks is not None, not config.folders
    return Layout(config.image_channels, config.condition_channels + bool(config.classes), mask=mask, pair=pair)


def with_classes(config: DataConfig) -> DataConfig:
    """The config with the names of its classes, each of which has images.

    Raises:
        RestoreError: there are no folders in `folders`, one has no images, or an image lies in none.
    """
    if not config.classes:
        return config
    found, empty = set(), set()
    for folder in config.folders:
        names = named_images(folder.path, hint=_hint(config)).values()
        if (outside := next((name for name in names if "/" not in name), None)) is not None:
            raise RestoreError(f"the image {outside} lies in no folder of a class", where=folder.path)
        found |= {name.partition("/")[0] for name in names}
        empty |= {each.name for each in folder.path.iterdir() if each.is_dir()} if folder.path.is_dir() else set()
    named = found if config.classes == "folders" else set(config.classes)
    empty = (empty | named) - found
    if empty:
        raise RestoreError(f"there is no image of the class {min(empty)}", where="data.classes")
    if found - named:
        raise RestoreError(f"there are images of a class {min(found - named)}, too", where="data.classes")
    if len(named) > 256:
        raise RestoreError(f"there are {len(named)} classes, and at most 256 are possible", where="data.classes")
    return config.model_copy(update={"classes": tuple(sorted(named))})


def with_condition_channels(config: DataConfig) -> DataConfig:
    """The config with the number of channels of its condition images, as those of the first image have it.

    Raises:
        RestoreError: there are no images, or no condition images for them, or none can be read.
    """
    if all(condition.channels is not None for condition in config.conditions):
        return config
    place = config.folders[0].path if config.folders else config.side_by_side or config.input
    assert place is not None
    sources = [ConditionFiles(condition.path) for condition in config.conditions]
    problem: RestoreError | None = None
    for file, name in list(named_images(place, hint=_hint(config)).items())[:_PROBED_FILES]:
        try:
            found = [source.read(name, partial(read_image, file)) for source in sources]
        except RestoreError as error:
            problem = problem or error
            continue
        kinds = [
            condition.model_copy(update={"channels": condition.channels or image.pixels.shape[2]})
            for condition, image in zip(config.conditions, found)
        ]
        return config.model_copy(update={"conditions": tuple(kinds)})
    assert problem is not None
    problem.exit_code = 2
    raise problem


def _hint(config: DataConfig) -> str:
    """Which keys name the training images."""
    if config.folders:
        return "set data.folders=[...] to your clean photographs"
    if config.side_by_side is not None:
        return "set data.side_by_side=FOLDER to your pairs, or data.input and data.target"
    return "set data.input and data.target to your pairs"


def _condition_files(conditions: Sequence[tuple[ConditionFiles, Condition]], name: str) -> list[Path]:
    """The condition images of an image, without its own infrared channel.

    Raises:
        RestoreError: there is none of some kind.
    """
    try:
        return [file for source, _ in conditions if (file := source.file_of(name)) is not None]
    except RestoreError as error:
        error.exit_code = 2
        raise


def _once(on_event: Callable[[str], None]) -> Callable[[str], None]:
    """`on_event` for the first line alone, from any thread."""
    first = threading.Lock()  # never released

    def call(line: str) -> None:
        if first.acquire(blocking=False):
            on_event(f"{line}; further images are not reported")

    return call


def crop_plan(config: DataConfig) -> CropPlan:
    """How crops are sampled."""
    return CropPlan(config.patch, config.scale, config.flip, config.rotate)


def _open_reader(config: DataConfig, how: ReadAs) -> tuple[list[Folder], Reader]:
    if config.folders:
        return list(config.folders), image_reader(config.resize, how)
    if config.side_by_side is not None:
        return [Folder(path=config.side_by_side)], side_by_side_reader(config.direction, config.resize, how)
    assert config.input is not None
    assert config.target is not None
    partners = match_pairs(config.input, config.target, config.input_name)
    return [Folder(path=config.input)], pair_reader(partners, config.resize, how)


def _masks_of(masks: Path, names: list[str]) -> list[str]:
    """The mask of each image, relative to their folder.

    Raises:
        RestoreError: some have none, or several.
    """
    found, problems = [], []
    for name in names:
        try:
            found.append(mask_of(masks, name))
        except RestoreError as error:
            problems.append(error)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise RestoreError(f"{problems[0].what}{more}", where=f"data.masks = {masks}")
    return found


def _open_validation_reader(config: DataConfig, how: ReadAs) -> tuple[Path, Reader]:
    """The folder or list with the images of `data.validation`, and a function that reads one."""
    named = config.validation
    if named.input is not None and named.target is not None:
        partners = match_pairs(named.input, named.target, config.input_name)
        return named.input, pair_reader(partners, config.resize, how)
    assert named.folder is not None
    if config.side_by_side is not None:
        return named.folder, side_by_side_reader(config.direction, config.resize, how)
    return named.folder, image_reader(config.resize, how)


def _read_validation(
    files: list[Path],
    read: Reader,
    config: DataConfig,
    smallest: int,
    threads: int,
    on_event: Callable[[str], None],
) -> tuple[list[Path], list[Image]]:
    """The first usable files up to `validation_count`, and their images."""
    found: dict[Path, Image] = {}
    small = at = 0
    while at < len(files) and len(found) < config.validation_count:
        part = files[at : at + config.validation_count - len(found)]
        at += len(part)
        images = TrainingImages(part, read, on_error=config.on_error, on_event=on_event)
        images.leave_out_missing()
        for i, image in _load_all(images, threads):
            if image is not None and min(image.shape[:2]) >= smallest:
                found[part[i]] = image
            small += image is not None and min(image.shape[:2]) < smallest
    if small:
        on_event(f"{small} validation images are smaller than {smallest} px and are not scored")
    return list(found), list(found.values())


def _first_training_images(images: TrainingImages, count: int, smallest: int) -> tuple[list[Path], list[Image]]:
    names: list[Path] = []
    found: list[Image] = []
    for index, name in enumerate(images.files):
        image = images.load(index) if len(names) < count else None
        if image is not None and min(image.shape[:2]) >= smallest:
            names.append(name)
            found.append(image)
    if not names:
        raise RestoreError(
            f"no image is large enough for validation, which needs {smallest} px", hint="raise data.patch"
        )
    return names, found


def _open_store(
    config: DataConfig,
    images: TrainingImages,
    sampler: FolderSampler,
    device: torch.device,
    threads: int,
    processes: int,
    on_event: Callable[[str], None],
) -> CropStore:
    """Cache the images as the config says, or where they fit."""
    images.leave_out_missing()
    kind, reason = config.cache, ""
    limit: float | None = None
    if kind == "auto":
        on_device = free_memory(device) * _DEVICE_SHARE if device.type != "cpu" else 0.0
        in_ram = free_ram() * _RAM_SHARE / processes
        needed = _estimate_nbytes(images)
        if needed <= on_device:
            kind, limit = "device", on_device
        elif needed <= in_ram:
            kind, limit = "memory", in_ram
        else:
            kind, reason = (
                "none",
                f": they need {format_bytes(needed)}, {format_bytes(max(on_device, in_ram))} fit",
            )
    if kind != "none":
        cached = _load_within(images, threads, limit)
        if cached is None:
            kind, reason = "none", f": they need more than the {format_bytes(limit or 0)} that fit"
        else:
            for folder in sampler.folders:
                images.require_usable(folder)
            for line in images.summary():
                on_event(line)
            if kind == "device":
                store, place = _cache_on_device(images, sampler, device, cached), f"on {device}"
            else:
                store, place = CropStore(images, sampler, device, cached=cached), "in memory"
            on_event(f"{len(store)} training images, {format_bytes(store.nbytes)} cached {place} (data.cache: {kind})")
            return store
    images.announce = True
    _estimate_nbytes(images)  # reads some files of each folder, so that a folder without usable images is found early
    for folder in sampler.folders:
        images.require_usable(folder)
    on_event(
        f"{len(images.files)} files of training images, decoded at every step by {threads} threads (data.cache: none)"
        f"{reason}; those that are unreadable, too small or similar to a validation image are left out when they are "
        "first read"
    )
    return CropStore(images, sampler, device, threads=threads)


def _cache_on_device(
    images: TrainingImages, sampler: FolderSampler, device: torch.device, cached: list[Image | None]
) -> CropStore:
    try:
        return DeviceCropStore(images, sampler, device, cached)
    except torch.OutOfMemoryError as error:
        raise RestoreError(
            f"the images do not fit on {device}", where="data.cache = device", hint="use auto, memory or none"
        ) from error


def _load_all(images: TrainingImages, threads: int) -> Iterator[tuple[int, Image | None]]:
    """(index, image) of all files, in order, decoded in parallel."""
    with ThreadPoolExecutor(threads, "decode") as pool:
        waiting = [pool.submit(images.load, i) for i in range(len(images.files))]
        waiting.reverse()  # popped from the end, so that no future keeps an image alive after it was yielded
        try:
            for index in range(len(images.files)):
                yield index, waiting.pop().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _load_within(images: TrainingImages, threads: int, limit: float | None) -> list[Image | None] | None:
    """All images by file, None for those that are left out; None if they take more than `limit` bytes."""
    loaded: list[Image | None] = []
    total = 0
    for _, image in _load_all(images, threads):
        loaded.append(image)
        total += 0 if image is None else image.nbytes
        if limit is not None and total > limit:  # the estimate was too low
            return None
    return loaded


def _estimate_nbytes(images: TrainingImages) -> float:
    """Bytes of all images, estimated from files at regular intervals."""
    stride = max(1, len(images.files) // _PROBED_FILES)
    sizes = [p.nbytes for i in range(0, len(images.files), stride) if (p := images.load(i)) is not None]
    return float(np.mean(sizes)) * len(images.files) if sizes else 0.0


def format_bytes(count: float) -> str:
    """A number of bytes as decimal MB or GB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
