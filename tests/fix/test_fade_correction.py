"""Fading is undone where there is some, and nothing else is done."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import color

from restore.degradations.color import Fade
from restore.fix import reader
from restore.fix.fade_correction import estimated, thumbnail, unfaded
from restore.images import read_image, read_rgb8
from tests.fix.conftest import Filler, Identity, fix_with, hole, load, photo, save, snapshot

PHOTOS = Path(__file__).parent.parent.parent.parent / "shared/data/photos/clean"


def photographs() -> Iterator[np.ndarray]:
    """Twenty photographs, H×W×3 in [0, 1]."""
    if not PHOTOS.is_dir():
        pytest.skip("no photographs here")
    for path in sorted(PHOTOS.glob("*.jpg"))[7::53][:20]:
        yield np.ascontiguousarray(read_rgb8(path)[::2, ::2], np.float32) / 255


def faded(picture: np.ndarray, key: int) -> np.ndarray:
    """As the degradation fades, rounded to 8 bits."""
    step = Fade()
    image = torch.from_numpy(picture.transpose(2, 0, 1).copy())[None]
    out, _ = step.apply(image, step.sample(torch.tensor([key]), picture.shape[:2]))
    return np.rint(out[0].numpy().transpose(1, 2, 0) * 255).astype(np.float32) / 255


def psnr(one: np.ndarray, two: np.ndarray) -> float:
    return float(-10 * np.log10(np.square(one - two).mean() + 1e-10))


def delta_e(one: np.ndarray, two: np.ndarray) -> float:
    return float(color.deltaE_ciede2000(color.rgb2lab(one[::3, ::3]), color.rgb2lab(two[::3, ::3])).mean())


def full_range(height: int = 90, width: int = 120) -> np.ndarray:
    """Neutral, and with everything from black to white."""
    ramp = np.linspace(0, 1, height * width, dtype=np.float32).reshape(height, width)
    return np.stack([ramp, ramp, ramp], axis=2)


def colorful(height: int = 90, width: int = 120) -> np.ndarray:
    """Squares of random colors, every fourth of them gray, each with everything from black to white."""
    draw = np.random.default_rng(3)
    tints = 1 - draw.uniform(0, 0.6, (height // 10, width // 10, 3)).astype(np.float32)
    tints[draw.random(tints.shape[:2]) < 0.25] = 1
    light = draw.permutation(full_range(height, width).reshape(-1, 3)).reshape(height, width, 3)
    return light * tints.repeat(10, axis=0).repeat(10, axis=1)


def decayed(picture: np.ndarray, kept: tuple[float, float, float], stain: tuple[float, float, float]) -> np.ndarray:
    """A print (sRGB) of which only a part of each dye is left, and whose paper has a density of its own."""
    linear = np.where(picture <= 0.04045, picture / 12.92, ((picture + 0.055) / 1.055) ** 2.4)
    density = -np.log10(np.maximum(linear, 10**-2.2)) * np.float32(kept) + np.float32(stain)
    linear = 10**-density
    out = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(out * 255).astype(np.float32) / 255


CASTS = {  # parts left of cyan, magenta, yellow; stains in red, green, blue light
    "magenta": ((0.4, 0.9, 0.8), (0.0, 0.02, 0.08)),
    "amber": ((0.5, 0.6, 0.8), (0.0, 0.1, 0.3)),
    "cyan": ((0.9, 0.45, 0.5), (0.0, 0.0, 0.03)),
    "yellowed": ((0.8, 0.8, 0.8), (0.02, 0.06, 0.2)),
}


def test_faded_photographs_come_nearer_to_what_they_were():
    gains, nearer = [], []
    for key, picture in enumerate(photographs()):
        worn = faded(picture, 7919 * key + 1)
        again = unfaded(worn)
        gains.append(psnr(picture, again) - psnr(picture, worn))
        nearer.append(delta_e(picture, worn) - delta_e(picture, again))
    assert np.mean(gains) > 2.5
    assert np.mean(nearer) > 1.5
    assert np.mean(np.array(nearer) > 0) >= 0.75


def test_photographs_that_have_not_faded_barely_change():
    changes, clipped = [], []
    for picture in photographs():
        again = unfaded(picture)
        changes.append(delta_e(picture, again))
        clipped.append(float(((again > 254.5 / 255) & (picture <= 254.5 / 255)).mean()))
        clipped.append(float(((again < 0.5 / 255) & (picture >= 0.5 / 255)).mean()))
    assert np.median(changes) < 1
    assert np.mean(changes) < 2
    assert max(clipped) < 0.005


def test_a_picture_of_full_range_and_neutral_balance_stays():
    picture = full_range()
    assert np.abs(unfaded(picture) - picture).max() < 1 / 255


def test_a_sunset_snow_and_a_night_keep_their_light():
    sunset = full_range() * np.float32([1, 0.7, 0.35])
    snow = 0.75 + 0.23 * full_range() * np.float32([0.96, 0.98, 1])
    night = 0.3 * full_range() * np.float32([0.6, 0.7, 1])
    for name, picture, limit in (("sunset", sunset, 1), ("snow", snow, 3), ("night", night, 3)):
        assert delta_e(picture, unfaded(picture)) < limit, name


def test_yellow_and_low_contrast_mostly_go():
    worn = np.float32([0.2, 0.18, 0.15]) + full_range() * np.float32([0.68, 0.65, 0.6])
    again = unfaded(worn)
    assert np.abs(again - full_range()).mean() < np.abs(worn - full_range()).mean() / 2.5
    assert np.ptp(again[-1, -1]) < np.ptp(worn[-1, -1]) / 1.5, "white is less yellow"
    assert np.ptp(again[0, 0]) < np.ptp(worn[0, 0]) / 2, "and so is black"


@pytest.mark.parametrize("cast", CASTS)
def test_a_strong_cast_of_age_goes(cast):
    worn = decayed(colorful(), *CASTS[cast])
    left = 0.8 if cast == "yellowed" else 0.2
    assert delta_e(unfaded(worn), colorful()) < left * delta_e(worn, colorful())


@pytest.mark.parametrize(("cast", "left"), [("magenta", 0.4), ("amber", 0.4), ("cyan", 0.4), ("yellowed", 0.85)])
def test_photographs_with_a_strong_cast_come_nearer_to_what_they_were(cast, left):
    before, after = [], []
    for picture in photographs():
        worn = decayed(picture, *CASTS[cast])
        before.append(delta_e(worn, picture))
        after.append(delta_e(unfaded(worn), picture))
    assert np.mean(after) < left * np.mean(before)


@pytest.mark.parametrize(
    ("scene", "light"),
    [
        ("sunset", (1, 0.7, 0.35)),
        ("candles", (1, 0.6, 0.2)),
        ("stage", (0.9, 0.1, 0.8)),
        ("underwater", (0.25, 0.8, 1)),
    ],
)
def test_colored_light_stays_even_with_all_colors_in_it(scene, light):
    picture = colorful() * np.float32(light)
    assert delta_e(picture, unfaded(picture)) < 0.5


@pytest.mark.parametrize(
    ("scene", "darkest", "brightest"),
    [
        ("sea", (0.05, 0.2, 0.35), (0.55, 0.75, 0.95)),
        ("leaf", (0.25, 0.4, 0.1), (0.55, 0.75, 0.4)),
        ("ocher wall", (0.55, 0.3, 0.05), (1, 0.8, 0.45)),
        ("frost", (0.0, 0.35, 0.6), (0.65, 0.9, 1)),
    ],
)
def test_scenes_of_one_hue_keep_a_cast_that_age_does_not_cause(scene, darkest, brightest):
    picture = np.float32(darkest) + colorful() * (np.float32(brightest) - np.float32(darkest))
    again = unfaded(picture)
    hues = [color.rgb2lab(one)[:, :, 1:].mean(axis=(0, 1)) for one in (picture, again)]
    assert np.linalg.norm(hues[1] - hues[0]) < 0.25 * np.linalg.norm(hues[0])


def test_a_toned_print_keeps_its_tone():
    light = full_range()[:, :, 0]
    sepia = np.stack([0.15 + 0.8 * light, 0.1 + 0.75 * light, 0.02 + 0.65 * light], axis=2)
    again = unfaded(sepia)
    middle = [color.rgb2lab(one[45:46, 60:61])[0, 0, 1:] for one in (sepia, again)]
    assert np.linalg.norm(middle[1]) > 0.7 * np.linalg.norm(middle[0])


def test_the_correction_of_a_cast_has_no_switch():
    weights = np.linspace(0, 1, 81)
    worn = decayed(colorful(), *CASTS["magenta"])
    again = [unfaded(((1 - weight) * colorful() + weight * worn).astype(np.float32)) for weight in weights]
    steps = [np.abs(one - two).mean() for one, two in pairwise(again)]
    assert max(steps) < 0.006


def test_noise_and_dust_hide_little_of_it():
    noise = np.random.default_rng(0)
    worn = np.float32([0.2, 0.18, 0.15]) + full_range(600, 800) * np.float32([0.68, 0.65, 0.6])
    worn += noise.normal(0, 15 / 255, worn.shape).astype(np.float32)
    worn[noise.random(worn.shape[:2]) < 0.003] = 1
    worn = np.clip(worn, 0, 1)
    after, truth, before = (
        thumbnail(picture.__getitem__, (600, 800)) for picture in (unfaded(worn), full_range(600, 800), worn)
    )
    assert np.abs(after - truth).mean() < np.abs(before - truth).mean() / 2


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (700, 1), (257, 3), (600, 900)])
def test_the_curves_rise_from_black_to_white(size):
    picture = np.random.default_rng(1).uniform(0.2, 0.7, (*size, 3)).astype(np.float32)
    tables = estimated(thumbnail(lambda rows: picture[rows], size)).tables
    assert (np.diff(tables, axis=1) >= 0).all()
    assert np.allclose(tables[:, [0, -1]], [[0, 1]] * 3)
    assert unfaded(picture).shape == picture.shape


def test_gray_stays_gray():
    worn = 0.2 + 0.5 * full_range()
    again = unfaded(worn)
    assert np.array_equal(again[:, :, 0], again[:, :, 1])
    assert np.array_equal(again[:, :, 0], again[:, :, 2])
    assert np.abs(again - worn).max() > 0.1


def levels(path: Path) -> int:
    return len(np.unique(read_image(path).pixels))


def test_sixteen_bits_stay_sixteen_and_alpha_is_not_touched(tmp_path):
    ramp = (0.2 * 65535 + np.arange(300 * 200) / (300 * 200) * 0.5 * 65535).astype(np.uint16).reshape(300, 200)
    save(tmp_path / "in/gray.tif", ramp)
    rgba = np.stack([(ramp >> 8).astype(np.uint8)] * 3 + [np.arange(200, dtype=np.uint8)[None].repeat(300, 0)], axis=2)
    save(tmp_path / "in/alpha.png", rgba)
    fix_with(tmp_path / "in", tmp_path / "out", Identity(), correct_fading=True)
    before, after = levels(tmp_path / "in/gray.tif"), levels(tmp_path / "out/gray.tif")
    assert after > 0.95 * before, "at full depth, not through 8 bits"
    gray = read_image(tmp_path / "out/gray.tif")
    assert (gray.gray, gray.pixels.dtype) == (True, np.uint16)
    assert np.ptp(gray.pixels.astype(int)) > 0.9 * 65535
    assert np.array_equal(load(tmp_path / "out/alpha.png")[:, :, 3], rgba[:, :, 3])
    assert not np.array_equal(load(tmp_path / "out/alpha.png")[:, :, :3], rgba[:, :, :3])


@pytest.mark.parametrize("masked", [False, True])
def test_in_parts_as_in_memory(masked, tmp_path, monkeypatch):
    worn = (60 + photo(300, 400) * 2).astype(np.uint8)
    save(tmp_path / "in/a.png", worn)
    save(tmp_path / "in/b.tif", (photo(300, 400, channels=1, dtype=np.uint16) * 2 + 9000).astype(np.uint16))
    save(tmp_path / "mask.png", hole(300, 400, (40, 50, 60, 90), (200, 5, 290, 20)) // 2)
    restorer, options = (Filler(), {"masks": tmp_path / "mask.png"}) if masked else (Identity(), {})
    for way, limit in (("memory", 10**9), ("parts", 50_000)):
        monkeypatch.setattr(reader, "HUGE_PIXELS", limit)
        fix_with(tmp_path / "in", tmp_path / way, restorer, correct_fading=True, strength=0.8, tile=64, **options)
    for name in ("a.png", "b.tif"):
        one, two = (read_image(tmp_path / way / name).pixels.astype(int) for way in ("memory", "parts"))
        assert np.array_equal(one, two)
        assert np.abs(one - read_image(tmp_path / "in" / name).pixels).max() > 10


def test_a_picture_with_nothing_to_fill_is_unfaded_and_that_is_told(tmp_path):
    save(tmp_path / "in/a.png", (60 + photo(30, 40) * 2).astype(np.uint8))
    save(tmp_path / "mask.png", hole(30, 40))
    summary = fix_with(
        tmp_path / "in",
        tmp_path / "out",
        Filler(),
        masks=tmp_path / "mask.png",
        correct_fading=True,
        log=tmp_path / "log",
    )
    assert (summary.done, summary.copied) == (1, 0)
    assert '"model": "fade"' in (tmp_path / "log").read_text()
    assert snapshot(tmp_path / "in") != snapshot(tmp_path / "out")
