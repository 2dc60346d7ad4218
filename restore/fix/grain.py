"""Film grain for filled holes: measured around the holes and synthesized, deterministically for each image."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from restore.box_filter import box_sum
from restore.hashed_random import field_normal, key

Mask = npt.NDArray[np.bool_]

WINDOW_PX = 32
"""Side of the windows in which grain is measured; coarser structure does not count as grain."""

FAINT = 1 / 255
"""Standard deviation below which an image has no grain; rounding to 8 bits alone gives 0.3 / 255."""

_MIN_WINDOWS = 24  # minimum number of windows for a measurement
_FLAT_FRACTION = 0.2  # fraction of the windows, flattest first, that are measured
_MAX_WINDOWS = 1024  # bounds the time of a measurement
_CELL_PX = WINDOW_PX // 4  # side of the cells whose means measure how flat a window is
_FINE = 4  # cycles per window from which power counts as fine detail
_FIELD_PX = 64  # random numbers are drawn in squares of this side, one key each, so tiling does not change them
_SEAM_PX = 2  # width at the edge of a hole over which the grain rises to full strength
_NEAR_PX = 9  # side of the window in which the grain of the filled pixels is averaged


@dataclass(frozen=True)
class Grain:
    """The statistics of grain.

    Attributes:
        spectrum: float32, 3×32×32, variance by frequency (FFT order); its mean is the variance of a channel.
        mix: float32, 3×3, correlates independent channels: mix @ mix.T is their correlation matrix.
    """

    spectrum: Tensor
    mix: Tensor

    @property
    def sigma(self) -> Tensor:
        """Standard deviation per channel, as a fraction of the range from black to white."""
        return self.spectrum.mean(dim=(1, 2)).sqrt()


def pixels_key(parts: Iterable[np.ndarray]) -> int:
    """The random key of an image's grain: a hash of its pixels, passed in parts from the top down."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(np.ascontiguousarray(part).data)
    return key(0, digest.hexdigest())


