"""Per-case results to what each trained network makes of them, with intervals over networks.

`summary` averages seeds and asks how far other cases would differ; this asks how far another
training would. Both would be needed to say how far a method differs from another.
"""

import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from fewview.evaluation.statistics import Interval, t_interval
from fewview.experiment.results import Result
from fewview.experiment.summary import TESTED, by_place

Scores = dict[int, dict[str, float]]
"""By seed, then by case: one measure where it is defined."""


class SeedEntry(NamedTuple):
    """One measure of a method at a view count, by trained network."""

    method: str
    ceiling: bool
    num_views: int
    measure: str
    num_cases: int
    """Those that all of its seeds have."""

    means: dict[int, float]
    """By seed: the mean over these cases."""

    mean: Interval
    """Over seeds."""

    difference: Interval | None
    """Method minus reference, paired by seed; None where the reference lacks one of the seeds."""


def by_seed(results: Sequence[Result], trained: Collection[str], reference: str) -> list[SeedEntry]:
    """Means of each seed of the methods of which two seeds or more have results.

    Args:
        results: The per-case results.
        trained: The methods whose every seed is a trained model of its own. The seeds of others
            are those of samples, which say nothing about another training.
        reference: The method to subtract. Ceilings see the truth and are compared with nothing.
    """
    places = {place: rows for place, rows in by_place(results).items() if place[0] in trained}
    entries = []
    for (method, num_views), rows in places.items():
        alone = rows[0].ceiling or method == reference
        against = [] if alone else places.get((reference, num_views), [])
        entries += [_entry(rows, against, measure) for measure in TESTED]
    return [entry for entry in entries if entry is not None]


def _entry(rows: Sequence[Result], against: Sequence[Result], measure: str) -> SeedEntry | None:
    """One measure; None with fewer than two seeds, or where no case has all of them."""
    own = _scores(rows, measure)
    cases = _shared([*own.values()])
    if len(own) < 2 or not cases:
        return None
    means = {seed: _mean(own[seed], cases) for seed in sorted(own)}
    return SeedEntry(
        method=rows[0].method,
        ceiling=rows[0].ceiling,
        num_views=rows[0].num_views,
        measure=measure,
        num_cases=len(cases),
        means=means,
        mean=_interval([*means.values()]),
        difference=_difference(own, _scores(against, measure)),
    )


def _scores(rows: Sequence[Result], measure: str) -> Scores:
    """One measure by seed and case."""
    found: Scores = {}
    for row in rows:
        value = row.scores.get(measure, math.nan)
        if not math.isnan(value):
            found.setdefault(row.seed, {})[row.case] = value
    return found


def _shared(by_case: Sequence[dict[str, float]]) -> list[str]:
    """The cases that all have."""
    return [case for case in by_case[0] if all(case in of for of in by_case)] if by_case else []


def _mean(values: dict[str, float], cases: Sequence[str]) -> float:
    """The mean over some cases."""
    return float(np.mean([values[case] for case in cases]))


def _interval(means: Sequence[float]) -> Interval:
    """The mean over seeds and its interval; infinity (the PSNR of equal volumes) has none."""
    values = np.array(means)
    if np.isfinite(values).all():
        return t_interval(values)
    return Interval(float(values.mean()), math.nan, math.nan)


def _difference(own: Scores, reference: Scores) -> Interval | None:
    """The mean difference over seeds, on the cases that these seeds of both have."""
    if not own.keys() <= reference.keys():
        return None
    cases = _shared([*own.values(), *(reference[seed] for seed in own)])
    pairs = [(_mean(own[seed], cases), _mean(reference[seed], cases)) for seed in own if cases]
    if not pairs or not np.isfinite(pairs).all():
        return None
    return _interval([one - other for one, other in pairs])
