"""TIFFs of several pages: all are repaired and come out as pages; thumbnails among them do not."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import pyvips
from PIL import ExifTags, Image, TiffImagePlugin

from restore.errors import RestoreError
from restore.fix import reader
from restore.images import image_from_bytes
from restore.images.metadata import tiff_pages
from restore.restorers.base import ModelRequirements
from tests.fix.conftest import Filler, Identity, Inverter, fix_with, hole, load, photo, save
from tests.images.profiles import ADOBE_RGB, matrix_profile

PAGES = [photo(20, 30, 1), photo(9, 7, 2, channels=1), photo(40, 11, 3, channels=4)]


def write_pages(path, pages, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *rest = [Image.fromarray(page) for page in pages]
    first.save(path, save_all=True, append_images=rest, **options)
    return path


def read_pages(path):
    with Image.open(path) as image:
        pages = []
        for number in range(image.n_frames):
            image.seek(number)
            pages.append(np.asarray(image))
    return pages


def same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate"])
def test_every_page_is_repaired_in_its_own_size_and_kind(tmp_path, compression):
    write_pages(tmp_path / "in/x.tif", PAGES, compression=compression)
    restorer = Inverter()
    summary = fix_with(tmp_path / "in", tmp_path / "out", restorer)
    assert (summary.done, summary.warnings) == (1, [])
    assert restorer.calls == [(20, 30), (9, 7), (40, 11)]
    inverted = [255 - page for page in PAGES]
    inverted[2][..., 3] = PAGES[2][..., 3]
    same(read_pages(tmp_path / "out/x.tif"), inverted)
    for number, page in enumerate(inverted):  # a second reader
        found = pyvips.Image.new_from_file(str(tmp_path / "out/x.tif"), page=number).numpy()
        np.testing.assert_array_equal(found, page)


def test_deep_pages_with_profiles_and_tags(tmp_path):
    icc = matrix_profile(*ADOBE_RGB)
    rng = np.random.default_rng(0)
    image = pyvips.Image.arrayjoin(
        [pyvips.Image.new_from_array(rng.integers(0, 65536, (12, 15, 3)).astype(np.uint16)) for _ in range(3)], across=1
    ).copy(interpretation="rgb16")
    image.set_type(pyvips.GValue.gint_type, "page-height", 12)
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", icc)
    (tmp_path / "in").mkdir()
    image.tiffsave(str(tmp_path / "in/x.tif"), compression="deflate")
    fix_with(tmp_path / "in", tmp_path / "out", Identity())
    for number in range(3):
        before, after = (
            pyvips.Image.new_from_file(str(tmp_path / place / "x.tif"), page=number) for place in ("in", "out")
        )
        np.testing.assert_array_equal(before.numpy(), after.numpy())
        assert bytes(after.get("icc-profile-data")) == icc


def test_tags_of_pages_stay_with_them(tmp_path):
    path = tmp_path / "in/x.tif"
    path.parent.mkdir()
    with TiffImagePlugin.AppendingTiffWriter(str(path), True) as file:
        for number, page in enumerate(PAGES):
            exif = Image.Exif()
            exif[0x010E] = exif[0x011D] = f"page {number}"
            exif[0x0112] = 6 if number == 1 else 1
            Image.fromarray(page).save(file, "TIFF", exif=exif)
            file.newFrame()
    fix_with(tmp_path / "in", tmp_path / "out", Identity())
    same(read_pages(tmp_path / "out/x.tif"), [PAGES[0], np.rot90(PAGES[1], -1), PAGES[2]])
    with Image.open(tmp_path / "out/x.tif") as image:
        for number in range(3):
            image.seek(number)
            assert image.tag_v2[270] == image.tag_v2[285] == f"page {number}"
            assert image.tag_v2.get(274, 1) == 1


def test_exif_survives_the_joining(tmp_path):
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[0x9003] = "2001:02:03 04:05:06"
    exif.get_ifd(ExifTags.IFD.Exif)[0x829A] = 1 / 125
    save(tmp_path / "x.jpg", PAGES[0], exif=exif)
    fix_with(tmp_path / "x.jpg", tmp_path / "x.tif", Identity())
    data = (tmp_path / "x.tif").read_bytes()
    (tmp_path / "joined.tif").write_bytes(tiff_pages.join_pages([data, data]))
    fix_with(tmp_path / "joined.tif", tmp_path / "again.tif", Inverter())
    for path in (tmp_path / "joined.tif", tmp_path / "again.tif"):
        with Image.open(path) as image:
            assert image.n_frames == 2
            for number in range(2):
                image.seek(number)
                inner = image.getexif().get_ifd(ExifTags.IFD.Exif)
                assert inner[0x9003] == "2001:02:03 04:05:06"
                assert float(inner[0x829A]) == pytest.approx(1 / 125)


def test_a_mask_counts_for_every_page(tmp_path):
    pages = [photo(20, 30, seed) for seed in range(3)]
    write_pages(tmp_path / "in/x.tif", pages)
    mask = hole(20, 30, (2, 3, 9, 9))
    save(tmp_path / "masks/x.png", mask)
    fix_with(tmp_path / "in", tmp_path / "out", Filler(), masks=tmp_path / "masks")
    for page in pages:
        page[mask > 0] = 255
    same(read_pages(tmp_path / "out/x.tif"), pages)
    write_pages(tmp_path / "in/x.tif", PAGES)
    summary = fix_with(tmp_path / "in", tmp_path / "again", Filler(), masks=tmp_path / "masks")
    assert "the mask has 30×20 pixels, its image 7×9" in summary.failed[0].reason


def test_as_another_format_the_first_page_is_left_and_that_is_said(tmp_path):
    write_pages(tmp_path / "in/x.tif", PAGES)
    summary = fix_with(tmp_path / "in", tmp_path / "out", Identity(), ext="png")
    assert [line.endswith("only the first of 3 pages is read") for line in summary.warnings] == [True]
    np.testing.assert_array_equal(load(tmp_path / "out/x.png"), PAGES[0])


def test_a_smaller_copy_is_no_page(tmp_path):
    image = pyvips.Image.new_from_array(photo(300, 300))
    (tmp_path / "in").mkdir()
    image.tiffsave(str(tmp_path / "in/x.tif"), pyramid=True, tile=True, tile_width=64, tile_height=64)
    assert pyvips.Image.new_from_file(str(tmp_path / "in/x.tif")).get("n-pages") > 1
    summary = fix_with(tmp_path / "in", tmp_path / "out", Identity())
    assert [warning.partition(": ")[2] for warning in summary.warnings] == [
        "the smaller copies of the image in the file are left out"
    ]
    same(read_pages(tmp_path / "out/x.tif"), [photo(300, 300)])


def test_one_broken_page_fails_the_file(tmp_path):
    path = write_pages(tmp_path / "in/x.tif", PAGES, compression="tiff_lzw")
    whole = bytearray(path.read_bytes())
    with Image.open(path) as image:
        image.seek(2)
        (at, *_), (count, *_) = image.tag_v2[273], image.tag_v2[279]
    whole[at : at + count] = b"\xff" * count
    path.write_bytes(whole)
    summary = fix_with(tmp_path / "in", tmp_path / "out", Identity())
    assert (summary.done, len(summary.failed)) == (0, 1)
    assert summary.failed[0].reason.startswith("page 3 of 3: the TIFF cannot be decoded")
    assert "--ext" in summary.failed[0].reason
    assert list((tmp_path / "out").glob("*")) == []


@pytest.mark.parametrize(
    "data",
    [
        b"II*\0",
        b"MM\0*\0\0\0\x08",
        b"II*\0\x08\0\0\0\0\0\x08\0\0\0",
        b"II+\0" + bytes(40),
        b"II+\0\x08\0\0\0" + b"\xff" * 12,
    ],
)
def test_a_chain_that_breaks_or_bites_its_tail_ends(data):
    assert len(tiff_pages.find_pages(data).pages) == 1


def test_the_limit_on_pixels_is_for_all_pages_together(tmp_path):
    data = write_pages(tmp_path / "x.tif", PAGES).read_bytes()
    total = sum(page.shape[0] * page.shape[1] for page in PAGES)
    assert len(image_from_bytes(data, "x.tif", max_pixels=total, all_pages=True).extra_pages) == 2
    with pytest.raises(RestoreError, match="page 3 of 3: with this page the file is over the limit"):
        image_from_bytes(data, "x.tif", max_pixels=total - 1, all_pages=True)


def test_tags_of_a_big_tiff(tmp_path):
    exif = Image.Exif()
    exif[0x010F] = "A maker"
    exif[0x0112] = 6
    save(tmp_path / "in/x.tif", PAGES[0], exif=exif, big_tiff=True)
    assert (tmp_path / "in/x.tif").read_bytes()[:3] == b"II+"
    fix_with(tmp_path / "in", tmp_path / "out", Identity())
    with Image.open(tmp_path / "out/x.tif") as image:
        assert image.tag_v2[271] == "A maker"
        np.testing.assert_array_equal(np.asarray(image), np.rot90(PAGES[0], -1))


@pytest.mark.parametrize("parts", [False, True])
def test_pages_that_a_cut_file_has_lost_are_told(tmp_path, monkeypatch, parts):
    class Tiled(Identity):
        requirements = ModelRequirements(needs_mask=False, tileable=True)

    monkeypatch.setattr(reader, "HUGE_PIXELS", 1 if parts else 10**9)
    data = write_pages(tmp_path / "in/x.tif", PAGES).read_bytes()
    second = tiff_pages.find_pages(data).pages[1]
    (tmp_path / "in/cut.tif").write_bytes(data[:second])
    (tmp_path / "in/loop.tif").write_bytes(data.replace(struct.pack("<I", second), struct.pack("<I", 8)))
    save(tmp_path / "in/plain.tif", PAGES[0])
    strict = fix_with(tmp_path / "in", tmp_path / "strict", Tiled())
    assert [failure.path.name for failure in strict.failed] == ["cut.tif"]
    summary = fix_with(tmp_path / "in", tmp_path / "out", Tiled(), allow_truncated=True)
    assert summary.done == 4, summary.failed
    told = [line for line in summary.warnings if "the list of pages is broken after page 1" in line]
    assert [Path(line.partition(": ")[0]).name for line in sorted(told)] == ["cut.tif", "loop.tif"]
