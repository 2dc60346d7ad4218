"""`--sensitivity`: how readily pixels count as damage, as a threshold of the detector's probabilities."""

from __future__ import annotations

import math

from restore.fix.options import Sensitivity

#: `gentle` and `strong` are this far from the detector's own threshold, in log-odds: `strong` accepts pixels at a
#: quarter of the odds (e^-1.4), `gentle` demands four times the odds. In log-odds, because a trained network's
#: probabilities crowd at 0 and 1, where a fixed step in probability would select nothing or everything.
STEP = 1.4

_STEPS = {"gentle": STEP, "normal": 0.0, "strong": -STEP}

_MORE = {"gentle": "normal", "normal": "strong"}
_LESS = {"strong": "normal", "normal": "gentle"}


def threshold_of(sensitivity: Sensitivity, normal: float) -> float:
    """The probability from which a pixel counts as damage.

    Args:
        sensitivity: a word, or a number in (0, 1), which is 1 minus the threshold.
        normal: the detector's own threshold, in (0, 1), which scored best in its validation.

    Returns:
        A probability in (0, 1). It falls from `gentle` over `normal` to `strong`, so the masks grow in this order.
    """
    if not isinstance(sensitivity, str):
        return 1 - sensitivity
    if sensitivity == "normal":
        return normal
    return 1 / (1 + math.exp(-math.log(normal / (1 - normal)) - _STEPS[sensitivity]))


def more_sensitive(sensitivity: Sensitivity) -> str:
    """What to try where damage was missed, as the end of a sentence."""
    if not isinstance(sensitivity, str):
        return "try a higher --sensitivity"
    return f"try --sensitivity {_MORE[sensitivity]}" if sensitivity in _MORE else "paint a mask"


def less_sensitive(sensitivity: Sensitivity) -> str:
    """What to try where too much was found, as the end of a sentence."""
    if not isinstance(sensitivity, str):
        return "try a lower --sensitivity, or paint a mask"
    return f"try --sensitivity {_LESS[sensitivity]}, or paint a mask" if sensitivity in _LESS else "paint a mask"
