"""What each trained network reaches, with intervals over networks and not over cases."""

import math
from pathlib import Path

import pytest

from fewview.config import to_toml
from fewview.experiment.config import ExperimentConfig, PhantomCases
from fewview.experiment.methods import ModelMethod
from fewview.experiment.report import report_experiment
from fewview.experiment.results import CONFIG, PLAN, RESULTS, Result, write_json, write_result
from fewview.experiment.seeds import SeedEntry, by_seed
from fewview.experiment.tables import markdown, seed_table

HALF = 4.302653 / math.sqrt(3.0)
"""Half a 95 % t interval of three numbers whose standard deviation is 1."""


def results(
    method: str, psnr: dict[int, list[float]], *, ceiling: bool = False, num_views: int = 2
) -> list[Result]:
    """Of one method: the PSNR of cases 0, 1, ... by seed."""
    return [
        Result(
            key=f"{method}-{case}-{seed}",
            method=method,
            ceiling=ceiling,
            case=f"case-{case}",
            num_views=num_views,
            seed=seed,
            scores={"psnr": value},
            seconds=1.0,
            nfe=0,
            peak_memory_mb=None,
        )
        for seed, values in psnr.items()
        for case, value in enumerate(values)
        if not math.isnan(value)
    ]


def of_psnr(rows: list[Result], *, without: tuple[str, ...] = ()) -> dict[str, SeedEntry]:
    trained = {row.method for row in rows} - {*without}
    return {entry.method: entry for entry in by_seed(rows, trained, "reference")}


def test_the_sample_is_the_networks_however_far_cases_differ():
    found = of_psnr(results("reference", {0: [10.0, 30.0], 1: [11.0, 31.0], 2: [12.0, 32.0]}))
    assert found["reference"].means == {0: 20.0, 1: 21.0, 2: 22.0}
    assert found["reference"].mean == pytest.approx((21.0, 21.0 - HALF, 21.0 + HALF))
    assert found["reference"].difference is None


def test_one_case_has_an_interval_over_networks():
    found = of_psnr(results("reference", {0: [20.0], 1: [21.0], 2: [22.0]}))
    assert found["reference"].mean == pytest.approx((21.0, 21.0 - HALF, 21.0 + HALF))


def test_the_difference_is_paired_by_seed():
    rows = results("reference", {0: [20.0], 1: [25.0], 2: [30.0]})
    rows += results("better", {2: [33.0], 1: [27.0], 0: [21.0]})
    assert of_psnr(rows)["better"].difference == pytest.approx((2.0, 2.0 - HALF, 2.0 + HALF))


def test_only_cases_that_all_seeds_have_count_and_for_the_difference_those_of_both():
    rows = results("reference", {0: [math.nan, 20.0, 30.0], 1: [90.0, 20.0, 30.0]})
    rows += results("other", {0: [10.0, 21.0, 31.0], 1: [10.0, 23.0]})
    found = of_psnr(rows)
    assert found["reference"].num_cases == found["other"].num_cases == 2
    assert found["reference"].means == {0: 25.0, 1: 25.0}
    assert found["other"].means == {0: 15.5, 1: 16.5}
    assert found["other"].difference.mean == pytest.approx((1.0 + 3.0) / 2)


def test_seeds_of_samples_lone_seeds_and_other_view_counts_are_not_mixed_in():
    rows = results("reference", {0: [20.0], 1: [21.0]})
    rows += results("reference", {0: [30.0], 1: [31.0]}, num_views=1)
    rows += results("samples", {0: [20.0], 1: [21.0]}) + results("alone", {0: [20.0]})
    entries = by_seed(rows, {"reference", "alone"}, "reference")
    assert [(entry.method, entry.num_views, entry.mean.mean) for entry in entries] == [
        ("reference", 2, 20.5),
        ("reference", 1, 30.5),
    ]


def test_the_difference_is_to_the_reference_with_as_many_views():
    rows = results("reference", {0: [20.0], 1: [21.0]})
    rows += results("reference", {0: [30.0], 1: [31.0]}, num_views=1)
    rows += results("other", {0: [33.0], 1: [34.0]}, num_views=1)
    assert of_psnr(rows)["other"].difference == (3.0, 3.0, 3.0)


def test_without_the_same_trained_seeds_of_the_reference_there_is_no_difference():
    rows = results("reference", {0: [20.0], 1: [21.0]})
    rows += results("more", {0: [20.0], 1: [21.0], 2: [22.0]})
    rows += results("truth", {0: [40.0], 1: [41.0]}, ceiling=True)
    found = of_psnr(rows)
    assert found["more"].difference is None
    assert found["truth"].difference is None
    sampled = of_psnr(rows + results("fair", {0: [20.0], 1: [21.0]}), without=("reference",))
    assert sampled["fair"].difference is None


def test_what_is_infinite_has_a_mean_without_interval():
    rows = results("reference", {0: [20.0], 1: [21.0]})
    rows += results("equal", {0: [math.inf], 1: [20.0]})
    mean, low, high = of_psnr(rows)["equal"].mean
    assert mean == math.inf
    assert math.isnan(low)
    assert math.isnan(high)
    assert of_psnr(rows)["equal"].difference is None


def test_the_table_shows_every_seed_marks_ceilings_and_says_what_its_interval_is():
    rows = results("reference", {0: [20.0], 1: [21.0]})
    rows += results("other", {0: [21.0], 1: [22.5]})
    rows += results("truth", {1: [40.0], 2: [41.0]}, ceiling=True)
    text = markdown(seed_table([*of_psnr(rows).values()], "reference"))
    assert "| seed 0 | seed 1 | seed 2 | mean | difference |" in text
    assert (
        "| reference | 2 | PSNR dB | 1 | 20.00 | 21.00 | - | 20.50 (14.15 to 26.85) | - |" in text
    )
    assert "| - | 21.75 (12.22 to 31.28) | 1.25 (-1.93 to 4.43) |" in text
    assert "| truth (ceiling: sees the truth) | 2 | PSNR dB | 1 | - | 40.00 | 41.00 |" in text
    assert "t interval" in text
    assert "minus reference" in text
    assert seed_table([], "reference") is None


def test_a_report_tells_trained_networks_from_samples(tmp_path: Path):
    config = ExperimentConfig(
        name="a test",
        reference="trained",
        methods={
            "trained": ModelMethod(model="run-{seed}/model"),
            "sampled": ModelMethod(model="one/model", nfe=1),
        },
        seeds=(0, 1),
        phantoms=PhantomCases(count=1),
    )
    rows = [one for name in config.methods for one in results(name, {0: [20.0], 1: [21.0]})]
    plan = {
        "results": [row.key for row in rows],
        "cases": [{"name": "case-0", "kind": "phantom", "checksum": ""}],
        **{"skipped": [], "failed": [], "costs": {}, "models": {}, "workers": 1, "store": None},
    }
    (tmp_path / RESULTS).mkdir()
    for row in rows:
        write_result(tmp_path / RESULTS, row)
    write_json(tmp_path / PLAN, plan)
    (tmp_path / CONFIG).write_text(to_toml(config))
    report_experiment(tmp_path)
    section = (tmp_path / "tables.md").read_text().split("### By seed")[1]
    shown = [line.split(" | ")[0] for line in section.splitlines() if line.startswith("| ")]
    assert shown == ["| method", "| trained"]
    assert ">By seed</h2>" in (tmp_path / "report.html").read_text()
