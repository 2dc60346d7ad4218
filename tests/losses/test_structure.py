"""Losses on edges, frequencies and structure against what they are by hand, by NumPy and by the metrics."""

import numpy as np
import pytest
import torch

from restore.losses.structure import frequency_loss, gradient_loss, ms_ssim_loss
from restore.metrics.conventions import SCALE_WEIGHTS, Convention
from restore.metrics.ssim import ms_ssim, ssim


def pair(side: int, noise: float = 0.1) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(side)
    clean = torch.nn.functional.avg_pool2d(torch.rand(2, 3, side + 8, side + 8, generator=draw), 9, 1)
    return (clean + noise * torch.randn(clean.shape, generator=draw)).clamp(0, 1), clean


def test_an_edge_that_is_missing_costs_its_height_and_brightness_costs_nothing() -> None:
    clean = torch.zeros(1, 3, 5, 9)
    clean[..., 4:] = 0.5  # one of eight differences in every row
    assert gradient_loss(clean + 0.2, clean).item() == pytest.approx(0, abs=1e-7)
    assert gradient_loss(torch.zeros_like(clean), clean).item() == pytest.approx(0.5 / 8)
    assert gradient_loss(torch.zeros(1, 3, 9, 5), clean.mT).item() == pytest.approx(0.5 / 8)


def test_the_frequency_loss_is_that_of_numpys_transform() -> None:
    output, clean = pair(24)
    spectra = [np.fft.fft2(x.double().numpy()) for x in (output, clean)]
    difference = spectra[0] - spectra[1]
    expected = (np.abs(difference.real).mean() + np.abs(difference.imag).mean()) / 2
    assert frequency_loss(output, clean).item() == pytest.approx(expected, rel=1e-5)


def test_ms_ssim_is_the_metrics() -> None:
    output, clean = pair(180)
    expected = 1 - ms_ssim(output, clean, convention=Convention("as published")).mean()
    assert ms_ssim_loss(output, clean).item() == pytest.approx(expected.item(), abs=1e-5)


def test_a_small_patch_has_fewer_scales() -> None:
    output, clean = pair(20)
    expected = 1 - (ssim(output, clean, convention=Convention("as published")) ** sum(SCALE_WEIGHTS)).mean()
    assert ms_ssim_loss(output, clean).item() == pytest.approx(expected.item(), abs=1e-5)
    output, clean = pair(64)
    assert 0 < ms_ssim_loss(output, clean) < 1
    with pytest.raises(ValueError, match="11 px"):
        ms_ssim_loss(output[..., :10], clean[..., :10])


@pytest.mark.parametrize("loss", [gradient_loss, frequency_loss, ms_ssim_loss])
def test_every_loss_is_zero_for_equal_images_and_leads_to_them(loss) -> None:
    output, clean = pair(32)
    assert loss(clean, clean).item() == pytest.approx(0, abs=1e-5)
    x = output.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([x], lr=5e-3)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        value = loss(x, clean)
        value.backward()
        assert x.grad is not None
        assert x.grad.isfinite().all()
        optimizer.step()
        losses.append(value.item())
    assert losses[-1] < 0.7 * losses[0]


def test_ms_ssim_has_a_gradient_where_structures_are_opposite() -> None:
    _, clean = pair(32)
    x = (1 - clean).requires_grad_(True)
    ms_ssim_loss(x, clean).backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
