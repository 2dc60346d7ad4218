"""Masks as people paint them: on a copy of the photograph, in colors, on layers. Others are refused in words."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage import data

from restore import fix_image
from restore.errors import RestoreError
from restore.fix import reader
from restore.fix.masks import effective_mask
from restore.fix.options import FixOptions
from restore.images import read_image
from tests.fix.conftest import Filler, fix_with, hole, load, photo, save
from tests.images.profiles import ADOBE_RGB, matrix_profile

COLORS = {
    "red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0), "white": (255, 255, 255),
    "black": (0, 0, 0), "gray": (128, 128, 128), "skin": (224, 172, 138), "dark red": (128, 0, 0),
}  # fmt: skip
HEIGHT, WIDTH = 240, 320


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    """A photograph with details, H×W×3, and without black and white."""
    return np.rint(40 + 0.7 * data.astronaut()[:HEIGHT, :WIDTH]).astype(np.uint8)


@pytest.fixture(scope="module")
def strokes() -> np.ndarray:
    """Where a person painted: brushes of 3 to 14 pixels, crossing each other."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for width, points in ((3, [(20, 20), (90, 60), (60, 130)]), (7, [(300, 10), (200, 90), (310, 120)]),
                          (14, [(30, 220), (160, 150), (280, 225)]), (5, [(100, 230), (180, 120)])):  # fmt: skip
        cv2.polylines(mask, [np.array(points, np.int32)], False, 255, width)
    return mask > 0


def softened(strokes: np.ndarray) -> np.ndarray:
    """The coverage of an antialiased brush, H×W×1 in [0, 1]."""
    return cv2.GaussianBlur(strokes.astype(np.float32), (0, 0), 0.8)[:, :, None]


def over(ground: np.ndarray | int, color: tuple[int, int, int], coverage: np.ndarray) -> np.ndarray:
    """A color over a photograph or a plain background, H×W×3."""
    coverage = coverage[:, :, None] if coverage.ndim == 2 else coverage
    return np.rint(np.asarray(color) * coverage + ground * (1.0 - coverage)).astype(np.uint8)


def understood(photo_file, mask_file, **options) -> np.ndarray:
    options = {"invert": False, "dilate_px": 0, "feather_px": 0} | options
    return effective_mask(read_image(photo_file), mask_file, **options)


def iou(found: np.ndarray, true: np.ndarray) -> float:
    return float((found & true).sum() / (found | true).sum())


def far_from(strokes: np.ndarray) -> np.ndarray:
    """What lies more than 3 pixels away, where every hole would be a false one."""
    return cv2.dilate(strokes.astype(np.uint8), np.ones((7, 7), np.uint8)) == 0


# Painted copies


@pytest.mark.parametrize("color", COLORS.values(), ids=COLORS)
def test_of_a_painted_copy_the_difference_is_the_mask(tmp_path, portrait, strokes, color):
    source = save(tmp_path / "x.png", portrait)
    mask = understood(source, save(tmp_path / "copy.png", over(portrait, color, strokes)))
    assert np.array_equal(mask, strokes)


@pytest.mark.parametrize(
    ("quality", "subsampling", "least"), [(95, 2, 0.98), (85, 2, 0.97), (85, 0, 0.98), (60, 2, 0.94)]
)
@pytest.mark.parametrize("color", ["red", "white", "black", "green"])
def test_jpeg_adds_no_holes_to_a_painted_copy(tmp_path, portrait, strokes, color, quality, subsampling, least):
    source = save(tmp_path / "x.png", portrait)
    painted = over(portrait, COLORS[color], strokes)
    copy = save(tmp_path / "copy.jpg", painted, quality=quality, subsampling=subsampling)
    mask = understood(source, copy)
    assert set(np.unique(mask)) == {0, 1}
    assert iou(mask > 0, strokes) >= least
    assert not (mask > 0)[far_from(strokes)].any()


def test_an_unpainted_copy_repairs_nothing_and_says_so(tmp_path, portrait):
    source = save(tmp_path / "in/x.png", portrait)
    for name, options in (("same.png", {}), ("good.jpg", {"quality": 90}), ("poor.jpg", {"quality": 40})):
        copy = save(tmp_path / name, portrait, **options)
        summary = fix_with(tmp_path / "in", tmp_path / name.replace(".", "_"), Filler(), masks=copy)
        assert ["nothing is painted on it" in warning for warning in summary.warnings] == [True]
        assert (tmp_path / name.replace(".", "_") / "x.png").read_bytes() == source.read_bytes()


