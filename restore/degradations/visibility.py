"""Which marks are seen: a mask must hold no mark that nobody could find."""

from __future__ import annotations

import torch
from torch import Tensor

from restore.degradations.noise_fields import mean_around, sum_around

# Below this change on average, in [0, 1], a scan that is stored as JPEG shows nothing: 5 of 255 steps.
LEAST_CHANGE = 5 / 255
# Rose, "The sensitivity performance of the human eye on an absolute scale", JOSA 38 (1948): what is seen for
# certain has a contrast of five times the noise, divided by the square root of its area in pixels.
_ROSE = 5.0
_WINDOW = 11
_GRAIN_WINDOW = 5
# Mean absolute deviation of Gaussian noise from its own mean over 5×5 pixels, over its standard deviation:
# √(2/π)·√(24/25).
_DEVIATION = 0.782


def seen(before: Tensor, after: Tensor, covered: Tensor, *, window: int = _WINDOW) -> Tensor:
    """The covered pixels at which a mark stands out of the picture's own grain and texture.

    Judged on the pixels around each pixel, 11×11 for what is thin, by the changes d of the covered ones among
    them: their mean, weighted by themselves, Σd²/Σd, must reach `LEAST_CHANGE`; and √Σd² ≥ 5·σ, which for an
    even mark of n pixels is Rose's d·√n ≥ 5·σ, where σ is the deviation of what is fine in the picture before,
    in gray (grain, noise and texture alike: in grass, too, a faint scratch is lost). So a mask has no holes
    where the picture happens to have the mark's tone at a pixel, but ends where a white scratch runs into a
    white sky.

    Args:
        before: float32, B×3×H×W.
        after: the same with the marks.
        covered: bool, B×1×H×W: where marks lie.
        window: odd; side of what is looked at around each pixel. Wide marks want a wide one, or their mask has
            holes where the picture under them is light or dark already.

    Returns:
        bool, B×1×H×W, a part of `covered`.
    """
    change = (after - before).abs_().amax(1, keepdim=True) * covered
    gray = before.mean(1, keepdim=True)
    grain = mean_around((gray - mean_around(gray, _GRAIN_WINDOW)).abs_(), window) / _DEVIATION
    changes, squares = sum_around(torch.cat([change, change.square()], 1), window).split(1, 1)
    return covered & (squares >= (_ROSE * grain).square()) & (squares >= changes * LEAST_CHANGE) & (changes > 0)
