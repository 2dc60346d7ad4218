"""Counter-based random numbers: every number is a hash of (key, stream, position), without a generator's state.

So the same key gives the same numbers for any batch split, any number of workers, after any resume, and on any device
(integers are equal everywhere; the floats made from them up to rounding).

The hash is the finalizer of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
OOPSLA 2014, with Stafford's constants "Mix13"), which counts in steps of the golden ratio. It is written twice, for
Python integers and for int64 tensors, which wrap around in the same way; a test compares the two.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from restore.devices import to_device

_GOLDEN = 0x9E3779B97F4A7C15  # 2⁶⁴ divided by the golden ratio, odd
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB
_ALL = (1 << 64) - 1
_CHUNK = 1 << 20  # hashes computed at once: bounds the memory
_FEW = 1 << 14  # up to this size NumPy is faster than PyTorch, because the overhead of calls dominates
_U27, _U30, _U31 = np.uint64(27), np.uint64(30), np.uint64(31)


def key(seed: int, *parts: int | str) -> int:
    """A key from a seed and the parts that identify a case: `key(seed, step, index)`, `key(seed, "a/b.png")`.

    Args:
        seed: any integer.
        parts: integers, or text (hashed by its UTF-8 bytes).

    Returns:
        An integer in the range of int64, so that it fits into a tensor of keys.
    """
    value = _mix(seed & _ALL)
    for part in parts:
        if isinstance(part, str):
            data = part.encode("utf-8", "surrogateescape")
            value = _mix((value ^ len(data)) + _GOLDEN & _ALL)
            for start in range(0, len(data), 8):
                value = _mix((value ^ int.from_bytes(data[start : start + 8], "little")) + _GOLDEN & _ALL)
        else:
            value = _mix((value ^ (part & _ALL)) + _GOLDEN & _ALL)
    return _signed(value)


def keys(seed: int, *parts: int, last: Iterable[int]) -> Tensor:
    """`key(seed, *parts, i)` for every `i` of `last`, as int64[B] on the CPU."""
    start = torch.tensor([key(seed, *parts)], dtype=torch.int64)
    return _mix_tensor((start ^ torch.tensor(list(last), dtype=torch.int64)) + _signed(_GOLDEN))


def fold_in(parents: Tensor, part: int) -> Tensor:
    """New keys from `parents`, int64[B]; independent of them, and of one another for different `part`."""
    return _mix_tensor((parents ^ part) + _signed(_GOLDEN))


def uniform(keys: Tensor, stream: int, n: int) -> Tensor:
    """`n` numbers per key, uniform in [0, 1).

    Args:
        keys: int64[B].
        stream: different streams of one key are independent.

    Returns:
        float64[B, n], on the device of `keys`, which is the CPU as a rule.
    """
    counters = torch.arange(n, dtype=torch.int64, device=keys.device) * _signed(_GOLDEN)
    bits = _mix_tensor(fold_in(keys, stream)[:, None] + counters)
    return ((bits >> 11) & ((1 << 53) - 1)).to(torch.float64) * 2.0**-53


def normal(keys: Tensor, stream: int, n: int, truncation: float | None = None) -> Tensor:
    """`n` standard normal numbers per key; with `truncation`, of the part of the distribution within ± that.

    Arguments and result as for `uniform`, but float32.
    """
    left_out = 0.0 if truncation is None else 0.5 * math.erfc(truncation / math.sqrt(2))
    inside = left_out + (1 - 2 * left_out) * (uniform(keys, stream, n) + 2.0**-54)
    drawn: Tensor = torch.special.ndtri(inside)
    return drawn.float()


def uniform_range(keys: Tensor, stream: int, bounds: Sequence[float], n: int | None = None) -> Tensor:
    """Uniform in [bounds[0], bounds[1]]: float64[B], or float64[B, n] with `n`."""
    low, high = bounds
    values = low + (high - low) * uniform(keys, stream, 1 if n is None else n)
    return values[:, 0] if n is None else values


def integers(keys: Tensor, stream: int, low: int, high: int, n: int | None = None) -> Tensor:
    """Uniform among low … high, both inclusive: int64[B], or int64[B, n] with `n`."""
    values = low + (uniform(keys, stream, 1 if n is None else n) * (high - low + 1)).floor().to(torch.int64)
    return values[:, 0] if n is None else values


def bernoulli(keys: Tensor, stream: int, probability: float) -> Tensor:
    """True with a probability of `probability`: bool[B]."""
    return uniform(keys, stream, 1)[:, 0] < probability


def field_uniform(keys: Tensor, stream: int, shape: tuple[int, int, int], device: torch.device | str) -> Tensor:
    """A field of independent numbers per key, uniform in [0, 1).

    Args:
        keys: int64[B], on the CPU.
        stream: different streams of one key are independent.
        shape: (channels, height, width).
        device: where the field is made and stays.

    Returns:
        float32, B×C×H×W.
    """
    out, half = _empty_field(keys, shape, device)
    for chunk, high, low in _field_bits(keys, stream, half, device):
        out[:, 0, chunk] = high.to(torch.float32).mul_(2.0**-24)
        out[:, 1, chunk] = low.to(torch.float32).mul_(2.0**-24)
    return _as_field(out, shape)


def field_normal(keys: Tensor, stream: int, shape: tuple[int, int, int], device: torch.device | str) -> Tensor:
    """A field of independent standard normal numbers per key, by the Box-Muller transform.

    Arguments and result as for `field_uniform`; all values lie within ±6.
    """
    out, half = _empty_field(keys, shape, device)
    for chunk, high, low in _field_bits(keys, stream, half, device):
        radius = ((high.to(torch.float32) + 0.5) * 2.0**-24).log_().mul_(-2.0).sqrt_()
        angle = low.to(torch.float32).mul_(2.0**-24 * 2.0 * math.pi)
        out[:, 0, chunk] = radius * angle.cos()
        out[:, 1, chunk] = radius * angle.sin()
    return _as_field(out, shape)


def _empty_field(keys: Tensor, shape: tuple[int, int, int], device: torch.device | str) -> tuple[Tensor, int]:
    half = -(-math.prod(shape) // 2)
    return torch.empty(len(keys), 2, half, device=device), half


def _as_field(pairs: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """B×2×half as B×C×H×W; for an odd number of pixels the last number is dropped."""
    return pairs.flatten(1)[:, : math.prod(shape)].reshape(-1, *shape)


def _field_bits(
    keys: Tensor, stream: int, half: int, device: torch.device | str
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Chunks of two int64[B, n] with 24 random bits each, both from one 64-bit hash."""
    start = to_device(fold_in(keys, stream), device)[:, None]
    for first in range(0, half, _CHUNK):
        last = min(first + _CHUNK, half)
        positions = torch.arange(first, last, dtype=torch.int64, device=device) * _signed(_GOLDEN)
        bits = _mix_tensor(start + positions)
        yield slice(first, last), (bits >> 40) & 0xFFFFFF, (bits >> 8) & 0xFFFFFF


def _mix(value: int) -> int:
    value = (value ^ (value >> 30)) * _FIRST & _ALL
    value = (value ^ (value >> 27)) * _SECOND & _ALL
    return value ^ (value >> 31)


def _mix_tensor(value: Tensor) -> Tensor:
    if value.device.type == "cpu" and value.numel() <= _FEW:
        bits = value.contiguous().numpy().view(np.uint64)
        bits = (bits ^ (bits >> _U30)) * np.uint64(_FIRST)
        bits = (bits ^ (bits >> _U27)) * np.uint64(_SECOND)
        return torch.from_numpy((bits ^ (bits >> _U31)).view(np.int64))
    # int64 tensors wrap around on overflow. `>>` repeats the sign bit, so the bits that it shifts in are masked.
    value = (value ^ ((value >> 30) & ((1 << 34) - 1))) * _signed(_FIRST)
    value = (value ^ ((value >> 27) & ((1 << 37) - 1))) * _signed(_SECOND)
    return value ^ ((value >> 31) & ((1 << 33) - 1))


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value
