"""Motion blur of known length and angle is found and undone; images without it come back as they are."""

from __future__ import annotations

import math
from typing import Any

import pytest
import skimage.data
import torch
from torch import Tensor

from restore.degradations import degradation_from, keys
from restore.linear_light import from_linear, to_linear
from restore.restorers.classical import CLASSICAL
from restore.restorers.deblurring import find_motion


def photograph(subject: str = "astronaut", height: int = 320, width: int = 400) -> Tensor:
    pixels = getattr(skimage.data, subject)()[:height, :width]
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255


def degraded(clean: Tensor, *steps: dict[str, Any]) -> Tensor:
    return degradation_from([*steps, {"name": "quantize"}], "test")(clean, keys(0, last=[0]))[0]


def psnr(a: Tensor, b: Tensor) -> float:
    return -10 * math.log10((a - b).square().mean().item())


FILES: dict[str, list[dict[str, Any]]] = {
    "lossless": [],
    "noisy": [{"name": "noise", "sigma": 4}],
    "jpeg": [{"name": "jpeg", "quality": 85}],
}


@pytest.mark.parametrize(
    ("file", "length", "angle"), [("lossless", 3, 100), ("noisy", 9, 75), ("jpeg", 5, 20), ("jpeg", 17, 140)]
)
def test_the_length_and_angle_of_motion_are_found(file: str, length: int, angle: int) -> None:
    blurred = degraded(photograph(), {"name": "motion-blur", "length": length, "angle": angle}, *FILES[file])
    motion = find_motion(blurred[0].permute(1, 2, 0).numpy())
    assert motion is not None
    assert motion.length_px == pytest.approx(length, abs=0.6)
    assert abs((math.degrees(motion.angle) - angle + 90) % 180 - 90) < 4
    assert not motion.linear


def test_blur_of_a_camera_is_removed_in_linear_light() -> None:
    clean = photograph("coffee", 300)
    light = degradation_from([{"name": "motion-blur", "length": 9, "angle": 50}], "test")(
        to_linear(clean), keys(0, last=[0])
    )
    taken = (from_linear(light[0]) * 255).round() / 255
    motion = find_motion(taken[0].permute(1, 2, 0).numpy())
    assert motion is not None
    assert motion.linear
    assert psnr(CLASSICAL["deblur"]()(taken), clean) > psnr(taken, clean) + 3


def test_motion_is_found_beside_an_empty_border() -> None:
    blurred = degraded(photograph(), {"name": "motion-blur", "length": 9, "angle": 50}, *FILES["jpeg"])
    scan = torch.cat([blurred, torch.zeros_like(blurred)], dim=2)
    motion = find_motion(scan[0].permute(1, 2, 0).numpy())
    assert motion is not None
    assert motion.length_px == pytest.approx(9, abs=0.6)


def test_the_noise_behind_motion_is_measured() -> None:
    blurred = degraded(photograph(), {"name": "motion-blur", "length": 9, "angle": 75}, {"name": "noise", "sigma": 6})
    motion = find_motion(blurred[0].permute(1, 2, 0).numpy())
    assert motion is not None
    # Noise of three channels is weaker in the luminance.
    assert motion.noise == pytest.approx(6 * math.hypot(0.299, 0.587, 0.114), rel=0.25)


def test_long_motion_is_found_in_a_smaller_copy() -> None:
    clean = torch.nn.functional.interpolate(photograph(height=512, width=512), scale_factor=2, mode="bicubic").clamp(
        0, 1
    )
    blurred = degraded(clean, {"name": "motion-blur", "length": 34, "angle": 60})
    motion = find_motion(blurred[0].permute(1, 2, 0).numpy())
    assert motion is not None
    assert motion.length_px == pytest.approx(34, abs=1.5)
    assert math.degrees(motion.angle) == pytest.approx(60, abs=2)


@pytest.mark.parametrize(
    ("subject", "file", "gain"), [("astronaut", "lossless", 5), ("coffee", "noisy", 1.5), ("chelsea", "jpeg", 2)]
)
def test_motion_blur_is_removed(subject: str, file: str, gain: float) -> None:
    clean = photograph(subject, 300)
    blurred = degraded(clean, {"name": "motion-blur", "length": 9, "angle": 30}, *FILES[file])
    sharp = CLASSICAL["deblur"]()(blurred)
    assert psnr(sharp, clean) > psnr(blurred, clean) + gain


def test_edges_are_sharpened_too_although_what_lies_behind_them_is_unknown() -> None:
    clean = photograph("coffee", 360, 420)
    blurred = degraded(clean, {"name": "motion-blur", "length": 9, "angle": 30})
    clean, blurred = clean[..., 30:-30, 30:-30], blurred[..., 30:-30, 30:-30]
    edges = torch.ones_like(clean, dtype=torch.bool)
    edges[..., 8:-8, 8:-8] = False
    sharp = CLASSICAL["deblur"]()(blurred)
    assert psnr(sharp[edges], clean[edges]) > psnr(blurred[edges], clean[edges]) + 0.5


@pytest.mark.parametrize(
    ("subject", "steps"),
    [
        ("astronaut", []),
        ("coffee", FILES["noisy"]),
        ("chelsea", FILES["jpeg"]),
        ("coffee", [{"name": "blur", "sigma": 1.5}]),
    ],
)
def test_an_image_without_motion_comes_back_as_it_is(subject: str, steps: list[dict[str, Any]]) -> None:
    image = degraded(photograph(subject, 300), *steps)
    assert torch.equal(CLASSICAL["deblur"]()(image), image)


def out_of_focus(clean: Tensor, radius: int) -> Tensor:
    """An image convolved with a disc."""
    offsets = torch.arange(-radius, radius + 1)
    disc = (torch.hypot(offsets[:, None].float(), offsets[None].float()) <= radius + 0.3).float()
    padded = torch.nn.functional.pad(clean, (radius,) * 4, mode="replicate")
    return torch.nn.functional.conv2d(padded.transpose(0, 1), (disc / disc.sum())[None, None]).transpose(0, 1)


def enlarged(clean: Tensor, factor: int, mode: str) -> Tensor:
    """An image made smaller, and as large as before."""
    small = torch.nn.functional.avg_pool2d(clean, factor)
    return torch.nn.functional.interpolate(small, scale_factor=factor, mode=mode)


@pytest.mark.parametrize("radius", [3, 6])
def test_a_lens_out_of_focus_is_not_taken_for_motion(radius: int) -> None:
    image = degraded(out_of_focus(photograph("coffee"), radius))
    assert find_motion(image[0].permute(1, 2, 0).numpy()) is None


@pytest.mark.parametrize(("factor", "mode"), [(4, "nearest"), (4, "bilinear"), (3, "bicubic")])
def test_an_enlarged_image_is_not_taken_for_a_moved_one(factor: int, mode: str) -> None:
    image = degraded(enlarged(photograph("coffee", 324, 408), factor, mode).clamp(0, 1))
    assert find_motion(image[0].permute(1, 2, 0).numpy()) is None
