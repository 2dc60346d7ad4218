"""HEIC, as phones write it."""

import sys

import numpy as np
import pytest
from PIL import Image
from skimage import data

from restore.errors import RestoreError
from restore.images import DecodedImage, read_image, write_image
from restore.images.pillow import _pillow_heif, heic_available
from tests.images.profiles import ADOBE_RGB, matrix_profile

PHOTO = np.ascontiguousarray(data.astronaut()[:200, 100:400])
ICC = matrix_profile(*ADOBE_RGB)


@pytest.fixture
def phone_photo(tmp_path):
    """With a profile, a maker, and an orientation in EXIF, which says nothing here: the format has tags of its own."""
    pytest.importorskip("pillow_heif")
    assert heic_available()
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    path = tmp_path / "a.heic"
    Image.fromarray(PHOTO).save(path, "HEIF", quality=95, exif=exif, icc_profile=ICC)
    return path


def test_a_photograph_comes_back_with_its_profile_and_maker(phone_photo, tmp_path):
    picture = read_image(phone_photo)
    assert (picture.format, picture.size, picture.icc) == ("heic", (200, 300), ICC)
    assert np.abs(picture.pixels.astype(float) - PHOTO).mean() < 3
    assert picture.notes == []

    write_image(picture, tmp_path / "b.heic")
    again = read_image(tmp_path / "b.heic")
    assert (again.size, again.icc) == (picture.size, picture.icc)
    assert np.abs(again.pixels.astype(float) - picture.pixels).mean() < 3
    with Image.open(tmp_path / "b.heic") as image:
        assert (image.size, image.getexif()[0x010F], image.getexif().get(0x0112, 1)) == ((300, 200), "Maker", 1)


def test_transparency_is_kept(tmp_path):
    pytest.importorskip("pillow_heif")
    alpha = np.tile(np.arange(150, dtype=np.uint8), (200, 2))
    write_image(DecodedImage(PHOTO, alpha, format="heic"), tmp_path / "a.heic")
    back = read_image(tmp_path / "a.heic").alpha
    assert back is not None
    assert np.abs(back.astype(int) - alpha).mean() < 3


def test_a_cut_file_fails_with_a_reason(phone_photo):
    phone_photo.write_bytes(phone_photo.read_bytes()[:-2000])
    with pytest.raises(RestoreError, match="the HEIC cannot be decoded"):
        read_image(phone_photo)


def test_without_the_extra_it_is_said_how_to_get_it(phone_photo, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pillow_heif", None)
        _pillow_heif.cache_clear()
        with pytest.raises(RestoreError, match=r"restore-toolkit\[heic\]"):
            read_image(phone_photo)
    _pillow_heif.cache_clear()
