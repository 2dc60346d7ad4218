"""What `read_image` makes of files, against Pillow and against arrays that the tests know."""

import io
import os
import struct
import subprocess
import sys
import zlib
from contextlib import suppress

import numpy as np
import pytest
import pyvips
from PIL import Image, ImageCms

from restore.errors import RestoreError
from restore.images import (
    DecodedImage,
    NotAnImage,
    image_from_bytes,
    read_image,
    read_mask,
    read_rgb,
    read_rgb8,
    write_image,
)
from restore.images.color import open_profile
from restore.images.decode import decoder_message
from restore.images.encode import encode
from tests.images.profiles import ADOBE_RGB, matrix_profile

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (24, 40, 3), np.uint8)


def smooth(height=24, width=40):
    """A picture that JPEG keeps well, with no symmetry."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 / width, y * 255 / height, (x + y) * 255 / (height + width)], -1).astype(np.uint8)


def saved(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


# How a picture that is seen upright lies in the file: EXIF 2.32, the table of tag 0x0112, as numpy's turns.
AS_STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: np.rot90(a, 2),
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_a_picture_comes_upright_and_stays_so(tmp_path, suffix, orientation):
    seen = smooth()
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 98, "subsampling": 0} if suffix == "jpg" else {"lossless": True} if suffix == "webp" else {}
    path = saved(tmp_path / f"a.{suffix}", np.ascontiguousarray(AS_STORED[orientation](seen)), exif=exif, **options)

    picture = read_image(path)
    assert picture.size == seen.shape[:2]
    assert np.abs(picture.pixels.astype(int) - seen).max() <= (8 if suffix == "jpg" else 0)

    again = tmp_path / f"b.{suffix}"
    write_image(picture, again)
    with Image.open(again) as image:
        assert image.getexif().get(0x0112, 1) == 1
        assert image.size == (seen.shape[1], seen.shape[0])
        if suffix != "jpg":
            assert np.array_equal(np.asarray(image), seen)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_png_of_every_depth(tmp_path, bits):
    top = 2**bits - 1
    codes = (
        np.arange(32 * 8).reshape(8, 32) * 257 % (top + 1) if bits == 16 else np.arange(256).reshape(8, 32) % (top + 1)
    )
    path = tmp_path / "a.png"
    path.write_bytes(_gray_png(codes, bits))
    picture = read_image(path)
    white = 65535 if bits == 16 else 255
    assert picture.bits == bits
    assert picture.pixels.dtype == (np.uint16 if bits == 16 else np.uint8)
    assert np.array_equal(picture.pixels[:, :, 0], codes * white // top)


def _gray_png(codes, bits):
    height, width = codes.shape
    if bits == 16:
        rows = [row.astype(">u2").tobytes() for row in codes]
    else:
        planes = (codes[:, :, None] >> np.arange(bits - 1, -1, -1)) & 1
        rows = [np.packbits(row.reshape(-1)).tobytes() for row in planes]
    body = zlib.compress(b"".join(b"\0" + row for row in rows))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def test_a_palette_becomes_rgb_and_keeps_its_transparency(tmp_path):
    image = Image.fromarray(smooth()).quantize(16)
    image.save(tmp_path / "a.png", transparency=3)
    picture = read_image(tmp_path / "a.png")
    expected = np.asarray(Image.open(tmp_path / "a.png").convert("RGBA"))
    assert picture.alpha is not None
    assert set(np.unique(picture.alpha)) == {0, 255}
    assert np.array_equal(picture.pixels, expected[:, :, :3])
    assert np.array_equal(picture.alpha, expected[:, :, 3])


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("suffix", ["png", "tif", "tga"])
def test_gray_and_alpha_stay_what_they_are(tmp_path, suffix, mode):
    channels = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}[mode]
    values = RNG.integers(0, 256, (9, 13, channels), np.uint8)
    path = saved(tmp_path / f"a.{suffix}", values[:, :, 0] if mode == "L" else values)
    picture = read_image(path)
    assert picture.gray == (channels < 3)
    assert np.array_equal(picture.pixels, values[:, :, : 1 if channels < 3 else 3])
    assert (picture.alpha is not None) == (channels in (2, 4))
    if picture.alpha is not None:
        assert np.array_equal(picture.alpha, values[:, :, -1])


@pytest.mark.parametrize("suffix", ["bmp", "tga", "pcx", "ppm", "sgi", "gif", "webp", "avif"])
def test_other_formats(tmp_path, suffix):
    options = (
        {"lossless": True} if suffix == "webp" else {"quality": 100, "subsampling": "4:4:4"} if suffix == "avif" else {}
    )
    path = saved(tmp_path / f"a.{suffix}", smooth(), **options)
    expected = np.asarray(Image.open(path).convert("RGB"))
    assert np.abs(read_image(path).pixels.astype(int) - expected).max() <= (2 if suffix == "avif" else 0)


@pytest.mark.parametrize("options", [{"tile": True}, {"compression": "lzw"}, {"compression": "deflate"}])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_tiff(tmp_path, dtype, options):
    values = RNG.random((40, 50, 3)).astype(np.float32)
    if dtype != np.float32:
        values = (values * np.iinfo(dtype).max).astype(dtype)
    pyvips.Image.new_from_array(values).tiffsave(str(tmp_path / "a.tif"), **options)
    picture = read_image(tmp_path / "a.tif")
    assert picture.pixels.dtype == dtype
    assert np.array_equal(picture.pixels, values)


def test_further_pages_are_told(tmp_path):
    pages = [Image.fromarray(RGB), Image.fromarray(RGB[::-1])]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / "a.webp", save_all=True, append_images=pages[1:], lossless=True)
    for suffix in ("tif", "webp"):
        picture = read_image(tmp_path / f"a.{suffix}")
        assert any("the first of 2" in note for note in picture.notes)
        assert np.array_equal(picture.pixels, RGB)


def test_a_float_picture_with_values_to_255_is_shown_in_their_range(tmp_path):
    values = (RNG.random((5, 6, 3)) * 200 + 55).astype(np.float32)
    pyvips.Image.new_from_array(values).tiffsave(str(tmp_path / "a.tif"))
    picture = read_image(tmp_path / "a.tif")
    assert picture.white == 255
    assert np.allclose(picture.to_srgb(), values / 255)


def test_cmyk_agrees_with_littlecms(tmp_path):
    profile = (
        pyvips.Image.black(1, 1, bands=3).copy(interpretation="srgb").icc_transform("cmyk").get("icc-profile-data")
    )
    cmyk = RNG.integers(0, 256, (16, 16, 4), np.uint8)
    Image.fromarray(cmyk, "CMYK").save(tmp_path / "a.tif", icc_profile=bytes(profile))
    picture = read_image(tmp_path / "a.tif")
    expected = ImageCms.profileToProfile(
        Image.fromarray(cmyk, "CMYK"),
        io.BytesIO(bytes(profile)),
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
    )
    assert any("CMYK" in note for note in picture.notes)
    assert picture.icc is None
    assert np.abs(picture.pixels.astype(int) - np.asarray(expected)).max() <= 2


def test_channels_beyond_the_inks_are_dropped_before_the_conversion(tmp_path):
    inks = RNG.integers(0, 256, (16, 16, 40), np.uint8)
    for name, bands in (("few.tif", 5), ("many.tif", 40)):
        pixels = np.ascontiguousarray(inks[:, :, :bands])
        image = pyvips.Image.new_from_memory(pixels.tobytes(), 16, 16, bands, "uchar").copy(interpretation="cmyk")
        image.tiffsave(str(tmp_path / name))
    few, many = (read_image(tmp_path / name) for name in ("few.tif", "many.tif"))
    assert np.array_equal(few.pixels, many.pixels)
    assert "only the first 5 of 40 channels are read" in many.notes


def test_a_gray_cmyk_jpeg_without_a_profile_comes_out_the_right_way_round(tmp_path):
    ramp = np.zeros((16, 256, 4), np.uint8)
    ramp[:, :, 3] = np.arange(256)  # black ink grows to the right
    Image.fromarray(ramp, "CMYK").save(tmp_path / "a.jpg", quality=95)
    row = read_image(tmp_path / "a.jpg").pixels[8].mean(axis=1)
    assert row[0] > 240
    assert row[-1] < 60
    assert (np.diff(row[::16]) < 0).all()


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp", "gif", "bmp"])
def test_half_a_file_fails_with_one_line(tmp_path, suffix):
    path = saved(tmp_path / f"a.{suffix}", np.repeat(np.repeat(RGB, 8, 0), 8, 1))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RestoreError) as caught:
        read_image(path)
    assert caught.value.exit_code == 1
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_half_a_jpeg_can_be_accepted(tmp_path):
    path = saved(tmp_path / "a.jpg", smooth(200, 300), quality=95)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    picture = read_image(path, allow_truncated=True)
    assert np.abs(picture.pixels[:60].astype(int) - smooth(200, 300)[:60]).max() <= 12


@pytest.mark.parametrize("suffix", ["png", "gif", "bmp", "tif"])
def test_a_bomb_is_refused_before_it_is_decoded(tmp_path, suffix):
    path = saved(tmp_path / f"a.{suffix}", RGB)
    with pytest.raises(RestoreError, match="limit"):
        read_image(path, max_pixels=24 * 40 - 1)
    assert read_image(path, max_pixels=24 * 40).size == (24, 40)


def test_a_header_that_lies_about_its_size_allocates_nothing(tmp_path):
    data = bytearray(_gray_png(np.zeros((2, 2), int), 8))
    data[16:24] = struct.pack(">II", 200_000, 200_000)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(RestoreError, match="200000×200000"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("content", [b"", b"hello", b"\0" * 5000, b"<html>", b"PK\3\4zip", b"\x7fELF"])
def test_what_is_no_picture_says_so(tmp_path, content):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(NotAnImage):
        read_image(tmp_path / "a.jpg")


def test_pictures_that_cannot_be_read_are_named_and_are_not_taken_for_something_else(tmp_path):
    (tmp_path / "a.psd").write_bytes(b"8BPS\0\1" + bytes(8) + b"\0\0\0\1" * 2 + bytes(84))
    with pytest.raises(RestoreError, match="Photoshop") as caught:
        read_image(tmp_path / "a.psd")
    assert not isinstance(caught.value, NotAnImage)
    saved(tmp_path / "a.tif", RGB)
    os.rename(tmp_path / "a.tif", tmp_path / "a.nef")
    with pytest.raises(RestoreError, match="raw"):
        read_image(tmp_path / "a.nef")


def test_missing_files_folders_and_pipes(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    for name in ("missing.png", "folder.png", "pipe.png"):
        with pytest.raises(RestoreError) as caught:
            read_image(tmp_path / name)
        assert caught.value.exit_code == 1


def test_any_name_works(tmp_path):
    for name in (
        b"a\nb.png",
        b"\xff\xfe.png",
        b"a[page=1].png",
        "\N{CAMERA}.png".encode(),
        b"x" * 240 + b".png",
    ):
        path = os.path.join(tmp_path, os.fsdecode(name))
        write_image(read_image(saved(tmp_path / "source.png", RGB)), path)
        assert np.array_equal(read_image(path).pixels, RGB)
    broken = os.path.join(tmp_path, os.fsdecode(b"\xff\n.png"))
    with open(broken, "wb") as stream:
        stream.write(b"\x89PNG\r\n\x1a\nrubbish")
    with pytest.raises(RestoreError) as caught:
        read_image(broken)
    str(caught.value).encode("utf-8")
    assert "\n" not in str(caught.value)


def test_masks(tmp_path):
    mask = np.zeros((6, 8), np.uint8)
    mask[2:4, 3:5] = 255
    expected = (mask / 255).astype(np.float32)
    saved(tmp_path / "l.png", mask)
    Image.fromarray(mask).convert("1").save(tmp_path / "one.tif")
    Image.fromarray(mask).convert("RGB").save(tmp_path / "rgb.png")
    for name in ("l.png", "one.tif", "rgb.png"):
        found = read_mask(tmp_path / name, size=(6, 8))
        assert found.dtype == np.float32
        assert np.array_equal(found, expected)
    # Strokes on a transparent layer: what lies under its transparency may be any colour.
    for strokes, invert in ((255, False), (0, True)):
        saved(tmp_path / "layer.png", np.dstack([np.full((6, 8, 3), strokes, np.uint8), mask]))
        assert np.array_equal(read_mask(tmp_path / "layer.png", invert=invert), expected)
    with pytest.raises(RestoreError, match=r"8×6.*6×8"):
        read_mask(tmp_path / "l.png", size=(8, 6))


def test_plain_arrays(tmp_path):
    saved(tmp_path / "gray.png", RGB[:, :, 0])
    assert np.array_equal(read_rgb8(tmp_path / "gray.png"), np.repeat(RGB[:, :, :1], 3, 2))
    deep = RNG.integers(0, 65536, (5, 7, 3)).astype(np.uint16)
    pyvips.Image.new_from_array(deep).copy(interpretation="rgb16").pngsave(str(tmp_path / "deep.png"))
    assert np.abs(read_rgb(tmp_path / "deep.png") - deep / 65535).max() < 1e-7
    assert np.array_equal(read_rgb8(tmp_path / "deep.png"), np.rint(deep / 257).astype(np.uint8))


def test_spoilt_files_are_pictures_or_restore_errors(capfd):
    rng = np.random.default_rng(5)
    wholes = {}
    for kind in ("jpeg", "png", "tiff", "webp", "gif", "bmp", "tga", "pcx", "ico", "ppm", "sgi", "avif"):
        wholes[kind] = encode(DecodedImage(smooth(), exif=Image.Exif().tobytes()), kind, "a")[0]
    refusals = []
    for turn in range(600):
        kind = list(wholes)[turn % len(wholes)]
        data = bytearray(wholes[kind])
        for at in rng.integers(0, min(len(data), 64 if turn % 2 else len(data)), rng.integers(1, 6)):
            data[at] = rng.integers(0, 256)
        if turn % 5 == 0:
            del data[rng.integers(1, len(data)) :]
        try:
            image_from_bytes(bytes(data), f"a.{kind}", max_pixels=1_000_000)
        except RestoreError as error:
            refusals.append(error)
    assert len(refusals) > 100
    assert {error.exit_code for error in refusals} == {1}
    assert not any("\n" in str(error) for error in refusals)
    assert capfd.readouterr().err == ""


def test_a_message_that_quotes_odd_bytes_is_an_error_like_any_other_and_spoils_no_later_one(tmp_path):
    error = UnicodeDecodeError("utf-8", b"png2vips: chunk \xc1\x07 is odd\n", 16, 17, "invalid start byte")
    assert decoder_message(error) == "chunk \\xc1\\x07 is odd"
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    with pytest.raises(RestoreError, match="PNG cannot be decoded"):
        read_image(tmp_path / "a.png")


def test_a_profile_that_does_not_fit_is_told_and_left_out(tmp_path):
    path = saved(tmp_path / "a.png", RGB, icc_profile=b"rubbish" * 40)
    picture = read_image(path)
    assert picture.icc is None
    assert picture.notes == [] or "profile" in picture.notes[0]
    path = saved(tmp_path / "a.jpg", RGB[:, :, 0], icc_profile=matrix_profile(*ADOBE_RGB))
    picture = read_image(path)
    assert picture.icc is None
    assert "is for RGB images" in picture.notes[0]
    odd = matrix_profile(*ADOBE_RGB)[:16] + b"7=\xfe " + matrix_profile(*ADOBE_RGB)[20:]
    picture = read_image(saved(tmp_path / "b.jpg", RGB, icc_profile=odd))
    assert picture.notes == ["the color profile is broken; the image is taken as sRGB"]


SIDE_EFFECTS = """
import ctypes, sys, warnings
from pathlib import Path
import PIL, PIL.Image, PIL.ImageFile
import subprocess
import sys

