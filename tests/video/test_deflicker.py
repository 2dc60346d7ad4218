"""Flicker: removed where brightness jumps all the time, while fades, flashes, cuts and steady scenes stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from restore.errors import RestoreError
from restore.fix import video as fix_video
from restore.fix.options import FixOptions
from restore.fix.run import fix_folder
from restore.fix.run_models import open_models, planned_engine
from restore.fix.steps import Models
from restore.images import read_image
from restore.video.deflicker import REACH, Tone, deflickered, small_of
from tests.fix.conftest import Filler, Inverter, fix_with, logged
from tests.video.conftest import make_video, packets_of, planes_of
from tests.video.test_sequences import write
from tests.video.test_steady import Nothing, panning

FRAMES = 40


def flickering(frames: list[np.ndarray], seed: int = 1, size: float = 0.08) -> list[np.ndarray]:
    """Frames that are brighter and darker in turn, each channel a little differently."""
    random = np.random.default_rng(seed)
    out = []
    for frame in frames:
        gain = 1 + random.normal(0, size, 1) + random.normal(0, size / 4, 3)
        out.append(np.clip(frame * gain + random.normal(0, size / 8, 3), 0, 1).astype(np.float32))
    return out


def tones(frames: list[np.ndarray]) -> list[Tone | None]:
    found = list(deflickered((number, small_of(frame)) for number, frame in enumerate(frames)))
    assert [number for number, _ in found] == list(range(len(frames)))
    return [tone for _, tone in found]


def evened(frames: list[np.ndarray]) -> list[np.ndarray]:
    return [frame if tone is None else tone.to_unit(frame) for frame, tone in zip(frames, tones(frames), strict=True)]


def flicker_of(frames: list[np.ndarray], truth: list[np.ndarray]) -> float:
    """How brightness jumps from frame to frame beside the truth, in levels of 255 (root mean square)."""
    errors = [(frame - true).mean(axis=(0, 1)) for frame, true in zip(frames, truth, strict=True)]
    return 255 * float(np.sqrt(np.mean(np.diff(errors, axis=0) ** 2)))


@pytest.fixture(scope="module")
def scene() -> list[np.ndarray]:
    return [frame * 0.8 + 0.05 for frame in panning(FRAMES)]


def test_flicker_is_removed(scene: list[np.ndarray]) -> None:
    before = flickering(scene)
    after = evened(before)
    assert flicker_of(before, scene) > 8
    assert flicker_of(after, scene) < flicker_of(before, scene) / 10
    mean_error = np.mean([np.abs(frame - true).mean() for frame, true in zip(after, scene, strict=True)])
    assert mean_error < 0.5 * np.mean([np.abs(frame - true).mean() for frame, true in zip(before, scene, strict=True)])


def test_scenes_without_flicker_stay(scene: list[np.ndarray]) -> None:
    noise = np.random.default_rng(0)
    grain = [frame + noise.normal(0, 6 / 255, frame.shape).astype(np.float32) for frame in scene]
    moving = [frame.copy() for frame in scene]
    for number, frame in enumerate(moving):  # something bright that comes in
        frame[30:70, max(0, 3 * number - 60) : max(0, 3 * number - 20)] = 0.95
    for frames in (scene, grain, moving):
        assert tones(frames) == [None] * FRAMES


def test_fades_and_a_flash_stay(scene: list[np.ndarray]) -> None:
    faded = [frame * max(0.0, 1 - number / 36) for number, frame in enumerate(scene)]
    assert tones(faded) == [None] * FRAMES
    flash = [frame * (1.6 if number == 20 else 1) for number, frame in enumerate(scene)]
    assert tones(flash) == [None] * FRAMES
    # Both in flicker: the fade goes on, and the flash is a flash.
    slow = [frame * (1 - number / 60) for number, frame in enumerate(scene)]
    after = evened(flickering(slow, size=0.04))
    for number in (5, 20, 34):
        assert abs(after[number].mean() / slow[number].mean() - 1) < 0.06
    before = flickering(scene, size=0.03)
    before[20] = np.clip(before[20] * 1.7, 0, 1)
    after = evened(before)
    assert after[20].mean() > 1.4 * after[18].mean()
    assert abs(after[19].mean() / after[21].mean() - 1) < 0.03


def test_a_cut_is_no_flicker(scene: list[np.ndarray]) -> None:
    dark = [np.ascontiguousarray(frame[::-1]) * 0.4 for frame in panning(16, at=300)]
    bright = scene[:16]
    before = flickering([*bright, *dark], size=0.05)
    after = evened(before)
    assert flicker_of(after[:16], bright) < flicker_of(before[:16], bright) / 5
    assert flicker_of(after[16:], dark) < flicker_of(before[16:], dark) / 5
    for number, true in ((15, bright[15]), (16, dark[0])):
        assert abs(after[number].mean() / true.mean() - 1) < 0.08


def test_a_frame_depends_on_those_around_it_alone(scene: list[np.ndarray]) -> None:
    frames = flickering(scene)
    whole, part = tones(frames), tones(frames[5:])
    for number in range(5 + REACH, FRAMES):
        one, other = whole[number], part[number - 5]
        assert one is not None
        assert other is not None
        np.testing.assert_array_equal(one.gain, other.gain)
        np.testing.assert_array_equal(one.offset, other.offset)


def deep(frames: list[np.ndarray]) -> list[np.ndarray]:
    return [np.rint(frame * 65535).astype(np.uint16) for frame in frames]


def test_a_video_without_flicker(scene: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"deflicker": True}
    quiet = make_video(tmp_path / "quiet.mkv", deep(scene[:20]), codec="ffv1", pix_fmt="yuv420p10le")
    assert fix_with(quiet, tmp_path / "same.mkv", Inverter(), **options).copied == 1
    assert (tmp_path / "same.mkv").read_bytes() == quiet.read_bytes()
    source = make_video(tmp_path / "reel.mkv", deep(flickering(scene)), codec="ffv1", pix_fmt="yuv420p10le")
    log = tmp_path / "log.jsonl"
    summary = fix_with(source, tmp_path / "out.mkv", Inverter(), **options, log=str(log))
    assert (summary.done, summary.copied) == (1, 0)
    (record,) = (line for line in logged(log) if "output" in line)
    assert (record["steps"], record["model"]) == (["deflicker"], "deflicker")
    means = [[planes[0].mean() / 4 for planes in planes_of(tmp_path / name)] for name in ("reel.mkv", "out.mkv")]
    jumps = [np.abs(np.diff(one)).mean() for one in means]
    assert jumps[1] < 0.2 * jumps[0]
    # In segments, stopped, resumed and shown in part, frames are the same.
    monkeypatch.setattr(fix_video, "SEGMENT_FRAMES", 7)

    class Dying(Nothing):
        calls = 0

        def detect(self, image: np.ndarray, *, tile_px: int, on_event: Any) -> np.ndarray:
            Dying.calls += 1
            if Dying.calls == 26:
                raise KeyboardInterrupt
            return super().detect(image, tile_px=tile_px, on_event=on_event)

    options |= {"masks": "auto"}
    fix_with(source, tmp_path / "whole.mkv", Filler(), **options, detector=Nothing())
    assert fix_with(source, tmp_path / "halves.mkv", Filler(), **options, detector=Dying()).interrupted
    summary = fix_with(source, tmp_path / "halves.mkv", Filler(), **options, detector=Nothing())
    assert any("continued behind frame 21" in line for line in summary.warnings)
    assert packets_of(tmp_path / "halves.mkv", "video") == packets_of(tmp_path / "whole.mkv", "video")
    fix_with(source, tmp_path / "preview.mkv", Inverter(), deflicker=True, preview="0.4s")
    shown, frames = planes_of(tmp_path / "preview.mkv"), planes_of(tmp_path / "out.mkv")
    for number, planes in enumerate(shown):
        np.testing.assert_array_equal(planes[0][:, 128:], frames[15 + number][0])


def test_a_sequence_without_flicker(scene: list[np.ndarray], tmp_path: Path) -> None:
    frames = flickering(scene[:20])
    pattern = write(tmp_path / "in", frames, list(range(1, 21)))
    fix_with(pattern, tmp_path / "out", Inverter(), deflicker=True)
    fix_with(pattern, tmp_path / "filled", Filler(), deflicker=True, masks="auto", detector=Nothing())
    expected = evened(frames)
    for number in (1, 8, 20):
        name = f"frame_{number:06d}.tif"
        for place in ("out", "filled"):
            found = read_image(tmp_path / place / name).pixels / 65535
            assert np.abs(found - expected[number - 1]).max() < 2e-3
    # Resumed, frames are the same.
    kept = (tmp_path / "out/frame_000010.tif").read_bytes()
    (tmp_path / "out/frame_000010.tif").unlink()
    fix_with(pattern, tmp_path / "out", Inverter(), deflicker=True, skip_existing=True)
    assert (tmp_path / "out/frame_000010.tif").read_bytes() == kept


def test_no_model_runs_without_masks(scene: list[np.ndarray], tmp_path: Path) -> None:
    with pytest.raises(RestoreError, match="no model runs"):
        open_models("photo", FixOptions(deflicker=True))
    for options in (FixOptions(deflicker=True), FixOptions(deflicker=True, clean_up=False)):
        assert open_models(None, options) == [Models()]
        assert planned_engine(None, options) is None
    source = make_video(tmp_path / "reel.mkv", deep(flickering(scene[:20])), codec="ffv1", pix_fmt="yuv420p10le")
    summary = fix_folder(source, tmp_path / "out.mkv", options=FixOptions(deflicker=True, log=tmp_path / "log.jsonl"))
    assert (summary.done, summary.copied, summary.model) == (1, 0, "")
    assert [line["steps"] for line in logged(tmp_path / "log.jsonl") if "output" in line] == [["deflicker"]]
