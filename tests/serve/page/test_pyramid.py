"""What the page shows of images: upright, in sRGB, with 8 bits."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from restore.errors import RestoreError
from restore.images import DecodedImage, image_from_bytes
from restore.serve.page.pyramid import shown, write_probabilities, write_pyramid, write_thumbnail
from restore.serve.page.tiles import Box, TileFile
from tests.images.profiles import ADOBE_RGB, matrix_profile


def decoded(image: Image.Image, kind: str = "PNG", **options: object) -> DecodedImage:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return image_from_bytes(stream.getvalue(), f"x.{kind.lower()}")


def ramp(width: int, height: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // width, y * 255 // height, np.full_like(x, 90)], 2).astype(np.uint8)


def test_tiles_of_all_levels_show_the_image(tmp_path: Path) -> None:
    pixels = ramp(1101, 700)
    tiles = write_pyramid(tmp_path / "a.tiles", pixels)
    opened = TileFile.open(tmp_path / "a.tiles")
    assert opened.levels == tiles.levels == ((1101, 700), (551, 350), (276, 175))
    assert np.abs(opened.read_box(Box(0, 0, 1101, 700)).astype(int) - pixels).max() <= 6
    part = opened.read_box(Box(480, 500, 600, 530))
    assert np.abs(part.astype(int) - pixels[500:530, 480:600]).max() <= 6
    corner = cv2.imdecode(np.frombuffer(opened.read(0, 2, 1) or b"", np.uint8), cv2.IMREAD_COLOR)
    assert corner.shape == (188, 77, 3)
    small = opened.read_box(Box(0, 0, 276, 175), 2)
    assert np.abs(small.astype(int) - cv2.resize(pixels, (276, 175), interpolation=cv2.INTER_AREA)).max() <= 8
    assert opened.read(0, 3, 0) is None
    assert opened.read(3, 0, 0) is None


def test_a_file_that_was_cut_short_is_an_error(tmp_path: Path) -> None:
    write_pyramid(tmp_path / "a.tiles", ramp(600, 600))
    data = (tmp_path / "a.tiles").read_bytes()
    for content in (data[:-100], data[:10], b"", b"x" * len(data)):
        (tmp_path / "b.tiles").write_bytes(content)
        with pytest.raises(RestoreError):
            TileFile.open(tmp_path / "b.tiles")


def test_orientation_is_applied() -> None:
    image = Image.fromarray(ramp(40, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90°
    pixels, _ = shown(decoded(image, "JPEG", quality=100, subsampling=0, exif=exif.tobytes()))
    assert pixels.shape == (40, 20, 3)
    assert np.abs(pixels.astype(int) - np.rot90(ramp(40, 20), -1)).max() <= 4


def test_colors_are_converted_to_srgb_as_by_littlecms() -> None:
    icc = matrix_profile(*ADOBE_RGB)
    values = np.random.default_rng(0).integers(0, 256, (300, 40, 3), np.uint8)
    pixels, _ = shown(decoded(Image.fromarray(values), icc_profile=icc))
    expected = ImageCms.profileToProfile(
        Image.fromarray(values), io.BytesIO(icc), ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC, outputMode="RGB",
    )  # fmt: skip
    assert np.abs(pixels.astype(int) - np.asarray(expected)).max() <= 2


def test_transparent_pixels_are_white() -> None:
    values = np.full((10, 10, 4), (200, 0, 0, 255), np.uint8)
    values[:5, :, 3] = 0
    values[5:7, :, 3] = 128
    pixels, _ = shown(decoded(Image.fromarray(values)))
    assert (pixels[:5] == 255).all()
    assert np.abs(pixels[5:7].astype(int) - (227, 127, 127)).max() <= 1
    assert (pixels[7:] == (200, 0, 0)).all()


def test_sixteen_bits_are_rounded_and_dark_scans_are_shown_brighter() -> None:
    values = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    pixels, gain = shown(decoded(Image.fromarray(values)))
    assert gain == 1
    assert np.array_equal(pixels[:, :, 0], np.rint(values / 257))
    dark, gain = shown(decoded(Image.fromarray((values // 16).astype(np.uint16))))  # 12 bits in 16
    assert gain > 10
    assert dark.max() == 255
    again, _ = shown(decoded(Image.fromarray((values // 16).astype(np.uint16))), 1.0)
    assert again.max() == 16


def test_gray_and_thumbnail(tmp_path: Path) -> None:
    pixels, _ = shown(decoded(Image.fromarray(ramp(900, 600)[:, :, 0])))
    assert pixels.shape == (600, 900, 3)
    write_thumbnail(tmp_path / "t.jpg", pixels)
    assert Image.open(tmp_path / "t.jpg").size == (320, 213)
    write_thumbnail(tmp_path / "t.jpg", pixels[:20, :30])
    assert Image.open(tmp_path / "t.jpg").size == (30, 20)


def test_probabilities_are_kept_in_steps_of_a_255th_with_maxima_above(tmp_path: Path) -> None:
    likely = np.zeros((700, 1000), np.float32)
    likely[10, 20], likely[650, 990] = 0.5, 1.0
    tiles = write_probabilities(tmp_path / "p.tiles", likely, {"threshold": 0.3})
    assert TileFile.open(tmp_path / "p.tiles").facts == {"threshold": 0.3}
    whole = tiles.read_box(Box(0, 0, 1000, 700), channels=1)
    assert whole[10, 20] == 128
    assert np.count_nonzero(whole) == 2
    assert tiles.read(0, 1, 0) is None
    assert tiles.read_box(Box(0, 0, 500, 350), 1, channels=1)[5, 10] == 128
