import math

import pytest
import torch

from restore.degradations import degradation_from, keys
from restore.degradations.tear import Tear
from tests.degradations.measure import GRAY, sampled

ONE = {"name": "tear", "count": 1, "lost": 0, "length": [120, 160]}
LOST = {"name": "tear", "count": 0, "lost": 1, "lost_size": [60, 90]}
#: The band of one tear and nothing else, in pixels of the image itself.
BARE = {
    "name": "tear", "count": 1, "width": 20, "length": 100, "ragged": 0, "shadow": 0, "lost": 0,
    "scale_with_image": False,
}  # fmt: skip


def marked(step: dict, clean: torch.Tensor, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return degradation_from([step], "test")(clean, keys(seed, last=range(len(clean))))


def border(mask: torch.Tensor) -> torch.Tensor:
    return torch.cat([mask[..., 0, :], mask[..., -1, :], mask[..., :, 0], mask[..., :, -1]], -1)


def test_a_tear_goes_from_the_border_inwards_and_not_across() -> None:
    for mask in marked(ONE, torch.full((12, 3, 256, 320), 0.4))[1][:, 0]:
        share = border(mask).mean()
        assert 0 < share < 0.08
        inner = mask[8:-8, 8:-8]
        assert inner.any()


def test_a_tear_is_a_white_band_with_a_shadow_beside() -> None:
    clean = torch.full((12, 3, 256, 256), 0.4)
    damaged, mask = marked({**ONE, "shadow": 0.6, "width": 10}, clean)
    for picture, hidden in zip(damaged, mask):
        tones = picture.mean(0, keepdim=True)[hidden > 0]
        assert (tones > 0.7).float().mean() > 0.2
        assert (tones < 0.36).float().mean() > 0.03
    bare = marked({**ONE, "shadow": 0}, clean)[0]
    assert bare.min() > 0.4 - 1e-6


def test_the_band_is_widest_at_the_border() -> None:
    step = {**ONE, "shadow": 0, "width": 14, "ragged": 0.5}
    mask = marked(step, torch.full((24, 3, 256, 256), 0.3))[1]
    y, x = torch.meshgrid(torch.arange(256), torch.arange(256), indexing="ij")
    depth = torch.stack([y, 255 - y, x, 255 - x]).amin(0)
    near, far = (mask[:, 0, (depth >= a) & (depth < a + 8)].sum() for a in (0, 36))
    assert near > 1.3 * far


@pytest.mark.parametrize("tone", [0.0, 0.5, 0.95, 1.0])
def test_what_is_lost_is_masked_whatever_lies_there_instead(tone: float) -> None:
    _, mask = marked(LOST, torch.full((16, 3, 128, 160), tone))
    for one in mask[:, 0]:
        assert border(one).mean() > 0.04
        assert one[[0, 0, -1, -1], [0, -1, 0, -1]].any()  # a corner, or an edge with two of them
    assert 0.003 < mask.mean() < 0.2


def test_tears_enter_a_crop_from_beyond_its_edge() -> None:
    """A crop sees the wide beginning of some tears and the thin end of others; a whole picture the beginning."""
    step = {**ONE, "length": 100, "width": 12, "shadow": 0}
    clean = torch.full((24, 3, 192, 192), 0.4)
    covered = marked({**step, "scale_with_image": False}, clean)[1].sum((1, 2, 3))
    assert covered.min() < 0.5 * covered.max()
    # all of it, were it not beyond the edge: half as wide as at its beginning in the mean
    assert covered.median() < 0.8 * 100 * 12 / 2 < 1.3 * covered.max()


def across(shift: float = 0, **settings: object) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A band of 20 px across the middle of gray images, 8×3×160×160, with its shadow shifted down by `shift` pixels:
    the image, the opacity of the band, the mask."""
    step = Tear(**{**BARE, **settings})
    params = step.sample(keys(7, last=range(8)), (160, 160))
    params["segments"] = torch.tensor([-50.0, 80, 210, 80, 10, 10, 1], dtype=torch.float64).repeat(8, 1, 1)
    params["shift"] = torch.tensor([0, shift], dtype=torch.float64).repeat(8, 1)
    image, mask = step.apply(torch.full((8, 3, 160, 160), GRAY), params)
    paper = params["tones"][:, :1, :, None, None].float()
    return image, ((image - GRAY) / (paper[:, 0] - GRAY))[:, 0], mask


def cut(ground: float = 0, **settings: object) -> torch.Tensor:
    """The gray levels of images of which the left 60 px are lost, 8×160×160, and the mask."""
    step = Tear(**{**BARE, "count": 0, "lost": 1, **settings})
    params = step.sample(keys(7, last=range(8)), (160, 160))
    params["cut"], params["tones"][:, 1] = torch.tensor([-1.0, 0, -60], dtype=torch.float64).repeat(8, 1), ground
    image, mask = step.apply(torch.full((8, 3, 160, 160), GRAY), params)
    return torch.stack([image.mean(1), mask[:, 0]])


@pytest.mark.parametrize(("ragged", "deviation"), [(0, 0.33), (2, 1.21), (4, 2.26)])
def test_the_band_is_as_wide_and_its_edges_as_ragged_as_asked(ragged: float, deviation: float) -> None:
    _, band, mask = across(ragged=ragged)
    assert (band > 0.5).sum(1).float().mean().item() == pytest.approx(20, abs=0.8)
    assert mask.sum(2).mean().item() == pytest.approx(20.9, abs=0.8)
    edges = band[:, :80].sum(1).std(1).mean().item()
    assert edges == pytest.approx(deviation, rel=0.15)


def test_the_band_is_of_white_paper_with_fibres() -> None:
    paper = sampled(BARE, 1000)["tones"][:, 0]
    assert paper.mean(0) == pytest.approx([0.92, 0.9125, 0.89], abs=0.006)
    assert 0.86 <= paper[:, 0].min() < 0.87
    assert 0.97 < paper[:, 0].max() <= 0.98
    image, band, _ = across()
    inside = image[:, 0, 75:86]
    assert band[:, 75:86].mean().item() == pytest.approx(1, abs=0.01)
    assert inside.std((1, 2)).mean().item() == pytest.approx(0.03, abs=0.005)


@pytest.mark.parametrize("below", [1, -1])
def test_the_shadow_lies_on_the_side_away_from_the_light_and_in_the_mask(below: int) -> None:
    image, band, mask = across(8 * below, shadow=0.5)
    dark = (1 - image[:, 0] / GRAY) * (band < 0.01)
    shaded, lit = (slice(92, 160), slice(0, 69))[::below]
    assert dark.amax((1, 2)).numpy() == pytest.approx(0.5, abs=0.005)
    assert dark[:, shaded].sum(1).mean().item() == pytest.approx(0.5 * 6.9, abs=0.4)
    assert not dark[:, lit].any()
    assert mask[..., shaded, :].sum(2).mean().item() == pytest.approx(8, abs=1.1)
    assert not mask[..., lit, :].any()


def test_shadows_are_a_few_pixels_long_and_fall_in_all_directions() -> None:
    params = sampled({**BARE, "shadow": [0.2, 0.6]}, 1000)
    reach = params["shift"].norm(dim=1)
    assert 1.5 <= reach.min() < 1.55
    assert 4.45 < reach.max() <= 4.5
    assert params["shift"].mean(0) == pytest.approx([0, 0], abs=0.2)
    assert params["shadow"].mean().item() == pytest.approx(0.4, abs=0.012)


def test_tears_have_the_asked_number_length_and_width_and_thin_out() -> None:
    step = {**BARE, "count": [1, 3], "width": [5, 20], "length": [50, 200]}
    tears = sampled(step, 500)["segments"].unflatten(1, (3, 13))
    there = tears[:, :, 0, 6] > 0
    assert torch.bincount(there.sum(1)).div(500).tolist() == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3], abs=0.07)
    tears = tears[there]
    way = tears[..., 2:4] - tears[..., :2]
    length = way.norm(dim=-1).sum(1)
    assert 50 - 1e-6 <= length.min() < 52
    assert length.median().item() == pytest.approx(100, rel=0.08)
    assert 190 < length.max() <= 200 + 1e-6
    assert 2 * tears[:, 0, 4].median().item() == pytest.approx(10, rel=0.08)
    assert (tears[:, 6, 4] / tears[:, 0, 4]).median().item() == pytest.approx(0.6, abs=0.05)
    assert (tears[:, 11, 4] / tears[:, 0, 4]).median().item() == pytest.approx(0.22, abs=0.03)
    heading = torch.atan2(way[..., 1], way[..., 0])
    turns = torch.remainder(heading.diff(dim=1) + math.pi, 2 * math.pi) - math.pi
    assert turns.abs().mean().item() == pytest.approx(0.314, abs=0.03)  # jagged
    straight = (tears[:, -1, 2:4] - tears[:, 0, :2]).norm(dim=1)
    assert (length / straight).median().item() == pytest.approx(1.045, abs=0.015)


@pytest.mark.parametrize(("ragged", "fine"), [(0, 0.07), (2, 0.16), (4, 0.29)])
def test_bare_paper_of_a_few_pixels_lines_what_is_lost(ragged: float, fine: float) -> None:
    level, mask = cut(ragged=ragged)
    gone, rim = ((level < 0.1).sum(2).float(), (level > 0.6).sum(2).float())
    assert gone.mean().item() == pytest.approx(60, abs=1)
    assert gone.std(1).mean() > 1.4  # not cut straight
    assert gone.diff(dim=1).abs().mean().item() == pytest.approx(fine, rel=0.25)
    assert rim.mean().item() == pytest.approx(4, abs=0.3)
    assert 6 < rim.max() < 16
    assert mask.sum(2).mean().item() == pytest.approx(65.4, abs=0.8)


def test_the_sheet_casts_its_shadow_on_a_white_ground() -> None:
    (bare, _), (level, _) = cut(1, shadow=0), cut(1, shadow=0.5)
    edge = (bare > 0.999).sum(2)
    for away in (2, 6, 12):
        here = level.gather(2, (edge - away)[..., None]).mean().item()
        assert here == pytest.approx(1 - 0.5 * math.exp(-away / 5), abs=0.03)


def test_the_ground_is_nearly_white_or_nearly_black() -> None:
    ground = sampled(BARE, 1000)["tones"][:, 1].mean(1)
    white = ground > 0.5
    assert white.double().mean().item() == pytest.approx(0.6, abs=0.05)
    assert ground[white].mean().item() == pytest.approx(0.95, abs=0.005)
    assert ground[~white].mean().item() == pytest.approx(0.06, abs=0.006)


def test_any_corner_or_a_narrow_strip_is_lost() -> None:
    cuts = sampled({**BARE, "lost": 1, "lost_size": 60}, 1000)["cut"]
    a, b, c = cuts.unbind(1)
    strip = torch.minimum(a.abs(), b.abs()) < 0.07
    assert strip.double().mean().item() == pytest.approx(0.3, abs=0.05)
    depth = torch.where(a > 0, 512 * a, 0) + torch.where(b > 0, 512 * b, 0) - c
    assert depth[~strip] == pytest.approx(60 / math.sqrt(2))
    assert depth[strip] == pytest.approx(0.4 * 60)
    for right in (False, True):
        for low in (False, True):
            assert (((a > 0) == right) & ((b > 0) == low)).double().mean().item() == pytest.approx(0.25, abs=0.05)
    shares = sampled({**BARE, "lost": 1, "lost_size": [30, 120]}, 1000)["cut"][~strip]
    sizes = torch.where(shares[:, 0] > 0, 512 * shares[:, 0], 0) + torch.where(shares[:, 1] > 0, 512 * shares[:, 1], 0)
    assert (sizes - shares[:, 2]).median().item() == pytest.approx(0.65 * 60, rel=0.1)
    happens = sampled({**BARE, "lost": 0.25}, 1000)["cut"][:, 2] < 1e5
    assert happens.double().mean().item() == pytest.approx(0.25, abs=0.04)
