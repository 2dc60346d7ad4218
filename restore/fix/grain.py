"""Grain for filled holes: measured around them and synthesized, always the same for the same image."""

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
"""Grain is measured in windows of this side: what is coarser is no grain."""

FAINT = 1 / 255
"""An image whose grain has less than this standard deviation has none: rounding to 8 bits alone makes 0.3 / 255."""

_FEWEST = 24  # windows that a measurement needs
_FLAT_SHARE = 0.2  # of the windows, the flattest are taken
_MOST = 1024  # windows that are looked at
_CELL_PX = WINDOW_PX // 4
_FINE = 4  # cycles per window from which on texture is told from grain
_FIELD_PX = 64  # random numbers are made in squares of this side, each from its own key
_SEAM_PX = 2  # from the edge on over which the grain rises to its full strength
_NEAR_PX = 9  # over which the filling's own grain is averaged


@dataclass(frozen=True)
class Grain:
    """The statistics of grain.

    Attributes:
        spectrum: float32, 3×32×32, variance by frequency (FFT order): its mean is a channel's variance.
        mix: float32, 3×3, what correlates independent channels: mix @ mix.T is their correlation.
    """

    spectrum: Tensor
    mix: Tensor

    @property
    def sigma(self) -> Tensor:
        """Standard deviation per channel, in parts of the range from black to white."""
        return self.spectrum.mean(dim=(1, 2)).sqrt()


def pixels_key(parts: Iterable[np.ndarray]) -> int:
    """The random key of an image's grain, from its pixels, in parts from the top down."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(np.ascontiguousarray(part).data)
    return key(0, digest.hexdigest())


def measure_grain(image: Tensor, known: Tensor) -> Grain | None:
    """Measure grain in the flat parts of what is known.

    In each 32×32 window all of which is known a plane is taken away, and what is left, under a Hann window, gives a
    periodogram (Welch 1967). Windows that touch black or white are left out; of the fifth whose means over 8×8 vary
    least, the half with least fine detail shows the grain without the image. Of every frequency's power the median
    over these, over ln 2 (the median of an exponential distribution of mean 1), is the variance. The lowest
    frequencies, which went with the plane, are taken from those next to them. Where an image has no flat part at all,
    its texture is taken for grain.

    Args:
        image: float32, 3×H×W, sRGB, [0, 1].
        known: bool, H×W.

    Returns:
        None where there is no grain, or too little to measure it in.
    """
    if min(known.shape) < WINDOW_PX:
        return None
    height, width = (side // _CELL_PX * _CELL_PX for side in known.shape)
    image, known = image[:, :height, :width], known[:height, :width]
    usable = known & (image > 0).all(dim=0) & (image < 1).all(dim=0)
    whole = -F.max_pool2d(-usable[None].float(), WINDOW_PX, WINDOW_PX // 2)[0] > 0
    rows, columns = whole.nonzero(as_tuple=True)
    if len(rows) < _FEWEST:
        return None
    cells = F.avg_pool2d(image, _CELL_PX).unfold(1, 4, 2).unfold(2, 4, 2)[:, rows, columns]
    structure = _without_plane(cells).square().mean(dim=(0, 2, 3))
    flattest = structure.argsort(stable=True)[: min(max(_FEWEST, round(len(structure) * _FLAT_SHARE)), _MOST)]
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
    """Add to what was filled the grain of its surroundings, less what grain it has already.

    It rises to full strength over the hole's outermost pixels. A pixel's grain depends on the key, its place in the
    image and the surroundings that are shown here, so that tiles make no difference.

    Args:
        repaired: float32, 3×H×W, sRGB, [0, 1]: an image, or a crop of one.
        image: the same before it was repaired.
        own: H×W, where grain is added, within `hole`.
        hole: H×W, what was not known.
        origin: (row, column) of the crop in the image.
        key: from `pixels_key`.
    """
    grain = measure_grain(image, torch.from_numpy(~hole))
    if grain is None or not own.any():
        return repaired
    share = _lacking(repaired, torch.from_numpy(hole), grain)
    depth = cv2.distanceTransform(hole.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    share *= torch.from_numpy((depth / _SEAM_PX).clip(0, 1).astype(np.float32) * own)
    out = repaired.clone()
    columns = np.flatnonzero(own.any(axis=0))
    across = slice(int(columns[0]), int(columns[-1]) + 1)
    for top in range(0, own.shape[0], _FIELD_PX):
        rows = slice(top, min(top + _FIELD_PX, own.shape[0]))
        if own[rows].any():
            added = _made(
                grain, key, *(range(at + part.start, at + part.stop) for at, part in zip(origin, (rows, across)))
            )
            out[:, rows, across] += share[:, rows, across] * added
    return out.clamp_(0, 1)


def _without_plane(windows: Tensor) -> Tensor:
    """C×N×S×S, less the plane that fits each best."""
    side = windows.shape[-1]
    slope = torch.arange(side) - (side - 1) / 2
    slope = slope / (slope.square().sum() * side).sqrt()
    windows = windows - windows.mean(dim=(2, 3), keepdim=True)
    for plane in (slope[:, None].expand(-1, side), slope.expand(side, -1)):
        windows = windows - (windows * plane).sum(dim=(2, 3), keepdim=True) * plane
    return windows


def _mix(waves: Tensor) -> Tensor:
    """From C×M complex amplitudes the symmetric root of their correlation."""
    covariance = (waves @ waves.conj().T).real.double()
    scale = covariance.diagonal().clamp(min=1e-20).rsqrt()
    values, vectors = torch.linalg.eigh(covariance * scale[:, None] * scale)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return root.float()


def _lacking(repaired: Tensor, hole: Tensor, grain: Grain) -> Tensor:
    """What share of the grain's amplitude a filling lacks, 3×H×W: by the power of second differences around."""
    differences = torch.tensor([1.0, -2.0, 1.0])
    taps = differences[:, None] * differences
    expected = (grain.spectrum * torch.fft.fft2(taps, (WINDOW_PX, WINDOW_PX)).abs().square()).mean(dim=(1, 2))
    there = F.conv2d(F.pad(repaired[:, None], (1, 1, 1, 1), mode="replicate"), taps[None, None])[:, 0].square()
    inside = hole.float()
    power: Tensor = box_sum(there * inside, _NEAR_PX) / box_sum(inside, _NEAR_PX).clamp(min=1)
    lacking: Tensor = 1 - power / expected[:, None, None].clamp(min=1e-20)
    return lacking.clamp(min=0).sqrt()


