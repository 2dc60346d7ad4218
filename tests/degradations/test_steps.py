import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from skimage.filters import gaussian

from restore.degradations import degradation_from, keys
from restore.degradations.blur import MotionBlur, line_kernels
from restore.degradations.jpeg import jpeg, libjpeg, quantization_tables
from tests.degradations.measure import sampled


def photograph(height: int, width: int) -> torch.Tensor:
    """1×3×H×W in [0, 1]: a cut of the astronaut."""
    pixels = data.astronaut()[20 : 20 + height, 100 : 100 + width]
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255


def damaged(steps: list, clean: torch.Tensor, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return degradation_from(steps, "test")(clean, keys(seed, last=range(len(clean))))


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return -10 * math.log10(((a - b).double() ** 2).mean().item())


@pytest.mark.parametrize("sigma", [5, 25, 50])
def test_noise_has_the_asked_deviation_and_no_bias(sigma: int) -> None:
    clean = torch.full((2, 3, 128, 128), 0.5)
    noise = damaged([{"name": "noise", "sigma": sigma, "clip": False}], clean)[0] - clean
    assert noise.std() * 255 == pytest.approx(sigma, rel=0.01)
    assert noise.mean() * 255 == pytest.approx(0, abs=4 * sigma / math.sqrt(noise.numel()))
    assert abs(torch.corrcoef(torch.stack([noise[..., 1:].flatten(), noise[..., :-1].flatten()]))[0, 1]) < 0.02


def test_each_picture_draws_its_own_sigma() -> None:
    clean = torch.full((300, 3, 16, 16), 0.5)
    noise = damaged([{"name": "noise", "sigma": [0, 50], "clip": False}], clean)[0] - clean
    sigmas = noise.flatten(1).std(1) * 255
    assert sigmas.min() < 3
    assert sigmas.max() > 46
    assert sigmas.mean() == pytest.approx(25, abs=3)


def test_shot_noise_grows_with_the_square_root_of_brightness() -> None:
    clean = torch.tensor([0.0, 0.25, 1.0]).reshape(1, 1, 3, 1).expand(1, 3, 3, 20000)
    noise = (damaged([{"name": "noise", "sigma": 0, "shot": 20, "clip": False}], clean)[0] - clean) * 255
    assert noise.std(dim=(0, 1, 3)).tolist() == pytest.approx([0, 10, 20], rel=0.02)


def test_correlated_noise_keeps_its_deviation_and_makes_neighbours_alike() -> None:
    clean = torch.full((2, 3, 128, 128), 0.5)
    noise = (damaged([{"name": "noise", "sigma": 10, "correlation": 1, "clip": False}], clean)[0] - clean) * 255
    assert noise.std() == pytest.approx(10, rel=0.03)
    neighbours = torch.corrcoef(torch.stack([noise[..., 1:].flatten(), noise[..., :-1].flatten()]))[0, 1]
    # the autocorrelation of a Gaussian of deviation s at distance d is exp(−d²/4s²)
    assert neighbours == pytest.approx(math.exp(-0.25), abs=0.03)


def test_gray_noise_is_alike_in_all_channels() -> None:
    clean = torch.full((1, 3, 32, 32), 0.5)
    noise = damaged([{"name": "noise", "sigma": 10, "gray": 1.0}], clean)[0] - clean
    assert torch.equal(noise[:, 0], noise[:, 2])


def test_clipping_is_the_only_thing_that_keeps_noise_within_the_range() -> None:
    clean = torch.ones(1, 3, 32, 32)
    assert damaged([{"name": "noise", "sigma": 20}], clean)[0].max() == 1
    assert damaged([{"name": "noise", "sigma": 20, "clip": False}], clean)[0].max() > 1.1


def test_quantize_gives_what_a_file_can_hold() -> None:
    out = damaged([{"name": "quantize"}], photograph(16, 16) * 1.3 - 0.1 + 0.001)[0]
    assert torch.equal(out, (out * 255).round() / 255)
    assert 0 <= out.min() <= out.max() <= 1


def pillow_jpeg(image: torch.Tensor, quality: int, *, subsampled: bool) -> torch.Tensor:
    file = io.BytesIO()
    pixels = (image[0].permute(1, 2, 0) * 255).round().byte().numpy()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=2 if subsampled else 0)
    return torch.from_numpy(np.array(Image.open(file)).astype(np.float32)).permute(2, 0, 1)[None] / 255


