"""Specks in crowds: small spots that a detector is not sure of."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from restore.checkpoints import DetectorSettings
from restore.restorers import detector as detector_module
from restore.restorers.base import ModelRequirements
from restore.restorers.detector import Detector
from restore.restorers.specks import with_specks

HEIGHT, WIDTH = 300, 400


def scene(
    found: int, unsure: int, *, likely: float = 0.05, sign: int = 1, contrast: float = 0.3, zoom: int = 1, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A gray image with specks on a grid, its probabilities, and where the detector is not sure of a speck."""
    rng = np.random.default_rng(seed)
    image = np.full((HEIGHT, WIDTH), 0.5, np.float32) + rng.normal(0, 0.01, (HEIGHT, WIDTH)).astype(np.float32)
    probability, hesitates = np.full((HEIGHT, WIDTH), 0.001, np.float32), np.zeros((HEIGHT, WIDTH), bool)
    cells = rng.permutation((HEIGHT // 12) * (WIDTH // 12))[: found + unsure]
    assert len(cells) == found + unsure
    for number, cell in enumerate(cells):
        y, x = 12 * (cell // (WIDTH // 12)) + 5, 12 * (cell % (WIDTH // 12)) + 5
        image[y : y + 3, x : x + 3] += sign * contrast
        probability[y : y + 3, x : x + 3] = 0.9 if number < found else likely
        hesitates[y : y + 3, x : x + 3] = number >= found
    if zoom > 1:
        size = (WIDTH * zoom, HEIGHT * zoom)
        image = cv2.resize(image, size, interpolation=cv2.INTER_NEAREST).astype(np.float32)
        probability = cv2.resize(probability, size, interpolation=cv2.INTER_NEAREST).astype(np.float32)
        hesitates = cv2.resize(hesitates.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    return np.repeat(image[..., None], 3, axis=-1), probability, hesitates


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("zoom", [1, 2])
def test_where_many_specks_are_found_the_other_spots_become_likely(sign: int, zoom: int) -> None:
    image, probability, hesitates = scene(120, 280, sign=sign, zoom=zoom)
    seen = with_specks(probability, image)
    assert seen.dtype == np.float32
    assert ((seen >= 0.5) == ((probability >= 0.5) | hesitates)).mean() > 0.999
    assert (seen >= 0.5)[hesitates].mean() > 0.95
    assert np.array_equal(seen[~hesitates & (probability < 0.5)], probability[~hesitates & (probability < 0.5)])
    assert (seen >= probability).all()
    assert (seen <= 1).all()


@pytest.mark.parametrize(
    ("found", "unsure"),
    [
        pytest.param(30, 300, id="few specks"),
        pytest.param(90, 710, id="texture"),
        pytest.param(300, 200, id="known specks"),
    ],
)
def test_without_a_crowd_and_where_most_spots_are_found_nothing_changes(found: int, unsure: int) -> None:
    image, probability, _ = scene(found, unsure)
    assert np.array_equal(with_specks(probability, image), probability)


def test_the_odds_of_a_spot_grow_with_its_contrast() -> None:
    odds = []
    for contrast in (0.2, 0.4):
        image, probability, hesitates = scene(120, 280, likely=0.001, contrast=contrast)
        seen = with_specks(probability, image)[hesitates]
        odds.append(float(np.median(seen / (1 - seen))))
    assert odds[0] > 20 * 0.001
    assert odds[1] / odds[0] == pytest.approx(8, rel=0.2)


def test_the_order_of_spots_of_the_same_contrast_stays() -> None:
    image, probability, hesitates = scene(120, 280, contrast=0.3, seed=1)
    image[hesitates], spots = 0.8, cv2.connectedComponents(hesitates.astype(np.uint8))[1]
    image = np.where(hesitates[..., None], image, 0.5).astype(np.float32)
    image[(probability >= 0.5)] = 0.8
    likely = np.linspace(0.001, 0.4, spots.max() + 1, dtype=np.float32)
    probability = np.where(hesitates, likely[spots], probability)
    seen = with_specks(probability, image)
    highest = [seen[spots == number].max() for number in range(1, spots.max() + 1)]
    assert (np.diff(highest) > 0).all()


def test_spots_that_touch_larger_damage_are_not_specks() -> None:
    image, probability, _ = scene(120, 280)
    image[148:151, 40:360] = 0.9
    probability[148:151, 40:200], probability[148:151, 200:] = 0.9, 0.05
    image[145:148, 100:103] = 0.9
    probability[140:147] = probability[151:160] = 0.001
    probability[145, 101] = 0.3
    seen = with_specks(probability, image)
    assert seen[145, 101] == probability[145, 101]
    assert seen[149, 300] == probability[149, 300]


def test_a_spot_that_is_part_of_something_bright_is_not_a_speck() -> None:
    image, probability, _ = scene(120, 280)
    image[100:200, 150:250], probability[100:200, 150:250] = 0.8, 0.001
    image[97:100, 200:203], probability[97:100, 200:203] = 0.8, 0.2  # a corner that sticks out of it
    image[90:97, 190:215], probability[90:97, 190:215] = 0.5, 0.001
    seen = with_specks(probability, image)
    assert seen[98, 201] == probability[98, 201]


class Brightest(torch.nn.Module):
    """Sure of the brightest specks, hesitates at others."""

    def forward(self, image: torch.Tensor, mask: torch.Tensor | None, filled: bool = True) -> torch.Tensor:
        blue = image[:, 2:]
        return torch.where(blue > 0.85, 0.9, torch.where(blue > 0.65, 0.05, 0.001)).logit()


@pytest.mark.parametrize(
    ("contrast", "share", "tint", "raised"),
    [(0.999, 0.01, 0.0, True), (0.999, None, 0.0, False), (None, 0.01, 0.0, False), (0.999, 0.01, 0.3, False)],
)
def test_a_detector_looks_for_crowds_in_monochrome_photographs_only(
    contrast: float | None, share: float | None, tint: float, raised: bool
) -> None:
    finds = DetectorSettings(threshold=0.5, margin_px=0, expected_share=share, monochrome_contrast=contrast)
    image, probability, hesitates = scene(120, 280, likely=0.05)
    image[probability > 0.5] += 0.15
    image[: HEIGHT // 2, :, 0] += tint
    needs = ModelRequirements(needs_mask=False)
    detector = Detector(finds, "one", Brightest(), needs, "test", torch.device("cpu"), "fp32")
    assert (detector.detect(image)[hesitates].mean() > 0.9) == raised


def test_in_a_large_photograph_crowds_are_looked_for_at_a_smaller_size(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def spy(probability: np.ndarray, image: np.ndarray) -> np.ndarray:
        sizes.append(image.shape[:2])
        assert probability.shape == image.shape[:2]
        return with_specks(probability, image)

    monkeypatch.setattr(detector_module, "ALL_VIEWS_MAX_PX", HEIGHT * WIDTH)
    monkeypatch.setattr(detector_module, "with_specks", spy)
    finds = DetectorSettings(threshold=0.5, margin_px=0, expected_share=0.01, monochrome_contrast=0.999)
    image, probability, hesitates = scene(120, 280, likely=0.05, zoom=2)
    image[probability > 0.5] += 0.15
    needs = ModelRequirements(needs_mask=False)
    detector = Detector(finds, "one", Brightest(), needs, "test", torch.device("cpu"), "fp32")
    seen = detector.probability(image)
    assert sizes[0] == (HEIGHT, WIDTH)
    assert (seen[hesitates] >= 0.5).mean() > 0.9
    assert (seen[cv2.dilate((hesitates | (probability > 0.5)).astype(np.uint8), np.ones((5, 5))) == 0] < 0.5).all()
