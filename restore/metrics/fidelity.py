"""PSNR and SSIM of picture pairs: batched, on any device, one score per image, under a named convention."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from restore.errors import RestoreError

SSIM_MINIMUM_PX = 11
"""Side below which SSIM has no value: its Gaussian window does not fit."""

HOLE_THRESHOLD = 0.5
"""A pixel belongs to the hole where the mask is at least this."""


@dataclass(frozen=True)
class Convention:
    """How PSNR and SSIM are computed. A score without its convention is noise.

    Attributes:
        name: what `--convention` calls it.
        psnr_colour: what PSNR compares: `rgb`, or `y-studio`: Y' of BT.601 in studio swing, not rounded.
        ssim_colour: what SSIM compares (the mean over channels); also `gray-8bit`: luma rounded to 8 bits.
        window: `gaussian` is 11×11 with σ = 1.5; `uniform` is 7×7, all weights equal.
        sample_covariance: covariances are divided by N − 1 instead of by N.
        border_px: rows and columns left out at every side, of both metrics.
    """

    name: str
    psnr_colour: Literal["rgb", "y-studio"] = "rgb"
    ssim_colour: Literal["rgb", "gray-8bit", "y-studio"] = "rgb"
    window: Literal["gaussian", "uniform"] = "gaussian"
    sample_covariance: bool = False
    border_px: int = 0

    def describe(self) -> dict[str, dict[str, object]]:
        """Both metrics' conventions as plain values, for reports."""
        window = "11x11 Gaussian, sigma 1.5" if self.window == "gaussian" else "7x7 uniform"
        return {
            "psnr": {
                "colour": _COLOUR_WORDS[self.psnr_colour],
                "data_range": 1.0,
                "border_px": self.border_px,
                "region": "whole picture",
                "error": "mean over pixels and channels, per image",
            },
            "ssim": {
                "colour": _COLOUR_WORDS[self.ssim_colour],
                "data_range": 1.0,
                "window": window,
                "covariance": "sample" if self.sample_covariance else "population",
                "k1": _K1,
                "k2": _K2,
                "border_px": self.border_px,
                "region": "where the window lies inside the picture",
            },
        }


CONVENTIONS = {
    "skimage": Convention("skimage"),
    "matlab": Convention("matlab", ssim_colour="gray-8bit"),
    "y-studio": Convention("y-studio", psnr_colour="y-studio", ssim_colour="y-studio"),
}
"""`skimage`: RGB, as scikit-image with the settings of Wang et al. `matlab`: PSNR over RGB, SSIM on rounded
gray, as Wang's `ssim_index.m`. `y-studio`: both on studio-swing luma, as in super-resolution papers."""

_COLOUR_WORDS = {
    "rgb": "sRGB, all channels",
    "gray-8bit": "BT.601 luma of sRGB, rounded to 8 bits",
    "y-studio": "Y of YCbCr BT.601, studio swing 16-235 of 255, not rounded",
}
# Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment", IEEE TIP 13 (2004), section III.C
_K1, _K2 = 0.01, 0.03

# Pixels that are worked on at once: on a processor they should fit its cache, on a GPU fill it.
_STRIP_PX_CPU, _STRIP_PX_GPU = 2**15, 2**23


