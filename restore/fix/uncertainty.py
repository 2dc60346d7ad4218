"""How far a repair may be from the truth (`--uncertainty`): a map of the expected absolute error of every pixel.

The image is mirrored and repaired again, each time with another seed. Where the repairs differ, they guess. The mean
error is predicted from the spread of the repairs, the depth of a pixel in its hole and the contrast around it, with
`COEFFICIENTS` fitted on photographs whose truth is known.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from restore.errors import RestoreError
from restore.fix.pages import MemoryPage
from restore.images import DecodedImage
from restore.restorers.base import Restorer

FloatArray = npt.NDArray[np.float32]

#: For each further repair: whether the rows of the image are reversed, and whether its columns are.
MIRRORS = ((False, True), (True, False), (True, True))

#: The logarithm of the expected error is the sum of these times 1 and the columns of `features`: spread, depth and
#: contrast. `python benchmarks/uncertainty.py fit PHOTOGRAPHS --crop 256 --limit 15` has fitted and printed them.
COEFFICIENTS = (0.247, 0.709, 0.325, 0.335)

#: Spread and contrast are root mean squares over about this radius, because four repairs are a small sample.
_SPREAD_PX, _CONTRAST_PX = 3.0, 6.0
_FLOOR = 1 / 255
#: The photographs of the fit have few deeper pixels.
_DEEPEST_PX = 64


def mirrored(page: MemoryPage, rows: bool, columns: bool) -> MemoryPage:
    """A page before its steps, with its rows or columns reversed."""
    flip = (slice(None, None, -1 if rows else 1), slice(None, None, -1 if columns else 1))
    other = copy.copy(page)
    other.image = np.ascontiguousarray(page.image[flip])
    other.mask = None if page.mask is None else np.ascontiguousarray(page.mask[flip])
    other.condition = None if page.condition is None else np.ascontiguousarray(page.condition[flip])
    return other


def with_seed(restorer: Restorer, seed: int) -> Restorer:
    """A restorer with other random choices; itself if it makes none."""
    try:
        return restorer.with_seed(seed)
    except RestoreError:
        return restorer


def features(repairs: Sequence[FloatArray], holes: npt.NDArray[np.bool_]) -> FloatArray:
    """The features that predict the error of a repair, in every pixel of its holes.

    Args:
        repairs: H×W×3, sRGB, [0, 1]: the repair itself, and those of mirrored images, mirrored back.
        holes: H×W.

    Returns:
        N×3 logarithms: the spread of the repairs, the depth (distance to the edge of the hole in pixels), and the
        contrast around the pixel in the first repair.
    """
    inside = holes.astype(np.float32)
    spread = np.var(np.stack(repairs), axis=0, dtype=np.float32).mean(axis=2) * inside
    near = _blurred(spread, _SPREAD_PX)[holes] / _blurred(inside, _SPREAD_PX)[holes]
    image = repairs[0]
    contrast = (_blurred(image**2, _CONTRAST_PX) - _blurred(image, _CONTRAST_PX) ** 2).mean(axis=2)[holes]
    depth = cv2.distanceTransform(holes.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[holes]
    roots = [np.log(np.sqrt(np.maximum(square, 0)) + _FLOOR) for square in (near, contrast)]
    return np.stack([roots[0], np.log(depth.clip(1, _DEEPEST_PX)), roots[1]], axis=1).astype(np.float32)


def expected_error(repairs: Sequence[FloatArray], holes: npt.NDArray[np.bool_]) -> FloatArray:
    """The expected absolute error of the first repair, H×W in [0, 1], the mean over its channels; 0 outside holes."""
    error = np.zeros(holes.shape, np.float32)
    if holes.any():
        weights = np.asarray(COEFFICIENTS, np.float32)
        error[holes] = np.exp(weights[0] + features(repairs, holes) @ weights[1:]).clip(0, 1)
    return error


def map_of_pages(errors: Sequence[FloatArray], notes: list[str]) -> DecodedImage:
    """The maps of an image's pages as one image: gray, 16 bits, 65535 = 1, the maximum over the pages."""
    fitting = [error for error in errors if error.shape == errors[0].shape]
    if len(fitting) < len(errors):
        notes.append("the map of expected errors leaves out pages of another size than the first")
    return DecodedImage(np.rint(np.maximum.reduce(fitting) * 65535).astype(np.uint16)[:, :, None])


def mean_error(errors: Sequence[FloatArray], pages: Sequence[MemoryPage]) -> float | None:
    """The mean expected error in the holes of all pages; None without holes."""
    count = sum(int(np.count_nonzero(page.mask)) for page in pages if page.mask is not None)
    return float(sum(error.sum(dtype=np.float64) for error in errors)) / count if count else None


def _blurred(image: FloatArray, sigma_px: float) -> FloatArray:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma_px), np.float32)