import numpy as np

def state():
    PIL.Image.init()
    handlers = []
    for library in Path(PIL.__file__).parents[1].glob("pillow.libs/libtiff*.so*"):
        tiff = ctypes.CDLL(str(library))
        for setter in (tiff.TIFFSetErrorHandler, tiff.TIFFSetWarningHandler):
            setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
            handlers.append(setter(None))
            setter(handlers[-1])
    return (
        PIL.Image.MAX_IMAGE_PIXELS, PIL.ImageFile.LOAD_TRUNCATED_IMAGES, sorted(PIL.Image.OPEN), sorted(PIL.Image.SAVE),
        [str(entry) for entry in warnings.filters if "PIL" in str(entry)], handlers,
    )

folder = Path(sys.argv[1])
before = state()
from restore.errors import RestoreError
from restore.images import read_image, write_image
assert state() == before, "by importing"
for path in sorted(folder.iterdir()):
    try:
        image = read_image(path, allow_truncated=True)
    except RestoreError as error:
        print(error)
        continue
    write_image(image, folder / "out", format=image.format)
assert state() == before, "by reading and writing"
"""


def test_pillow_stays_as_it_is_for_the_rest_of_the_process(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for suffix in ("jpg", "png", "tif", "bmp", "ico", "tga", "gif"):
        saved(folder / f"a.{suffix}", smooth(40, 50))
    whole = saved(folder / "broken.tif", smooth(300, 500), compression="tiff_lzw").read_bytes()
    (folder / "broken.tif").write_bytes(whole[: len(whole) // 2] + bytes(len(whole) // 2))
    done = subprocess.run([sys.executable, "-c", SIDE_EFFECTS, folder], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert "broken.tif: the TIFF cannot be decoded" in done.stdout


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("gamma", [-1.0, -2.0])
def test_a_profile_with_an_impossible_curve_is_broken_or_read_in_silence(gamma):
    """A division by zero on the way."""
    para = b"para" + bytes(4) + struct.pack(">HHi", 0, 0, round(gamma * 65536))
    plain = matrix_profile(*ADOBE_RGB)
    at = plain.index(b"curv")
    with suppress(ValueError):
        open_profile(plain.replace(plain[at : at + len(para)], para), 3)
