"""Noise on the mosaic of a sensor, developed: its strength, its color, its correlation, where it starts."""

import cv2
import numpy as np
import pytest
import torch

from restore.degradations import degradation_from, keys
from restore.degradations.camera_noise import _RED_GAIN, CameraNoise, _demosaic, _mosaic
from restore.errors import RestoreError
from restore.linear_light import from_linear, to_linear
from tests.degradations.test_steps import damaged, photograph

#: Of a bilinear demosaic of white noise, the mean variance over the sites, relative to one site's: of red and blue, a
#: quarter each of 1, 1/2, 1/2 and 1/4; of green, half each of 1 and 1/4.
RED_BLUE_SHARE, GREEN_SHARE = 0.5625, 0.625


def drawn(step: CameraNoise, image: torch.Tensor, seed: int = 0) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    params = step.sample(keys(seed, last=range(len(image))), tuple(image.shape[-2:]))
    return step.apply(image, params)[0], params


def test_variance_is_that_of_the_model_behind_white_balance_and_curve() -> None:
    step = CameraNoise(shot=1e-4, smoothing=0, saturation=0)
    for level in (0.2, 0.5, 0.8):
        clean = torch.full((4, 3, 256, 256), level)
        noisy, params = drawn(step, clean)
        raw = to_linear(torch.tensor(level)) / params["gains"]
        site = params["gains"].square() * (params["shot"][:, None] * raw + params["read"][:, None])
        expected = (site * torch.tensor([RED_BLUE_SHARE, GREEN_SHARE, RED_BLUE_SHARE])).sqrt()
        slope = (from_linear(to_linear(torch.tensor(level)) + 1e-3) - level) / 1e-3
        deviation = (noisy - clean).std(dim=(2, 3)).to(torch.float64)
        torch.testing.assert_close(deviation, expected.to(torch.float64) * slope.item(), rtol=0.03, atol=0)


@pytest.mark.parametrize("phase", range(4))
def test_the_demosaic_is_the_bilinear_one_of_opencv(phase: int) -> None:
    raw = (photograph(40, 50) * 60000).round()
    where = _mosaic(torch.tensor([phase]), raw)
    assert torch.equal(where.sum(1), torch.ones(1, 40, 50))
    mosaic = (raw * where).sum(1)[0].numpy().astype(np.uint16)
    # OpenCV names a pattern by the pixels of the second row, from the second column on.
    code = [cv2.COLOR_BayerBG2RGB, cv2.COLOR_BayerGB2RGB, cv2.COLOR_BayerGR2RGB, cv2.COLOR_BayerRG2RGB][phase]
    theirs = cv2.demosaicing(mosaic, code)[1:-1, 1:-1]
    ours = _demosaic(raw * where)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(ours, theirs, atol=1)


def test_noise_grows_with_the_asked_strength_and_stays_unbiased() -> None:
    clean = photograph(128, 128).repeat(4, 1, 1, 1)
    deviations = []
    for shot in (1e-4, 1e-3, 5e-3):
        noise = drawn(CameraNoise(shot=shot), clean)[0] - clean
        deviations.append(noise.std().item() * 255)
        assert abs(noise.mean().item() * 255) < 1
    assert 0.7 < deviations[0] < deviations[1] / 2 < deviations[2] / 3


def test_noise_reduction_correlates_neighbors_and_weakens_noise() -> None:
    clean = torch.full((2, 3, 128, 128), 0.5)

    def neighbors(smoothing: float) -> tuple[float, float]:
        noise = drawn(CameraNoise(shot=1e-3, smoothing=smoothing), clean)[0] - clean
        pair = torch.stack([noise[..., 1:].flatten(), noise[..., :-1].flatten()])
        return torch.corrcoef(pair)[0, 1].item(), noise.std().item()

    (rough, strong), (smooth, weak) = neighbors(0), neighbors(1)
    assert 0.3 < rough < smooth - 0.2
    assert weak < 0.7 * strong


@pytest.mark.parametrize("sigma", [0.7, 1])
def test_noise_reduction_is_a_gaussian_of_the_asked_width(sigma: float) -> None:
    """It weakens a wave of f cycles per pixel by exp(-(2πfσ)²/2)."""
    clean = torch.full((2, 3, 192, 192), 0.5)
    step = CameraNoise(shot=1e-4, smoothing=(0, 1), saturation=0)
    params = step.sample(keys(0, last=range(2)), (192, 192))
    waves = []
    for width in (0, sigma):
        noise = step.apply(clean, {**params, "smoothing": torch.full((2,), width)})[0] - clean
        waves.append(torch.fft.rfft(noise.mean(2)).abs().mean((0, 1)))
    for frequency in (0.1, 0.2, 0.3):
        near = slice(round(frequency * 192) - 3, round(frequency * 192) + 4)
        kept = (waves[1][near].sum() / waves[0][near].sum()).item()
        assert kept == pytest.approx(np.exp(-0.5 * (2 * np.pi * frequency * sigma) ** 2), abs=0.03)


def test_saturation_makes_noise_colored() -> None:
    clean = torch.full((2, 3, 96, 96), 0.5)
    chroma = []
    for saturation in (0, 0.5, 1.5):
        noise = drawn(CameraNoise(shot=5e-4, saturation=saturation), clean)[0] - clean
        chroma.append((noise - noise.mean(1, keepdim=True)).std().item())
    assert chroma[0] < chroma[1] / 1.2 < chroma[2] / 2


def test_without_light_and_noise_the_photograph_stays() -> None:
    clean = photograph(64, 64)
    noisy, _ = drawn(CameraNoise(shot=1e-6), clean)
    assert (noisy - clean).abs().mean() * 255 < 0.3
    black, _ = drawn(CameraNoise(shot=1e-4), torch.zeros(1, 3, 32, 32))
    assert 0 <= black.min() < black.max() < 0.1


def test_an_image_gets_the_same_noise_alone_and_in_a_batch() -> None:
    damage = degradation_from([{"name": "camera-noise"}], "test")
    batch = photograph(48, 56).repeat(3, 1, 1, 1)
    together = damage(batch, keys(5, last=range(3)))[0]
    assert torch.equal(damage(batch[1:2], keys(5, last=[1]))[0], together[1:2])
    assert not torch.equal(together[0], together[1])


def test_gains_and_read_noise_are_within_the_published_ranges() -> None:
    params = CameraNoise(shot=(1e-4, 0.012)).sample(keys(0, last=range(400)), (8, 8))
    assert _RED_GAIN[0] <= params["gains"][:, 0].min() <= params["gains"][:, 0].max() <= _RED_GAIN[1]
    assert torch.equal(params["gains"][:, 1], torch.ones(400, dtype=torch.float64))
    assert set(params["phase"].tolist()) == {0, 1, 2, 3}
    line = 2.18 * params["shot"].log() + 1.20
    spread = params["read"].log() - line
    assert spread.std().item() == pytest.approx(0.26, abs=0.03)
    assert params["shot"].log10().mean().item() == pytest.approx(-2.96, abs=0.1)


def test_a_range_of_strength_is_checked() -> None:
    with pytest.raises(RestoreError, match="must be a range"):
        degradation_from([{"name": "camera-noise", "shot": 0.5}], "test")
    assert damaged([{"name": "camera-noise"}], photograph(16, 16))[1].sum() == 0
