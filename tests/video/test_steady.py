"""Dirt that stands in one frame: found and filled by the frames before and after, with scenes left alone."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from skimage import data

from restore.fix import video as fix_video
from restore.video.motion import Seen, motion, spread
from restore.video.temporal import steadily
from tests.fix.conftest import Filler, fix_with
from tests.video.conftest import make_video, packets_of, planes_of


def panning(frames: int, step: float = 1.6, at: float = 100.0) -> list[np.ndarray]:
    """A window that moves over a photograph, 96×128×3 in [0, 1]."""
    photograph = data.astronaut()
    out = []
    for number in range(frames):
        matrix = np.array([[1.0, 0, at + step * number], [0, 1.0, 40 + 0.7 * number]])
        window = cv2.warpAffine(photograph, matrix, (128, 96), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP)
        out.append(window.astype(np.float32) / 255)
    return out


def deep(frame: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(frame, 0, 1) * 65535).astype(np.uint16)


def results(
    frames: list[np.ndarray], found: Any = lambda rgb: None
) -> list[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    filled = steadily(iter(enumerate(frames)), lambda one: deep(one[1]), found)
    return [(one.item[0], one.rgb(), one.mask, one.unknown) for one in filled]


def with_dirt(frames: list[np.ndarray], at: int) -> tuple[list[np.ndarray], np.ndarray]:
    dirt = np.zeros((96, 128), np.uint8)
    cv2.circle(dirt, (50, 30), 4, 1, -1)
    cv2.line(dirt, (90, 5), (91, 80), 1, 1)
    damaged = [frame.copy() for frame in frames]
    damaged[at][dirt > 0] = 0.98
    return damaged, dirt > 0


def test_dirt_of_one_frame_is_found_and_filled_by_its_neighbors() -> None:
    frames = panning(6)
    damaged, dirt = with_dirt(frames, 3)
    out = results(damaged)
    assert [item for item, *_ in out] == list(range(6))
    _, filled, mask, unknown = out[3]
    assert (mask & dirt).sum() > 0.9 * (dirt & (np.abs(damaged[3] - frames[3]).max(axis=2) > 0.1)).sum()
    assert not unknown.any()
    error = np.abs(filled - frames[3])[dirt & mask].mean()
    assert error < 0.03 < 0.1 * np.abs(damaged[3] - frames[3])[dirt & mask].mean() + 0.03
    for number in (1, 2, 4):
        assert out[number][2].mean() < 0.01


def test_faint_dirt_is_found_in_grain() -> None:
    """A line that no pixel shows by itself: it differs by four standard deviations of the difference of frames."""
    random = np.random.default_rng(0)
    frames = [cv2.GaussianBlur(frame, (0, 0), 3) for frame in panning(6)]
    frames = [np.clip(f + random.normal(0, 4 / 255, (96, 128, 1)), 0, 1).astype(np.float32) for f in frames]
    line = cv2.line(np.zeros((96, 128), np.uint8), (70, 8), (84, 88), 1, 1) > 0
    for number in (0, 3, 5):  # also where there is one neighbor only
        damaged = [frame.copy() for frame in frames]
        damaged[number][line] -= 20 / 255
        assert (results(damaged)[number][2] & line).sum() > 0.8 * line.sum(), number
    for _, _, mask, _ in results(frames):
        assert mask.mean() < 0.005


def test_what_moves_another_way_is_no_dirt_at_the_ends_of_scenes() -> None:
    frames = panning(4)
    for number, frame in enumerate(frames):
        frame[30:60, 20 + 5 * number : 50 + 5 * number] = panning(1, at=10)[0][:30, :30]
    for _, _, mask, _ in results(frames):
        assert mask.mean() < 0.01


def test_moving_scenes_without_dirt_stay_as_they_are() -> None:
    frames = panning(6)
    for number, frame in enumerate(frames):  # something that moves another way
        frame[30:60, 20 + 3 * number : 45 + 3 * number] = panning(1, at=10)[0][:30, :25]
    for number, filled, mask, _ in results(frames):
        assert mask.mean() < 0.005
        assert np.mean((filled - frames[number]) ** 2) < 10**-4.5  # 45 dB


@pytest.mark.parametrize("step", [3, 4, 5])
def test_what_an_object_covers_and_uncovers_is_no_dirt(step: int) -> None:
    """Motion is not exact at its edges, but neighbors show what is there a few pixels farther off."""
    frames = panning(6, at=240)
    for number, frame in enumerate(frames):
        left = 16 + step * number
        frame[32:64, left : left + 24] = panning(1, at=10)[0][:32, :24]
    for number, filled, mask, _ in results(frames):
        assert mask.mean() < 0.001
        assert np.mean((filled - frames[number]) ** 2) < 10**-5  # 50 dB


def test_a_scene_ends_at_a_cut() -> None:
    one, other = panning(3), [frame[::-1].copy() for frame in panning(3, at=300)]
    last, new = Seen(lambda: deep(one[2])), Seen(lambda: deep(other[0]))
    assert motion(Seen(lambda: deep(one[1])), last) is not None
    assert motion(last, new) is None
    for _, _, mask, _ in results([*one, *other]):
        assert not mask.any()


def test_a_mark_that_moves_with_the_scene_is_no_damage() -> None:
    frames = panning(5)
    marked = np.zeros((96, 128), bool)
    marked[40:44, 60:80] = True
    for _, _, mask, _ in results(frames, lambda rgb: marked):
        assert not (mask & marked).any()
    damaged, dirt = with_dirt(frames, 2)
    assert (results(damaged, lambda rgb: marked | dirt)[2][2] & dirt).sum() > 0.9 * dirt.sum()


def test_what_no_neighbor_knows_is_left_to_the_restorer() -> None:
    frames = panning(3)
    hole = np.zeros((96, 128), bool)
    hole[20:30, 20:30] = True
    for frame in frames:  # in all frames at one place, while the scene moves
        frame[hole] = 0.99
    _, _, mask, unknown = results(frames, lambda rgb: hole)[1]
    assert mask[hole].mean() > 0.9
    assert unknown[22:28, 22:28].mean() > 0.5


def test_a_frame_depends_on_its_neighbors_alone() -> None:
    damaged, _ = with_dirt(panning(7), 4)
    whole, part = results(damaged), results(damaged[2:])
    for number in range(4, 7):
        np.testing.assert_array_equal(whole[number][1], part[number - 2][1])


def test_frames_that_wait_for_others_keep_no_pixels() -> None:
    made: list[weakref.ref[np.ndarray]] = []
    most = 0

    def pixels(frame: np.ndarray) -> np.ndarray:
        nonlocal most
        rgb = deep(frame)
        made.append(weakref.ref(rgb))
        most = max(most, sum(one() is not None for one in made))
        return rgb

    assert sum(1 for _ in steadily(iter(panning(16)), pixels, lambda rgb: None)) == 16
    assert len(made) == 32
    assert most <= 8  # kept, they are 14


def test_values_spread_from_all_around() -> None:
    """A slope comes out as a slope."""
    x = np.repeat(np.arange(32, dtype=np.float32)[None] / 31, 32, 0)[:, :, None]
    valid = np.ones((32, 32), bool)
    valid[12:20, 12:20] = False
    out = spread(np.where(valid[:, :, None], x, 9).astype(np.float32), valid)
    assert np.abs(out - x).max() < 0.1
    np.testing.assert_array_equal(out[valid], x[valid])


class Nothing:
    """A detector that finds nothing."""

    name, sha256, threshold = "nothing", None, 0.5

    def detect(self, image: np.ndarray, *, tile_px: int, on_event: Any) -> np.ndarray:
        return np.zeros(image.shape[:2], np.float32)

    def adjusted(self, *, threshold: float) -> Nothing:
        return self


def test_a_video_is_repaired_by_its_own_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged, dirt = with_dirt(panning(8), 4)
    source = make_video(
        tmp_path / "reel.mkv", [(frame * 65535).astype(np.uint16) for frame in damaged], codec="ffv1", pix_fmt="yuv444p"
    )
    options: dict[str, Any] = {"masks": "auto", "detector": Nothing()}
    assert fix_with(source, tmp_path / "alone.mkv", Filler(), **options, steady=False).copied == 1
    log = tmp_path / "log.jsonl"
    summary = fix_with(source, tmp_path / "out.mkv", Filler(), **options, log=str(log))
    assert (summary.done, summary.damaged) == (1, 1)
    before, after = planes_of(source)[4][0].astype(int), planes_of(tmp_path / "out.mkv")[4][0].astype(int)
    assert np.abs(after - before)[dirt].mean() > 30
    far = cv2.dilate(dirt.astype(np.uint8), np.ones((9, 9))) == 0
    assert (after == before)[far].mean() > 0.995
    # Stopped and resumed, the file is the same.
    monkeypatch.setattr(fix_video, "SEGMENT_FRAMES", 3)
    fix_with(source, tmp_path / "whole.mkv", Filler(), **options)

    class Dying(Nothing):
        calls = 0

        def detect(self, image: np.ndarray, *, tile_px: int, on_event: Any) -> np.ndarray:
            Dying.calls += 1
            if Dying.calls == 7:
                raise KeyboardInterrupt
            return super().detect(image, tile_px=tile_px, on_event=on_event)

    assert fix_with(source, tmp_path / "halves.mkv", Filler(), masks="auto", detector=Dying()).interrupted
    assert fix_with(source, tmp_path / "halves.mkv", Filler(), **options).warnings
    assert packets_of(tmp_path / "halves.mkv", "video") == packets_of(tmp_path / "whole.mkv", "video")
