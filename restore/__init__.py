"""Restore damaged photographs: repair images and folders, score the results, train the networks.

    import restore
    restore.fix_folder("scans", "repaired", options=restore.FixOptions(masks="auto"))
    repaired = restore.fix_image(array)  # or a PIL image, or the bytes of a file

Names are imported on first use, which keeps `import restore` fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from restore._version import __version__
    from restore.api import degrade, evaluate, train
    from restore.errors import RestoreError
    from restore.fix.image import fix_image
    from restore.fix.options import FixOptions
    from restore.fix.run import fix_folder
    from restore.restorers.detector import open_detector
    from restore.restorers.registry import open_restorer

__all__ = [
    "FixOptions",
    "RestoreError",
    "__version__",
    "degrade",
    "evaluate",
    "fix_folder",
    "fix_image",
    "open_detector",
    "open_restorer",
    "train",
]

_MODULES = {
    "FixOptions": "restore.fix.options",
    "RestoreError": "restore.errors",
    "__version__": "restore._version",
    "degrade": "restore.api",
    "evaluate": "restore.api",
    "fix_folder": "restore.fix.run",
    "fix_image": "restore.fix.image",
    "open_detector": "restore.restorers.detector",
    "open_restorer": "restore.restorers.registry",
    "train": "restore.api",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'restore' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value  # later uses skip this function
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
