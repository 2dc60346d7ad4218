"""XMP sidecars, the files in which photo programs keep captions, ratings and edits: they go along with their images."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

from restore.errors import RestoreError, printable
from restore.files import write_atomically
from restore.fix.inputs import PIPE
from restore.fix.jobs import Entry, Job, split
from restore.images import read_bytes
from restore.images.metadata.exif import upright_xmp

_PIPE = os.fspath(PIPE)
_SUFFIXES = (".xmp", ".XMP", ".Xmp")


def with_sidecars(entries: Iterable[Entry], taken: set[str]) -> Iterator[Entry]:
    """Give images their sidecars: `x.jpg.xmp` and `x.xmp` for `x.jpg`, in any case of the suffix.

    Two images that share `x.xmp` write it once.

    Args:
        entries: the jobs.
        taken: gets the sidecars.
    """
    listings: dict[str, set[str]] = {}
    targets: set[str] = set()
    for entry in entries:
        folder, name = split(entry.source)
        if entry.settled or _PIPE in (entry.source, entry.target):
            yield entry
            continue
        if folder not in listings:
            listings[folder] = _sidecars_in(folder)
        if not listings[folder]:
            yield entry
            continue
        to, goal = split(entry.target)
        pairs = {}
        for own, its in ((name, goal), (Path(name).stem, Path(goal).stem)):
            for suffix in _SUFFIXES:
                source, target = os.path.join(folder, own + suffix), os.path.join(to, its + suffix)
                if target not in targets and _key(own + suffix) in listings[folder] and os.path.isfile(source):
                    pairs[source] = target
                    targets.add(target)
                    break
        taken.update(pairs)
        yield entry._replace(sidecars=tuple(pairs.items())) if pairs else entry


def _sidecars_in(folder: str) -> set[str]:
    """Keys of the names in a folder that could be sidecars; looking for six files for each image takes longer."""
    try:
        with os.scandir(folder) as listing:
            return {_key(entry.name) for entry in listing if entry.name.lower().endswith(".xmp")}
    except OSError:
        return set()


def _key(name: str) -> str:
    """The same for all spellings of a name that may be one file on some disk."""
    return unicodedata.normalize("NFC", name).casefold()


def write_sidecars(
    job: Job, upright: tuple[int, int] | None, *, overwrite: bool, notes: list[str], reoriented: bool = True
) -> None:
    """Write the sidecars of an image beside its output, atomically.

    Args:
        job: the image.
        upright: (H, W) of the output if its pixels were turned upright or enlarged; None: sidecars are copied as they
            are.
        overwrite: replace existing files; otherwise they are kept, because a person may have edited them.
        notes: gets a warning for each sidecar that cannot be read, or that is kept.
        reoriented: they were turned, so that sidecars must not turn them again.

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
            data = upright_xmp(data, upright, reoriented=reoriented)
        write_atomically(target, data, like=status, overwrite=overwrite)
