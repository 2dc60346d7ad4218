"""Run any tensor -> tensor callable on images of any size: overlapping tiles, blended; smaller if memory runs out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from restore import progress
from restore.devices import free_memory, is_out_of_memory
from restore.errors import RestoreError

#: Width of the blend between two tiles, in input pixels.
BLEND_PX = 16


@torch.inference_mode()
def run_tiled(
    f: Callable[..., Tensor],
    inputs: Tensor | Sequence[Tensor | None],
    *,
    tile_px: int,
    overlap_px: int,
    scale: int = 1,
    multiple: int = 1,
    on_smaller_tile: Callable[[int], None] | None = None,
) -> Tensor:
    """Run `f` on tiles and put its outputs together.

    Every output pixel comes from tiles whose cut edges are at least `overlap_px` away (the image's border does not
    count as a cut). So if `f` sees no further, the result equals that of the whole image. Where the trusted parts of
    two tiles overlap, a raised cosine blends them. Tiles start at multiples of `multiple`, so a network with strides
    sees the same alignment as in the whole image; they end at multiples, too, or at the image's border, where `f` pads
    as it needs. An image that fits into one tile is passed to `f` as it is.

    Args:
        f: takes the inputs' tiles, B×C×h×w each (None stays None), and returns B×C'×(h·scale)×(w·scale). It may
            move them to another device.
        inputs: one tensor B×C×H×W or C×H×W, or several of one size (image, mask).
        tile_px: largest side of a tile in input pixels; 0 is the whole image at once. One too small for its overlap
            is enlarged (`smallest_tile`).
        overlap_px: how far `f` sees, in input pixels.
        scale: output side / input side.
        multiple: product of the network's strides.
        on_smaller_tile: called once, at the end, with the tile that worked, if `tile_px` was out of memory.

    Returns:
        float32 (float64 if `f` gives that), on the device of the inputs, with as many dimensions as they have.

    Raises:
        RestoreError: out of memory even with the smallest tile.
    """
    tensors: list[Tensor | None] = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    first = next(t for t in tensors if t is not None)
    single = first.ndim == 3
    if single:
        tensors = [None if t is None else t.unsqueeze(0) for t in tensors]
    height, width = first.shape[-2:]
    whole: list[Tensor] = []

    def put(top: int, band: Tensor) -> None:
        if band.shape[-2] == height * scale:
            whole[:] = [band]
            return
        if top == 0:
            whole[:] = [band.new_zeros(*band.shape[:-2], height * scale, width * scale)]
        whole[0][..., top : top + band.shape[-2], :] = band

    run_banded(
        f,
        lambda rows, columns: [None if t is None else t[..., rows, columns] for t in tensors],
        put,
        size=(height, width),
        tile_px=tile_px,
        overlap_px=overlap_px,
        scale=scale,
        multiple=multiple,
        on_smaller_tile=on_smaller_tile,
    )
    return whole[0].squeeze(0) if single else whole[0]


@torch.inference_mode()
def run_banded(
    f: Callable[..., Tensor],
    read: Callable[[slice, slice], Sequence[Tensor | None]],
    write: Callable[[int, Tensor], None],
    *,
    size: tuple[int, int],
    tile_px: int,
    overlap_px: int,
    scale: int = 1,
    multiple: int = 1,
    on_smaller_tile: Callable[[int], None] | None = None,
) -> None:
    """`run_tiled` for an image that is never in memory as a whole, a band of rows at a time; the same bit for bit.

    Args:
        f, tile_px, overlap_px, scale, multiple, on_smaller_tile: see `run_tiled`.
        read: (rows, columns) -> this part of the inputs, B×C×h×w each, on one device. Parts are read from the top down
            and overlap.
        write: (top, B×C'×h×(W·scale)) takes finished rows of the output from `top` on, from the top down without gaps.
            If memory runs out, all rows are written again, from 0.
        size: (H, W) of the inputs.

    Raises:
        RestoreError: out of memory even with the smallest tile.
    """
    height, width = size
    smallest = smallest_tile(overlap_px, multiple)
    first = max(height, width) if tile_px <= 0 else min(max(tile_px, smallest), max(height, width))
    tile = first
    while True:
        rows = _layout(height, tile, overlap_px, scale, multiple)
        columns = _layout(width, tile, overlap_px, scale, multiple)
        try:
            for top, band in _bands(f, read, rows, columns, scale):
                write(top, band)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if tile <= smallest:
                raise RestoreError(
                    f"out of memory even with {tile} px tiles",
                    hint="close other programs, or use --device cpu or a smaller model",
                    exit_code=1,
                ) from None
        else:
            break
        # Not in the `except` block: the exception's traceback keeps the failed tensors alive.
        torch.cuda.empty_cache()  # does nothing unless CUDA is in use
        tile = max(tile // 2, smallest)
    if tile < first and on_smaller_tile is not None:
        on_smaller_tile(tile)


def smallest_tile(overlap_px: int, multiple: int = 1) -> int:
    """The smallest side of a tile, in input pixels: half of it is overlap, so an image costs four times as much."""
    return 2 * math.ceil((2 * overlap_px + BLEND_PX) / multiple) * multiple


def auto_tile(
    height: int, width: int, *, device: torch.device | str, overlap_px: int, bytes_per_pixel: int = 4096
) -> int:
    """The tile for an image on a device: large enough to waste little on overlap, within a quarter of free memory.

    Args:
        height: of the image, in pixels.
        width: likewise.
        device: where the network runs.
        overlap_px: of the network.
        bytes_per_pixel: peak memory of the network per input pixel.

    Returns:
        `tile_px` for `run_tiled`; 0 if the whole image takes no more memory than a tile.
    """
    device = torch.device(device)
    # Larger tiles gain little: at 16 overlaps the border costs a third, and a processor's caches are small.
    useful = max(16 * overlap_px, 1024 if device.type == "cpu" else 2048)
    affordable = math.isqrt(free_memory(device) // 4 // bytes_per_pixel)
    side = max(min(useful, affordable), smallest_tile(overlap_px))
    return 0 if height * width <= side * side else side


@dataclass(frozen=True)
class _Span:
    """A tile along one axis: the input pixels that it reads, the output pixels that are trusted, and their weights."""

    start: int
    stop: int
    trusted_start: int
    trusted_stop: int
    weight: Tensor


def _layout(length: int, tile: int, overlap: int, scale: int, multiple: int) -> list[_Span]:
    """Tiles along one axis, as few and then as small as `tile` allows; their weights add up to 1 at every pixel."""
    # All in units of `multiple`, so that rounding cannot break the cover.
    blocks = math.ceil(length / multiple)
    shared = math.ceil((2 * overlap + BLEND_PX) / multiple)
    if length <= tile:
        count, side = 1, blocks
    else:
        count = math.ceil((blocks - shared) / (tile // multiple - shared))
        side = math.ceil((blocks - shared) / count) + shared
    spans = []
    for number in range(count):
        start = number * (blocks - side) // max(count - 1, 1) * multiple
        stop = min(start + side * multiple, length)
        trusted_start = 0 if start == 0 else (start + overlap) * scale
        trusted_stop = length * scale if stop == length else (stop - overlap) * scale
        weight = torch.ones(trusted_stop - trusted_start, dtype=torch.float64)
        ramp = torch.sin((torch.arange(BLEND_PX * scale) + 0.5) / (BLEND_PX * scale) * (math.pi / 2)) ** 2
        if start > 0:
            weight[: len(ramp)] *= ramp
        if stop < length:
            weight[-len(ramp) :] *= ramp.flip(0)
        spans.append(_Span(start, stop, trusted_start, trusted_stop, weight))
    total = torch.zeros(length * scale, dtype=torch.float64)
    for span in spans:
        total[span.trusted_start : span.trusted_stop] += span.weight
    for span in spans:
        span.weight.div_(total[span.trusted_start : span.trusted_stop])
    return spans


def _bands(
    f: Callable[..., Tensor],
    read: Callable[[slice, slice], Sequence[Tensor | None]],
    rows: list[_Span],
    columns: list[_Span],
    scale: int,
) -> Iterator[tuple[int, Tensor]]:
    """Finished rows of the output, from the top down: (first row, B×C'×h×W')."""
    tiles = len(rows) * len(columns)
    pending: Tensor | None = None  # sums of rows from `top` on, to which a later row of tiles may add
    top = 0
    for number, row in enumerate(rows):
        for across, column in enumerate(columns):
            progress.done((number * len(columns) + across) / tiles)
            tensors = read(slice(row.start, row.stop), slice(column.start, column.stop))
            home = next(t.device for t in tensors if t is not None)
            out = f(*tensors)
            expected = ((row.stop - row.start) * scale, (column.stop - column.start) * scale)
            if out.shape[-2:] != expected:
                raise ValueError(f"the output for a tile is {tuple(out.shape[-2:])}, expected {expected}")
            out = out.to(home, torch.promote_types(out.dtype, torch.float32))
            if len(rows) == len(columns) == 1:
                yield 0, out
                return
            if column is columns[0]:
                pending = _longer(pending, out, row.trusted_stop - top, columns[-1].trusted_stop)
            assert pending is not None
            # Values outside the trusted part may even be Inf: they must not be multiplied by a weight of 0.
            trusted = out[
                ...,
                row.trusted_start - row.start * scale : row.trusted_stop - row.start * scale,
                column.trusted_start - column.start * scale : column.trusted_stop - column.start * scale,
            ]
            weight = row.weight[:, None] * column.weight
            place = (
                ...,
                slice(row.trusted_start - top, row.trusted_stop - top),
                slice(column.trusted_start, column.trusted_stop),
            )
            pending[place].add_(trusted * weight.to(trusted))
        assert pending is not None  # a row has at least one tile
        done = (rows[number + 1].trusted_start if number + 1 < len(rows) else row.trusted_stop) - top
        finished, pending, top = pending[..., :done, :], pending[..., done:, :].clone(), top + done
        yield top - done, finished
        del finished  # before the next row's sums are made
    progress.done(1.0)


def _longer(pending: Tensor | None, like: Tensor, height: int, width: int) -> Tensor:
    """The sums so far, with `height` rows in all."""
    longer = like.new_zeros(*like.shape[:-2], height, width)
    if pending is not None:
        longer[..., : pending.shape[-2], :] = pending
    return longer
