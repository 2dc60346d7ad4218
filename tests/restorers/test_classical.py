"""The methods without weights, on photographs: what was damaged is much better, what was known is untouched."""

import numpy as np
import pytest
import skimage.data
import torch

from restore.restorers.base import Restorer
from restore.restorers.classical import CLASSICAL, Biharmonic
from restore.restorers.enlarging import INTERPOLATIONS
from restore.restorers.noise_level import estimate_noise

FILLERS = ["telea", "navier-stokes", "biharmonic"]
DENOISERS = ["nlmeans", "tv"]


def photo(name="astronaut", height=160, width=200):
    pixels = getattr(skimage.data, name)()[:height, :width]
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255


def scratches(height, width):
    """Three lines across and a small box: 1 = hidden."""
    mask = torch.zeros(1, 1, height, width)
    mask[..., height // 3 : height // 3 + 4, :] = 1
    mask[..., :, width // 2 : width // 2 + 3] = 1
    mask[..., torch.arange(height), torch.arange(height)] = 1
    mask[..., 20:32, 100:112] = 1
    return mask


def noisy(clean, sigma):
    return clean + torch.from_numpy(np.random.default_rng(0).normal(0, sigma, clean.shape)).float()


def error(a, b):
    return (a - b).square().mean().item()


@pytest.mark.parametrize("name", [name for name in CLASSICAL if name not in INTERPOLATIONS])
def test_each_declares_what_it_is(name):
    restorer = CLASSICAL[name]()
    assert isinstance(restorer, Restorer)
    assert restorer.name == name
    assert restorer.purpose
    assert restorer.requirements.needs_mask == (name in FILLERS)
    assert restorer.requirements.scale == 1
    assert not restorer.requirements.tileable


# Holes


@pytest.mark.parametrize("subject", ["astronaut", "coffee", "chelsea"])
@pytest.mark.parametrize("name", FILLERS)
def test_scratches_are_filled_and_the_rest_is_untouched(name, subject):
    clean, mask = photo(subject), scratches(160, 200)
    hidden = mask.expand_as(clean) > 0
    damaged = torch.where(hidden, torch.nan, clean)
    repaired = CLASSICAL[name]()(damaged, mask)
    mean_colour = clean[~hidden].mean()
    assert error(repaired[hidden], clean[hidden]) < 0.15 * error(mean_colour, clean[hidden])
    assert torch.equal(repaired[~hidden], clean[~hidden])


@pytest.mark.parametrize("name", FILLERS)
def test_a_hole_at_the_border_and_a_wide_one_are_filled(name):
    clean, mask = photo("coffee", 200, 300), torch.zeros(1, 1, 200, 300)
    mask[..., :30, :] = 1
    mask[..., 60:160, 80:200] = 1
    hidden = mask.expand_as(clean) > 0
    repaired = CLASSICAL[name]()(clean, mask)
    assert error(repaired[hidden], clean[hidden]) < 0.5 * error(0.5, clean[hidden])
    assert torch.equal(repaired[~hidden], clean[~hidden])


@pytest.mark.parametrize("name", FILLERS)
def test_a_smooth_slope_is_continued_through_a_hole(name):
    slope = torch.linspace(0.1, 0.9, 120).expand(1, 3, 90, 120)
    mask = torch.zeros(1, 1, 90, 120)
    mask[..., 40:52, 50:62] = 1
    assert (CLASSICAL[name]()(slope, mask) - slope).abs().max() < 0.05


@pytest.mark.parametrize("name", FILLERS)
def test_a_soft_mask_is_hidden_in_full_and_blended(name):
    clean = photo("coffee", 80, 80)
    mask = torch.zeros(1, 1, 80, 80)
    mask[..., 30:40, 30:40] = 0.25
    shown = clean.clone()
    shown[..., 30:40, 30:40] = 1.0
    filled = CLASSICAL[name]()(clean, mask.ceil())
    blended = 0.25 * filled + 0.75 * shown
    assert torch.allclose(CLASSICAL[name]()(shown, mask)[..., 30:40, 30:40], blended[..., 30:40, 30:40], atol=1e-6)


@pytest.mark.parametrize("name", FILLERS)
def test_with_nothing_known_it_is_gray_and_with_nothing_hidden_the_picture(name):
    clean = photo(height=20, width=30)
    restorer = CLASSICAL[name]()
    assert torch.equal(restorer(clean, torch.ones(1, 1, 20, 30)), torch.full_like(clean, 0.5))
    assert torch.equal(restorer(clean, torch.zeros(1, 1, 20, 30)), clean)
    assert torch.equal(restorer(clean, None), clean)


def test_wide_holes_are_filled_no_worse_than_exactly(monkeypatch):
    clean, mask = photo("coffee", 120, 160), torch.zeros(1, 1, 120, 160)
    mask[..., 30:80, 40:110] = 1
    quick = Biharmonic()(clean, mask)
    monkeypatch.setattr(Biharmonic, "EXACT_PIXELS", 10**9)
    exact = Biharmonic()(clean, mask)
    hidden = mask.expand_as(clean) > 0
    assert not torch.equal(quick, exact)
    assert error(quick[hidden], clean[hidden]) <= 1.05 * error(exact[hidden], clean[hidden])


# Noise


@pytest.mark.parametrize("subject", ["astronaut", "coffee", "chelsea"])
@pytest.mark.parametrize("sigma", [15 / 255, 40 / 255])
@pytest.mark.parametrize("name", DENOISERS)
def test_noise_is_clearly_reduced(name, sigma, subject):
    clean = photo(subject)
    damaged = noisy(clean, sigma)
    assert error(CLASSICAL[name]()(damaged), clean) < 0.35 * error(damaged, clean)


@pytest.mark.parametrize("name", DENOISERS)
def test_a_clean_picture_stays_nearly_as_it_is(name):
    clean = photo("coffee")
    assert error(CLASSICAL[name]()(clean), clean) < 10 ** (-36 / 10)
    flat = torch.full((1, 3, 40, 40), 0.3)
    assert torch.equal(CLASSICAL[name]()(flat), flat)


@pytest.mark.parametrize("sigma", [15, 25, 50])
def test_the_noise_is_measured(sigma):
    damaged = noisy(photo("coffee"), sigma / 255)[0].permute(1, 2, 0).numpy()
    assert estimate_noise(damaged) * 255 == pytest.approx(sigma, rel=0.1, abs=1.5)


# Any size, any batch


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (2, 2), (3, 3), (1, 2000), (37, 2), (65, 71)])
@pytest.mark.parametrize("name", CLASSICAL)
def test_any_size_comes_out_finite_and_in_range(name, size):
    torch.manual_seed(0)
    image = torch.randn(1, 3, *size)
    for mask in ((torch.rand(1, 1, *size) < share).float() for share in (0.0, 0.5, 0.9, 1.0)):
        restorer = CLASSICAL[name]()
        out, scale = restorer(image, mask), restorer.requirements.scale
        assert out.shape == (1, 3, size[0] * scale, size[1] * scale)
        assert out.dtype == torch.float32
        assert out.min() >= 0
        assert out.max() <= 1


@pytest.mark.parametrize("name", CLASSICAL)
def test_a_picture_does_not_depend_on_its_neighbours_in_the_batch(name):
    batch = torch.cat([noisy(photo(subject, 64, 64), 0.1) for subject in ("astronaut", "coffee")])
    masks = torch.zeros(2, 1, 64, 64)
    masks[0, :, 10:20, 10:20] = 1
    masks[1, :, 40:50] = 1
    together = CLASSICAL[name]()(batch, masks)
    assert torch.equal(together[1:], CLASSICAL[name]()(batch[1:], masks[1:]))
