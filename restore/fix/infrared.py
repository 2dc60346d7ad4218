"""Dust masks from the infrared channel of a film scanner.

The dyes of film transmit infrared light; dust and scratches block it. In the infrared channel they are dark spots on an
even ground. The little light that the dyes absorb follows the red channel, and is subtracted.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from restore.errors import RestoreError
from restore.images import DecodedImage

FloatArray = npt.NDArray[np.float32]

_GROUND = 1 / 40  # side of the square whose median is the ground, as a fraction of the image's longer side
_MIN_GROUND_PX, _MAX_GROUND_PX = 21, 255
_DARK = 0.05  # of the brightest ground; what is darker is the holder of the film
_MIN_DEPTH = 0.12  # least absorbance (natural logarithm) that counts as dust
_DEVIATIONS = 6  # likewise, in standard deviations of the ground
_EDGE = 0.5  # the edge of a spot reaches to this fraction of the least absorbance
_SAMPLE = 200_000  # pixels that the share of the red channel is fitted to
_SHOWS_IMAGE = 0.5  # with a larger share, the dyes of the film block infrared light
_MUCH = 0.1  # of all pixels; dust covers less
_FLOOR = 1e-4  # least value of a channel, so that its logarithm is finite


def infrared_of(image: DecodedImage) -> FloatArray | None:
    """The infrared channel of an image: H×W in [0, 1], or None.

    It is a page that follows the image as a mask (SilverFast), or a channel after the colors of unspecified meaning
    (VueScan).
    """
    if image.infrared is not None:
        channel = image.infrared
        values: FloatArray = np.divide(channel.pixels[:, :, 0], np.float32(channel.white), dtype=np.float32)
        return values
    if image.alpha is not None and not image.transparent:
        values = np.divide(image.alpha, np.float32(image.white), dtype=np.float32)
        return np.clip(np.nan_to_num(values), 0, 1)
    return None


def dust_mask(image: DecodedImage, *, on_event: Callable[[str], object] | None = None) -> FloatArray:
    """The dust that the infrared channel of an image shows.

    Args:
        image: upright, with an infrared channel.
        on_event: receives a warning if the channel shows more than dust.

    Returns:
        H×W, 1 = dust, 0 = none.

    Raises:
        RestoreError: exit code 1; the image has no infrared channel.
    """
    import cv2

    infrared = infrared_of(image)
    if infrared is None:
        raise RestoreError("has no infrared channel to take a mask from", exit_code=1)
    top = float(np.quantile(infrared, 0.999))
    if top <= 0:
        return np.zeros(image.size, np.float32)
    depth, ground = _absorbance(infrared / top)
    red, _ = _absorbance(image.to_srgb()[:, :, 0])
    film = ground >= _DARK
    if not film.any():
        return np.zeros(image.size, np.float32)
    share = _share_of_red(depth[film], red[film])
    depth = np.where(film, depth - np.float32(share) * red, np.float32(0))
    least = max(_MIN_DEPTH, _DEVIATIONS * _deviation(depth[film]))
    spots = (depth > _EDGE * least).astype(np.uint8)
    count, labels = cv2.connectedComponents(spots)
    deep = np.zeros(count, bool)
    deep[labels[depth > least]] = True
    deep[0] = False
    dust = cv2.dilate(deep[labels].astype(np.uint8), np.ones((3, 3), np.uint8))
    if on_event is not None and (abs(share) > _SHOWS_IMAGE or dust.mean() > _MUCH):
        on_event(
            "the infrared channel shows the image as well as dust; black-and-white film and Kodachrome cannot be "
            "cleaned with it"
        )
    return dust.astype(np.float32)


def _absorbance(channel: FloatArray) -> tuple[FloatArray, FloatArray]:
    """How much darker than its ground each pixel is, as a natural logarithm, and the ground: the median around it."""
    import cv2

    side = round(_GROUND * max(channel.shape))
    side = min(max(side, _MIN_GROUND_PX), _MAX_GROUND_PX) // 2 * 2 + 1
    levels = np.rint(np.clip(channel, 0, 1) * 255).astype(np.uint8)  # a wide median takes 8 bits
    ground = np.asarray(cv2.medianBlur(levels, side), np.float32) / np.float32(255)
    ratio = np.maximum(ground, np.float32(_FLOOR)) / np.maximum(channel, np.float32(_FLOOR))
    return np.log(ratio, dtype=np.float32), ground


def _share_of_red(depth: FloatArray, red: FloatArray) -> float:
    """The share of the red channel in the infrared one: the slope of a line through zero, by least absolute deviations.

    That is the weighted median of all ratios. Dust is dark in both channels; a limit on the weights keeps it from
    deciding.

    Args:
        depth, red: absorbances of some pixels.
    """
    step = max(depth.size // _SAMPLE, 1)
    depth, red = depth[::step], red[::step]
    weights = np.abs(red)
    depth, red, weights = depth[weights > 0], red[weights > 0], weights[weights > 0]
    if not weights.size:
        return 0.0
    ratios, weights = depth / red, np.minimum(weights, 2 * np.median(weights))
    order = np.argsort(ratios)
    below = np.cumsum(weights[order])
    return float(ratios[order][np.searchsorted(below, below[-1] / 2)])


def _deviation(values: FloatArray) -> float:
    """The standard deviation of most of N values, from their median absolute deviation."""
    sample = values[:: max(values.size // _SAMPLE, 1)]
    return 1.4826 * float(np.median(np.abs(sample - np.median(sample))))
