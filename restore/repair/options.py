"""How pictures are repaired and written, whichever they are."""

from __future__ import annotations

from dataclasses import dataclass

from restore.errors import RestoreError
from restore.images.read import Truncated
from restore.repair.outputs import Metadata

#: What is too large for memory goes through in parts, so that more is allowed than where pictures are read as a whole.
MAX_PIXELS = 1_000_000_000


@dataclass(frozen=True)
class Options:
    """How pictures are repaired and written; see `run_fix`."""

    mask_dilate: int = 0
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

    def __post_init__(self) -> None:
        for name, value, limit in (("dilate", self.mask_dilate, 500), ("feather", self.mask_feather, 500)):
            if not 0 <= value <= limit:
                raise RestoreError(f"{value} is out of range", where=f"--mask-{name}", hint=f"0 to {limit} pixels")
        if not 0 <= self.strength <= 1:
            raise RestoreError(f"{self.strength} is out of range", where="--strength", hint="0 (nothing) to 1 (all)")
        if str(self.tile) != "auto" and not str(self.tile).isdecimal():
            raise RestoreError(f"{self.tile!r} is no tile", where="--tile", hint="auto, 0 (never), or a side in pixels")
        if self.max_pixels < 1:
            raise RestoreError(f"{self.max_pixels} lets no picture in", where="--max-pixels", hint="1 or more")
        if self.truncated not in ("fail", "accept"):
            raise RestoreError(f"cannot be {self.truncated!r}", where="--truncated", hint="fail or accept")
