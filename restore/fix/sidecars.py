"""XMP sidecars, the files in which photo programs keep captions, ratings and edits: they go along with their images."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from restore.errors import RestoreError, printable
from restore.files import write_atomically
from restore.fix.inputs import PIPE
from restore.fix.plan import Job
from restore.images import read_bytes
from restore.images.metadata.exif import upright_xmp

_SUFFIXES = (".xmp", ".XMP", ".Xmp")


def with_sidecars(jobs: Iterable[Job]) -> list[Job]:
    """Give images their sidecars: `x.jpg.xmp` and `x.xmp` for `x.jpg`, in any case of the suffix.

    Two images that share `x.xmp` write it once.
    """
    taken: set[Path] = set()
    listings: dict[Path, set[str]] = {}
    result = []
    for job in jobs:
        if job.action in ("skip", "fail") or PIPE in (job.source, job.target):
            result.append(job)
            continue
        folder = job.source.parent
        if folder not in listings:
            listings[folder] = _sidecars_in(folder)
        if not listings[folder]:
            result.append(job)
            continue
        pairs = {}
        for name, goal in ((job.source.name, job.target.name), (job.source.stem, job.target.stem)):
            for suffix in _SUFFIXES:
                source, target = job.source.with_name(name + suffix), job.target.with_name(goal + suffix)
                if target not in taken and _key(source.name) in listings[folder] and os.path.isfile(source):
                    pairs[source] = target
                    taken.add(target)
                    break
        result.append(replace(job, sidecars=tuple(pairs.items())) if pairs else job)
    return result


def _sidecars_in(folder: Path) -> set[str]:
    """Keys of the names in a folder that could be sidecars; looking for six files for each image takes longer."""
    try:
        return {_key(name) for name in os.listdir(folder) if name.lower().endswith(".xmp")}
    except OSError:
        return set()


def _key(name: str) -> str:
    """The same for all spellings of a name that may be one file on some disk."""
    return unicodedata.normalize("NFC", name).casefold()


def write_sidecars(job: Job, upright: tuple[int, int] | None, *, overwrite: bool, notes: list[str]) -> None:
    """Write the sidecars of an image beside its output, atomically.

    Args:
        job: the image.
        upright: (H, W) of the output if its pixels were turned upright, so that sidecars must not turn it again; None:
            sidecars are copied as they are.
        overwrite: replace existing files; otherwise they are kept, because a person may have edited them.
        notes: gets a warning for each sidecar that cannot be read, or that is kept.

    Raises:
        RestoreError: exit code 1; a sidecar cannot be written.
    """
    for source, target in job.sidecars:
        try:
            data, status = read_bytes(source), os.stat(source)
        except (RestoreError, OSError) as error:
            what = error.what if isinstance(error, RestoreError) else f"{error.strerror}"
            notes.append(f"its sidecar {printable(source)} is left out: {what}")
            continue
        if not overwrite and os.path.lexists(target):
            notes.append(f"{printable(target)} exists already and was kept; --overwrite replaces it")
            continue
        if upright is not None:
            data = upright_xmp(data, upright, reoriented=True)
        write_atomically(target, data, like=status, overwrite=overwrite)
