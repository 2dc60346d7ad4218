import math

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt

from restore.degradations import degradation_from, keys
from restore.degradations.stain import Stain
from tests.degradations.measure import sampled

FLAT = torch.full((12, 3, 200, 200), 0.5)
ONE = {"name": "stain", "count": 1, "size": [50, 70], "opacity": 0.6, "drips": 0}
#: One dark stain without a rim, in pixels of the image itself.
BARE = {
    "name": "stain", "count": 1, "size": 50, "opacity": 1, "bright": 0, "drips": 0, "rim": 0, "edge": 0.1,
    "scale_with_image": False,
}  # fmt: skip
LEVEL = 0.6


def marked(step: dict, clean: torch.Tensor, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return degradation_from([step], "test")(clean, keys(seed, last=range(len(clean))))


def test_stains_are_dark_and_yellowish_or_bright_as_asked() -> None:
    dark = marked({**ONE, "bright": 0}, FLAT)[0] - FLAT
    assert dark.max() <= 0
    assert dark.min() < -0.1
    red, _, blue = dark.mean((0, 2, 3))
    assert blue < red
    bright = marked({**ONE, "bright": 1, "rim": 0}, FLAT)[0] - FLAT
    assert bright.min() >= 0
    assert bright.max() > 0.05


def test_a_stain_lets_the_picture_through() -> None:
    stripes = (0.3 + 0.4 * (torch.arange(200) % 2)).expand(12, 3, 200, 200)
    damaged, mask = marked(ONE, stripes)
    inside = mask[..., 0::2].bool() & mask[..., 1::2].bool()
    steps = (damaged[..., 1::2] - damaged[..., 0::2])[inside.expand(-1, 3, -1, -1)]
    assert 0.05 < steps.min() < steps.max() < 0.45


def test_stains_end_softly() -> None:
    step = {**ONE, "edge": 0.7, "rim": 0, "size": 90}
    damaged, mask = marked(step, FLAT)
    assert mask.any()
    assert (damaged - FLAT).abs().diff(dim=-1).abs().max() < 0.08


def test_the_rim_is_darker_than_the_middle() -> None:
    def rim_to_middle(**settings: float) -> float:
        damaged, masks = marked({**ONE, "edge": 0.1, "bright": 0, **settings}, FLAT)
        shares = []
        for change, mask in zip((FLAT - damaged).mean(1), masks[:, 0]):
            core = -torch.nn.functional.max_pool2d(-mask[None], 15, 1, 7)[0] > 0
            if core.sum() > 50:
                shares.append((change[(mask > 0) & ~core].mean() / change[core].mean()).item())
        assert len(shares) > 4
        return sum(shares) / len(shares)

    assert rim_to_middle(rim=0) < 1.05
    assert rim_to_middle(rim=1) > 1.3


def test_drips_run_down() -> None:
    step = {**ONE, "count": 1, "size": [25, 30]}
    tall = {}
    for drips in (0, 1):
        boxes = [
            (m.any(1).sum() / m.any(0).sum()).item() for m in marked({**step, "drips": drips}, FLAT)[1][:, 0] if m.any()
        ]
        tall[drips] = sorted(boxes)[len(boxes) // 2]
    assert tall[1] > 1.5 > tall[0]


def blot(**settings: object) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A round stain with a radius of 50 px amid gray, 200×200: the strength by which it acts in blue, 12×200×200, the
    mask, and the images."""
    step = Stain(**{**BARE, **settings})
    params = step.sample(keys(7, last=range(12)), (200, 200))
    params["stains"][..., :6] = torch.tensor([100.0, 100, 0, 0, 50, 50])
    image, mask = step.apply(torch.full((12, 3, 200, 200), LEVEL), params)
    goal = torch.where(params["bright"], params["tones"][:, 1, 2], LEVEL * params["tones"][:, 0, 2]).float()
    return (image[:, 2] - LEVEL) / (goal - LEVEL)[:, None, None], mask[:, 0], image


MIDDLE = (slice(None), slice(85, 116), slice(85, 116))


def test_a_stain_has_the_asked_size_and_an_uneven_outline() -> None:
    strength, mask, _ = blot()
    inside = strength > 0.5
    radius = (inside.sum((1, 2)) / math.pi).sqrt()
    assert radius.mean().item() == pytest.approx(48.4, abs=1.2)
    y, x = torch.meshgrid(torch.arange(200.0) - 100, torch.arange(200.0) - 100, indexing="ij")
    sector = ((torch.atan2(y, x) / math.pi + 1) * 18).long().clamp(max=35)
    reach = torch.stack([(inside & (sector == i)).sum((1, 2)).sqrt() for i in range(36)], 1)
    assert (reach.std(1) / reach.mean(1)).mean().item() == pytest.approx(0.138, abs=0.04)
    assert mask.sum().item() == pytest.approx(1.07 * inside.sum().item(), rel=0.025)  # its soft edge, too
    assert ((mask > 0) != (strength > 0.07)).sum() < 50


@pytest.mark.parametrize(("opacity", "uneven"), [(0.3, 0.105), (1, 0.065)])  # what is opaque cannot be deeper
@pytest.mark.parametrize("bright", [0, 1])
def test_a_stain_is_as_strong_as_asked_and_of_uneven_depth(opacity: float, uneven: float, bright: int) -> None:
    strength = blot(opacity=opacity, bright=bright)[0][MIDDLE]
    assert strength.mean().item() == pytest.approx(0.93 * opacity, rel=0.07)
    assert strength.std((1, 2)).mean().item() == pytest.approx(uneven * opacity, abs=0.03 * opacity)


@pytest.mark.parametrize(("edge", "rise"), [(0.1, 0.068), (0.4, 0.19), (0.8, 0.273)])
def test_the_edge_of_a_stain_is_as_soft_as_asked(edge: float, rise: float) -> None:
    """`rise`: from a tenth to four fifths, relative to the radius."""
    strength, _, _ = blot(edge=edge)
    share = strength / strength[MIDDLE].mean((1, 2), keepdim=True)
    ring = ((share > 0.1) & (share < 0.8)).sum((1, 2)).float().mean().item()
    assert ring / (2 * math.pi * 45) / 50 == pytest.approx(rise, rel=0.18)


def test_tints_are_yellow_brown_and_paper_is_yellowish_white() -> None:
    tint, paper = sampled(BARE, 1000)["tones"].unbind(1)
    assert tint.mean(0) == pytest.approx([0.67, 0.487, 0.257], abs=0.012)
    assert paper.mean(0) == pytest.approx([0.875, 0.865, 0.825], abs=0.006)
    assert sampled({**BARE, "bright": 0.3}, 1000)["bright"].double().mean().item() == pytest.approx(0.3, abs=0.04)


def profile(strength: torch.Tensor) -> list[float]:
    """The strength from 0 to 4 px inside of the outline, from 4 to 8, from 16 to 20, and from 20 to 24."""
    far = np.stack([distance_transform_edt(one) for one in (strength > 0.1).numpy()])
    return [strength.numpy()[(far > low) & (far <= low + 4)].mean() for low in (0, 4, 16, 20)]


def test_a_rim_of_a_few_pixels_is_dark_and_the_middle_fades() -> None:
    assert profile(blot(rim=0.5)[0]) == pytest.approx([0.64, 0.72, 0.646, 0.64], abs=0.05)
    assert profile(blot(rim=1)[0]) == pytest.approx([0.67, 0.42, 0.30, 0.296], abs=0.05)
    washed = blot(rim=1, bright=1)[2]
    assert (washed.amin((1, 2, 3)) < 0.7 * LEVEL).all()  # also the rim of a washed-out stain


@pytest.mark.parametrize("drips", [0, 1])
def test_blots_are_compact_and_drips_are_thin_and_run_down(drips: int) -> None:
    table = sampled({**BARE, "drips": drips, "size": [20, 80]}, 1000)["stains"][:, 0]
    radius, thin = table[:, 4], 0.22 if drips else 1
    assert radius.median().item() == pytest.approx(40 * thin, rel=0.08)
    assert 20 * thin - 1e-6 <= radius.min() < 21 * thin
    length = table[:, 2:4].norm(dim=1) / radius
    least, most = (2.5 / 0.22, 6 / 0.22) if drips else (0, 1.2)
    assert length.mean().item() == pytest.approx((least + most) / 2, rel=0.05)
    end = table[:, 5] / radius
    assert end.mean().item() == pytest.approx(1.25 if drips else 0.8, abs=0.02)
    down = table[:, 3] / table[:, 2:4].norm(dim=1)
    assert down.min() > 0.99 if drips else down.mean().abs() < 0.1
    assert table[:, 0].mean().item() == pytest.approx(256, abs=15)
    assert table[:, 0].std().item() == pytest.approx(1.1 * 148, rel=0.06)


def test_stains_are_as_many_as_asked_and_some_are_drips() -> None:
    table = sampled({**BARE, "count": [1, 4], "drips": 0.2, "opacity": [0.2, 0.8], "rim": [0, 0.6]}, 1000)["stains"]
    there = table[..., 6] > 0
    assert torch.bincount(there.sum(1)).div(1000).tolist() == pytest.approx([0, *[0.25] * 4], abs=0.05)
    first = table[:, 0]
    assert (first[:, 4] < 20).double().mean().item() == pytest.approx(0.2, abs=0.04)
    assert first[:, 6].mean().item() == pytest.approx(0.5, abs=0.02)
    assert first[:, 8].mean().item() == pytest.approx(0.3, abs=0.02)
