"""What every step that leaves marks promises, whatever the marks."""

import pytest
import torch

from restore.degradations import Degradation, degradation_from, keys
from restore.degradations.drawing import MIN_CHANGE
from restore.degradations.inpainting_masks import Holes
from restore.degradations.pipeline import STEPS, _apply
from tests.degradations.shapes import shapes_folder

PAINTED = ["fissure", "crease", "line-scratch", "abrasion", "speck", "glass-crack"]
EXACT = [
    "scratch",
    "hair",
    "dust",
    "crack",
    *PAINTED,
    "chip",
    "smear",
    "overlay",
]  # nothing outside the mask is touched
SOFT = ["tear", "fold", "stain", "lost-edge", "tape"]  # fade out beyond it
WIDE = {"width": 100, "opacity": 1, "bright": 1, "gaps": 1, "reversed": 1, "halo": 1, "halo_px": 20, "relief": 1}
THIN = {"count": 0, "width": 0.1, "opacity": 0.01}
MOST = {
    "fissure": {**WIDE, "count": 10, "length": 2000, "branches": 12, "crazed": 1},
    "crease": {**WIDE, "count": 10, "length": 2000},
    "line-scratch": {**WIDE, "count": 30, "length": 4000, "dashed": 0, "dotted": 1, "spread": 90},
    "abrasion": {**WIDE, "count": 2, "dashes": 300, "length": 500, "size": 1000},
    "speck": {**WIDE, "count": 300, "edges": 1, "long": 10},
    "glass-crack": {**WIDE, "count": 10},
    "chip": {"count": 30, "size": 500, "rim": 1, "ragged": 20, "tails": 1, "warmth": 0.5},
    "lost-edge": {"count": 8, "size": 500, "border": 1, "border_px": 200, "rim": 60, "ragged": 20},
    "smear": {"count": 6, "size": 2000, "opacity": 1, "light": 1},
    "tape": {"count": 6, "width": 300, "tint": 1, "seam": 0},
    "overlay": {"count": 60, "zoom": 10, "opacity": 1, "bright": 1},
    "scratch": {"count": 40, "width": 100, "length": 2000, "opacity": 1, "bright": 1},
    "hair": {"count": 40, "width": 100, "length": 2000, "opacity": 1, "bright": 0},
    "dust": {"count": 2000, "width": 100, "length": 2000, "opacity": 1, "softness": 10},
    "crack": {"count": 10, "width": 20, "length": 2000, "branches": 12, "opacity": 1, "lit": 1},
    "tear": {"count": 20, "width": 100, "length": 2000, "ragged": 20, "shadow": 1, "lost": 1, "lost_size": 500},
    "fold": {"count": 8, "width": 40, "opacity": 1, "worn": 1, "dark": 1, "shade": 0.1},
    "stain": {"count": 60, "size": 500, "opacity": 1, "drips": 1, "rim": 1, "edge": 0.02},
}
LEAST = {
    **dict.fromkeys(PAINTED, THIN),
    "chip": {"count": 0, "size": 1, "rim": 0, "ragged": 0, "tails": 0},
    "lost-edge": {"count": 0, "size": 1, "border": 0, "border_px": 0, "rim": 0, "ragged": 0},
    "smear": {"count": 0, "size": 1, "opacity": 0},
    "tape": {"count": 0, "width": 1, "tint": 0, "seam": 1},
    "overlay": {"count": 0, "zoom": 0.05, "opacity": 0.01},
    "scratch": {"count": 1, "width": 0.1, "length": 0.5, "opacity": 0},
    "hair": {"count": 0},
    "dust": {"count": 1, "width": 0.1, "length": 0.5},
    "crack": {"count": 0, "width": 0.1, "length": 1, "opacity": 0, "lit": 0},
    "tear": {"count": 0, "lost": 0},
    "fold": {"count": 1, "width": 0.5, "opacity": 0, "worn": 0, "dark": 0, "shade": 0},
    "stain": {"count": 0, "size": 1, "opacity": 0, "edge": 1},
}


def degradation(step: dict) -> Degradation:
    return degradation_from([{"folder": str(shapes_folder()), **step} if step["name"] == "overlay" else step], "test")


def marked(step: dict, clean: torch.Tensor, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return degradation(step)(clean, keys(seed, last=range(len(clean))))


def pictures(count: int, height: int, width: int) -> torch.Tensor:
    """Of little contrast, so that marks are seen."""
    return 0.4 + 0.1 * torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("scale_with_image", [True, False])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (8, 3), (37, 53), (200, 60)])
