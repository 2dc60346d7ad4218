import math

import numpy as np
import pytest
import torch

from restore.degradations import degradation_from, keys, load_degradation
from restore.degradations.registry import STEPS
from tests.degradations.measure import angle_between, drawn, ridge_widths, sampled

#: One opaque bright mark, in pixels of the image itself.
LONE = {"count": 1, "opacity": 1, "bright": 1, "scale_with_image": False}
#: The straight pieces of a mark.
LINKS = {"scratch": 24, "hair": 20, "dust": 4}
MARKS = pytest.mark.parametrize("name", LINKS)


def layers(name: str, **settings: object) -> torch.Tensor:
    """The pieces of dark and of bright marks, [400, 2, marks, links, 7]."""
    return sampled({**LONE, "name": name, **settings}, 400)["layers"].unflatten(2, (-1, LINKS[name]))


def lone(name: str, **settings: object) -> torch.Tensor:
    """The pieces of one bright mark per image, [400, links, 7]."""
    return layers(name, **settings)[:, 1, 0]


def path(marks: torch.Tensor) -> torch.Tensor:
    return (marks[..., 2:4] - marks[..., :2]).norm(dim=-1).sum(-1)


def headings(marks: torch.Tensor) -> torch.Tensor:
    return torch.atan2(marks[..., 3] - marks[..., 1], marks[..., 2] - marks[..., 0])


def turns(marks: torch.Tensor) -> torch.Tensor:
    """From each piece to the next, in radians."""
    return torch.remainder(headings(marks).diff(dim=-1) + math.pi, 2 * math.pi) - math.pi