def find_convention(name: str) -> Convention:
    """A convention by name.

    Raises:
        RestoreError: no such convention; the known ones are named.
    """
    if name in CONVENTIONS:
        return CONVENTIONS[name]
    near = difflib.get_close_matches(name, CONVENTIONS, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise RestoreError(f"no convention is called {name!r}", hint=f"{hint}known: {', '.join(CONVENTIONS)}")


@torch.no_grad()
def psnr(
    a: Tensor, b: Tensor, *, mask: Tensor | None = None, convention: Convention = CONVENTIONS["skimage"]
) -> Tensor:
    """Peak signal-to-noise ratio in dB, per image, with the errors summed in double precision.

    Args:
        a: float, B×C×H×W with C 1 or 3, sRGB, [0, 1].
        b: the same shape; the order of the two does not matter.
        mask: float, B×1×H×W, 1 = missing: only the hole is scored, that is where the mask is ≥ 0.5; None
            scores the whole picture. Outside the hole any values, also non-finite ones, are ignored.
        convention: which colour channels, and how much border is left out.

    Returns:
        float64, B, on the device of `a`. Infinite for identical pictures; NaN for a mask without a hole.
    """
    _check(a, b, mask)
    a, b = _cropped(a, convention.border_px), _cropped(b, convention.border_px)
    hole = None if mask is None else _cropped(mask, convention.border_px).to(a.device) >= HOLE_THRESHOLD
    total, count = _float64_zeros(a), _float64_zeros(a)
    for rows in _strips(a, 0):
        x, y = (_exact(_channels(t[..., rows, :], convention.psnr_colour)) for t in (a, b))
        error = (x - y).square()
        inside = torch.ones_like(error[:, :1]) if hole is None else _exact(hole[..., rows, :])
        total += torch.where(inside > 0, error, 0.0).sum(dim=(1, 2, 3))
        count += inside.sum(dim=(1, 2, 3)) * error.shape[1]
    mse = total / count
    return -10 * torch.log10(mse)


@torch.no_grad()
def ssim(a: Tensor, b: Tensor, *, convention: Convention = CONVENTIONS["skimage"]) -> Tensor:
    """Structural similarity, per image: the mean of Wang et al. 2004, eq. 13, over pixels and channels.

    Args:
        a: float, B×C×H×W with C 1 or 3, sRGB, [0, 1].
        b: the same shape; the order of the two does not matter.
        convention: colour, window, covariance and border.

    Returns:
        float64, B, on the device of `a`: 1 for identical pictures. NaN where the window does not fit
        (`SSIM_MINIMUM_PX`).
    """
    _check(a, b, None)
    a, b = _cropped(a, convention.border_px), _cropped(b, convention.border_px)
    taps = _window_taps(convention)
    margin = len(taps) - 1
    if min(a.shape[-2:]) <= margin:
        return _float64_zeros(a) * math.nan
    total, count = _float64_zeros(a), 0
    for rows in _strips(a, margin):
        x, y = (_channels(t[..., rows, :].float(), convention.ssim_colour) for t in (a, b))
        similarity = _ssim_map(x, y, taps, convention.sample_covariance)
        total += _exact(similarity).sum(dim=(1, 2, 3))
        count += similarity[0].numel()
    return total / count


def _ssim_map(x: Tensor, y: Tensor, taps: list[float], sample_covariance: bool) -> Tensor:
    """SSIM at every place where the window lies inside: B×C×(H − 10)×(W − 10) for 11 taps."""
    # Sum and difference instead of x and y: var(x) + var(y) = (var(s) + var(d)) / 2 and 2 cov(x, y) =
    # (var(s) − var(d)) / 2, likewise for the means. Four filters instead of five, and near 1 the score comes
    # from the small d alone, so that float32 is enough. The shift keeps E[s²] − E[s]² from cancelling.
    total, difference = x + y, x - y
    shift = total.mean(dim=(-2, -1), keepdim=True)
    total = total - shift
    stack = torch.stack([total, difference, total.square(), difference.square()])
    mean_total, mean_difference, square_total, square_difference = _filtered(stack, taps)
    count = len(taps) ** 2
    norm = count / (count - 1) if sample_covariance else 1.0
    var_total = norm * (square_total - mean_total.square())
    var_difference = norm * (square_difference - mean_difference.square())
    mean_total = mean_total + shift
    luminance = 1 - mean_difference.square() / ((mean_total.square() + mean_difference.square()) / 2 + _K1**2)
    structure = 1 - var_difference / ((var_total + var_difference) / 2 + _K2**2)
    return luminance * structure


def _window_taps(convention: Convention) -> list[float]:
    if convention.window == "uniform":
        return [1 / 7] * 7
    weights = [math.exp(-(offset**2) / (2 * 1.5**2)) for offset in range(-5, 6)]
    return [weight / sum(weights) for weight in weights]


def _filtered(x: Tensor, taps: list[float]) -> Tensor:
    """Valid separable filter by shifted sums: no TF32, and an image's result is the same in any batch."""
    radius = len(taps) // 2
    for dim in (-2, -1):
        length = x.shape[dim] - 2 * radius
        out = x.narrow(dim, radius, length) * taps[radius]
        for near in range(radius):
            pair = x.narrow(dim, near, length) + x.narrow(dim, 2 * radius - near, length)
            out.add_(pair, alpha=taps[near])
        x = out
    return x


def _channels(x: Tensor, colour: str) -> Tensor:
    if colour == "rgb":
        return x
    red, green, blue = x.expand(-1, 3, -1, -1).unbind(1) if x.shape[1] == 1 else x.unbind(1)
    if colour == "gray-8bit":  # the coefficients of MATLAB's rgb2gray; halves round up there
        gray = 0.298936021293775 * red + 0.587043074451121 * green + 0.114020904255103 * blue
        return (torch.floor(gray * 255 + 0.5) / 255)[:, None]
    # ITU-R BT.601: Y' in 16..235 for R'G'B' in 0..1
    return ((16 + 65.481 * red + 128.553 * green + 24.966 * blue) / 255)[:, None]


def _cropped(x: Tensor, border_px: int) -> Tensor:
    inner = slice(border_px, -border_px or None)
    return x[..., inner, inner]


def _strips(x: Tensor, margin: int) -> Iterator[slice]:
    """Ranges of rows that cover the picture, each with `margin` rows of the next: memory stays bounded."""
    pixels = _STRIP_PX_CPU if x.device.type == "cpu" else _STRIP_PX_GPU
    step = max(margin, 1, pixels // max(x.shape[-1], 1))
    for top in range(0, x.shape[-2] - margin, step):
        yield slice(top, min(top + step + margin, x.shape[-2]))


def _float64_zeros(x: Tensor) -> Tensor:
    return _exact(x.new_zeros(x.shape[0]))


def _exact(x: Tensor) -> Tensor:
    """In float64; Apple's GPUs have none, so there it comes to the CPU."""
    return (x.cpu() if x.device.type == "mps" else x).double()


def _check(a: Tensor, b: Tensor, mask: Tensor | None) -> None:
    if a.shape != b.shape or a.ndim != 4 or a.shape[1] not in (1, 3):
        raise ValueError(f"two batches B×C×H×W of equal shape, C 1 or 3: {tuple(a.shape)}, {tuple(b.shape)}")
    if not (a.is_floating_point() and b.is_floating_point()):
        raise ValueError(f"pictures are floating point in [0, 1], not {a.dtype} and {b.dtype}")
    if mask is not None and mask.shape != (a.shape[0], 1, *a.shape[2:]):
        raise ValueError(f"a mask is B×1×H×W: {tuple(mask.shape)} for {tuple(a.shape)}")
