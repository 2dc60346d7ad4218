"""A first guess for what is missing: the surroundings, averaged over ever larger neighbourhoods."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def pull_push(image: Tensor, known: Tensor) -> Tensor:
    """Fill unknown pixels by pull-push interpolation (Gortler et al. 1996, "The Lumigraph", section 3.4).

    Pull: averages of the known pixels on ever coarser grids. Push: coming back, whatever is not yet known takes the
    bilinear interpolation of the coarser grid. Costs a few per cent of one convolution, whatever the size of the hole.

    Args:
        image: B×C×H×W, any float; values where `known` is 0 are ignored (they must be finite).
        known: B×1×H×W, 1 = known, 0 = missing; values between count in part.

    Returns:
        B×C×H×W: `image` where known, smooth inside holes; 0 where a picture has no known pixel at all.
    """
    colours, weights = [image * known], [known]
    while max(weights[-1].shape[-2:]) > 1:
        colours.append(F.avg_pool2d(colours[-1], 2, ceil_mode=True, count_include_pad=False))
        weights.append(F.avg_pool2d(weights[-1], 2, ceil_mode=True, count_include_pad=False))
    guess = colours[-1] / weights[-1].clamp(min=1e-8)
    for colour, weight in zip(colours[-2::-1], weights[-2::-1]):
        coarse = F.interpolate(guess, size=colour.shape[-2:], mode="bilinear", align_corners=False)
        # A cell that is mostly known is worth its own average; one that hardly is leans on the coarser grid.
        trust = (2 * weight).clamp(max=1)
        guess = torch.lerp(coarse, colour / weight.clamp(min=1e-8), trust)
    return torch.lerp(guess, image, known)
