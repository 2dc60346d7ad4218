"""A picture too large for memory on its way from spool to spool: what models see of its parts, and its fading."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from restore.images import Picture
from restore.images.spool import SpooledPicture
from restore.repair.fade import Curves, estimated, thumbnail

_STRIP_PIXELS = 2_000_000  # that are put back into their own colours at once


@dataclass(frozen=True)
class Task:
    """A picture on its way from spool to spool.

    Attributes:
        before, after: as it was, and as it becomes.
        curves: undo its fading; None where that is not asked for.
        strength: how much of the repair is taken.
        tile_px, say: see `run_tiled`.
    """

    before: SpooledPicture
    after: SpooledPicture
    curves: Curves | None
    strength: float
    tile_px: int
    say: Callable[[str], None]

    @property
    def strip_rows(self) -> int:
        """How many rows are put back into their own colours at once."""
        return max(_STRIP_PIXELS // self.before.size[1], 1)

    def shown(self, source: Picture) -> np.ndarray:
        """What a model sees of a part."""
        shown = source.shown()
        return shown if self.curves is None else self.curves(shown)

    def unfade(self) -> int:
        """Undo the fading of the whole picture; returns how many pixels changed."""
        changed, across = 0, slice(0, self.before.size[1])
        for rows, source in self._strips():
            unfaded = source.with_repaired(self.shown(source), strength=self.strength)
            self.after.put(rows, across, unfaded)
            changed += int((source.pixels != unfaded.pixels).any(axis=2).sum())
        return changed

    def strips(self) -> Iterator[np.ndarray]:
        """The picture's own pixels from the top down, some rows at once."""
        return (source.pixels for _, source in self._strips())

    def _strips(self) -> Iterator[tuple[slice, Picture]]:
        height, width = self.before.size
        for top in range(0, height, self.strip_rows):
            rows = slice(top, min(top + self.strip_rows, height))
            yield rows, self.before.part(rows, slice(0, width))


def curves_of(picture: SpooledPicture) -> Curves:
    """What undoes a picture's fading, estimated from a thumbnail of all of it."""
    across = slice(0, picture.size[1])
    return estimated(thumbnail(lambda rows: picture.part(rows, across).shown(), picture.size))
