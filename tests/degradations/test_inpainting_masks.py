import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.measure import regionprops

from restore.degradations import degradation_from, keys, load_degradation
from restore.degradations.drawing import COLUMNS, draw_segments, estimate_coverage
from restore.degradations.inpainting_masks import Holes
from restore.degradations.pipeline import STEPS, _apply
from restore.errors import RestoreError
from tests.degradations.measure import angle_between, masks, sampled

HOLES = [name for name, kind in STEPS.items() if issubclass(kind, Holes) and name != "masks"]
SIZES = [(128, 128), (37, 53), (200, 60), (1, 1), (1, 9)]


@pytest.mark.parametrize("name", ["inpaint-thin", "inpaint-medium", "inpaint-thick", "inpaint-blobs", "inpaint-border"])
def test_holes_never_hide_more_than_half(name: str) -> None:
    damage = load_degradation(name)
    for size in SIZES:
        damaged, mask = damage(torch.ones(8, 3, *size), keys(0, last=range(8)))
        assert mask.mean((1, 2, 3)).max() <= 0.5
        assert set(mask.unique().tolist()) <= {0.0, 1.0}
        assert torch.equal(damaged, torch.where(mask > 0, 0.5, 1.0).expand_as(damaged))


@pytest.mark.parametrize(
    ("name", "least", "most"), [("inpaint-large", 0.5, 0.7), ("inpaint-text", 0.01, 0.15)], ids=["large", "text"]
)
def test_holes_hide_as_much_as_is_asked_for(name: str, least: float, most: float) -> None:
    damage = load_degradation(name)
    for size in [(128, 128), (200, 60), (61, 200)]:
        share = damage(torch.ones(24, 3, *size), keys(0, last=range(24)))[1].mean((1, 2, 3))
        assert least <= share.min()
        assert share.max() <= most


@pytest.mark.parametrize("name", HOLES)
def test_where_drawing_anew_does_not_help_holes_are_cut_or_filled_up(name: str) -> None:
    few = {"count": 1} if name in ("strokes", "boxes", "blobs") else {}
    least = degradation_from([{"name": name, **few, "max_coverage": 0.9, "min_coverage": 0.81}], "test")
    most = degradation_from([{"name": name, "max_coverage": 0.001}], "test")
    clean, keys_ = torch.ones(4, 3, 60, 90), keys(0, last=range(4))
    assert least(clean, keys_)[1].mean((1, 2, 3)).min() >= 0.81
    assert least(clean, keys_)[1].mean((1, 2, 3)).max() <= 0.9
    assert most(clean, keys_)[1].mean((1, 2, 3)).max() <= 0.001


def test_what_holes_have_to_hide_is_less_than_what_they_may() -> None:
    with pytest.raises(RestoreError, match=r"min_coverage 0\.5 must be at most 0\.9 of max_coverage 0\.5"):
        degradation_from([{"name": "blobs", "min_coverage": 0.5}], "test")


@pytest.mark.parametrize("scale_with_image", [True, False])
@pytest.mark.parametrize("name", HOLES)
def test_holes_are_of_their_key_alone_and_leave_known_pixels(name: str, scale_with_image: bool) -> None:
    damage = degradation_from([{"name": name, "scale_with_image": scale_with_image}], "test")
    for size in [(1, 1), (1, 9), (37, 53), (200, 60)]:
        clean, keys_ = torch.rand(6, 3, *size), keys(4, last=range(6))
        damaged, mask = damage(clean, keys_)
        assert damaged.isfinite().all()
        assert torch.equal(torch.where(mask > 0, 0.0, damaged), torch.where(mask > 0, 0.0, clean))
        assert set(mask.unique().tolist()) <= {0.0, 1.0}
        for some in (slice(0, 1), slice(2, 5)):
            again, again_mask = damage(clean[some], keys_[some])
            assert torch.equal(again, damaged[some])
            assert torch.equal(again_mask, mask[some])
        at_once, mask_at_once = _apply(clean, damage.sample(keys_, size))
        assert (mask != mask_at_once).float().mean() < 1e-2
        assert ((damaged - at_once).abs() > 1e-4).float().mean() < 1e-2


