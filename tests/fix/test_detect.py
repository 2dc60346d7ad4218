"""Masks for a folder of pictures: where they go, what they hold, and what becomes of files that cannot be read."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from restore.checkpoints import Description, DetectorSettings, save_weights
from restore.errors import RestoreError
from restore.fix.detect import plan_detect, run_detect
from restore.fix.options import DetectOptions
from restore.fix.results import Summary
from restore.models.unet import UNet
from restore.restorers.base import ModelRequirements
from restore.restorers.detector import Detector
from tests.fix.conftest import Filler, fix_with, load, photo, plan_with, save, snapshot
from tests.processes import Nursery


class Bright(nn.Module):
    """White is damage."""

    def forward(self, image: Tensor, mask: Tensor | None, *, filled: bool = False) -> Tensor:
        return (image[:, :1] - 0.9) * 1000


class Black(Filler):
    """Fills holes with black."""

    def _restore(self, image: Tensor, mask: Tensor | None) -> Tensor:
        return torch.zeros_like(image)


def bright() -> Detector:
    finds = DetectorSettings(threshold=0.5, margin_px=0)
    return Detector(finds, "bright", Bright(), ModelRequirements(needs_mask=False), "test", torch.device("cpu"), "fp32")


def detect(source: Path, target: Path | str, **options: bool) -> Summary:
    return run_detect(plan_detect(source, target, DetectOptions(**options)), bright())


def scratched(height: int, width: int) -> np.ndarray:
    picture = photo(height, width)
    picture[2, 1:4] = 255
    return picture


MASK = np.zeros((12, 9), np.uint8)
MASK[2, 1:4] = 255


def test_a_folder_gets_the_same_tree_of_masks(tmp_path: Path) -> None:
    save(tmp_path / "in/a.png", scratched(12, 9))
    save(tmp_path / "in/sub/b.tif", scratched(12, 9))
    save(tmp_path / "in/sub/clean.png", photo(5, 6))
    before = snapshot(tmp_path / "in")
    summary = detect(tmp_path / "in", tmp_path / "masks")
    assert (summary.done, summary.copied, summary.exit_code) == (3, 0, 0)
    assert set(snapshot(tmp_path / "masks")) == {"a_mask.png", "sub/b_mask.png", "sub/clean_mask.png"}
    for name in ("a_mask.png", "sub/b_mask.png"):
        with Image.open(tmp_path / "masks" / name) as mask:
            assert (mask.format, mask.mode) == ("PNG", "L")
            assert not mask.info, "a mask is no repaired picture, and tells of no repair"
            assert np.array_equal(np.asarray(mask), MASK)
    assert not load(tmp_path / "masks/sub/clean_mask.png").any()
    assert snapshot(tmp_path / "in") == before


def test_the_masks_are_those_that_fix_takes(tmp_path: Path) -> None:
    save(tmp_path / "in/a.jpg", photo(12, 9))
    save(tmp_path / "in/sub/b.png", photo(12, 9))
    detect(tmp_path / "in", tmp_path / "masks")
    plan = plan_with(tmp_path / "in", tmp_path / "out", masks=tmp_path / "masks")
    assert {job.mask for job in plan.jobs} == {tmp_path / "masks/a_mask.png", tmp_path / "masks/sub/b_mask.png"}
    assert plan.unmatched_masks == []


def test_fix_repairs_at_once_where_the_masks_would_be(tmp_path: Path) -> None:
    save(tmp_path / "in/a.png", scratched(12, 9))
    save(tmp_path / "in/clean.png", photo(12, 9))
    detect(tmp_path / "in", tmp_path / "masks")
    fix_with(tmp_path / "in", tmp_path / "by_masks", Black(), masks=tmp_path / "masks")
    fix_with(tmp_path / "in", tmp_path / "at_once", Black(), masks="auto", detector=bright())
    for name in ("a.png", "clean.png"):
        assert np.array_equal(load(tmp_path / "at_once" / name), load(tmp_path / "by_masks" / name))
    assert not np.array_equal(load(tmp_path / "at_once/a.png"), load(tmp_path / "in/a.png"))


def test_the_masks_of_large_pictures_are_those_that_fix_finds(tmp_path: Path) -> None:
    picture = np.zeros((1030, 1040, 3), np.uint8)
    bright_here = np.indices((12, 100)).sum(0) % 4 > 0
    picture[500:512, 300:400] = np.where(bright_here, 240, 225)[:, :, None]  # and everywhere in half size
    save(tmp_path / "in/a.png", picture)
    detect(tmp_path / "in", tmp_path / "masks")
    found = bright().detect((picture / 255).astype(np.float32))
    assert np.array_equal(load(tmp_path / "masks/a_mask.png"), found * 255)
    fix_with(tmp_path / "in", tmp_path / "by_masks", Black(), masks=tmp_path / "masks")
    fix_with(tmp_path / "in", tmp_path / "at_once", Black(), masks="auto", detector=bright())
    assert np.array_equal(load(tmp_path / "by_masks/a.png"), load(tmp_path / "at_once/a.png"))
    assert found.sum() > (picture > 0.9 * 255).all(-1).sum(), "looked at in half size, too"


def test_a_mask_fits_the_picture_as_a_person_sees_it(tmp_path: Path) -> None:
    reoriented = Image.Exif()
    reoriented[0x0112] = 6  # to be turned clockwise
    save(tmp_path / "in.png", scratched(12, 9), exif=reoriented)
    detect(tmp_path / "in.png", tmp_path / "mask.png")
    assert np.array_equal(load(tmp_path / "mask.png"), np.rot90(MASK, -1))


@pytest.mark.parametrize("picture", ["gray", "16 bits", "alpha", "a JPEG by another name"])
def test_a_mask_is_one_channel_of_8_bits_whatever_the_picture_is(tmp_path: Path, picture: str) -> None:
    path, source = tmp_path / "in.png", scratched(12, 9)
    if picture == "gray":
        save(path, source[:, :, 0])
    elif picture == "16 bits":
        save(path, source[:, :, 0].astype(np.uint16) * 257)
    elif picture == "alpha":
        save(path, np.dstack([source, np.full((12, 9), 7, np.uint8)]))
    else:
        Image.fromarray(np.repeat(np.repeat(source, 8, 0), 8, 1)).save(path, "JPEG", quality=100, subsampling=0)
    detect(path, f"{tmp_path}/masks/")
    mask = load(tmp_path / "masks/in_mask.png")
    assert mask.dtype == np.uint8
    expected = MASK if picture != "a JPEG by another name" else np.repeat(np.repeat(MASK, 8, 0), 8, 1)
    assert mask.shape == expected.shape
    assert np.mean(mask == expected) > 0.98


def test_one_bad_file_never_stops_the_rest(tmp_path: Path) -> None:
    save(tmp_path / "in/good.png", scratched(12, 9))
    (tmp_path / "in/broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    (tmp_path / "in/notes.txt").write_text("no picture")
    save(tmp_path / "in/odd.png", scratched(12, 9)).rename(tmp_path / "in/odd.scan")
    summary = detect(tmp_path / "in", tmp_path / "masks")
    assert set(snapshot(tmp_path / "masks")) == {"good_mask.png"}
    assert {failure.path.name: failure.reason for failure in summary.failed}.keys() == {"broken.png", "odd.scan"}
    assert "rename the file" in summary.failed[1].reason
    assert sum(summary.skipped.values()) == 1
    assert summary.exit_code == 1


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    save(tmp_path / "in/a.png", scratched(12, 9))
    save(tmp_path / "in/b.png", scratched(12, 9))
    corrected = save(tmp_path / "masks/a_mask.png", np.full((12, 9), 255, np.uint8))
    before = corrected.read_bytes()
    with pytest.raises(RestoreError, match="exists already"):
        detect(tmp_path / "in", tmp_path / "masks")
    assert len(snapshot(tmp_path / "masks")) == 1
    assert detect(tmp_path / "in", tmp_path / "masks", skip_existing=True).done == 1
    assert corrected.read_bytes() == before
    assert detect(tmp_path / "in", tmp_path / "masks", overwrite=True).done == 2
    assert np.array_equal(load(corrected), MASK)


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("mask.jpg", "masks are written as PNG"),
        ("in.png", "the output is the input itself"),
        ("mask", "masks are written as PNG"),
    ],
)
def test_a_wrong_output_is_refused(tmp_path: Path, output: str, words: str) -> None:
    save(tmp_path / "in.png", photo(12, 9))
    with pytest.raises(RestoreError, match=words):
        plan_detect(tmp_path / "in.png", tmp_path / output)


def test_a_folder_of_masks_inside_the_pictures_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "in/a.png", photo(12, 9))
    with pytest.raises(RestoreError, match="or inside it"):
        plan_detect(tmp_path / "in", tmp_path / "in/masks")


def test_two_pictures_of_one_name_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "in/a.png", photo(12, 9))
    save(tmp_path / "in/a.jpg", photo(12, 9))
    with pytest.raises(RestoreError, match="would both be written here"):
        plan_detect(tmp_path / "in", tmp_path / "masks")


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    made = Nursery(tmp_path_factory.mktemp("told"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector that finds everything half likely."""
    args = {"widths": [4, 4], "blocks": [1, 1], "mask": False, "out_channels": 1}
    model = UNet(**args)
    for parameter in model.tail.parameters():
        parameter.data.zero_()
    path = tmp_path_factory.mktemp("weights") / "half.safetensors"
    description = Description(
        builder="unet",
        args=args,
        needs_mask=False,
        multiple=2,
        minimum=2,
        finds=DetectorSettings(threshold=0.4, margin_px=1),
    )
    save_weights(path, model.state_dict(), description)
    return path


