"""Condition images: found by name, read as they are, and cropped with their images."""

from pathlib import Path

import numpy as np
import pytest
import torch

from restore.config import build
from restore.data.build import with_condition_channels
from restore.data.config import ConditionData, DataConfig
from restore.data.loader import Batch
from restore.errors import RestoreError
from restore.images import DecodedImage, write_png
from restore.images.conditions import Condition, ConditionFiles, condition_pixels
from tests.data.conftest import scene
from tests.data.test_build import DAMAGE, opened
from tests.data.test_channels import write_float


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Images, and beside them their green channel in 16 bits, their red one by a template, and all three."""
    for i in range(8):
        image = scene(i, 48, 60)
        write_png(make(tmp_path / "photos" / "city" / f"{i}.png"), image)
        write_png(make(tmp_path / "green" / "city" / f"{i}.png"), image[:, :, 1:2].astype(np.uint16) * np.uint16(257))
        write_png(make(tmp_path / "more" / "city" / f"{i}_red.png"), image[:, :, :1])
        write_png(make(tmp_path / "whole" / "city" / f"{i}.png"), image)
    return tmp_path


def make(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def conditioned(photos: Path, *conditions: object, **more: object) -> dict:
    values = {"folders": [str(photos / "photos")], "near_duplicates": 0, "conditions": list(conditions), **more}
    config = build(DataConfig, {"patch": 32, **values}, where="data")
    return values | {"conditions": with_condition_channels(config).model_dump()["conditions"]}


@pytest.mark.parametrize("cache", ["device", "memory", "none"])
def test_condition_images_are_cropped_mirrored_and_turned_with_their_images(photos: Path, cache: str) -> None:
    conditions = (str(photos / "green"), str(photos / "more" / "{}_red"), str(photos / "whole"))
    values = conditioned(photos, *conditions, rotate=True, cache=cache, scale=[0.6, 1])
    source, validation, _ = opened(values)
    batch = source.batch(0, 3, 6)
    assert batch.condition is not None
    assert batch.condition.shape == (6, 5, 32, 32)
    for one in (batch, validation[0]):
        assert one.condition is not None
        expected = torch.cat([one.clean[:, 1:2], one.clean[:, :1], one.clean], 1)
        assert (one.condition - expected).abs().max() < 1e-5
        assert torch.equal(one.seen, torch.cat([one.damaged, one.condition], 1))


def test_a_condition_goes_along_with_pairs_masks_gray_and_resizing(photos: Path) -> None:
    for i in range(8):
        mask = np.zeros((48, 60), np.uint8)
        mask[10:20] = 255
        write_png(make(photos / "masks" / "city" / f"{i}.png"), mask[:, :, None])
    pairs = {"folders": [], "input": str(photos / "photos"), "target": str(photos / "whole")}
    values = conditioned(photos, str(photos / "green"), **pairs, masks=str(photos / "masks"), resize=40)
    batch = opened(values, None)[0].batch(0, 0, 4)
    assert batch.condition is not None
    assert (batch.condition - batch.clean[:, 1:2]).abs().max() < 1.1 / 255, "two depths, resized"
    assert batch.mask.max() == 1
    gray = opened(conditioned(photos, str(photos / "whole"), channels="gray"))[0].batch(0, 0, 4)
    assert gray.seen.shape == (4, 4, 32, 32)


def test_a_batch_is_split_with_its_condition() -> None:
    batch = Batch(*(torch.arange(4.0).reshape(4, 1, 1, 1) for _ in range(5)))
    first, second = batch.parts(2)
    assert second.condition is not None
    assert second.condition.flatten().tolist() == [2, 3]
    assert first.map(lambda tensor: tensor + 1).condition.flatten().tolist() == [1, 2]  # type: ignore[union-attr]
    assert Batch(batch.damaged, batch.mask, batch.clean, batch.keys).parts(2)[0].condition is None


def test_the_number_of_channels_follows_from_the_files(photos: Path) -> None:
    values = conditioned(photos, str(photos / "green"), {"path": str(photos / "whole"), "range": [0, 2]})
    assert [condition["channels"] for condition in values["conditions"]] == [1, 3]
    assert DataConfig(folders=["x"], conditions=["a"]).model_dump(mode="json")["conditions"] == ["a"]
    assert DataConfig(folders=["x"], conditions="a").conditions == (ConditionData(path="a"),)


def test_float_conditions_have_a_range(photos: Path) -> None:
    for i in range(8):
        write_float(photos / "heat" / "city" / f"{i}.tiff", scene(i, 48, 60).astype(np.float32) / 255 * 40 + 10)
    values = conditioned(photos, {"path": str(photos / "heat"), "range": [10, 50]})
    batch = opened(values)[0].batch(0, 0, 4)
    assert batch.condition is not None
    assert (batch.condition - batch.clean).abs().max() < 1e-5


def test_what_does_not_fit_is_refused(photos: Path) -> None:
    for i in range(8):
        write_png(make(photos / "small" / "city" / f"{i}.png"), scene(i, 20, 30))
    said = opened(conditioned(photos, str(photos / "green")) | {"conditions": [str(photos / "more" / "{}_red")]})[2]
    assert not any("left out" in line for line in said)
    with pytest.raises(RestoreError, match=r"condition image has 30×20 pixels, its image 60×48"):
        opened(conditioned(photos, str(photos / "small")) | {"on_error": "fail"})
    with pytest.raises(RestoreError, match=r"has 3 channels, but .*whole \(1 channel\) is expected"):
        opened(conditioned(photos, {"path": str(photos / "whole"), "channels": 1}) | {"on_error": "fail"})
    write_png(photos / "photos" / "lonely.png", scene(9, 48, 60))
    with pytest.raises(RestoreError, match="no condition image for the image lonely"):
        opened(conditioned(photos, str(photos / "green")))
    with pytest.raises(RestoreError, match="there is no such folder"):
        conditioned(photos, str(photos / "nowhere"))
    for wrong in ("{}/depth", {"path": "a", "range": [1, 0]}):
        with pytest.raises(RestoreError, match=r"last part|black less"):
            build(DataConfig, {"folders": ["x"], "conditions": [wrong]}, where="data")


def test_values_are_those_of_the_file_whatever_its_profile(tmp_path: Path) -> None:
    gray = np.arange(12, dtype=np.uint8).reshape(3, 4, 1)
    found = DecodedImage(gray, icc=b"no profile at all")
    assert np.array_equal(condition_pixels(found, Condition("depth", 1), "x"), gray)
    assert np.array_equal(condition_pixels(found, Condition("edges", 3), "x"), gray.repeat(3, 2))


def test_an_infrared_channel_is_a_condition(tmp_path: Path) -> None:
    infrared = DecodedImage(np.full((3, 4, 1), 7, np.uint8))
    image = DecodedImage(np.zeros((3, 4, 3), np.uint8), infrared=infrared)
    files = ConditionFiles("infrared")
    assert files.file_of("x") is None
    assert files.read("x", lambda: image) is infrared
    with pytest.raises(RestoreError, match="no infrared channel"):
        files.read("x", lambda: infrared)


def test_one_file_serves_all_images(tmp_path: Path) -> None:
    write_png(tmp_path / "flat.png", scene(0))
    assert ConditionFiles(tmp_path / "flat.png").file_of("city/whatever") == tmp_path / "flat.png"


def test_damage_leaves_condition_images_alone(photos: Path) -> None:
    values = conditioned(photos, str(photos / "whole"))
    batch = opened(values, DAMAGE)[0].batch(0, 0, 4)
    assert torch.equal(batch.condition, batch.clean)  # type: ignore[arg-type]
    assert not torch.equal(batch.damaged, batch.clean)
