"""Intervals of means: what they hold, and that they stay the same."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from restore.evaluation.statistics import RESAMPLES, bootstrap_interval

SAMPLE = np.random.default_rng(0).gamma(2, 3, 60).tolist()


def test_an_interval_is_the_same_in_every_run_and_in_any_order() -> None:
    first = bootstrap_interval(SAMPLE)
    assert first == bootstrap_interval(SAMPLE) == bootstrap_interval(SAMPLE[::-1])
    assert first != bootstrap_interval(SAMPLE, seed=1)


def test_it_is_scipys_percentile_interval() -> None:
    reference = scipy.stats.bootstrap(
        (SAMPLE,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(7)
    ).confidence_interval
    spread = reference.high - reference.low
    assert bootstrap_interval(SAMPLE) == pytest.approx((reference.low, reference.high), abs=0.03 * spread)


def test_it_holds_the_true_mean_about_as_often_as_it_says() -> None:
    samples = np.random.default_rng(1).normal(5, 2, (300, 40))
    held = sum(low <= 5 <= high for low, high in (bootstrap_interval(s, resamples=400) for s in samples))
    assert 0.89 < held / 300 < 0.98


def test_one_picture_says_nothing_and_equal_ones_leave_no_doubt() -> None:
    assert all(math.isnan(end) for end in bootstrap_interval([30.0]))
    assert all(math.isnan(end) for end in bootstrap_interval([]))
    assert bootstrap_interval([2.5] * 9) == (2.5, 2.5)


def test_more_values_than_are_drawn_at_once_are_no_matter() -> None:
    low, high = bootstrap_interval(range(1_200_000), resamples=3)
    assert low < high
