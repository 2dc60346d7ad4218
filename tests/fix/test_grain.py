"""Grain in filled holes is that of their surroundings, whichever way a picture goes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from restore.degradations.noise import Noise
from restore.errors import RestoreError
from restore.fix import grain, reader
from restore.fix.grain import measure_grain, pixels_key, with_grain
from restore.fix.steps import repair
from restore.images import read_image
from restore.restorers.base import ModelRequirements, Restorer
from tests.fix.conftest import fix_with, hole, load, logged, save, snapshot

SIZE = (280, 300)
HOLE = np.zeros(SIZE, bool)
HOLE[90:180, 100:210] = True


class Smooth(Restorer):
    """Fills with what `slope` is there, less its grain; sees nothing beyond a pixel."""

    name, purpose, max_batch_pixels = "smooth", "test", 0
    requirements = ModelRequirements(needs_mask=True, overlap_px=1)

    def _restore(self, image: Tensor, mask: Tensor | None) -> Tensor:
        return torch.full_like(image, 0.4)


def slope(height: int = SIZE[0], width: int = SIZE[1]) -> Tensor:
    """A clean picture, 3×H×W."""
    return (torch.linspace(0.35, 0.45, height)[:, None] + torch.linspace(-0.05, 0.05, width)).expand(3, -1, -1).clone()


def grainy(clean: Tensor, sigma: float, correlation: float = 0.0, gray: float = 0.0, seed: int = 3) -> Tensor:
    noise = Noise(sigma=(sigma, sigma), correlation=(correlation, correlation), gray=gray)
    return noise.apply(clean[None], noise.sample(torch.tensor([seed]), tuple(clean.shape[-2:])))[0][0]


def filled(clean: Tensor, grain: Tensor) -> Tensor:
    return torch.where(torch.from_numpy(HOLE), clean, grain)


def level(picture: Tensor, rows: slice, columns: slice) -> float:
    """Robust deviation of what a mean over 7×7 takes away, in 8-bit steps."""
    fine = picture - F.avg_pool2d(picture, 7, stride=1, padding=3, count_include_pad=False)
    return float(fine[:, rows, columns].abs().median() / 0.6745 * 255)


@pytest.mark.parametrize("gray", [0.0, 1.0])
@pytest.mark.parametrize("correlation", [0.0, 0.7, 1.2])
@pytest.mark.parametrize("sigma", [5, 12])
def test_grain_inside_is_as_strong_as_outside(sigma: float, correlation: float, gray: float) -> None:
    clean = slope()
    grain = grainy(clean, sigma, correlation, gray)
    out = with_grain(filled(clean, grain), grain, HOLE, HOLE, (0, 0), 1)
    inside, outside = level(out, slice(95, 175), slice(105, 205)), level(out, slice(0, 85), slice(0, 300))
    assert 0.8 < inside / outside < 1.2
    neighbours = [
        float(torch.corrcoef(torch.stack([part[:, :-1].flatten(), part[:, 1:].flatten()]))[0, 1])
        for part in (out[0, 95:175, 105:205] - clean[0, 95:175, 105:205], out[0, :85] - clean[0, :85])
    ]
    assert abs(neighbours[0] - neighbours[1]) < 0.12, "and as fine"
    if gray:
        assert torch.allclose(out[0] - clean[0], out[2] - clean[2], atol=1e-3), "and as gray"
    assert torch.equal(out[:, ~HOLE], grain[:, ~HOLE])


def test_a_clean_picture_gets_none() -> None:
    clean = slope()
    rounded = (clean * 255).round() / 255
    for picture in (clean, rounded):
        assert measure_grain(picture, torch.from_numpy(~HOLE)) is None
        assert torch.equal(with_grain(filled(clean, picture), picture, HOLE, HOLE, (0, 0), 1), filled(clean, picture))


def test_texture_beside_flat_parts_is_no_grain() -> None:
    picture = slope()
    picture[:, 180:] = grainy(picture, 30, 2.0)[:, 180:]
    assert measure_grain(picture, torch.from_numpy(~HOLE)) is None


def test_what_the_filling_has_already_is_not_doubled() -> None:
    clean = slope()
    grain, other = grainy(clean, 8), grainy(clean, 8, seed=9)
    out = with_grain(filled(other, grain), grain, HOLE, HOLE, (0, 0), 1)
    assert level(out, slice(95, 175), slice(105, 205)) < 1.15 * level(grain, slice(0, 85), slice(0, 300))
    half = clean + (other - clean) * 0.6
    out = with_grain(filled(half, grain), grain, HOLE, HOLE, (0, 0), 1)
    assert 0.85 < level(out, slice(95, 175), slice(105, 205)) / level(grain, slice(0, 85), slice(0, 300)) < 1.15


def test_grain_rises_over_the_seam() -> None:
    clean = slope()
    grain = grainy(clean, 12)
    added = with_grain(filled(clean, grain), grain, HOLE, HOLE, (0, 0), 1) - filled(clean, grain)
    edge, deep = added[:, 90, 100:210].std(), added[:, 95:175, 105:205].std()
    assert 0.35 * deep < edge < 0.65 * deep


def test_the_same_pixels_give_the_same_grain_and_others_do_not() -> None:
    clean = slope()
    grain = grainy(clean, 12)
    pixels = (grain.permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    keys = [pixels_key([pixels]), pixels_key([pixels[:100], pixels[100:]]), pixels_key([pixels[::-1]])]
    assert keys[0] == keys[1] != keys[2]
    outs = [with_grain(filled(clean, grain), grain, HOLE, HOLE, (0, 0), key) for key in keys]
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])


def test_too_little_that_is_known_gives_none() -> None:
    grain = grainy(slope(), 12)
    known = torch.zeros(SIZE, dtype=torch.bool)
    known[:40, :90] = True
    assert measure_grain(grain, known) is None
    assert measure_grain(grain[:, :9, :9], known[:9, :9]) is None


def test_tiles_make_no_difference() -> None:
    shown = np.ascontiguousarray(grainy(slope(), 10).permute(1, 2, 0).numpy())
    weight = HOLE.astype(np.float32)
    whole, tiled = (repair(Smooth(), shown, weight, tile_px=tile, grain_key=7) for tile in (0, 64))
    assert np.abs(whole - tiled).max() <= 1 / 255
    assert whole[HOLE].std() > 5 / 255
    assert np.array_equal(whole[~HOLE], shown[~HOLE])


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Two grainy pictures of one size with masks of two holes each, in `in` and `masks`."""
    for number in range(2):
        pixels = grainy(slope(400, 700), 9, seed=number).permute(1, 2, 0).mul(255).round().byte().numpy()
        save(tmp_path / f"in/{number}.png", pixels)
        save(tmp_path / f"masks/{number}.png", hole(400, 700, (5, 3, 40, 60), (350, 610, 380, 690)))
    return tmp_path


