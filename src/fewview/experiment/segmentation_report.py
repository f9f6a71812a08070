"""From the Dice of every run to what may be said: intervals over cases, paired tests, one plot.

The cases are the sample: seeds of one case are averaged first.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib import rc_context
from matplotlib.figure import Figure

from fewview.data.files import replacing_file
from fewview.evaluation.statistics import (
    Comparison,
    Interval,
    bootstrap_mean,
    compare_paired,
    holm,
)
from fewview.experiment.results import write_json
from fewview.experiment.segmentation_config import SegmentationConfig

MEAN = "mean"
"""Of the classes that a case has; named like a class."""

PAIRS = (("real", "none"), ("reconstructed", "none"), ("reconstructed", "real"))
"""Which arm is tested against which."""

TITLES = {"none": "no pre-training", "real": "real CT", "reconstructed": "reconstructed CT"}
MARKERS = {"none": "o", "real": "s", "reconstructed": "D"}


@dataclass(frozen=True, kw_only=True)
class Run:
    """One fine-tuned network on all test cases."""

    arm: str
    num_labels: int
    seed: int
    dice: dict[str, dict[str, float]]
    """By case and class; classes that the case has."""


class Entry(NamedTuple):
    """The Dice of one arm with so many labelled cases."""

    arm: str
    num_labels: int
    name: str
    """A class, or `mean`."""

    interval: Interval
    num_cases: int


class PairedTest(NamedTuple):
    """One arm against another with so many labelled cases, by the mean Dice of each case."""

    arm: str
    reference: str
    num_labels: int
    comparison: Comparison
    adjusted_p: float
    """The bootstrap's p-value after Holm over all tests of the experiment."""


def entries(runs: Sequence[Run], names: Sequence[str]) -> list[Entry]:
    """Means with intervals of every arm, number of labels and class that any case has."""
    found = []
    for arm, count in dict.fromkeys((run.arm, run.num_labels) for run in runs):
        for name in (MEAN, *names):
            values = _of_cases(runs, arm, count, name)
            if len(values):
                found.append(Entry(arm, count, name, bootstrap_mean(values), len(values)))
    return found


def paired_tests(runs: Sequence[Run]) -> list[PairedTest]:
    """Every pair of arms that was run, at every number of labels."""
    arms = {run.arm for run in runs}
    compared = [
        (arm, reference, count, compare_paired(*(_of_cases(runs, one, count) for one in pair)))
        for count in dict.fromkeys(run.num_labels for run in runs)
        for pair in PAIRS
        if arms.issuperset(pair)
        for arm, reference in [pair]
    ]
    adjusted = holm([comparison.bootstrap_p for *_, comparison in compared])
    return [PairedTest(*one, p) for one, p in zip(compared, adjusted, strict=True)]


def _of_cases(
    runs: Sequence[Run], arm: str, count: int, name: str = MEAN
) -> Float[np.ndarray, " case"]:
    """One number for each case that has one, mean over seeds, in the order of the cases."""
    chosen = [run for run in runs if (run.arm, run.num_labels) == (arm, count)]
    by_case: dict[str, list[float]] = {}
    for run in chosen:
        for case, classes in sorted(run.dice.items()):
            if name in classes:
                by_case.setdefault(case, []).append(classes[name])
            elif name == MEAN and classes:
                by_case.setdefault(case, []).append(float(np.mean(list(classes.values()))))
    return np.array([np.mean(values) for values in by_case.values()], dtype=np.float64)


def lines_of(config: SegmentationConfig, runs: Sequence[Run]) -> Iterator[str]:
    """The mean Dice of every arm, and the tests, as lines of text."""
    for entry in entries(runs, ()):
        yield f"{TITLES[entry.arm]}, {entry.num_labels} labelled: Dice {_shown(entry.interval)}"
    for test in paired_tests(runs):
        yield (
            f"{TITLES[test.arm]} - {TITLES[test.reference]}, {test.num_labels} labelled: "
            f"{_shown(test.comparison.difference, signed=True)}, p {test.adjusted_p:.2g}"
        )