def test_the_command_finds_what_its_options_say(tmp_path: Path, weights: Path, nursery: Nursery) -> None:
    save(tmp_path / "in/a.png", photo(12, 9))
    options = ("--model", weights, "--device", "cpu", "--precision", "fp32", "--tile", "0")
    done = nursery.run("detect", tmp_path / "in", tmp_path / "all", *options)
    assert (done.returncode, done.stdout) == (0, "")
    warning, counts, damage = done.stderr.splitlines()
    assert warning.endswith(
        "damage was found in 100% of the image, which is rarely right: try --sensitivity gentle, or paint a mask"
    )
    assert counts.startswith("1 done")
    assert damage == "damage found in 100.0% of the image"
    assert load(tmp_path / "all/a_mask.png").min() == 255
    for number, name in enumerate([("--sensitivity", "0.4"), ("--threshold", "0.6")]):
        done = nursery.run("detect", tmp_path / "in", tmp_path / f"none{number}", *options, *name, "--dilate", "3")
        assert load(tmp_path / f"none{number}/a_mask.png").max() == 0
        assert "no damage found: look at the image, or try a higher --sensitivity" in done.stderr
    assert "--threshold 0.6 is now --sensitivity 0.4" in done.stderr


def test_a_wrong_command_is_one_clear_line(tmp_path: Path, weights: Path, nursery: Nursery) -> None:
    save(tmp_path / "in/a.png", photo(12, 9))
    for args, words in (
        (("in", "masks", "--model", "photo"), "photo is a restorer, not a detector"),
        (("in", "masks", "--model", weights, "--tile", "small"), "--tile: must be an integer"),
        (("nowhere", "masks", "--model", weights), "there is no such file or folder"),
        (("in/a.png", "mask", "--model", weights), "masks are written as PNG; name a .png file"),
        (("in", "masks", "--model", weights, "--sensitivity", "1"), "--sensitivity: must be gentle, normal, strong or"),
    ):
        source, target, *options = args
        done = nursery.run("detect", tmp_path / str(source), tmp_path / str(target), *options)
        assert done.returncode == 2, done.stderr
        assert words in done.stderr
        assert not (tmp_path / "masks").exists()
    done = nursery.run("fix", tmp_path / "in", tmp_path / "out", "--model", weights)
    assert done.returncode == 2
    assert "is a detector, not a restorer; `restore detect`" in done.stderr


def test_a_mask_goes_through_a_pipe(tmp_path: Path, weights: Path) -> None:
    source = save(tmp_path / "a.png", photo(12, 9))
    options = ["--model", str(weights), "--device", "cpu", "--sensitivity", "0.4"]
    arguments = [sys.executable, "-m", "restore.cli", "detect", "-", "-", *options]
    with open(source, "rb") as given:
        done = subprocess.run(arguments, stdin=given, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    (tmp_path / "mask.png").write_bytes(done.stdout)
    assert load(tmp_path / "mask.png").shape == (12, 9)