def marked(step: dict, clean: torch.Tensor, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return degradation_from([step], "test")(clean, keys(seed, last=range(len(clean))))


def test_marks_are_bright_or_dark_as_asked() -> None:
    clean = torch.full((6, 3, 160, 120), 0.5)
    assert (marked({"name": "scratch", "bright": 1}, clean)[0] >= clean).all()
    assert (marked({"name": "scratch", "bright": 0}, clean)[0] <= clean).all()
    mixed = marked({"name": "dust", "bright": 0.5, "count": 100}, clean)[0] - clean
    assert (mixed > 0.1).any()
    assert (mixed < -0.1).any()


def test_a_scratch_is_long_and_thin_and_a_speck_is_not() -> None:
    def longest_side(name: str, **settings: object) -> float:
        mask = marked({"name": name, "count": 1, **settings}, torch.full((10, 3, 256, 256), 0.5))[1]
        sides = [max(one.any(0).sum().item(), one.any(1).sum().item()) for one in mask[:, 0]]
        return sorted(sides)[5]

    assert longest_side("scratch", length=[200, 200], scale_with_image=False) > 80
    assert longest_side("dust") < 10


def test_marks_of_a_crop_do_not_shrink_with_it_when_told_so() -> None:
    step = {"name": "hair", "count": 4, "width": 3, "length": 60, "opacity": 1}
    clean = torch.full((6, 3, 64, 64), 0.5)
    assert marked({**step, "scale_with_image": False}, clean)[1].sum() > 4 * marked(step, clean)[1].sum()


def test_the_named_scratch_damage_covers_one_to_four_percent() -> None:
    damage = load_degradation("scratch")
    shares = damage(torch.full((12, 3, 320, 480), 0.5), keys(0, last=range(12)))[1].mean((1, 2, 3))
    assert 0.01 < shares.median() < 0.03
    assert shares.max() < 0.05


# What all three have in common.


@MARKS
def test_a_mark_hides_the_image_as_much_as_asked_and_ends_sharply(name: str) -> None:
    for bright, opacity, softness in ((1, 1, 1.2), (0, 0.5, 1.2), (1, 1, 6)):
        step = STEPS[name](**{**LONE, "name": name, "bright": bright, "softness": softness})
        params = step.sample(keys(7, last=range(8)), (100, 100))
        tilted = torch.tensor([50.3, -50, 51.7, 150, 15, 15, opacity], dtype=torch.float64)
        params["layers"] = torch.zeros(8, 2, 1, 7, dtype=torch.float64)
        params["layers"][:, bright] = tilted
        image, _ = step.apply(torch.full((8, 3, 100, 100), 0.5), params)
        cover = (image - 0.5) / (params["tones"][:, bright, :, None, None].float() - 0.5) / opacity
        assert cover[..., 45:56].min().item() == pytest.approx(0.75, abs=0.01)  # grained
        assert cover.max().item() == pytest.approx(1, abs=0.01)
        assert cover.sum(3).mean().item() == pytest.approx(0.875 * 30, rel=0.02)
        rising = ((cover > 0.13) & (cover < 0.74)).sum(3).float().mean().item() / 2
        assert rising == pytest.approx(0.7 * softness, abs=0.3)


@MARKS
def test_marks_are_nearly_black_or_nearly_white(name: str) -> None:
    tones = sampled({**LONE, "name": name}, 500)["tones"]
    assert tones.mean((0, 2)) == pytest.approx([0.1, 0.924], abs=0.01)
    assert tones[:, 0].max() < 0.24
    assert tones[:, 1].min() > 0.81
    assert (tones.amax(2) - tones.amin(2)).max() <= 0.06


@MARKS
def test_thin_marks_are_faint(name: str) -> None:
    """A mark of half a pixel changes the image half as much as one of a pixel."""
    step = {**LONE, "name": name, "length": 60}
    half, one = ((drawn({**step, "width": width}, 40, 100)[:, 0] - 0.3).sum() for width in (0.5, 1))
    assert half / one == pytest.approx(0.5, abs=0.04)


@MARKS
def test_marks_have_the_asked_number_length_opacity_and_place(name: str) -> None:
    marks = layers(name, count=[1, 5], length=[50, 200], opacity=[0.4, 0.8], width=4)[:, 1]
    there = marks[..., 6].amax(-1) > 0
    assert set(there.sum(1).tolist()) == {1, 2, 3, 4, 5}
    assert there.sum(1).double().mean().item() == pytest.approx(3, abs=0.25)
    marks = marks[there]
    assert 50 - 1e-6 <= path(marks).min() < 52
    assert path(marks).median().item() == pytest.approx(100, rel=0.08)
    assert 190 < path(marks).max() <= 200 + 1e-6
    assert marks[..., 6].max().item() == pytest.approx(0.8, abs=0.01)
    assert marks[..., 6].amax(1).mean().item() == pytest.approx(0.6, abs=0.02)
    middle = 0.5 * (marks[:, 0, :2] + marks[:, -1, 2:4])
    # Scratches may begin outside.
    spread = 1.1 if name == "scratch" else 1
    assert middle.mean(0) == pytest.approx([256, 256], abs=20)
    assert middle.std(0).mean().item() == pytest.approx(148 * spread, rel=0.06)


@pytest.mark.parametrize("bright", [0, 0.3, 0.6, 1])
def test_marks_of_an_image_tend_to_be_alike(bright: float) -> None:
    there = layers("dust", count=60, bright=bright)[..., 0, 6] > 0
    assert there.sum((1, 2)).eq(60).all()
    share = there[:, 1].double().mean(1)
    assert share.mean().item() == pytest.approx(bright, abs=0.07)
    if 0 < bright < 1:
        assert share.std() > 0.25


# Scratches.


def test_scratches_run_from_top_to_bottom_or_in_one_direction_per_image() -> None:
    for upright in (0, 0.4, 1):
        heading = headings(layers("scratch", count=6, upright=upright)[:, 1])[..., 12]
        off = angle_between(heading, math.pi / 2)
        assert (off.amax(1) < 0.12).double().mean().item() == pytest.approx(upright, abs=0.06)
        if upright == 0:  # 0.6 radians to either side
            assert off.mean().item() == pytest.approx(math.pi / 4, abs=0.08)
            assert angle_between(heading, heading[:, :1])[:, 1:].mean().item() == pytest.approx(0.4, abs=0.06)


def test_scratches_are_nearly_straight_and_of_uneven_width() -> None:
    marks = lone("scratch", width=8)
    turn = turns(marks).sum(1).abs()
    assert 0.4 < turn.max() < 0.6
    assert 0.03 < turn.median() < 0.1
    assert (path(marks) / (marks[:, -1, 2:4] - marks[:, 0, :2]).norm(dim=1)).quantile(0.9) < 1.02
    width = 2 * marks[..., 4]
    assert width.mean().item() == pytest.approx(8, rel=0.03)
    assert 4 <= width.min() < 4.6
    assert 11.4 < width.max() <= 12


def test_scratches_are_interrupted_and_fade_at_their_ends() -> None:
    strength = lone("scratch", width=4)[..., 6]
    middle = strength[:, 5:-5]
    assert middle.mean().item() == pytest.approx(0.55, abs=0.04)
    assert (middle < 0.2).double().mean().item() == pytest.approx(0.21, abs=0.06)
    assert strength[:, [0, -1]].mean() < 0.3 * middle.mean()


# Hairs.


@pytest.mark.parametrize("width", [8, 16])
def test_a_hair_is_as_wide_as_asked_from_end_to_end(width: int) -> None:
    measured = []
    for one in drawn({**LONE, "name": "hair", "width": width, "length": 150}, gray=0.5).mean(1).numpy() - 0.5:
        measured.append(np.median(ridge_widths(one > 0.5 * one.max())))
    assert np.median(measured) == pytest.approx(width, abs=1.1)
    assert lone("hair", width=width)[..., 4:6] == pytest.approx(width / 2)


def test_hairs_curl_and_are_of_one_strength() -> None:
    marks = lone("hair", width=4)
    turn = turns(marks).sum(1).abs()
    assert turn.mean().item() == pytest.approx(2.26, abs=0.2)
    assert 4.4 < turn.max() < 6
    assert turns(marks).abs().mean().item() == pytest.approx(0.187, abs=0.02)  # waves along the curve
    assert 0.74 < marks[..., 6].min() < 0.9
    heading = headings(marks)[:, 10]
    assert heading.cos().mean().abs() < 0.12
    assert heading.sin().mean().abs() < 0.12


# Dust.


def test_most_specks_of_dust_are_small_and_all_are_bent() -> None:
    marks = lone("dust", width=8)
    width = marks[..., 4:6].mean((1, 2)) * 2 / 8
    assert width.mean().item() == pytest.approx(0.8 * 0.5125, rel=0.06)
    assert width.median().item() == pytest.approx(0.36, rel=0.08)
    assert 0.8 < width.max() < 1.25
    assert (marks[..., 4].amax(1) / marks[..., 4].amin(1)).median() > 1.5  # irregular
    assert turns(marks).abs().mean().item() == pytest.approx(1.43, abs=0.1)
    assert marks[..., 6].eq(1).all()


def test_specks_of_dust_have_the_asked_size() -> None:
    areas = []
    for one in drawn({**LONE, "name": "dust", "width": 16, "length": 20}, 40, 100, gray=0.5).mean(1):
        mask = one > 0.5 + 0.5 * (one.max() - 0.5)
        if not (mask[[0, -1]].any() or mask[:, [0, -1]].any()):
            areas.append(mask.sum().item())
    assert len(areas) > 20
    assert np.median(areas) == pytest.approx(120, rel=0.25)
