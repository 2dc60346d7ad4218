"""Texture synthesis on a hole small enough to know the answer."""

from __future__ import annotations

import numpy as np
import pytest

from restore.restorers.patchmatch import NoSourcePatches, PatchMatchInpainter

SIDE = 48


def step_with_a_hole() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Dark left, bright right, and a hole across the step that is first guessed gray: (truth, image, hole)."""
    truth = np.zeros((SIDE, SIDE, 3), np.float32)
    truth[:, SIDE // 2 :] = 1
    hole = np.zeros((SIDE, SIDE), bool)
    hole[14:34, 14:34] = True
    return truth, np.where(hole[..., None], np.float32(0.5), truth), hole


def test_pixels_at_the_edge_of_a_hole_count_more_than_guessed_ones() -> None:
    """With equal weights (`TRUST = 1`) patches keep agreeing with the wrong guess: the mean error is 0.06."""
    errors = []
    for seed in range(5):
        truth, image, hole = step_with_a_hole()
        texture = PatchMatchInpainter(image, hole, hole, seed)
        for _ in range(8):
            texture.improve((4, 2, 1), (32, 16, 8, 4, 2, 1))
        errors.append(np.abs(texture.image - truth)[hole].mean())
        assert np.array_equal(texture.image[~hole], truth[~hole])
    assert np.mean(errors) < 0.01


def test_an_image_without_a_whole_patch_has_no_sources() -> None:
    _, image, hole = step_with_a_hole()
    everywhere = np.ones_like(hole)
    everywhere[:3] = False
    with pytest.raises(NoSourcePatches):
        PatchMatchInpainter(image, hole, everywhere, 0)
