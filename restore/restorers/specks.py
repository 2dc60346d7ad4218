"""Specks in crowds: dust, flakes and rings of which a detector finds only some."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
ByteArray = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int32]

_SIDE_PX = 600  # lengths and counts below are for images whose smaller side has this many pixels
_RADIUS_PX = 6.0  # a spot is smaller than a disc of this radius
_AROUND_PX = 20.0  # half the side of the window from which the contrast around a spot is taken
_CONTRAST = 2.0, 20  # a spot has at least this many times the contrast around it, and this many levels of 255 more
_LARGEST_PX = 14.0  # the longer side of a speck
_LONGEST = 2.5  # of a speck: its longer side, relative to the shorter one
_FILLED = 0.3  # the least part of its bounding box that a speck fills
_FOUND = 0.5  # a speck of at least this probability is found
_CROWD = 180  # specks found per megapixel that make a crowd
_SHARES = 0.12, 0.5  # of all spots that are found, in an image whose other spots are raised
_FACTOR, _POWER = 20.0, 3  # of the odds of a spot, and of its contrast relative to the least


def with_specks(probability: FloatArray, image: FloatArray) -> FloatArray:
    """Raise the probabilities of damage of small spots, if many of them are found to be specks.

    Dust and flakes come in hundreds, and each alone looks much like a highlight or a leaf, so that a detector finds
    only some. Where it finds many, the other spots of the image are likely specks, too. Where it finds hardly any of
    them, they are texture; where it finds most, it knows this kind of speck, and the rest is something else.

    Spots are brighter, or darker, than everything around them: a top-hat transform by reconstruction (Vincent,
    "Morphological Grayscale Reconstruction in Image Analysis", IEEE Transactions on Image Processing 2(2), 1993). They
    have more contrast than is usual around them. Spots beside larger damage do not count.

    Args:
        probability: H×W, in [0, 1].
        image: H×W×3, sRGB, [0, 1].

    Returns:
        H×W, in [0, 1]; nowhere less than before. The odds of all pixels of a raised spot are the highest ones in it,
        times 20 or more: the cube of its contrast counts.
        Without a crowd, `probability` itself.
    """
    scale = min(probability.shape) / _SIDE_PX
    megapixels = probability.size / scale**2 / 1e6
    sure = probability >= _FOUND
    compact, _, number = _specks(sure, scale)
    if number < _CROWD / 2 * megapixels:  # the reconstruction is slow
        return probability

    larger = cv2.dilate((sure & ~compact).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    rounded = np.rint(image.clip(0, 1) * 255).astype(np.uint8)
    gray = np.asarray(cv2.cvtColor(rounded, cv2.COLOR_RGB2GRAY), np.uint8)
    spots = [_Spots(one, larger, probability, scale) for one in (gray, 255 - gray)]
    found, count = sum(int((one.likely >= _FOUND).sum()) for one in spots), sum(len(one.likely) for one in spots)
    if found < _CROWD * megapixels or not _SHARES[0] <= found / count <= _SHARES[1]:
        return probability
    return np.maximum(probability, np.maximum(*(one.raised() for one in spots)))


class _Spots:
    """The spots of an image that are brighter than what is around them.

    Attributes:
        likely: the highest probability in each spot.
        contrast: the highest contrast of each spot, relative to the least that makes a spot.
    """

    def __init__(self, gray: ByteArray, larger: BoolArray, probability: FloatArray, scale: float) -> None:
        from scipy import ndimage
        from skimage.morphology import reconstruction

        radius = max(2, round(_RADIUS_PX * scale))
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
        opened = cv2.morphologyEx(gray, cv2.MORPH_OPEN, disc)
        usual = cv2.medianBlur(gray - opened, 2 * round(_AROUND_PX * scale) + 1)
        contrast = (gray - reconstruction(opened, gray)) / (_CONTRAST[0] * usual.astype(np.float32) + _CONTRAST[1])

        small, self._labels, _ = _specks(contrast >= 1, scale)
        small[np.isin(self._labels, self._labels[larger])] = False
        self._numbers = np.unique(self._labels[small])
        self.likely: FloatArray = np.asarray(ndimage.maximum(probability, self._labels, self._numbers), np.float32)
        self.contrast: FloatArray = np.asarray(ndimage.maximum(contrast, self._labels, self._numbers), np.float32)

    def raised(self) -> FloatArray:
        """The raised probabilities of the spots, H×W; 0 elsewhere."""
        factor = _FACTOR * self.contrast**_POWER
        of_label = np.zeros(self._labels.max() + 1, np.float32)
        of_label[self._numbers] = factor * self.likely / (factor * self.likely + 1 - self.likely)
        return of_label[self._labels]


def _specks(mask: BoolArray, scale: float) -> tuple[BoolArray, IntArray, int]:
    """The small, compact parts of a mask, H×W; which part each pixel is in, 0: none; and how many parts are small."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    width, height, area = (stats[:, i] for i in (cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT, cv2.CC_STAT_AREA))
    longer, shorter = np.maximum(width, height), np.minimum(width, height)
    small = longer <= max(3.0, _LARGEST_PX * scale)
    small &= (longer <= _LONGEST * shorter + 1) & (area >= _FILLED * width * height)
    small[0] = False
    return small[labels], np.asarray(labels, np.int32), int(small.sum())