def measure_grain(image: Tensor, outside: Tensor) -> Grain | None:
    """Measure grain in the flat parts of an image outside its holes.

    The method is Welch's (1967): each 32×32 window without a hole loses its best-fitting plane and gets a Hann taper,
    which gives a periodogram. Windows that contain black or white are skipped. Of the fifth whose 8×8 means vary least,
    the half with the least fine detail shows grain rather than image. The variance at a frequency is the median power
    over these windows divided by ln 2, the median of an exponential distribution of mean 1. The lowest frequencies are
    lost with the plane, so they are set from their neighbours. In an image without flat parts, texture is measured as
    grain.

    Args:
        image: float32, 3×H×W, sRGB, [0, 1].
        outside: bool, H×W, pixels outside the holes.

    Returns:
        None if there is no grain, or not enough area to measure it.
    """
    if min(outside.shape) < WINDOW_PX:
        return None
    height, width = (side // _CELL_PX * _CELL_PX for side in outside.shape)
    image, outside = image[:, :height, :width], outside[:height, :width]
    usable = outside & (image > 0).all(dim=0) & (image < 1).all(dim=0)
    whole = -F.max_pool2d(-usable[None].float(), WINDOW_PX, WINDOW_PX // 2)[0] > 0
    rows, columns = whole.nonzero(as_tuple=True)
    if len(rows) < _MIN_WINDOWS:
        return None
    cells = F.avg_pool2d(image, _CELL_PX).unfold(1, 4, 2).unfold(2, 4, 2)[:, rows, columns]
    structure = _without_plane(cells).square().mean(dim=(0, 2, 3))
    count = min(max(_MIN_WINDOWS, round(len(structure) * _FLAT_FRACTION)), _MAX_WINDOWS)
    flattest = structure.argsort(stable=True)[:count]
    windows = image.unfold(1, WINDOW_PX, WINDOW_PX // 2).unfold(2, WINDOW_PX, WINDOW_PX // 2)
    windows = _without_plane(windows[:, rows[flattest], columns[flattest]])
    taper = torch.hann_window(WINDOW_PX, periodic=False)
    taper = taper[:, None] * taper
    steps = torch.fft.fftfreq(WINDOW_PX, 1 / WINDOW_PX).abs()
    fineness = torch.maximum(steps[:, None], steps)  # cycles per window
    waves = torch.fft.fft2(windows * taper) / taper.square().sum().sqrt()
    waves = waves[
        :, (waves.abs().square() * (fineness >= _FINE)).mean(dim=(0, 2, 3)).argsort(stable=True)[: len(flattest) // 2]
    ]
    spectrum = waves.abs().square().median(dim=1).values / math.log(2)
    spectrum[:, fineness <= 1] = spectrum[:, fineness == 2].mean(dim=1, keepdim=True)
    grain = Grain(spectrum, _mix(waves[..., fineness >= 2].flatten(1)))
    return None if float(grain.sigma.max()) < FAINT else grain


def with_grain(repaired: Tensor, image: Tensor, own: Mask, hole: Mask, origin: tuple[int, int], key: int) -> Tensor:
    """Add the grain of the surroundings to filled pixels, minus the grain that the filling already has.

    The grain rises to full strength over the outermost pixels of the hole. The grain of a pixel depends on the key, on
    its position in the image and on the surroundings in this crop, so tiles do not change it.

    Args:
        repaired: float32, 3×H×W, sRGB, [0, 1]: an image, or a crop of one.
        image: the same before the repair.
        own: H×W, the pixels of `hole` that get grain.
        hole: H×W, all filled pixels.
        origin: (row, column) of the crop in the image.
        key: from `pixels_key`.
    """
    grain = measure_grain(image, torch.from_numpy(~hole))
    if grain is None or not own.any():
        return repaired
    amount = _missing_amplitude(repaired, torch.from_numpy(hole), grain)
    depth = cv2.distanceTransform(hole.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    amount *= torch.from_numpy((depth / _SEAM_PX).clip(0, 1).astype(np.float32) * own)
    out = repaired.clone()
    columns = np.flatnonzero(own.any(axis=0))
    across = slice(int(columns[0]), int(columns[-1]) + 1)
    for top in range(0, own.shape[0], _FIELD_PX):
        rows = slice(top, min(top + _FIELD_PX, own.shape[0]))
        if own[rows].any():
            added = _synthesize(
                grain, key, *(range(at + part.start, at + part.stop) for at, part in zip(origin, (rows, across)))
            )
            out[:, rows, across] += amount[:, rows, across] * added
    return out.clamp_(0, 1)


def _without_plane(windows: Tensor) -> Tensor:
    """Subtract the best-fitting plane from each window, C×N×S×S."""
    side = windows.shape[-1]
    slope = torch.arange(side) - (side - 1) / 2
    slope = slope / (slope.square().sum() * side).sqrt()
    windows = windows - windows.mean(dim=(2, 3), keepdim=True)
    for plane in (slope[:, None].expand(-1, side), slope.expand(side, -1)):
        windows = windows - (windows * plane).sum(dim=(2, 3), keepdim=True) * plane
    return windows


def _mix(waves: Tensor) -> Tensor:
    """The symmetric square root of the correlation of C×M complex amplitudes, C×C."""
    covariance = (waves @ waves.conj().T).real.double()
    scale = covariance.diagonal().clamp(min=1e-20).rsqrt()
    values, vectors = torch.linalg.eigh(covariance * scale[:, None] * scale)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return root.float()


def _missing_amplitude(repaired: Tensor, hole: Tensor, grain: Grain) -> Tensor:
    """The fraction of the grain amplitude that the filling lacks, 3×H×W, from the local power of second differences."""
    differences = torch.tensor([1.0, -2.0, 1.0])
    taps = differences[:, None] * differences
    expected = (grain.spectrum * torch.fft.fft2(taps, (WINDOW_PX, WINDOW_PX)).abs().square()).mean(dim=(1, 2))
    measured = F.conv2d(F.pad(repaired[:, None], (1, 1, 1, 1), mode="replicate"), taps[None, None])[:, 0].square()
    inside = hole.float()
    power: Tensor = box_sum(measured * inside, _NEAR_PX) / box_sum(inside, _NEAR_PX).clamp(min=1)
    missing: Tensor = 1 - power / expected[:, None, None].clamp(min=1e-20)
    return missing.clamp(min=0).sqrt()


def _synthesize(grain: Grain, key: int, rows: range, columns: range) -> Tensor:
    """Grain for these pixels of the image, 3×H×W: white noise, mixed and filtered by the root of the spectrum."""
    taps = torch.fft.fftshift(torch.fft.ifft2(grain.spectrum.sqrt()).real, dim=(1, 2))
    half = WINDOW_PX // 2
    numbers = _numbers(
        key, range(rows.start - half, rows.stop + half), range(columns.start - half, columns.stop + half)
    )
    mixed = torch.einsum("ij,jhw->ihw", grain.mix, numbers)
    filtered: Tensor = F.conv2d(mixed[None], taps[:, None], groups=3)
    return filtered[0, :, :-1, :-1]


def _numbers(seed: int, rows: range, columns: range) -> Tensor:
    """Standard normal numbers by position in the image, 3×H×W; positions may be negative."""
    blocks_down, blocks_across = (
        range(side.start // _FIELD_PX, (side.stop - 1) // _FIELD_PX + 1) for side in (rows, columns)
    )
    keys = torch.tensor([key(seed, down, across) for down in blocks_down for across in blocks_across])
    field = field_normal(keys, 0, (3, _FIELD_PX, _FIELD_PX), "cpu")
    field = field.reshape(len(blocks_down), len(blocks_across), 3, _FIELD_PX, _FIELD_PX)
    field = field.permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)
    top, left = rows.start - blocks_down.start * _FIELD_PX, columns.start - blocks_across.start * _FIELD_PX
    return field[:, top : top + len(rows), left : left + len(columns)]