def test_a_picture_that_goes_in_parts_gets_the_grain_of_one_in_memory(
    scans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = []
    monkeypatch.setattr(grain, "with_grain", lambda *given: parts.append(given) or with_grain(*given))
    for name, limit in (("memory", 10**9), ("parts", 150_000)):
        monkeypatch.setattr(reader, "HUGE_PIXELS", limit)
        assert not fix_with(scans / "in", scans / name, Smooth(), masks=scans / "masks", match_grain=True).failed
    assert snapshot(scans / "memory") == snapshot(scans / "parts")
    assert len(parts) == 8, "4 in memory, 4 in parts"
    assert load(scans / "memory/0.png")[10:35, 10:55].std() > 5


def test_a_picture_in_company_gets_the_grain_of_one_alone(scans: Path) -> None:
    class Grouped(Smooth):
        max_batch_pixels = 4 * 400 * 700

    save(scans / "masks/0.png", hole(400, 700, (100, 100, 300, 600)))
    save(scans / "masks/1.png", hole(400, 700, (100, 100, 300, 600)))
    for name, restorer in (("alone", Smooth()), ("company", Grouped())):
        fix_with(scans / "in", scans / name, restorer, masks=scans / "masks", match_grain=True)
    assert snapshot(scans / "alone") == snapshot(scans / "company")


def test_grain_is_told_of_in_the_log_and_in_the_picture(scans: Path) -> None:
    fix_with(scans / "in", scans / "out", Smooth(), masks=scans / "masks", match_grain=True, log=scans / "log")
    assert logged(scans / "log")[0]["settings"]["match_grain"] is True
    assert b"match_grain true" in (read_image(scans / "out/0.png").xmp or b"")


def test_grain_is_refused_where_it_would_be_in_vain(scans: Path) -> None:
    class Cleaner(Smooth):
        requirements = ModelRequirements(needs_mask=False)

    with pytest.raises(RestoreError, match="requires --masks"):
        fix_with(scans / "in", scans / "out", Cleaner(), match_grain=True)
    with pytest.raises(RestoreError, match="removes grain"):
        fix_with(scans / "in", scans / "out", Smooth(), masks=scans / "masks", clean_up=Cleaner(), match_grain=True)
    assert not (scans / "out").exists()


def test_the_option_does_it(scans: Path) -> None:
    for name, options in (("plain", []), ("grain", ["--match-grain"])):
        command = [sys.executable, "-m", "restore.cli", "fix", scans / "in", scans / name, "--model", "telea"]
        subprocess.run([*command, "--masks", scans / "masks", *options], check=True, capture_output=True)
    plain, grained = (load(scans / name / "0.png")[10:35, 10:55].astype(float) for name in ("plain", "grain"))
    assert (grained - plain).std() > 4
