"""The level of noise in an image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


def estimate_noise(image: FloatArray) -> float:
    """The standard deviation of white noise in an image, from its finest diagonal details.

    The median of the Haar wavelet's diagonal band over 0.6745 (Donoho & Johnstone 1994), averaged over channels.

    Args:
        image: float H×W×C.

    Returns:
        In the units of the image; 0 if it is less than two pixels wide or high.
    """
    height, width = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
    if not height or not width:
        return 0.0
    a, b = image[0:height:2, 0:width:2], image[0:height:2, 1:width:2]
    c, d = image[1:height:2, 0:width:2], image[1:height:2, 1:width:2]
    diagonal = np.abs(a - b - c + d) / 2
    return float(np.median(diagonal, axis=(0, 1)).mean() / 0.6745)
