"""Removes motion blur along a straight line, as a shaken camera leaves it, after finding its length and angle.

Such a blur multiplies the spectrum of an image by a sinc, whose zeros are parallel lines. `find_motion` looks for the
sinc that explains the spectrum best. `deconvolve` inverts it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restore.linear_light import from_linear, to_linear
from restore.restorers.noise_level import estimate_noise

FloatArray = NDArray[np.float32]

#: Shorter blur hardly differs from that of a soft lens.
SHORTEST_PX = 2.5
#: Smaller images have too few frequencies.
SMALLEST_PX = 128
#: Sharp photographs, too, show evidence below these limits: in sRGB values, and in linear light, where noise depends on
#: the brightness.
LEAST_EVIDENCE, LEAST_LINEAR_EVIDENCE = 0.18, 0.3

#: Side of the square tiles whose spectra are averaged.
_TILE_PX = 192
#: Tiles with less contrast than this share of the strongest are left out, and all beyond this number.
_LEAST_CONTRAST, _MOST_TILES = 0.15, 256
#: Frequency in cycles per pixel up to which spectra are compared. JPEG removes higher ones.
_HIGHEST = 0.3
#: Rounding to 8 bits leaves noise of this standard deviation, in 8-bit levels; and the levels that are compared.
_ROUNDING = 0.29
_NOISES = tuple(_ROUNDING * 1.3**step for step in range(17))

#: Weight of the data, times the variance of the noise; and the power of gradients in the prior.
_FIDELITY, _POWER = 0.03, 0.66
#: The blur is never exactly a line: the least noise that is assumed, in 8-bit levels.
_LEAST_NOISE = 0.55
#: How closely the gradients of the image follow the shrunk ones, iteration by iteration.
_COUPLINGS = (1, 1, 4, 4, 16, 16, 64, 64, 256, 256)


@dataclass(frozen=True)
class Motion:
    """Blur along a straight line.

    Attributes:
        length_px: length of the line.
        angle: of the line, counter-clockwise from horizontal, in radians, [0, π).
        evidence: share of the misfit of the spectrum that this blur explains, at most 1; the misfit is that of a sharp
            image, or of the same blur across the line if that is less.
        noise: standard deviation of the white noise that fits best, in 8-bit levels.
        linear: the blur happened in linear light, as in a camera, and not in sRGB values, as in a paint program.
    """

    length_px: float
    angle: float
    evidence: float
    noise: float
    linear: bool


def find_motion(image: FloatArray) -> Motion | None:
    """The straight motion that blurs the whole of an image, the same everywhere.

    It is looked for in linear light and in sRGB values; motion of about 3 to 21 px in the image, and longer motion in
    copies of a half, a quarter, ... of its size.

    Args:
        image: float32 H×W×3, sRGB, nominally [0, 1].

    Returns:
        None if no motion blur shows, or the image is less than `SMALLEST_PX` wide or high.
    """
    if not np.isfinite(image).all():
        return None
    encoded = torch.from_numpy(np.clip(image, 0, 1))
    found = [*_motions(encoded.numpy(), False), *_motions(to_linear(encoded).numpy(), True)]
    sure = [
        motion for motion in found if motion.evidence >= (LEAST_LINEAR_EVIDENCE if motion.linear else LEAST_EVIDENCE)
    ]
    best = max(sure, key=lambda motion: motion.evidence, default=None)
    return best if best is not None and best.length_px >= SHORTEST_PX else None


def _motions(image: FloatArray, linear: bool) -> Iterator[Motion]:
    """The best motion at every size of the image, which has values in [0, 1]."""
    gray: FloatArray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32) * 255
    scale = 1
    while min(gray.shape) >= SMALLEST_PX:
        tiles = _textured_tiles(gray)
        spectrum = _Spectrum(tiles)
        # JPEG leaves more than an estimate of white noise sees.
        estimate = max(estimate_noise(np.moveaxis(tiles, 0, -1)), _ROUNDING)
        _, length, angle = min(_search(spectrum, noise) for noise in (estimate, 3 * estimate))
        misfit, noise = spectrum.least_misfit(length, angle)
        # A lens out of focus and an enlargement blur across the line as much as along it.
        sharp, across = spectrum.least_misfit(0, 0), spectrum.least_misfit(length, angle + math.pi / 2)
        evidence = 1 - misfit / min(sharp, across)[0]
        yield Motion(length * scale, angle, evidence, noise * scale, linear)
        gray = cv2.resize(gray, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA).astype(np.float32, copy=False)
        scale *= 2


class _Spectrum:
    """The mean log power spectrum of an image, and how well a blur explains it.

    The model is P = S·|K|² + N: S is the smooth spectrum of a sharp photograph (log S is a linear combination of
    `_columns`), K the blur, N white noise.

    Args:
        tiles: float32, count×side×side, in 8-bit levels.
    """

    def __init__(self, tiles: FloatArray) -> None:
        power = _mean_log_power(tiles)
        side = power.shape[0]
        y, x = np.meshgrid(np.fft.fftfreq(side), np.fft.rfftfreq(side), indexing="ij")
        lowest = 2.5 / side
        # The axes hold what leaks from the borders of the tiles, and the blocks of JPEG.
        used = (np.hypot(x, y) > lowest) & (np.hypot(x, y) < _HIGHEST) & (abs(x) > lowest) & (abs(y) > lowest)
        self._x, self._y, self._power = x[used], y[used], power[used]
        self._basis = np.linalg.qr(_columns(self._x, self._y))[0].astype(np.float32)

    def misfit(self, length: float, angle: float, noise: float, every: int = 1) -> float:
        """Mean squared difference in log power, each at most 3, from the best fit.

        Args:
            length: of the blur, in pixels; 0: none.
            angle: of the blur, in radians.
            noise: standard deviation in 8-bit levels.
            every: only every N-th frequency is compared, which is faster.
        """
        x, y, power, basis = (values[::every] for values in (self._x, self._y, self._power, self._basis))
        gain = (np.sinc(length * (x * math.cos(angle) - y * math.sin(angle))) ** 2).astype(np.float32)
        # The power of noise has an exponential distribution; the mean of its logarithm is lower by Euler's constant.
        floor = np.float32(noise**2 * math.exp(-np.euler_gamma))
        # A first fit of what the blur leaves, then two Gauss-Newton steps.
        sharp = np.log(np.maximum(np.exp(power) - floor, 0.3 * floor)) - np.log(gain + 1e-3)
        kept = (gain > 0.05).astype(np.float32)
        fit = _least_squares(basis * kept[:, None], kept * sharp)
        for _ in range(2):
            signal = np.exp(np.clip(basis @ fit, -30, 30)) * gain
            fit = fit + _least_squares(basis * (signal / (signal + floor))[:, None], power - np.log(signal + floor))
        residual = power - np.log(np.exp(np.clip(basis @ fit, -30, 30)) * gain + floor)
        return float((np.minimum(np.abs(residual), 3) ** 2).mean())

    def least_misfit(self, length: float, angle: float) -> tuple[float, float]:
        """The least misfit of a blur with any noise, and the standard deviation of that noise; as for `misfit`."""
        return min((self.misfit(length, angle, noise), noise) for noise in _NOISES)


def _least_squares(columns: FloatArray, values: FloatArray) -> FloatArray:
    """The weights of the columns whose sum is closest to `values`, slightly regularized."""
    normal = columns.T @ columns + 1e-3 * np.eye(columns.shape[1], dtype=np.float32)
    solved: FloatArray = np.linalg.solve(normal, columns.T @ values)
    return solved


def _search(spectrum: _Spectrum, noise: float) -> tuple[float, float, float]:
    """Misfit, length in pixels and angle of the best motion: the best on a grid, moved in ever smaller steps."""
    _, length, angle = min(
        (spectrum.misfit(length, angle, noise, every=4), float(length), float(angle))
        for length in range(3, 22)
        for angle in np.arange(0, math.pi, 1 / length)
    )
    misfit = spectrum.misfit(length, angle, noise)
    for step in (0.5, 0.2, 0.07):
        moves = ((step, 0), (-step, 0), (0, step / 8), (0, -step / 8))
        while True:
            places = [(length + longer, angle + turned) for longer, turned in moves if length + longer > 1]
            best = min((spectrum.misfit(*place, noise), *place) for place in places)
            if best[0] >= misfit:
                break
            misfit, length, angle = best
    return misfit, length, angle % math.pi


def _columns(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """What log S combines: a curved power of the frequency, and two harmonics of the direction, also times log f."""
    log_f, direction = np.log(np.hypot(x, y)), np.arctan2(y, x)
    waves = [wave(2 * order * direction) for order in (1, 2) for wave in (np.cos, np.sin)]
    return np.stack([np.ones_like(log_f), log_f, log_f**2, *waves, *(wave * log_f for wave in waves)], axis=1)


def _mean_log_power(tiles: FloatArray) -> FloatArray:
    """Mean of the log power spectra of tiles under a Hann window, side×(side/2 + 1), from count×side×side.

    The power is scaled so that the mean for white noise is its variance.
    """
    side = tiles.shape[1]
    window = _hann(side)
    energy = float((window**2).sum())
    total: FloatArray = np.zeros((side, side // 2 + 1), np.float32)
    for tile in tiles:
        total += np.log(np.abs(np.fft.rfft2(tile * window)) ** 2 / energy + 1e-6)
    return total / np.float32(len(tiles))


def _textured_tiles(gray: FloatArray) -> FloatArray:
    """The overlapping tiles of an image with the most contrast, without their means, count×side×side.

    Tiles without texture, such as an empty sky or a border around a print, show no blur.
    """
    side = min(_TILE_PX, *gray.shape)
    window = _hann(side)

    def tile(corner: tuple[int, int]) -> FloatArray:
        pixels = gray[corner[0] : corner[0] + side, corner[1] : corner[1] + side]
        without_mean: FloatArray = pixels - (pixels * window).sum() / window.sum()
        return without_mean

    corners = [(top, left) for top in _starts(gray.shape[0], side) for left in _starts(gray.shape[1], side)]
    contrasts = np.array([(tile(corner) * window).std() for corner in corners])
    strongest = [i for i in np.argsort(-contrasts)[:_MOST_TILES] if contrasts[i] >= _LEAST_CONTRAST * contrasts.max()]
    return np.stack([tile(corners[i]) for i in strongest])


def _hann(side: int) -> FloatArray:
    """A square Hann window."""
    hann = np.sin(np.pi * (np.arange(side, dtype=np.float32) + 0.5) / side) ** 2
    return np.outer(hann, hann)


def _starts(length: int, side: int) -> list[int]:
    """Where tiles start that cover `length` and overlap by half."""
    return [round(start) for start in np.linspace(0, length - side, math.ceil(2 * (length - side) / side) + 1)]


def deconvolve(image: FloatArray, motion: Motion) -> FloatArray:
    """Invert a motion blur, with sparse gradients as a prior.

    Half-quadratic splitting as in Krishnan & Fergus 2009, "Fast image deconvolution using hyper-Laplacian priors", with
    the generalized shrinkage of Chartrand 2009, "Fast algorithms for nonconvex compressive sensing". What lies behind
    the edges of the image is estimated along with it.

    Args:
        image: float32 H×W×3, sRGB, nominally [0, 1].
        motion: the blur, and the noise behind it.

    Returns:
        float32 H×W×3, not clipped.
    """
    margin = 2 * math.ceil(motion.length_px) + 16
    wide = torch.from_numpy(np.pad(image, ((margin, margin), (margin, margin), (0, 0)), mode="edge")).permute(2, 0, 1)
    if motion.linear:
        wide = to_linear(wide)
    known = torch.zeros(wide.shape[1:], dtype=torch.bool)
    known[margin:-margin, margin:-margin] = True
    y, x = torch.fft.fftfreq(wide.shape[1])[:, None], torch.fft.rfftfreq(wide.shape[2])[None]
    blur = torch.sinc(motion.length_px * (x * math.cos(motion.angle) - y * math.sin(motion.angle)))
    # The power of the two differences between neighbors.
    steepness = 4 * (torch.sin(math.pi * x) ** 2 + torch.sin(math.pi * y) ** 2)
    fidelity = _FIDELITY / (max(motion.noise, _LEAST_NOISE) / 255) ** 2
    sharp = [_deconvolve_channel(channel, known, blur, steepness, fidelity) for channel in wide]
    out = torch.stack(sharp, dim=-1)[margin:-margin, margin:-margin]
    pixels: FloatArray = (from_linear(out) if motion.linear else out).numpy()
    return pixels


def _deconvolve_channel(channel: Tensor, known: Tensor, blur: Tensor, steepness: Tensor, fidelity: float) -> Tensor:
    """One channel, H×W; `blur` and `steepness` are the spectra of real transforms, H×(W/2 + 1)."""
    size = channel.shape
    sharp, observed = channel, torch.fft.rfft2(channel)
    for coupling in _COUPLINGS:
        along = (_shrink(sharp.roll(-1, axis) - sharp, 1 / coupling) for axis in (0, 1))
        smooth = sum(edges.roll(1, axis) - edges for axis, edges in enumerate(along))
        weight = coupling / fidelity
        # Where neither the blur nor a gradient says anything, nothing is divided by zero.
        spectrum = (observed * blur + weight * torch.fft.rfft2(smooth)) / (blur**2 + weight * steepness).clamp(min=1e-9)
        sharp = torch.fft.irfft2(spectrum, s=size)
        observed = torch.fft.rfft2(torch.where(known, channel, torch.fft.irfft2(spectrum * blur, s=size)))
    return sharp


def _shrink(values: Tensor, threshold: float) -> Tensor:
    """Approximate minimizers of |v|^p · threshold + (v - value)² / 2."""
    size = values.abs()
    return values.sign() * (size - threshold * _POWER * size.clamp(min=1e-6) ** (_POWER - 1)).clamp(min=0)
