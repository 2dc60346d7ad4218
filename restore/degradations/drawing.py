"""Drawing tools for marks: line segments, value noise, and the mask of the visible marks."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from restore.box_filter import box_mean, box_sum
from restore.devices import to_device
from restore.hashed_random import field_uniform

# Visibility of marks.

MIN_CHANGE = 5 / 255
"""Mean change, in [0, 1], below which a mark is invisible in a scan that is stored as JPEG."""

# Rose, "The sensitivity performance of the human eye on an absolute scale", JOSA 38 (1948): a mark is reliably visible
# if its contrast is at least five times the noise divided by the square root of its area in pixels.
_ROSE = 5.0
_THIN_WINDOW = 11
_GRAIN_WINDOW = 5
# Mean absolute deviation of Gaussian noise from its own mean over 5×5 pixels, divided by its standard deviation:
# √(2/π)·√(24/25).
_DEVIATION = 0.782


def visible_pixels(before: Tensor, after: Tensor, covered: Tensor, *, window: int = _THIN_WINDOW) -> Tensor:
    """The covered pixels at which a mark stands out from the image's own grain and texture.

    A detector cannot learn invisible marks, so they do not belong in the mask. The test uses the changes d of the
    covered pixels in a window around each pixel. Their self-weighted mean, Σd²/Σd, must reach `MIN_CHANGE`, and √Σd²
    must reach 5·σ. For a uniform mark of n pixels the second condition is Rose's d·√n ≥ 5·σ. σ is the deviation of the
    fine detail of the gray image before the mark: grain, noise and texture alike, because a faint scratch is lost in
    grass, too. As the test covers a window, the mask has no gap at a pixel that happens to have the tone of the mark,
    but ends where a white scratch runs into a white sky.

    Args:
        before: float32, B×3×H×W.
        after: the same images with the marks.
        covered: bool, B×1×H×W: pixels covered by marks.
        window: side of the window, odd. Wide marks need a wide window; a narrow one leaves gaps in the mask where the
            image under the mark has a similar tone.

    Returns:
        bool, B×1×H×W, a subset of `covered`.
    """
    change = (after - before).abs_().amax(1, keepdim=True) * covered
    gray = before.mean(1, keepdim=True)
    grain = box_mean((gray - box_mean(gray, _GRAIN_WINDOW)).abs_(), window) / _DEVIATION
    sums = box_sum(torch.cat([change, change.square()], 1), window)
    changes, squares = sums[:, :1], sums[:, 1:]
    return covered & (squares >= (_ROSE * grain).square()) & (squares >= changes * MIN_CHANGE) & (changes > 0)


# Random fields, for ragged edges and uneven blots.


def value_noise(
    keys: Tensor, stream: int, pitch: float, size: tuple[int, int], device: torch.device | str, *, octaves: int = 3
) -> Tensor:
    """Value noise: each octave is twice as fine and half as strong as the one before.

    The lattice of the previous octave is refined by bicubic interpolation, and the random numbers of the next are added
    to it. The finest lattice is interpolated bilinearly. Octaves finer than a pixel are left out.

    Args:
        keys: int64[B], on the CPU.
        stream: different streams of one key are independent.
        pitch: distance between points of the coarsest lattice in pixels; approximate, because the lattice is fitted to
            the image.
        size: (height, width).
        device: device of the field.
        octaves: maximum number of octaves; 1 gives smooth noise.

    Returns:
        float32, B×1×H×W, about [−1, 1] (bicubic interpolation overshoots a little).
    """
    pitch = max(pitch, 1.0)
    octaves = min(octaves, 1 + int(math.log2(pitch)))
    spans = [max(1, math.ceil((side - 1) / pitch)) for side in size]
    lattices = [(spans[0] * 2**k + 1, spans[1] * 2**k + 1) for k in range(octaves)]
    numbers = field_uniform(keys, stream, (1, 1, sum(map(math.prod, lattices))), device) * 2 - 1
    field, used = numbers, 0
    for k, (rows, columns) in enumerate(lattices):
        values = numbers[..., used : used + rows * columns].reshape(-1, 1, rows, columns)
        used += rows * columns
        field = (
            F.interpolate(field, lattices[k], mode="bicubic", align_corners=True) + 2.0**-k * values if k else values
        )
    if lattices[-1] != size:
        field = F.interpolate(field, size, mode="bilinear", align_corners=True)
    amplitude = 2 - 2.0 ** (1 - octaves)
    return field / amplitude


def pixel_grid(size: tuple[int, int], device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Coordinates of the pixels, float32: y as H×1, x as W; pixel centres at whole numbers."""
    height, width = size
    y = torch.arange(height, device=device, dtype=torch.float32)[:, None]
    return y, torch.arange(width, device=device, dtype=torch.float32)


