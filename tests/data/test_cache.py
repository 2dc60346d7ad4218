"""Crops: the same from the device, from memory and from files, and what a slow reference says they are."""

from pathlib import Path

import numpy as np
import pytest
import torch

from restore.data.cache import CropStore, DeviceCropStore
from restore.data.dataset import TrainingImages
from restore.data.readers import read_pixels
from restore.data.sampler import CropPlan, CropSpec, FolderSampler, in_unit_range, resize_crops, sample_crops
from restore.errors import RestoreError
from restore.images import find_images, read_rgb8, write_png
from tests.data.conftest import scene

CPU = torch.device("cpu")


def stores(files: list[Path], shares: FolderSampler | None = None, **settings: object) -> list[CropStore]:
    """The same files in all three stores."""
    shares = shares or FolderSampler([len(files)])
    intake = TrainingImages(files, read_rgb8, **settings)  # type: ignore[arg-type]
    cached = [intake.load(i) for i in range(len(files))]
    again = TrainingImages(files, read_rgb8, **settings)  # type: ignore[arg-type]
    return [
        DeviceCropStore(intake, shares, CPU, list(cached)),
        CropStore(intake, shares, CPU, cached=cached),
        CropStore(again, shares, CPU, threads=3),
    ]


def files_of(folder: Path) -> list[Path]:
    return [folder / name for name in find_images(folder)]


def equal(stores: list[CropStore], spec: CropSpec) -> torch.Tensor:
    first, *others = [store.start(spec)() for store in stores]
    assert first.dtype == torch.uint8
    assert all(torch.equal(first, other) for other in others)
    return first


@pytest.mark.parametrize("rotate", [False, True])
@pytest.mark.parametrize("scale", [(1.0, 1.0), (0.3, 0.6)])  # crops within the pictures, and beyond their edges
def test_three_stores_give_the_same_crops(folder: Path, rotate: bool, scale: tuple[float, float]) -> None:
    plan = CropPlan(32, scale, rotate=rotate)
    three = stores(files_of(folder), patch=32)
    for step in range(10):
        crops = equal(three, sample_crops(plan, 5, step, 8))
        assert crops.shape[:2] == (8, 3)


@pytest.mark.parametrize("turn", [0, 1, 2, 3])
@pytest.mark.parametrize("flip", [False, True])
def test_a_crop_is_cut_then_mirrored_then_turned(tmp_path: Path, turn: int, flip: bool) -> None:
    picture = scene(1, 40, 50)
    write_png(tmp_path / "a.png", picture)
    spec = CropSpec(
        keys=torch.tensor([1]), offset=torch.tensor([[0.5, 0.75]], dtype=torch.float64),
        flip=torch.tensor([flip]), rotation=torch.tensor([turn]), side=20,
    )  # fmt: skip
    expected = picture[10:30, 23:43]  # 0.5 of 21 and 0.75 of 31 places
    expected = np.fliplr(expected) if flip else expected
    for _ in range(turn):
        expected = np.flipud(np.swapaxes(expected, 0, 1))
    crop = equal(stores([tmp_path / "a.png"]), spec)[0]
    assert np.array_equal(crop.permute(1, 2, 0).numpy(), expected)


def test_beyond_the_lower_and_right_edges_a_picture_is_mirrored(tmp_path: Path) -> None:
    picture = scene(2, 20, 30)
    write_png(tmp_path / "a.png", picture)
    spec = CropSpec(torch.tensor([1]), torch.zeros(1, 2).double(), torch.tensor([False]), torch.tensor([0]), 35)
    crop = equal(stores([tmp_path / "a.png"]), spec)[0]
    assert np.array_equal(crop.permute(1, 2, 0).numpy(), np.pad(picture, ((0, 15), (0, 5), (0, 0)), "reflect"))


def test_what_is_left_out_changes_nothing_else_and_alike_in_all_stores(folder: Path, tmp_path: Path) -> None:
    """Broken and tiny files among the good ones: the good ones are drawn as before, wherever they were drawn."""
    mixed = []
    for i, file in enumerate(files_of(folder)):
        mixed.append(file)
        if i % 3 == 0:
            write_png(tmp_path / f"tiny{i}.png", scene(i, 10, 10))
            (tmp_path / f"broken{i}.png").write_bytes(b"no picture")
            mixed += [tmp_path / f"tiny{i}.png", tmp_path / f"broken{i}.png"]
    said: list[str] = []
    three = stores(mixed, patch=32, small_images="skip", on_event=said.append)
    plan = CropPlan(32)
    whole = stores(mixed)[1]  # for which keys drew a good file at once
    for step in range(12):
        equal(three, sample_crops(plan, 1, step, 8))
    assert [len(store) for store in three] == [12, 12, 12]
    assert sum("broken0.png" in line for line in said) == 2, "once for each of the two intakes"
    spec = sample_crops(plan, 1, 0, 64)
    first_choice = FolderSampler([len(mixed)]).pick(spec.keys, 0)
    good = torch.tensor([mixed[i].parent == folder for i in first_choice.tolist()])
    assert good.any()
    assert not good.all()
    at_once = whole.start(spec)()
    assert torch.equal(three[2].start(spec)()[good], at_once[good])


