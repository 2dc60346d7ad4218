"""Masks of a video's frames: one image, a video, a folder or a sequence, with clear words where they do not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from restore.errors import RestoreError
from restore.fix import video as fix_video
from tests.fix.conftest import Filler, fix_with, hole, save
from tests.video.conftest import make_video, moving, planes_of
from tests.video.test_sequences import write
from tests.video.test_steady import panning

FRAMES = 10


def box(number: int) -> tuple[int, int, int, int]:
    """Where the mask of a frame is: it moves."""
    return 8, 10 + 3 * number, 20, 20 + 3 * number


def masks_of(folder: Path, count: int = FRAMES) -> Path:
    for number in range(count):
        save(folder / f"m_{number:04d}.png", hole(48, 64, box(number)))
    return folder


@pytest.fixture
def reel(tmp_path: Path) -> Path:
    return make_video(tmp_path / "in/reel.mkv", moving(FRAMES), codec="ffv1", pix_fmt="yuv444p")


def changed(source: Path, output: Path) -> list[np.ndarray]:
    pairs = zip(planes_of(source), planes_of(output), strict=True)
    return [(np.stack(before) != np.stack(after)).any(axis=0) for before, after in pairs]


def check(source: Path, output: Path) -> None:
    for number, where in enumerate(changed(source, output)):
        np.testing.assert_array_equal(where, hole(48, 64, box(number)) > 0)


def test_masks_per_frame(reel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = masks_of(tmp_path / "masks")
    deep = [np.repeat(hole(48, 64, box(n))[:, :, None], 3, 2).astype(np.uint16) * 257 for n in range(FRAMES)]
    lossless = make_video(tmp_path / "masks.mkv", deep, codec="ffv1", pix_fmt="gray")
    monkeypatch.setattr(fix_video, "SEGMENT_FRAMES", 4)
    for number, masks in enumerate((folder, folder / "m_%04d.png", lossless)):
        summary = fix_with(reel, tmp_path / f"{number}.mkv", Filler(), masks=str(masks))
        assert (summary.done, summary.failed, summary.unmatched_masks) == (1, [], 0)
        check(reel, tmp_path / f"{number}.mkv")
    lossy = make_video(tmp_path / "masks.mp4", deep, pix_fmt="yuv420p", options={"crf": "10"})
    fix_with(reel, tmp_path / "lossy.mkv", Filler(), masks=str(lossy))
    for number, where in enumerate(changed(reel, tmp_path / "lossy.mkv")):
        assert (where != (hole(48, 64, box(number)) > 0)).mean() < 0.03


def test_a_resumed_run_takes_the_right_masks(reel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.video.test_runs import Stopping

    monkeypatch.setattr(fix_video, "SEGMENT_FRAMES", 4)
    deep = [np.repeat(hole(48, 64, box(n))[:, :, None], 3, 2).astype(np.uint16) * 257 for n in range(FRAMES)]
    masks = str(make_video(tmp_path / "masks.mkv", deep, codec="ffv1", pix_fmt="gray"))
    assert fix_with(reel, tmp_path / "out.mkv", Stopping(6), masks=masks).interrupted
    assert fix_with(reel, tmp_path / "out.mkv", Filler(), masks=masks).done == 1
    check(reel, tmp_path / "out.mkv")


def test_a_folder_of_videos_finds_their_masks(reel: Path, tmp_path: Path) -> None:
    other = make_video(tmp_path / "in/sub/other.mkv", moving(FRAMES, seed=5), codec="ffv1", pix_fmt="yuv444p")
    masks_of(tmp_path / "masks/reel")
    deep = [np.repeat(hole(48, 64, box(n))[:, :, None], 3, 2).astype(np.uint16) * 257 for n in range(FRAMES)]
    make_video(tmp_path / "masks/sub/other_mask.mkv", deep, codec="ffv1", pix_fmt="gray")
    summary = fix_with(tmp_path / "in", tmp_path / "out", Filler(), masks=str(tmp_path / "masks"))
    assert (summary.done, summary.warnings) == (2, [])
    check(reel, tmp_path / "out/reel.mkv")
    check(other, tmp_path / "out/sub/other.mkv")
    save(tmp_path / "masks/reel.png", hole(48, 64, box(0)))
    summary = fix_with(tmp_path / "in", tmp_path / "again", Filler(), masks=str(tmp_path / "masks"))
    assert [failure.code for failure in summary.failed] == ["several_masks"]


def test_masks_that_do_not_fit(reel: Path, tmp_path: Path) -> None:
    for count, words in ((FRAMES - 3, "7 masks"), (FRAMES + 2, "12 masks")):
        masks = masks_of(tmp_path / f"{count}", count)
        summary = fix_with(reel, tmp_path / "out.mkv", Filler(), masks=str(masks))
        assert words in summary.failed[0].reason
        assert not (tmp_path / "out.mkv").exists()
    small = [np.full((24, 32, 3), 65535, np.uint16)] * FRAMES
    masks = make_video(tmp_path / "small.mkv", small, codec="ffv1", pix_fmt="gray")
    summary = fix_with(reel, tmp_path / "out.mkv", Filler(), masks=str(masks))
    assert "the mask has 32×24 pixels, its image 64×48" in summary.failed[0].reason
    with pytest.raises(RestoreError, match="no file belongs"):
        fix_with(reel, tmp_path / "out.mkv", Filler(), masks=str(tmp_path / "none_%d.png"))
    short = make_video(tmp_path / "short.mkv", [np.zeros((48, 64, 3), np.uint16)] * 4, codec="ffv1", pix_fmt="gray")
    summary = fix_with(reel, tmp_path / "out.mkv", Filler(), masks=str(short))
    assert "fewer than the frames" in summary.failed[0].reason
    save(tmp_path / "pictures/a.png", np.zeros((48, 64, 3), np.uint8))
    with pytest.raises(RestoreError, match="only videos have"):
        fix_with(tmp_path / "pictures", tmp_path / "out", Filler(), masks=str(short))


def test_a_sequence_pairs_its_masks_by_number(tmp_path: Path) -> None:
    pattern = write(tmp_path / "in", panning(3), [7, 8, 9])
    for number in (7, 8, 9):
        save(tmp_path / f"masks/hole{number}.png", hole(96, 128, box(number)))
    fix_with(pattern, tmp_path / "out", Filler(), masks=str(tmp_path / "masks/hole%d.png"))
    from restore.images import read_image

    for number in (7, 8, 9):
        before, after = (read_image(tmp_path / place / f"frame_{number:06d}.tif").pixels for place in ("in", "out"))
        where = (before != after).any(axis=2)
        assert where[9:19, 12 + 3 * number : 18 + 3 * number].all()
        assert not where[:, : 10 + 3 * number].any()
