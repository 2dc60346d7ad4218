"""From a config to pictures: what is used, what is left out and said, and what is refused."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from restore.config import build
from restore.data import build as module
from restore.data.build import open_source, with_condition_channels
from restore.data.config import DataConfig, Folder
from restore.data.discovery import fingerprint, list_images, split_files
from restore.data.loader import Batch, Source
from restore.degradations import degradation_from
from restore.errors import RestoreError
from restore.images import read_rgb8, write_png
from tests.data.conftest import scene

CPU = torch.device("cpu")
DAMAGE = degradation_from([{"name": "noise", "sigma": [5, 5]}], "test")


def opened(values: dict, damage: object = DAMAGE) -> tuple[Source, list[Batch], list[str]]:
    said: list[str] = []
    shape = {"patch": 32, "validation_percent": 25, "validation_size": 32}
    config = build(DataConfig, shape | values, where="data")
    source, validation = open_source(config, damage, multiple=4, device=CPU, on_event=said.append)  # type: ignore[arg-type]
    return source, validation, said


def refused(values: dict, damage: object = DAMAGE) -> str:
    with pytest.raises(RestoreError) as error:
        opened(values, damage)
    return str(error.value)


# The config.


def test_a_folder_is_a_path_or_a_path_with_a_weight() -> None:
    config = DataConfig(folders=["a", {"path": "b", "weight": 2}])
    assert config.folders == (Folder(path="a"), Folder(path="b", weight=2))
    assert config.model_dump(mode="json")["folders"] == ["a", {"path": "b", "weight": 2.0}]
    assert DataConfig.model_validate(config.model_dump(mode="json")) == config
    with pytest.raises(RestoreError, match="a folder is a path, or "):
        build(DataConfig, {"folders": [{"path": "a", "wieght": 2}]}, where="test")
    with pytest.raises(RestoreError, match=r"folders\.0\.weight"):
        build(DataConfig, {"folders": [{"path": "a", "weight": 0}]}, where="test")


def test_the_schema_allows_both() -> None:
    schema = DataConfig.model_json_schema()["$defs"]["Folder"]
    assert [option["type"] for option in schema["anyOf"]] == ["string", "object"]


# Which files.


def test_a_list_file_names_pictures_relative_to_itself(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "lists"
    elsewhere.mkdir()
    (elsewhere / "some.txt").write_text(f"# the best\n../a b.png\n\n{folder / '01.png'}\n../a b.png\n")
    write_png(tmp_path / "a b.png", scene(1))
    files = list_images(elsewhere / "some.txt")
    assert [f.resolve() for f in files] == [tmp_path / "a b.png", folder / "01.png"]
    source, _, _ = opened({"folders": [str(elsewhere / "some.txt")], "validation_percent": 0})
    assert len(source.store) == 2


def test_what_systems_leave_in_a_folder_is_told_and_not_trained_on(folder: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(folder, mine)
    before, _, _ = opened({"folders": [str(mine)], "validation_percent": 0})
    (mine / "@eaDir").mkdir()
    write_png(mine / "@eaDir" / "01.png", scene(1))
    source, _, said = opened({"folders": [str(mine)], "validation_percent": 0})
    line = "left out, as hidden or made by a system: @eaDir; to train on one, name it in data.folders"
    assert said.count(line) == 1
    assert len(source.store) == len(before.store)


@pytest.mark.parametrize("cache", ["memory", "none"])
def test_what_a_list_names_and_nobody_has_is_left_out_once(folder: Path, tmp_path: Path, cache: str) -> None:
    (tmp_path / "some.txt").write_text(f"{folder / '01.png'}\nnowhere.png\n")
    values = {"folders": [str(tmp_path / "some.txt")], "validation_percent": 0, "cache": cache}
    source, _, said = opened(values)
    source.batch(0, 0, 8)
    assert sum("nowhere.png: there is no such file" in line for line in said) == 1
    assert "nowhere.png" in refused(values | {"on_error": "fail"})


def test_the_split_hangs_on_the_name_alone(folder: Path, tmp_path: Path) -> None:
    before = split_files([Folder(path=folder)], 30)
    for file in list(folder.iterdir())[:7]:
        (tmp_path / file.name).write_bytes(file.read_bytes())
    after = split_files([Folder(path=tmp_path)], 30)
    names = {f.name for f in before.validation}
    assert 0 < len(names) < 12
    assert {f.name for f in after.validation} == {f.name for f in tmp_path.iterdir()} & names
    assert fingerprint(before.training) != fingerprint(after.training)


def test_several_folders_are_drawn_from_by_weight(folder: Path, tmp_path: Path) -> None:
    for i in range(2):
        write_png(tmp_path / f"black{i}.png", np.zeros((40, 40, 3), np.uint8))
    black = []
    for weight in (None, 9):
        second = str(tmp_path) if weight is None else {"path": str(tmp_path), "weight": weight}
        values = {"folders": [str(folder), second], "validation_percent": 0, "near_duplicates": 0}
        clean = opened(values)[0].batch(0, 0, 300).clean
        black.append((clean.amax((1, 2, 3)) == 0).double().mean().item())
    assert black[0] == pytest.approx(2 / 14, abs=0.08)
    assert black[1] == pytest.approx(0.9, abs=0.07)


# What is left out, and said.


def test_odd_pictures_are_read_as_they_look(tmp_path: Path) -> None:
    gradient = np.linspace(0, 65535, 40 * 41).reshape(40, 41).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "sixteen.png"), gradient)
    Image.fromarray(scene(3, 40, 41)).quantize(64).save(tmp_path / "palette.png")
    Image.fromarray(scene(4, 40, 41)[:, :, 0]).save(tmp_path / "gray.webp", lossless=True)
    cv2.imwrite(str(tmp_path / "sixteen.tiff"), (scene(5, 40, 41).astype(np.uint16) * 257)[:, :, ::-1])
    source, _, said = opened({"folders": [str(tmp_path)], "validation_percent": 0, "patch": 40, "flip": False})
    assert len(source.store) == 4
    assert not any("left out" in line for line in said)
    crops = (source.batch(0, 0, 32).clean * 255).round().byte().permute(0, 2, 3, 1).numpy()
    for name in ("sixteen.png", "palette.png", "gray.webp", "sixteen.tiff"):
        whole = read_rgb8(tmp_path / name)
        options = [whole[:, :40], whole[:, 1:]]
        assert any(np.array_equal(crop, option) for crop in crops for option in options), name


@pytest.mark.parametrize("cache", ["device", "memory", "none"])
def test_tiny_pictures_are_enlarged_or_left_out_and_counted(folder: Path, tmp_path: Path, cache: str) -> None:
    for i in range(3):
        write_png(tmp_path / f"icon{i}.png", scene(100 + i, 16, 300))
    values = {"folders": [str(folder), str(tmp_path)], "validation_percent": 0, "cache": cache}
    source, _, said = opened(values)
    assert source.batch(0, 0, 64).clean.shape == (64, 3, 32, 32)
    assert len(source.store) == 15
    counted = "icon" if cache == "none" else "3 images"
    assert sum(counted in line and "smaller than the patch of 32 px: upscaled" in line for line in said) == 1
    source, _, said = opened(values | {"small_images": "skip"})
    source.batch(0, 0, 64)
    assert len(source.store) == 12
    assert sum(counted in line and "smaller than the patch of 32 px: left out" in line for line in said) == 1


@pytest.mark.parametrize("cache", ["memory", "none"])
def test_lookalikes_of_validation_pictures_are_kept_out_of_training(folder: Path, tmp_path: Path, cache: str) -> None:
    files = split_files([Folder(path=folder)], 25)
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    held_out = read_rgb8(files.validation[0])
    mirror = np.ascontiguousarray(held_out[:, ::-1])
    cv2.imwrite(str(tmp_path / "copy.jpg"), mirror[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 60])
    assert split_files([Folder(path=tmp_path)], 25).counts == [len(files.training) + 1], "copy.jpg is for training"
    values = {"folders": [str(tmp_path)], "cache": cache}
    source, _, said = opened(values)
    source.batch(0, 0, 100)
    assert len(source.store) == len(files.training)
    if cache == "memory":
        assert sum("1 image similar to a validation" in line and "copy.jpg" in line for line in said) == 1
    for off in (0, None):
        source = opened(values | {"near_duplicates": off})[0]
        source.batch(0, 0, 100)
        assert len(source.store) == len(files.training) + 1


def test_validation_pictures_smaller_than_the_network_takes_are_not_scored(tmp_path: Path) -> None:
    for i in range(10):
        write_png(tmp_path / f"{i}.png", scene(i, 40, 40))
    validation = split_files([Folder(path=tmp_path)], 40).validation
    write_png(validation[0], scene(0, 3, 3))
    _, batches, said = opened({"folders": [str(tmp_path)], "validation_percent": 40})
    assert len(batches) == len(validation) - 1
    assert any("1 validation images are smaller than 4 px" in line for line in said)


# Where they wait.


def test_auto_takes_what_fits_and_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, said = opened({"folders": [str(folder)]})
    assert sum("(data.cache: memory)" in line for line in said) == 1
    monkeypatch.setattr(module, "free_ram", lambda: 10_000)
    source, _, said = opened({"folders": [str(folder)]})
    assert sum("(data.cache: none)" in line for line in said) == 1
    assert source.store.threads > 0
    monkeypatch.setattr(module, "_estimate_nbytes", lambda intake: 0.0)  # the estimate was wrong
    source, _, said = opened({"folders": [str(folder)]})
    assert sum("(data.cache: none): they need more than" in line for line in said) == 1


# What is refused.


@pytest.mark.parametrize("cache", ["auto", "device", "memory", "none"])
def test_folders_without_a_usable_picture_are_refused(folder: Path, tmp_path: Path, cache: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    for i in range(3):
        (tmp_path / "broken" / f"{i}.jpg").write_bytes(b"\xff\xd8\xff no more")
    values = {"cache": cache, "validation_percent": 0}
    assert "no images in this folder" in refused(values | {"folders": [str(tmp_path / "empty")]})
    assert "none of the 3 images can be read; the first: " in refused(values | {"folders": [str(tmp_path / "broken")]})
    large = refused(values | {"folders": [str(folder)], "patch": 400, "small_images": "skip"})
    assert "all 12 images are smaller than the patch of 400 px" in large
    assert "lower data.patch" in large
    assert "broken" in refused(values | {"folders": [str(folder), str(tmp_path / "broken")], "on_error": "fail"})


def test_one_clear_line_each(folder: Path, tmp_path: Path) -> None:
    assert "there is no such folder" in refused({"folders": [str(tmp_path / "nowhere")]})
    assert "neither a folder nor a list" in refused({"folders": [str(folder / "01.png")]})
    (tmp_path / "empty.txt").write_text("\n# nothing\n")
    assert "has no images" in refused({"folders": [str(tmp_path / "empty.txt")]})
    assert "must be at least 64" in _too_small_validation(folder)


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_a_place_without_images_is_refused_with_the_key_that_names_it(folder: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    place = str(tmp_path / name)
    assert "set data.folders=[...] to your clean photographs" in refused({"folders": [place]})
    assert "set data.side_by_side=FOLDER to your pairs" in refused({"side_by_side": place}, None)
    assert "set data.validation to" in refused({"folders": [str(folder)], "validation": place})
    config = DataConfig(input=place, target=folder, conditions=[{"path": str(folder)}])
    with pytest.raises(RestoreError, match=r"set data\.input and data\.target"):
        with_condition_channels(config)


def _too_small_validation(folder: Path) -> str:
    config = DataConfig(folders=[folder], patch=32, validation_size=32)
    with pytest.raises(RestoreError) as error:
        open_source(config, DAMAGE, multiple=4, minimum=64, device=CPU, on_event=lambda line: None)
    return str(error.value)


# Pairs.


def make_pairs(folder: Path, tmp_path: Path) -> tuple[dict, dict]:
    for name in ("damaged", "both"):
        (tmp_path / name).mkdir()
    for file in folder.iterdir():
        picture = read_rgb8(file)
        write_png(tmp_path / "damaged" / file.name, 255 - picture)
        write_png(tmp_path / "both" / file.name, np.concatenate([picture, 255 - picture], axis=1))
    return (
        {"input": str(tmp_path / "damaged"), "target": str(folder)},
        {"side_by_side": str(tmp_path / "both"), "direction": "BtoA"},
    )


@pytest.mark.parametrize("cache", ["device", "memory", "none"])
def test_both_halves_of_a_pair_are_cut_alike(folder: Path, tmp_path: Path, cache: str) -> None:
    batches = []
    for source in make_pairs(folder, tmp_path):
        batch = opened(source | {"cache": cache, "rotate": True}, None)[0].batch(0, 0, 8)
        assert torch.allclose(batch.damaged + batch.clean, torch.ones(()), atol=1e-6)
        assert batch.mask.sum() == 0
        assert batch.clean.std() > 0.05
        batches.append(batch)
    assert torch.equal(batches[0].clean, batches[1].clean)


def test_tiny_pairs_are_enlarged(folder: Path, tmp_path: Path) -> None:
    two_folders, _ = make_pairs(folder, tmp_path)
    batch = opened(two_folders | {"patch": 112}, None)[0].batch(0, 0, 8)
    assert batch.clean.shape == (8, 3, 112, 112)
    assert torch.allclose(batch.damaged + batch.clean, torch.ones(()), atol=2.1 / 255)


def test_pairs_that_do_not_match_are_named(folder: Path, tmp_path: Path) -> None:
    two_folders, _ = make_pairs(folder, tmp_path)
    write_png(tmp_path / "damaged" / "03.png", scene(1, 33, 33))
    source, _, said = opened(two_folders | {"validation_percent": 0}, None)
    assert len(source.store) == 11
    assert sum("03.png: the two images of a pair have different sizes" in line for line in said) == 1
    write_png(tmp_path / "damaged" / "stranger.png", scene(1))
    assert "stranger" in refused(two_folders, None)


# Validation.


def scenes(root: Path, count: int = 30) -> Path:
    for i in range(count):
        (root / f"{i:03}").mkdir(parents=True)
        write_png(root / f"{i:03}" / "gt.png", scene(i, 40, 48))
    return root


def test_images_of_one_name_in_many_folders_are_split_and_damaged_each_by_itself(tmp_path: Path) -> None:
    root = scenes(tmp_path / "scene")
    files = split_files([Folder(path=root)], 25)
    assert 2 < len(files.validation) < 15
    assert files.names[root / "007" / "gt.png"] == "007/gt"
    values = {"folders": [str(root)], "near_duplicates": 0}
    _, validation, _ = opened(values, degradation_from([{"name": "boxes", "count": [2, 3]}], "test"))
    assert len({batch.mask.numpy().tobytes() for batch in validation}) == len(validation)
    before = fingerprint(files.training, files.names)
    files.training[0].parent.rename(root / "new")
    after = split_files([Folder(path=root)], 25)
    assert fingerprint(after.training, after.names) != before


def test_runs_of_earlier_releases_keep_their_split(tmp_path: Path, folder: Path) -> None:
    root = scenes(tmp_path / "scene", 5)
    assert split_files([Folder(path=root)], 50, rules=1).validation == [], "all are called gt"
    old, new = (split_files([Folder(path=folder)], 25, rules=rules) for rules in (1, 2))
    assert old.validation == new.validation, "in a folder without subfolders, nothing changes"


def test_a_list_is_split_by_its_lines_wherever_it_lies(tmp_path: Path) -> None:
    root = scenes(tmp_path / "scene", 12)
    lines = [f"{i:03}/gt.png" for i in range(12)]
    (root / "inside.txt").write_text("\n".join(lines))
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "beside.txt").write_text("\n".join(f"../scene/{line}" for line in lines))
    inside = split_files([Folder(path=root / "inside.txt")], 40)
    assert [inside.names[file] for file in inside.training] == [
        split_files([Folder(path=root)], 40).names[file] for file in split_files([Folder(path=root)], 40).training
    ]
    beside = split_files([Folder(path=tmp_path / "lists" / "beside.txt")], 40)
    assert set(beside.names.values()) == {f"scene/{i:03}/gt" for i in range(12)}


def test_a_folder_a_list_or_a_pair_of_folders_is_validated_with_if_it_is_named(folder: Path, tmp_path: Path) -> None:
    mine = scenes(tmp_path / "mine", 3)
    source, validation, _ = opened({"folders": [str(folder)], "validation": str(mine), "near_duplicates": 0})
    assert len(source.store) == 12, "nothing is set aside"
    assert len(validation) == 3
    (tmp_path / "some.txt").write_text("mine/000/gt.png\nmine/002/gt.png\n")
    assert len(opened({"folders": [str(folder)], "validation": str(tmp_path / "some.txt")})[1]) == 2
    for i in range(2):
        for side in ("in", "out"):
            (tmp_path / side).mkdir(exist_ok=True)
            write_png(tmp_path / side / f"{i}.png", scene(200 + i, 40, 48) // (1 + (side == "in")))
    two_folders, both = make_pairs(folder, tmp_path)
    pair = {"input": str(tmp_path / "in"), "target": str(tmp_path / "out")}
    _, validation, _ = opened(two_folders | {"validation": pair}, None)
    assert len(validation) == 2
    assert all(batch.damaged.mean() < 0.6 * batch.clean.mean() for batch in validation)
    for source, wrong in ((two_folders, str(mine)), (both, pair), (two_folders, {"input": str(mine)})):
        with pytest.raises(RestoreError, match="validation must be"):
            build(DataConfig, source | {"validation": wrong}, where="data")


def test_validation_images_that_are_trained_on_are_refused(folder: Path) -> None:
    assert "12 of these images are also training images" in refused(
        {"folders": [str(folder)], "validation": str(folder)}
    )


def test_what_is_set_aside_and_unusable_is_told_as_it_is(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    aside = split_files([Folder(path=tmp_path)], 25).validation
    aside[0].write_bytes(b"\xff\xd8\xff no more")
    _, validation, _ = opened({"folders": [str(tmp_path)], "validation_count": 1})
    assert len(validation) == 1, "the next one takes the place of one that cannot be read"
    for file in aside:
        file.write_bytes(b"\xff\xd8\xff no more")
    _, _, said = opened({"folders": [str(tmp_path)]})
    line = f"none of the {len(aside)} images that are set aside for validation can be used, so training images are"
    assert any(line in text for text in said)
    _, _, said = opened({"folders": [str(tmp_path)], "validation_percent": 0, "cache": "none"})
    assert any(text.startswith("12 files of training images") for text in said)
