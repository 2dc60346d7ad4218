"""A first guess for what is missing: a membrane stretched over the hole, held at its edge."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SWEEPS = 6

_BAND_PX = 1 << 18  # smoothed at once on a CPU, so that they stay in its cache


def membrane(image: Tensor, known: Tensor) -> Tensor:
    """Fill unknown pixels by harmonic interpolation (Laplace's equation), coarse to fine.

    Averages of the known pixels on ever coarser grids give the start (the "pull" of Gortler et al. 1996, "The
    Lumigraph", section 3.4); coming back, every grid is smoothed by a few Jacobi sweeps wherever less than a quarter
    of a cell is known. Costs a few per cent of one convolution of a network, whatever the size of the hole.

    Args:
        image: float32, B×C×H×W; values where `known` is 0 are ignored (they must be finite).
        known: float32, B×1×H×W, 1 = known, 0 = missing.

    Returns:
        B×C×H×W: `image` where known, smooth inside holes; 0.5 where a picture has no known pixel at all.
    """
    colours, weights = [image * known], [known]
    while max(weights[-1].shape[-2:]) > 1:
        colours.append(F.avg_pool2d(colours[-1], 2, ceil_mode=True, count_include_pad=False))
        weights.append(F.avg_pool2d(weights[-1], 2, ceil_mode=True, count_include_pad=False))
    guess = torch.zeros_like(colours[-1])
    for colour, weight in zip(reversed(colours), reversed(weights)):
        own = colour / weight.clamp(min=1e-8)
        if weight.shape[-2:] == (1, 1):
            guess = torch.where(weight > 0, own, 0.5)
            continue
        unknown = weight < 0.25
        guess = F.interpolate(guess, size=colour.shape[-2:], mode="bilinear", align_corners=False)
        guess = _smoothed(torch.where(unknown, guess, own), own, unknown)
    return torch.where(known > 0, image, guess)


def _smoothed(guess: Tensor, own: Tensor, unknown: Tensor) -> Tensor:
    """Jacobi sweeps: what is unknown becomes the mean of its four neighbours.

    Beyond the border a pixel is its own neighbour.
    """
    before, after = (F.pad(guess, (1, 1, 1, 1), mode="replicate") for _ in range(2))
    height, width = guess.shape[-2:]
    band = max(1, _BAND_PX // (width * guess.shape[0])) if guess.device.type == "cpu" else height
    for _ in range(SWEEPS):
        for top in range(0, height, band):
            rows = slice(top, min(top + band, height))
            around = before[..., rows.start : rows.stop + 2, :]
            mean = around[..., :-2, 1:-1] + around[..., 2:, 1:-1]
            mean += around[..., 1:-1, :-2]
            mean += around[..., 1:-1, 2:]
            mean /= 4
            inner = after[..., rows.start + 1 : rows.stop + 1, 1:-1]
            inner.copy_(torch.where(unknown[..., rows, :], mean, own[..., rows, :]))
        for edge, nearest in ((0, 1), (-1, -2)):
            after[..., edge, :] = after[..., nearest, :]
            after[..., edge] = after[..., nearest]
        before, after = after, before
    return before[..., 1:-1, 1:-1]
