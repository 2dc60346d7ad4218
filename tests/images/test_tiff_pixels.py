"""TIFFs whose pixels libvips reads wrongly or not at all: read as they are meant, or refused, never guessed at."""

import io
import math
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from restore.errors import RestoreError
from restore.images import image_from_bytes
from restore.images.encode import encode
from tests.images.tiffs import build, noise, plain, tags_of

#: The six values of ReferenceBlackWhite of JPEG's full range.
FULL = [0, 255, 128, 255, 128, 255]


def decoded(*directories, **options):
    return image_from_bytes(build(*directories, **options), "image.tif")


def ycbcr_of(rgb):
    """ITU-R BT.601 in full range, as the formulas of JFIF have it."""
    r, g, b = np.moveaxis(rgb.astype(float), 2, 0)
    y = 0.299 * r + 0.587 * g + 0.114 * b
    return np.stack([y, 128 + (b - y) / 1.772, 128 + (r - y) / 1.402], axis=2)


def smooth(height=16, width=24):
    """Colors within the range, that change slowly, so that chroma of half the resolution loses little."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([60 + 4 * x, 100 + 3 * y, 160 - 2 * x - y], axis=2).astype(np.uint8)


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
def test_ycbcr_of_full_resolution(planar, bits):
    rgb = smooth()
    half, top = 1 << (bits - 1), (1 << bits) - 1
    stored = ycbcr_of(rgb)
    stored = np.rint(stored if bits == 8 else (stored - [0, 128, 128]) * (top / 255) + [0, half, half])
    stored = np.clip(stored, 0, top).astype(np.uint8 if bits == 8 else np.uint16)
    directory = plain(stored, t262=(3, [6]), t530=(3, [1, 1]), t532=(5, [0, top, half, top, half, top]))
    if planar:
        directory |= {284: (3, [2]), "strips": [stored[:, :, i].tobytes() for i in range(3)]}
    image = decoded(directory)
    assert np.abs(image.pixels * (255 / top) - rgb).max() <= 1.5
    assert image.notes == []


def test_ycbcr_has_the_black_and_white_and_coefficients_of_its_file():
    rgb = smooth()
    y, cb, cr = np.moveaxis(ycbcr_of(rgb), 2, 0)  # video range: 16 to 235, and 16 to 240
    stored = np.stack([16 + y * 219 / 255, 128 + (cb - 128) * 112 / 127, 128 + (cr - 128) * 112 / 127], axis=2)
    reference = (5, [16, 235, 128, 240, 128, 240])
    image = decoded(plain(np.rint(stored).astype(np.uint8), t262=(3, [6]), t530=(3, [1, 1]), t532=reference))
    assert np.abs(image.pixels.astype(int) - rgb).max() <= 3
    gray = np.full((4, 4, 3), 128, np.uint8)
    gray[:, :, 2] = 178  # Cr 50 above the middle
    other = decoded(plain(gray, t262=(3, [6]), t530=(3, [1, 1]), t529=(5, [0.25, 0.5, 0.25])))
    assert other.pixels[0, 0].tolist() == [203, 90, 128]  # R = Y + 1.5 Cr; G = (Y - R / 4 - B / 4) · 2


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(("across", "down"), [(2, 2), (2, 1), (4, 1)])
def test_ycbcr_of_lower_resolution(across, down, compressed):
    rgb = smooth()
    full = np.rint(ycbcr_of(rgb)).astype(np.uint8)
    units = bytearray()  # for each block of pixels its Ys, one Cb and one Cr (TIFF 6.0, section 21)
    for top in range(0, 16, down):
        for left in range(0, 24, across):
            block = full[top : top + down, left : left + across]
            units += block[:, :, 0].tobytes() + bytes(np.rint(block[:, :, 1:].mean(axis=(0, 1))).astype(np.uint8))
    directory = plain(full, t262=(3, [6]), t530=(3, [across, down]), t532=(5, FULL))
    directory |= {"strips": [zlib.compress(bytes(units)) if compressed else bytes(units)]}
    directory[259] = (3, [8 if compressed else 1])
    image = decoded(directory)
    assert np.abs(image.pixels.astype(int) - rgb).max() <= 12  # libtiff repeats the chroma of a block
    assert image.pixels.shape == (16, 24, 3)


@pytest.mark.parametrize("tiled", [False, True])
def test_old_style_jpeg(tiled):
    rgb = np.repeat(np.repeat(smooth(), 2, axis=0), 2, axis=1)
    stream = io.BytesIO()
    Image.fromarray(rgb).save(stream, "JPEG", quality=95)
    jpeg = stream.getvalue()
    directory = plain(rgb, t259=(3, [6]), t262=(3, [6]), t530=(3, [2, 2]), t512=(3, [1]), strips=[jpeg])
    if tiled:
        directory |= {322: (3, [48]), 323: (3, [32])}
        del directory[278]
    directory |= {513: (4, [8]), 514: (4, [len(jpeg)])}
    image = decoded(directory)
    expected = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")).astype(int)
    assert np.abs(image.pixels - expected).max() <= 8
    assert image.alpha is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"t262": (3, [9])}, "ICCLab"),
        ({"t262": (3, [4])}, "a mask"),
        ({"t262": (3, [32844])}, "LogL"),
        ({"t262": None}, "does not say what its values mean"),
        ({"t258": (3, [5, 6, 5])}, "different numbers of bits"),
        ({"t262": (3, [12345])}, "photometric interpretation 12345"),
        ({"t262": (3, [5]), "t332": (3, [2])}, "inks"),
        ({"t339": (3, [2, 2, 2])}, "signed integers of 8 bits"),
        ({"t262": (3, [6]), "t284": (3, [2]), "t530": (3, [2, 2])}, "planes of their own"),
    ],
)
def test_what_is_not_understood_is_refused(changes, reason):
    with pytest.raises(RestoreError, match=reason) as error:
        decoded(plain(noise(), **changes))
    assert error.value.exit_code == 1
    assert "damaged" not in (error.value.hint or "")


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize(("bits", "channels"), [(2, 3), (4, 3), (6, 1), (10, 3), (12, 1), (12, 3), (14, 4)])
def test_any_number_of_bits(bits, channels, planar, compressed):
    values = np.random.default_rng(0).integers(0, 1 << bits, (9, 11, channels))
    top = (1 << bits) - 1

    def packed(rows):
        ones = (rows[:, :, None] >> np.arange(bits - 1, -1, -1)) & 1
        data = np.packbits(ones.reshape(len(rows), -1).astype(np.uint8), axis=1).tobytes()
        return zlib.compress(data) if compressed else data

    planes = [values[:, :, i] for i in range(channels)] if planar else [values.reshape(9, -1)]
    strips = [packed(plane[top : top + 4]) for plane in planes for top in range(0, 9, 4)]
    directory = plain(values.astype(np.uint16), t258=(3, [bits] * channels), t278=(3, [4]), strips=strips)
    directory |= {284: (3, [2 if planar else 1]), 259: (3, [8 if compressed else 1])}
    if channels == 4:
        directory[338] = (3, [2])
    image = decoded(directory)
    white = 65535 if bits > 8 else 255
    expected = np.rint(values * (white / top))
    assert np.array_equal(image.pixels, expected[:, :, : min(channels, 3)])
    assert image.white == white
    assert channels < 4 or np.array_equal(image.alpha, expected[:, :, 3])


def test_unusual_bits_in_tiles_with_white_as_zero():
    values = np.random.default_rng(0).integers(0, 4096, (16, 32, 1))
    ones = (values[:, :, :, None] >> np.arange(11, -1, -1)) & 1
    ones = ones.astype(np.uint8)
    tiles = [np.packbits(ones[:, left : left + 16].reshape(16, -1), axis=1).tobytes() for left in (0, 16)]
    directory = plain(values.astype(np.uint16)[:10, :20], t258=(3, [12]), t262=(3, [0]), t278=None, strips=tiles)
    image = decoded(directory | {322: (3, [16]), 323: (3, [16])})
    assert np.array_equal(image.pixels, np.rint((4095 - values[:10, :20]) * (65535 / 4095)))


def test_missing_pixels_of_unusual_bits_fail():
    with pytest.raises(RestoreError, match="pixels are missing"):
        decoded(plain(noise(9, 11, 1, np.uint16), t258=(3, [12]), strips=[bytes(50)]))


def test_lab_keeps_its_xmp_and_resolution():
    xmp = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'></x:xmpmeta>"
    lab = np.full((4, 4, 3), 128, np.uint8)
    lab[:, :, 1:] = 0
    image = decoded(plain(lab, t262=(3, [8]), t700=(1, xmp), t282=(5, [300]), t283=(5, [300]), t296=(3, [2])))
    assert image.xmp == xmp
    assert image.dpi == (300, 300)
    assert np.abs(image.pixels.astype(int) - 119).max() <= 2  # L* 50.2 is sRGB 119


@pytest.mark.parametrize(("unit", "dpi"), [(2, (300, 300)), (3, (762, 762)), (1, None), (None, (300, 300))])
def test_resolution_is_the_file_s_and_inches_are_the_default(unit, dpi):
    directory = plain(noise(), t282=(5, [300]), t283=(5, [300]))
    image = decoded(directory if unit is None else directory | {296: (3, [unit])})
    assert image.dpi == dpi


@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("extra", [None, 0, 2])
def test_a_further_channel_is_transparency_only_if_the_file_says_so(channels, extra):
    pixels = noise(channels=channels)
    directory = plain(pixels) if extra is None else plain(pixels, t338=(3, [extra]))
    image = decoded(directory)
    assert image.transparent is (extra == 2)
    assert np.array_equal(image.alpha, pixels[:, :, -1])
    written, _ = encode(image, "tiff", "x")
    assert tags_of(written)[338] == (3, struct.pack("<H", extra or 0))
    other, notes = encode(image, "png", "x")
    again = image_from_bytes(other, "x")
    assert (again.alpha is None) is (extra != 2)
    assert bool(notes) is (extra != 2)


def test_bits_of_unstated_meaning_are_taken_as_those_of_a_fax():
    bits = np.array([[0xF0], [0x0F]], np.uint8)
    image = decoded(plain(bits[:, :, None], t256=(3, [8]), t258=(3, [1]), t262=None))
    assert image.pixels[:, :, 0].tolist() == [[0] * 4 + [255] * 4, [255] * 4 + [0] * 4]
    assert any("0 is taken as white" in note for note in image.notes)


def test_a_list_of_bits_that_is_longer_than_the_channels_is_cut():
    pixels = noise()
    assert np.array_equal(decoded(plain(pixels, t258=(3, [8, 8, 8, 1]))).pixels, pixels)


@pytest.mark.parametrize(("luma", "u", "v"), [(0.18, 81, 192), (0.5, 102, 205), (0.05, 70, 190)])
def test_logluv_is_converted_as_its_formulas_say(luma, u, v):
    level = int(256 * (math.log2(luma) + 64))  # Ward Larson, LogLuv encoding for full-gamut images, 1998
    planes = (level >> 8, level & 255, u, v)
    line = b"".join(bytes([16, *[plane] * 16]) for plane in planes)  # 16 literal bytes of each
    changes = {"t262": (3, [32845]), "t259": (3, [34676]), "t258": (3, [16] * 3), "strips": [line * 12]}
    image = decoded(plain(noise(), **changes))
    y, us, vs = 2 ** ((level + 0.5) / 256 - 64), (u + 0.5) / 410, (v + 0.5) / 410
    xyz = np.array([9 * us / (4 * vs), 1, (12 - 3 * us - 20 * vs) / (4 * vs)]) * y
    linear = np.array([[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]]) @ xyz
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.abs(linear) ** (1 / 2.4) - 0.055)
    assert np.abs(image.pixels[0, 0] / 65535 - srgb).max() < 0.003
    assert "LogLuv" in image.notes[0]


def test_full_ycbcr_without_the_tag_of_its_subsampling_is_told_from_its_size():
    rgb = smooth()
    stored = np.rint(ycbcr_of(rgb)).astype(np.uint8)
    image = decoded(plain(stored, t262=(3, [6]), t532=(5, FULL)))
    assert np.abs(image.pixels.astype(int) - rgb).max() <= 2


def test_tiles_that_would_fill_the_memory_are_refused():
    bomb = zlib.compress(bytes(1 << 20))
    directory = plain(noise(8, 8, 1, np.uint16), t258=(3, [12]), t259=(3, [8]), t278=None, strips=[bomb])
    with pytest.raises(RestoreError, match="larger than the image"):
        decoded(directory | {322: (4, [1 << 16]), 323: (4, [1 << 16])})


@pytest.mark.parametrize("compression", [1, 5, 7, 8])
def test_a_tile_for_which_only_its_own_size_says_that_it_is_too_large_is_refused(compression):
    """A decoder would make room for 400 million pixels, to read 64."""
    directory = plain(noise(8, 8, 3), t259=(3, [compression]), t278=None, strips=[bytes(1000)])
    with pytest.raises(RestoreError, match="many times larger than the image"):
        decoded(directory | {322: (4, [20_000]), 323: (4, [20_000])})


def test_an_orientation_that_is_a_text_turns_nothing():
    """Pillow reads it as one; libvips, which fails at the tiles in planes, is not asked."""
    plane = noise(16, 16, 1)
    tags = {"t284": (3, [2]), "t322": (3, [16]), "t323": (3, [16]), "t278": None, "t274": (2, b"six\0")}
    directory = plain(noise(16, 16, 3), strips=[plane.tobytes()] * 3, **tags)
    image = image_from_bytes(build(directory), "x.tif")
    assert np.array_equal(image.pixels, np.repeat(plane, 3, axis=2))
    assert not image.reoriented
