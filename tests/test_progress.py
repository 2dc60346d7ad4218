"""Progress: told from inside, watched from outside."""

import pytest
import torch

from restore import progress
from restore.tiling import run_tiled


def test_nobody_watches() -> None:
    progress.done(0.5)
    with progress.part(0, 1):
        progress.done(1)


def test_parts_of_parts_add_up() -> None:
    told: list[float] = []
    with progress.watching(told.append):
        for start, share in progress.shares([1, 3]):
            with progress.part(start, share):
                for inner in progress.shares([1, 1]):
                    with progress.part(*inner):
                        progress.done(0.5)
    assert told == pytest.approx([0.0625, 0.125, 0.1875, 0.25, 0.4375, 0.625, 0.8125, 1])
    with progress.part(0, 0.5):
        progress.done(1)
    assert len(told) == 8, "the watch is over"


def test_it_never_falls() -> None:
    told: list[float] = []
    with progress.watching(told.append):
        for share in (0.5, 0.2, 0.7, 0.7, 3):
            progress.done(share)
    assert told == [0.5, 0.7, 1]


def test_an_interrupted_part_is_left_behind() -> None:
    told: list[float] = []
    with progress.watching(told.append):
        with pytest.raises(KeyboardInterrupt), progress.part(0.5, 0.5):
            raise KeyboardInterrupt
        progress.done(0.25)
    assert told == [0.25], "a part that is not finished does not count as done"


def test_tiles_are_told_one_by_one() -> None:
    told: list[float] = []
    with progress.watching(told.append), progress.part(0.5, 0.5):
        run_tiled(lambda tile: tile, torch.rand(1, 3, 300, 200), tile_px=100, overlap_px=4)
    assert told[0] == 0.5
    assert told[-1] == 1
    assert len(told) > 6
    assert told == sorted(told)
