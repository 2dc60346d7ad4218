"""A mask is found under every name that people and programs give it, and never by two images at once."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from restore.fix import mask_pairing
from restore.fix.detect import plan_detect
from tests.fix.conftest import hole, photo, plan_with, save


@pytest.fixture(autouse=True, params=[10_000, 1])
def together(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images are paired in groups, of which tests have but one, or as many as images."""
    monkeypatch.setattr(mask_pairing, "_TOGETHER", request.param)


def paired(tmp_path: Path, images: list[str], names: list[str], folder: str = "masks", **options: object):
    """The plan of a run on empty-handed images and masks of these names."""
    for number, name in enumerate(images):
        save(tmp_path / "in" / name, photo(4, 4, number), format="PNG")
    for name in names:
        save(tmp_path / folder / name, hole(4, 4), format="PNG")
    return plan_with(tmp_path / "in", tmp_path / "out", masks=tmp_path / folder, **options)


def masks_of(plan, tmp_path: Path, folder: str = "masks") -> dict[str, str | None]:
    return {
        job.source.relative_to(tmp_path / "in").as_posix(): job.mask
        and job.mask.relative_to(tmp_path / folder).as_posix()
        for job in plan.jobs
    }


@pytest.mark.parametrize(
    "mask",
    [
        "x.png", "x.jpg.png", "x_mask.png", "x-mask.png", "x mask.png", "x.mask.png", "x.jpg_mask.png",
        "x.jpg-mask.tif", "X.PNG", "X_MASK.png", "x_Mask.PNG", "X.JPG.png", "x-MASK.jpg",
    ],
)  # fmt: skip
@pytest.mark.parametrize("subfolder", ["", "Sub/deep/"])
def test_names_of_masks(tmp_path, mask, subfolder):
    plan = paired(tmp_path, [f"{subfolder}x.jpg"], [f"{subfolder}{mask}"])
    assert masks_of(plan, tmp_path) == {f"{subfolder}x.jpg": f"{subfolder}{mask}"}
    assert plan.warnings == []


def test_other_names_and_other_subfolders_are_strangers(tmp_path):
    plan = paired(tmp_path, ["da.jpg", "sub/x.jpg"], ["damask.png", "x.png"])
    assert masks_of(plan, tmp_path) == {"da.jpg": None, "sub/x.jpg": None}
    assert [warning.split(": ")[1] for warning in plan.warnings] == ["no image for this mask"] * 2
    assert {job.code for job in plan.jobs} == {"no_mask"}


def test_the_two_spellings_of_accents_are_one_name(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "Café Ångström") for form in ("NFC", "NFD"))
    assert composed != decomposed
    plan = paired(tmp_path, [f"1/{composed}.jpg", f"2/{decomposed}.jpg"], [f"1/{decomposed}.png", f"2/{composed}.png"])
    assert list(masks_of(plan, tmp_path).values()) == [f"1/{decomposed}.png", f"2/{composed}.png"]
    assert plan.warnings == []


def test_an_exact_name_comes_before_another_case(tmp_path):
    images = ["x.jpg", "X.jpg"]
    plan = paired(tmp_path, images, ["x.png", "X.png"])
    if len(plan.jobs) < 2:
        pytest.skip("this disk ignores case")
    assert masks_of(plan, tmp_path) == {"x.jpg": "x.png", "X.jpg": "X.png"}
    assert plan.warnings == []

    other = paired(tmp_path / "one", ["x.jpg"], ["x.png", "X.png"])
    assert masks_of(other, tmp_path / "one") == {"x.jpg": "x.png"}
    (warning,) = other.warnings
    assert "X.png: not used, because the name of" in warning


def test_a_mask_that_fits_two_images_is_given_to_neither(tmp_path):
    plan = paired(tmp_path, ["Ab.jpg", "aB.jpg"], ["ab.png"])
    if len(plan.jobs) < 2:
        pytest.skip("this disk ignores case")
    assert masks_of(plan, tmp_path) == {"Ab.jpg": None, "aB.jpg": None}
    (warning,) = plan.warnings
    assert "ab.png: this mask fits several images: Ab.jpg and aB.jpg" in warning


def test_two_masks_of_one_image_contradict_each_other_under_any_names(tmp_path):
    plan = paired(tmp_path, ["x.jpg"], ["x.jpg.png", "x-mask.png"])
    assert (plan.jobs[0].action, plan.jobs[0].code) == ("fail", "several_masks")


def test_images_that_differ_in_their_suffix_share_a_mask_or_have_their_own(tmp_path):
    plan = paired(tmp_path, ["x.jpg", "x.png"], ["x_mask.png"])
    assert masks_of(plan, tmp_path) == {"x.jpg": "x_mask.png", "x.png": "x_mask.png"}
    plan = paired(tmp_path / "own", ["x.jpg", "x.png"], ["x.jpg.png", "x.png.png"])
    assert masks_of(plan, tmp_path / "own") == {"x.jpg": "x.jpg.png", "x.png": "x.png.png"}


def test_the_masks_that_detect_and_fix_write_are_found(tmp_path):
    """Also where two images differ only in their suffix, or have none."""
    for number, name in enumerate(("a.jpg", "Sub/b.PNG", "Sub/b.tif", "scan", "old.1912")):
        save(tmp_path / "in" / name, photo(4, 4, number), format="PNG")
    written = plan_with(tmp_path / "in", tmp_path / "out", masks="auto", save_masks=tmp_path / "saved")
    for job in written.jobs:
        save(job.side_target, hole(4, 4))
    plan = plan_with(tmp_path / "in", tmp_path / "out", masks=tmp_path / "saved")
    assert [job.mask for job in plan.jobs] == [job.side_target for job in written.jobs]
    assert plan.warnings == []

    (tmp_path / "in/Sub/b.tif").unlink()
    for name in ("scan", "old.1912"):
        (tmp_path / "in" / name).unlink()
    detected = plan_detect(tmp_path / "in", tmp_path / "masks")
    for job in detected.jobs:
        save(job.target, hole(4, 4))
    plan = plan_with(tmp_path / "in", tmp_path / "out", masks=tmp_path / "masks")
    assert [job.mask for job in plan.jobs] == [job.target for job in detected.jobs]
    assert plan.warnings == []


def test_masks_beside_the_images_have_an_ending_or_the_whole_name(tmp_path):
    images = ["a.jpg", "b.jpg", "c.jpg", "sub/d.jpg", "mask.jpg"]
    plan = paired(tmp_path, images, ["A_MASK.png", "b.jpg.png", "c-mask.png", "sub/d_mask.png"], folder="in")
    assert masks_of(plan, tmp_path, "in") == {
        "a.jpg": "A_MASK.png",
        "b.jpg": "b.jpg.png",
        "c.jpg": "c-mask.png",
        "mask.jpg": None,
        "sub/d.jpg": "sub/d_mask.png",
    }
    assert plan.warnings == []
