"""A picture on its way through the stages, and what became of it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from restore.images import Picture
from restore.repair.chain import Steps
from restore.repair.plan import Job

FloatArray = npt.NDArray[np.float32]


@dataclass
class Loaded:
    """A picture on its way through the stages.

    Attributes:
        job: what is to happen to it.
        data: the file, where it may be copied; else empty.
        picture: decoded.
        stat: the file's, when it was read; None of a pipe.
        steps: what is done to it.
        shown, weight: what the first model gets; the weight, also where it was found on the way, is the picture's mask.
        input_sha256: of the file, where there is a log.
        notes: what the user should know, growing on the way.
        seconds: spent on it so far.
        further_weights: where to repair the further pages of a TIFF; None everywhere.
        further: these pages, repaired.
        filled: the restorer ran, on some page.
        cleaned: so did what cleans up, and its work was taken.
        everywhere: known pixels of the first page changed, too.
    """

    job: Job
    data: bytes
    picture: Picture
    stat: os.stat_result | None
    steps: Steps
    shown: FloatArray | None
    weight: FloatArray | None
    input_sha256: str | None
    notes: list[str]
    seconds: float
    further_weights: list[FloatArray | None] = field(default_factory=list)
    further: tuple[Picture, ...] = ()
    filled: bool = False
    cleaned: bool = False
    everywhere: bool = False

    @property
    def pixels(self) -> int:
        """Its size, with all pages."""
        return sum(page.size[0] * page.size[1] for page in (self.picture, *self.picture.further))

    @property
    def marked_share(self) -> float | None:
        """Of all pixels, on all pages, those that a mask marks; None without masks."""
        weights = [self.weight, *self.further_weights]
        marked = [int(np.count_nonzero(weight)) for weight in weights if weight is not None]
        return sum(marked) / self.pixels if len(marked) == len(weights) else None


@dataclass(frozen=True)
class Huge:
    """A picture that is not held in memory: it goes through all stages in bands when its turn comes."""

    job: Job
    pixels: int = 0


def would_suffer(picture: Picture) -> bool:
    """Whether writing it again would cost quality, and it is in its file as it goes out: then, where the model
    changed nothing, the file itself is the better output.
    """
    lossy = picture.format == "jpeg" or picture.compression == "lossy"
    return lossy and not picture.turned and not picture.notes


def opaque_where_repaired(picture: Picture, weight: FloatArray | None) -> Picture:
    """Alpha said where to repair, and has done its work: left transparent, the repair could not be seen."""
    if picture.alpha is None or weight is None:
        return picture
    alpha = picture.alpha.copy()
    alpha[weight > 0] = picture.white
    return replace(picture, alpha=alpha)


def changed_share(before: Picture, after: Picture) -> float:
    """Of all pixels, on all pages."""
    count, total = 0, 0
    for old, new in zip((before, *before.further), (after, *after.further)):
        if old.pixels.shape != new.pixels.shape:
            return 1.0
        changed = old.pixels[:, :, 0] != new.pixels[:, :, 0]
        for channel in range(1, old.pixels.shape[2]):
            changed |= old.pixels[:, :, channel] != new.pixels[:, :, channel]
        count, total = count + int(np.count_nonzero(changed)), total + changed.size
    return count / total
