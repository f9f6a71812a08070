"""Per-case results to means with intervals and paired tests.

Seeds are averaged within a case first: the cases are the sample.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fewview.evaluation.statistics import (
    Comparison,
    Interval,
    bootstrap_mean,
    compare_paired,
    holm,
)
from fewview.experiment.results import Result

Place = tuple[str, int]
"""A method and a view count."""

CaseMeans = dict[str, dict[str, float]]
"""By case: the mean over seeds of every measure."""


class Measure(NamedTuple):
    """How one number is shown."""

    key: str
    heading: str
    digits: int
    factor: float = 1.0
    """What it is multiplied by for display."""


HEADLINE = (
    Measure("psnr", "PSNR dB", 2),
    Measure("ssim", "SSIM", 3),
    Measure("mae", "MAE HU", 1),
    Measure("bone_dice", "bone Dice", 3),
    Measure("power_spectrum_ratio", "power ratio", 3),
    Measure("reprojection_error", "re-projection %", 2, 100.0),
)
"""The measures of the main tables."""

TESTED = ("psnr", "ssim", "mae")
"""The measures that are tested; each is one family of tests."""


class Entry(NamedTuple):
    """A method at a view count, over all cases."""

    method: str
    ceiling: bool
    num_views: int
    num_cases: int
    num_seeds: int
    measures: dict[str, Interval]
    seconds: float
    """Median over cases and seeds."""

    nfe: float
    """Mean denoiser calls."""

    flop: float | None
    peak_memory_mb: float | None
    """Largest over cases and seeds."""


class Paired(NamedTuple):
    """A method against the reference at a view count, by one measure."""

    method: str
    num_views: int
    measure: str
    found: Comparison
    bootstrap_p: float
    """Adjusted by Holm within the measure."""

    wilcoxon_p: float
    """Adjusted by Holm within the measure."""


def by_place(results: Sequence[Result]) -> dict[Place, list[Result]]:
    """The results of each method at each view count, in the order they come."""
    found: dict[Place, list[Result]] = defaultdict(list)
    for result in results:
        found[result.method, result.num_views].append(result)
    return dict(found)


def case_means(results: Sequence[Result]) -> CaseMeans:
    """The mean over seeds, by case; a measure counts with the seeds where it is defined.

    Infinity (the PSNR of equal volumes) stays; leaving it out would lower the mean.
    """
    collected: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        for key, value in result.scores.items():
            if not math.isnan(value):
                collected[result.case][key].append(value)
    return {
        case: {key: float(np.mean(values)) for key, values in measures.items()}
        for case, measures in collected.items()
    }


def summarize(
    results: Sequence[Result], flop: Mapping[Place, float | None] | None = None
) -> list[Entry]:
    """Means over cases with 95 % bootstrap intervals, per method and view count.

    Args:
        results: The per-case results.
        flop: Counted arithmetic of one volume, where it is known.

    Returns:
        One entry per method and view count, in the order of the results.
    """
    return [_entry(rows, (flop or {}).get(place)) for place, rows in by_place(results).items()]


def _entry(rows: list[Result], flop: float | None) -> Entry:
    """One method at one view count."""
    means = case_means(rows)
    keys = dict.fromkeys(key for measures in means.values() for key in measures)
    peaks = [row.peak_memory_mb for row in rows if row.peak_memory_mb is not None]
    return Entry(
        method=rows[0].method,
        ceiling=rows[0].ceiling,
        num_views=rows[0].num_views,
        num_cases=len({row.case for row in rows}),
        num_seeds=len({row.seed for row in rows}),
        measures={key: _interval(_values(means, key, list(means))) for key in keys},
        seconds=float(np.median([row.seconds for row in rows])),
        nfe=float(np.mean([row.nfe for row in rows])),
        flop=flop,
        peak_memory_mb=max(peaks, default=None),
    )


def _interval(values: np.ndarray) -> Interval:
    """The mean and its interval; an infinite mean has none."""
    if np.isfinite(values).all():
        return bootstrap_mean(values)
    return Interval(float(values.mean()), math.nan, math.nan)


def _values(means: CaseMeans, key: str, cases: Sequence[str]) -> np.ndarray:
    """One number per case that has it."""
    return np.array([means[case][key] for case in cases if key in means[case]])


def paired_tests(results: Sequence[Result], reference: str) -> list[Paired]:
    """Every fair method against the reference on the cases both have.

    P-values are adjusted by Holm over all methods and view counts of one measure. Ceilings
    see the truth and are not tested.
    """
    places = by_place([result for result in results if not result.ceiling])
    tests: list[Paired] = []
    for measure in TESTED:
        family: list[tuple[Place, Comparison]] = []
        for place, rows in places.items():
            against = places.get((reference, place[1]))
            if place[0] == reference or against is None:
                continue
            compared = _compared(case_means(rows), case_means(against), measure)
            if compared is not None:
                family.append((place, compared))
        bootstrap = holm([one.bootstrap_p for _, one in family])
        wilcoxon = holm([one.wilcoxon_p for _, one in family])
        tests += [
            Paired(place[0], place[1], measure, one, bootstrap[index], wilcoxon[index])
            for index, (place, one) in enumerate(family)
        ]
    return tests


def _compared(mine: CaseMeans, theirs: CaseMeans, measure: str) -> Comparison | None:
    """The paired test on shared cases; None with fewer than two, or with infinite numbers."""
    shared = [case for case in mine if measure in mine[case] and measure in theirs.get(case, {})]
    values, against = _values(mine, measure, shared), _values(theirs, measure, shared)
    if len(shared) < 2 or not np.isfinite([*values, *against]).all():
        return None
    return compare_paired(values, against)


def worst_and_median(rows: Sequence[Result]) -> tuple[Result, Result]:
    """The results with the lowest and with the middle PSNR of a method at a view count."""
    ordered = sorted(rows, key=lambda row: row.scores["psnr"])
    return ordered[0], ordered[(len(ordered) - 1) // 2]