def _made(grain: Grain, key: int, rows: range, columns: range) -> Tensor:
    """Grain for these pixels of the image, 3×H×W: independent numbers, mixed and filtered by the spectrum's root."""
    taps = torch.fft.fftshift(torch.fft.ifft2(grain.spectrum.sqrt()).real, dim=(1, 2))
    half = WINDOW_PX // 2
    numbers = _numbers(
        key, range(rows.start - half, rows.stop + half), range(columns.start - half, columns.stop + half)
    )
    mixed = torch.einsum("ij,jhw->ihw", grain.mix, numbers)
    filtered: Tensor = F.conv2d(mixed[None], taps[:, None], groups=3)
    return filtered[0, :, :-1, :-1]


def _numbers(seed: int, rows: range, columns: range) -> Tensor:
    """Standard normal numbers by place in the image, 3×H×W; places may be negative."""
    blocks_down, blocks_across = (
        range(side.start // _FIELD_PX, (side.stop - 1) // _FIELD_PX + 1) for side in (rows, columns)
    )
    keys = torch.tensor([key(seed, down, across) for down in blocks_down for across in blocks_across])
    field = field_normal(keys, 0, (3, _FIELD_PX, _FIELD_PX), "cpu")
    field = field.reshape(len(blocks_down), len(blocks_across), 3, _FIELD_PX, _FIELD_PX)
    field = field.permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)
    top, left = rows.start - blocks_down.start * _FIELD_PX, columns.start - blocks_across.start * _FIELD_PX
    return field[:, top : top + len(rows), left : left + len(columns)]
