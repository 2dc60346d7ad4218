"""Image sequences: repaired as videos are, while every frame keeps what its file holds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from restore.errors import RestoreError
from restore.fix.decoder_isolation import SupervisorLink, SupervisorState
from restore.fix.detect import plan_detect
from restore.fix.options import DetectOptions, FixOptions
from restore.fix.plan import plan_fix
from restore.fix.run import run_fix
from restore.fix.steps import Models
from restore.images import read_image
from restore.video.sequence import files_of, gaps, is_sequence, number_of
from tests.fix.conftest import Filler, Inverter, fix_with, logged, plan_with
from tests.video.test_steady import Nothing, panning, with_dirt

AUTO: dict[str, Any] = {"masks": "auto", "detector": Nothing()}


def write(folder: Path, frames: list[np.ndarray], numbers: list[int], suffix: str = "tif") -> Path:
    """Frames of 16 bits."""
    folder.mkdir()
    for number, frame in zip(numbers, frames, strict=True):
        deep = np.rint(frame[:, :, ::-1] * 65535).astype(np.uint16)
        assert cv2.imwrite(str(folder / f"frame_{number:06d}.{suffix}"), deep)
    return folder / f"frame_%06d.{suffix}"


@pytest.fixture
def reel(tmp_path: Path) -> tuple[Path, np.ndarray]:
    damaged, dirt = with_dirt(panning(8), 4)
    return write(tmp_path / "in", damaged, list(range(86400, 86408))), dirt


def test_dirt_of_one_frame_is_filled_by_its_neighbors(reel: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    pattern, dirt = reel
    log = tmp_path / "log.jsonl"
    summary = fix_with(pattern, tmp_path / "out/frame_%06d.tif", Filler(), **AUTO, log=str(log))
    assert summary.done == 8
    assert summary.copied == 8 - summary.damaged >= 6
    truth = np.rint(panning(8)[4] * 65535)
    before, after = (read_image(tmp_path / place / "frame_086404.tif").pixels for place in ("in", "out"))
    assert after.dtype == np.uint16
    assert np.abs(after - truth)[dirt].mean() < 0.2 * np.abs(before - truth)[dirt].mean()
    assert (after == before).all(axis=2).mean() > 0.93
    for number in (0, 1, 7):  # untouched files
        name = f"frame_{86400 + number:06d}.tif"
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "in" / name).read_bytes()
    records = [line for line in logged(log) if "output" in line]
    assert records[4]["steps"] == ["detect", "fill_holes"]
    assert 0 < records[4]["mask_coverage"] < 0.07


def test_a_resumed_run_gives_the_same(reel: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    pattern, _ = reel
    fix_with(pattern, tmp_path / "whole", Filler(), **AUTO)
    for number in (86400, 86401, 86402, 86405):
        name = f"frame_{number:06d}.tif"
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / name).write_bytes((tmp_path / "whole" / name).read_bytes())
    summary = fix_with(pattern, tmp_path / "out", Filler(), **AUTO, skip_existing=True)
    assert (summary.done, sum(summary.skipped.values())) == (4, 4)
    for file in (tmp_path / "whole").iterdir():
        assert (tmp_path / "out" / file.name).read_bytes() == file.read_bytes()


def test_after_a_crash_neighbors_still_help(reel: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    pattern, _ = reel
    fix_with(pattern, tmp_path / "whole", Filler(), **AUTO)
    options = FixOptions(masks="auto", clean_up=False)
    crashed = os.fspath(tmp_path / "in/frame_086401.tif")
    past = SupervisorState(plan=b"kept", blamed={crashed: "the decoder crashed"})
    plan = plan_fix(pattern, tmp_path / "out", options)
    models = [Models(Filler(), None, Nothing())]
    summary = run_fix(plan, models, options, link=SupervisorLink(past))
    assert [(failure.path.name, failure.code) for failure in summary.failed] == [("frame_086401.tif", "crashed")]
    before, after = ((tmp_path / place / "frame_086404.tif").read_bytes() for place in ("in", "out"))
    assert after != before
    assert after == (tmp_path / "whole/frame_086404.tif").read_bytes()


def test_without_help_of_neighbors_each_frame_is_an_image(reel: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    pattern, _ = reel
    assert fix_with(pattern, tmp_path / "alone", Filler(), **AUTO, steady=False).copied == 8
    summary = fix_with(pattern, tmp_path / "everywhere", Inverter())
    assert (summary.done, summary.copied) == (8, 0)


class Failing(Nothing):
    """A detector that fails at its third frame."""

    calls = 0

    def detect(self, image: np.ndarray, *, tile_px: int, on_event: Any) -> np.ndarray:
        self.calls += 1
        if self.calls == 3:
            raise RestoreError("out of memory", exit_code=1)
        return super().detect(image, tile_px=tile_px, on_event=on_event)


@pytest.mark.parametrize("steady", [True, False])
def test_a_frame_at_which_the_detector_fails_fails_alone(
    reel: tuple[Path, np.ndarray], tmp_path: Path, steady: bool
) -> None:
    options: dict[str, Any] = {"masks": "auto", "detector": Failing(), "steady": steady}
    summary = fix_with(reel[0], tmp_path / "out", Filler(), **options)
    assert [(one.path.name, one.reason) for one in summary.failed] == [("frame_086402.tif", "out of memory")]
    assert (summary.done, summary.stopped) == (7, "")
    assert len(list((tmp_path / "out").glob("*.tif"))) == 7


class White(Nothing):
    """Finds a patch, which stands still while the scene moves."""

    def detect(self, image: np.ndarray, *, tile_px: int, on_event: Any) -> np.ndarray:
        found = np.zeros(image.shape[:2], np.float32)
        found[20:30, 20:30] = 1
        return found


def test_what_no_neighbor_knows_is_filled_by_the_model(tmp_path: Path) -> None:
    frames = panning(4)
    for frame in frames:
        frame[20:30, 20:30] = 0.99
    pattern = write(tmp_path / "in", frames, [1, 2, 3, 4])

    class Black(Filler):
        def _restore(self, image: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
            return torch.zeros_like(super()._restore(image, mask))

    options: dict[str, Any] = {"masks": "auto", "detector": White(), "save_masks": str(tmp_path / "masks")}
    fix_with(pattern, tmp_path / "out", Black(), **options)
    after = read_image(tmp_path / "out/frame_000002.tif").pixels
    assert (after[23:27, 23:27] == 0).mean() > 0.5
    assert (read_image(tmp_path / "masks/frame_000002.tif.png").pixels[23:27, 23:27] == 255).all()


def test_gaps_are_told_and_not_bridged(tmp_path: Path) -> None:
    damaged, _ = with_dirt(panning(8), 4)
    numbers = [0, 1, 2, 3, 10, 17, 18, 19]
    pattern = write(tmp_path / "in", damaged, numbers)
    summary = fix_with(pattern, tmp_path / "out", Filler(), **AUTO)
    assert any("4 to 9, 11 to 16" in line for line in summary.warnings)
    assert summary.copied == 8  # the dirty frame has no neighbor
    (tmp_path / "in/frame_000002.tif").write_bytes(b"II*\0broken")
    summary = fix_with(pattern, tmp_path / "other", Filler(), **AUTO)
    assert (summary.done, len(summary.failed)) == (7, 1)


def test_frames_that_cannot_be_a_sequence(reel: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    pattern, _ = reel
    for place, words in (("out/%d.tif", "names of those"), ("out.mp4", "looks like a file"), ("in", "input")):
        with pytest.raises(RestoreError, match=words):
            plan_with(pattern, tmp_path / place)
    with pytest.raises(RestoreError, match="no file belongs"):
        plan_with(tmp_path / "in/%03d.png", tmp_path / "out")
    with pytest.raises(RestoreError, match="flicker"):
        plan_with(pattern, tmp_path / "out", correct_fading=True)


def test_detect_takes_the_frames_as_images(reel: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    plan = plan_detect(reel[0], tmp_path / "found", DetectOptions())
    assert len(list(plan.jobs)) == 8
    assert plan.sequence is None


def test_numbers_in_names(tmp_path: Path) -> None:
    pattern = Path("a_%04d.png")
    names = ("a_0007.png", "a_12345.png", "a_007.png", "a_00007.png", "a_x007.png", "b_0007.png", "a_0007.png.bak")
    assert [number_of(pattern, Path(name)) for name in names] == [7, 12345, None, None, None, None, None]
    assert [number_of(Path("%d.png"), Path(name)) for name in ("0.png", "12.png", "012.png")] == [0, 12, None]
    assert gaps([1, 2, 3]) == ""
    assert gaps([1, 3, 7]) == "2, 4 to 6"
    assert not is_sequence(tmp_path / "100%.png")
    (tmp_path / "odd_%d.png").write_bytes(b"")
    assert not is_sequence(tmp_path / "odd_%d.png")  # a file of this very name
    for number in (10, 9, 100):
        (tmp_path / f"f{number}.png").write_bytes(b"")
    assert [*files_of(tmp_path / "f%d.png")] == [9, 10, 100]
