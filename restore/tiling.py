"""Any tensor -> tensor callable over any size: overlapping tiles, blended, smaller when memory runs out."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from restore.errors import RestoreError

BLEND_PX = 16
"""Over how many input pixels one tile fades into the next."""


@torch.inference_mode()
def run_tiled(
    f: Callable[..., Tensor],
    inputs: Tensor | Sequence[Tensor | None],
    *,
    tile_px: int,
    overlap_px: int,
    scale: int = 1,
    multiple: int = 1,
    on_smaller: Callable[[int], None] | None = None,
) -> Tensor:
    """Run `f` over tiles and put its pictures together.

    Every output pixel comes from tiles whose cut edges are at least `overlap_px` away (the picture's own border
    is no cut), so for an `f` that looks no further the result is that of the whole picture. Where two tiles both
    know, they blend by a raised cosine. Tiles begin at multiples of `multiple`, so a network with strides sees the same
    alignment as in the whole picture; they end at multiples too or at the picture's border, where `f` itself
    pads what it needs. A picture that fits into one tile is passed through untouched.

    Args:
        f: takes the inputs' tiles, B×C×h×w each (None stays None), and returns B×C'×(h·scale)×(w·scale). It may
            move them to another device.
        inputs: one tensor B×C×H×W or C×H×W, or several of one size (picture, mask).
        tile_px: largest side of a tile in input pixels; 0 is the whole picture at once. One too small for its
            overlap is enlarged (`smallest_tile`).
        overlap_px: how far `f` looks, in input pixels.
        scale: output side / input side.
        multiple: what the network's strides multiply to.
        on_smaller: told once, at the end, which tile worked, if memory did not suffice for the wanted one.

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
        on_smaller=on_smaller,
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
    on_smaller: Callable[[int], None] | None = None,
) -> None:
    """`run_tiled` for a picture that is never in memory as a whole: rows come and go; the same values, bit for bit.

    Args:
        f, tile_px, overlap_px, scale, multiple, on_smaller: see `run_tiled`.
        read: (rows, columns) -> this part of the inputs, B×C×h×w each, on one device. Parts are asked for from the
            top down, overlapping.
        write: (top, B×C'×h×(W·scale)) takes finished rows of the output from `top` on, from the top down without gaps.
            Where memory does not suffice it all begins again at 0.
        size: (H, W) of the inputs.

    Raises:
        RestoreError: out of memory even with the smallest tile.
    """
    height, width = size
    smallest = smallest_tile(overlap_px, multiple)
    wanted = max(height, width) if tile_px <= 0 else min(max(tile_px, smallest), max(height, width))
    tile = wanted
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
                    f"out of memory even with tiles of {tile} pixels",
                    hint="close other programs, or use --device cpu or a smaller model",
                    exit_code=1,
                ) from None
        else:
            break
        # Out of the `except` block, which keeps the failed tensors alive.
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        tile = max(tile // 2, smallest)
    if tile < wanted and on_smaller is not None:
        on_smaller(tile)


def smallest_tile(overlap_px: int, multiple: int = 1) -> int:
    """The smallest side, in input pixels, that a tile is given: half of it is new, so a picture costs four times."""
    return 2 * math.ceil((2 * overlap_px + BLEND_PX) / multiple) * multiple


def auto_tile(
    height: int, width: int, *, device: torch.device | str, overlap_px: int, bytes_per_pixel: int = 4096
) -> int:
    """A tile for a picture on a device: large enough to waste little on overlap, within a quarter of free memory.

    Args:
        height: of the picture, in pixels.
        width: likewise.
        device: where the network runs.
        overlap_px: of the network.
        bytes_per_pixel: peak memory of the network per input pixel.

    Returns:
        `tile_px` for `run_tiled`; 0 where the whole picture takes no more memory than a tile.
    """
    device = torch.device(device)
    # Larger tiles win nothing more: at 16 overlaps the border costs a third, and a processor's caches are small.
    useful = max(16 * overlap_px, 1024 if device.type == "cpu" else 2048)
    affordable = math.isqrt(free_memory(device) // 4 // bytes_per_pixel)
    side = max(min(useful, affordable), smallest_tile(overlap_px))
    return 0 if height * width <= side * side else side


def free_memory(device: torch.device | str) -> int:
    """Bytes that can still be had on a device: of the GPU, or of the machine (or its container) for the rest."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    limits = [half_of_memory()]
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        found = re.search(r"MemAvailable:\s+(\d+) kB", meminfo.read_text())
        limits = [int(found[1]) * 1024] if found else limits
    group = Path("/sys/fs/cgroup")
    if (group / "memory.max").exists() and (limit := (group / "memory.max").read_text().strip()).isdigit():
        limits.append(int(limit) - int((group / "memory.current").read_text()))
    return max(min(limits), 0)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, of whatever class and device, says that memory did not suffice."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    said = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in said for words in _OUT_OF_MEMORY)


_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory")


def half_of_memory() -> int:
    """Half of the installed memory, or 2 GiB where the system does not say."""
    if hasattr(os, "sysconf") and {"SC_PHYS_PAGES", "SC_PAGE_SIZE"} <= os.sysconf_names.keys():
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return 2**31


@dataclass(frozen=True)
class _Span:
    """A tile along one axis: what it reads (input pixels), what of its output counts (output pixels), how much."""

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
    pending: Tensor | None = None  # sums of rows from `top` on, to which a later row of tiles may add
    top = 0
    for number, row in enumerate(rows):
        for column in columns:
            tensors = read(slice(row.start, row.stop), slice(column.start, column.stop))
            home = next(t.device for t in tensors if t is not None)
            out = f(*tensors)
            expected = ((row.stop - row.start) * scale, (column.stop - column.start) * scale)
            if out.shape[-2:] != expected:
                raise ValueError(f"a tile came back as {tuple(out.shape[-2:])}, not {expected}")
            out = out.to(home, torch.promote_types(out.dtype, torch.float32))
            if len(rows) == len(columns) == 1:
                yield 0, out
                return
            if column is columns[0]:
                pending = _longer(pending, out, row.trusted_stop - top, columns[-1].trusted_stop)
            assert pending is not None
            # Only what is trusted is looked at: what lies outside may even be infinite.
            counts = out[
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
            pending[place].add_(counts * weight.to(counts))
        assert pending is not None  # a row has at least one tile
        done = (rows[number + 1].trusted_start if number + 1 < len(rows) else row.trusted_stop) - top
        finished, pending, top = pending[..., :done, :], pending[..., done:, :].clone(), top + done
        yield top - done, finished
        del finished  # before the next row's sums are made


def _longer(pending: Tensor | None, like: Tensor, height: int, width: int) -> Tensor:
    """Sums so far, with room for `height` rows in all."""
    longer = like.new_zeros(*like.shape[:-2], height, width)
    if pending is not None:
        longer[..., : pending.shape[-2], :] = pending
    return longer
