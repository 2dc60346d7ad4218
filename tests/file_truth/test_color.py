"""Colours before and after in a colour-managed reader (LittleCMS), and known pixels to the bit."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
import pyvips
from PIL import Image, ImageCms
from skimage.color import deltaE_ciede2000, rgb2lab

from tests.fix.conftest import Filler, Identity, Inverter, fix_with, hole, load, save
from tests.images.profiles import ADOBE_RGB, PROPHOTO, matrix_profile


def standard(name: str) -> bytes:
    """A profile that libvips brings along: `p3` or `cmyk`."""
    image = pyvips.Image.black(1, 1, bands=3).copy(interpretation="srgb").icc_transform(name)
    return bytes(image.get("icc-profile-data"))


WIDE = {"p3": standard("p3"), "adobe": matrix_profile(*ADOBE_RGB), "prophoto": matrix_profile(*PROPHOTO)}
CMYK = standard("cmyk")


def colours(side: int = 32) -> np.ndarray:
    """Ramps through all the corners of a colour cube: most of them are outside sRGB in a wide space."""
    a, b = np.mgrid[0:side, 0:side] / (side - 1)
    tiles = [np.stack([a, b, np.full_like(a, c)], -1) for c in (0, 0.33, 0.67, 1)]
    return np.rint(np.vstack([np.hstack(tiles[:2]), np.hstack(tiles[2:])]) * 255).astype(np.uint8)


def lab(path: Path) -> np.ndarray:
    """CIE Lab of a file with a profile, by LittleCMS, relative colorimetric, in floating point."""
    image = pyvips.Image.new_from_file(str(path))
    return image.icc_import(embedded=True, pcs="lab", intent="relative").numpy()


def srgb_by_littlecms(image: Image.Image, icc: bytes) -> np.ndarray:
    converted = ImageCms.profileToProfile(
        image,
        io.BytesIO(icc),
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
    )
    return np.asarray(converted)


def delta_e(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """CIEDE2000 of two sRGB pictures."""
    return deltaE_ciede2000(rgb2lab(one), rgb2lab(other))


def deep(path: Path, values: np.ndarray, icc: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pyvips.Image.new_from_array(values).copy(interpretation="rgb16" if values.ndim == 3 else "grey16")
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", icc)
    image.write_to_file(str(path), keep="icc")
    return path


@pytest.mark.parametrize("name", WIDE)
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg", "webp"])
def test_eight_bits(tmp_path, suffix, name):
    options = {"jpg": {"quality": 95, "subsampling": 0}, "webp": {"lossless": True}}.get(suffix, {})
    source = save(tmp_path / f"in/x.{suffix}", colours(), icc_profile=WIDE[name], **options)
    assert fix_with(tmp_path / "in", tmp_path / "out", Identity()).warnings == []
    out = tmp_path / f"out/x.{suffix}"
    with Image.open(source) as before, Image.open(out) as after:
        assert after.info["icc_profile"] == WIDE[name]
        managed = [srgb_by_littlecms(image, WIDE[name]) for image in (before, after)]
        if suffix != "jpg":
            np.testing.assert_array_equal(np.asarray(before), np.asarray(after))
    assert delta_e(*managed).max() <= 1
    assert deltaE_ciede2000(lab(source), lab(out)).max() <= 1


@pytest.mark.parametrize("name", WIDE)
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits(tmp_path, suffix, name):
    values = np.random.default_rng(3).integers(0, 65536, (64, 64, 3)).astype(np.uint16)
    source = deep(tmp_path / f"in/x.{suffix}", values, WIDE[name])
    fix_with(tmp_path / "in", tmp_path / "out", Identity())
    out = tmp_path / f"out/x.{suffix}"
    np.testing.assert_array_equal(cv2.imread(str(out), cv2.IMREAD_UNCHANGED)[:, :, ::-1], values)
    assert bytes(pyvips.Image.new_from_file(str(out)).get("icc-profile-data")) == WIDE[name]
    assert deltaE_ciede2000(lab(source), lab(out)).max() == 0


class Retoucher(Inverter):
    """Darkens the left half a little."""

    def _restore(self, image, mask):
        out = image.clone()
        out[..., : image.shape[-1] // 2] -= 0.02
        return out


@pytest.mark.parametrize("name", WIDE)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_colours_outside_srgb_survive_a_repair_that_changes_others(tmp_path, name, dtype):
    top = np.iinfo(dtype).max
    values = np.zeros((16, 64, 3), dtype)
    values[..., 1] = top  # the space's own green, far outside sRGB
    values[8:] = np.array([0.9, 0.2, 0.1]) * top
    deep(tmp_path / "in/x.tif", values, WIDE[name])
    fix_with(tmp_path / "in", tmp_path / "out", Retoucher())
    out = pyvips.Image.new_from_file(str(tmp_path / "out/x.tif")).numpy()
    np.testing.assert_array_equal(out[:, 32:], values[:, 32:])
    changed = np.abs(out[:, :32].astype(float) - values[:, :32]) / top
    assert 0 < changed.max() < 0.12
    # Clipped to sRGB, the green would come back with a fifth of red and more.
    assert (out[:8, :32, 0] < 0.1 * top).all()


@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize("name", WIDE)
def test_a_jpeg_that_is_compressed_once_more_looks_the_same_where_nothing_was_repaired(tmp_path, name, subsampling):
    y, x = np.mgrid[0:96, 0:128]
    scene = np.stack([90 + 60 * np.sin(x / 17), 120 + 50 * np.cos(y / 13), 100 + 40 * np.sin((x + y) / 29)], -1)
    scene += np.random.default_rng(0).normal(0, 3, scene.shape)
    source = save(
        tmp_path / "in/x.jpg", scene.astype(np.uint8), icc_profile=WIDE[name], quality=92, subsampling=subsampling
    )
    save(tmp_path / "mask.png", hole(96, 128, (0, 0, 16, 16)))
    fix_with(tmp_path / "in", tmp_path / "out", Filler(), masks=tmp_path / "mask.png")
    difference = deltaE_ciede2000(lab(source), lab(tmp_path / "out/x.jpg"))[32:, 32:]
    assert difference.mean() <= 0.5
    assert np.quantile(difference, 0.999) <= 2


def test_a_jpeg_in_which_the_model_changed_nothing_is_copied(tmp_path):
    source = save(tmp_path / "in/x.jpg", colours(), icc_profile=WIDE["p3"], quality=80)
    summary = fix_with(tmp_path / "in", tmp_path / "out", Identity(), log=tmp_path / "log")
    assert (tmp_path / "out/x.jpg").read_bytes() == source.read_bytes()
    assert (summary.done, summary.copied) == (1, 0)
    assert '"reason": "nothing was changed"' in (tmp_path / "log").read_text()
    for options in ({"quality": 50}, {"metadata": "strip"}):
        fix_with(tmp_path / "in", tmp_path / "again", Identity(), overwrite=True, **options)
        assert (tmp_path / "again/x.jpg").read_bytes() != source.read_bytes()


@pytest.mark.parametrize("name", WIDE)
def test_known_pixels_of_a_masked_picture_are_the_source_s_and_a_fill_is_seen_as_meant(tmp_path, name):
    save(tmp_path / "in/x.png", colours(), icc_profile=WIDE[name])
    mask = hole(64, 64, (10, 10, 30, 50))
    save(tmp_path / "masks/x.png", mask)
    fix_with(tmp_path / "in", tmp_path / "out", Filler(), masks=tmp_path / "masks")
    out = load(tmp_path / "out/x.png")
    np.testing.assert_array_equal(out[mask == 0], colours()[mask == 0])
    assert (out[mask > 0] >= 254).all()  # sRGB's white is every one's white


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_gray_with_a_profile(tmp_path, suffix):
    icc = matrix_profile(None, 1.8)
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    source = save(tmp_path / f"in/x.{suffix}", ramp, icc_profile=icc, **({"quality": 95} if suffix == "jpg" else {}))
    assert fix_with(tmp_path / "in", tmp_path / "out", Identity()).warnings == []
    with Image.open(tmp_path / f"out/x.{suffix}") as image:
        assert image.mode == "L"
        assert image.info["icc_profile"] == icc
        difference = np.abs(np.asarray(image).astype(int) - load(source))
    assert difference.max() <= (1 if suffix == "jpg" else 0)


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg", "webp", "avif"])
def test_a_broken_profile_is_told_and_the_picture_taken_for_srgb(tmp_path, suffix):
    options = {"lossless": True} if suffix == "webp" else {"quality": 95} if suffix in ("jpg", "avif") else {}
    save(tmp_path / f"in/x.{suffix}", colours(), icc_profile=b"rubbish" * 40, **options)
    summary = fix_with(tmp_path / "in", tmp_path / "out", Identity())
    (warning,) = summary.warnings
    assert "the color profile is broken; the image is taken as sRGB" in warning
    with Image.open(tmp_path / f"out/x.{suffix}") as image:
        assert image.info.get("icc_profile") is None
        if suffix in ("png", "tif", "webp"):
            np.testing.assert_array_equal(np.asarray(image), colours())


def inks() -> Image.Image:
    """Smooth ramps of four inks."""
    y, x = np.mgrid[0:64, 0:64] * 4
    return Image.fromarray(np.stack([x, y, 255 - x, (x + y) // 6], -1).astype(np.uint8), "CMYK")


@pytest.mark.parametrize("icc", [CMYK, None], ids=["profile", "none"])
@pytest.mark.parametrize("suffix", ["jpg", "tif"])
@pytest.mark.parametrize("ext", [None, "png"])
def test_cmyk_goes_through_its_profile(tmp_path, suffix, icc, ext):
    (tmp_path / "in").mkdir()
    source = tmp_path / f"in/x.{suffix}"
    inks().save(source, **({"quality": 95} if suffix == "jpg" else {}), **({"icc_profile": icc} if icc else {}))
    summary = fix_with(tmp_path / "in", tmp_path / "out", Identity(), ext=ext)
    how = "with its own profile" if icc else "with a standard profile, because it has none"
    assert [f"CMYK converted to RGB {how}" in line for line in summary.warnings] == [True]
    (out,) = (tmp_path / "out").iterdir()
    with Image.open(source) as before, Image.open(out) as after:
        assert after.mode == "RGB"
        assert after.info.get("icc_profile") is None  # sRGB, which every reader takes it for
        difference = delta_e(srgb_by_littlecms(before, CMYK), np.asarray(after))
    if out.suffix == ".jpg":
        assert difference.mean() <= 1  # compressed once more
    else:
        assert difference.max() <= 1


def test_every_mixture_of_inks_agrees_with_littlecms(tmp_path):
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (256, 256, 4), np.uint8), "CMYK")
    (tmp_path / "in").mkdir()
    noise.save(tmp_path / "in/x.tif", icc_profile=CMYK)
    fix_with(tmp_path / "in", tmp_path / "out", Identity())
    assert delta_e(srgb_by_littlecms(noise, CMYK), load(tmp_path / "out/x.tif")).max() <= 1


def test_sixteen_bits_of_ink(tmp_path):
    values = np.random.default_rng(0).integers(0, 65536, (64, 64, 4)).astype(np.uint16)
    (tmp_path / "in").mkdir()
    image = pyvips.Image.new_from_array(values).copy(interpretation="cmyk")
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", CMYK)
    image.tiffsave(str(tmp_path / "in/x.tif"))
    (warning,) = fix_with(tmp_path / "in", tmp_path / "out", Identity()).warnings
    assert "CMYK converted to RGB with its own profile" in warning
    out = pyvips.Image.new_from_file(str(tmp_path / "out/x.tif"))
    assert out.format == "ushort"
    wanted = image.icc_import(embedded=True, intent="relative", pcs="lab")  # before clipping to sRGB
    inside = wanted.icc_export(output_profile="srgb", intent="relative", depth=16).numpy() / 65535
    assert deltaE_ciede2000(rgb2lab(inside), rgb2lab(out.numpy() / 65535)).max() <= 1


def test_a_broken_profile_of_inks(tmp_path):
    (tmp_path / "in").mkdir()
    for name, icc in (("rubbish.tif", b"rubbish" * 40), ("other.jpg", WIDE["p3"])):
        inks().save(tmp_path / "in" / name, icc_profile=icc)
    summary = fix_with(tmp_path / "in", tmp_path / "out", Identity(), ext="png")
    assert summary.exit_code == 0
    assert sum("with a standard profile, because its own is broken" in line for line in summary.warnings) == 2
    assert delta_e(srgb_by_littlecms(inks(), CMYK), load(tmp_path / "out/rubbish.png")).max() <= 1


def test_cmyk_known_pixels_and_an_empty_mask(tmp_path):
    (tmp_path / "in").mkdir()
    inks().save(tmp_path / "in/x.tif", icc_profile=CMYK)
    save(tmp_path / "some/x.png", hole(64, 64, (0, 0, 9, 9)))
    save(tmp_path / "none/x.png", hole(64, 64))
    fix_with(tmp_path / "in", tmp_path / "a", Filler(), masks=tmp_path / "some")
    out = load(tmp_path / "a/x.tif")
    assert (out[:9, :9] == 255).all()
    assert delta_e(srgb_by_littlecms(inks(), CMYK), out)[9:, 9:].max() <= 1
    fix_with(tmp_path / "in", tmp_path / "b", Filler(), masks=tmp_path / "none")
    assert (tmp_path / "b/x.tif").read_bytes() == (tmp_path / "in/x.tif").read_bytes()
