"""Scratches that stay in their columns for many frames: found where the scene moves behind them, and nowhere else."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from skimage import data

from restore.video.temporal import steadily

SIZE = (120, 160)


def panning(frames: int, step: float, scene: np.ndarray | None = None) -> list[np.ndarray]:
    """A window that moves over a photograph, H×W×3 in [0, 255]."""
    scene = data.astronaut() if scene is None else scene
    out = []
    for number in range(frames):
        matrix = np.array([[1.0, 0, 90 + step * number], [0, 1.0, 30 + 0.3 * step * number]])
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        out.append(cv2.warpAffine(scene, matrix, SIZE[::-1], flags=flags).astype(np.float32))
    return out


def scratched(
    frames: list[np.ndarray], level: float = 40, drift: float = 0.1
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Frames with a slightly leaning scratch 2 pixels wide, and its pixels in each."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    out, where = [], []
    for number, frame in enumerate(frames):
        cover = np.clip(1.5 - np.abs(x - (70 + drift * number + 0.01 * (y - 60))), 0, 1)
        cover[:10] = 0
        out.append(np.clip(frame + level * cover[:, :, None], 0, 255))
        where.append(cover > 0.3)
    return out, where


def masks(frames: list[np.ndarray]) -> list[np.ndarray]:
    return [one.mask for one in steadily(iter(frames), deep, lambda rgb: None)]


def deep(frame: np.ndarray) -> np.ndarray:
    return (np.rint(np.clip(frame, 0, 255)) * 257).astype(np.uint16)


@pytest.mark.parametrize("level", [40, -30])
def test_a_scratch_that_stays_is_found_where_the_scene_moves_behind_it(level: float) -> None:
    frames, where = scratched(panning(8, 1.2), level)
    for mask, scratch in zip(masks(frames), where):
        assert mask[scratch].mean() > 0.9
        near = cv2.dilate(scratch.astype(np.uint8), np.ones((3, 9))) > 0
        assert (mask & ~near).mean() < 0.01


def test_a_frame_that_does_not_show_a_scratch_well_has_it_all_the_same() -> None:
    clean = panning(8, 1.2)
    frames, where = scratched(clean)
    frames[4] = clean[4] + 0.05 * (frames[4] - clean[4])
    assert masks(frames)[4][where[4]].mean() > 0.9


def test_it_is_filled_from_frames_that_show_what_is_behind_it_and_left_to_the_restorer_otherwise() -> None:
    for step, known in ((9.0, True), (1.2, False)):
        clean = panning(6, step)
        frames, where = scratched(clean)
        third = list(steadily(iter(frames), deep, lambda rgb: None))[3]
        filled, unknown = third.rgb(), third.unknown
        if known:
            assert unknown[where[3]].mean() < 0.3
            assert np.abs(filled - clean[3] / 255)[where[3] & ~unknown].mean() < 0.04
        else:
            assert unknown[where[3]].mean() > 0.5


def test_upright_edges_of_the_scene_are_no_scratches() -> None:
    scene = data.astronaut().copy()
    scene[:, 160:163] = 230  # a pole
    assert max(mask.mean() for mask in masks(panning(8, 1.2, scene))) < 0.003
    # In a scene that stands still, a scratch and a pole look the same.
    assert max(mask.mean() for mask in masks(panning(8, 0, scene))) == 0


def test_a_row_of_posts_that_moves_by_their_distance_is_no_scratch() -> None:
    scene = data.astronaut().copy()
    scene[:, ::12] = scene[:, 1::12][:, : scene[:, ::12].shape[1]] = 220
    assert max(mask.mean() for mask in masks(panning(8, 12.0, scene))) < 0.02


def test_a_scratch_of_less_than_four_frames_is_not_judged_by_its_stay() -> None:
    frames, _ = scratched(panning(3, 1.2))
    other = [frame[::-1, ::-1].copy() for frame in panning(6, 1.2)]
    assert max(mask.mean() for mask in masks([*frames, *other])[3:]) < 0.003
