"""`--old-photos`: all steps of an old photograph in one command, each of which can be switched off."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from restore import fix_image
from restore.errors import RestoreError
from restore.fix.masks import prepare_mask
from restore.fix.options import FixOptions
from restore.fix.plan import plan_fix
from restore.fix.results import Summary
from restore.fix.run import run_fix
from restore.fix.steps import Models
from tests.cli.test_main import restore
from tests.fix.conftest import Filler, Identity, Inverter, load, logged, save
from tests.fix.test_provenance import told
from tests.fix.test_sensitivity import Graded
from tests.html.test_write import data_of

SCRATCH = np.s_[20:23, 30:38]  # too small to count as the white of the image
DILATED = np.s_[19:24, 29:39]  # its mask is dilated by a pixel


class Cleaner(Inverter):
    """Makes everything darker by a tenth, but leaves what is clean: a flat gray image."""

    name, sha256 = "cleaner", "e" * 64

    def _restore(self, image: Any, mask: Any) -> Any:
        return image if float(image.std()) < 0.2 else image * 0.9


class Hole(Filler):
    name, sha256 = "hole", "c" * 64


def contrasting() -> np.ndarray:
    """Gray, from black to white and noisy; it has not faded."""
    values = np.random.default_rng(0).integers(0, 2, (100, 100, 1)) * 255
    values[50:] = 128
    return np.repeat(values, 3, axis=2).astype(np.uint8)


def faded(image: np.ndarray) -> np.ndarray:
    return np.rint(38 + image / 255 * (204 - 38)).astype(np.uint8)


def old() -> np.ndarray:
    image = faded(contrasting())
    image[SCRATCH] = 255
    return image


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """in/old.png is faded, scratched and not clean; in/new.png is none of it."""
    save(tmp_path / "in/old.png", old())
    gray = np.full((100, 100, 3), 128, np.uint8)
    gray[:2], gray[2:4] = 0, 245
    save(tmp_path / "in/new.png", gray)
    return tmp_path / "in"


def run(source: Path, target: Path, **options: Any) -> Summary:
    chosen = FixOptions(old_photos=True, **options)
    plan = plan_fix(source, target, chosen)
    restorer = Hole() if chosen.masks is not None else Cleaner()
    models = Models(restorer, Cleaner() if chosen.cleans_up else None, Graded(0.97))
    return run_fix(plan, [models], chosen)


def test_every_step_runs_and_is_recorded(scans: Path, tmp_path: Path) -> None:
    run(scans, tmp_path / "out", log=tmp_path / "log", html_report=tmp_path / "page")
    new, done = logged(tmp_path / "log")
    assert done["steps"] == ["detect", "correct_fading", "fill_holes", "clean_up"]
    assert list(done["models"]) == ["graded", "hole", "cleaner"]
    assert done["damaged_fraction"] == pytest.approx(24 / 10_000)
    settings = {"old_photos": True, "masks": "auto", "correct_fading": True, "sensitivity": "normal"}
    assert done["settings"].items() >= settings.items()

    after = load(tmp_path / "out/old.png").astype(int)
    assert after.min() < 20, "black is black again"
    assert np.ptp(after[SCRATCH]) == 0, "filled, then cleaned up"

    (event,), _ = told(tmp_path / "out/old.png")
    for words in ("graded sha256", "hole sha256", "cleaner sha256", "old_photos true", "correct_fading true",
                  "masks auto", "sensitivity normal"):  # fmt: skip
        assert words in event["parameters"]

    rows = {row["name"]: row["note"] for row in data_of(tmp_path / "page")["rows"]}
    assert rows["old.png"] == "searched for damage, fading corrected, holes filled, cleaned up"
    assert rows["new.png"] == "nothing to repair"

    assert (new["steps"], new["reason_code"]) == (["detect"], "nothing_to_repair")
    assert (tmp_path / "out/new.png").read_bytes() == (scans / "new.png").read_bytes(), "a copy"


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"correct_fading": False}, ["detect", "fill_holes", "clean_up"]),
        ({"clean_up": False}, ["detect", "correct_fading", "fill_holes"]),
        ({"match_grain": True}, ["detect", "correct_fading", "fill_holes"]),
        ({"masks": "none"}, ["correct_fading", "restore"]),
        ({"masks": "none", "correct_fading": False}, ["restore"]),
        ({"masks": "none", "clean_up": False}, ["correct_fading"]),
        ({"masks": "mask.png"}, ["correct_fading", "fill_holes", "clean_up"]),
        ({"masks": "none", "clean_up": False, "correct_fading": False}, []),
    ],
    ids=str,
)
def test_each_step_can_be_switched_off(options: dict[str, Any], steps: list[str], scans: Path, tmp_path: Path) -> None:
    if options.get("masks") == "mask.png":
        mask = np.zeros((100, 100), np.uint8)
        mask[SCRATCH] = 255
        options = options | {"masks": save(tmp_path / "mask.png", mask)}
    before = (scans / "old.png").read_bytes()
    run(scans, tmp_path / "out", include=("old.png",), log=tmp_path / "log", **options)
    (line,) = logged(tmp_path / "log")
    assert line["steps"] == steps
    assert ((tmp_path / "out/old.png").read_bytes() == before) == (steps == [])
    if "clean_up" not in steps and "restore" not in steps and "correct_fading" not in steps:
        outside = np.ones((100, 100), bool)
        outside[DILATED] = False
        assert np.array_equal(load(tmp_path / "out/old.png")[outside], old()[outside])


def test_a_photograph_that_has_not_faded_changes_only_in_its_holes(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 64_000, (100, 100), dtype=np.uint16)  # 8 bits would not hold it
    image[SCRATCH] = 65_000
    save(tmp_path / "in/a.png", image)
    run(tmp_path / "in", tmp_path / "out", clean_up=False, log=tmp_path / "log", sensitivity=0.02)
    (line,) = logged(tmp_path / "log")
    assert line["steps"] == ["detect", "fill_holes"]
    (event,), _ = told(tmp_path / "out/a.png")
    assert "correct_fading" not in event["parameters"]
    changed = load(tmp_path / "out/a.png") != image
    assert changed[SCRATCH].all()
    changed[DILATED] = False
    assert not changed.any()


@pytest.mark.parametrize(
    ("options", "dilation", "radius_px"),
    [
        ({}, "scan", 1),
        ({"mask_dilate": 0}, 0, 0),
        ({"mask_dilate": 3}, 3, 3),
        ({"masks": "none"}, 0, None),
        ({"masks": "mask.png"}, 0, 0),
    ],
    ids=str,
)
def test_found_damage_is_dilated_as_scans_need_it(
    options: dict[str, Any], dilation: object, radius_px: int | None, scans: Path, tmp_path: Path
) -> None:
    """The edges of scanned damage are soft; masks that the user gives are taken as they are."""
    chosen = FixOptions(old_photos=True, **options)
    assert chosen.mask_dilate == dilation
    if radius_px is None:
        return
    mask = np.zeros((100, 100), np.uint8)
    mask[SCRATCH] = 255
    if options.get("masks") == "mask.png":
        options = {"masks": save(tmp_path / "mask.png", mask)}
    run(scans, tmp_path / "out", include=("old.png",), save_masks=tmp_path / "masks", clean_up=False, **options)
    y, x = np.mgrid[-radius_px : radius_px + 1, -radius_px : radius_px + 1]
    expected = cv2.dilate(mask, (y**2 + x**2 <= radius_px**2).astype(np.uint8))
    (saved,) = (tmp_path / "masks").iterdir()
    assert np.array_equal(load(saved), expected)


@pytest.mark.parametrize(("side", "radius_px"), [(40, 1), (450, 1), (900, 2), (3000, 7)])
def test_the_dilation_of_scans_grows_with_the_image(side: int, radius_px: int) -> None:
    mask = np.zeros((side, side + 50), np.float32)
    mask[side // 2, side // 2] = 1
    dilated = prepare_mask(mask, dilate_px="scan", feather_px=0, image=lambda: mask)
    assert np.count_nonzero(dilated[side // 2]) == 2 * radius_px + 1


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"masks": "none"},
        {"masks": "masks"},
        {"masks": "alpha", "mask_invert": True},
        {"sensitivity": "gentle"},
        {"sensitivity": 0.3, "correct_fading": False},
        {"clean_up": False},
        {"match_grain": True},
    ],
    ids=str,
)
def test_options_given_beside_it_win_and_survive_json(options: dict[str, Any]) -> None:
    chosen = FixOptions(old_photos=True, **options)
    for name, value in options.items():
        assert getattr(chosen, name) == (None if value == "none" else value)
    assert FixOptions.from_dict(json.loads(json.dumps(chosen.to_dict()))) == chosen


def test_what_excludes_each_other_still_does() -> None:
    for options, words in (
        ({"match_grain": True, "clean_up": True}, "--match-grain: cannot be combined with --clean-up"),
        ({"mask_missing": "copy"}, "--mask-missing: does not apply to --masks auto"),
        ({"masks": "m", "sensitivity": "strong"}, "--sensitivity: only applies with --masks auto"),
    ):
        with pytest.raises(RestoreError, match=words):
            FixOptions(old_photos=True, **options)


def test_without_it_nothing_is_switched_on() -> None:
    options = FixOptions()
    assert (options.correct_fading, options.masks, options.cleans_up, options.sensitivity) == (False, None, False, None)
    assert FixOptions(masks="none") == options


def test_the_command_line_has_a_switch_for_each_step(scans: Path, tmp_path: Path) -> None:
    mask = np.zeros((100, 100), np.uint8)
    mask[SCRATCH] = 255
    save(tmp_path / "mask.png", mask)
    log = tmp_path / "log"
    done = restore(
        "fix", scans / "old.png", tmp_path / "out.png", "--old-photos", "--no-correct-fading", "--no-clean-up",
        "--masks", tmp_path / "mask.png", "--model", "telea", "--log", log,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert logged(log)[0]["steps"] == ["fill_holes"]
    done = restore(
        "fix", scans / "old.png", tmp_path / "two.png", "--old-photos", "--masks", "none", "--no-clean-up",
        "--model", "tv", "--log", log,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert logged(log)[1]["steps"] == ["correct_fading"]


def test_images_in_memory_have_it_too() -> None:
    models = Models(Hole(), Identity(), Graded(0.97))
    after = fix_image(old(), model=models, options=FixOptions(old_photos=True))
    assert after.min() < 20
    rgb = Image.fromarray(old())
    assert np.array_equal(np.asarray(fix_image(rgb, model=models, options=FixOptions(old_photos=True))), after)
