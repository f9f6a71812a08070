"""From numbers per case to what may be said about a method: intervals and paired tests.

The cases are the sample: seeds of one case are averaged before anything here. All draws
come from a fixed seed, so that a report made twice says the same. Trained networks are another
sample, too small to draw from: `t_interval`.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.stats import t as student_t
from scipy.stats import wilcoxon

Values = Float[np.ndarray, " case"]

NUM_DRAWS = 10_000
LEVEL = 0.95


class Interval(NamedTuple):
    """A mean and its interval."""

    mean: float
    low: float
    high: float


class Comparison(NamedTuple):
    """How far one method's numbers lie above another's on the same cases."""

    difference: Interval
    """Mean difference and its paired bootstrap interval."""

    bootstrap_p: float
    """Two-sided p-value of the paired bootstrap."""

    wilcoxon_p: float
    """Two-sided p-value of the Wilcoxon signed-rank test."""

    num_cases: int


@lru_cache(maxsize=16)
def _times_drawn(num_cases: int, seed: int) -> Float[np.ndarray, "draw case"]:
    """How often each bootstrap draw takes each case, when it takes as many as there are."""
    generator = np.random.default_rng(seed)
    shares = np.full(num_cases, 1.0 / num_cases)
    return generator.multinomial(num_cases, shares, size=NUM_DRAWS).astype(np.float64)


def _drawn_means(values: Values, seed: int) -> Float[np.ndarray, " draw"]:
    """The mean over cases in each bootstrap draw."""
    means: Float[np.ndarray, " draw"] = _times_drawn(len(values), seed) @ values / len(values)
    return means


def bootstrap_mean(values: Values, *, level: float = LEVEL, seed: int = 0) -> Interval:
    """The mean over cases with its percentile bootstrap interval.

    Args:
        values: One finite number per case.
        level: Share of draws inside the interval, between 0 and 1.
        seed: Seed of the draws.

    Returns:
        The mean and interval; with one case the interval is not known and both ends are NaN.

    Raises:
        ValueError: If there is no value, one is not finite, or `level` is out of range.

    References:
        Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13.3.
    """
    _check(values, level)
    if len(values) == 1:
        return Interval(float(values[0]), float("nan"), float("nan"))
    means = _drawn_means(values, seed)
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(means, [tail, 1.0 - tail])
    return Interval(float(values.mean()), float(low), float(high))


def t_interval(values: Float[np.ndarray, " network"], *, level: float = LEVEL) -> Interval:
    """The mean over trained networks with its Student t interval.

    A bootstrap of three numbers knows ten means and is far too narrow; this is right for as few as
    two, and then wide, if networks of other seeds scatter about normally.

    Args:
        values: One finite number per network.
        level: How often the interval holds the mean of all such networks, between 0 and 1.

    Returns:
        The mean and interval; with one network both ends are NaN.

    Raises:
        ValueError: If there is no value, one is not finite, or `level` is out of range.

    References:
        Student 1908, The probable error of a mean.
    """
    _check(values, level)
    mean, count = float(values.mean()), len(values)
    if count == 1:
        return Interval(mean, math.nan, math.nan)
    half = student_t.ppf((1.0 + level) / 2.0, count - 1) * values.std(ddof=1) / math.sqrt(count)
    return Interval(mean, mean - float(half), mean + float(half))


def compare_paired(
    values: Values,
    reference: Float[np.ndarray, " other"],
    *,
    level: float = LEVEL,
    seed: int = 0,
) -> Comparison:
    """Test whether a method differs from a reference on the same cases.

    Args:
        values: One finite number per case.
        reference: The reference's numbers of the same cases in the same order.
        level: Share of draws inside the interval.
        seed: Seed of the draws.

    Returns:
        The mean difference with its interval and both p-values. The bootstrap's p-value is
        twice the smaller share of draws on one side of zero, never less than 2 / (draws + 1)
        nor than 2 / 2^cases, the least that signs of so few differences can say.

    Raises:
        ValueError: If the counts differ, or a value is not finite.

    References:
        Wilcoxon 1945; Efron and Tibshirani 1993, chapter 15.4 for the p-value of an interval.
    """
    if len(values) != len(reference):
        raise ValueError(f"a paired test needs pairs, got {len(values)} and {len(reference)}")
    difference = values - reference
    interval = bootstrap_mean(difference, level=level, seed=seed)
    return Comparison(
        interval, _bootstrap_p(difference, seed), _wilcoxon_p(difference), len(difference)
    )


def _bootstrap_p(difference: Values, seed: int) -> float:
    """Two-sided p-value of a mean difference of zero."""
    means = _drawn_means(difference, seed)
    smaller = min(int((means <= 0.0).sum()), int((means >= 0.0).sum()))
    least = 2.0 ** (1 - len(difference))
    return min(1.0, max(least, 2.0 * (smaller + 1) / (NUM_DRAWS + 1)))


def _wilcoxon_p(difference: Values) -> float:
    """Two-sided p-value of the signed-rank test; 1 where no case differs."""
    if not difference.any():
        return 1.0
    return float(wilcoxon(difference[difference != 0.0]).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for being read together, so that any false alarm has the level's rate.

    Args:
        p_values: The p-values of one family of tests.

    Returns:
        Adjusted p-values in the same order, at most 1.

    References:
        Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, highest = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, (len(p_values) - rank) * p_values[index])
        adjusted[index] = min(1.0, highest)
    return adjusted


def _check(values: Values, level: float) -> None:
    """Refuse what has no mean."""
    if not len(values):
        raise ValueError("an interval needs at least one number")
    if not np.isfinite(values).all():
        raise ValueError("an interval needs finite numbers; leave out NaN and infinity first")
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must be between 0 and 1, got {level}")
