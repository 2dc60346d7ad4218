"""Shapes from a folder, laid over flat gray."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from restore.degradations import degradation_from
from restore.degradations.overlay import Overlay
from restore.degradations.registry import STEPS
from restore.errors import RestoreError
from restore.images import write_png
from tests.degradations.measure import GRAY, drawn, masks
from tests.degradations.shapes import shapes_folder


def step_of(kind: str | Path = "", **settings: object) -> dict:
    return {
        "name": "overlay", "folder": str(shapes_folder() / kind), "count": 1, "zoom": 1, "opacity": 1, "bright": 1,
        "light": 1, "scale_with_image": False, **settings,
    }  # fmt: skip


def covers(step: dict, count: int = 24, side: int = 200) -> np.ndarray:
    return ((drawn(step, count, side)[:, 0] - GRAY) / (1 - GRAY)).numpy()


def whole(cover: np.ndarray) -> bool:
    return bool(cover.any() and not (cover[[0, -1]].any() or cover[:, [0, -1]].any()))


def test_a_shape_has_its_own_size_times_the_zoom() -> None:
    for zoom in (0.5, 1, 2):
        areas = sorted({round(one.sum() / zoom**2, -1) for one in covers(step_of("disks", zoom=zoom)) if whole(one)})
        # Zooms of one image differ from one another by up to a factor of e^0.4.
        assert math.pi * 12**2 * math.exp(-0.85) < areas[0] < math.pi * 12**2 * 1.3
        assert math.pi * 20**2 * 0.8 < areas[-1] < math.pi * 20**2 * math.exp(0.85)


def test_a_shape_is_turned_mirrored_and_put_anywhere(tmp_path: Path) -> None:
    corner = np.zeros((60, 60, 3), np.uint8)
    corner[:, :8] = 255
    corner[:8, :24] = 255  # a long upright arm, and a short one to the right
    (tmp_path / "l").mkdir()
    write_png(tmp_path / "l" / "l.png", corner)
    params = Overlay(**step_of(tmp_path)).sample(torch.arange(400), (200, 300))["places"][:, 0]
    assert params[:, 2].mean().item() == pytest.approx(150, abs=15)
    assert params[:, 3].mean().item() == pytest.approx(100, abs=10)
    assert (params[:, 6] > 0).double().mean().item() == pytest.approx(0.5, abs=0.08)
    assert params[:, 4].cos().mean().abs() < 0.15
    handed = []
    for one in covers(step_of(tmp_path, zoom=1), 40):
        if not whole(one):
            continue
        y, x = np.nonzero(one > 0.5)
        y, x = y - y.mean(), x - x.mean()
        _, vectors = np.linalg.eigh(np.cov(np.stack([x, y])))
        long, short = vectors[:, 1], vectors[:, 0]
        u, v = x * long[0] + y * long[1], x * short[0] + y * short[1]
        # The third moments along the axes tell the arms; the sign of their product with the axes' turn tells the hand.
        turn = np.sign(long[0] * short[1] - long[1] * short[0])
        handed.append(np.sign((u**3).mean()) * np.sign((v**3).mean()) * turn)
    assert len(handed) > 12
    assert 0.2 < (np.array(handed) > 0).mean() < 0.8


def test_kinds_are_equally_likely_whatever_they_hold() -> None:
    slender = []
    for one in covers(step_of(), 60):
        if whole(one):
            y, x = np.nonzero(one > 0.3)
            slender.append(len(y) / max(np.hypot(y[:, None] - y, x[:, None] - x).max(), 1) ** 2 < 0.3)
    assert 0.25 < np.mean(slender) < 0.75  # a line in a folder of one, disks in a folder of two


def test_the_middle_of_a_shape_lies_at_its_place() -> None:
    step = Overlay(**step_of("disks"))
    for mirrored in (0.0, 1.0):
        cover = step._cover(np.array([[0, 0, 40.3, 70.6, 0.7, 1.2, mirrored, 1]]), 128, 100)
        y, x = np.mgrid[:128, :100]
        assert (x * cover).sum() / cover.sum() == pytest.approx(40.3, abs=0.6)
        assert (y * cover).sum() / cover.sum() == pytest.approx(70.6, abs=0.6)


def test_opacity_and_tone_are_the_asked_ones() -> None:
    assert 0.48 < covers(step_of("disks", opacity=0.5)).max() < 0.501
    fainter = covers(step_of("disks", opacity=0.5)).max((1, 2))
    assert fainter[fainter > 0].min() > 0.34
    places = Overlay(**step_of(opacity=[0.1, 0.9])).sample(torch.arange(500), (100, 100))["places"][:, 0, 7]
    assert places.median().item() == pytest.approx(0.3 * 0.85, rel=0.15)
    dark = drawn(step_of("disks", bright=0, shade=0.1), 12, 200, gray=0.8)
    assert dark.amin().item() == pytest.approx(0.1, abs=0.04)
    tones = Overlay(**step_of(bright=0.3)).sample(torch.arange(500), (100, 100))["tone"].mean(1)
    assert (tones > 0.5).double().mean().item() == pytest.approx(0.3, abs=0.07)


def test_there_are_as_many_as_asked() -> None:
    places = Overlay(**step_of(count=[1, 6])).sample(torch.arange(500), (100, 100))["places"][..., 7]
    assert set(places.gt(0).sum(1).tolist()) == {1, 2, 3, 4, 5, 6}
    assert masks(step_of("disks", count=8), 4).sum() > 3 * masks(step_of("disks"), 4).sum()


def test_shapes_of_an_image_are_mostly_of_one_kind() -> None:
    kinds = Overlay(**step_of(count=8)).sample(torch.arange(300), (100, 100))["places"][..., 0]
    common = (kinds == kinds.mode(1).values[:, None]).double().mean().item()
    assert common == pytest.approx(0.6, abs=0.07)


def test_a_shrunken_line_is_still_there_wherever_it_lies() -> None:
    step = Overlay(**step_of("lines"))
    weights = [step._cover(np.array([[0, 0, 20.0, 20 + dy, 0, 0.1, 0, 1]]), 40, 40).sum() for dy in (0, 0.3, 0.5, 0.8)]
    assert min(weights) > 4  # 6 px of 60
    assert max(weights) < 7


def test_shapes_scale_with_the_image() -> None:
    small, large = (masks(step_of("disks", scale_with_image=True, zoom=2), 16, side).mean() for side in (128, 256))
    assert small == pytest.approx(large, rel=0.1)


def test_a_list_names_the_shapes(tmp_path: Path) -> None:
    chosen = tmp_path / "shapes.txt"
    chosen.write_text(f"{shapes_folder()}/disks/12.png\n\n")
    areas = [one.sum() for one in covers(step_of() | {"folder": str(chosen)}) if whole(one)]
    assert max(areas) < math.pi * 12**2 * math.exp(0.85)


def test_a_folder_without_shapes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RestoreError, match="there are no images of shapes in"):
        degradation_from([{"name": "overlay", "folder": str(tmp_path)}], "mine.yaml")
    assert STEPS["overlay"] is Overlay


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"bad\.png cannot be read"):
        drawn({**step_of(), "folder": str(tmp_path)}, 1, 20)
