"""A picture that goes through in bands comes out as one that is in memory."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from restore.fix import reader
from restore.fix.stages import Stages
from restore.images import read_image
from restore.restorers.base import ModelRequirements, Restorer
from tests.fix.conftest import fix_with, photo, save
from tests.images.profiles import ADOBE_RGB, matrix_profile


class Smoother(Restorer):
    """Looks five pixels far, and changes every pixel."""

    name, purpose = "smoother", "test"
    requirements = ModelRequirements(needs_mask=False, overlap_px=5, multiple=4)

    def _restore(self, image: Tensor, mask: Tensor | None) -> Tensor:
        return F.avg_pool2d(F.pad(image, (5, 5, 5, 5), mode="replicate"), 11, 1) * 0.9


@pytest.fixture
def everything_is_huge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "HUGE_PIXELS", 100)


def both_ways(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **options: object) -> tuple[Path, Path]:
    """The folder repaired in memory, and in bands; with tiles that are small enough for several of them."""
    ways = []
    for name, limit in (("memory", 10**9), ("bands", 100)):
        monkeypatch.setattr(reader, "HUGE_PIXELS", limit)
        summary = fix_with(folder, tmp_path / name, Smoother(), tile=64, **options)
        assert not summary.failed, summary.format()
        ways.append(tmp_path / name)
    return ways[0], ways[1]


PICTURES = {
    "gray8.png": ((301, 203), 1, np.uint8, {}),
    "rgb8.png": ((301, 203), 3, np.uint8, {}),
    "rgba8.png": ((301, 203), 4, np.uint8, {}),
    "rgb8.tif": ((301, 203), 3, np.uint8, {"compression": "tiff_lzw"}),
    "gray16.tif": ((301, 203), 1, np.uint16, {}),
    "adobe.png": ((301, 203), 3, np.uint8, {"icc_profile": matrix_profile(*ADOBE_RGB)}),
    "wide.png": ((9, 701), 3, np.uint8, {}),
}


@pytest.mark.parametrize("name", PICTURES)
def test_bands_give_the_same_pixels_and_metadata(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size, channels, dtype, options = PICTURES[name]
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = "grandmother", 1
    save(tmp_path / "in" / name, photo(*size, channels=channels, dtype=dtype), exif=exif, **options)
    memory, bands = both_ways(tmp_path / "in", tmp_path, monkeypatch)
    one, two = read_image(memory / name), read_image(bands / name)
    assert np.array_equal(one.pixels, two.pixels)
    assert (one.alpha is None) == (two.alpha is None)
    assert one.alpha is None or np.array_equal(one.alpha, two.alpha)
    assert (one.icc, one.bits, one.format, one.compression) == (two.icc, two.bits, two.format, two.compression)
    with Image.open(bands / name) as image:
        assert image.getexif()[0x010E] == "grandmother"
    assert {p.name for p in bands.iterdir()} == {name}, "nothing is left beside it"


def test_black_and_white_in_color_stays_neutral_and_a_gray_part_of_a_colored_picture_may_get_color(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Tinter(Smoother):
        def _restore(self, image: Tensor, mask: Tensor | None) -> Tensor:
            return super()._restore(image, mask) * torch.tensor([1.0, 0.9, 0.8])[:, None, None]

    neutral = photo(301, 203)[:, :, :1].repeat(3, axis=2)
    partly = neutral.copy()
    partly[-9:] = photo(9, 203)
    save(tmp_path / "in/neutral.png", neutral)
    save(tmp_path / "in/partly.png", partly)
    for limit in (10**9, 100):
        monkeypatch.setattr(reader, "HUGE_PIXELS", limit)
        fix_with(tmp_path / "in", tmp_path / "out", Tinter(), overwrite=True)
        out = read_image(tmp_path / "out/neutral.png").pixels
        np.testing.assert_array_equal(out[:, :, 1:], out[:, :, :1].repeat(2, axis=2))
        colored = read_image(tmp_path / "out/partly.png").pixels[:100].astype(int)
        assert (colored[:, :, 0] - colored[:, :, 2]).mean() > 5


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_is_turned_in_bands_too(
    orientation: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    for ending in ("png", "tif"):
        save(tmp_path / "in" / f"a.{ending}", photo(150, 90), exif=exif)
    memory, bands = both_ways(tmp_path / "in", tmp_path, monkeypatch)
    for ending in ("png", "tif"):
        one, two = read_image(memory / f"a.{ending}"), read_image(bands / f"a.{ending}")
        assert np.array_equal(one.pixels, two.pixels)
        with Image.open(bands / f"a.{ending}") as image:
            assert image.getexif().get(0x0112, 1) == 1


def test_a_jpeg_stays_a_jpeg_of_its_quality(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exif = Image.Exif()
    exif[0x010E] = "grandmother"
    smooth = np.kron(photo(20, 15), np.ones((16, 16, 1), np.uint8))
    save(tmp_path / "in" / "a.jpg", smooth, exif=exif, quality=92, icc_profile=matrix_profile(*ADOBE_RGB))
    memory, bands = both_ways(tmp_path / "in", tmp_path, monkeypatch)
    one, two = read_image(memory / "a.jpg"), read_image(bands / "a.jpg")
    assert np.abs(one.pixels.astype(int) - two.pixels.astype(int)).mean() < 0.5
    assert one.jpeg is not None
    assert two.jpeg is not None
    assert (one.jpeg.quality, one.jpeg.subsampling) == (two.jpeg.quality, two.jpeg.subsampling)
    assert two.icc == one.icc
    with Image.open(bands / "a.jpg") as image:
        assert image.getexif()[0x010E] == "grandmother"


def test_other_formats_come_and_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "in" / "a.png", photo(150, 90, dtype=np.uint8))
    save(tmp_path / "in" / "b.webp", photo(150, 90), lossless=True)
    memory, bands = both_ways(tmp_path / "in", tmp_path, monkeypatch, ext="tiff")
    for name in ("a.tiff", "b.tiff"):
        assert np.array_equal(read_image(memory / name).pixels, read_image(bands / name).pixels)


@pytest.mark.usefixtures("everything_is_huge")
def test_a_damaged_picture_fails_with_a_reason_and_leaves_nothing(tmp_path: Path) -> None:
    whole = save(tmp_path / "whole.png", photo(150, 90)).read_bytes()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(whole[: len(whole) // 2])
    save(tmp_path / "in" / "b.png", photo(150, 90))
    summary = fix_with(tmp_path / "in", tmp_path / "out", Smoother())
    assert (summary.done, len(summary.failed)) == (1, 1)
    assert "cannot be decoded" in summary.failed[0].reason
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"b.png"}


@pytest.mark.usefixtures("everything_is_huge")
def test_memory_that_does_not_suffice_makes_the_tiles_smaller(tmp_path: Path) -> None:
    class Hungry(Smoother):
        def _restore(self, image: Tensor, mask: Tensor | None) -> Tensor:
            if image.shape[-1] > 100:
                raise torch.OutOfMemoryError("out of memory")
            return super()._restore(image, mask)

    save(tmp_path / "in" / "a.png", photo(300, 200))
    first = fix_with(tmp_path / "in", tmp_path / "one", Smoother(), tile=64)
    second = fix_with(tmp_path / "in", tmp_path / "two", Hungry(), tile=160)
    assert (first.done, second.done) == (1, 1)
    one, two = (read_image(tmp_path / way / "a.png").pixels.astype(int) for way in ("one", "two"))
    assert np.abs(one - two).max() <= 1


@pytest.mark.usefixtures("everything_is_huge")
@pytest.mark.parametrize("name", [b"caf\xe9.png", "näme [1].png".encode(), b"new\nline.tif"])
def test_any_name_will_do(name: bytes, tmp_path: Path) -> None:
    save(tmp_path / "x", photo(150, 90), format="PNG" if name.endswith(b"png") else "TIFF")
    (tmp_path / "in").mkdir()
    (tmp_path / "x").rename(tmp_path / "in" / os.fsdecode(name))
    summary = fix_with(tmp_path / "in", tmp_path / "out", Smoother())
    assert (summary.done, summary.failed) == (1, [])
    assert [os.fsencode(p.name) for p in (tmp_path / "out").iterdir()] == [name]


@pytest.mark.parametrize(("suffix", "options"), [("png", {}), ("tif", {"compression": "group4"})])
def test_a_blank_page_is_a_small_file_and_huge_all_the_same(
    suffix: str, options: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    Image.new("1", (6400, 6400), 1).save(tmp_path / f"in/x.{suffix}", **options)
    taken = []
    monkeypatch.setattr(Stages, "repair_in_parts", lambda _, item, network: taken.append(item.job.source.name))
    fix_with(tmp_path / "in", tmp_path / "out", Smoother())
    assert taken == [f"x.{suffix}"]
