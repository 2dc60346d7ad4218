"""Losses of a mask, against what they are by hand."""

import math

import pytest
import torch

from restore.losses.segmentation import soft_dice, weighted_cross_entropy


def test_a_damaged_pixel_counts_as_often_as_is_said() -> None:
    logits = torch.zeros(1, 1, 1, 4)  # a probability of one half everywhere
    mask = torch.tensor([[[[1.0, 0, 0, 0]]]])
    assert weighted_cross_entropy(logits, mask, 1.0).item() == pytest.approx(math.log(2))
    assert weighted_cross_entropy(logits, mask, 5.0).item() == pytest.approx(math.log(2) * (5 + 3) / 4)


def test_dice_is_zero_for_the_truth_and_near_one_for_its_opposite() -> None:
    mask = (torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0)) > 0.7).float()
    sure = (2 * mask - 1) * 50
    assert soft_dice(sure, mask).item() == pytest.approx(0, abs=1e-6)
    assert soft_dice(-sure, mask).item() > 0.99


def test_dice_of_a_clean_picture_is_what_was_marked_of_it() -> None:
    nothing, one = torch.full((1, 1, 8, 8), -50.0), torch.full((1, 1, 8, 8), -50.0)
    one[..., 3, 3] = 50
    clean = torch.zeros(1, 1, 8, 8)
    assert soft_dice(nothing, clean).item() == pytest.approx(0, abs=1e-6)
    assert soft_dice(one, clean).item() == pytest.approx(0.5)


def test_dice_of_a_batch_is_the_mean_of_its_pictures() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, mask = torch.randn(3, 1, 8, 8, generator=generator), torch.zeros(3, 1, 8, 8)
    mask[0, ..., 2:5, 2:5], mask[1, ..., 0, 0] = 1, 1
    each = [soft_dice(logits[i : i + 1], mask[i : i + 1]).item() for i in range(3)]
    assert soft_dice(logits, mask).item() == pytest.approx(sum(each) / 3)
