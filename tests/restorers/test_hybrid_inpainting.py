"""Deep holes: filled by the network and with what the picture holds, neither gray nor striped."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import data
from torch import Tensor

from restore import progress
from restore.degradations.drawing import value_noise
from restore.errors import RestoreError
from restore.fix.steps import repair
from restore.restorers.base import ModelRequirements
from restore.restorers.hole_crops import crops
from restore.restorers.hybrid_inpainting import DEEP_PX, HybridInpainter, halve
from restore.restorers.registry import open_restorer

SIDE, WIDE = 256, 140


@pytest.fixture(scope="module")
def inpaint() -> HybridInpainter:
    restorer = open_restorer("inpaint", device="cpu", precision="fp32")
    assert isinstance(restorer, HybridInpainter)
    return restorer


@pytest.fixture(scope="module")
def pebbles() -> Tensor:
    """A texture on a slope, 1×3×256×256."""
    keys = torch.tensor([1, 2, 3])
    texture = value_noise(keys, 0, 12, (SIDE, SIDE), "cpu").permute(1, 0, 2, 3) * 0.2
    return (0.5 + texture + torch.linspace(-0.15, 0.15, SIDE)).clamp(0, 1)


def box(side: int, size: tuple[int, int] = (SIDE, SIDE)) -> Tensor:
    mask = torch.zeros(1, 1, *size)
    top, left = (size[0] - side) // 2, (size[1] - side) // 2
    mask[..., top : top + side, left : left + side] = 1
    return mask


def filled(inpaint: HybridInpainter, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    return inpaint.fill_deep_holes(image, mask)


def detail(picture: Tensor) -> Tensor:
    """What a mean over 9×9 pixels takes away, B×3×H×W."""
    return picture - torch.nn.functional.avg_pool2d(picture, 9, stride=1, padding=4, count_include_pad=False)


def test_the_middle_of_a_wide_hole_has_the_texture_of_its_surroundings(
    inpaint: HybridInpainter, pebbles: Tensor
) -> None:
    mask = box(WIDE)
    out = inpaint(pebbles, mask)
    middle = box(60) > 0
    outside, inside = (detail(out)[..., where[0, 0]].std() for where in (mask == 0, middle))
    assert 0.6 * outside < inside < 1.4 * outside
    assert torch.equal(out[..., mask[0, 0] == 0], pebbles[..., mask[0, 0] == 0])


def test_a_wide_hole_is_neither_striped_nor_periodic(inpaint: HybridInpainter, pebbles: Tensor) -> None:
    middle = detail(inpaint(pebbles, box(WIDE)))[0, :, 68:-68, 68:-68]
    down, across = (middle.mean(dim=dim).std() for dim in (-1, -2))
    assert 0.4 < down / across < 2.5
    power = torch.fft.fft2(middle).abs().square().sum(dim=0).flatten()
    true = torch.fft.fft2(detail(pebbles)[0, :, 68:-68, 68:-68]).abs().square().sum(dim=0).flatten()
    assert power.max() / power.sum() < 3 * true.max() / true.sum()


def test_half_the_size_is_the_mean_of_what_is_known() -> None:
    picture = np.arange(15, dtype=np.float32).reshape(3, 5, 1).repeat(3, axis=2)
    hidden = np.zeros((3, 5), bool)
    hidden[0, 0] = hidden[0:2, 2:4] = hidden[2, 4] = True
    half, still = halve(picture, hidden)
    assert half.shape == (2, 3, 3)
    assert still.tolist() == [[False, True, False], [False, False, True]]
    expected = np.array([[(1 + 5 + 6) / 3, 0, (4 + 9) / 2], [(10 + 11) / 2, (12 + 13) / 2, 0]])
    np.testing.assert_allclose(half[..., 0], expected, rtol=1e-6)


@pytest.mark.parametrize(("count", "parts"), [(1, 1), (2, 2), (12, 1)])
def test_a_picture_is_shown_hole_by_hole_unless_that_is_more_work(count: int, parts: int) -> None:
    deep = np.zeros((384, 3000), bool)
    for i in range(count):
        deep[200:240, 70 + 256 * i : 90 + 256 * i] = True
    found = crops(deep, ModelRequirements(needs_mask=True, multiple=8, overlap_px=32))
    covered = np.zeros_like(deep)
    for crop in found:
        covered[crop.rows, crop.columns] |= crop.own(deep[crop.rows, crop.columns])
    assert np.array_equal(covered, deep)
    assert len(found) == parts


@pytest.mark.parametrize("where", ["middle", "border"])
def test_colours_of_a_wide_hole_continue_those_at_its_edge(
    inpaint: HybridInpainter, pebbles: Tensor, where: str
) -> None:
    mask = box(WIDE) if where == "middle" else torch.zeros(1, 1, SIDE, SIDE)
    mask[..., : SIDE // 3] = 1 if where == "border" else mask[..., : SIDE // 3]
    out = inpaint(pebbles, mask)
    edge = mask[..., 1:] != mask[..., :-1]
    jumps, usual = (x.diff(dim=-1).abs().mean(dim=1, keepdim=True)[edge].mean() for x in (out, pebbles))
    assert jumps < 1.3 * usual


@pytest.mark.parametrize("sides", [(0, 0), (1, 1), (2 * DEEP_PX, 64)])
def test_narrow_holes_are_left_to_the_network(inpaint: HybridInpainter, pebbles: Tensor, sides: tuple) -> None:
    mask = torch.zeros(1, 1, SIDE, SIDE)
    mask[..., 100 : 100 + sides[0], 90 : 90 + sides[1]] = 1
    image, left = filled(inpaint, pebbles, mask)
    assert image is pebbles
    assert left is mask
    assert torch.equal(
        inpaint(pebbles, mask), torch.where(mask > 0, inpaint.network(pebbles, mask).clamp(0, 1), pebbles)
    )


def test_narrow_holes_beside_a_deep_one_are_the_networks(inpaint: HybridInpainter, pebbles: Tensor) -> None:
    mask = box(WIDE)
    mask[..., 10:14, 200:230] = 1
    image, left = filled(inpaint, pebbles, mask)
    assert left.sum() == 0, "nothing is left to be filled"
    narrow = torch.zeros_like(mask)
    narrow[..., 10:14, 200:230] = 1
    torch.testing.assert_close(
        torch.where(narrow > 0, image, 0), torch.where(narrow > 0, inpaint.network(pebbles, mask).clamp(0, 1), 0)
    )


def test_what_the_hole_hides_is_never_seen(inpaint: HybridInpainter, pebbles: Tensor) -> None:
    mask = box(WIDE)
    other = torch.where(mask > 0, torch.nan, pebbles)
    assert torch.equal(inpaint(pebbles, mask), inpaint(other, mask))


def test_a_wide_hole_does_not_depend_on_the_pictures_company(inpaint: HybridInpainter, pebbles: Tensor) -> None:
    pictures, masks = torch.cat([pebbles, pebbles.flip(-1)]), torch.cat([box(WIDE), box(2 * DEEP_PX)])
    together, left = filled(inpaint, pictures, masks)
    alone, own = filled(inpaint, pictures[:1], masks[:1])
    assert torch.equal(together[:1], alone)
    assert torch.equal(left[:1], own)
    assert torch.equal(together[1], pictures[1])
    assert torch.equal(left[1], masks[1])


def test_a_deep_hole_is_filled_from_its_surroundings_whatever_is_far_away(
    inpaint: HybridInpainter, pebbles: Tensor
) -> None:
    wide = torch.cat([pebbles, pebbles.flip(-1), pebbles, pebbles.flip(-1)], dim=-1)
    mask = torch.zeros_like(wide[:, :1])
    mask[..., 100:140, 60:100] = 1
    alone, _ = filled(inpaint, wide, mask)
    mask[..., 100:140, 900:940] = 1
    both, left = filled(inpaint, wide, mask)
    assert left.sum() == 0
    torch.testing.assert_close(both[..., :300], alone[..., :300], rtol=0, atol=0.5 / 255)
    assert (both - wide)[..., 900:940].abs().max() > 0.01


def test_a_wide_hole_in_tiles_is_that_in_one_go(inpaint: HybridInpainter) -> None:
    photograph = data.chelsea().astype(np.float32) / 255
    hole = box(180, photograph.shape[:2])[0, 0].numpy()
    whole, tiled = (repair(inpaint, photograph, hole, tile_px=tile) for tile in (0, 192))
    assert np.abs(whole - tiled).max() <= 1 / 255
    assert np.array_equal(tiled[hole == 0], photograph[hole == 0])


def test_where_no_patch_can_be_taken_the_network_does_what_it_can(inpaint: HybridInpainter, pebbles: Tensor) -> None:
    mask = torch.ones(1, 1, SIDE, SIDE)
    assert filled(inpaint, pebbles, mask)[1] is mask
    mask[..., 0:3, :] = 0
    assert filled(inpaint, pebbles, mask)[1] is mask
    assert inpaint(pebbles, mask).isfinite().all()


def test_another_seed_fills_a_deep_hole_in_another_way_and_a_thin_one_alike(
    inpaint: HybridInpainter, pebbles: Tensor
) -> None:
    deep, thin = box(40), torch.zeros(1, 1, SIDE, SIDE)
    thin[..., 100:103, 40:200] = 1
    other = inpaint.with_seed(7)
    first, second = inpaint(pebbles, deep), other(pebbles, deep)
    assert (first - second).abs()[..., deep[0, 0] > 0].mean() > 0.003
    assert torch.equal(first[..., deep[0, 0] == 0], second[..., deep[0, 0] == 0])
    assert torch.equal(second, other.in_precision("fp32")(pebbles, deep))
    assert torch.equal(second, inpaint.with_seed(7)(pebbles, deep))
    assert torch.equal(first, other.with_seed(0)(pebbles, deep))
    assert torch.equal(inpaint(pebbles, thin), other(pebbles, thin))


def test_a_filler_without_random_choices_refuses_a_seed() -> None:
    telea = open_restorer("telea")
    assert telea.with_seed(0) is telea
    with pytest.raises(RestoreError, match="telea makes no random choices"):
        telea.with_seed(1)


def test_filling_a_deep_hole_tells_how_far_it_is(inpaint: HybridInpainter, pebbles: Tensor) -> None:
    told: list[float] = []
    with progress.watching(told.append):
        inpaint.prepare(pebbles, box(60))
    assert len(told) > 10
    assert told == sorted(told)
    assert told[-1] == pytest.approx(0.95)
