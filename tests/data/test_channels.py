"""Float and gray training images: full precision and one channel, from the file to the batch."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from restore.data.cache import CropStore, DeviceCropStore
from restore.data.dataset import TrainingImages, perceptual_hash, promoted, upscaled
from restore.data.layout import Layout
from restore.data.readers import ReadAs, pair_reader, read_pixels, resize_to_square
from restore.data.sampler import CropPlan, FolderSampler, in_unit_range, sample_crops
from restore.degradations import degradation_from
from restore.images import write_png
from tests.data.conftest import scene
from tests.data.test_build import CPU, opened

GRAY = ReadAs(gray=True)


def float_scene(seed: int, height: int = 50, width: int = 60) -> np.ndarray:
    """Values in [0, 1] that 16 bits cannot hold, H×W×3."""
    values = scene(seed, height, width).astype(np.float32) / 255
    return np.minimum(values + np.float32(1e-6) * np.arange(width, dtype=np.float32)[None, :, None], 1)


def write_float(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[:, :, ::-1])
    return path


def test_float_files_are_read_as_they_are(tmp_path: Path) -> None:
    image = float_scene(1)
    read = read_pixels(write_float(tmp_path / "a.tiff", image))
    assert read.dtype == np.float32
    assert np.array_equal(read, image)
    assert len(np.unique(np.rint(image * 65535))) < len(np.unique(image)), "16 bits would lose some"
    old = read_pixels(tmp_path / "a.tiff", ReadAs(rules=2))
    assert np.array_equal(old, np.rint(image * 65535).astype(np.uint16)), "runs of earlier releases"


def test_a_declared_range_says_what_is_black_and_what_is_white(tmp_path: Path) -> None:
    image = float_scene(2)
    counts = write_float(tmp_path / "counts.tiff", image * 4000 - 100)
    read = read_pixels(counts, ReadAs(float_range=(-100, 3900)))
    assert np.abs(read - image).max() < 1e-6
    clipped = read_pixels(counts, ReadAs(float_range=(0, 1000)))
    assert (clipped.min(), clipped.max()) == (0, 1)
    told: list[str] = []
    read_pixels(counts, ReadAs(on_event=told.append))
    assert "65535 is taken as white; set data.float_range" in told[0]
    write_png(tmp_path / "usual.png", scene(1))
    assert np.array_equal(read_pixels(tmp_path / "usual.png", ReadAs(float_range=(0, 9))), scene(1)), "floats alone"


def test_three_depths_in_one_batch_are_equal_numbers_in_every_store(folder: Path, tmp_path: Path) -> None:
    for i in range(3):
        write_float(tmp_path / f"float{i}.tiff", float_scene(i))
        write_png(tmp_path / f"deep{i}.png", scene(i, 50, 60).astype(np.uint16) * np.uint16(9))
    files = [*sorted(tmp_path.iterdir()), *sorted(folder.glob("*.png"))[:3]]
    read = [TrainingImages(files, read_pixels, patch=32) for _ in range(2)]
    cached = [read[0].load(i) for i in range(len(files))]
    drawn = FolderSampler([len(files)])
    stores = [
        DeviceCropStore(read[0], drawn, CPU, list(cached)),
        CropStore(read[0], drawn, CPU, cached=cached),
        CropStore(read[1], drawn, CPU, threads=2),
    ]
    assert stores[0].nbytes == stores[1].nbytes
    seen = set()
    for step in range(20):
        spec = sample_crops(CropPlan(32, rotate=True), 5, step, 2)
        first, *others = [store.start(spec)() for store in stores]
        seen.add(first.dtype)
        assert all(other.dtype == first.dtype for other in others)
        assert all(torch.equal(in_unit_range(other), in_unit_range(first)) for other in others)
    assert torch.float32 in seen
    shallow, deep, exact = (np.full((1, 1, 3), v, t) for v, t in ((200, np.uint8), (9, np.uint16), (0.3, np.float32)))
    as_float = promoted([shallow, deep, exact])
    assert as_float[0][0, 0, 0] == in_unit_range(torch.tensor([200], dtype=torch.uint8))
    assert as_float[1][0, 0, 0] == in_unit_range(torch.tensor([9]).to(torch.uint16))


def test_float_images_train_from_file_to_batch(tmp_path: Path) -> None:
    for i in range(6):
        write_float(tmp_path / f"{i}.tiff", float_scene(i) * 200)
    values = {"folders": [str(tmp_path)], "near_duplicates": 0}
    source, validation, said = opened(values | {"float_range": [0, 200]})
    batch = source.batch(0, 0, 4)
    levels = batch.clean * 65535
    assert (levels - levels.round()).abs().max() > 0.1, "finer than 16 bits"
    assert validation[0].clean.max() <= 1
    assert not any("white" in line for line in said)
    told = [line for line in opened(values)[2] if "255 is taken as white" in line]
    assert len(told) == 1, "once for all of them"


def test_small_and_resized_float_images_stay_in_range() -> None:
    stripes = np.indices((20, 24)).sum(0)[:, :, None].repeat(3, 2).astype(np.float32) % 2
    for image in (upscaled(stripes, 50), resize_to_square(stripes, 50)):
        assert image.dtype == np.float32
        assert (image.min(), image.max()) == (0, 1)
    assert perceptual_hash(float_scene(3)) == perceptual_hash(np.rint(float_scene(3) * 255).astype(np.uint8))


@pytest.mark.parametrize("kind", ["8 bits", "16 bits", "float"])
def test_gray_files_have_one_channel_and_color_ones_their_luma(tmp_path: Path, kind: str) -> None:
    color = float_scene(4) if kind == "float" else scene(4, 50, 60)
    color = color.astype(np.uint16) * np.uint16(200) if kind == "16 bits" else color
    cv2.imwrite(str(tmp_path / "color.tiff"), color[:, :, ::-1])
    cv2.imwrite(str(tmp_path / "gray.tiff"), color[:, :, 1])
    read = read_pixels(tmp_path / "gray.tiff", GRAY)
    assert read.dtype == color.dtype
    assert np.array_equal(read, color[:, :, 1:2])
    luma = color.astype(np.float64) @ (0.299, 0.587, 0.114)
    tolerance = 1e-6 if kind == "float" else 0.51
    assert np.abs(read_pixels(tmp_path / "color.tiff", GRAY)[:, :, 0] - luma).max() <= tolerance
    assert np.array_equal(read_pixels(tmp_path / "gray.tiff"), read.repeat(3, 2)), "three equal ones without gray"


def test_gray_images_are_resized_and_paired_in_one_channel(tmp_path: Path) -> None:
    gray = scene(1)[:, :, :1]
    expected = np.asarray(Image.fromarray(gray[:, :, 0]).resize((32, 32), Image.Resampling.BICUBIC))
    assert np.array_equal(resize_to_square(gray, 32)[:, :, 0], expected)
    assert upscaled(gray, 100).shape[2] == 1
    assert upscaled(gray.repeat(5, 2), 100).shape[2] == 5
    for name in ("a", "b"):
        write_png(tmp_path / f"{name}.png", gray)
    assert pair_reader({tmp_path / "a.png": tmp_path / "b.png"}, how=GRAY)(tmp_path / "a.png").shape[2] == 2


@pytest.mark.parametrize("cache", ["device", "memory", "none"])
def test_gray_batches(folder: Path, cache: str) -> None:
    color, gray = (opened({"folders": [str(folder)], "cache": cache, "channels": c})[0] for c in ("color", "gray"))
    batch = gray.batch(0, 0, 4)
    assert batch.clean.shape == batch.damaged.shape == (4, 1, 32, 32)
    luma = (color.batch(0, 0, 4).clean * torch.tensor([0.299, 0.587, 0.114]).reshape(1, 3, 1, 1)).sum(1, keepdim=True)
    assert (batch.clean - luma).abs().max() <= 0.51 / 255, "the same crops"
    assert 4 < 255 * (batch.damaged - batch.clean).std() < 6, "noise of 5 levels, as in a channel of a color image"


def test_a_degradation_treats_gray_as_it_treats_green() -> None:
    """Every step alone, so that no step sees what an earlier one did to red and blue."""
    clean = torch.rand(2, 1, 48, 48, generator=torch.Generator().manual_seed(0))
    keys = torch.tensor([3, 4])
    for step in ({"name": "noise", "sigma": [20, 20]}, {"name": "fade"}, {"name": "jpeg", "quality": [30, 30]}):
        damage = degradation_from([step], "test")
        (gray, mask), (color, mask_of_color) = damage(clean, keys), damage(clean.repeat(1, 3, 1, 1), keys)
        assert torch.equal(gray, color[:, 1:2])
        assert torch.equal(mask, mask_of_color)
    # What follows the noise sees gray: JPEG finds no colors to keep.
    noise = degradation_from([{"name": "noise", "sigma": [20, 20]}], "test")
    both = degradation_from([{"name": "noise", "sigma": [20, 20]}, {"name": "jpeg", "quality": [30, 30]}], "test")
    assert both(clean, keys)[0].shape == clean.shape
    assert not torch.equal(both(clean, keys)[0], noise(clean, keys)[0])


def test_a_layout_takes_the_channels_apart() -> None:
    stored = torch.arange(9.0).reshape(1, 9, 1, 1)
    mask, condition, damaged, clean = Layout(3, condition=2, mask=True, pair=True).split(stored)
    assert mask is not None
    assert condition is not None
    assert [part.flatten().tolist() for part in (mask, condition, damaged, clean)] == [
        [0],
        [1, 2],
        [3, 4, 5],
        [6, 7, 8],
    ]
    with pytest.raises(ValueError, match="3 channels expected, got 9"):
        Layout().split(stored)