def write_report(
    out: Path, config: SegmentationConfig, names: Sequence[str], runs: Sequence[Run]
) -> None:
    """Write `dice.csv` (every case), `summary.json`, `summary.md` and `dice.svg`."""
    found, tested = entries(runs, names), paired_tests(runs)
    rows = [
        (run.arm, run.num_labels, run.seed, case, name, f"{value:.6f}")
        for run in runs
        for case, classes in run.dice.items()
        for name, value in classes.items()
    ]
    with replacing_file(out / "dice.csv") as path, path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([("arm", "num_labels", "seed", "case", "class", "dice"), *rows])
    content = {
        "name": config.name,
        "dice": [{**one._asdict(), "interval": one.interval._asdict()} for one in found],
        "tests": [_plain(test) for test in tested],
    }
    write_json(out / "summary.json", content)
    with replacing_file(out / "summary.md") as path:
        path.write_text("\n".join(_markdown(config, names, found, tested)) + "\n", "utf-8")
    with replacing_file(out / "dice.svg") as path:
        path.write_bytes(_plot(found))


def _plain(test: PairedTest) -> dict[str, object]:
    comparison = test.comparison
    return {
        **test._asdict(),
        "comparison": {
            **comparison._asdict(),
            "difference": comparison.difference._asdict(),
        },
    }


def _markdown(
    config: SegmentationConfig,
    names: Sequence[str],
    found: Sequence[Entry],
    tested: Sequence[PairedTest],
) -> Iterator[str]:
    """Two tables."""
    yield f"# {config.name}\n"
    yield (
        f"Dice on held-out cases, mean and 95 % bootstrap interval over cases, which does not tell "
        f"how far another training would differ; mean of seeds "
        f"{', '.join(map(str, config.seeds))} first. Fine-tuning: "
        f"{config.finetuning.num_steps} steps of {config.finetuning.batch_size}; pre-training: "
        f"{config.pretraining.num_steps} steps of {config.pretraining.batch_size} on "
        f"{config.data.num_unlabelled} CTs; {config.network.kind}, grid {config.grid.size}.\n"
    )
    columns = (MEAN, *names)
    yield f"| labelled | pre-trained on | {' | '.join(columns)} |"
    yield "|---" * (2 + len(columns)) + "|"
    by_key = {(one.arm, one.num_labels, one.name): one.interval for one in found}
    for count in config.data.label_counts:
        for arm in config.arms:
            cells = [by_key.get((arm, count, name)) for name in columns]
            shown = " | ".join("-" if cell is None else _shown(cell) for cell in cells)
            yield f"| {count} | {TITLES[arm]} | {shown} |"
    if tested:
        yield "\n| labelled | difference of mean Dice | | p, bootstrap (Holm) | p, Wilcoxon |"
        yield "|---|---|---|---|---|"
    for test in tested:
        pair = f"{TITLES[test.arm]} - {TITLES[test.reference]}"
        difference = _shown(test.comparison.difference, signed=True)
        p_values = f"{test.adjusted_p:.2g} | {test.comparison.wilcoxon_p:.2g}"
        yield f"| {test.num_labels} | {pair} | {difference} | {p_values} |"


def _shown(interval: Interval, *, signed: bool = False) -> str:
    """A mean and its interval."""
    sign = "+" if signed else ""
    return f"{interval.mean:{sign}.3f} [{interval.low:{sign}.3f}, {interval.high:{sign}.3f}]"


def _plot(found: Sequence[Entry]) -> bytes:
    """Mean Dice against labelled cases, a line for each arm, as SVG."""
    with rc_context({"svg.hashsalt": "fewview", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(5.5, 3.8), layout="constrained")
        axes = figure.subplots()
        for arm in dict.fromkeys(one.arm for one in found):
            mine = sorted(
                (one for one in found if one.arm == arm and one.name == MEAN),
                key=lambda one: one.num_labels,
            )
            means = [one.interval.mean for one in mine]
            bars = [
                [max(0.0, one.interval.mean - one.interval.low) for one in mine],
                [max(0.0, one.interval.high - one.interval.mean) for one in mine],
            ]
            counts = [one.num_labels for one in mine]
            axes.errorbar(
                counts, means, yerr=bars, marker=MARKERS[arm], capsize=2, label=TITLES[arm]
            )
        ticks = sorted({one.num_labels for one in found})
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.set_xlabel("labelled cases")
        axes.set_ylabel("mean Dice")
        axes.grid(True, alpha=0.25)
        axes.legend(frameon=False)
        out = io.BytesIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return out.getvalue()
