"""Runs with videos: planned and refused, stopped and resumed, logged, and told where something is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from restore.errors import RestoreError
from restore.fix import video as fix_video
from restore.fix.detect import plan_detect
from restore.fix.options import DetectOptions
from restore.video import formats
from tests.fix.conftest import Filler, Inverter, fix_with, hole, load, logged, photo, plan_with, save
from tests.html.test_write import data_of
from tests.video.conftest import make_video, moving, planes_of, times_of


@pytest.fixture
def reel(tmp_path: Path) -> Path:
    save(tmp_path / "masks/reel.png", hole(48, 64, (8, 10, 20, 30)))
    return make_video(tmp_path / "in/reel.mp4", moving(25), sound="aac")


def test_a_folder_of_images_and_videos(reel: Path, tmp_path: Path) -> None:
    image = photo(20, 30)
    save(tmp_path / "in/sub/a.png", image)
    (tmp_path / "in/notes.ts").write_text("export const answer = 42;\n" * 40)
    summary = fix_with(tmp_path / "in", tmp_path / "out", Inverter(), log=str(tmp_path / "log.jsonl"))
    assert (summary.done, summary.skipped, summary.exit_code) == (2, {"not an image": 1}, 0)
    np.testing.assert_array_equal(load(tmp_path / "out/sub/a.png"), 255 - image)
    assert len(times_of(tmp_path / "out/reel.mp4")) == 25
    assert (tmp_path / "out/reel.mp4").stat().st_mtime == reel.stat().st_mtime
    record = next(line for line in logged(tmp_path / "log.jsonl") if line["input"].endswith("mp4"))
    assert (record["width"], record["height"], record["steps"]) == (64, 48, ["restore"])
    assert record["changed_fraction"] > 0.99
    again = fix_with(tmp_path / "in", tmp_path / "out", Inverter(), skip_existing=True)
    assert again.skipped["the output exists"] == 2


def test_a_video_that_nothing_changes_is_copied(reel: Path, tmp_path: Path) -> None:
    empty = save(tmp_path / "empty.png", hole(48, 64))
    summary = fix_with(reel, tmp_path / "out.mp4", Filler(), masks=str(empty))
    assert (summary.done, summary.copied) == (1, 1)
    assert (tmp_path / "out.mp4").read_bytes() == reel.read_bytes()


def test_what_is_made_of_images_only_is_told(reel: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"save_masks": str(tmp_path / "saved"), "html_report": str(tmp_path / "report")}
    summary = fix_with(reel, tmp_path / "out.mp4", Filler(), masks=str(tmp_path / "masks/reel.png"), **options)
    assert summary.done == 1
    assert any("masks of videos are not saved" in line for line in summary.warnings)
    (row,) = data_of(tmp_path / "report")["rows"]
    assert list(row["views"][0]["images"]) == ["before", "after"]
    assert row["views"][0]["size"] == [64, 48]
    assert "h264, 64×48, 1.0 s, 25 frames, 25 a second; the frame at 0.5 s is shown" in row["note"]


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("out.png", "cannot write videos"),
        ("out", "cannot write videos"),
        ("in/reel.mp4", "the input itself"),
        ("-", "standard"),
    ],
)
def test_outputs_that_are_refused(output: str, words: str, reel: Path, tmp_path: Path) -> None:
    with pytest.raises(RestoreError, match=words) as caught:
        plan_with(reel, output if output == "-" else tmp_path / output)
    assert caught.value.exit_code == 2


def test_an_existing_output_is_kept(reel: Path, tmp_path: Path) -> None:
    (tmp_path / "out.mp4").write_bytes(b"mine")
    with pytest.raises(RestoreError, match="exists already"):
        plan_with(reel, tmp_path / "out.mp4")
    assert (tmp_path / "out.mp4").read_bytes() == b"mine"


def test_programs_for_images_leave_videos_out(reel: Path, tmp_path: Path) -> None:
    save(tmp_path / "in/a.png", photo(20, 30))
    plan = plan_detect(tmp_path / "in", tmp_path / "found", DetectOptions())
    assert [(job.source.name, job.action) for job in plan.jobs] == [("a.png", "repair"), ("reel.mp4", "skip")]


def test_without_pyav_it_is_told_what_is_needed(reel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    with pytest.raises(RestoreError, match=r"restore-toolkit\[video\]"):
        plan_with(reel, tmp_path / "out.mp4")
    save(tmp_path / "in/a.png", photo(20, 30))
    plan = plan_with(tmp_path / "in", tmp_path / "out")
    assert [(job.action, job.code) for job in plan.jobs] == [("repair", ""), ("fail", "unsupported")]


def test_a_video_that_is_cut_short_fails_with_its_reason(reel: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(reel.read_bytes()[:2000])
    summary = fix_with(cut, tmp_path / "out.mp4", Inverter())
    assert [failure.code for failure in summary.failed] == ["damaged"]
    assert not (tmp_path / "out.mp4").exists()


def test_fading_is_not_corrected_frame_by_frame(reel: Path, tmp_path: Path) -> None:
    summary = fix_with(reel, tmp_path / "out.mp4", Inverter(), correct_fading=True)
    assert "--no-correct-fading" in summary.failed[0].reason


class Stopping(Filler):
    """Fills with white, and is interrupted at a frame."""

    def __init__(self, at: int | None) -> None:
        super().__init__()
        self._at = at

    def _restore(self, image: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        if len(self.calls) == self._at:
            raise KeyboardInterrupt
        return super()._restore(image, mask)


def test_a_stopped_video_goes_on_behind_its_last_segment(
    reel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fix_video, "SEGMENT_FRAMES", 6)
    options: dict[str, Any] = {"masks": str(tmp_path / "masks/reel.png")}
    whole = Stopping(None)
    assert fix_with(reel, tmp_path / "whole.mp4", whole, **options).done == 1
    assert len(whole.calls) == 25
    stopped = fix_with(reel, tmp_path / "out.mp4", Stopping(15), **options)
    assert stopped.interrupted
    assert not (tmp_path / "out.mp4").exists()
    log = tmp_path / "log.jsonl"
    rest = Stopping(None)
    summary = fix_with(reel, tmp_path / "out.mp4", rest, **options, log=str(log))
    assert len(rest.calls) == 25 - 12
    assert any("behind frame 12" in line for line in summary.warnings)
    assert (tmp_path / "out.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert not list(tmp_path.glob(".restore-*"))
    segments = [json.loads(line) for line in log.read_text().splitlines() if '"segment"' in line]
    assert [(line["first_frame"], line["frames"]) for line in segments] == [(12, 6), (18, 6), (24, 1)]
    assert segments[0]["mask_coverage"] == pytest.approx(12 * 20 / (48 * 64))


def test_a_preview_leaves_what_a_stopped_repair_has_done(
    reel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fix_video, "SEGMENT_FRAMES", 6)
    options: dict[str, Any] = {"masks": str(tmp_path / "masks/reel.png")}
    fix_with(reel, tmp_path / "out.mp4", Stopping(15), **options)
    assert fix_with(reel, tmp_path / "out.mp4", Stopping(None), **options, preview="0.1s").done == 1
    rest = Stopping(None)
    assert fix_with(reel, tmp_path / "out.mp4", rest, **options, overwrite=True).done == 1
    assert len(rest.calls) == 25 - 12


def test_segments_of_another_repair_are_not_used(reel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fix_video, "SEGMENT_FRAMES", 6)
    masks = str(tmp_path / "masks/reel.png")
    fix_with(reel, tmp_path / "out.mp4", Stopping(15), masks=masks)
    model = Stopping(None)
    assert fix_with(reel, tmp_path / "out.mp4", model, masks=masks, strength=0.5).done == 1
    assert len(model.calls) == 25


def test_segments_are_joined_without_a_seam(reel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames of a lossless codec are those of a run in one segment, in the same times."""
    reel = make_video(tmp_path / "silent/reel.mkv", moving(25))
    masks = str(tmp_path / "masks/reel.png")
    for frames in (6, 240):
        monkeypatch.setattr(fix_video, "SEGMENT_FRAMES", frames)
        fix_with(reel, tmp_path / f"{frames}.mkv", Filler(), masks=masks, video_codec="ffv1")
    assert times_of(tmp_path / "6.mkv") == times_of(tmp_path / "240.mkv") == times_of(reel)
    for one, other in zip(planes_of(tmp_path / "6.mkv"), planes_of(tmp_path / "240.mkv"), strict=True):
        np.testing.assert_array_equal(one[0], other[0])
