"""Precision, recall and F1 of marked damage, on arrays small enough to count by hand."""

import cv2
import numpy as np
import pytest
import torch

from restore.metrics.segmentation import grown, precision_recall_f1, tolerant_counts


def mask(*rows: str) -> torch.Tensor:
    """`#` is marked."""
    return torch.tensor([[character == "#" for character in row] for row in rows])[None, None]


TRUE = mask(
    ".......",
    ".##....",
    ".......",
    ".....#.",
)  # fmt: skip


@pytest.mark.parametrize(
    ("predicted", "tolerance_px", "marked", "right", "found"),
    [
        (TRUE, 1, 3, 3, 3),
        (torch.zeros_like(TRUE), 1, 0, 0, 0),
        # one row too low, the single pixel missed, and a false alarm
        (mask(".......", ".......", ".##....", "......."), 1, 2, 2, 2),
        (mask(".......", ".......", ".##....", "......."), 0, 2, 0, 0),
        (mask("......#", ".#.....", ".......", "......."), 1, 2, 1, 2),
        # diagonally beside it is more than a pixel away
        (mask(".......", ".......", "....#..", "......."), 1, 1, 0, 0),
        (mask(".......", ".......", "....#..", "......."), 2, 1, 1, 1),
    ],
)
def test_pixels_within_the_tolerance_count_as_right(
    predicted: torch.Tensor, tolerance_px: int, marked: int, right: int, found: int
) -> None:
    assert tolerant_counts(predicted, TRUE, tolerance_px).tolist() == [[marked, right, 3, found]]


def test_the_default_tolerance_is_one_pixel() -> None:
    one_too_low = mask(".......", ".......", ".##....", ".......")
    two_too_low = mask(".......", ".......", ".......", ".##....")
    assert tolerant_counts(one_too_low, TRUE).tolist() == [[2, 2, 3, 2]]
    assert tolerant_counts(two_too_low, TRUE).tolist() == [[2, 0, 3, 0]]


def test_f1_is_the_harmonic_mean_of_precision_and_recall() -> None:
    precision, recall, f1 = precision_recall_f1(torch.tensor([4.0, 3.0, 8.0, 2.0]))
    assert (precision.item(), recall.item()) == (0.75, 0.25)
    assert f1.item() == pytest.approx(2 * 0.75 * 0.25 / (0.75 + 0.25))


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([0, 0, 0, 0], (1, 1, 1)),  # nothing there, nothing marked
        ([0, 0, 5, 0], (1, 0, 0)),  # nothing marked of what is there
        ([5, 0, 0, 0], (0, 1, 0)),  # false alarms alone
        ([5, 0, 5, 0], (0, 0, 0)),
    ],
)
def test_empty_masks_have_scores(counts: list[int], expected: tuple[int, ...]) -> None:
    scores = precision_recall_f1(torch.tensor(counts, dtype=torch.float64))
    assert tuple(score.item() for score in scores) == expected


def test_counts_that_are_no_numbers_give_no_score() -> None:
    assert precision_recall_f1(torch.full((4,), torch.nan))[2].isnan()


def test_counts_of_several_pictures_add_up() -> None:
    both = torch.cat([TRUE, mask(".......", ".......", ".##....", ".......")])
    counts = tolerant_counts(both, TRUE)
    assert counts.tolist() == [[3, 3, 3, 3], [2, 2, 3, 2]]
    precision, recall, _ = precision_recall_f1(counts.sum(0))
    assert (precision.item(), recall.item()) == (1.0, pytest.approx(5 / 6))


@pytest.mark.parametrize("radius", [0, 1, 2, 5])
def test_growing_reaches_as_far_as_the_radius(radius: int) -> None:
    marked = torch.rand(1, 1, 40, 50, generator=torch.Generator().manual_seed(1)) > 0.99
    background = (~marked[0, 0].numpy()).astype(np.uint8)
    distance = cv2.distanceTransform(background, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    assert np.array_equal(grown(marked, radius)[0, 0].numpy(), distance <= radius)
