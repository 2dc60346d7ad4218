"""Line scratches: upright lines that stay in their columns for many frames, while the scene moves behind them.

They are sought as in A. Newson, A. Almansa, Y. Gousseau, P. Pérez, "Robust automatic line scratch detection in films"
(IEEE Transactions on Image Processing, 2014): pixels that stand out from both of their sides are grouped into lines,
by a Hough transform, against what chance would bring; and lines that move with the scene belong to it (the same,
"Temporal filtering of line scratch detections in degraded films", ICIP 2013). Means of some rows each take the place of
single rows, as in A. Kokaram's detector of line scratches (EUSIPCO 1996).

Where nothing moves, an upright edge of the scene looks the same, so nothing is found there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[Any]
BoolArray = npt.NDArray[np.bool_]

#: Frames before and after one in which its lines are sought again.
REACH = 4
#: A frame is seen as at most N bands of rows, and in at most N columns.
_MOST_BANDS, _MOST_COLUMNS = 40, 2048
#: Lines are narrower than this, in columns.
_NARROW = 9
#: Peaks of fainter lines (of 1) are noise; so are those of less than this number of medians of their band.
_LEAST_PEAK, _MEDIANS = 0.01, 3.0
#: A line leans by at most this tangent.
_LEAN = 0.03
#: A peak belongs to a line that passes within N columns.
_ON_LINE = 1.5
#: The share of bands in which a frame shows a line; and of those in which the frames together show it.
_SHOWN, _LONG = 0.3, 0.4
#: Chance brings at most N standard deviations.
_CHANCE_SIGMAS = 5.0
#: Lines of a frame that are followed at most.
_MOST_LINES = 24
#: A scratch drifts by at most N columns from frame to frame.
_DRIFT = 0.5
#: It is seen in N frames, and this share of them, at least.
_LEAST_FRAMES, _SEEN = 4, 0.6
#: The scene moves by N columns against a scratch, on both of its sides, in this share of its bands.
_APART, _APART_SHARE = 2.5, 0.6
#: How far beside a line the motion of the scene is taken, in columns of the flow: nearer, it may be that of the line.
_SIDE = (10, 24)
#: A frame has the lines that are found in this number of frames before and after it.
_BETWEEN = 2
#: Gaps of N bands in a scratch are part of it.
_GAP_BANDS = 4
#: Widens the mask of a scratch at each side: its edges are soft.
_MARGIN_PX = 1.0


@dataclass
class Line:
    """An upright line in a frame.

    Attributes:
        column: in the middle of the height.
        lean: columns from a band to the next.
        bright: it is brighter than its sides.
        shown: the bands that show it.
        width: in columns.
    """

    column: float
    lean: float
    bright: bool
    shown: BoolArray
    width: float


@dataclass
class Traces:
    """What a frame shows of upright lines; small enough to be kept for many frames.

    Attributes:
        size: (H, W) of the frame.
        columns: of the bands.
        lines: candidates.
        sideways: how far the scene moves to the next frame, in columns, bands × w; None: the scene ends.
    """

    size: tuple[int, int]
    columns: int
    lines: list[Line] = field(default_factory=list)
    sideways: FloatArray | None = None


def bands_of(luma: FloatArray) -> FloatArray:
    """The means of bands of rows, and of some columns of very wide frames."""
    high, wide = luma.shape
    rows, few = -(-high // _MOST_BANDS), -(-wide // _MOST_COLUMNS)
    bands, columns = high // rows, wide // few
    parts: FloatArray = luma[: bands * rows, : columns * few].reshape(bands, rows, columns * few).mean(axis=1)
    if few > 1:
        parts = parts.reshape(bands, columns, few).mean(axis=2)
    return parts


def traces_of(bands: FloatArray, size: tuple[int, int]) -> Traces:
    """The upright lines of a frame.

    Args:
        bands: of `bands_of`.
        size: (H, W) of the frame.
    """
    kernel = np.ones((1, _NARROW), np.uint8)
    traces = Traces(size, bands.shape[1])
    for bright in (True, False):
        if bright:
            out = bands - cv2.morphologyEx(bands, cv2.MORPH_OPEN, kernel)
        else:
            out = cv2.morphologyEx(bands, cv2.MORPH_CLOSE, kernel) - bands
        traces.lines += _lines(out, bright, size)
    return traces


def sideways(flow: FloatArray, traces: Traces, bands: int) -> FloatArray:
    """A flow, h×w×2 in pixels of the frame, as `Traces.sideways`."""
    across = np.ascontiguousarray(flow[:, :, 0]) * np.float32(traces.columns / traces.size[1])
    return cv2.resize(across, (flow.shape[1], bands), interpolation=cv2.INTER_AREA)


def _lines(out: FloatArray, bright: bool, size: tuple[int, int]) -> list[Line]:
    """The lines in what stands out from both sides, bands × columns, in a frame of a size (H, W)."""
    bands, columns = out.shape
    least = np.maximum(_LEAST_PEAK, _MEDIANS * np.median(out, axis=1))[:, None]
    peaks = (out >= cv2.dilate(out, np.ones((1, 7), np.uint8))) & (out > least)
    peaks[:, :2] = peaks[:, -2:] = False
    rows, at = np.nonzero(peaks)
    middle = (bands - 1) / 2
    needed = _needed(len(rows), bands, columns)
    if len(rows) < needed:
        return []
    reach = np.arange(-4, 5)
    around = out[rows[:, None], np.clip(at[:, None] + reach, 0, columns - 1)]
    near = around[:, 2:7]
    place = at + (near * reach[2:7]).sum(axis=1) / near.sum(axis=1)
    width = (around > 0.35 * out[rows, at][:, None]).sum(axis=1)
    most = max(1, round(_LEAN * size[0] / 2 * columns / size[1]))  # how far a line leans out of its middle
    leans = np.arange(-most, most + 1) / max(middle, 1)
    left = np.ones(len(rows), bool)
    lines: list[Line] = []
    for _ in range(2 * _MOST_LINES):
        crossing = np.rint(place[left] - leans[:, None] * (rows[left] - middle)).astype(int)
        crossing = np.clip(crossing, 0, columns - 1) + columns * np.arange(len(leans))[:, None]
        votes = np.bincount(crossing.ravel(), minlength=columns * len(leans)).reshape(len(leans), columns)
        votes[:, 1:-1] = votes[:, :-2] + votes[:, 1:-1] + votes[:, 2:]
        votes[:, [0, -1]] = 0
        best = int(votes.argmax())
        if votes.flat[best] < needed or len(lines) == _MOST_LINES:
            break
        lean, column = float(leans[best // columns]), float(best % columns)
        on = np.zeros(len(rows), bool)
        for _ in range(2):
            on = left & (np.abs(place - column - lean * (rows - middle)) <= _ON_LINE)
            if np.count_nonzero(on) > 2 and np.ptp(rows[on]) > 2:
                lean, column = _fitted(rows[on] - middle, place[on])
        shown = np.zeros(bands, bool)
        shown[rows[on]] = True
        if np.count_nonzero(shown) >= needed and abs(lean) <= leans[-1] * 1.2:
            lines.append(Line(column, lean, bright, shown, float(np.median(width[on]))))
        if not on.any():
            break
        left &= ~on
    return lines


def _fitted(x: FloatArray, y: FloatArray) -> tuple[float, float]:
    """The slope of the line through points, by least squares, and its y where x is 0."""
    mean_x, mean_y = x.mean(), y.mean()
    slope = float(((x - mean_x) * (y - mean_y)).sum() / ((x - mean_x) ** 2).sum())
    return slope, float(mean_y - slope * mean_x)


def _needed(peaks: int, bands: int, columns: int) -> float:
    """How many bands must show a line, so that chance does not bring it."""
    by_chance = 3 * peaks / columns
    return max(_SHOWN * bands, by_chance + _CHANCE_SIGMAS * math.sqrt(by_chance), 4)


def find_lines(held: Sequence[Traces], place: int) -> BoolArray | None:
    """The scratches of a frame that stay in other frames of its scene, H×W; None: there are none.

    Args:
        held: of successive frames.
        place: of the frame among them.
    """
    first = last = place
    while first > 0 and held[first - 1].sideways is not None:
        first -= 1
    while last + 1 < len(held) and held[last].sideways is not None:
        last += 1
    scene = held[first : last + 1]
    if len(scene) < _LEAST_FRAMES:
        return None
    at, found = place - first, list[Line]()
    # A frame in between that does not show a line well has it all the same.
    for number in sorted(
        range(max(0, at - _BETWEEN), min(len(scene), at + _BETWEEN + 1)), key=lambda one: abs(one - at)
    ):
        for line in scene[number].lines:
            followed = _followed(line, scene, number)
            if followed is not None and _stays(line, followed, scene, number):
                agreed = _agreed(followed, at)
                if not any(one.bright == line.bright and abs(one.column - agreed.column) <= 2 for one in found):
                    found.append(agreed)
    mask: BoolArray | None = None
    for line in found:
        if line.shown.mean() >= _LONG:
            mask = np.zeros(held[place].size, bool) if mask is None else mask
            _draw(mask, line, held[place].columns)
    return mask


def _agreed(followed: dict[int, Line], at: int) -> Line:
    """What frames that show a line say of it in one of them, or between them."""
    lines = list(followed.values())
    _, column = _fitted(np.array(list(followed)) - at, np.array([one.column for one in lines]))
    shown = np.mean([one.shown for one in lines], axis=0) > 0.4
    padded = np.pad(shown.astype(np.uint8), _GAP_BANDS)[:, None]
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, np.ones((_GAP_BANDS + 1, 1), np.uint8))
    return Line(
        followed[at].column if at in followed else column,
        float(np.median([one.lean for one in lines])),
        lines[0].bright,
        closed[_GAP_BANDS:-_GAP_BANDS, 0] > 0,
        float(np.median([one.width for one in lines])),
    )


def _followed(line: Line, scene: Sequence[Traces], at: int) -> dict[int, Line] | None:
    """The same line in the frames that show it, by their numbers; None: these are too few, or it moves too fast."""
    followed = {at: line}
    for number, traces in enumerate(scene):
        limit = 0.5 + _DRIFT * abs(number - at)
        alike = [
            one
            for one in traces.lines
            if one.bright == line.bright
            and abs(one.column - line.column) <= limit
            and abs(one.lean - line.lean) * len(line.shown) <= 6
        ]
        if alike and number != at:
            followed[number] = min(alike, key=lambda one: abs(one.column - line.column))
    if len(followed) < max(_LEAST_FRAMES, _SEEN * len(scene)):
        return None
    numbers = np.array(list(followed)) - at
    columns = np.array([one.column for one in followed.values()])
    drift, middle = _fitted(numbers, columns)
    steady = np.median(np.abs(columns - middle - drift * numbers)) <= 0.5
    return followed if steady and abs(drift) <= _DRIFT else None


def _stays(line: Line, followed: dict[int, Line], scene: Sequence[Traces], at: int) -> bool:
    """Whether the scene moves behind a line, on both of its sides."""
    steps = [one.sideways for one in scene[:-1]]
    flows = np.stack([step for step in steps if step is not None])  # frames × bands × w
    wide = flows.shape[2]
    center = round((line.column + 0.5) * wide / scene[0].columns)
    near, far = _SIDE
    sides = [(max(0, center - far), max(0, center - near)), (center + near, min(wide, center + far))]
    numbers = sorted(followed)
    own = np.array([followed[number].column for number in numbers])
    apart, paths = np.ones(len(line.shown), bool), []
    for start, stop in sides:
        if stop - start < 3:
            continue
        path = np.concatenate([np.zeros((1, flows.shape[1])), np.cumsum(np.median(flows[:, :, start:stop], axis=2), 0)])
        paths.append(path)
        apart &= np.ptp(own[:, None] - path[numbers], axis=0) >= _APART
    if not paths or apart[line.shown].mean() < _APART_SHARE:
        return False
    # A row of posts may show one where another was: then the scene's own way leads to a line, too.
    way = np.median(np.mean(paths, axis=0)[:, line.shown], axis=1)
    hits = []
    for number, column in zip(numbers, own):
        ahead = line.column + way[number] - way[at]
        if abs(ahead - column) >= _APART:
            hits.append(
                any(one.bright == line.bright and abs(one.column - ahead) <= _ON_LINE for one in scene[number].lines)
            )
    return not hits or float(np.mean(hits)) < 0.5


def _draw(mask: BoolArray, line: Line, columns: int) -> None:
    """Add a line to a mask, H×W."""
    high, wide = mask.shape
    few, rows = wide // columns, -(-high // _MOST_BANDS)
    band = (np.arange(high) + 0.5) / rows - 0.5
    center = (line.column + line.lean * (band - (len(line.shown) - 1) / 2) + 0.5) * few - 0.5
    half = line.width * few / 2 + _MARGIN_PX
    reach = np.arange(-int(half) - 1, int(half) + 2)
    at = np.rint(center)[:, None] + reach
    own = (np.abs(at - center[:, None]) <= half) & (at >= 0) & (at < wide)
    own &= line.shown[np.minimum(np.arange(high) // rows, len(line.shown) - 1)][:, None]
    y, x = np.nonzero(own)
    mask[y, at[y, x].astype(int)] = True