def smoothstep(x: Tensor) -> Tensor:
    """0 below 0, 1 above 1, and 3x² − 2x³ between, with slope 0 at both ends."""
    x = x.clamp(0, 1)
    return x * x * (3 - 2 * x)


# Line segments, the building blocks of strokes, scratches, hairs, dust, cracks and tears.

# The columns of a table of segments, float64[B, N, 7].
AX, AY, BX, BY, RADIUS_A, RADIUS_B, OPACITY = range(7)
COLUMNS = 7

# Bounds the memory of one batch of windows. A GPU needs large batches, or kernel launches dominate.
_PIXELS_AT_ONCE = {"cpu": 1 << 19, "cuda": 1 << 24}


def polyline_segments(x: Tensor, y: Tensor, radius: Tensor, opacity: Tensor) -> Tensor:
    """The segments between the corners of polylines, for `draw_segments`.

    Args:
        x: x of the corners, float64[B, marks, links + 1].
        y: y of the corners, same shape.
        radius: radius at the corners in pixels, same shape or broadcast to it.
        opacity: float64[B, marks, links] or broadcast to it.

    Returns:
        float64[B, marks·links, 7].
    """
    batch, marks, corners = x.shape
    segments = torch.zeros(batch, marks, corners - 1, COLUMNS, dtype=torch.float64)
    segments[..., AX], segments[..., BX] = x[..., :-1], x[..., 1:]
    segments[..., AY], segments[..., BY] = y[..., :-1], y[..., 1:]
    segments[..., RADIUS_A], segments[..., RADIUS_B] = radius[..., :-1], radius[..., 1:]
    segments[..., OPACITY] = opacity
    return segments.reshape(batch, marks * (corners - 1), COLUMNS)


