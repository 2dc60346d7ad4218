"""Losses in the features of a recognition network."""

from pathlib import Path

import pytest
import torch

from restore.losses.perceptual import PerceptualLoss

WEIGHTS = Path(__file__).parents[2] / "../shared/data/weights/squeezenet1_1_fp16.safetensors"
pytestmark = pytest.mark.skipif(not WEIGHTS.is_file(), reason="no SqueezeNet backbone beside the repository")


@pytest.mark.parametrize("kind", ["lpips", "features"])
def test_it_is_zero_for_equal_pictures_grows_with_the_difference_and_can_be_descended(kind: str) -> None:
    loss = PerceptualLoss(kind, "squeeze", WEIGHTS, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(2, 3, 48, 48, generator=generator)
    noise = torch.randn(clean.shape, generator=generator)
    assert loss(clean, clean).item() == pytest.approx(0, abs=1e-6)
    little, much = (loss((clean + size * noise).clamp(0, 1), clean).item() for size in (0.02, 0.2))
    assert 0 < little < much

    output = (clean + 0.1 * noise).requires_grad_(True)
    before = loss(output, clean)
    (slope,) = torch.autograd.grad(before, output)
    assert slope.isfinite().all()
    step = 1e-3 * slope / slope.abs().mean()
    assert loss((output - step).detach(), clean).item() < before.item()
    assert not any(p.requires_grad and p.grad is not None for p in loss.parameters())
