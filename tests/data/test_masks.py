"""A mask for each training image: cropped with it, and cut into it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from restore.config import build
from restore.data.config import DataConfig
from restore.errors import RestoreError
from restore.images import write_png
from restore.training.config import TrainConfig
from restore.training.setup import build_networks, open_data
from tests.data.conftest import scene
from tests.data.test_build import DAMAGE, opened

ROWS = slice(20, 30)


@pytest.fixture
def masked(tmp_path: Path) -> tuple[Path, Path]:
    """Bright images with a black band, and masks of the band."""
    for i in range(8):
        picture = scene(i, 48, 60) // 2 + 100
        mask = np.zeros(picture.shape[:2], np.uint8)
        picture[ROWS], mask[ROWS] = 0, 255
        for folder, image, ending in (("photos", picture, ""), ("masks", mask, "_mask" if i % 2 else "")):
            (tmp_path / folder / "deep").mkdir(parents=True, exist_ok=True)
            write_png(tmp_path / folder / "deep" / f"{i}{ending}.png", image)
    return tmp_path / "photos", tmp_path / "masks"


@pytest.mark.parametrize("cache", ["device", "memory", "none"])
def test_a_mask_is_cropped_mirrored_and_turned_with_its_image(masked: tuple[Path, Path], cache: str) -> None:
    photos, masks = masked
    values = {"folders": [str(photos)], "masks": str(masks), "rotate": True, "cache": cache, "near_duplicates": 0}
    source, validation, _ = opened(values, None)
    batch = source.batch(0, 0, 16)
    assert batch.clean.shape == (16, 3, 32, 32)
    assert torch.equal(batch.mask > 0, batch.clean.amax(1, keepdim=True) == 0), "the band is where the mask is"
    assert torch.equal(batch.damaged, torch.where(batch.mask > 0, 0.5, batch.clean))
    assert 0.1 < batch.mask.mean() < 0.5
    assert all((one.mask > 0).equal(one.clean.amax(1, keepdim=True) == 0) for one in validation)


def test_real_pairs_have_masks_too_and_damage_comes_on_top_of_clean_images(masked: tuple[Path, Path]) -> None:
    photos, masks = masked
    source, _, _ = opened({"input": str(photos), "target": str(photos), "masks": str(masks)}, None)
    batch = source.batch(0, 0, 8)
    assert torch.equal(batch.damaged, batch.clean)
    assert torch.equal(batch.mask > 0, batch.clean.amax(1, keepdim=True) == 0)
    batch = opened({"folders": [str(photos)], "masks": str(masks)}, DAMAGE)[0].batch(0, 0, 8)
    assert torch.equal(batch.mask > 0, batch.clean.amax(1, keepdim=True) == 0)
    outside = (batch.mask == 0).expand_as(batch.clean)
    assert 0.01 < (batch.damaged - batch.clean)[outside].abs().mean() < 0.03, "noise of 5 levels"


def test_small_images_and_resized_ones_keep_their_masks(masked: tuple[Path, Path]) -> None:
    photos, masks = masked
    values = {"folders": [str(photos)], "masks": str(masks), "near_duplicates": 0}
    for more in ({"patch": 96}, {"resize": 40}):
        batch = opened(values | more, None)[0].batch(0, 0, 8)
        inside = batch.clean.amax(1, keepdim=True)[batch.mask > 0]
        assert inside.mean() < 0.1, more
        assert set(batch.mask.unique().tolist()) == {0, 1}


def test_an_image_without_a_mask_is_named_before_anything_is_read(masked: tuple[Path, Path]) -> None:
    photos, masks = masked
    write_png(photos / "more.png", scene(3, 48, 60))
    with pytest.raises(RestoreError, match="no mask for the image more"):
        opened({"folders": [str(photos)], "masks": str(masks)}, None)


def test_a_network_that_sees_a_mask_learns_from_pairs_with_masks(masked: tuple[Path, Path]) -> None:
    photos, masks = masked
    data = {"input": str(photos), "target": str(photos), "masks": str(masks), "patch": 32, "validation_size": 32}
    model = {"builder": "unet", "args": {"widths": [8, 12], "blocks": [1, 1]}}
    config = build(TrainConfig, {"total_steps": 1, "data": data, "model": model, "device": "cpu"}, where="test")
    generator, _ = build_networks(config)
    source, _ = open_data(config, generator, torch.device("cpu"), lambda line: None)
    assert source.batch(0, 0, 4).mask.max() == 1
    assert build(DataConfig, data, where="test").masks == masks
