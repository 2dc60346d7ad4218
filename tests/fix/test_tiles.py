"""Tiles and crops: the same picture as in one go."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from restore.fix.steps import repair
from restore.restorers import hole_crops as places
from restore.restorers.base import ModelRequirements, Restorer
from restore.restorers.hole_crops import hole_blocks, regions


class Blur(Restorer):
    """Sees 6 pixels far; fills holes with what is around them."""

    name, purpose = "blur", "test"

    def __init__(self, **needs: object) -> None:
        self.requirements = ModelRequirements(**{"needs_mask": False, "overlap_px": 6, **needs})
        self.seen: list[tuple[int, int]] = []

    def _restore(self, image, mask):
        self.seen.append((image.shape[-2], image.shape[-1]))
        return F.avg_pool2d(F.pad(image, (6, 6, 6, 6), mode="constant"), 13, stride=1)


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(5).random((height, width, 3), dtype=np.float32)


def masked(height: int, width: int, *boxes: tuple[int, int, int, int]) -> np.ndarray:
    weight = np.zeros((height, width), np.float32)
    for top, left, bottom, right in boxes:
        weight[top:bottom, left:right] = 1
    return weight


def test_tiles_give_the_picture_of_one_go():
    shown = picture(300, 217)
    whole = repair(Blur(), shown, None)
    tiled = Blur()
    np.testing.assert_allclose(repair(tiled, shown, None, tile_px=100), whole, atol=1e-6)
    assert len(tiled.seen) > 5
    assert max(max(size) for size in tiled.seen) <= 100


@pytest.mark.parametrize("tileable", [True, False])
def test_crops_around_holes_give_the_picture_of_one_go(tileable, monkeypatch):
    monkeypatch.setattr(places, "WHOLE_IMAGE_PX", 1000)
    shown = picture(900, 1000)
    weight = masked(900, 1000, (3, 3, 30, 9), (550, 700, 600, 740), (899, 999, 900, 1000), (500, 100, 501, 101))
    restorer = Blur(needs_mask=True, multiple=8, tileable=tileable)
    out = repair(restorer, shown, weight)
    image = torch.from_numpy(shown.transpose(2, 0, 1)[None].copy())
    with torch.inference_mode():
        expected = restorer(image, torch.from_numpy(weight[None, None]))[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(out, expected, atol=1e-6)
    np.testing.assert_array_equal(out[weight == 0], shown[weight == 0])
    *crops, _ = restorer.seen
    assert len(crops) == 4
    assert sum(height * width for height, width in crops) < 0.5 * shown.shape[0] * shown.shape[1]


def test_every_hole_belongs_to_one_region_and_is_shown_with_its_surroundings():
    generator = np.random.default_rng(1)
    for tileable in (True, False):
        hole = generator.random((1500, 1111)) < 3e-6
        hole[generator.integers(1500), :400] = True
        total = np.zeros(hole.shape, int)
        for region in regions(
            hole_blocks(hole), hole.shape, ModelRequirements(needs_mask=True, multiple=16, tileable=tileable)
        ):
            own = region.own(hole[region.rows, region.columns])
            assert (region.rows.start % 16, region.columns.start % 16) == (0, 0)
            total[region.rows, region.columns] += own
            rows, columns = np.nonzero(own)
            for near, far, length in ((rows, region.rows, 1500), (columns, region.columns, 1111)):
                assert far.start == 0 or near.min() >= 128
                assert far.stop == length or far.stop - (far.start + near.max()) > 128
        np.testing.assert_array_equal(total, hole)


def test_a_picture_that_cannot_be_tiled_is_shown_whole_when_small():
    restorer = Blur(needs_mask=True, tileable=False)
    repair(restorer, picture(900, 1000), masked(900, 1000, (5, 5, 6, 6)), tile_px=64)
    assert restorer.seen == [(900, 1000)]


def test_tiles_without_a_hole_are_not_run():
    restorer = Blur(needs_mask=True)
    weight = masked(600, 900, (10, 10, 590, 12), (10, 10, 12, 890))
    repair(restorer, picture(600, 900), weight, tile_px=100)
    every = Blur()
    repair(every, picture(600, 900), None, tile_px=100)
    assert len(restorer.seen) < 0.5 * len(every.seen)


def test_half_precision_that_overflows_is_repeated_in_fp32():
    class Half(Blur):
        precision = "bf16"

        def _restore(self, image, mask):
            return image * float("nan")

        def in_precision(self, precision):
            assert precision == "fp32"
            return Blur()

    said = []
    shown = picture(20, 20)
    np.testing.assert_array_equal(repair(Half(), shown, None, on_event=said.append), repair(Blur(), shown, None))
    assert len(said) == 1
    assert "fp32" in said[0]
