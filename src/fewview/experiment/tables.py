"""The tables of a report as rows of text, and as Markdown."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from fewview.evaluation.statistics import Interval
from fewview.experiment.seeds import SeedEntry
from fewview.experiment.summary import HEADLINE, Entry, Measure, Paired

CEILING_MARK = " (ceiling: sees the truth)"

SMALLEST_P = 1e-3
"""Smaller p-values are shown as below it."""


class Table(NamedTuple):
    """A table with its title; the first row is the header."""

    title: str
    rows: list[list[str]]
    note: str = ""


def headline_tables(entries: Sequence[Entry]) -> list[Table]:
    """One table per view count: quality with intervals, cost beside it."""
    header = ["method", "cases", *(one.heading for one in HEADLINE)]
    header += ["seconds", "NFE", "GFLOP", "peak MB"]
    tables = []
    for num_views in sorted({entry.num_views for entry in entries}):
        rows = [_headline_row(entry) for entry in entries if entry.num_views == num_views]
        tables.append(Table(views_word(num_views), [header, *rows]))
    return tables


def views_word(num_views: int) -> str:
    """A view count in words."""
    return f"{num_views} view" if num_views == 1 else f"{num_views} views"


def shown_name(entry: Entry | SeedEntry) -> str:
    """A method's name, marked if it is a ceiling."""
    return entry.method + (CEILING_MARK if entry.ceiling else "")


def _headline_row(entry: Entry) -> list[str]:
    """One method: quality, then cost."""
    quality = [interval_text(entry.measures.get(one.key), one) for one in HEADLINE]
    flop = "not counted" if entry.flop is None else _significant(entry.flop / 1e9)
    peak = "not measured" if entry.peak_memory_mb is None else f"{entry.peak_memory_mb:.0f}"
    cost = [_significant(entry.seconds), f"{entry.nfe:g}", flop, peak]
    return [shown_name(entry), str(entry.num_cases), *quality, *cost]


def interval_text(interval: Interval | None, measure: Measure) -> str:
    """A mean and its interval, such as `26.49 (26.27 to 26.68)`."""
    if interval is None:
        return "-"
    mean, low, high = (measure.factor * value for value in interval)
    text = f"{mean:.{measure.digits}f}"
    if math.isnan(low):
        return text
    return f"{text} ({low:.{measure.digits}f} to {high:.{measure.digits}f})"


def _significant(value: float) -> str:
    """A number with three digits that count, never in powers of ten."""
    if value == 0.0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(digits, 6)}f}"


def line_of(entry: Entry) -> str:
    """A method at a view count as one line for the terminal."""
    first = [
        f"{one.heading} {interval_text(entry.measures.get(one.key), one)}" for one in HEADLINE[:3]
    ]
    return f"{shown_name(entry)}, {views_word(entry.num_views)}: {', '.join(first)}"


def protocol_tables(entries: Sequence[Entry], protocols: Sequence[str]) -> list[Table]:
    """One table per further protocol: all of its measures at all view counts."""
    tables = []
    for protocol in protocols:
        start = f"{protocol}_"
        keys = dict.fromkeys(
            key for entry in entries for key in entry.measures if key.startswith(start)
        )
        if not keys:
            continue
        measures = [Measure(key, key.removeprefix(start), 4) for key in keys]
        rows = [["method", "views", *(measure.heading for measure in measures)]]
        for entry in entries:
            cells = [interval_text(entry.measures.get(one.key), one) for one in measures]
            rows.append([shown_name(entry), str(entry.num_views), *cells])
        tables.append(Table(f"Protocol {protocol}", rows))
    return tables


def paired_table(tests: Sequence[Paired], reference: str) -> Table | None:
    """The paired tests; None if there are none."""
    if not tests:
        return None
    header = ["method", "views", "measure", "cases", "difference", "p bootstrap", "p Wilcoxon"]
    measures = {one.key: one for one in HEADLINE}
    rows = [header]
    for test in tests:
        measure = measures[test.measure]
        rows.append(
            [
                test.method,
                str(test.num_views),
                measure.heading,
                str(test.found.num_cases),
                interval_text(test.found.difference, measure),
                _p_text(test.bootstrap_p),
                _p_text(test.wilcoxon_p),
            ]
        )
    note = (
        f"Method minus {reference} on the same cases, with its 95 % interval. P-values are "
        "two-sided and adjusted by Holm over all methods and view counts of a measure."
    )
    return Table(f"Paired tests against {reference}", rows, note)


def seed_table(entries: Sequence[SeedEntry], reference: str) -> Table | None:
    """What each trained network reaches; None if no method has two."""
    if not entries:
        return None
    seeds = sorted({seed for entry in entries for seed in entry.means})
    header = ["method", "views", "measure", "cases", *(f"seed {seed}" for seed in seeds)]
    rows = [[*header, "mean", "difference"]]
    measures = {one.key: one for one in HEADLINE}
    for entry in entries:
        measure = measures[entry.measure]
        digits, means = measure.digits, entry.means
        rows.append(
            [
                shown_name(entry),
                str(entry.num_views),
                measure.heading,
                str(entry.num_cases),
                *(f"{means[seed]:.{digits}f}" if seed in means else "-" for seed in seeds),
                interval_text(entry.mean, measure),
                interval_text(entry.difference, measure),
            ]
        )
    note = (
        "Each seed is a trained network: its mean over the cases that all seeds of the method "
        "have. Then the mean over networks, and in brackets its 95 % t interval: where the mean of "
        "many such trainings lies on these same cases. With few networks it is wide; what their "
        "runs share, such as a stage 1, is not in it. Difference: method minus "
        f"{reference}, paired by seed, where that has the same seeds, with a t interval of its "
        "own. Methods whose seeds are those of samples alone are left out."
    )
    return Table("By seed", rows, note)


def _p_text(value: float) -> str:
    """A p-value; very small ones as below a bound."""
    return f"< {SMALLEST_P:g}" if value < SMALLEST_P else f"{value:.3f}"


def left_out_tables(
    skipped: Sequence[dict[str, Any]], failed: Sequence[dict[str, Any]]
) -> list[Table]:
    """What was not done: skipped by its nature, and failed."""
    tables = []
    if skipped:
        rows = [[one["method"], str(one["num_views"]), one["reason"]] for one in skipped]
        tables.append(Table("Skipped", [["method", "views", "reason"], *rows]))
    if failed:
        rows = [
            [
                one["method"] or "all methods",
                one["case"] or "all cases",
                str(one["num_views"] or "all"),
                str(one["seed"]),
                one["reason"],
            ]
            for one in failed
        ]
        tables.append(Table("Failed", [["method", "case", "views", "seed", "reason"], *rows]))
    return tables


def markdown(table: Table) -> str:
    """A table as Markdown, with its title and note."""
    lines = [f"### {table.title}", ""]
    for index, row in enumerate(table.rows):
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")
        if index == 0:
            lines.append("|" + "---|" * len(row))
    if table.note:
        lines += ["", table.note]
    return "\n".join(lines) + "\n"
