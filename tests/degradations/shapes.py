"""A folder of shapes to lay over images: disks, and lines, one kind per subfolder."""

import functools
import tempfile
from pathlib import Path

import numpy as np

from restore.images import write_png

_FOLDERS: list[tempfile.TemporaryDirectory] = []


@functools.cache
def shapes_folder() -> Path:
    """A folder that lives as long as the process: `disks/` of radius 12 and 20 px, `lines/` of 60×4 px."""
    _FOLDERS.append(tempfile.TemporaryDirectory())
    folder = Path(_FOLDERS[-1].name)
    y, x = np.mgrid[:64, :64]
    for radius in (12, 20):
        _write(folder / "disks" / f"{radius}.png", np.hypot(y - 31.5, x - 31.5) <= radius)
    _write(folder / "lines" / "level.png", (abs(y - 31.5) < 2) & (abs(x - 31.5) < 30))
    return folder


def _write(path: Path, covered: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    write_png(path, np.repeat(covered[..., None], 3, 2).astype(np.uint8) * 255)
