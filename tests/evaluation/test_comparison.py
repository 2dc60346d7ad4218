"""Sheets of versions of one picture: the right places, the right labels, nothing resized."""

from pathlib import Path

import numpy as np
import pytest
import skimage
from PIL import ImageFont
from typer.testing import CliRunner

from restore.cli.main import app
from restore.errors import RestoreError
from restore.evaluation.comparison import (
    compare_images,
    crop_size,
    distinguishing_labels,
    largest_differences,
    score_caption,
    scores_against,
)
from restore.images import read_rgb8, write_png
from restore.images.contact_sheet import Box, Cell, draw_sheet, fit_within, magnify, shorten_text, wrap_text


def photo(height: int = 120, width: int = 160) -> np.ndarray:
    return np.ascontiguousarray(skimage.data.astronaut()[:height, :width])


def changed(picture: np.ndarray, *boxes: tuple[int, int, int, int], by: int = 60) -> np.ndarray:
    out = picture.astype(int)
    for top, left, bottom, right in boxes:
        out[top:bottom, left:right] += by
    return out.clip(0, 255).astype(np.uint8)


def test_the_places_are_where_the_pictures_differ_the_worst_first() -> None:
    clean = np.full((120, 160, 3), 100, np.uint8)
    one = changed(clean, (20, 30, 40, 60), by=30)
    two = changed(clean, (80, 100, 100, 130), by=90)
    places = largest_differences([one, two], clean, 5, (20, 30))
    assert places == [Box(80, 100, 100, 130), Box(20, 30, 40, 60)], "and nowhere else, where nothing differs"


def test_places_neither_overlap_nor_leave_the_picture() -> None:
    clean = photo()
    noisy = np.clip(clean + np.random.default_rng(0).normal(0, 30, clean.shape), 0, 255).astype(np.uint8)
    places = largest_differences([noisy], clean, 6, (30, 45))
    assert len(places) == 6
    covered = np.zeros(clean.shape[:2], int)
    for box in places:
        assert (box.bottom - box.top, box.right - box.left) == (30, 45)
        assert 0 <= box.top < box.bottom <= 120
        assert 0 <= box.left < box.right <= 160
        covered[box.top : box.bottom, box.left : box.right] += 1
    assert covered.max() == 1


def test_a_window_as_large_as_the_picture_is_no_trouble() -> None:
    clean = photo(3, 2)
    assert largest_differences([changed(clean, (0, 0, 3, 2))], clean, 3, (3, 2)) == [Box(0, 0, 3, 2)]
    for size in ((1, 1), (1, 900), (900, 1), (5, 7)):
        height, width = crop_size(3, size, 4)
        assert 1 <= height <= max(1, size[0])
        assert 1 <= width <= max(1, size[1])


def test_equal_pictures_give_a_sheet_that_says_so(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_png(tmp_path / f"{name}.png", photo())
    equal = compare_images([tmp_path / "a.png", tmp_path / "b.png"])
    write_png(tmp_path / "b.png", changed(photo(), (10, 10, 40, 40)))
    different = compare_images([tmp_path / "a.png", tmp_path / "b.png"])
    assert different.shape[0] > equal.shape[0], "crops are below"


def test_scores_are_against_the_reference() -> None:
    scores = scores_against(np.ones((16, 16, 3), np.uint8), np.full((16, 16, 3), 2, np.uint8))
    assert scores["psnr"] == pytest.approx(48.1308036086791)
    assert score_caption(scores) == f"48.13 dB   SSIM {scores['ssim']:.3f}"
    assert score_caption({"psnr": float("inf"), "ssim": 1.0}) == "identical"
    inside = {"psnr": 30.0, "ssim": 0.9, "lpips": 0.1, "psnr_hole": 20.0, "lpips_hole": 0.4}
    assert score_caption(inside) == "hole: 20.00 dB   LPIPS 0.400"
    assert score_caption({"psnr": 30.0, "ssim": float("nan")}) == "30.00 dB"


def test_labels_tell_paths_apart() -> None:
    assert distinguishing_labels([Path("x/a.png"), Path("x/b.png")]) == ["a.png", "b.png"]
    assert distinguishing_labels([Path("x/a.png"), Path("y/a.png")]) == ["x/a.png", "y/a.png"]


def test_different_sizes_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", photo(60, 80))
    write_png(tmp_path / "b.png", photo(60, 81))
    with pytest.raises(RestoreError, match=r"is 80×60 pixels, but b\.png is 81×60"):
        compare_images([tmp_path / "a.png", tmp_path / "b.png"])
    done = CliRunner().invoke(app, ["compare", f"{tmp_path}/a.png", f"{tmp_path}/b.png", "--out", f"{tmp_path}/s.png"])
    assert isinstance(done.exception, RestoreError)
    assert done.exception.exit_code == 2
    assert not (tmp_path / "s.png").exists()


def test_the_command_writes_a_sheet_and_no_second_one_unasked(tmp_path: Path) -> None:
    write_png(tmp_path / "clean.png", photo())
    write_png(tmp_path / "bad.png", changed(photo(), (50, 60, 90, 100)))
    out = tmp_path / "sheets" / "s.png"
    command = ["compare", f"{tmp_path}/bad.png", "--reference", f"{tmp_path}/clean.png", "--out", str(out)]
    assert CliRunner().invoke(app, [*command, "--crops", "0"]).exit_code == 0
    without = read_rgb8(out)
    assert isinstance(CliRunner().invoke(app, command).exception, RestoreError)
    assert CliRunner().invoke(app, [*command, "--crops", "2", "--zoom", "3", "--overwrite"]).exit_code == 0
    assert read_rgb8(out).shape[0] > without.shape[0]


def test_pictures_stand_on_a_sheet_pixel_by_pixel() -> None:
    one, two = photo(30, 40), photo(20, 60)
    sheet = draw_sheet([[Cell(one), Cell(two)], [Cell(two, "title", "caption", frame=(255, 0, 0))]])
    assert contains(sheet, one)
    assert contains(sheet, two)
    assert (sheet[0] == 255).all(), "on white"


def contains(sheet: np.ndarray, picture: np.ndarray) -> bool:
    windows = np.lib.stride_tricks.sliding_window_view(sheet[..., 1], picture.shape[:2])
    return bool((windows == picture[..., 1]).all((2, 3)).any())


def test_pictures_are_fitted_without_being_cut() -> None:
    assert fit_within(photo(120, 160), 80).shape == (60, 80, 3)
    assert fit_within(photo(120, 160), 400, 60).shape == (60, 80, 3)
    assert np.array_equal(fit_within(photo(40, 50), 120), magnify(photo(40, 50), 2))
    assert fit_within(photo(1, 400), 100).shape == (1, 100, 3)


def test_text_is_shortened_and_wrapped_to_its_room() -> None:
    font = ImageFont.load_default(14)
    assert shorten_text("short", font, 200) == "short"
    long = shorten_text("a name that goes on and on " * 5, font, 200)
    assert long.endswith("...")
    assert font.getlength(long) <= 200
    lines = wrap_text("many words that need more than one line", font, 120)
    assert len(lines) > 1
    assert " ".join(lines) == "many words that need more than one line"
    assert all(font.getlength(line) <= 120 for line in lines)
