"""Line segments drawn into a batch of pictures: what strokes, scratches, hairs and dust are made of."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from restore.devices import to_device

# the columns of a table of segments, float64[B, N, 7]
AX, AY, BX, BY, RADIUS_A, RADIUS_B, OPACITY = range(7)
COLUMNS = 7

_PIXELS_AT_ONCE = {"cpu": 1 << 19, "cuda": 1 << 24}


def joined(x: Tensor, y: Tensor, radius: Tensor, opacity: Tensor) -> Tensor:
    """The segments between corners of polylines, as `draw` takes them.

    Args:
        x: corners, float64[B, marks, links + 1]; likewise `y`, and `radius`, which may be broadcast.
        y: see `x`.
        radius: in pixels.
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


def draw(segments: Tensor, size: tuple[int, int], device: torch.device | str, *, softness: float = 0.0) -> Tensor:
    """Draw segments with round ends; where several meet, the strongest counts.

    Every segment is evaluated only in the window it can reach; windows of like size go together.

    Args:
        segments: float64[B, N, 7] on the CPU: ends (ax, ay, bx, by) with pixel centres at whole numbers,
            radius at each end, opacity in [0, 1]. A segment of opacity 0 is not drawn.
        size: (height, width).
        device: where to draw.
        softness: width in pixels of the edge from opacity to 0; 0 draws hard edges (a pixel counts when its
            centre lies within the radius).

    Returns:
        float32, B×1×H×W, in [0, 1].
    """
    height, width = size
    batch = segments.shape[0]
    canvas = torch.zeros(batch * height * width, device=device)
    table = segments.reshape(-1, COLUMNS)
    owner = torch.arange(batch).repeat_interleave(segments.shape[1])
    reach = torch.maximum(table[:, RADIUS_A], table[:, RADIUS_B]) + softness / 2
    left = (torch.minimum(table[:, AX], table[:, BX]) - reach).ceil()
    right = (torch.maximum(table[:, AX], table[:, BX]) + reach).floor()
    top = (torch.minimum(table[:, AY], table[:, BY]) - reach).ceil()
    bottom = (torch.maximum(table[:, AY], table[:, BY]) + reach).floor()
    left, top = left.clamp(min=0), top.clamp(min=0)
    right, bottom = right.clamp(max=width - 1), bottom.clamp(max=height - 1)
    seen = (table[:, OPACITY] > 0) & (right >= left) & (bottom >= top)
    table, owner = table[seen], owner[seen]
    left, top = left[seen].to(torch.int64), top[seen].to(torch.int64)
    window_w = _rounded_up(right[seen].to(torch.int64) - left + 1, width)
    window_h = _rounded_up(bottom[seen].to(torch.int64) - top + 1, height)
    if torch.device(device).type == "cuda":  # there, launches cost more than pixels: fewer kinds of windows
        window_w = window_h = torch.maximum(window_w, window_h)
        window_w, window_h = window_w.clamp(max=width), window_h.clamp(max=height)
    left, top = torch.minimum(left, width - window_w), torch.minimum(top, height - window_h)

    # Windows of like size lie together, so that what is sent to the device is sent once.
    kind, order = torch.sort(window_h * (width + 1) + window_w, stable=True)
    left, top, table = left[order], top[order], table[order]
    starts = to_device((owner[order] * height + top) * width + left, device)
    numbers = to_device(_relative(table, left, top), device)
    at_once = _PIXELS_AT_ONCE.get(torch.device(device).type, 1 << 20)
    first = 0
    for code, count in zip(*(t.tolist() for t in torch.unique_consecutive(kind, return_counts=True))):
        h, w = divmod(code, width + 1)
        rows = torch.arange(h, device=device)[:, None] * width + torch.arange(w, device=device)
        for at in range(first, first + count, step := max(1, at_once // (h * w))):
            part = slice(at, min(at + step, first + count))
            values = _coverage(numbers[:, part], (h, w), softness)
            index = starts[part, None, None] + rows
            canvas.scatter_reduce_(0, index.reshape(-1), values.reshape(-1), "amax")
        first += count
    return canvas.reshape(batch, 1, height, width)


def _rounded_up(length: Tensor, limit: int) -> Tensor:
    """The next power of two, at most `limit`: few different windows, so few launches."""
    powers = torch.exp2(torch.log2(length.to(torch.float64)).ceil()).to(torch.int64)
    return powers.clamp(min=8).clamp(max=limit)


def _relative(table: Tensor, left: Tensor, top: Tensor) -> Tensor:
    """What `_coverage` needs of each segment, float32[8, n].

    Relative to the window's corner, so that float32 is exact enough at any picture size.
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


def _coverage(numbers: Tensor, window: tuple[int, int], softness: float) -> Tensor:
    """Opacity of each segment in its window, float32 n×h×w."""
    ax, ay, dx, dy, per_length2, radius, more, opacity = numbers[:, :, None, None].unbind(0)
    x = torch.arange(window[1], device=numbers.device, dtype=torch.float32) - ax
    y = torch.arange(window[0], device=numbers.device, dtype=torch.float32)[:, None] - ay
    t = ((x * dx + y * dy) * per_length2).clamp_(0, 1)
    distance2 = (x - t * dx).square_() + (y - t * dy).square_()
    reach = radius + more * t
    if softness <= 0:
        return (distance2 <= reach.square_()).to(torch.float32) * opacity
    return ((reach - distance2.sqrt_()) * (1 / softness) + 0.5).clamp_(0, 1) * opacity


def covered_share(segments: Tensor, size: tuple[int, int], *, enough: float) -> Tensor:
    """Share of each picture that hard-edged `segments` cover, estimated on at most 32×32 points: float64[B].

    Where the segments' areas together, overlaps counted twice, stay below `enough`, that sum is returned.
    """
    length = (segments[..., [BX, BY]] - segments[..., [AX, AY]]).norm(dim=-1)
    radius = torch.maximum(segments[..., RADIUS_A], segments[..., RADIUS_B])
    areas = (2 * radius * length + math.pi * radius.square()) * segments[..., OPACITY].ceil()
    share = areas.sum(1) / (size[0] * size[1])
    unsure = (share >= enough).nonzero()[:, 0]
    if len(unsure):
        factor = min(1.0, 32 / max(size))
        coarse = (math.ceil(size[0] * factor), math.ceil(size[1] * factor))
        smaller = segments[unsure]
        smaller[..., AX : BY + 1] = (smaller[..., AX : BY + 1] + 0.5) * factor - 0.5
        smaller[..., RADIUS_A : RADIUS_B + 1] *= factor
        share[unsure] = draw(smaller, coarse, "cpu").mean((1, 2, 3), dtype=torch.float64)
    return share
