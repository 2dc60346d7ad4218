"""Holes from the user's own masks: drawn at random, or one for each image."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from restore.benchmark.degradations import find_degradations
from restore.degradations import degradation_from, keys, load_degradation
from restore.degradations.mask_files import resized
from restore.degradations.write import write_degraded
from restore.errors import RestoreError
from restore.images import read_mask, read_rgb8, write_png

CLEAN = torch.rand(6, 3, 64, 96, generator=torch.Generator().manual_seed(1))


def half(side: int = 512) -> np.ndarray:
    """The left third is the hole: uint8, as the masks of NVIDIA's irregular mask dataset are stored."""
    mask = np.zeros((side, side), np.uint8)
    mask[:, : side // 3] = 255
    return mask


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten masks of 512 px and one channel, as NVIDIA's: names are numbers, holes are white."""
    (tmp_path / "masks").mkdir()
    for i in range(10):
        mask = np.zeros((512, 512), np.uint8)
        mask[20 * i : 20 * i + 100, 40 : 40 + 30 * (i + 1)] = 255
        Image.fromarray(mask).save(tmp_path / "masks" / f"{i:05}.png")
    return tmp_path / "masks"


def test_masks_are_drawn_at_random_by_key_alone(folder: Path) -> None:
    damage = degradation_from([{"name": "masks", "folder": str(folder)}], "test")
    assert damage.has_mask
    assert damage.only_holes
    degraded, mask = damage(CLEAN, keys(0, last=range(6)))
    assert mask.unique().tolist() == [0, 1]
    assert torch.equal(degraded, torch.where(mask > 0, 0.5, CLEAN))
    assert len({one.numpy().tobytes() for one in mask}) >= 4
    again = damage(CLEAN[3:4], keys(0, last=[3]))[1]
    assert torch.equal(again, mask[3:4]), "whatever the batch"


def test_a_mask_is_scaled_until_it_covers_the_image_or_cut_at_its_own_size(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    Image.fromarray(half()).save(tmp_path / "m" / "a.png")
    step = {"name": "masks", "folder": str(tmp_path / "m"), "flip": False, "rotate": False}
    scaled = degradation_from([step], "test")(CLEAN[:1], keys(0, last=[0]))[1][0, 0]
    assert torch.equal(scaled, torch.cat([torch.ones(64, 32), torch.zeros(64, 64)], 1)), "a third of 96 px"
    own = degradation_from([step | {"scale_with_image": False}], "test")(CLEAN, keys(0, last=range(6)))[1]
    assert {float(one.mean()) for one in own[:, 0]} <= {0.0, 1.0} | {n / 96 for n in range(97)}
    whole = [float(one.mean()) for one in own]
    assert min(whole) == 0, "most crops of a mask of 512 px see one side of the edge alone"


@pytest.mark.parametrize(("flip", "rotate"), [(False, False), (True, False), (False, True), (True, True)])
def test_masks_are_mirrored_and_turned_as_allowed(tmp_path: Path, flip: bool, rotate: bool) -> None:
    hook = np.zeros((32, 32), np.uint8)
    hook[2:20, 3:6] = hook[17:20, 3:12] = 255
    Image.fromarray(hook).save(tmp_path / "a.png")
    step = {"name": "masks", "folder": str(tmp_path), "flip": flip, "rotate": rotate}
    drawn = degradation_from([step], "test")(torch.zeros(64, 3, 32, 32), keys(0, last=range(64)))[1][:, 0].numpy()
    turned = [np.rot90(hook > 0, i) for i in range(4 if rotate else 1)]
    allowed = {one.tobytes() for one in turned} | ({one[:, ::-1].tobytes() for one in turned} if flip else set())
    assert {(one > 0).tobytes() for one in drawn} == allowed


@pytest.mark.parametrize(("columns", "kept"), [(3, 0), (4, 1), (11, 1), (13, 2)])
def test_a_pixel_is_in_the_hole_if_at_least_half_of_it_is(columns: int, kept: int) -> None:
    mask = np.zeros((64, 64), bool)
    mask[:, :columns] = True
    assert resized(mask, 1 / 8, (8, 8)).sum(1).tolist() == [kept] * 8


def test_black_holes_are_named_and_a_folder_that_looks_inverted_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    mask = np.full((64, 64), 255, np.uint8)
    mask[:8] = 0
    Image.fromarray(mask).save(tmp_path / "m" / "a.png")
    step = {"name": "masks", "folder": str(tmp_path / "m")}
    with pytest.raises(RestoreError, match="cover 88% of the image on average; if black is the hole, set hole: black"):
        degradation_from([step], "test")
    damage = degradation_from([step | {"hole": "black"}], "test")
    assert damage(CLEAN[:, :, :, :64], keys(0, last=range(6)))[1].mean() == pytest.approx(1 / 8)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RestoreError, match="no masks in"):
        degradation_from([{"name": "masks", "folder": str(tmp_path / "empty")}], "test")


def test_a_path_that_does_not_exist_may_have_meant_either(tmp_path: Path) -> None:
    with pytest.raises(RestoreError, match="no such config file or folder of masks"):
        load_degradation(tmp_path / "missing")


def test_coverage_has_limits(folder: Path) -> None:
    step = {"name": "masks", "folder": str(folder), "min_coverage": 0.05, "max_coverage": 0.1}
    mask = degradation_from([step], "test")(CLEAN, keys(0, last=range(6)))[1]
    covered = mask.mean((1, 2, 3))
    assert (covered <= 0.1 + 1e-6).all()
    assert (covered >= 0.05 - 1e-6).all()


def photos(folder: Path) -> Path:
    for i, name in enumerate(("a.png", "city/b.png", "city/c.png")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(i)
        write_png(folder / name, rng.integers(0, 256, (48, 64, 3)).astype(np.uint8))
    return folder


def test_a_folder_of_masks_degrades_and_is_benched_with_by_its_path(folder: Path, tmp_path: Path) -> None:
    summary = write_degraded(photos(tmp_path / "photos"), tmp_path / "out", f"{folder}/", workers=1)
    assert (summary.written, summary.masks) == (3, 3)
    clean, damaged = (read_rgb8(tmp_path / at / "city" / "b.png") for at in ("photos", "out/damaged"))
    mask = read_mask(tmp_path / "out" / "masks" / "city" / "b.png") > 0
    assert (damaged[~mask] == clean[~mask]).all()
    assert 0 < mask.mean() < 1
    assert load_degradation(f"{folder}/").name == "masks"
    (found,) = find_degradations([f"{folder}/"], 0)
    assert found.degrade(clean, "city/b").mask is not None


def test_paired_masks_belong_to_their_images(tmp_path: Path) -> None:
    clean = photos(tmp_path / "photos")
    for name, at in (("a.png", 3), ("city/b_mask.png", 5), ("city/c.png", 7)):
        mask = np.zeros((48, 64), np.uint8)
        mask[at] = 255
        (tmp_path / "own" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(tmp_path / "own" / name)
    steps = [{"name": "masks", "folder": str(tmp_path / "own"), "paired": True}]
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({"steps": steps}))
    assert write_degraded(clean, tmp_path / "out", str(tmp_path / "own.yaml"), workers=1).written == 3
    for name, at in (("a", 3), ("city/b", 5), ("city/c", 7)):
        assert np.flatnonzero(read_mask(tmp_path / "out" / "masks" / f"{name}.png").any(axis=1)).tolist() == [at]
    (found,) = find_degradations([str(tmp_path / "own.yaml")], 0)
    assert found.degrade(read_rgb8(clean / "a.png"), "a").mask.sum() == 64  # type: ignore[union-attr]
    with pytest.raises(RestoreError, match="no mask for the image z"):
        found.degrade(read_rgb8(clean / "a.png"), "z")
    with pytest.raises(RestoreError, match="need the names"):
        degradation_from(steps, "test")(CLEAN, keys(0, last=range(6)))
    (tmp_path / "own" / "a.png").unlink()
    from restore.degradations import mask_files as module

    module.mask_files.cache_clear()
    module._by_name.cache_clear()
    failed = write_degraded(clean, tmp_path / "again", str(tmp_path / "own.yaml"), workers=1)
    assert [str(relative) for relative, _ in failed.failed] == ["a.png"]
