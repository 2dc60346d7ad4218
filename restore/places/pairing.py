"""Pairing in a plan over URLs: files with their sidecars and masks, and outputs that collide or exist."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from restore.errors import RestoreError, printable
from restore.fix.collisions import would_meet, would_replace_an_input
from restore.fix.mask_pairing import masks_among, pair_names
from restore.fix.masks import MaskSource
from restore.fix.options import FixOptions
from restore.images.formats import composed
from restore.packed import Hashes, Names
from restore.places.files import EXISTS, Files, PlacedFile, Verdict
from restore.places.listing import Listing, folder_key, mask_names, store_names
from restore.places.store import NotThere, store_of
from restore.places.urls import as_folder, is_url

if TYPE_CHECKING:
    from restore.places.plan import PlacesPlan


def with_sidecars(plan: PlacesPlan, files: Files, listing: Listing) -> tuple[Files, bool]:
    """The files with their XMP sidecars, which are no files of their own then; and whether there are any."""
    found = {_key(file.source): file.source for file in files if file.name.lower().endswith(".xmp")}
    if not found:
        return files, False
    taken: set[str] = set()

    def paired() -> Iterator[PlacedFile]:
        for file in files:
            if file.name.lower().endswith(".xmp") or not listing.is_wanted(file):
                yield file
                continue
            source, goal = PurePosixPath(file.source), PurePosixPath(plan.target(file))
            folder, pairs = file.source.rpartition("/")[0], []
            for name, other in ((source.name, goal.name), (source.stem, goal.stem)):
                sidecar = found.get(_key(f"{folder}/{name}.xmp"))
                if sidecar is not None and sidecar not in taken:
                    taken.add(sidecar)
                    pairs.append((sidecar, other + sidecar[-4:]))
            yield file._replace(sidecars=tuple(pairs)) if pairs else file

    files = Files(paired())
    return Files(file for file in files if file.source not in taken) if taken else files, bool(taken)


def with_masks(plan: PlacesPlan, files: Files, listing: Listing, place: str, masks: MaskSource) -> Files:
    """The files with their masks, without those that are masks. Masks without an image are listed in the plan.

    Args:
        plan: of the run.
        files: also those that are excluded.
        listing: tells which these are.
        place: of the masks.
        masks: what they are.
    """
    if not masks.folder:
        return Files(file._replace(mask=place) for file in files if file.source != place)
    root = as_folder(place)
    beside = folder_key(root) in map(folder_key, {file.root for file in files})
    if beside:
        is_mask = masks_among((file.tree_name for file in files), len(files))
        files = Files(file for file, mask in zip(files, is_mask) if not mask)
    paired, unmatched = pair_names(
        mask_names(root), (file.tree_name for file in files), len(files), lambda name: root + name, beside=beside
    )
    if not all(file.named for file in files):  # else the folder may hold masks of images that were not named
        plan.unmatched_masks = list(unmatched)
        plan.warnings += [f"{printable(mask)}: {reason}" for mask, reason in unmatched.items()]
    missing = Verdict(**masks.when_missing())

    def with_own(file: PlacedFile, own: list[str]) -> PlacedFile:
        if file.verdict.action != "repair":
            return file
        if len(own) > 1:
            reason = f"has more than one mask: {' and '.join(map(printable, own))}"
            return file._replace(verdict=Verdict("fail", reason, "several_masks"))
        return file._replace(mask=own[0]) if own else file._replace(verdict=missing)

    return Files(with_own(file, paired[number]) for number, file in enumerate(files))


def may_meet_inputs(plan: PlacesPlan, mask_place: str | None) -> bool:
    """Whether the folders of outputs hold inputs or masks, or lie in their folders."""
    read = {file.root for file in plan.files}
    if mask_place is not None and plan.masks is not None:
        read.add(mask_place if plan.masks.folder else mask_place.rpartition("/")[0])
    written = ((plan.file_output or as_folder(plan.output)).rpartition("/")[0], plan.side or plan.output)
    keys = [folder_key(folder) for folder in written]
    return any(root.startswith(key) or key.startswith(root) for root in map(folder_key, read) for key in keys)


def refuse_collisions(plan: PlacesPlan) -> None:
    """Refuse two outputs with one name, and outputs that are also read.

    Raises:
        RestoreError: exit code 2.
    """

    def targets() -> Iterator[tuple[str, str]]:
        for file in plan.files.to_do():
            side = plan.side_target(file)
            further = (*(target for _, target in plan.sidecar_targets(file)), *([] if side is None else [side]))
            for target in (plan.target(file), *further):
                yield target, file.source

    def sources() -> Iterator[str]:
        for file in plan.files:
            yield from (file.source, *filter(None, [file.mask]), *(source for source, _ in file.sidecars))

    written = Hashes(_place_key(target) for target, _ in targets())
    suspects = written.repeated() | written.shared(Hashes(map(_place_key, sources())))
    if not suspects:
        return
    read = {place for place in map(_place_key, sources()) if hash(place) in suspects}
    taken: dict[str, str] = {}
    for target, source in targets():
        place = _place_key(target)
        if hash(place) not in suspects:
            continue
        if place in read:
            raise would_replace_an_input(target)
        if (other := taken.get(place)) is not None:
            raise would_meet(target, source, None if other == source else other)
        taken[place] = source


def settle_existing(plan: PlacesPlan, options: FixOptions) -> None:
    """Skip files whose output exists, or refuse them, as the options say.

    Raises:
        RestoreError: exit code 2; also if there is no such bucket.
    """
    if options.overwrite:
        if is_url(plan.output):
            next(store_of(plan.output).list(as_folder(plan.output)), None)  # the bucket is there
        return
    exists = _existing(plan.output, single=plan.file_output)
    side_exists = None if plan.side is None or plan.for_page else _existing(plan.side)
    if exists is None and side_exists is None:
        return
    first, count = "", 0

    def settled() -> Iterator[PlacedFile]:
        nonlocal first, count
        for file in plan.files:
            found: list[str] = []
            if file.is_work and exists is not None:
                targets = (plan.target(file), *(target for _, target in plan.sidecar_targets(file)))
                found += filter(exists, targets)
            side = plan.side_target(file) if file.verdict.action == "repair" else None
            if side is not None and side_exists is not None and side_exists(side):
                found.append(side)
            if found and not options.skip_existing:
                first, count = first or found[0], count + len(found)
            yield file._replace(verdict=EXISTS) if found[:1] == [plan.target(file)] else file

    plan.files = Files(settled())
    if first:
        more = f" (and {count - 1} more outputs)" if count > 1 else ""
        raise RestoreError(f"exists already{more}", where=first, hint="use --overwrite or --skip-existing")


def _existing(folder: str, *, single: str | None = None) -> Callable[[str], bool] | None:
    """A function that says whether an output exists, by the disk or one listing of the store; None: none exists."""
    if not is_url(folder):
        return os.path.lexists
    if single is not None:
        exists = store_of(single).exists(single)
        if not exists:
            next(store_of(single).list(single.rpartition("/")[0] + "/"), None)  # the bucket is there
        return (lambda target: True) if exists else None
    root = as_folder(folder)
    try:
        names = Names(name for name, _ in store_names(root))
    except NotThere as error:
        error.hint = "make it first"
        raise
    return (lambda target: target.startswith(root) and target[len(root) :] in names) if len(names) else None


def _place_key(place: str) -> str:
    """The same for all spellings of a file; of a link, not that of its target."""
    if is_url(place):
        return place
    folder, name = os.path.split(place)
    return os.path.join(_real(folder), name)


_real = lru_cache(1000)(os.path.realpath)


def _key(place: str) -> str:
    """The same for all spellings of a sidecar's place."""
    folder, _, name = place.rpartition("/")
    return f"{folder}/{composed(name).casefold()}"