@pytest.mark.parametrize("subsampled", [False, True])
@pytest.mark.parametrize("quality", [10, 30, 50, 90])
def test_jpeg_on_a_cpu_is_exactly_that_of_pillow(quality: int, subsampled: bool) -> None:
    clean = photograph(203, 157)
    step = {"name": "jpeg", "quality": quality, "chroma_subsampling_prob": float(subsampled)}
    assert torch.equal(damaged([step], clean)[0], pillow_jpeg(clean, quality, subsampled=subsampled))


@pytest.mark.parametrize("misaligned", [False, True])
@pytest.mark.parametrize("subsampled", [False, True])
@pytest.mark.parametrize("quality", [10, 30, 50, 90])
def test_jpeg_on_tensors_is_close_to_libjpeg(quality: int, subsampled: bool, misaligned: bool) -> None:
    step = {
        "name": "jpeg", "quality": quality, "chroma_subsampling_prob": float(subsampled),
        "misaligned_grid_prob": float(misaligned),
    }  # fmt: skip
    clean = photograph(203, 157)
    exact, tensors = damaged([step], clean)[0], damaged([{**step, "implementation": "tensor"}], clean)[0]
    levels = ((exact - tensors).abs() * 255).round()
    assert levels.mean() <= 0.5
    assert levels.quantile(0.99) <= 4
    assert levels.max() <= 60
    assert psnr(tensors, clean) == pytest.approx(psnr(exact, clean), abs=0.1)


def test_jpeg_clips_what_a_step_before_left_outside_the_range() -> None:
    clean = photograph(24, 24)
    assert torch.equal(libjpeg(clean[0] * 3 - 1, 50, True), libjpeg((clean[0] * 3 - 1).clamp(0, 1), 50, True))


@pytest.mark.parametrize("subsampled", [False, True])
@pytest.mark.parametrize("quality", [10, 30, 50, 75, 90])
def test_jpeg_is_that_of_libjpeg(quality: int, subsampled: bool) -> None:
    clean = photograph(203, 157)  # no multiple of 8 or 16
    reference = pillow_jpeg(clean, quality, subsampled=subsampled)
    ours = jpeg(clean, torch.tensor([quality]), subsampled=subsampled)
    # measured 45 dB and more; libjpeg's integer transform decides some roundings otherwise
    assert psnr(ours, reference) > 43
    assert psnr(ours, clean) == pytest.approx(psnr(reference, clean), abs=0.1)


@pytest.mark.parametrize("quality", [1, 25, 50, 90, 100])
def test_quantization_tables_are_those_of_libjpeg(quality: int) -> None:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", quality=quality)
    tables = Image.open(file).quantization
    luminance, chrominance = quantization_tables(quality)
    assert sorted(v for row in luminance for v in row) == sorted(tables[0])
    assert sorted(v for row in chrominance for v in row) == sorted(tables[1])


def test_a_shifted_jpeg_grid_starts_elsewhere() -> None:
    clean = photograph(64, 64)
    start = (torch.tensor([3]), torch.tensor([5]))
    moved = jpeg(clean, torch.tensor([10]), subsampled=False, start=start)
    cut = jpeg(clean[..., 5:, 3:], torch.tensor([10]), subsampled=False)  # block edges lie 8 − 3 and 8 − 5 pixels in
    torch.testing.assert_close(moved[..., 5:53, 3:51], cut[..., :48, :48], rtol=0, atol=1e-6)


