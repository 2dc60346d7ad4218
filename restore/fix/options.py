"""How pictures are repaired and written, whichever they are."""

from __future__ import annotations

from dataclasses import dataclass

from restore.errors import RestoreError
from restore.fix.io import Metadata
from restore.fix.masks import Dilate
from restore.images.read import Truncated

#: What is too large for memory goes through in parts, so that more is allowed than where pictures are read as a whole.
MAX_PIXELS = 1_000_000_000
_FARTHEST_PX = 500


def dilate_from(text: str) -> Dilate:
    """How far masks are widened, as the command line says it: `auto`, or pixels.

    Raises:
        RestoreError: exit code 2; it is neither.
    """
    if text == "auto":
        return "auto"
    if not text.isdecimal() or int(text) > _FARTHEST_PX:
        raise RestoreError(f"{text!r} is no width", where="--mask-dilate", hint=f"auto, or 0 to {_FARTHEST_PX} pixels")
    return int(text)


@dataclass(frozen=True)
class Options:
    """How pictures are repaired and written; see `run_fix`."""

    mask_dilate: Dilate = 0
    mask_feather: int = 0
    tile: str | int = "auto"
    quality: int | None = None
    metadata: Metadata = "keep"
    max_pixels: int = MAX_PIXELS
    truncated: Truncated = "fail"
    strength: float = 1
    fade: bool = False
    provenance: bool = True
    match_grain: bool = False
    spare_clean: bool = False

    def __post_init__(self) -> None:
        dilate_from(str(self.mask_dilate))
        if not 0 <= self.mask_feather <= _FARTHEST_PX:
            raise RestoreError(
                f"{self.mask_feather} is out of range", where="--mask-feather", hint=f"0 to {_FARTHEST_PX} pixels"
            )
        if not 0 <= self.strength <= 1:
            raise RestoreError(f"{self.strength} is out of range", where="--strength", hint="0 (nothing) to 1 (all)")
        if str(self.tile) != "auto" and not str(self.tile).isdecimal():
            raise RestoreError(f"{self.tile!r} is no tile", where="--tile", hint="auto, 0 (never), or a side in pixels")
        if self.max_pixels < 1:
            raise RestoreError(f"{self.max_pixels} lets no picture in", where="--max-pixels", hint="1 or more")
        if self.truncated not in ("fail", "accept"):
            raise RestoreError(f"cannot be {self.truncated!r}", where="--truncated", hint="fail or accept")