def test_soft_brushes_on_a_copy_blend(tmp_path, portrait, strokes):
    wide = cv2.morphologyEx(strokes.astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5), np.uint8)) > 0
    source, coverage = save(tmp_path / "x.png", portrait), softened(wide)
    mask = understood(source, save(tmp_path / "copy.png", over(portrait, COLORS["red"], coverage)))
    clear = np.abs(portrait - np.array(COLORS["red"])).max(axis=2) > 60
    assert np.abs(mask - coverage[:, :, 0])[clear].max() < 0.03


def test_where_the_photograph_has_the_color_of_a_stroke_the_stroke_stays_whole(tmp_path, portrait, strokes):
    """White paint over a white line, and over a white area that the stroke leaves again on the other side."""
    array = portrait.copy()
    array[:, 158:162] = 255
    array[150:170, 60:100] = 255
    stroke = np.zeros((HEIGHT, WIDTH), bool)
    stroke[100:112, 120:200] = True
    stroke[155:165, 40:120] = True
    source = save(tmp_path / "x.png", array)
    for name, options in (("copy.png", {}), ("copy.jpg", {"quality": 90})):
        mask = understood(source, save(tmp_path / name, over(array, COLORS["white"], stroke), **options)) > 0
        assert mask[100:112, 158:162].all(), "the line inside the stroke"
        assert not mask[:95, 158:162].any(), "the line beyond"
        assert not mask[115:148, 158:162].any()
    wide = understood(source, save(tmp_path / "copy.png", over(array, COLORS["white"], stroke))) > 0
    assert not wide[170:].any()


def test_several_colors_and_brushes_without_a_flat_color(tmp_path, portrait, strokes):
    source = save(tmp_path / "x.png", portrait)
    left = strokes & (np.arange(WIDTH) < 150)
    two = over(over(portrait, COLORS["red"], left), COLORS["green"], strokes & ~left)
    half = over(portrait, COLORS["blue"], strokes * 0.5)
    cloned = np.where(strokes[:, :, None], portrait[::-1, ::-1], portrait)
    differs = (cloned != portrait).any(axis=2)
    for painted, true in ((two, strokes), (half, (half != portrait).any(axis=2)), (cloned, differs)):
        assert np.array_equal(understood(source, save(tmp_path / "copy.png", painted)) > 0, true)
    mask = understood(source, save(tmp_path / "copy.jpg", two, quality=90)) > 0
    assert iou(mask, strokes) > 0.97
    mask = understood(source, save(tmp_path / "copy.jpg", half, quality=90)) > 0
    assert iou(mask, strokes) > 0.8
    assert not mask[far_from(strokes)].any()


def test_copies_in_other_formats_depths_and_orientations(tmp_path, portrait, strokes):
    painted = over(portrait, COLORS["red"], strokes)
    source = save(tmp_path / "x.png", portrait)
    exif = Image.Exif()
    exif[0x0112] = 6
    alpha = np.full((HEIGHT, WIDTH, 1), 255, np.uint8)
    copies = [
        save(tmp_path / "rgba.png", np.concatenate([painted, alpha], axis=2)),
        save(tmp_path / "turned.png", np.ascontiguousarray(np.rot90(painted)), exif=exif),
        save(tmp_path / "lossless.webp", painted, lossless=True),
        tmp_path / "deep.tif",
    ]
    tifffile.imwrite(copies[-1], painted.astype(np.uint16) * 257, photometric="rgb")
    for copy in copies:
        assert np.array_equal(understood(source, copy) > 0, strokes), copy.name
    save(tmp_path / "lossy.webp", painted, quality=85)
    Image.fromarray(painted).convert("P").save(tmp_path / "palette.png")
    Image.fromarray(painted).save(tmp_path / "animation.gif", save_all=True, append_images=[Image.fromarray(portrait)])
    for name in ("lossy.webp", "palette.png", "animation.gif"):
        assert iou(understood(source, tmp_path / name) > 0, strokes) > 0.9, name

    deep = portrait.astype(np.uint16) * 257 + 3
    tifffile.imwrite(tmp_path / "deep_source.tif", deep, photometric="rgb")
    copy = save(tmp_path / "copy.png", painted)
    assert np.array_equal(understood(tmp_path / "deep_source.tif", copy) > 0, strokes)


def test_copies_of_photographs_with_profiles_and_transparency(tmp_path, portrait, strokes):
    """An editor converts the colors to sRGB or drops the profile, and flattens onto white."""
    wide = save(tmp_path / "wide.tif", portrait, icc_profile=matrix_profile(*ADOBE_RGB))
    converted = np.rint(read_image(wide).to_srgb() * 255).clip(0, 255).astype(np.uint8)
    assert np.abs(converted.astype(int) - portrait).max() > 20
    for name, copy in (("converted.png", converted), ("dropped.png", portrait)):
        assert np.array_equal(understood(wide, save(tmp_path / name, over(copy, COLORS["blue"], strokes))), strokes)

    alpha = np.full((HEIGHT, WIDTH), 255, np.uint8)
    alpha[:60, :80], alpha[60:120, :80] = 0, 100
    see_through = save(tmp_path / "alpha.png", np.dstack([portrait, alpha]))
    flattened = np.rint(portrait * (alpha[:, :, None] / 255) + 255 - alpha[:, :, None]).astype(np.uint8)
    copy = save(tmp_path / "flat.png", over(flattened, COLORS["red"], strokes))
    assert np.array_equal(understood(see_through, copy), strokes)