@pytest.mark.parametrize("name", EXACT + SOFT)
def test_the_same_key_gives_the_same_bits_in_any_batch(
    name: str, size: tuple[int, int], scale_with_image: bool
) -> None:
    damage = degradation({"name": name, "scale_with_image": scale_with_image})
    clean, keys_ = pictures(6, *size), keys(4, last=range(6))
    damaged, mask = damage(clean, keys_)
    assert damaged.isfinite().all()
    assert 0 <= damaged.min() <= damaged.max() <= 1
    assert set(mask.unique().tolist()) <= {0.0, 1.0}
    for some in (slice(0, 1), slice(2, 5), slice(5, 6)):
        again, again_mask = damage(clean[some], keys_[some])
        assert torch.equal(again, damaged[some])
        assert torch.equal(again_mask, mask[some])


@pytest.mark.parametrize("name", [*SOFT, "crack"])
def test_a_whole_batch_at_once_as_on_a_gpu_gives_the_same_picture(name: str) -> None:
    damage = degradation({"name": name})
    clean, keys_ = pictures(6, 70, 96), keys(4, last=range(6))
    sampled = damage.sample(keys_, (70, 96))
    (damaged, mask), (at_once, mask_at_once) = damage.apply(clean, sampled), _apply(clean, sampled)
    assert (damaged - at_once).abs().median() < 1e-6
    assert ((damaged - at_once).abs() > 1e-4).float().mean() < 1e-3
    assert (mask != mask_at_once).float().mean() < 1e-3


@pytest.mark.parametrize("name", EXACT)
def test_the_mask_is_exactly_what_changed(name: str) -> None:
    clean = torch.full((6, 3, 160, 120), 0.5)
    damaged, mask = marked({"name": name, "count": 6}, clean)
    assert torch.equal((damaged != clean).any(1, keepdim=True), mask > 0)
    assert mask.mean() > 0.0005
    # nobody could see less than this, and a detector should not be asked to
    change = (damaged - clean).abs().amax(1, keepdim=True)[mask > 0] * 255
    assert (change > 0.5).float().mean() > 0.97  # between a dark crack and its lit edge they cancel


@pytest.mark.parametrize("name", SOFT)
def test_the_mask_is_what_changed_noticeably(name: str) -> None:
    quiet = {"fold": {"shade": 0}, "lost-edge": {"border": 0}}.get(name, {})
    clean = torch.full((12, 3, 192, 160), 0.5)
    damaged, mask = marked({"name": name, **quiet}, clean)
    change = (damaged - clean).abs().amax(1, keepdim=True)
    assert mask.any()
    assert change[mask == 0].max() < 0.1
    assert (change[mask == 0] < MIN_CHANGE).float().mean() > 0.97
    assert (change[mask > 0] > MIN_CHANGE).float().mean() > 0.9


@pytest.mark.parametrize("name", EXACT + SOFT)
@pytest.mark.parametrize("extreme", [MOST, LEAST], ids=["most", "least"])
def test_the_ends_of_the_ranges_give_pictures(name: str, extreme: dict) -> None:
    for size in ((1, 1), (40, 56)):
        for clean in (pictures(2, *size), torch.zeros(2, 3, *size), torch.ones(2, 3, *size)):
            damaged, mask = marked({"name": name, **extreme[name]}, clean)
            assert damaged.isfinite().all()
            assert 0 <= damaged.min() <= damaged.max() <= 1
            assert extreme is MOST or mask.mean() < 0.5


@pytest.mark.parametrize("name", EXACT + SOFT)
def test_pixels_beyond_black_and_white_do_no_harm(name: str) -> None:
    clean = (pictures(2, 64, 64) - 0.4) * 30 - 1
    damaged, _ = marked({"name": name}, clean)
    assert damaged.isfinite().all()
    assert damaged.min() > -1.5
    assert damaged.max() < 2.5


@pytest.mark.parametrize("name", EXACT + SOFT)
def test_marks_grow_with_the_picture(name: str) -> None:
    """The same marks in a picture of twice the size: about the same share of it, not a quarter."""
    wide = {"scratch": 8, "hair": 8, "dust": 16, "crack": 8, "fold": 16}  # at least a pixel in the small one
    wide |= dict.fromkeys(PAINTED, 8)
    step = {"name": name} | ({"width": wide[name]} if name in wide else {}) | ({"length": 16} if name == "dust" else {})
    small, large = (marked(step, torch.full((12, 3, side, side), 0.4))[1].mean().item() for side in (160, 320))
    assert small == pytest.approx(large, rel=0.5)


def test_every_step_that_marks_is_tested_here_or_cuts_holes() -> None:
    assert {name for name, kind in STEPS.items() if kind.has_mask and not issubclass(kind, Holes)} == {*EXACT, *SOFT}
