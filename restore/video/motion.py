"""Where the pixels of a frame are in the frames before and after it.

The motion is the optical flow of Kroeger et al., "Fast Optical Flow using Dense Inverse Search" (ECCV 2016). It is
estimated in small frames and grown where pixels are compared; holes take the motion of what is around them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from restore.video.line_scratches import bands_of

FloatArray = npt.NDArray[Any]  # float32; the stubs of OpenCV do not tell
BoolArray = npt.NDArray[np.bool_]
RGB16 = npt.NDArray[np.uint16]

_WHITE = 65535.0
#: Motion is estimated in frames of this longer side at most.
_FLOW_SIDE_PX = 640
#: Below this side, there is no motion to be estimated.
_LEAST_SIDE_PX = 16
#: A scene ends where more than this share of the pixels does not go on in the next frame: it differs by more than this.
_CUT_SHARE = 0.4
_CUT_DIFFERENCE = 0.08
#: Flows from this side on are spread at a quarter of their size.
_COARSE_FROM_PX = 256


class Seen:
    """A frame as its neighbors see it.

    Its pixels are made here, and again when they are needed, because many frames wait in between.

    Attributes:
        size: (H, W).
        found: H×W, damage that a detector found; None: there is no detector, or it has not run yet.
        lines: H×W, scratches that stay for many frames; None: there are none.
        small: its luma for estimating motion, h×w, uint8, without small dirt.
        bands: its luma for finding lines; see `bands_of`.
        dirt: H×W, the mask of the frame; None: not known yet.

    Args:
        pixels: makes the pixels of the frame, H×W×3; 65535 is white.
    """

    def __init__(self, pixels: Callable[[], RGB16]) -> None:
        self._pixels = pixels
        self.found: BoolArray | None = None
        self.lines: BoolArray | None = None
        self.dirt: BoolArray | None = None
        luma = luma_of(pixels())
        self.size: tuple[int, int] = luma.shape
        scale = min(1.0, _FLOW_SIDE_PX / max(luma.shape))
        small = cv2.resize(luma, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else luma
        # Small dirt would pull the motion with it.
        self.small = cv2.medianBlur(np.clip(np.rint(small * 255), 0, 255).astype(np.uint8), 5)
        self.bands = bands_of(luma)

    @cached_property
    def rgb(self) -> RGB16:
        """H×W×3; 65535 is white."""
        return self._pixels()

    @cached_property
    def luma(self) -> FloatArray:
        """H×W, float32, [0, 1]."""
        return luma_of(self.rgb)

    @cached_property
    def smooth(self) -> FloatArray:
        """The luma as means of 3×3 pixels."""
        return smooth(self.luma)

    @cached_property
    def span(self) -> FloatArray:
        """The difference of the brightest and the darkest of the 3×3 pixels around each, H×W."""
        return span(self.luma)

    def forget(self) -> None:
        """Free the pixels, and what is computed from them; all is made again when it is needed."""
        for name in ("rgb", "luma", "smooth", "span"):
            self.__dict__.pop(name, None)

    @property
    def mask(self) -> BoolArray:
        """`dirt`, once it is known."""
        assert self.dirt is not None
        return self.dirt


@dataclass
class Motion:
    """Where the pixels of a frame are in one of its neighbors.

    Attributes:
        neighbor: the other frame.
        flow: h×w×2, x and y from a pixel to its place there, in pixels of the frame; of the size of `Seen.small`.
    """

    neighbor: Seen
    flow: FloatArray

    @property
    def luma(self) -> FloatArray:
        """The luma of the neighbor, moved to the frame, H×W."""
        return self._moved[0]

    @property
    def inside(self) -> BoolArray:
        """Where the neighbor shows the pixel at all, H×W."""
        return self._moved[1]

    @cached_property
    def _moved(self) -> tuple[FloatArray, BoolArray]:
        return moved(self.neighbor.luma, self.flow)


def luma_of(rgb: RGB16) -> FloatArray:
    """H×W, float32, [0, 1]."""
    return np.multiply(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.float32(1 / _WHITE), dtype=np.float32)


def smooth(values: FloatArray) -> FloatArray:
    """Means of 3×3 pixels."""
    return cv2.blur(values, (3, 3))


def span(values: FloatArray) -> FloatArray:
    """The difference of the largest and the smallest of 3×3 pixels."""
    kernel = np.ones((3, 3), np.uint8)
    most = cv2.dilate(values, kernel)
    return cv2.subtract(most, cv2.erode(values, kernel), dst=most)


def motion(frame: Seen, neighbor: Seen) -> Motion | None:
    """The motion from a frame to a neighbor; None: a scene ends between them."""
    if min(frame.small.shape) < _LEAST_SIDE_PX:
        return None
    estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow: FloatArray = estimator.calc(frame.small, neighbor.small, np.zeros((*frame.small.shape, 2), np.float32))
    luma, inside = moved(neighbor.small, flow, interpolation=cv2.INTER_LINEAR)
    difference = cv2.absdiff(cv2.blur(frame.small, (3, 3)), cv2.blur(luma, (3, 3)))[inside]
    if difference.size < inside.size // 4 or np.mean(difference > _CUT_DIFFERENCE * 255) > _CUT_SHARE:
        return None
    if flow.shape[:2] != frame.size:
        flow *= np.array((frame.size[1] / flow.shape[1], frame.size[0] / flow.shape[0]), np.float32)
    return Motion(neighbor, flow)


def moved(
    values: npt.NDArray[Any], flow: FloatArray, *, interpolation: int = cv2.INTER_CUBIC
) -> tuple[FloatArray, BoolArray]:
    """The values of a neighbor at the places of a frame's pixels, and where these are inside it.

    Args:
        values: H×W.
        flow: h×w×2, in pixels of the frame, of any size.
        interpolation: OpenCV's.
    """
    return remapped(values, *places(flow, values.shape), interpolation=interpolation)


def places(flow: FloatArray, size: tuple[int, ...]) -> tuple[FloatArray, FloatArray]:
    """The x and y in a neighbor of the pixels of a frame of a size (H, W)."""
    x, y = (grown_to(np.ascontiguousarray(flow[:, :, axis]), size) for axis in (0, 1))
    return x + np.arange(size[1], dtype=np.float32)[None, :], y + np.arange(size[0], dtype=np.float32)[:, None]


def remapped(
    values: npt.NDArray[Any], x: FloatArray, y: FloatArray, *, interpolation: int = cv2.INTER_CUBIC
) -> tuple[FloatArray, BoolArray]:
    """The values, H×W, at places, h×w, and where these are inside."""
    high, wide = values.shape
    across, down = (np.asarray(cv2.inRange(at, 0.0, last - 1.0)) for at, last in ((x, wide), (y, high)))
    return cv2.remap(values, x, y, interpolation, borderMode=cv2.BORDER_REPLICATE), (across > 0) & (down > 0)


def taken(
    values: npt.NDArray[Any], x: FloatArray, y: FloatArray, *, interpolation: int = cv2.INTER_CUBIC
) -> tuple[FloatArray, BoolArray]:
    """The values at N places, N or N×C, and which of these are inside."""
    high, wide = values.shape[:2]
    inside = (x >= 0) & (y >= 0) & (x <= wide - 1) & (y <= high - 1)
    columns = 1 << 14  # OpenCV takes maps of less than 32768 pixels a side
    padded = -len(x) % columns
    across, down = (np.pad(axis.astype(np.float32), (0, padded)).reshape(-1, columns) for axis in (x, y))
    found = cv2.remap(values, across, down, interpolation, borderMode=cv2.BORDER_REPLICATE)
    return found.reshape(-1, *values.shape[2:])[: len(x)], inside


def taken_from_small(
    values: npt.NDArray[Any], rows: npt.NDArray[Any], columns: npt.NDArray[Any], size: tuple[int, ...]
) -> FloatArray:
    """The values of a smaller field, h×w or h×w×C, at N pixels of a frame of a size, N or N×C."""
    high, wide = values.shape[:2]
    x, y = ((at + 0.5) * (few / many) - 0.5 for at, few, many in ((columns, wide, size[1]), (rows, high, size[0])))
    return taken(values, x, y, interpolation=cv2.INTER_LINEAR)[0]


def small_share(mask: BoolArray, size: tuple[int, ...]) -> FloatArray:
    """The share of a mask in each pixel of a smaller field of a size."""
    share: FloatArray = mask.astype(np.float32)
    if mask.shape != tuple(size[:2]):
        share = cv2.resize(share, (size[1], size[0]), interpolation=cv2.INTER_AREA)
    return share


def flow_around(flow: FloatArray, hidden: FloatArray) -> FloatArray:
    """A flow, h×w×2, with that of hidden places taken from around them; at a quarter of the size, if it is large.

    Args:
        flow: h×w×2.
        hidden: the share that is hidden, h×w.
    """
    valid = hidden < 0.01
    high, wide = valid.shape
    if min(high, wide) < _COARSE_FROM_PX:
        return spread(flow, valid)
    size = (-(-wide // 4), -(-high // 4))
    share = valid.astype(np.float32)
    weight = cv2.resize(share, size, interpolation=cv2.INTER_AREA)
    small = cv2.resize(flow * share[:, :, None], size, interpolation=cv2.INTER_AREA)
    return spread(small / np.maximum(weight, 1e-4)[:, :, None], weight > 0.25)


def grown_to(values: FloatArray, size: tuple[int, ...]) -> FloatArray:
    """Values at the size (H, W) of a frame."""
    if values.shape[:2] == tuple(size):
        return values
    return cv2.resize(values, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)


def spread(values: FloatArray, valid: BoolArray) -> FloatArray:
    """Values, H×W×C, with those that are not valid interpolated from all around, coarsely where they are far away.

    Pull and push on an image pyramid (Gortler et al., "The Lumigraph", 1996, section 3.4).
    """
    if valid.all():
        return values
    weight = valid.astype(np.float32)
    levels: list[tuple[FloatArray, FloatArray]] = [(values * weight[:, :, None], weight)]
    while min(levels[-1][1].shape) > 2 and not (levels[-1][1] > 0.01).all():
        weighted, weight = levels[-1]
        down = cv2.pyrDown(weighted)
        levels.append((down[:, :, None] if down.ndim == 2 else down, cv2.pyrDown(weight)))
    weighted, weight = levels.pop()
    mean = weighted.sum(axis=(0, 1)) / max(float(weight.sum()), 1e-6)
    coarse = np.where(weight[:, :, None] > 1e-4, weighted / np.maximum(weight, 1e-4)[:, :, None], mean)
    for weighted, weight in reversed(levels):
        up = cv2.resize(coarse, weight.shape[::-1], interpolation=cv2.INTER_LINEAR)
        up = up[:, :, None] if up.ndim == 2 else up
        share = np.clip(weight, 0, 1)[:, :, None]
        coarse = weighted / np.maximum(weight, 1e-4)[:, :, None] * share + up * (1 - share)
    return np.where(valid[:, :, None], values, coarse).astype(np.float32)