def test_grayscale_is_the_luma_of_pillow() -> None:
    clean = photograph(40, 50)
    out = damaged([{"name": "grayscale"}], clean)[0]
    pixels = Image.fromarray((clean[0].permute(1, 2, 0) * 255).round().byte().numpy())
    reference = torch.from_numpy(np.array(pixels.convert("L")).astype(np.float32) / 255)
    assert torch.equal(out[:, 0], out[:, 1])
    assert torch.equal(out[:, 0], out[:, 2])
    torch.testing.assert_close(out[0, 0], reference, rtol=0, atol=0.51 / 255)


def test_films_see_colours_each_in_its_own_way_and_gray_as_it_is() -> None:
    gray = torch.full((200, 3, 1, 1), 0.25)
    torch.testing.assert_close(damaged([{"name": "grayscale", "weight_jitter": 1}], gray)[0], gray)
    red = torch.tensor([1.0, 0, 0]).reshape(1, 3, 1, 1).expand(200, -1, -1, -1)
    full, half = (damaged([{"name": "grayscale", "weight_jitter": lean}], red)[0][:, 0].flatten() for lean in (1, 0.5))
    assert full.min() < 0.05
    assert full.max() > 0.8
    assert full.mean() == pytest.approx(1 / 3, abs=0.06)
    torch.testing.assert_close(half, 0.5 * full + 0.5 * 0.299)


def test_gaussian_blur_is_that_of_scikit_image() -> None:
    clean = photograph(60, 70)
    for sigma in (0.5, 1.7):
        out = damaged([{"name": "blur", "sigma": sigma}], clean)[0]
        reference = gaussian(clean[0].permute(1, 2, 0).numpy(), sigma, mode="nearest", truncate=3, channel_axis=2)
        # the taps end at 3 σ, rounded up here and to the nearest there
        np.testing.assert_allclose(out[0].permute(1, 2, 0).numpy(), reference, atol=2e-3)


def test_blur_of_no_width_changes_nothing() -> None:
    clean = photograph(20, 20)
    torch.testing.assert_close(damaged([{"name": "blur", "sigma": 0}], clean)[0], clean)
    torch.testing.assert_close(damaged([{"name": "motion-blur", "length": 0}], clean)[0], clean)


def test_motion_blurs_along_its_line_alone() -> None:
    point = torch.zeros(1, 3, 21, 21)
    point[..., 10, 10] = 1
    out = MotionBlur(length=(7, 7), angle=(0, 0)).apply(
        point, {"length": torch.tensor([7.0]), "angle": torch.tensor([0.0])}
    )[0]
    assert out.sum().item() == pytest.approx(3, abs=1e-5)
    assert torch.count_nonzero(out[0, 0].sum(1) > 1e-6) == 1
    assert torch.count_nonzero(out[0, 0].sum(0) > 1e-3) in (7, 9)
    assert line_kernels(torch.tensor([5.0]), torch.tensor([0.7]), 9).sum().item() == pytest.approx(1)


@pytest.mark.parametrize("angle", [0, 30, 90, 150])
def test_motion_blurs_over_the_asked_length_in_the_asked_direction(angle: int) -> None:
    point = torch.zeros(1, 3, 41, 41)
    point[..., 20, 20] = 1
    spread = damaged([{"name": "motion-blur", "length": 15, "angle": angle}], point)[0][0, 0]
    y, x = 20 - torch.arange(41.0)[:, None], torch.arange(41.0) - 20  # y upwards
    xx, yy, xy = ((spread * product).sum().item() for product in (x * x, y * y, x * y))
    assert math.degrees(0.5 * math.atan2(2 * xy, xx - yy)) % 180 == pytest.approx(angle, abs=1)
    # The variance of a line of length l is l²/12; linear interpolation adds a little.
    assert math.sqrt(12 * (xx + yy)) == pytest.approx(15, abs=0.6)