def draw_segments(
    segments: Tensor, size: tuple[int, int], device: torch.device | str, *, softness: float = 0.0
) -> Tensor:
    """Draw segments with round ends; where several overlap, the highest opacity wins.

    Each segment is evaluated only in the window that it can reach. Windows of similar size form one batch.

    Args:
        segments: float64[B, N, 7] on the CPU: ends (ax, ay, bx, by) with pixel centres at whole numbers, radius at
            each end, opacity in [0, 1]. Segments of opacity 0 are not drawn.
        size: (height, width).
        device: where to draw.
        softness: width in pixels of the edge from full opacity to 0; 0 draws hard edges (a pixel is covered if its
            centre is within the radius).

    Returns:
        float32, B×1×H×W, in [0, 1].
    """
    height, width = size
    batch = segments.shape[0]
    canvas = torch.zeros(batch * height * width, device=device)
    table = segments.reshape(-1, COLUMNS)
    owner = torch.arange(batch).repeat_interleave(segments.shape[1])
    reach = torch.maximum(table[:, RADIUS_A], table[:, RADIUS_B]) + softness / 2
    left = (torch.minimum(table[:, AX], table[:, BX]) - reach).ceil().clamp(min=0)
    right = (torch.maximum(table[:, AX], table[:, BX]) + reach).floor().clamp(max=width - 1)
    top = (torch.minimum(table[:, AY], table[:, BY]) - reach).ceil().clamp(min=0)
    bottom = (torch.maximum(table[:, AY], table[:, BY]) + reach).floor().clamp(max=height - 1)
    inside = (table[:, OPACITY] > 0) & (right >= left) & (bottom >= top)
    table, owner = table[inside], owner[inside]
    left, top = left[inside].to(torch.int64), top[inside].to(torch.int64)
    window_w = _next_power_of_two(right[inside].to(torch.int64) - left + 1, width)
    window_h = _next_power_of_two(bottom[inside].to(torch.int64) - top + 1, height)
    if torch.device(device).type == "cuda":  # launches cost more than pixels on a GPU, so fewer window sizes are faster
        window_w = window_h = torch.maximum(window_w, window_h)
        window_w, window_h = window_w.clamp(max=width), window_h.clamp(max=height)
    left, top = torch.minimum(left, width - window_w), torch.minimum(top, height - window_h)

    # Sorting by window size makes each size a contiguous range, so one transfer to the device is enough.
    kind, order = torch.sort(window_h * (width + 1) + window_w, stable=True)
    left, top, table = left[order], top[order], table[order]
    starts = to_device((owner[order] * height + top) * width + left, device)
    numbers = to_device(_relative_to_window(table, left, top), device)
    at_once = _PIXELS_AT_ONCE.get(torch.device(device).type, 1 << 20)
    first = 0
    for code, count in zip(*(t.tolist() for t in torch.unique_consecutive(kind, return_counts=True))):
        h, w = divmod(code, width + 1)
        rows = torch.arange(h, device=device)[:, None] * width + torch.arange(w, device=device)
        for at in range(first, first + count, step := max(1, at_once // (h * w))):
            part = slice(at, min(at + step, first + count))
            values = _segment_opacity(numbers[:, part], (h, w), softness)
            index = starts[part, None, None] + rows
            canvas.scatter_reduce_(0, index.reshape(-1), values.reshape(-1), "amax")
        first += count
    return canvas.reshape(batch, 1, height, width)


def _next_power_of_two(length: Tensor, limit: int) -> Tensor:
    """Round up to a power of two, at least 8 and at most `limit`: few window sizes mean few launches."""
    powers = torch.exp2(torch.log2(length.to(torch.float64)).ceil()).to(torch.int64)
    return powers.clamp(min=8).clamp(max=limit)


def _relative_to_window(table: Tensor, left: Tensor, top: Tensor) -> Tensor:
    """The rows that `_segment_opacity` unpacks for each segment, float32[8, n].

    Coordinates are relative to the corner of the window, so float32 is precise enough for any image size.
    """
    dx, dy = table[:, BX] - table[:, AX], table[:, BY] - table[:, AY]
    numbers = [
        table[:, AX] - left,
        table[:, AY] - top,
        dx,
        dy,
        1 / (dx.square() + dy.square()).clamp(min=1e-9),
        table[:, RADIUS_A],
        table[:, RADIUS_B] - table[:, RADIUS_A],
        table[:, OPACITY],
    ]
    return torch.stack(numbers).to(torch.float32)


def _segment_opacity(numbers: Tensor, window: tuple[int, int], softness: float) -> Tensor:
    """Opacity of each segment at the pixels of its window, float32 n×h×w."""
    ax, ay, dx, dy, per_length2, radius, radius_change, opacity = numbers[:, :, None, None].unbind(0)
    x = torch.arange(window[1], device=numbers.device, dtype=torch.float32) - ax
    y = torch.arange(window[0], device=numbers.device, dtype=torch.float32)[:, None] - ay
    t = ((x * dx + y * dy) * per_length2).clamp_(0, 1)
    distance2 = (x - t * dx).square_() + (y - t * dy).square_()
    reach = radius + radius_change * t
    if softness <= 0:
        return (distance2 <= reach.square_()).to(torch.float32) * opacity
    return ((reach - distance2.sqrt_()) * (1 / softness) + 0.5).clamp_(0, 1) * opacity


def estimate_coverage(segments: Tensor, size: tuple[int, int], *, precise_above: float) -> Tensor:
    """Fraction of each image that hard-edged `segments` cover, estimated on at most 32×32 points: float64[B].

    Where the sum of the segments' areas stays below `precise_above`, that sum is returned. It counts overlaps twice.
    """
    length = (segments[..., [BX, BY]] - segments[..., [AX, AY]]).norm(dim=-1)
    radius = torch.maximum(segments[..., RADIUS_A], segments[..., RADIUS_B])
    areas = (2 * radius * length + math.pi * radius.square()) * segments[..., OPACITY].ceil()
    coverage: Tensor = areas.sum(1) / (size[0] * size[1])
    unsure = (coverage >= precise_above).nonzero()[:, 0]
    if len(unsure):
        factor = min(1.0, 32 / max(size))
        coarse_size = (math.ceil(size[0] * factor), math.ceil(size[1] * factor))
        scaled = segments[unsure]
        scaled[..., AX : BY + 1] = (scaled[..., AX : BY + 1] + 0.5) * factor - 0.5
        scaled[..., RADIUS_A : RADIUS_B + 1] *= factor
        coverage[unsure] = draw_segments(scaled, coarse_size, "cpu").mean((1, 2, 3), dtype=torch.float64)
    return coverage
