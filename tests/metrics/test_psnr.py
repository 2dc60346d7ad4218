"""PSNR and SSIM against scikit-image and against values known from the literature."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import skimage
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from restore.errors import RestoreError
from restore.metrics import CONVENTIONS, find_convention, psnr, score_batch, ssim

MATLAB_LUMA = [0.298936021293775, 0.587043074451121, 0.114020904255103]


def reference_ssim(x: np.ndarray, y: np.ndarray, data_range: float = 1) -> float:
    return structural_similarity(
        *(i.astype(float) for i in (x, y)),
        data_range=data_range,
        channel_axis=-1 if x.ndim == 3 else None,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )


def picture(name: str, height: int = 200, width: int = 240) -> np.ndarray:
    return getattr(skimage.data, name)()[:height, :width].astype(np.float32) / 255


def noisy(image: np.ndarray, sigma: float, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, sigma / 255, image.shape)
    return np.clip(np.round((image + noise) * 255), 0, 255).astype(np.float32) / 255


def tensor(*images: np.ndarray) -> torch.Tensor:
    return torch.stack([torch.from_numpy(i[None] if i.ndim == 2 else i.transpose(2, 0, 1).copy()) for i in images])


@pytest.fixture(scope="module")
def pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    clean = [picture(name) for name in ("astronaut", "chelsea", "rocket", "coffee")]
    blurred = skimage.filters.gaussian(clean[3], 2, channel_axis=-1).astype(np.float32)
    return [
        (noisy(clean[0], 25), clean[0]),
        (noisy(clean[1], 1), clean[1]),
        (noisy(clean[2], 80), clean[2]),
        (blurred, clean[3]),
    ]


def test_psnr_of_ones_against_twos_at_range_255_is_the_known_value() -> None:
    ones, twos = (torch.full((1, 3, 8, 8), v / 255, dtype=torch.float64) for v in (1, 2))
    assert psnr(ones, twos).item() == pytest.approx(48.1308036086791, abs=1e-9)


def test_the_noisy_cameraman_scores_what_is_published() -> None:
    camera = skimage.data.camera()
    np.random.seed(5)  # noqa: NPY002 - the published value hangs on this generator
    with_noise = np.clip(camera + 20 * np.random.randn(*camera.shape), 0, 255).astype(camera.dtype)  # noqa: NPY002
    a, b = (tensor(i.astype(np.float32) / 255) for i in (with_noise, camera))
    assert psnr(a, b).item() == pytest.approx(22.409353, abs=1e-5)
    assert ssim(a, b).item() == pytest.approx(0.357959, abs=1e-4)
    seven = replace(CONVENTIONS["skimage"], window="uniform", sample_covariance=True)
    assert ssim(a, b, convention=seven).item() == pytest.approx(0.367451832791, abs=1e-5)


def test_scores_equal_scikit_image_on_every_picture_of_a_batch(pairs) -> None:
    a, b = tensor(*(p[0] for p in pairs)), tensor(*(p[1] for p in pairs))
    expected_psnr = [peak_signal_noise_ratio(y, x, data_range=1) for x, y in pairs]
    expected_ssim = [reference_ssim(x, y) for x, y in pairs]
    np.testing.assert_allclose(psnr(a, b).numpy(), expected_psnr, atol=1e-5)
    np.testing.assert_allclose(ssim(a, b).numpy(), expected_ssim, atol=1e-6)
    assert psnr(a, b).dtype == ssim(a, b).dtype == torch.float64


def test_ssim_close_to_one_is_exact_in_float32() -> None:
    # a bright flat picture is where E[x²] − E[x]² cancels
    clean = np.full((64, 64), 250 / 255) + np.random.default_rng(1).normal(0, 0.5 / 255, (64, 64))
    almost = clean + np.random.default_rng(2).normal(0, 0.1 / 255, (64, 64))
    expected = reference_ssim(almost, clean)
    a, b = (tensor(i.astype(np.float32)) for i in (almost, clean))
    assert ssim(a, b).item() == pytest.approx(expected, abs=1e-6)
    assert expected > 0.999


def test_the_matlab_convention_is_ssim_of_rounded_gray(pairs) -> None:
    for x, y in pairs:
        gray = [np.floor(255 * (i.astype(float) @ MATLAB_LUMA) + 0.5) for i in (x, y)]
        score = ssim(tensor(x), tensor(y), convention=CONVENTIONS["matlab"])
        assert score.item() == pytest.approx(reference_ssim(*gray, data_range=255), abs=1e-4)


def test_the_y_channel_convention_is_luma_in_16_to_235(pairs) -> None:
    for x, y in pairs:
        luma = [skimage.color.rgb2ycbcr(i.astype(float))[..., 0] for i in (x, y)]
        scores = score_batch(tensor(x), tensor(y), convention=CONVENTIONS["y-channel"])
        expected = peak_signal_noise_ratio(*luma, data_range=255)
        assert scores["psnr"].item() == pytest.approx(expected, abs=1e-4)
        assert scores["ssim"].item() == pytest.approx(reference_ssim(*luma, data_range=255), abs=1e-4)


def test_a_border_is_left_out_of_both_scores(pairs) -> None:
    x, y = pairs[0]
    cropped = score_batch(tensor(x[4:-4, 4:-4]), tensor(y[4:-4, 4:-4]))
    bordered = score_batch(tensor(x), tensor(y), convention=replace(CONVENTIONS["skimage"], border_px=4))
    assert bordered["psnr"].item() == cropped["psnr"].item()
    assert bordered["ssim"].item() == cropped["ssim"].item()


def test_an_image_scores_the_same_alone_and_in_any_batch(pairs) -> None:
    a, b = tensor(*(p[0] for p in pairs)), tensor(*(p[1] for p in pairs))
    for metric in (psnr, ssim):
        alone = torch.cat([metric(a[i : i + 1], b[i : i + 1]) for i in range(len(a))])
        torch.testing.assert_close(metric(a, b), alone, atol=1e-9, rtol=0)


def test_identical_pictures_are_infinitely_close() -> None:
    a = tensor(picture("astronaut", 32, 32))
    assert psnr(a, a).item() == math.inf
    assert ssim(a, a).item() == 1.0


def test_a_picture_smaller_than_the_window_has_no_ssim_but_a_psnr() -> None:
    a, b = torch.zeros(2, 3, 10, 40), torch.full((2, 3, 10, 40), 0.1)
    assert ssim(a, b).isnan().all()
    assert psnr(a, b).tolist() == pytest.approx([20, 20], abs=1e-5)
    assert not ssim(torch.zeros(1, 3, 11, 11), torch.ones(1, 3, 11, 11)).isnan().any()
    assert psnr(torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1)).item() == 0


def test_psnr_in_the_hole_counts_the_hole_alone() -> None:
    clean = tensor(picture("coffee", 40, 50))
    mask = torch.zeros(1, 1, 40, 50)
    mask[..., 5:15, 10:30] = 1
    restored = clean.clone()
    restored[..., 5:15, 10:30] += 0.1
    restored[..., 30:, :] = math.nan  # what lies outside must not matter
    assert psnr(restored, clean, mask=mask).item() == pytest.approx(20, abs=1e-4)
    assert psnr(clean, clean, mask=mask * 0).isnan().all()


def test_whole_picture_psnr_is_the_holes_inflated_by_the_share_of_the_hole() -> None:
    clean = tensor(picture("coffee", 40, 50))
    mask = torch.zeros(1, 1, 40, 50)
    mask[..., :4, :] = 1
    restored = clean + 0.05 * mask
    inflation = psnr(restored, clean) - psnr(restored, clean, mask=mask)
    assert inflation.item() == pytest.approx(-10 * math.log10(0.1), abs=1e-4)


def test_psnr_and_ssim_fall_as_noise_grows() -> None:
    clean = picture("chelsea")
    scores = [score_batch(tensor(noisy(clean, s)), tensor(clean)) for s in (2, 5, 10, 20, 40, 80)]
    for name in ("psnr", "ssim"):
        values = [s[name].item() for s in scores]
        assert values == sorted(values, reverse=True)


def test_pictures_of_different_size_are_never_compared() -> None:
    with pytest.raises(ValueError, match="equal shape"):
        psnr(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 9))
    with pytest.raises(ValueError, match="floating"):
        psnr(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


def test_an_unknown_convention_names_the_known_ones() -> None:
    with pytest.raises(RestoreError, match="skimage, matlab, y-channel") as caught:
        find_convention("matlap")
    assert caught.value.exit_code == 2
    assert "did you mean 'matlab'" in str(caught.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_scores_as_the_cpu_does(pairs) -> None:
    a, b = tensor(*(p[0] for p in pairs)), tensor(*(p[1] for p in pairs))
    for metric in (psnr, ssim):
        torch.testing.assert_close(metric(a.cuda(), b.cuda()).cpu(), metric(a, b), atol=1e-5, rtol=0)
