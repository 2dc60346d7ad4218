"""Training on float images with a declared range, and repairing such images."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from restore import FixOptions, fix_folder, fix_image
from restore.checkpoints import read_description
from restore.errors import RestoreError
from restore.images import read_image
from restore.training.loop import train
from tests.data.conftest import scene
from tests.data.test_channels import write_float
from tests.training.test_loop import config

UNET = {"builder": "unet", "args": {"widths": [8, 12], "blocks": [1, 1], "mask": False}}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on images of counts, black at 100 and white at 4100; its image 0 is left beside it."""
    folder = tmp_path_factory.mktemp("counts")
    for i in range(4):
        write_float(folder / "clean" / f"{i}.tiff", scene(i, 64, 80).astype(np.float32) / 255 * 4000 + 100)
    data = {
        "folders": [str(folder / "clean")], "float_range": [100, 4100], "near_duplicates": 0,
        "patch": 32, "batch": 2, "validation_percent": 30, "validation_size": 64,
    }  # fmt: skip
    damage = [{"name": "noise", "sigma": [5, 5]}]
    train(config(folder, folder / "run", total_steps=2, data=data, damage=damage, model=UNET, loss={}))
    return folder


def test_a_repair_keeps_the_values_of_the_training_images(trained: Path, tmp_path: Path) -> None:
    assert read_description(trained / "run" / "best.safetensors").float_range == (100, 4100)
    summary = fix_folder(
        trained / "clean", tmp_path / "out", model=str(trained / "run"), options=FixOptions(device="cpu")
    )
    assert not any("taken as white" in line for line in summary.warnings)
    before, after = (read_image(folder / "0.tiff").pixels for folder in (trained / "clean", tmp_path / "out"))
    assert after.dtype == np.float32
    assert 0 < np.abs(after - before).mean() < 400, "an untrained network changes little: the ranges agree"
    assert after.min() >= 100
    assert after.max() <= 4100.01


def test_images_of_integers_have_no_range(trained: Path) -> None:
    image = scene(1, 40, 40)
    assert np.abs(fix_image(image, model=str(trained / "run")).astype(int) - image).mean() < 25


def test_alpha_in_a_float_image_is_refused(trained: Path, tmp_path: Path) -> None:
    image = np.random.default_rng(0).random((40, 40, 4)).astype(np.float32)
    with pytest.raises(RestoreError, match="from 100 to 4100, without alpha"):
        fix_image(image, model=str(trained / "run"))


def test_a_range_is_black_and_white(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(RestoreError, match="float_range must be"):
        config(trained, tmp_path, data={"folders": ["x"], "float_range": [1, 1]})
    assert cv2.imread(str(trained / "clean" / "0.tiff"), cv2.IMREAD_UNCHANGED).dtype == np.float32
