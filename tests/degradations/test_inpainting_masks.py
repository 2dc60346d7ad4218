import pytest
import torch
from scipy import ndimage

from restore.degradations import degradation_from, keys, load_degradation
from restore.degradations.drawing import COLUMNS, draw_segments, estimate_coverage
from restore.degradations.inpainting_masks import Holes
from restore.degradations.pipeline import STEPS, _apply
from restore.errors import RestoreError

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
