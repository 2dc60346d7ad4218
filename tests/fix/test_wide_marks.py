"""Wide detected marks are completed up to their edges; thin marks and exact masks stay."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from skimage import data

from restore.fix.wide_marks import complete_wide_marks

PAPER = (0.93, 0.88, 0.8)


def photograph() -> np.ndarray:
    return data.astronaut()[:320, 100:420].astype(np.float32) / 255


def chip() -> np.ndarray:
    shape = np.zeros((320, 320), np.uint8)
    cv2.fillPoly(shape, [np.array([(30, 200), (150, 170), (120, 300), (60, 290)], np.int32)], 1)
    return shape


def eroded(mask: np.ndarray, px: int) -> np.ndarray:
    return cv2.erode(mask, np.ones((2 * px + 1, 2 * px + 1), np.uint8))


def damaged(shape: np.ndarray, color: tuple[float, float, float] = PAPER) -> np.ndarray:
    image = photograph() * 0.6  # darker than paper everywhere
    image[shape > 0] = color
    return image


@pytest.mark.parametrize("missed_px", [1, 2])
def test_a_mask_that_stops_before_the_edge_of_a_chip_reaches_it(missed_px: int) -> None:
    shape = chip()
    mask = eroded(shape, missed_px).astype(np.float32)
    completed = complete_wide_marks(mask, damaged(shape))
    assert completed[shape > 0].mean() > 0.99
    assert not completed[cv2.dilate(shape, np.ones((7, 7), np.uint8)) == 0].any()
    assert set(np.unique(completed)) == {0, 1}


def test_an_exact_mask_stays() -> None:
    mask = chip().astype(np.float32)
    image = damaged(chip())
    image[mask == 0] = np.random.default_rng(0).normal(0.3, 0.05, (int((mask == 0).sum()), 3))
    assert np.array_equal(complete_wide_marks(mask, image), mask)
    busy = complete_wide_marks(mask, damaged(chip()))  # some pixels are as bright by chance
    assert busy.sum() < 1.04 * mask.sum()


def test_a_rim_farther_than_the_reach_is_not_followed() -> None:
    shape = np.ones((320, 320), np.uint8)  # all of it has the color of the mark
    mask = eroded(chip(), 1).astype(np.float32)
    assert np.array_equal(complete_wide_marks(mask, damaged(shape)), mask)


def test_a_mark_that_hardly_differs_from_its_surroundings_stays() -> None:
    image = np.full((320, 320, 3), 0.5, np.float32)
    image[chip() > 0] = 0.6
    mask = eroded(chip(), 2).astype(np.float32)
    assert np.array_equal(complete_wide_marks(mask, image), mask)


def test_thin_marks_stay() -> None:
    shape = np.zeros((320, 320), np.uint8)
    cv2.line(shape, (20, 30), (300, 280), 1, 5)
    mask = eroded(shape, 1).astype(np.float32)
    assert complete_wide_marks(mask, damaged(shape)) is mask
    empty = np.zeros_like(mask)
    assert complete_wide_marks(empty, damaged(shape)) is empty


def test_a_chip_at_the_border_is_completed() -> None:
    shape = np.roll(chip(), -40, axis=1)
    shape[:, 280:] = 0
    mask = eroded(shape, 2).astype(np.float32)
    completed = complete_wide_marks(mask, damaged(shape))
    assert completed[shape > 0].mean() > 0.98
