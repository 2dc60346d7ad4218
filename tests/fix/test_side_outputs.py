"""`fix --save-masks` and `detect --preview`: second outputs, as safe as the first."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from restore import fix_image
from restore.errors import RestoreError
from restore.fix import reader, writer
from restore.fix.detect import plan_detect, run_detect
from restore.fix.options import DetectOptions, FixOptions
from restore.fix.reader import Reader
from restore.fix.results import Summary
from tests.fix.conftest import Filler, fix_with, hole, load, photo, plan_with, run_with, save, snapshot
from tests.fix.test_sensitivity import Graded

MASK = hole(20, 30, (2, 3, 5, 9))


def damaged(seed: int, size: tuple[int, int] = (20, 30)) -> np.ndarray:
    image = photo(*size, seed)
    image[2:5, 3:9] = 255
    return image


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """in/a.png and in/sub/a.tif are damaged, in/a.jpg and in/clean.png are not."""
    save(tmp_path / "in/a.png", damaged(0))
    save(tmp_path / "in/sub/a.tif", damaged(1))
    save(tmp_path / "in/a.jpg", photo(20, 30, 2), quality=98)
    save(tmp_path / "in/clean.png", photo(20, 30, 3))
    return tmp_path / "in"


def auto(source: Path, target: Path, **options: Any) -> Summary:
    return fix_with(source, target, Filler(), masks="auto", detector=Graded(), **options)


def names(folder: Path) -> list[str]:
    return list(snapshot(folder))


def test_every_mask_is_saved_under_the_whole_name_of_its_image(scans: Path, tmp_path: Path) -> None:
    auto(scans, tmp_path / "out", save_masks=tmp_path / "masks")
    assert names(tmp_path / "masks") == ["a.jpg.png", "a.png.png", "clean.png.png", "sub/a.tif.png"]
    for name in ("a.png.png", "sub/a.tif.png"):
        mask = load(tmp_path / "masks" / name)
        assert mask.dtype == np.uint8
        assert np.array_equal(mask, MASK)
    for name in ("a.jpg.png", "clean.png.png"):
        assert not load(tmp_path / "masks" / name).any()


def test_a_later_run_with_the_saved_masks_repairs_the_same(scans: Path, tmp_path: Path) -> None:
    auto(scans, tmp_path / "out", save_masks=tmp_path / "masks", mask_dilate=2, mask_feather=2)
    again = fix_with(scans, tmp_path / "again", Filler(), masks=tmp_path / "masks", save_masks=tmp_path / "same")
    assert (again.done, again.warnings, again.exit_code) == (4, [], 0)
    for name in names(tmp_path / "out"):
        # Feathered masks have 255 steps in a file.
        assert np.abs(load(tmp_path / "out" / name).astype(int) - load(tmp_path / "again" / name)).max() <= 1
    assert snapshot(tmp_path / "same") == snapshot(tmp_path / "masks")


@pytest.mark.parametrize("kind", ["folder", "file", "alpha", "inverted"])
def test_masks_from_elsewhere_are_saved_as_they_were_used(kind: str, tmp_path: Path) -> None:
    image = np.dstack([photo(20, 30), 255 - MASK])
    save(tmp_path / "in/a.png", image)
    mask = save(tmp_path / "given/a.png", 255 - MASK if kind == "inverted" else MASK)
    masks: Any = {"alpha": "alpha", "file": mask}.get(kind, tmp_path / "given")
    fix_with(
        tmp_path / "in", tmp_path / "out", Filler(), masks=masks, mask_invert=kind == "inverted", mask_dilate=1,
        save_masks=tmp_path / "saved",
    )  # fmt: skip
    saved = load(tmp_path / "saved/a.png.png")
    assert saved[2:5, 3:9].min() == 255
    assert saved[1, 5] == 255, "dilated"
    assert saved[0].max() == 0
    changed = (load(tmp_path / "out/a.png") != image).any(axis=2)
    assert not (changed & (saved == 0)).any()


def test_an_image_without_a_mask_has_none_to_save(tmp_path: Path) -> None:
    save(tmp_path / "in/a.png", photo(20, 30))
    save(tmp_path / "in/b.png", photo(20, 30))
    save(tmp_path / "given/b.png", MASK)
    fix_with(
        tmp_path / "in", tmp_path / "out", Filler(), masks=tmp_path / "given", mask_missing="copy",
        save_masks=tmp_path / "saved",
    )  # fmt: skip
    assert names(tmp_path / "saved") == ["b.png.png"]


def test_faint_pixels_stay_repaired(tmp_path: Path) -> None:
    save(tmp_path / "in/a.png", photo(20, 30))
    save(tmp_path / "mask.png", np.where(MASK, 40, 0).astype(np.uint16))
    fix_with(tmp_path / "in", tmp_path / "out", Filler(), masks=tmp_path / "mask.png", save_masks=tmp_path / "saved")
    assert np.array_equal(load(tmp_path / "saved/a.png.png") > 0, MASK > 0)


def test_pages_share_a_mask(tmp_path: Path) -> None:
    pages = [damaged(0), photo(20, 30, 1), photo(10, 10, 2)]
    pages[1][10, 10:20] = 255
    first, *others = map(Image.fromarray, pages)
    (tmp_path / "in").mkdir()
    first.save(tmp_path / "in/a.tif", save_all=True, append_images=others)
    summary = auto(tmp_path / "in", tmp_path / "out", save_masks=tmp_path / "masks")
    assert np.array_equal(load(tmp_path / "masks/a.tif.png"), MASK | hole(20, 30, (10, 10, 11, 20)))
    (warning,) = summary.warnings
    assert warning.endswith("a.tif: the saved mask leaves out pages of another size than the first")


def test_an_image_in_parts_saves_the_same_mask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = (700, 900)
    save(tmp_path / "in/a.png", photo(*size))
    save(tmp_path / "given/a.png", hole(*size, (5, 5, 25, 40), (300, 200, 310, 500)))
    options: dict[str, Any] = {"masks": tmp_path / "given", "mask_dilate": 3, "mask_feather": 2}
    fix_with(tmp_path / "in", tmp_path / "memory", Filler(), save_masks=tmp_path / "m1", **options)
    monkeypatch.setattr(reader, "HUGE_PIXELS", 500_000)
    monkeypatch.setattr(Reader, "load_whole", lambda *_: pytest.fail("it was read as a whole"))
    fix_with(tmp_path / "in", tmp_path / "parts", Filler(), save_masks=tmp_path / "m2", **options)
    assert np.array_equal(load(tmp_path / "m1/a.png.png"), load(tmp_path / "m2/a.png.png"))
    assert load(tmp_path / "m2/a.png.png").ndim == 2
    assert names(tmp_path / "m2") == ["a.png.png"], "no spools are left"


def test_one_file_saves_its_mask(tmp_path: Path) -> None:
    save(tmp_path / "a.png", damaged(0))
    auto(tmp_path / "a.png", tmp_path / "out.jpg", save_masks=tmp_path / "masks")
    assert np.array_equal(load(tmp_path / "masks/a.png.png"), MASK)
    fix_with(tmp_path / "a.png", tmp_path / "again.jpg", Filler(), masks=tmp_path / "masks")
    assert np.array_equal(load(tmp_path / "again.jpg"), load(tmp_path / "out.jpg"))


def test_an_image_for_standard_output_saves_its_mask(tmp_path: Path) -> None:
    save(tmp_path / "a.png", damaged(0))
    mask = save(tmp_path / "mask.png", MASK)
    command = ("fix", tmp_path / "a.png", "-", "--masks", mask, "--model", "telea", "--save-masks", tmp_path / "masks")
    arguments = [sys.executable, "-m", "restore.cli", *map(str, command)]
    done = subprocess.run(arguments, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"\x89PNG")
    assert np.array_equal(load(tmp_path / "masks/a.png.png"), MASK)


def test_the_plan_names_the_masks_and_writes_nothing(scans: Path, tmp_path: Path) -> None:
    plan = plan_with(scans, tmp_path / "out", masks="auto", save_masks=tmp_path / "masks")
    assert f"{scans / 'a.jpg'} -> {tmp_path / 'out/a.jpg'} (saves mask {tmp_path / 'masks/a.jpg.png'})" in plan.format()
    jobs = json.loads(json.dumps(plan.to_dict()))["jobs"]
    assert [job["saved_mask"] for job in jobs] == [
        str(tmp_path / "masks" / name) for name in ("a.jpg.png", "a.png.png", "clean.png.png", "sub/a.tif.png")
    ]
    assert not (tmp_path / "masks").exists()


def test_saved_masks_are_not_overwritten_unasked(scans: Path, tmp_path: Path) -> None:
    edited = save(tmp_path / "masks/a.png.png", np.full((20, 30), 7, np.uint8))
    before = edited.read_bytes()
    with pytest.raises(RestoreError, match="exists already") as caught:
        auto(scans, tmp_path / "out", save_masks=tmp_path / "masks")
    assert caught.value.exit_code == 2
    assert not (tmp_path / "out").exists()
    summary = auto(scans, tmp_path / "out", save_masks=tmp_path / "masks", skip_existing=True)
    assert summary.done == 4
    assert summary.warnings == [f"{scans / 'a.png'}: {edited} exists already and was kept; --overwrite replaces it"]
    assert edited.read_bytes() == before
    auto(scans, tmp_path / "out", save_masks=tmp_path / "masks", overwrite=True)
    assert np.array_equal(load(edited), MASK)


def test_a_resumed_run_saves_the_masks_that_are_left(scans: Path, tmp_path: Path) -> None:
    auto(scans, tmp_path / "out", save_masks=tmp_path / "masks")
    before = snapshot(tmp_path / "masks")
    for folder, name in (("out", "a.png"), ("masks", "a.png.png")):
        (tmp_path / folder / name).unlink()
    summary = auto(scans, tmp_path / "out", save_masks=tmp_path / "masks", skip_existing=True)
    assert (summary.done, summary.warnings) == (1, [])
    assert snapshot(tmp_path / "masks") == before


def test_a_mask_is_there_before_its_image(scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise RestoreError("the disk is full", exit_code=1)

    monkeypatch.setattr(writer, "write_atomically", fail)
    summary = auto(scans, tmp_path / "out", save_masks=tmp_path / "masks")
    assert len(summary.failed) == 4
    assert len(names(tmp_path / "masks")) == 4


def test_a_mask_that_cannot_be_written_fails_its_image_alone(scans: Path, tmp_path: Path) -> None:
    plan = plan_with(scans, tmp_path / "out", masks="auto", save_masks=tmp_path / "masks")
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks/sub").write_text("a file since")
    summary = run_with(plan, Filler(), FixOptions(masks="auto", clean_up=False), detector=Graded())
    assert [failure.path for failure in summary.failed] == [scans / "sub/a.tif"]
    assert "sub/a.tif" not in names(tmp_path / "out")


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("in", "apart from the input folder"),
        ("in/masks", "apart from the input folder"),
        ("", "apart from the input folder"),
        ("out", "apart from the output folder"),
        ("given", "apart from the folder of --masks"),
        ("given/new", "apart from the folder of --masks"),
        ("file", "is a file, but --save-masks needs a folder"),
        ("file/masks", "is a file where a folder is needed"),
    ],
)
def test_a_folder_in_use_is_refused(folder: str, words: str, scans: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for name in ("a.png", "sub/a.png", "clean.png"):
        save(tmp_path / "given" / name, MASK)
    before = snapshot(tmp_path)
    with pytest.raises(RestoreError, match=words):
        plan_with(scans, tmp_path / "out", masks=tmp_path / "given", save_masks=tmp_path / folder)
    assert snapshot(tmp_path) == before


def test_outputs_inside_the_folder_of_masks_are_refused(scans: Path, tmp_path: Path) -> None:
    with pytest.raises(RestoreError, match="is inside it"):
        plan_with(scans, tmp_path / "masks/out", masks="auto", save_masks=tmp_path / "masks")
    plan_with(scans, tmp_path / "out", masks="auto", save_masks=tmp_path / "out/masks")


def test_masks_and_outputs_of_one_name_are_refused(scans: Path, tmp_path: Path) -> None:
    save(tmp_path / "in/masks/a.png.png", photo(20, 30))
    with pytest.raises(RestoreError, match="would both be written here"):
        plan_with(scans, tmp_path / "out", masks="auto", save_masks=tmp_path / "out/masks")


def test_one_file_is_refused_the_folder_of_images(tmp_path: Path) -> None:
    save(tmp_path / "x/a.png", damaged(0))
    for folder in ("x", "y"):
        with pytest.raises(RestoreError, match="apart from the"):
            plan_with(tmp_path / "x/a.png", tmp_path / "y/b.png", masks="auto", save_masks=tmp_path / folder)


def test_the_report_and_the_log_have_places_of_their_own(scans: Path, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    for report in (masks, masks / "page"):
        with pytest.raises(RestoreError, match=r"inside .*masks|separate folders"):
            plan_with(scans, tmp_path / "out", masks="auto", save_masks=masks, html_report=report)
    with pytest.raises(RestoreError, match="the same path"):
        auto(scans, tmp_path / "out", save_masks=masks, log=masks / "a.png.png")
    assert not masks.exists()


def test_standard_input_has_no_name_to_save_a_mask_under(tmp_path: Path) -> None:
    with pytest.raises(RestoreError, match="--save-masks: cannot be combined with standard input"):
        plan_with("-", tmp_path / "out.png", masks="auto", save_masks=tmp_path / "masks")
    with pytest.raises(RestoreError, match="save_masks: does not apply to fix_image"):
        fix_image(photo(5, 5), model=Filler(), options=FixOptions(masks="auto", save_masks=tmp_path / "masks"))


# Previews


def preview(source: Path, target: Path, folder: Path, **options: Any) -> Summary:
    chosen = DetectOptions(preview=folder, **options)
    return run_detect(plan_detect(source, target, chosen), Graded(), chosen)


def test_a_preview_shows_damage_in_color_and_the_rest_as_it_is(tmp_path: Path) -> None:
    image = photo(120, 160)
    image[40:50, 30:90] = 255
    save(tmp_path / "in/sub/a.png", image)
    preview(tmp_path / "in", tmp_path / "masks", tmp_path / "previews")
    assert names(tmp_path / "masks") == ["sub/a_mask.png"]
    assert names(tmp_path / "previews") == ["sub/a_preview.jpg"]
    shown = load(tmp_path / "previews/sub/a_preview.jpg").astype(int)
    assert shown.shape == image.shape
    green_gap = shown[:, :, [0, 2]].min(axis=2) - shown[:, :, 1]
    assert green_gap[41:49, 31:89].min() > 40, "tinted"
    assert green_gap[39, 31:89].min() > 80, "outlined"
    assert np.abs(shown - image)[:30].mean() < 12


@pytest.mark.parametrize("kind", ["gray", "16 bits", "alpha"])
def test_a_preview_is_a_plain_jpeg_whatever_the_image_is(kind: str, tmp_path: Path) -> None:
    image = {
        "gray": damaged(0)[:, :, 0],
        "16 bits": damaged(0)[:, :, 0].astype(np.uint16) * 257,
        "alpha": np.dstack([damaged(0), np.full((20, 30), 9, np.uint8)]),
    }[kind]
    save(tmp_path / "a.png", image)
    preview(tmp_path / "a.png", tmp_path / "mask.png", tmp_path / "previews")
    with Image.open(tmp_path / "previews/a_preview.jpg") as shown:
        assert (shown.format, shown.mode, shown.size) == ("JPEG", "RGB", (30, 20))


def test_a_preview_is_not_mistaken_for_a_mask(scans: Path, tmp_path: Path) -> None:
    (scans / "a.jpg").unlink()
    preview(scans, tmp_path / "masks", tmp_path / "previews")
    for masks, paired in (("masks", 3), ("previews", 0)):
        plan = plan_with(scans, tmp_path / "out", masks=tmp_path / masks, mask_missing="copy")
        assert sum(job.mask is not None for job in plan.jobs) == paired
    for folder in ("masks", "in"):
        with pytest.raises(RestoreError, match="apart from the"):
            preview(scans, tmp_path / "masks", tmp_path / folder, overwrite=True)
    with pytest.raises(RestoreError, match="--preview needs a folder apart from the output folder"):
        preview(scans, tmp_path / "others", tmp_path / "others/previews")


def test_previews_are_not_overwritten_unasked(scans: Path, tmp_path: Path) -> None:
    (scans / "a.jpg").unlink()
    preview(scans, tmp_path / "masks", tmp_path / "previews")
    with pytest.raises(RestoreError, match="exists already"):
        preview(scans, tmp_path / "other", tmp_path / "previews")
    assert not (tmp_path / "other").exists()
    assert preview(scans, tmp_path / "other", tmp_path / "previews", overwrite=True).done == 3