def test_draws_follow_the_weights_of_the_folders(tmp_path: Path) -> None:
    shares = FolderSampler([90, 10], [1.0, 3.0])
    keys = sample_crops(CropPlan(16), 3, 0, 4000).keys
    from_second = (shares.pick(keys, 0) >= 90).double().mean().item()
    assert from_second == pytest.approx(0.75, abs=0.03)  # 4 standard deviations
    again = shares.pick(keys, 1)
    assert torch.equal(again >= 90, shares.pick(keys, 0) >= 90), "a second attempt stays in the folder"
    alike = FolderSampler([90, 10])
    assert (alike.pick(keys, 0) >= 90).double().mean().item() == pytest.approx(0.1, abs=0.02)
    assert len(alike.pick(keys, 0).unique()) == 100


def test_a_file_that_vanishes_ends_in_a_clear_error(folder: Path, tmp_path: Path) -> None:
    for file in files_of(folder)[:3]:
        (tmp_path / file.name).write_bytes(file.read_bytes())
    store = stores(files_of(tmp_path), patch=16)[2]
    spec = sample_crops(CropPlan(16), 0, 0, 16)
    store.start(spec)()
    (tmp_path / "01.png").unlink()
    with pytest.raises(RestoreError, match=r"01\.png: was readable when training began.*put it back"):
        store.start(spec)()


def test_a_file_that_breaks_while_training_ends_in_a_clear_error(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(files_of(folder)[0].read_bytes())
    store = stores([tmp_path / "a.png"], patch=16)[2]
    spec = sample_crops(CropPlan(16), 0, 0, 2)
    store.start(spec)()
    (tmp_path / "a.png").write_bytes(b"cut short")
    with pytest.raises(RestoreError, match="was readable when training began"):
        store.start(spec)()


def test_a_reader_that_never_answers_is_not_waited_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    from restore.data import cache as module

    answer = threading.Event()

    def read(path: Path) -> np.ndarray:
        answer.wait()
        return read_rgb8(path)

    monkeypatch.setattr(module, "_READ_SECONDS", 0.2)
    slow = CropStore(TrainingImages(files_of(folder), read), FolderSampler([12]), CPU, threads=1)
    try:
        with pytest.raises(RestoreError, match="no image was read within"):
            slow.start(sample_crops(CropPlan(16), 0, 0, 2))()
    finally:
        answer.set()


def test_when_no_file_is_of_use_drawing_ends(tmp_path: Path) -> None:
    for i in range(5):
        (tmp_path / f"{i}.png").write_bytes(b"no picture")
    files = files_of(tmp_path)
    store = CropStore(TrainingImages(files, read_rgb8), FolderSampler([5]), CPU, threads=2)
    with pytest.raises(RestoreError, match="none of the 5 images can be read"):
        store.start(sample_crops(CropPlan(16), 0, 0, 4))()


@pytest.mark.parametrize("only_deep", [False, True])
def test_images_of_16_bits_keep_their_depth_in_every_store(folder: Path, tmp_path: Path, only_deep: bool) -> None:
    deep = [scene(i, 50, 60).astype(np.uint16) * np.uint16(9) + np.uint16(i) for i in range(3)]
    for i, picture in enumerate(deep):
        write_png(tmp_path / f"deep{i}.png", picture)
    files = files_of(tmp_path) if only_deep else [*files_of(folder)[:4], *files_of(tmp_path), *files_of(folder)[4:6]]
    intake = [TrainingImages(files, read_pixels, patch=32) for _ in range(2)]
    cached = [intake[0].load(i) for i in range(len(files))]
    shallow = sum(image.nbytes for image in cached if image is not None and image.dtype == np.uint8)
    assert shallow == sum(read_rgb8(file).nbytes for file in files if "deep" not in file.name), "8 bits stay 8 bits"
    drawn = FolderSampler([len(files)])
    three = [
        DeviceCropStore(intake[0], drawn, CPU, list(cached)),
        CropStore(intake[0], drawn, CPU, cached=cached),
        CropStore(intake[1], drawn, CPU, threads=2),
    ]
    assert three[0].nbytes == three[1].nbytes
    seen = set()
    for step in range(12):
        spec = sample_crops(CropPlan(32, rotate=True), 5, step, 2)
        first, *others = [store.start(spec)() for store in three]
        seen.add(first.dtype)
        assert all(other.dtype == first.dtype and torch.equal(other.int(), first.int()) for other in others)
        values = resize_crops(first, 32)
        if first.dtype == torch.uint16:
            assert torch.equal((values * 65535).round().int(), first.int())
    assert torch.uint16 in seen
    assert (torch.uint8 in seen) != only_deep


def test_equal_values_of_two_depths_are_equal_numbers() -> None:
    shallow = torch.arange(256, dtype=torch.uint8)
    deep = (shallow.int() * 257).to(torch.uint16)
    assert torch.equal(in_unit_range(shallow), in_unit_range(deep))
