"""Saving of repairs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from restore.errors import RestoreError, printable
from restore.files import replace_atomically
from restore.serve.page.listing import stamp_of
from restore.serve.page.work_folder import restored
from restore.serve.page.workspace import Workspace


class FileExists(RestoreError):
    """A file that would be overwritten."""


def save(workspace: Workspace, file: int, *, overwrite: bool) -> tuple[Path, list[str]]:
    """Copy a repaired file, and what belongs to it, to the output folder, atomically.

    Args:
        workspace: of the file.
        file: it has been repaired.
        overwrite: replace a file that this page has not written itself.

    Returns:
        The file, and the notes of the repair.

    Raises:
        RestoreError: it has not been repaired, or the file exists or cannot be written.
    """
    workspace.forget_lost(file)
    source, notes = workspace.result(file)
    row = workspace.row(file)
    target = workspace.output / restored(row["name"])
    pairs = [(other, target.with_name(other.name)) for other in sorted(source.parent.iterdir()) if other != source]
    pairs.append((source, target))  # last, so that what belongs to it is there with it
    own = row["saved_path"] == printable(target) and row["saved_stamp"] == stamp_of(target)
    for _, place in pairs:
        if os.path.lexists(place) and not (overwrite or own):
            raise FileExists("exists already", where=place, hint="overwrite it, or choose another --output")
    for other, place in pairs:
        with replace_atomically(place, like=other.stat()) as temporary:
            shutil.copyfile(other, temporary)
    workspace.database.run(
        "UPDATE files SET saved = ?, saved_path = ?, saved_stamp = ? WHERE id = ?",
        workspace.output_key(row), printable(target), stamp_of(target), file,
    )  # fmt: skip
    return target, notes
