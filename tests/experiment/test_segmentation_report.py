"""From the Dice of every run to tables: seeds are averaged first, cases are the sample."""

import csv
import json

import numpy as np
import pytest

from fewview.config import parse
from fewview.evaluation.statistics import compare_paired
from fewview.experiment.segmentation_config import SegmentationConfig
from fewview.experiment.segmentation_report import (
    Run,
    entries,
    lines_of,
    paired_tests,
    write_report,
)

CONFIG = parse(
    """
    name = "a test"
    seeds = [0, 1]
    data = {layout = "phantom", num_test = 3, label_counts = [2]}
    pretraining = {num_steps = 1}
    finetuning = {num_steps = 1}
    """,
    SegmentationConfig,
)

GAINS = {"none": 0.0, "real": 0.2, "reconstructed": 0.1}


def run(arm, seed):
    """Three cases of two classes, the spleen being in the first alone; seeds differ by 0.2."""
    base = 0.3 + GAINS[arm] + 0.2 * seed
    dice = {case: {"lung": base + extra} for case, extra in (("a", 0), ("b", 0.01), ("c", 0.02))}
    dice["a"]["spleen"] = base - 0.2
    return Run(arm=arm, num_labels=2, seed=seed, dice=dice)


RUNS = [run(arm, seed) for seed in (0, 1) for arm in GAINS]


def test_seeds_are_averaged_and_cases_are_counted():
    found = {(one.arm, one.name): one for one in entries(RUNS, ("lung", "spleen"))}
    lung, spleen = found["real", "lung"], found["real", "spleen"]
    assert (lung.num_cases, spleen.num_cases) == (3, 1)
    assert lung.interval.mean == pytest.approx(0.61)
    assert 0.6 <= lung.interval.low <= 0.61 <= lung.interval.high <= 0.62
    assert spleen.interval.mean == pytest.approx(0.4)


def test_the_mean_is_of_the_classes_that_a_case_has():
    found = {(one.arm, one.name): one for one in entries(RUNS, ("lung", "spleen"))}
    assert found["none", "mean"].interval.mean == pytest.approx((0.3 + 0.41 + 0.42) / 3)


def test_every_pair_of_arms_is_tested_by_case_and_adjusted():
    tested = paired_tests(RUNS)
    pairs = [(test.arm, test.reference) for test in tested]
    assert pairs == [("real", "none"), ("reconstructed", "none"), ("reconstructed", "real")]
    differences = [test.comparison.difference.mean for test in tested]
    assert differences == pytest.approx([0.2, 0.1, -0.1])
    single = compare_paired(np.array([0.5, 0.61, 0.62]), np.array([0.3, 0.41, 0.42])).bootstrap_p
    assert tested[0].adjusted_p == pytest.approx(min(1.0, 3 * single))


def test_an_arm_that_was_not_run_is_tested_against_nothing():
    assert [test.arm for test in paired_tests([run("none", 0), run("real", 0)])] == ["real"]


def test_lines_name_every_arm_and_every_difference():
    lines = list(lines_of(CONFIG, RUNS))
    assert lines[0].startswith("no pre-training, 2 labelled: Dice 0.377 [")
    assert any(
        line.startswith("reconstructed CT - real CT, 2 labelled: -0.100 [") for line in lines
    )
    assert len(lines) == 6


def test_the_report_holds_every_number_and_is_written_alike_again(tmp_path):
    write_report(tmp_path, CONFIG, ("lung", "spleen"), RUNS)
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(first) == {"dice.csv", "summary.json", "summary.md", "dice.svg"}
    rows = list(csv.DictReader((tmp_path / "dice.csv").read_text().splitlines()))
    assert len(rows) == 3 * 2 * 4
    assert {row["class"] for row in rows} == {"lung", "spleen"}
    assert "| 2 | real CT | 0.577 [" in first["summary.md"].decode()
    assert "mean of seeds 0, 1 first" in first["summary.md"].decode()
    assert len(json.loads(first["summary.json"])["tests"]) == 3
    write_report(tmp_path, CONFIG, ("lung", "spleen"), RUNS)
    assert first == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