def test_strokes_wide_enough_to_hide_half_of_a_photograph(tmp_path, portrait):
    source = save(tmp_path / "x.png", portrait)
    half = np.zeros((HEIGHT, WIDTH), bool)
    half[:, :130] = True
    for color in ("red", "green", "white"):
        copy = save(tmp_path / "copy.jpg", over(portrait, COLORS[color], half), quality=85)
        assert iou(understood(source, copy) > 0, half) > 0.99, color
    # Red is as light as this photograph, so only its hue tells it from noise.
    level = cv2.cvtColor(portrait, cv2.COLOR_RGB2GRAY)[:, :, None].repeat(3, axis=2)
    source = save(tmp_path / "dark.png", (76 + (level.astype(int) - 130) // 12).astype(np.uint8))
    copy = save(tmp_path / "copy.jpg", over(load(source), COLORS["red"], half), quality=85)
    assert iou(understood(source, copy) > 0, half) > 0.99


def test_gray_photographs_with_strokes(tmp_path, portrait, strokes):
    gray = cv2.cvtColor(portrait, cv2.COLOR_RGB2GRAY)
    source = save(tmp_path / "gray.png", gray)
    in_color = over(np.repeat(gray[:, :, None], 3, axis=2), COLORS["red"], strokes)
    in_white = np.where(strokes, 255, gray).astype(np.uint8)
    for name, painted in (("color.png", in_color), ("white.png", in_white)):
        assert np.array_equal(understood(source, save(tmp_path / name, painted)), strokes), name
    for name, painted in (("color.jpg", in_color), ("white.jpg", in_white)):
        mask = understood(source, save(tmp_path / name, painted, quality=85))
        assert iou(mask > 0, strokes) > 0.97, name
    # A copy may have lost the colors of the photograph.
    mask = understood(save(tmp_path / "x.png", portrait), tmp_path / "white.png")
    assert np.array_equal(mask, strokes)


def test_erased_damage_in_a_copy_is_the_mask(tmp_path, portrait, strokes):
    source = save(tmp_path / "x.png", portrait)
    for hidden in (portrait, np.where(strokes[:, :, None], 0, portrait).astype(np.uint8)):
        erased = np.dstack([hidden, np.where(strokes, 0, 255).astype(np.uint8)])
        assert np.array_equal(understood(source, save(tmp_path / "erased.png", erased)), strokes)


def test_an_inverted_mask_has_no_effect_on_copies_and_colors(tmp_path, portrait, strokes):
    source = save(tmp_path / "x.png", portrait)
    for ground in (portrait, 0, 255):
        mask = save(tmp_path / "mask.png", over(ground, COLORS["blue"], strokes))
        assert np.array_equal(understood(source, mask, invert=True), strokes)


# Plain backgrounds


@pytest.mark.parametrize("background", [0, 255])
@pytest.mark.parametrize("color", ["red", "green", "blue", "yellow", "dark red", "skin"])
def test_strokes_of_color_count_fully(tmp_path, portrait, strokes, color, background):
    source = save(tmp_path / "x.png", portrait)
    mask = understood(source, save(tmp_path / "mask.png", over(background, COLORS[color], strokes)))
    assert np.array_equal(mask, strokes)
    coverage = softened(strokes)
    mask = understood(source, save(tmp_path / "soft.png", over(background, COLORS[color], coverage)))
    assert np.abs(mask - coverage[:, :, 0]).max() < 0.15
    assert (mask[strokes] > 0.3).all()
    mask = understood(source, save(tmp_path / "mask.jpg", over(background, COLORS[color], strokes), quality=90))
    assert iou(mask > 0, strokes) > 0.9
    assert not mask[far_from(strokes)].any()


@pytest.mark.parametrize("color", ["red", "white", "black", "gray"])
def test_strokes_on_a_transparent_layer_count_fully(tmp_path, portrait, strokes, color):
    source, coverage = save(tmp_path / "x.png", portrait), softened(strokes)
    layer = np.dstack([np.full((HEIGHT, WIDTH, 3), COLORS[color], np.uint8), np.rint(coverage * 255).astype(np.uint8)])
    mask = understood(source, save(tmp_path / "layer.png", layer))
    assert np.abs(mask - coverage[:, :, 0]).max() < 0.01


def test_black_and_white_mean_what_they_always_mean(tmp_path, portrait, strokes):
    source = save(tmp_path / "x.png", portrait)
    black_on_white = save(tmp_path / "inverse.png", np.where(strokes, 0, 255).astype(np.uint8))
    assert np.array_equal(understood(source, black_on_white), ~strokes)
    assert np.array_equal(understood(source, black_on_white, invert=True), strokes)
    soft = cv2.GaussianBlur(strokes.astype(np.uint8) * 255, (0, 0), 6)
    assert np.allclose(understood(source, save(tmp_path / "soft.png", soft)), soft / 255)
    Image.fromarray(strokes).save(tmp_path / "one.png")
    assert np.array_equal(understood(source, tmp_path / "one.png"), strokes)
    # A photograph that is itself black and white, and a mask of just its white parts.
    drawing = save(tmp_path / "drawing.png", np.where(strokes, 255, 0).astype(np.uint8))
    assert np.array_equal(understood(drawing, drawing), strokes)


# Neither


def test_what_is_no_mask_is_refused_with_what_was_seen(tmp_path, portrait, strokes):
    source = save(tmp_path / "in/x.png", portrait)
    other = data.coffee()[:HEIGHT, :WIDTH]
    for number, shown in enumerate((other, other[:, :, 1], portrait[::-1, ::-1], over(other, COLORS["red"], strokes))):
        mask = save(tmp_path / f"{number}.png", np.ascontiguousarray(shown))
        (failure,) = fix_with(tmp_path / "in", tmp_path / f"out{number}", Filler(), masks=mask).failed
        assert "photograph that differs from the image in" in failure.reason
        assert "paint strokes on a copy of the image, or white on black" in failure.reason
    assert ("gray" in failure.reason) is False
    for color in ((255, 0, 0), (128, 128, 128)):
        mask = save(tmp_path / "ground.png", over(np.array(color), COLORS["blue"], strokes))
        with pytest.raises(RestoreError, match="a background of another color than white, black or transparent"):
            understood(source, mask)


@pytest.mark.parametrize(
    ("shown", "hint"),
    [
        (np.s_[::2, ::2], "paint on a copy of the image that has its full size"),
        (np.s_[:, :WIDTH - 1], "a mask must have the size of the upright image"),
        ("turned", "turn the mask by 90°"),
    ],
)  # fmt: skip
def test_a_mask_of_another_size_says_what_to_do(tmp_path, portrait, shown, hint):
    source = save(tmp_path / "x.png", portrait)
    array = np.rot90(portrait) if shown == "turned" else portrait[shown]
    with pytest.raises(RestoreError, match=f"the mask has .* pixels, its image 320×240; {hint}"):
        understood(source, save(tmp_path / "mask.png", np.ascontiguousarray(array)))


def test_large_images_and_arrays_take_the_same_masks(tmp_path, portrait, strokes, monkeypatch):
    save(tmp_path / "in/x.png", portrait)
    painted, colored = over(portrait, COLORS["red"], strokes), over(0, COLORS["blue"], strokes)
    for name, mask in (("copy", painted), ("color", colored)):
        save(tmp_path / f"{name}.png", mask)
        monkeypatch.setattr(reader, "HUGE_PIXELS", 1000)
        fix_with(tmp_path / "in", tmp_path / name, Filler(), masks=tmp_path / f"{name}.png")
        changed = (load(tmp_path / name / "x.png") != portrait).any(axis=2)
        assert np.array_equal(changed, strokes)
        repaired = fix_image(portrait, model=Filler(), mask=mask, options=FixOptions(device="cpu"))
        assert np.array_equal((repaired != portrait).any(axis=2), strokes)


def test_the_report_outlines_what_was_understood(tmp_path, portrait, strokes):
    from restore.fix.html_report import _mask
    from tests.fix.conftest import plan_with

    save(tmp_path / "in/x.png", portrait)
    copy = save(tmp_path / "copy.png", over(portrait, COLORS["red"], strokes))
    plan = plan_with(tmp_path / "in", tmp_path / "out", masks=copy)
    assert np.array_equal(_mask(plan, plan.jobs[0]), strokes)


def test_small_noise_is_no_photograph_without_a_reason(tmp_path):
    """A mask of a few pixels is read as it is."""
    save(tmp_path / "x.png", photo(20, 30))
    mask = save(tmp_path / "m.png", hole(20, 30, (2, 2, 5, 9)))
    assert np.array_equal(understood(tmp_path / "x.png", mask) > 0, hole(20, 30, (2, 2, 5, 9)) > 0)
