"""The images that the page shows: those that `restore fix` would repair, or say why it cannot."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from restore.errors import RestoreError
from restore.fix.options import FixOptions
from restore.fix.plan import plan_fix, without_videos


@dataclass(frozen=True)
class Listed:
    """An image in the folder.

    Attributes:
        name: its path in the folder, and that of its output in the output folder.
        source: the file.
        stamp: changes if the file does.
        reason, code: why it cannot be read, see `restore.fix.plan.Job`; "": it may be.
    """

    name: str
    source: Path
    stamp: str
    reason: str = ""
    code: str = ""


@dataclass(frozen=True)
class Listing:
    """What was opened.

    Attributes:
        opened: the folder or file, with all links of folders resolved.
        folder: the folder; of a single file the one that it is in.
        output: the folder for what is saved.
        images: in the order of `restore fix`.
        warnings: one line each.
    """

    opened: Path
    folder: Path
    output: Path
    images: list[Listed]
    warnings: list[str]


def list_images(opened: Path, output: Path | None, max_pixels: int) -> Listing:
    """List a folder, or one file.

    Args:
        opened: the folder or file.
        output: None: a folder beside the opened one, with `-repaired` in its name.
        max_pixels: the limit of the server.

    Raises:
        RestoreError: exit code 2; as `restore.fix.plan.plan_fix`.
    """
    single = not opened.is_dir()
    named = opened.parent if single else opened
    folder = Path(os.path.realpath(named))
    if output is None:
        if folder == folder.parent:
            raise RestoreError("has no folder beside it for saved repairs", where=opened, hint="choose one: --output")
        output = folder.with_name(f"{folder.name}-repaired")
    options = FixOptions(overwrite=True, max_pixels=max_pixels)
    plan = without_videos(plan_fix(opened, os.path.join(output, "") if single else output, options))
    images, warnings = [], list(plan.warnings)
    outside = 0
    for job in plan.jobs:
        if job.action == "skip":
            continue
        if not is_inside(job.source, folder):
            outside += 1
            continue
        images.append(Listed(job.name.as_posix(), job.source, stamp_of(job.source), job.reason, job.code))
    if outside:
        what = "1 link leads" if outside == 1 else f"{outside} links lead"
        warnings.append(f"left out: {what} out of the folder")
    place = folder / opened.name if single else folder
    return Listing(place, folder, Path(os.path.abspath(output)), images, warnings)


def is_inside(path: Path, folder: Path) -> bool:
    """Whether a file lies in a folder whose links are resolved, after those of the file are."""
    return Path(os.path.realpath(path)).is_relative_to(folder)


def stamp_of(path: Path) -> str:
    """Size and time of a file; "" if there is none."""
    try:
        status = path.stat()
    except OSError:
        return ""
    return f"{status.st_size}:{status.st_mtime_ns}"
