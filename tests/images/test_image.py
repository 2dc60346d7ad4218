"""From a picture's own values to sRGB and back, against LittleCMS."""

import io

import numpy as np
import pytest
import pyvips
from PIL import Image, ImageCms

from restore.images import DecodedImage
from restore.images.color import _TableProfile, open_profile
from tests.images.profiles import ADOBE_RGB, PROPHOTO, matrix_profile

RNG = np.random.default_rng(1)


def p3():
    image = pyvips.Image.black(1, 1, bands=3).copy(interpretation="srgb").icc_transform("p3")
    return bytes(image.get("icc-profile-data"))


PROFILES = {"p3": p3(), "adobe": matrix_profile(*ADOBE_RGB), "prophoto": matrix_profile(*PROPHOTO)}


def by_littlecms(values, icc):
    """uint8 RGB -> uint8 sRGB, relative colorimetric."""
    out = ImageCms.profileToProfile(
        Image.fromarray(values),
        io.BytesIO(icc),
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
    )
    return np.asarray(out)


@pytest.mark.parametrize("name", PROFILES)
def test_shown_agrees_with_littlecms(name):
    values = RNG.integers(0, 256, (64, 64, 3), np.uint8)
    shown = DecodedImage(values, icc=PROFILES[name]).to_srgb()
    assert shown.dtype == np.float32
    assert np.abs(shown * 255 - by_littlecms(values, PROFILES[name])).max() <= 1.5


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_picture_repaired_into_itself_is_itself(name, dtype):
    values = RNG.random((32, 48, 3))
    white = 1.0 if dtype == np.float32 else float(np.iinfo(dtype).max)
    values = (values * white).astype(dtype)
    picture = DecodedImage(values, icc=PROFILES[name], white=white)
    out = picture.blend(picture.to_srgb()).pixels
    assert out.dtype == dtype
    assert np.abs(out.astype(float) - values).max() <= (1e-6 if dtype == np.float32 else 0)


def test_a_repair_in_gamut_is_seen_as_it_was_meant():
    picture = DecodedImage(
        RNG.integers(90, 160, (32, 32, 3), np.uint8).astype(np.uint16) * 257,
        icc=PROFILES["adobe"],
        white=65535.0,
    )
    wanted = np.clip(picture.to_srgb() + 0.1, 0, 1)
    assert np.abs(picture.blend(wanted).to_srgb() - wanted).max() < 4 / 65535 * 2


def test_colours_outside_srgb_survive_a_small_change():
    green = np.zeros((8, 8, 3), np.uint8)
    green[..., 1] = 250
    picture = DecodedImage(green, icc=PROFILES["p3"])
    shown = picture.to_srgb()
    out = picture.blend(np.clip(shown - 0.01, 0, 1)).pixels
    # sRGB's own green is (0.46, 0.99, 0.30) in P3: nothing like it may come out.
    assert np.abs(out.astype(int) - green).max() < 16


def test_what_was_painted_over_leaves_no_shadow():
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 255  # a mark outside sRGB
    picture = DecodedImage(red, icc=PROFILES["p3"])
    out = picture.blend(np.full((8, 8, 3), 0.5, np.float32), np.ones((8, 8), np.float32)).pixels
    assert np.abs(out.astype(int) - 128).max() <= 1


def test_gray_with_a_profile_agrees_with_littlecms():
    icc = matrix_profile(None, 1.8)
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    picture = DecodedImage(ramp[:, :, None], icc=icc)
    assert picture.profile is not None
    # Pillow has no gray -> RGB through a gray profile: the definition itself is the reference.
    linear = (ramp / 255) ** (round(1.8 * 256) / 256)
    expected = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    assert np.abs(picture.to_srgb() - expected[:, :, None]).max() < 2e-5
    assert np.array_equal(picture.blend(picture.to_srgb()).pixels, picture.pixels)


def test_a_profile_for_another_kind_of_picture_is_refused():
    cmyk = pyvips.Image.black(1, 1, bands=3).copy(interpretation="srgb").icc_transform("cmyk")
    with pytest.raises(ValueError, match="CMYK"):
        open_profile(bytes(cmyk.get("icc-profile-data")), 3)
    with pytest.raises(ValueError, match="broken"):
        open_profile(b"rubbish" * 30, 3)


def test_the_way_of_table_profiles_agrees_with_the_way_of_matrices():
    table, matrix = _TableProfile(PROFILES["adobe"], 3), open_profile(PROFILES["adobe"], 3)
    assert matrix is not None
    srgb = RNG.random((2000, 3)).astype(np.float32)
    own = matrix.from_srgb(srgb)
    # LittleCMS resamples at 16 bits: dark and saturated colours are a few hundredths off, most are not.
    for ours, theirs in ((srgb, table.to_srgb(own)), (own, table.from_srgb(srgb))):
        difference = np.abs(ours - theirs)
        assert np.median(difference) < 1e-3
        assert np.quantile(difference, 0.95) < 0.01


def test_srgb_profiles_take_the_short_way():
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    values = RNG.integers(0, 256, (5, 6, 3), np.uint8)
    picture = DecodedImage(values, icc=icc)
    assert picture.profile is None
    assert np.array_equal(picture.to_srgb(), values.astype(np.float32) / np.float32(255))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_depth_and_gray_survive(dtype, channels):
    top = np.iinfo(dtype).max
    every = np.linspace(0, top, 65536).astype(dtype).reshape(256, 256, 1).repeat(channels, 2)
    picture = DecodedImage(every, white=float(top))
    out = picture.blend(picture.to_srgb())
    assert out.pixels.dtype == dtype
    assert np.array_equal(out.pixels, every)


