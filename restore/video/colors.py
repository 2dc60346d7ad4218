"""Between the planes of a frame and the RGB that networks see.

A frame becomes RGB by its own matrix and range. On the way back, only pixels that changed are converted; all others
keep the values of their planes, so that nothing is lost where nothing was repaired.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from restore.images import UnsupportedFile
from restore.video.probe import VideoFacts

RGB16 = npt.NDArray[np.uint16]

#: The shares of red and blue in luma, by the code points of matrices (ITU-T H.273, table 4).
_LUMA = {
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
}
_MATRIX_NAMES = {8: "YCgCo", 10: "BT.2020 with constant luminance", 14: "ICtCp"}
#: A frame of up to this height without a matrix is taken as BT.601, a higher one as BT.709.
_SD_HEIGHT = 576

_PLANAR = re.compile(r"^(?:yuv[aj]?(420|422|444|440|411|410)p|gbra?p|gray)(?:\d+le)?$")
#: Formats that are turned into planes without loss.
_AS_PLANES = {
    "nv12": "yuv420p", "nv21": "yuv420p", "nv16": "yuv422p", "nv24": "yuv444p", "p010le": "yuv420p10le",
    "p210le": "yuv422p10le", "yuyv422": "yuv422p", "uyvy422": "yuv422p", "rgb24": "gbrp", "bgr24": "gbrp",
    "bgr0": "gbrp", "rgb0": "gbrp", "0rgb": "gbrp", "0bgr": "gbrp", "pal8": "gbrp", "rgba": "gbrap", "bgra": "gbrap",
    "argb": "gbrap", "abgr": "gbrap", "rgb48le": "gbrp16le", "rgb48be": "gbrp16le", "gray16be": "gray16le",
    "gray10be": "gray10le", "rgba64le": "gbrap16le", "rgba64be": "gbrap16le",
}  # fmt: skip
_WHITE = 65535.0
#: Rows that are converted at a time, a multiple of the rows of a chroma value.
_BAND_ROWS = 32


@dataclass(frozen=True)
class FrameColors:
    """How the planes of a video's frames hold color.

    Attributes:
        kind: `yuv`, `rgb` or `gray`.
        planes: the pixel format in which frames are read and written, one plane for each channel.
        bits: of a value.
        full: values use all codes, not only those of video.
        shift: log2 of how much wider and higher a chroma value is than a pixel.
        luma: the shares of red and blue in luma.
    """

    kind: str
    planes: str
    bits: int
    full: bool
    shift: tuple[int, int]
    luma: tuple[float, float]

    def to_rgb(self, frame: Any) -> RGB16:
        """The pixels of a frame in planes, H×W×3, as stored (not turned); 65535 is white."""
        luma, *others = (view(plane, self.bits) for plane in frame.planes[:3])
        rgb = np.empty((*luma.shape, 3), np.uint16)
        for rows in _bands(len(luma)):
            few = _shifted(rows, self.shift[1])
            rgb[rows] = _rounded(self._values([luma[rows], *(channel[few] for channel in others)]))
        return rgb

    def to_small(self, frame: Any, side_px: int) -> npt.NDArray[np.float32]:
        """The pixels of a frame, h×w×3 in [0, 1], as stored, made smaller until no side is longer than `side_px`."""
        scale = min(1.0, side_px / max(frame.width, frame.height))
        size = max(1, round(frame.width * scale)), max(1, round(frame.height * scale))
        planes = (view(plane, self.bits).astype(np.float32) for plane in frame.planes)
        channels = [cv2.resize(plane, size, interpolation=cv2.INTER_AREA) for plane in planes]
        small: npt.NDArray[np.float32] = replace(self, shift=(0, 0))._values(channels) * np.float32(1 / _WHITE)
        return np.clip(small, 0, 1)

    def _values(self, channels: list[np.ndarray]) -> npt.NDArray[np.float32]:
        """The values of pixels, H×W×3, of those of planes; 65535 is white."""
        if self.kind == "rgb":
            green, blue, red = (channel.astype(np.float32) for channel in channels[:3])
            top = float((1 << self.bits) - 1)
            return np.stack([red, green, blue], axis=2) * np.float32(_WHITE / top)
        offset, scale, _ = self._scales()
        luma = (channels[0].astype(np.float32) - offset) * np.float32(1 / scale)
        if self.kind == "gray":
            return np.repeat(luma[:, :, None], 3, axis=2) * np.float32(_WHITE)
        blue_difference, red_difference = (self._chroma(channel, luma.shape) for channel in channels[1:3])
        red_share, blue_share = self.luma
        rgb = np.empty((*luma.shape, 3), np.float32)
        rgb[:, :, 0] = luma + (2 - 2 * red_share) * red_difference
        rgb[:, :, 2] = luma + (2 - 2 * blue_share) * blue_difference
        rgb[:, :, 1] = (luma - red_share * rgb[:, :, 0] - blue_share * rgb[:, :, 2]) / (1 - red_share - blue_share)
        rgb *= np.float32(_WHITE)
        return rgb

    def write(self, frame: Any, before: RGB16, after: RGB16) -> int:
        """Write changed pixels into the planes of a frame.

        Args:
            frame: of which `before` was made; is changed.
            before, after: H×W×3, as stored.

        Returns:
            The number of changed pixels.
        """
        channels: list[np.ndarray] | None = None
        count = 0
        for band in _bands(len(before)):
            changed = (before[band] != after[band]).any(axis=2)
            if not changed.any():
                continue
            if channels is None:
                frame.make_writable()
                channels = [view(plane, self.bits) for plane in frame.planes]
            count += int(np.count_nonzero(changed))
            rows, columns = self._window(changed)
            within = slice(band.start + rows.start, band.start + rows.stop), columns
            self._write(channels, within, after[within], changed[rows, columns])
        return count

    def _write(
        self, channels: list[np.ndarray], place: tuple[slice, slice], after: RGB16, changed: npt.NDArray[np.bool_]
    ) -> None:
        """Write the changed pixels of a part of a frame, which begins and ends at whole chroma values."""
        rows, columns = place
        rgb = after.astype(np.float32) * np.float32(1 / _WHITE)
        if self.kind == "rgb":
            top = float((1 << self.bits) - 1)
            for channel, number in zip(channels, (1, 2, 0)):
                self._put(channel[rows, columns], rgb[:, :, number] * top, changed)
            return
        offset, scale, chroma_scale = self._scales()
        red_share, blue_share = self.luma
        luma = red_share * rgb[:, :, 0] + blue_share * rgb[:, :, 2] + (1 - red_share - blue_share) * rgb[:, :, 1]
        self._put(channels[0][rows, columns], luma * scale + offset, changed)
        if self.kind == "yuv":
            center = float(1 << (self.bits - 1))
            across, down = self.shift
            small = (_shifted(rows, down), _shifted(columns, across))
            touched = _blocks(changed.astype(np.float32), across, down) > 0
            for channel, color, share in ((channels[1], 2, blue_share), (channels[2], 0, red_share)):
                difference = (rgb[:, :, color] - luma) / (2 - 2 * share)
                self._put(channel[small], _blocks(difference, across, down) * chroma_scale + center, touched)

    def _put(self, channel: np.ndarray, values: np.ndarray, where: npt.NDArray[np.bool_]) -> None:
        codes = np.clip(np.rint(values), 0, (1 << self.bits) - 1)
        np.copyto(channel, codes.astype(channel.dtype), where=where)

    def _scales(self) -> tuple[float, float, float]:
        """The code of black, and the codes from black to white and from the lowest to the highest chroma."""
        if self.full:
            top = float((1 << self.bits) - 1)
            return 0.0, top, top
        step = 1 << (self.bits - 8)
        return 16.0 * step, 219.0 * step, 224.0 * step

    def _chroma(self, plane: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
        """A plane of chroma at the size of the frame. Values are repeated, which `write` undoes exactly."""
        center = np.float32(1 << (self.bits - 1))
        values: np.ndarray = (plane.astype(np.float32) - center) * np.float32(1 / self._scales()[2])
        across, down = self.shift
        if across or down:
            high, wide = plane.shape[0] << down, plane.shape[1] << across
            values = cv2.resize(values, (wide, high), interpolation=cv2.INTER_NEAREST)
        return values[: size[0], : size[1]]

    def _window(self, changed: npt.NDArray[np.bool_]) -> tuple[slice, slice]:
        """Rows and columns around changed pixels, on the grid of chroma values."""
        found = []
        for axis, shift in ((1, self.shift[1]), (0, self.shift[0])):
            places = np.flatnonzero(changed.any(axis=axis))
            limit = changed.shape[1 - axis]
            first = int(places[0]) >> shift << shift
            last = -(-(int(places[-1]) + 1) >> shift) << shift
            found.append(slice(first, min(last, limit)))
        return found[0], found[1]


def colors_of(facts: VideoFacts) -> tuple[FrameColors, list[str]]:
    """How frames hold color, and notes about what the file does not say.

    Raises:
        UnsupportedFile: exit code 1; a pixel format or matrix that cannot be kept right.
    """
    planes = _AS_PLANES.get(facts.pix_fmt, facts.pix_fmt)
    found = _PLANAR.match(planes)
    if found is None:
        raise UnsupportedFile(f"the pixel format {facts.pix_fmt} is not supported", exit_code=1)
    import av

    described = av.VideoFormat(planes)
    bits = max(component.bits for component in described.components)
    notes: list[str] = []
    if described.is_rgb:
        return FrameColors("rgb", planes, bits, True, (0, 0), (0.0, 0.0)), notes
    full = facts.color_range == 2 or planes.startswith("yuvj")
    if planes.startswith("gray"):
        return FrameColors("gray", planes, bits, full, (0, 0), (0.299, 0.114)), notes
    matrix = facts.colorspace
    if matrix not in _LUMA:
        if matrix not in (0, 2):
            name = _MATRIX_NAMES.get(matrix, f"number {matrix}")
            raise UnsupportedFile(f"the color matrix {name} is not supported", exit_code=1)
        matrix = 6 if facts.height <= _SD_HEIGHT else 1
        name = "BT.601" if matrix == 6 else "BT.709"
        notes.append(f"the video does not say its color matrix: {name} is assumed, by its size")
    shift = {"420": (1, 1), "422": (1, 0), "444": (0, 0), "440": (0, 1), "411": (2, 0), "410": (2, 2)}[found[1]]
    return FrameColors("yuv", planes, bits, full, shift, _LUMA[matrix]), notes


def view(plane: Any, bits: int) -> np.ndarray:
    """A plane of a frame as an array, H×W, without a copy."""
    kind = np.uint8 if bits <= 8 else np.uint16
    width = plane.line_size // np.dtype(kind).itemsize
    return np.frombuffer(plane, kind)[: plane.height * width].reshape(plane.height, width)[:, : plane.width]


def _bands(height: int) -> Iterator[slice]:
    """Rows of a frame, a few at a time, which begin at whole chroma values: for whole frames, floats would be large."""
    for top in range(0, height, _BAND_ROWS):
        yield slice(top, min(top + _BAND_ROWS, height))


def _shifted(window: slice, shift: int) -> slice:
    return slice(window.start >> shift, -(-window.stop >> shift))


def _rounded(values: npt.NDArray[np.float32]) -> RGB16:
    return np.clip(np.rint(values), 0, _WHITE).astype(np.uint16)


def _blocks(values: np.ndarray, across: int, down: int) -> np.ndarray:
    """The mean of the pixels of each chroma value; those beyond the edge repeat the last."""
    if not across and not down:
        return values
    high, wide = values.shape
    values = np.pad(values, ((0, -high % (1 << down)), (0, -wide % (1 << across))), mode="edge")
    blocks = values.reshape(values.shape[0] >> down, 1 << down, values.shape[1] >> across, 1 << across)
    mean: np.ndarray = blocks.mean(axis=(1, 3))
    return mean
