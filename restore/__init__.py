"""Image restoration and inpainting: train, repair folders of photographs, score the results.

`open_restorer` and `fix_folder` are what `restore fix` is made of, `open_detector` is what `restore detect` looks with;
they are imported when first asked for, so that `import restore` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from restore.fix.run import fix_folder as fix_folder
    from restore.restorers.detector import open_detector as open_detector
    from restore.restorers.registry import open_restorer as open_restorer

__version__ = "0.1.0"
__all__ = ["__version__", "fix_folder", "open_detector", "open_restorer"]


def __getattr__(name: str) -> Any:
    if name == "fix_folder":
        from restore.fix.run import fix_folder

        return fix_folder
    if name == "open_detector":
        from restore.restorers.detector import open_detector

        return open_detector
    if name == "open_restorer":
        from restore.restorers.registry import open_restorer

        return open_restorer
    raise AttributeError(f"module 'restore' has no attribute {name!r}")
