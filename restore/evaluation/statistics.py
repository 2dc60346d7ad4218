"""Confidence intervals of mean scores, by a bootstrap with a fixed seed."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np

RESAMPLES = 10_000
LEVEL = 0.95
SEED = 0

# Resampled values held in memory at once: 16 MiB of indices and values.
_CHUNK_VALUES = 2**20


def bootstrap_interval(
    values: Sequence[float], *, seed: int = SEED, resamples: int = RESAMPLES, level: float = LEVEL
) -> tuple[float, float]:
    """Percentile bootstrap of the mean (Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, ch. 13).

    Args:
        values: finite scores, one per image, in any order.
        seed: the same seed gives the same interval.
        resamples: number of resamples, drawn with replacement.
        level: coverage of the interval.

    Returns:
        The lower and the upper end; (NaN, NaN) for fewer than two values.
    """
    return _bootstrap_interval(tuple(sorted(values)), seed, resamples, level)


# Cached because the printed table and the report files need the same intervals.
@functools.lru_cache(maxsize=256)
def _bootstrap_interval(values: tuple[float, ...], seed: int, resamples: int, level: float) -> tuple[float, float]:
    if len(values) < 2:
        return math.nan, math.nan
    array = np.asarray(values, np.float64)
    generator = np.random.Generator(np.random.PCG64(seed))
    chunk = max(_CHUNK_VALUES // len(array), 1)
    means = []
    for start in range(0, resamples, chunk):
        drawn = generator.integers(0, len(array), (min(chunk, resamples - start), len(array)))
        means.append(array[drawn].mean(axis=1))
    tail = (1 - level) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return float(low), float(high)


def interval_or_none(values: Sequence[float]) -> list[float] | None:
    """`bootstrap_interval` as a list for JSON; None for fewer than two values."""
    low, high = bootstrap_interval(values)
    return None if math.isnan(low) else [low, high]
