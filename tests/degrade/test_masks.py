import pytest
import torch

from restore.degrade import damage_from, keys, load_damage
from restore.degrade.lines import COLUMNS, covered_share, draw

SIZES = [(128, 128), (37, 53), (200, 60), (1, 1), (1, 9)]


@pytest.mark.parametrize("name", ["inpaint-thin", "inpaint-medium", "inpaint-thick"])
def test_holes_never_hide_more_than_half(name: str) -> None:
    damage = load_damage(name)
    for size in SIZES:
        damaged, mask = damage(torch.ones(8, 3, *size), keys(0, last=range(8)))
        assert mask.mean((1, 2, 3)).max() <= 0.5
        assert set(mask.unique().tolist()) <= {0.0, 1.0}
        assert torch.equal(damaged, torch.where(mask > 0, 0.5, 1.0).expand_as(damaged))


def test_thin_holes_are_thinner_than_thick_ones() -> None:
    """Thickness: how much of the hole is left after 3 pixels are taken off its edge."""

    def core(name: str) -> float:
        mask = load_damage(name)(torch.ones(16, 3, 128, 128), keys(1, last=range(16)))[1]
        eroded = -torch.nn.functional.max_pool2d(-mask, 7, 1, 3)
        return (eroded.sum() / mask.sum()).item()

    thin, medium, thick = core("inpaint-thin"), core("inpaint-medium"), core("inpaint-thick")
    assert thin < 0.25 < medium < thick


def test_holes_grow_with_the_picture() -> None:
    damage = load_damage("inpaint-medium")
    keys_ = keys(2, last=range(16))
    small = damage(torch.ones(16, 3, 64, 64), keys_)[1].mean().item()
    large = damage(torch.ones(16, 3, 256, 256), keys_)[1].mean().item()
    assert small == pytest.approx(large, rel=0.1)


def test_boxes_are_boxes_of_the_asked_size() -> None:
    damage = damage_from([{"name": "boxes", "count": 1, "side": [100, 100], "margin": 10}], "test")
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
    canvas = draw(segments, (60, 50), "cpu")
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
    damage = load_damage("inpaint-thick")
    sampled = damage.sample(keys(0, last=range(6)), (200, 140))
    for it in sampled.applications:
        if "segments" in it.params:
            drawn = draw(it.params["segments"], (200, 140), "cpu").mean((1, 2, 3), dtype=torch.float64)
            estimated = covered_share(it.params["segments"], (200, 140), enough=0.0)
            torch.testing.assert_close(estimated, drawn, rtol=0, atol=0.03)
