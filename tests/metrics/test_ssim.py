"""SSIM as MATLAB computes it, and MS-SSIM, against independent implementations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
import skimage
import torch
from torchmetrics.image import MultiScaleStructuralSimilarityIndexMeasure

from restore.metrics import CONVENTIONS, MS_SSIM_MINIMUM_PX, ms_ssim, score_batch, ssim


def tensor(*images: np.ndarray) -> torch.Tensor:
    return torch.stack([torch.from_numpy(np.ascontiguousarray(i.transpose(2, 0, 1))) for i in images])


def noisy(image: np.ndarray, sigma: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, sigma / 255, image.shape)
    return np.clip(np.round((image + noise) * 255), 0, 255).astype(np.float32) / 255


@pytest.fixture(scope="module")
def pairs() -> tuple[torch.Tensor, torch.Tensor]:
    """Noise, blur, and a negative, of 3×201×230."""
    clean = [
        getattr(skimage.data, name)()[:201, :230].astype(np.float32) / 255
        for name in ("astronaut", "chelsea", "coffee")
    ]
    restored = [
        noisy(clean[0], 25),
        noisy(skimage.filters.gaussian(clean[1], 2, channel_axis=-1), 0),
        1 - clean[2],
    ]
    return tensor(*restored), tensor(*clean)


def rounded_gray(picture: torch.Tensor) -> np.ndarray:
    """MATLAB's `rgb2gray` of a uint8 picture."""
    red, green, blue = (picture.double().numpy() * 255).round()
    return np.floor(0.298936021293775 * red + 0.587043074451121 * green + 0.114020904255103 * blue + 0.5)


def ssim_index_m(x: np.ndarray, y: np.ndarray) -> float:
    """Wang's `ssim_index.m`, line by line: `fspecial('gaussian', 11, 1.5)`, `filter2(..., 'valid')`, L = 255."""
    at = np.arange(-5, 6)
    window = np.exp(-(at[:, None] ** 2 + at**2) / (2 * 1.5**2))
    window /= window.sum()

    def mean(z: np.ndarray) -> np.ndarray:
        return scipy.signal.convolve2d(z, window, mode="valid")

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    return float(np.mean((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))))


def msssim_of_gray(x: np.ndarray, y: np.ndarray) -> float:
    """The paper's eq. 7 in double precision, by scipy alone."""
    weights = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
    score = 1.0
    for scale, weight in enumerate(weights, 1):
        inner = (slice(5, -5), slice(5, -5))

        def mean(z: np.ndarray, inner: tuple = inner) -> np.ndarray:
            return scipy.ndimage.gaussian_filter(z, 1.5, radius=5)[inner]

        mx, my = mean(x), mean(y)
        vx, vy, cov = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
        part = (2 * cov + 0.03**2) / (vx + vy + 0.03**2)
        if scale == 5:
            part = part * (2 * mx * my + 0.01**2) / (mx**2 + my**2 + 0.01**2)
        score *= max(part.mean(), 0) ** weight
        even = tuple(slice(0, side // 2 * 2) for side in x.shape)
        x, y = (z[even].reshape(z.shape[0] // 2, 2, -1, 2).mean((1, 3)) for z in (x, y))
    return score


def test_the_matlab_convention_is_ssim_index_m(pairs) -> None:
    found = ssim(*pairs, convention=CONVENTIONS["matlab"])
    expected = [ssim_index_m(rounded_gray(x), rounded_gray(y)) for x, y in zip(*pairs)]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
    assert expected[2] < 0 < expected[0] < 0.9


def test_conventions_differ_so_much_that_a_score_without_one_says_little(pairs) -> None:
    seven = replace(CONVENTIONS["skimage"], window="uniform", sample_covariance=True)
    scores = [ssim(*pairs, convention=how)[0].item() for how in (*CONVENTIONS.values(), seven)]
    assert max(scores) - min(scores) > 0.05


def test_ms_ssim_is_that_of_torchmetrics(pairs) -> None:
    theirs = MultiScaleStructuralSimilarityIndexMeasure(data_range=1.0, reduction="none")(*(x.double() for x in pairs))
    assert theirs[2] == 0, "a negative scale counts as nothing"
    np.testing.assert_allclose(ms_ssim(*pairs).numpy(), theirs.numpy(), atol=1e-5)


def test_ms_ssim_of_luma_is_the_papers_formula(pairs) -> None:
    how = CONVENTIONS["y-channel"]
    for x, y in zip(*pairs):
        luma = [skimage.color.rgb2ycbcr(z.permute(1, 2, 0).double().numpy())[..., 0] / 255 for z in (x, y)]
        assert ms_ssim(x[None], y[None], convention=how).item() == pytest.approx(msssim_of_gray(*luma), abs=1e-5)


def test_ms_ssim_of_identical_pictures_is_one_and_falls_as_noise_grows() -> None:
    clean = skimage.data.chelsea()[:200, :240].astype(np.float32) / 255
    scores = [ms_ssim(tensor(noisy(clean, sigma)), tensor(clean)).item() for sigma in (0, 5, 10, 20, 40, 80)]
    assert scores[0] == 1
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] < scores[1] - 0.1


def test_ms_ssim_has_a_value_from_176_pixels_on() -> None:
    side = MS_SSIM_MINIMUM_PX
    a, b = torch.rand(1, 3, side, side + 3), torch.rand(1, 3, side, side + 3)
    assert ms_ssim(a, b).isfinite().all()
    assert ms_ssim(a[..., 1:, :], b[..., 1:, :]).isnan().all()


def test_ms_ssim_is_the_same_alone_and_in_a_batch_and_keeps_to_the_border(pairs) -> None:
    alone = torch.cat([ms_ssim(x[None], y[None]) for x, y in zip(*pairs)])
    torch.testing.assert_close(ms_ssim(*pairs), alone, atol=1e-9, rtol=0)
    inner = [x[..., 5:-5, 5:-5] for x in pairs]
    how = replace(CONVENTIONS["skimage"], border_px=5)
    assert torch.equal(score_batch(*pairs, metrics=("ms_ssim",), convention=how)["ms_ssim"], ms_ssim(*inner))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_scores_as_the_cpu_does(pairs) -> None:
    there = ms_ssim(*(x.cuda() for x in pairs)).cpu()
    torch.testing.assert_close(there, ms_ssim(*pairs), atol=1e-5, rtol=0)
