"""HEIC, as phones write it: through `pillow-heif` where that is installed (`restore-toolkit[heic]`)."""

from __future__ import annotations

import functools

#: What to do about a HEIC file where it is not.
ADVICE = "pip install 'restore-toolkit[heic]' brings what reads and writes it"


@functools.cache
def available() -> bool:
    """Whether Pillow knows HEIC; teaches it where that is possible."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener(thumbnails=False)
    return True
