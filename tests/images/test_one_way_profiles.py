"""Profiles of scanners, which have tables for the way from their values to colors alone."""

import numpy as np
import pytest
import pyvips
from skimage.color import deltaE_ciede2000

from restore.images import DecodedImage
from restore.images.color import open_profile
from tests.fix.conftest import Filler, fix_with, hole, load, save
from tests.images.profiles import ADOBE_RGB, D50, colorants, table_profile

GAMMA = 1.6


def scanner_xyz(values):
    return (values**GAMMA) @ colorants(ADOBE_RGB[0]).T


SCANNER = table_profile(scanner_xyz, nodes=17)
GRAY_SCANNER = table_profile(lambda values: values**GAMMA * D50, space=b"GRAY", nodes=33)


def lab(values, icc):
    """CIE Lab of values in [0, 1] by LittleCMS."""
    codes = np.rint(values * 65535).astype(np.uint16)[None]
    image = pyvips.Image.new_from_array(codes).copy(interpretation="rgb16" if codes.ndim == 3 else "grey16")
    if icc is None:
        return image.icc_import(input_profile="srgb", intent="relative", pcs="lab").numpy()[0]
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", icc)
    return image.icc_import(embedded=True, intent="relative", pcs="lab").numpy()[0]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_profile_and_known_pixels_stay_and_a_fill_is_seen_as_meant(tmp_path, suffix):
    values = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    save(tmp_path / f"in/x.{suffix}", values, icc_profile=SCANNER)
    mask = hole(24, 32, (4, 4, 9, 12))
    save(tmp_path / "mask.png", mask)
    summary = fix_with(tmp_path / "in", tmp_path / "out", Filler(), masks=tmp_path / "mask.png")
    assert summary.warnings == []
    out = load(tmp_path / f"out/x.{suffix}")
    np.testing.assert_array_equal(out[mask == 0], values[mask == 0])
    assert (out[mask > 0] >= 254).all()
    assert bytes(pyvips.Image.new_from_file(str(tmp_path / f"out/x.{suffix}")).get("icc-profile-data")) == SCANNER


def test_the_model_sees_what_littlecms_shows():
    """(0.5, 0.4, 0.3) of the scanner, computed from its definition."""
    xyz = scanner_xyz(np.array([[0.5, 0.5, 0.5]]))[0]
    gray = xyz[1]
    expected = 1.055 * gray ** (1 / 2.4) - 0.055
    shown = DecodedImage(np.full((1, 1, 3), 32768, np.uint16), white=65535.0, icc=SCANNER).to_srgb()
    np.testing.assert_allclose(shown.ravel(), expected, atol=0.003)


def test_the_way_back_hits_the_color():
    profile = open_profile(SCANNER, 3)
    srgb = np.random.default_rng(0).random((4000, 3)).astype(np.float32)
    difference = deltaE_ciede2000(lab(profile.from_srgb(srgb), SCANNER), lab(srgb, None))
    assert difference.mean() < 0.1
    assert np.quantile(difference, 0.99) < 1
    assert difference.max() < 3


def test_tables_win_over_a_matrix_and_the_way_back_is_theirs():
    """A display profile of both kinds: LittleCMS would take the matrix for the way back alone."""
    curve = b"curv" + bytes(4) + (1).to_bytes(4, "big") + (3 * 256).to_bytes(2, "big") + b"\0\0"
    xyz = b"XYZ " + bytes(4) + b"".join(round(x * 65536).to_bytes(4, "big") for x in D50 / 3)
    extra = dict.fromkeys((b"rXYZ", b"gXYZ", b"bXYZ"), xyz) | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    profile = open_profile(table_profile(scanner_xyz, nodes=17, extra=extra), 3)
    srgb = np.full((1, 3), 0.5, np.float32)
    linear = ((0.5 + 0.055) / 1.055) ** 2.4
    np.testing.assert_allclose(profile.from_srgb(srgb), linear ** (1 / GAMMA), atol=0.004)


def test_gray():
    profile = open_profile(GRAY_SCANNER, 1)
    values = np.linspace(0.02, 1, 50, dtype=np.float32)[:, None]
    shown = profile.to_srgb(values)
    np.testing.assert_allclose(shown[:, 0], 1.055 * values[:, 0] ** (GAMMA / 2.4) - 0.055, atol=0.01)
    np.testing.assert_allclose(profile.from_srgb(shown), values, atol=0.002)


def test_a_broken_table_is_still_told(tmp_path):
    broken = SCANNER.replace(b"mft2", b"xxxx")
    save(tmp_path / "in/x.png", np.zeros((8, 8, 3), np.uint8), icc_profile=broken)
    summary = fix_with(
        tmp_path / "in", tmp_path / "out", Filler(), masks=save(tmp_path / "m.png", hole(8, 8, (0, 0, 2, 2)))
    )
    assert any("the color profile is broken" in line for line in summary.warnings)
