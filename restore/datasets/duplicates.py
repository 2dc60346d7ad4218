"""Pictures that look alike: a perceptual hash that survives re-encoding, resizing and small retouches."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np

_SIDE, _KEPT = 32, 8


def perceptual_hash(picture: np.ndarray) -> int:
    """The 64-bit DCT hash ("pHash") of a picture.

    The picture is shrunk to 32×32 and turned gray; of its cosine transform the 8×8 lowest frequencies are kept, and
    each gives one bit: whether it lies above their median (the mean brightness is left out of the median). After
    Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010, section 3.2.1.

    Args:
        picture: uint8, H×W×3, sRGB.

    Returns:
        0 … 2^64 - 1; see `hamming`.
    """
    small = cv2.resize(picture, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    gray = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    low = cv2.dct(gray)[:_KEPT, :_KEPT].ravel()
    return int.from_bytes(np.packbits(low > np.median(low[1:])).tobytes(), "big")


def hashes_with_mirror(picture: np.ndarray) -> tuple[int, int]:
    """The hashes of a picture (uint8, H×W×3) and of its mirror image, left-right."""
    return perceptual_hash(picture), perceptual_hash(np.ascontiguousarray(picture[:, ::-1]))


def hamming(a: int, b: int) -> int:
    """In how many bits two hashes differ: 0 the same picture; 0 to 8 copies of it; around 32 strangers."""
    return (a ^ b).bit_count()


class Lookalikes:
    """The hashes of some pictures and of their mirror images, to hold others against.

    Args:
        pictures: uint8, H×W×3 each.
        bits: what differs in fewer bits than this counts as alike; 0: nothing does.
    """

    def __init__(self, pictures: Iterable[np.ndarray] = (), bits: int = 0) -> None:
        self.bits = bits
        self._hashes = {h for picture in pictures for h in hashes_with_mirror(picture)} if bits else set()

    def __contains__(self, picture: np.ndarray) -> bool:
        """Whether a picture (uint8, H×W×3) looks like one of these."""
        if not self._hashes:
            return False
        mine = perceptual_hash(picture)
        return any(hamming(mine, other) < self.bits for other in self._hashes)
