"""Images as they are read: in full depth, resized as the reference resizes, paired by names and lists."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from restore.data.dataset import as_8_bits, perceptual_hash, promoted
from restore.data.readers import ReadAs, match_pairs, pair_reader, read_pixels, resize_to_square
from restore.errors import RestoreError
from restore.images import read_rgb8, write_png
from tests.data.conftest import scene


def deep_scene(seed: int, height: int = 40, width: int = 48) -> np.ndarray:
    """A dark image of 16 bits that 8 bits cannot hold: uint16, values below 2000."""
    steps = np.arange(width, dtype=np.uint16)[None, :, None]
    return scene(seed, height, width).astype(np.uint16) * np.uint16(7) + steps


def test_sixteen_bits_are_read_in_full_depth_and_eight_stay_eight(tmp_path: Path) -> None:
    dark = deep_scene(1)
    write_png(tmp_path / "dark.png", dark)
    write_png(tmp_path / "usual.png", scene(2))
    cv2.imwrite(str(tmp_path / "gray.tiff"), dark[:, :, 0])
    read = read_pixels(tmp_path / "dark.png")
    assert read.dtype == np.uint16
    assert np.array_equal(read, dark)
    assert len(np.unique(read_rgb8(tmp_path / "dark.png"))) <= 9, "what 8 bits leave of it"
    assert np.array_equal(read_pixels(tmp_path / "gray.tiff"), np.repeat(dark[:, :, :1], 3, axis=2))
    assert read_pixels(tmp_path / "usual.png").dtype == np.uint8
    assert np.array_equal(read_pixels(tmp_path / "dark.png", ReadAs(rules=1)), read_rgb8(tmp_path / "dark.png"))


def test_a_pair_of_two_depths_is_read_in_the_deeper_one(tmp_path: Path) -> None:
    write_png(tmp_path / "damaged.png", scene(1, 40, 48))
    write_png(tmp_path / "clean.png", deep_scene(2))
    both = pair_reader({tmp_path / "damaged.png": tmp_path / "clean.png"})(tmp_path / "damaged.png")
    assert both.dtype == np.uint16
    assert np.array_equal(both[:, :, :3], scene(1, 40, 48).astype(np.uint16) * 257)
    assert np.array_equal(both[:, :, 3:], deep_scene(2))


def test_a_copy_in_another_depth_looks_alike() -> None:
    shallow = scene(3)
    (deep,) = promoted([shallow.astype(np.uint16) * np.uint16(257)])
    assert np.array_equal(as_8_bits(deep), shallow)
    assert perceptual_hash(deep) == perceptual_hash(shallow)


@pytest.mark.parametrize("size", [(256, 32), (30, 400), (300, 200), (20, 30)], ids=str)
def test_resizing_is_that_of_the_reference_also_where_one_side_shrinks_and_the_other_grows(
    size: tuple[int, int],
) -> None:
    # Stripes of one pixel: what is not filtered before it shrinks turns into coarse patterns.
    stripes = (np.indices(size).sum(0) % 2 * 255).astype(np.uint8)
    picture = np.stack([stripes, scene(1, *size)[:, :, 0], np.zeros(size, np.uint8)], axis=2)
    expected = np.asarray(Image.fromarray(picture).resize((64, 64), Image.Resampling.BICUBIC))
    assert np.array_equal(resize_to_square(picture, 64), expected)
    deep = resize_to_square(picture.astype(np.uint16) * np.uint16(257), 64)
    assert deep.dtype == np.uint16
    # Pillow rounds 8 bits after each of the two axes, and the second filter amplifies that.
    assert np.abs(deep[:, :, 1] / 257 - expected[:, :, 1]).max() < 2.5


def test_a_run_of_an_earlier_release_is_resized_as_it_began() -> None:
    picture = scene(1, 30, 400)
    old = cv2.resize(picture, (64, 64), interpolation=cv2.INTER_CUBIC)
    assert np.array_equal(resize_to_square(picture, 64, rules=1), old)
    assert not np.array_equal(resize_to_square(picture, 64), old)


def make(folder: Path, *names: str) -> Path:
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_png(folder / name, scene(i))
    return folder


def test_names_of_pairs_follow_a_template(tmp_path: Path) -> None:
    clean = make(tmp_path / "clean", "0001.png", "city/0002.png")
    damaged = make(tmp_path / "damaged", "0001x4.png", "city/0002x4.png")
    assert match_pairs(damaged, clean, "{}x4") == {
        damaged / "0001x4.png": clean / "0001.png",
        damaged / "city/0002x4.png": clean / "city/0002.png",
    }
    with pytest.raises(RestoreError, match="2 image"):
        match_pairs(damaged, clean)
    make(clean, "0003.png")
    with pytest.raises(RestoreError, match=r"damaged: 1 image.*0003"):
        match_pairs(damaged, clean, "{}x4")


def test_two_lists_are_paired_line_by_line(tmp_path: Path) -> None:
    make(tmp_path, "a/one.png", "a/two.png", "b/eins.png")
    (tmp_path / "in.txt").write_text("a/one.png\na/two.png\n")
    (tmp_path / "out.txt").write_text("b/eins.png\n# the same truth\nb/eins.png\n")
    found = match_pairs(tmp_path / "in.txt", tmp_path / "out.txt")
    assert found == {tmp_path / "a/one.png": tmp_path / "b/eins.png", tmp_path / "a/two.png": tmp_path / "b/eins.png"}
    (tmp_path / "out.txt").write_text("b/eins.png\n")
    with pytest.raises(RestoreError, match=r"has 2 images, .*out.txt has 1"):
        match_pairs(tmp_path / "in.txt", tmp_path / "out.txt")
    with pytest.raises(RestoreError, match="this is a folder, and the other a list"):
        match_pairs(tmp_path / "in.txt", tmp_path / "b")
    (tmp_path / "in.txt").write_text("a/one.png\na/one.png\n")
    (tmp_path / "out.txt").write_text("b/eins.png\nb/eins.png\n")
    with pytest.raises(RestoreError, match="1 images are there more than once"):
        match_pairs(tmp_path / "in.txt", tmp_path / "out.txt")