def test_where_the_weight_is_zero_nothing_changes_and_in_between_it_blends():
    values = RNG.integers(0, 65536, (40, 40, 3)).astype(np.uint16)
    picture = DecodedImage(values, alpha=values[:, :, 0].copy(), white=65535.0)
    weight = np.zeros((40, 40), np.float32)
    weight[10:20, 10:20] = 1
    weight[10:20, 20:30] = 0.5
    out = picture.blend(np.full((40, 40, 3), 0.25, np.float32), weight)
    assert np.array_equal(out.pixels[weight == 0], values[weight == 0])
    assert np.abs(out.pixels[weight == 1] - 0.25 * 65535.0).max() <= 0.51
    half = (values[weight == 0.5] + 0.25 * 65535) / 2
    assert np.abs(out.pixels[weight == 0.5] - half).max() <= 0.51
    assert out.alpha is picture.alpha


def test_an_enlarged_repair_takes_alpha_along():
    alpha = np.zeros((10, 12), np.uint8)
    alpha[:, 6:] = 255
    picture = DecodedImage(RNG.integers(0, 256, (10, 12, 3), np.uint8), alpha=alpha)
    out = picture.blend(np.full((20, 24, 3), 0.5, np.float32))
    assert out.size == (20, 24)
    assert out.alpha is not None
    assert out.alpha.shape == (20, 24)
    assert (out.alpha[:, :10] == 0).all()
    assert (out.alpha[:, 14:] == 255).all()


def test_values_that_are_no_numbers_do_not_spread():
    values = np.full((4, 4, 3), 0.5, np.float32)
    values[0, 0] = np.nan
    values[0, 1] = np.inf
    shown = DecodedImage(values, white=1.0).to_srgb()
    assert np.isfinite(shown).all()
    assert (shown[1:] == 0.5).all()


def test_wrong_shapes_are_refused():
    picture = DecodedImage(np.zeros((4, 5, 3), np.uint8))
    with pytest.raises(ValueError, match="H×W×3"):
        picture.blend(np.zeros((4, 5, 1), np.float32))
    with pytest.raises(ValueError, match="the mask has shape"):
        picture.blend(np.zeros((4, 5, 3), np.float32), np.zeros((5, 4), np.float32))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("icc", [None, "p3", "prophoto"])
@pytest.mark.parametrize("masked", [True, False])
def test_a_black_and_white_picture_in_rgb_stays_without_color(dtype, icc, masked):
    white = 1.0 if dtype == np.float32 else float(np.iinfo(dtype).max)
    gray = (RNG.random((16, 24, 1)) * white).astype(dtype)
    picture = DecodedImage(np.repeat(gray, 3, axis=2), white=white, icc=PROFILES.get(icc))
    mask = np.zeros(picture.size, np.float32)
    mask[4:9, 4:9] = 1
    mask[9, 4:9] = 0.5
    tinted = np.clip(picture.to_srgb() * 0.9 + np.float32([0.06, 0.03, 0]), 0, 1)
    out = picture.blend(tinted, mask if masked else None).pixels
    np.testing.assert_array_equal(out[:, :, 1:], out[:, :, :1].repeat(2, axis=2))
    expected = picture.to_srgb()[5, 5] * 0.9 + 0.03
    shown = DecodedImage(out, white=white, icc=PROFILES.get(icc)).to_srgb()[5, 5]
    np.testing.assert_allclose(shown, expected, atol=0.02)
    upscaled = picture.blend(np.repeat(np.repeat(tinted, 2, 0), 2, 1)).pixels
    np.testing.assert_array_equal(upscaled[:, :, 1:], upscaled[:, :, :1].repeat(2, axis=2))


def test_a_colored_stroke_under_the_mask_does_not_make_a_picture_colored():
    values = np.repeat(RNG.integers(0, 256, (16, 24, 1), np.uint8), 3, axis=2)
    values[4:9, 4:9] = [200, 20, 30]
    picture = DecodedImage(values)
    mask = np.zeros(picture.size, np.float32)
    mask[3:10, 3:10] = 1
    out = picture.blend(np.broadcast_to(np.float32([0.5, 0.52, 0.54]), (*picture.size, 3)).copy(), mask).pixels
    assert (out[3:10, 3:10] == round(0.52 * 255)).all()
    colored = picture.blend(np.broadcast_to(np.float32([0.5, 0.6, 0.7]), (*picture.size, 3)).copy()).pixels
    assert not (colored[:, :, 0] == colored[:, :, 2]).all()


def test_channels_that_differ_by_rounding_stay_where_nothing_changes():
    values = np.repeat(RNG.integers(1, 255, (16, 24, 1), np.uint8), 3, axis=2)
    values[:, :, 1] += 1
    picture = DecodedImage(values)
    assert picture.is_neutral()
    np.testing.assert_array_equal(picture.blend(picture.to_srgb()).pixels, values)
    values[3, 3] = [10, 12, 14]
    assert not DecodedImage(values).is_neutral()


@pytest.mark.parametrize("place", [(0, 0), (16, 32), (17, 5), (99, 49)])
def test_one_colored_pixel_is_enough(place):
    values = np.full((100, 50, 3), 90, np.uint8)
    values[place] = 90, 90, 99
    assert not DecodedImage(values).is_neutral()
    mask = np.zeros((100, 50), np.float32)
    mask[place] = 1
    assert DecodedImage(values).is_neutral(mask)
