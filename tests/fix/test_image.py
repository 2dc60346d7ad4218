"""One image from memory to memory: as a file is repaired, and back as what it was given as."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from PIL import Image, ImageCms

import restore
from restore import FixOptions, RestoreError, fix_image
from restore.fix.steps import Models
from tests.fix.conftest import Filler, Identity, Inverter, fix_with, hole, load, photo, save


def file_of(array: np.ndarray, format: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, format, **options)
    return stream.getvalue()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
@pytest.mark.parametrize("channels", [0, 1, 2, 3, 4])
def test_an_array_comes_back_as_an_array_of_its_kind(dtype: type, channels: int) -> None:
    shape = (9, 7, channels) if channels else (9, 7)
    white = 1 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max
    array = (np.random.default_rng(0).uniform(0.1, 0.4, shape) * white).astype(dtype)
    before = array.copy()
    same, inverted = fix_image(array, model=Identity()), fix_image(array, model=Inverter())
    assert (same.dtype, inverted.dtype, same.shape, inverted.shape) == (array.dtype, array.dtype, shape, shape)
    tolerance = 1e-6 if white == 1 else 0
    np.testing.assert_allclose(same, array, atol=tolerance)
    expected = white - array
    if channels in (2, 4):
        expected[..., -1] = array[..., -1]
    np.testing.assert_allclose(inverted, expected, atol=tolerance)
    assert np.array_equal(array, before)


@pytest.mark.parametrize("kind", ["bool", "uint8", "float", "pil", "bytes"])
def test_a_mask_of_any_kind(kind: str) -> None:
    array, mask = photo(20, 30), hole(20, 30, (3, 4, 9, 12))
    given = {
        "bool": mask > 0, "uint8": mask, "float": mask / 255, "pil": Image.fromarray(mask), "bytes": file_of(mask),
    }[kind]  # fmt: skip
    repaired = fix_image(array, model=Filler(), mask=given)
    np.testing.assert_array_equal(repaired, np.where(mask[:, :, None] > 0, 255, array))
    inverted = fix_image(array, model=Filler(), mask=given, options=FixOptions(mask_invert=True))
    np.testing.assert_array_equal(inverted, np.where(mask[:, :, None] > 0, array, 255))
    dilated = fix_image(array, model=Filler(), mask=given, options=FixOptions(mask_dilate=2))
    assert (dilated == 255).all(-1).sum() > (mask > 0).sum()


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_bytes_come_back_as_the_file_that_fix_would_write(tmp_path: Path, format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = file_of(photo(20, 30), format, exif=exif, icc_profile=profile)
    suffix = {"PNG": "png", "JPEG": "jpg", "TIFF": "tif", "WEBP": "webp"}[format]
    (tmp_path / f"a.{suffix}").write_bytes(data)
    mask = hole(30, 20, (3, 4, 9, 12))
    save(tmp_path / "mask.png", mask)
    fix_with(tmp_path / f"a.{suffix}", tmp_path / f"out.{suffix}", Filler(), masks=tmp_path / "mask.png")
    assert fix_image(data, model=Filler(), mask=mask) == (tmp_path / f"out.{suffix}").read_bytes()


def test_bytes_in_which_nothing_changes_come_back_as_they_are() -> None:
    data = file_of(photo(20, 30), "JPEG", quality=90)
    assert fix_image(data, model=Filler(), mask=hole(20, 30)) == data
    assert fix_image(data, model=Identity()) == data
    converted = fix_image(data, model=Filler(), mask=hole(20, 30), options=FixOptions(ext="png"))
    assert converted.startswith(b"\x89PNG")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F"])
def test_a_pil_image_comes_back_as_one(mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(photo(9, 7, channels=1, dtype=np.uint16))
    elif mode == "F":
        image = Image.fromarray(np.full((9, 7), 0.25, np.float32))
    else:
        image = Image.fromarray(photo(9, 7)).convert(mode)
    repaired = fix_image(image, model=Inverter())
    assert isinstance(repaired, PIL.Image.Image)
    assert repaired.size == image.size
    assert repaired.mode == {"1": "L", "P": "RGB", "CMYK": "RGB"}.get(mode, mode)


def test_a_pil_image_is_turned_and_keeps_its_profile() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112] = 6
    array = photo(6, 10)
    image = Image.open(io.BytesIO(file_of(array, exif=exif, icc_profile=profile)))
    repaired = fix_image(image, model=Identity())
    np.testing.assert_array_equal(np.asarray(repaired), np.rot90(array, -1))
    assert repaired.info["icc_profile"] == profile
    assert repaired.getexif().get(0x0112, 1) == 1


def test_alpha_is_the_mask() -> None:
    array = photo(10, 10, channels=4)
    array[..., 3] = 255
    array[2:4, 2:4, 3] = 0
    repaired = fix_image(array, model=Filler(), options=FixOptions(masks="alpha"))
    expected = array.copy()
    expected[2:4, 2:4] = 255
    np.testing.assert_array_equal(repaired, expected)


def test_damage_is_detected() -> None:
    class Brights:
        name, sha256 = "brights", None

        def detect(self, image: np.ndarray, *, tile_px: int, on_event: object) -> np.ndarray:
            return (image.min(2) > 0.8).astype(np.float32)

    array = photo(10, 10)
    array[2:4, 2:5] = 250
    models = Models(Filler(), detector=Brights())
    repaired = fix_image(array, model=models, options=FixOptions(masks="auto", clean_up=False))
    np.testing.assert_array_equal(repaired, np.where((array == 250), 255, array))


@pytest.mark.parametrize(
    ("image", "given", "words"),
    [
        ("a.png", {}, "must be a NumPy array, a PIL image or bytes, not str"),
        (np.zeros((3, 4), np.int64), {}, "must be uint8, uint16, float"),
        (np.zeros((3, 4, 5), np.uint8), {}, "1 to 4 channels"),
        (np.zeros((0, 4), np.uint8), {}, "1 to 4 channels"),
        (b"no image", {}, "image"),
        (photo(5, 5), {"mask": hole(5, 6)}, "mask"),
        (photo(5, 5), {"options": FixOptions(masks="folder")}, "must be alpha, infrared or auto"),
        (photo(5, 5), {"options": FixOptions(masks="alpha")}, "no transparency"),
        (photo(5, 5), {"options": FixOptions(log="log")}, "does not apply to fix_image"),
        (photo(5, 5), {"options": FixOptions(mask_dilate=3)}, "--mask-dilate: requires --masks"),
        (photo(50, 50), {"options": FixOptions(max_pixels=100)}, "image"),
    ],
)
def test_what_cannot_be_is_one_clear_error(image: object, given: dict, words: str) -> None:
    with pytest.raises(RestoreError, match=words):
        fix_image(image, model=Filler() if "mask" in given else Inverter(), **given)


def test_the_model_may_be_a_name() -> None:
    repaired = fix_image(photo(20, 30), model="telea", mask=hole(20, 30, (3, 4, 6, 8)))
    assert repaired.shape == (20, 30, 3)
    assert "fix_image" in dir(restore)


def test_a_file_and_an_array_are_repaired_alike(tmp_path: Path) -> None:
    source = save(tmp_path / "a.png", photo(40, 30))
    fix_with(source, tmp_path / "out.png", restore.open_restorer("tv"))
    np.testing.assert_array_equal(fix_image(photo(40, 30), model="tv"), load(tmp_path / "out.png"))


@pytest.mark.parametrize("model", [3, "", ["photo"]])
def test_a_model_of_a_wrong_kind_is_refused(model: object) -> None:
    with pytest.raises(RestoreError) as caught:
        fix_image(photo(16, 16), model=model)  # type: ignore[call-overload]
    assert caught.value.exit_code == 2


def test_an_empty_pil_image_is_refused() -> None:
    with pytest.raises(RestoreError, match="must not be empty"):
        fix_image(Image.new("RGB", (0, 5)), model=Identity())


def test_a_big_endian_pil_image_keeps_its_16_bits() -> None:
    values = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16
    image = Image.frombytes("I;16B", (64, 64), values.astype(">u2").tobytes())
    assert np.array_equal(np.asarray(fix_image(image, model=Identity())), values)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_arrays_with_nan_or_inf_are_refused(value):
    image = np.full((8, 8, 3), 0.5, np.float32)
    image[2, 3, 1] = value
    with pytest.raises(RestoreError, match="NaN or Inf"):
        fix_image(image, model="tv")