@pytest.mark.parametrize("name", HOLES)
def test_without_the_picture_holes_keep_their_size_in_pixels(name: str) -> None:
    few = {"count": 1, "max_width": 20, "max_length": 40} if name == "strokes" else {}
    few |= {"count": 1, "side": 30} if name == "boxes" else {"count": 1, "size": 30} if name == "blobs" else {}
    few |= {"depth": 20, "tilt": 0} if name == "border" else {}
    shares = []
    for scale_with_image in (True, False):
        damage = degradation_from([{"name": name, "scale_with_image": scale_with_image, **few}], "test")
        shares.append(damage(torch.ones(24, 3, 128, 128), keys(0, last=range(24)))[1].mean().item())
    assert shares[1] > 2 * shares[0], "a crop of 128 pixels is a quarter of the picture that lengths are given for"


def test_a_border_is_missing_at_as_many_sides_as_asked_for() -> None:
    for sides in (1, 2, 3, 4):
        damage = degradation_from([{"name": "border", "sides": sides, "depth": 20, "tilt": 0}], "test")
        for mask in damage(torch.ones(4, 3, 512, 512), keys(sides, last=range(4)))[1][:, 0]:
            edges = [mask[0], mask[-1], mask[:, 0], mask[:, -1]]
            assert sum(bool(edge.all()) for edge in edges) == sides
            assert mask[25:-25, 25:-25].sum() == 0
            assert mask.sum() == 512**2 - (512 - 20 * sum(bool(e.all()) for e in edges[:2])) * (
                512 - 20 * sum(bool(e.all()) for e in edges[2:])
            )


def test_blobs_are_smooth_closed_and_about_as_large_as_asked_for() -> None:
    damage = degradation_from([{"name": "blobs", "count": 1, "size": 60, "stretch": 1, "uneven": 0.3}], "test")
    masks = damage(torch.ones(16, 3, 512, 512), keys(0, last=range(16)))[1][:, 0]
    whole = [mask for mask in masks if not (mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())]
    assert len(whole) > 5
    for mask in whole:
        assert ndimage.label(mask.numpy())[1] == 1
        assert ndimage.label(1 - mask.numpy())[1] == 1
        assert mask.sum().item() == pytest.approx(3.14 * 60**2, rel=0.15)
    # evenness: an opening with a small disc takes hardly anything away
    opened = ndimage.binary_opening(whole[0].numpy() > 0, ndimage.generate_binary_structure(2, 1), iterations=5)
    assert opened.sum() > 0.95 * whole[0].sum().item()


def test_thin_holes_are_thinner_than_thick_ones() -> None:
    """Thickness: how much of the hole is left after 3 pixels are taken off its edge."""

    def core(name: str) -> float:
        mask = load_degradation(name)(torch.ones(16, 3, 128, 128), keys(1, last=range(16)))[1]
        eroded = -torch.nn.functional.max_pool2d(-mask, 7, 1, 3)
        return (eroded.sum() / mask.sum()).item()

    thin, medium, thick = core("inpaint-thin"), core("inpaint-medium"), core("inpaint-thick")
    assert thin < 0.25 < medium < thick


def test_holes_grow_with_the_picture() -> None:
    damage = load_degradation("inpaint-medium")
    keys_ = keys(2, last=range(16))
    small = damage(torch.ones(16, 3, 64, 64), keys_)[1].mean().item()
    large = damage(torch.ones(16, 3, 256, 256), keys_)[1].mean().item()
    assert small == pytest.approx(large, rel=0.1)


def test_boxes_are_boxes_of_the_asked_size() -> None:
    damage = degradation_from([{"name": "boxes", "count": 1, "side": [100, 100], "margin": 10}], "test")
    for mask in damage(torch.ones(3, 3, 512, 512), keys(0, last=range(3)))[1]:
        rows, columns = mask[0].any(1).nonzero(), mask[0].any(0).nonzero()
        assert mask.sum() == 100 * 100 == len(rows) * len(columns)
        assert rows.min() >= 10
        assert columns.max() < 502


