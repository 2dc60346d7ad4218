"""Outputs of runs over URLs, which are written whole from files of a work folder, and replace nothing unasked."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from restore.errors import RestoreError, printable
from restore.files import replace_atomically
from restore.fix.batch_options import BatchOptions
from restore.fix.file_plan import PlannedFile
from restore.fix.options import FixOptions
from restore.fix.results import disk_is_full
from restore.fix.side_outputs import FOUND
from restore.images import FORMAT_OF_SUFFIX
from restore.places.store import ExistsAlready, StoreError, sha256_of_file, store_of
from restore.places.urls import as_folder, file_name_for, is_url, scheme_of

#: Content types that names do not tell everywhere.
_CONTENT_TYPES = {
    "jpeg": "image/jpeg", "png": "image/png", "webp": "image/webp", "tiff": "image/tiff", "avif": "image/avif",
    "bmp": "image/bmp",
}  # fmt: skip


class GroupFile(NamedTuple):
    """A file of a group. Places are paths or URLs; a tuple of the first two or three is enough.

    Attributes:
        input: the image or video.
        output: what is written.
        mask: its mask; None: it has none, or it is not a file.
        name: path in the tree of all outputs, by which condition images are found; "": the name of the input.
        side_output: a second output: the mask that was used, or a preview; None: there is none.
        sidecars: files that go along, and their outputs.
        named: the user named this file, so that it fails if it is no image.
    """

    input: str
    output: str
    mask: str | None = None
    name: str = ""
    side_output: str | None = None
    sidecars: tuple[tuple[str, str], ...] = ()
    named: bool = False


def masks_for_page(options: FixOptions) -> str | None:
    """The folder of the HTML report that gets the masks of detected damage; None: it gets none."""
    if options.html_report is None or options.masks != "auto" or options.save_masks is not None:
        return None
    page = options.html_report
    return as_folder(os.fspath(page)) + FOUND if is_url(page) else os.path.join(page, FOUND)


def exists(place: str) -> bool:
    """Whether there is such a file or object."""
    return store_of(place).exists(place) if is_url(place) else os.path.lexists(place)


def sha256_of(place: str) -> str | None:
    """The SHA-256 of a file or object in hexadecimal; None: it is not there, or cannot be read."""
    try:
        return store_of(place).sha256(place) if is_url(place) else sha256_of_file(Path(place))
    except (RestoreError, OSError):
        return None


def write_outputs(file: GroupFile, local: PlannedFile, options: BatchOptions, metadata: Mapping[str, str]) -> list[str]:
    """Write the outputs of an image, the repaired image last.

    Args:
        file: their places.
        local: where they are on this disk.
        options: of the run.
        metadata: what users have attached to the input.

    Returns:
        Warnings.

    Raises:
        StoreError: an output cannot be written. `ExistsAlready`: another writer has written the repaired image.
    """
    notes: list[str] = []
    overwrite = options.overwrite
    further = local.side_target is not None or local.sidecars
    if further and not overwrite and exists(file.output) and sha256_of(file.output) != sha256_of_file(local.target):
        raise _appeared(file.output)  # nothing is written beside an output of another writer
    kept = {}
    if getattr(options, "metadata", "strip") == "keep" and scheme_of(file.output) == "s3":
        kept = {key: value for key, value in metadata.items() if value.isascii() and key.isascii()}
        if left_out := sorted(metadata.keys() - kept.keys()):
            notes.append(f"metadata of the object that is not ASCII is left out: {', '.join(left_out)}")
    sidecars = [(path, place) for (_, path), (_, place) in zip(local.sidecars, file.sidecars)]
    side = [] if local.side_target is None or file.side_output is None else [(local.side_target, file.side_output)]
    for_page = isinstance(options, FixOptions) and masks_for_page(options) is not None
    for path, place in side + sidecars:
        if path.exists():
            kind = "application/rdf+xml" if (path, place) in sidecars else None
            try:
                _write(path, place, overwrite=overwrite or (for_page and kind is None), kind=kind)
            except ExistsAlready:
                notes.append(f"{printable(place)} exists already and was kept; --overwrite replaces it")
    format_ = FORMAT_OF_SUFFIX.get(Path(file_name_for(file.output)).suffix.lower(), "")
    _write(local.target, file.output, overwrite=overwrite, kind=_CONTENT_TYPES.get(format_), metadata=kept)
    return notes


def _write(
    path: Path, place: str, *, overwrite: bool, kind: str | None, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a file to its place. One that is there already with the same content is no error.

    Raises:
        StoreError: it cannot be written. `ExistsAlready`: there is another one.
    """
    if is_url(place):
        store_of(place).upload(path, place, overwrite=overwrite, content_type=kind, metadata=metadata)
        return
    try:
        with replace_atomically(Path(place), overwrite=overwrite) as temporary:
            shutil.copy2(path, temporary)
    except RestoreError as error:
        if not isinstance(error.__cause__, FileExistsError) or os.path.isdir(place):
            raise _unwritten(error, place) from error.__cause__
        if sha256_of(place) != sha256_of_file(path):
            raise _appeared(place) from error


def _appeared(place: str) -> ExistsAlready:
    kind = "an object" if is_url(place) else "a file"
    return ExistsAlready(
        f"{kind} with this name appeared during the run and was not overwritten", where=place, exit_code=1
    )


def _unwritten(error: RestoreError, place: str) -> StoreError:
    """What a file of this machine could not be written for, with its code."""
    failed = StoreError(error.what, where=place, hint=error.hint, exit_code=1)
    if disk_is_full(error):
        failed.code = "disk_full"
    elif isinstance(error.__cause__, PermissionError):
        failed.code = "no_permission"
    return failed
