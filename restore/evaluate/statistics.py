"""How sure a mean is: bootstrap intervals, the same numbers in every run."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np

RESAMPLES = 10_000
LEVEL = 0.95
SEED = 0

_NUMBERS_AT_ONCE = 2**20


def bootstrap_interval(
    values: Sequence[float], *, seed: int = SEED, resamples: int = RESAMPLES, level: float = LEVEL
) -> tuple[float, float]:
    """Where the mean lies: percentile bootstrap (Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, ch. 13).

    Args:
        values: finite numbers, one per picture; their order does not matter.
        seed: the same seed gives the same interval.
        resamples: how many sets of pictures are drawn with replacement.
        level: how often such intervals hold the true mean.

    Returns:
        The lower and the upper end; NaN for fewer than two values, of which nothing can be said.
    """
    if len(values) < 2:
        return math.nan, math.nan
    return _interval(tuple(sorted(values)), seed, resamples, level)


@functools.lru_cache(maxsize=256)  # a report is asked for the same ones by its table and by its file
def _interval(values: tuple[float, ...], seed: int, resamples: int, level: float) -> tuple[float, float]:
    numbers = np.asarray(values, np.float64)
    generator = np.random.Generator(np.random.PCG64(seed))
    at_once = max(_NUMBERS_AT_ONCE // len(numbers), 1)
    means = []
    for start in range(0, resamples, at_once):
        drawn = generator.integers(0, len(numbers), (min(at_once, resamples - start), len(numbers)))
        means.append(numbers[drawn].mean(axis=1))
    tail = (1 - level) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return float(low), float(high)


def interval_or_none(values: Sequence[float]) -> list[float] | None:
    """`bootstrap_interval` for a report: None where nothing can be said."""
    return list(bootstrap_interval(values)) if len(values) > 1 else None