def test_a_drawn_segment_is_every_pixel_within_its_radius() -> None:
    generator = torch.Generator().manual_seed(0)
    segments = torch.zeros(3, 6, COLUMNS, dtype=torch.float64)
    segments[..., :4] = torch.rand(3, 6, 4, generator=generator, dtype=torch.float64) * 80 - 10
    segments[..., 4:6] = (torch.rand(3, 6, 1, generator=generator, dtype=torch.float64) * 6) + 0.5
    segments[..., 6] = 1
    canvas = draw_segments(segments, (60, 50), "cpu")
    y, x = torch.meshgrid(torch.arange(60.0), torch.arange(50.0), indexing="ij")
    for picture in range(3):
        expected = torch.zeros(60, 50)
        for ax, ay, bx, by, radius, _, _ in segments[picture].tolist():
            length2 = max((bx - ax) ** 2 + (by - ay) ** 2, 1e-9)
            t = (((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / length2).clamp(0, 1)
            near = torch.hypot(x - ax - t * (bx - ax), y - ay - t * (by - ay)) <= radius
            expected = torch.where(near, 1.0, expected)
        assert (canvas[picture, 0] != expected).sum() <= 1  # rounding at the very edge


def test_the_estimated_share_is_close_to_the_drawn_one() -> None:
    damage = load_degradation("inpaint-thick")
    sampled = damage.sample(keys(0, last=range(6)), (200, 140))
    for it in sampled.steps:
        if "segments" in it.params:
            drawn = draw_segments(it.params["segments"], (200, 140), "cpu").mean((1, 2, 3), dtype=torch.float64)
            estimated = estimate_coverage(it.params["segments"], (200, 140), precise_above=0.0)
            torch.testing.assert_close(estimated, drawn, rtol=0, atol=0.03)


def test_strokes_are_those_of_lama() -> None:
    step = {"name": "strokes", "count": [2, 6], "max_width": 20, "max_length": 40, "max_coverage": 0.9}
    strokes = sampled({**step, "scale_with_image": False}, 600)["segments"].unflatten(1, (6, 5))
    there = strokes[..., 6] > 0
    chains = there[..., 0]
    assert torch.bincount(chains.sum(1)).div(600).tolist() == pytest.approx([0, 0, *[0.2] * 5], abs=0.06)
    links = torch.bincount(there.sum(2)[chains]) / chains.sum()
    assert links.tolist() == pytest.approx([0, *[0.2] * 5], abs=0.04)
    widths = 2 * strokes[there][:, 4:6]
    assert set(widths.flatten().tolist()) == set(range(5, 25))
    way = strokes[..., 2:4] - strokes[..., :2]
    whole = there & ((strokes[..., :4] > 1) & (strokes[..., :4] < 511)).all(-1)  # not cut at the edge of the image
    assert set(way.norm(dim=-1)[whole].round(decimals=3).tolist()) == set(range(10, 50))
    heading = torch.atan2(way[..., 0], way[..., 1])
    for every_other, sign in ((0, -1), (1, 1)):
        seen = heading[:, every_other::2][whole[:, every_other::2]].round(decimals=3)
        assert set(seen.tolist()) == {sign * (0.01 + i) for i in range(4)}


def test_boxes_have_the_asked_number_sides_and_distance_from_the_edge() -> None:
    step = {"name": "boxes", "count": [1, 5], "side": [40, 80], "margin": 20, "max_coverage": 0.9}
    boxes = sampled({**step, "scale_with_image": False}, 600)["boxes"]
    there = boxes[..., 2] > 0
    assert torch.bincount(there.sum(1)).div(600).tolist() == pytest.approx([0, *[0.2] * 5], abs=0.06)
    top, left, bottom, right = boxes[there].double().unbind(1)
    height, width = bottom - top, right - left
    for side in (height, width):
        assert (side.min(), side.max()) == (40, 80)
        assert side.mean().item() == pytest.approx(60, abs=1.2)
    assert abs(np.corrcoef(height, width)[0, 1]) < 0.1  # not squares
    assert min(top.min(), left.min()) == 20
    assert max(bottom.max(), right.max()) == 492


def test_blobs_have_the_asked_number_size_shape_and_direction() -> None:
    step = {"name": "blobs", "count": [1, 4], "size": [25, 100], "stretch": [1, 2.5], "uneven": [0.1, 0.5]}
    blobs = sampled({**step, "max_coverage": 0.9, "scale_with_image": False}, 600)["blobs"]
    there = blobs[..., 2] > 0
    assert torch.bincount(there.sum(1)).div(600).tolist() == pytest.approx([0, *[0.25] * 4], abs=0.06)
    _, _, along, across, cos, sin = blobs[there][:, :6].unbind(1)
    radius, stretch = (along * across).sqrt(), along / across
    assert radius.median().item() == pytest.approx(50, rel=0.08)
    assert 25 <= radius.min() < radius.max() <= 100
    assert stretch.mean().item() == pytest.approx(1.75, abs=0.04)
    assert 1 <= stretch.min() < stretch.max() <= 2.5
    uneven = torch.hypot(blobs[there][:, 6:11], blobs[there][:, 11:]).sum(1)
    assert uneven.mean().item() == pytest.approx(0.3, abs=0.012)
    assert 0.1 <= uneven.min() < uneven.max() <= 0.5 + 1e-9
    turn = torch.atan2(sin, cos)
    assert angle_between(turn, 0.0).mean().item() == pytest.approx(math.pi / 4, abs=0.04)


@pytest.mark.parametrize("stretch", [1, 2.5])
def test_a_drawn_blob_is_as_long_and_as_uneven_as_asked(stretch: float) -> None:
    step = {"name": "blobs", "count": 1, "size": 30, "stretch": stretch, "scale_with_image": False}
    shapes: dict[float, list[tuple[float, float]]] = {0: [], 0.5: []}
    for uneven, measured in shapes.items():
        for mask in masks({**step, "uneven": uneven}, 40, 200):
            if mask.any() and not (mask[[0, -1]].any() or mask[:, [0, -1]].any()):
                part = regionprops(mask.astype(int))[0]
                measured.append((part.axis_major_length / part.axis_minor_length, part.solidity))
        assert len(measured) > 8
    even, uneven = (np.median(measured, 0) for measured in shapes.values())
    assert even[0] == pytest.approx(stretch, rel=0.05)
    assert even[1] > 0.97
    assert 0.84 < uneven[1] < 0.95


def test_margins_have_the_asked_number_depth_and_tilt() -> None:
    step = {"name": "border", "depth": [20, 80], "max_coverage": 0.9, "tilt": 3, "frame": 0.3}
    planes = sampled(step, 1000)["planes"]
    there = planes[..., 2] < 1e5
    assert torch.bincount(there.sum(1)).div(1000).tolist() == pytest.approx([0, *[0.25] * 4], abs=0.05)
    assert there.double().mean(0) == pytest.approx([0.625] * 4, abs=0.05)
    outward = torch.tensor([math.pi, -math.pi / 2, 0, math.pi / 2])
    lean = torch.atan2(planes[..., 1], planes[..., 0]) - outward
    lean = (torch.remainder(lean + math.pi, 2 * math.pi) - math.pi) * 180 / math.pi
    tilted = lean.abs().amax(1) > 1e-4
    assert tilted.double().mean().item() == pytest.approx(0.5, abs=0.05)
    assert lean[tilted].abs().mean().item() == pytest.approx(1.5, abs=0.07)
    assert 2.9 < lean.abs().max() < 3.001
    middle = torch.tensor([[0, 256], [256, 0], [512, 256], [256, 512]]) - 0.5
    depth = (planes[..., :2] * middle).sum(2) - planes[..., 2]
    assert 20 - 1e-6 <= depth[there].min() < depth[there].max() <= 80 + 1e-6
    assert depth[there].median().item() == pytest.approx(40, rel=0.08)
    several = there.sum(1) > 1
    most, least = (torch.where(there, depth, other)[several] for other in (-1e9, 1e9))
    assert (most.amax(1) - least.amin(1) < 1e-6).double().mean().item() == pytest.approx(0.3, abs=0.05)