@pytest.mark.parametrize("factor", [2, 3])
def test_downscaling_is_that_of_pillow(factor: int) -> None:
    clean = photograph(120, 150)
    image = Image.fromarray((clean[0].permute(1, 2, 0) * 255).round().byte().numpy())
    small = image.resize((150 // factor, 120 // factor), Image.Resampling.BICUBIC)
    reference = np.asarray(small.resize((150, 120), Image.Resampling.BICUBIC)) / 255
    out = damaged([{"name": "downscale", "factor": factor}], clean)[0][0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(out, reference, atol=3 / 255)
    factors = sampled({"name": "downscale", "factor": [2, 4]}, 500)["factor"]
    assert 2 <= factors.min() < factors.max() <= 4


def test_the_settings_of_jpeg_have_their_shares() -> None:
    step = {"name": "jpeg", "quality": [10, 95], "misaligned_grid_prob": 0.5, "chroma_subsampling_prob": 0.3}
    params = sampled(step, 1000)
    assert params["quality"].double().mean().item() == pytest.approx(52.5, abs=2)
    assert (params["quality"].min(), params["quality"].max()) == (10, 95)
    assert params["subsampled"].double().mean().item() == pytest.approx(0.3, abs=0.04)
    moved = (params["top"] > 0) | (params["left"] > 0)
    assert moved.double().mean().item() == pytest.approx(0.5, abs=0.04)
    assert (params["top"].max(), params["left"].max()) == (15, 15)


def test_downscaling_takes_away_what_a_smaller_picture_cannot_hold() -> None:
    stripes = (torch.arange(64) % 2).float().expand(1, 3, 64, 64)
    out = damaged([{"name": "downscale", "factor": 2}], stripes)[0]
    assert out[..., 8:-8].std() < 0.05
    assert out.mean() == pytest.approx(0.5, abs=0.02)
    slope = torch.linspace(0.1, 0.9, 64).expand(1, 3, 64, 64)
    for mode in ("bicubic", "bilinear", "area"):
        kept = damaged([{"name": "downscale", "factor": 2, "down": [mode]}], slope)[0]
        torch.testing.assert_close(kept[..., 8:-8], slope[..., 8:-8], rtol=0, atol=5e-3)


def test_fading_keeps_the_order_of_tones() -> None:
    steps = [{"name": "fade", "saturation": 1, "black": [0.1, 0.3], "white": [0.6, 0.9], "cast": 0.1}]
    ramp = torch.linspace(0, 1, 256).expand(20, 3, 1, 256)
    out = damaged(steps, ramp)[0]
    assert (out.diff(dim=-1) > 0).all()
    assert (out[..., -1] - out[..., 0]).max() < 0.9
    assert out[:, 0].mean() > out[:, 2].mean()  # towards yellow-red


def test_fading_is_the_documented_curve() -> None:
    clean = photograph(40, 50)
    step = {"name": "fade", "black": 0.1, "white": 0.8, "gamma": 1.5, "saturation": 0.6, "cast": 0}
    gray = (clean * torch.tensor([0.299, 0.587, 0.114]).reshape(3, 1, 1)).sum(1, keepdim=True)
    expected = 0.1 + 0.7 * (gray + 0.6 * (clean - gray)) ** 1.5
    torch.testing.assert_close(damaged([step], clean)[0], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("warmth", "red", "blue"), [(1, 0.9, -0.9), (-1, -0.9, 0.9), (0, 0, 0)])
def test_the_cast_of_a_faded_print_is_half_as_large_at_black_and_twice_in_gamma(
    warmth: float, red: float, blue: float
) -> None:
    step = {"name": "fade", "black": 0.2, "white": 0.8, "gamma": 1.2, "cast": 0.1, "warmth": warmth}
    params = sampled(step, 1000)
    shift = (params["black"] - 0.2) / 0.5
    torch.testing.assert_close(params["white"], 0.8 + shift.clamp(max=0))
    torch.testing.assert_close(params["gamma"], 1.2 - 2 * shift)
    assert shift.abs().max() <= 0.1 + 1e-9
    assert shift.mean(0) == pytest.approx([0.1 * red, 0.02 * warmth, 0.1 * blue], abs=0.004)


def test_sharpening_is_that_of_scikit_image() -> None:
    clean = photograph(60, 70)
    for sigma, amount in ((0.6, 1.2), (1.5, 0.5)):
        out = damaged([{"name": "sharpen", "sigma": sigma, "amount": amount}], clean)[0]
        pixels = clean[0].permute(1, 2, 0).numpy()
        blurred = gaussian(pixels, sigma, mode="nearest", truncate=3, channel_axis=2)
        reference = np.clip(pixels + amount * (pixels - blurred), 0, 1)
        np.testing.assert_allclose(out[0].permute(1, 2, 0).numpy(), reference, atol=4e-3)


def test_sharpening_has_its_own_strength_per_picture_and_keeps_flat_tones() -> None:
    edge = (torch.arange(64) >= 32).float().expand(200, 3, 8, 64) * 0.2 + 0.4
    out = damaged([{"name": "sharpen", "sigma": [0.8, 2], "amount": [0.2, 1.5]}], edge)[0]
    torch.testing.assert_close(out[..., :20], edge[..., :20])
    over = out.amax((1, 2, 3)) - 0.6
    assert over.min() < 0.04
    assert over.max() > 0.1


def waves(step: dict, count: int = 12, side: int = 128) -> list[tuple[np.ndarray, np.ndarray]]:
    """The frequencies (in cycles per pixel) of the waves of a paper's texture, [n, 2] (y, x), and their amplitudes."""
    texture = damaged([{"name": "paper-texture", **step}], torch.full((count, 3, side, side), 0.5))[0][:, 0] - 0.5
    found = []
    for one in texture.numpy() / 0.625:
        window = np.outer(np.hanning(side), np.hanning(side))
        power = np.abs(np.fft.fft2(one * window))[:, : side // 2] / window.sum() * 2
        rows = []
        while power.max() > 0.2 * (rows[0][2] if rows else 1e-3):
            y, x = np.unravel_index(power.argmax(), power.shape)
            rows.append((np.fft.fftfreq(side)[y], x / side, power[y, x]))
            for dy in range(-3, 4):
                power[(y + dy) % side, max(0, x - 3) : x + 4] = 0
                if x < 3:  # the same wave, seen from the other side
                    power[(-y + dy) % side, : 4 - x] = 0
        found.append((np.array(rows)[:, :2], np.array(rows)[:, 2]))
    return found


def test_paper_is_a_square_or_hexagonal_lattice_of_the_asked_period() -> None:
    numbers = []
    for frequencies, amplitudes in waves({"period": 6, "amplitude": 0.1}, 24):
        numbers.append(len(frequencies))
        assert 1 / np.hypot(*frequencies.T) == pytest.approx(6, rel=0.06)
        angles = np.sort(np.arctan2(*frequencies.T) % math.pi)
        apart = np.diff([*angles, angles[0] + math.pi])
        assert apart == pytest.approx(math.pi / len(angles), abs=0.15)
        assert amplitudes == pytest.approx({2: 0.058, 3: 0.047}[len(angles)], rel=0.3)
    assert set(numbers) == {2, 3}
    assert 0.25 < np.mean(np.array(numbers) == 2) < 0.75


def test_the_texture_of_paper_is_fainter_in_the_dark_and_stays_within_the_range() -> None:
    step = [{"name": "paper-texture", "amplitude": 0.05}]
    dark, light = (damaged(step, torch.full((4, 3, 64, 64), tone))[0].std().item() for tone in (0.2, 0.8))
    assert light / dark == pytest.approx(0.85 / 0.4, rel=0.02)
    step = [{"name": "paper-texture", "amplitude": 0.5}]
    for tone in (0.0, 1.0):
        out = damaged(step, torch.full((4, 3, 32, 32), tone))[0]
        assert 0 <= out.min() <= out.max() <= 1
    fine, coarse = (waves({"period": period, "amplitude": 0.1}, 2) for period in (4, 12))
    assert fine[0][0] == pytest.approx(3 * coarse[0][0], abs=0.02)
