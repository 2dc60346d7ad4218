"""Previews: a stretch of a video before and after, side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from restore.errors import RestoreError
from restore.fix.options import FixOptions
from tests.fix.conftest import Inverter, fix_with, photo, plan_with, save
from tests.video.conftest import make_video, moving, planes_of, times_of

QUARTER = (0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)


def test_a_preview_shows_both_sides(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in/reel.mkv", moving(25), codec="ffv1", pix_fmt="yuv444p")
    save(tmp_path / "in/a.png", photo(20, 30))
    assert plan_with(tmp_path / "in", tmp_path / "out", preview="0.2s").format() == [
        f"{tmp_path / 'in/a.png'}: skipped: only videos have previews",
        f"{source} -> {tmp_path / 'out/reel.preview.mkv'}",
    ]
    summary = fix_with(tmp_path / "in", tmp_path / "out", Inverter(), preview="0.2s")
    assert (summary.done, summary.skipped) == (1, {"only videos have previews": 1})
    assert any("side by side" in line for line in summary.warnings)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["reel.preview.mkv"]
    assert times_of(tmp_path / "out/reel.preview.mkv") == times_of(source)[10:15]
    for one, true in zip(planes_of(tmp_path / "out/reel.preview.mkv"), planes_of(source)[10:15], strict=True):
        assert one[0].shape == (48, 128)
        assert np.abs(one[0][:, :64].astype(int) - true[0]).max() <= 1
        assert np.abs(one[0][:, 64:].astype(int) - (251 - true[0])).max() <= 2  # inverted: 16 + 235 - luma


@pytest.mark.parametrize("share", [0.3, 0.5, 0.6])
def test_a_video_that_is_cut_short_is_shown_from_the_middle_of_what_is_there(tmp_path: Path, share: float) -> None:
    whole = make_video(tmp_path / "whole.mkv", moving(25), codec="ffv1", pix_fmt="yuv444p", options={"g": "1"})
    source = tmp_path / "reel.mkv"
    source.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
    there = times_of(source)
    summary = fix_with(source, tmp_path / "out.mkv", Inverter(), preview="0.16s")
    assert summary.failed == []
    reaches = len(there) >= 14  # as far as a preview from the middle of 25 frames
    first = 10 if reaches else (len(there) - 4) // 2
    assert times_of(tmp_path / "out.mkv") == there[first : first + 4]
    assert (f"holds {len(there)} frames, not 25" in "".join(summary.warnings)) != reaches


def test_a_preview_in_a_folder_does_not_stand_for_its_video(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in/reel.mkv", moving(8), codec="ffv1", pix_fmt="yuv444p")
    for given in (tmp_path / "in", source):
        (job,) = plan_with(given, f"{tmp_path / 'out'}/", preview="1s", suffix="_x").jobs
        assert job.target == tmp_path / "out/reel_x.preview.mkv"
    fix_with(tmp_path / "in", tmp_path / "out", Inverter(), preview="0.1s")
    assert fix_with(tmp_path / "in", tmp_path / "out", Inverter(), skip_existing=True).done == 1
    assert len(times_of(tmp_path / "out/reel.mkv")) == 8


def test_turned_videos_are_upright_in_previews(tmp_path: Path) -> None:
    source = make_video(tmp_path / "reel.mp4", moving(8), matrix=QUARTER)
    fix_with(source, tmp_path / "out.mp4", Inverter(), preview="1")
    frames = planes_of(tmp_path / "out.mp4")
    assert [frame[0].shape for frame in frames] == [(64, 96)] * 8


@pytest.mark.parametrize("text", ["", "0", "ten", "-1s", "10m"])
def test_lengths_that_are_none(text: str) -> None:
    with pytest.raises(RestoreError, match="seconds"):
        FixOptions(preview=text)
