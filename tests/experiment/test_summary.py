"""Seeds are averaged within a case, the cases make the interval, ceilings are not tested."""

import math

import pytest

from fewview.experiment.results import Result, read_result, write_result, write_tables
from fewview.experiment.summary import paired_tests, summarize, worst_and_median
from fewview.experiment.tables import headline_tables, markdown, paired_table


def result(method: str, case: int, psnr: float, seed: int = 0, **changes: object) -> Result:
    values: dict[str, object] = {
        "key": f"{method}-{case}-{seed}",
        "method": method,
        "ceiling": False,
        "case": f"case-{case}",
        "num_views": 2,
        "seed": seed,
        "scores": {"psnr": psnr, "ssim": 0.5, "mae": 100.0 - psnr},
        "seconds": 1.5,
        "nfe": 0,
        "peak_memory_mb": None,
    }
    return Result(**(values | changes))


def test_seeds_are_averaged_before_cases_are_counted():
    rows = [result("a", case, 20.0 + case + seed, seed) for case in range(3) for seed in range(4)]
    (entry,) = summarize(rows)
    assert (entry.num_cases, entry.num_seeds) == (3, 4)
    alone = summarize([result("a", case, 21.5 + case) for case in range(3)])[0]
    assert entry.measures["psnr"] == alone.measures["psnr"]


def test_a_case_with_more_seeds_weighs_no_more():
    rows = [result("a", 0, 10.0), result("a", 1, 20.0, 0), result("a", 1, 20.0, 1)]
    assert summarize(rows)[0].measures["psnr"].mean == 15.0


def test_what_is_undefined_is_left_out_and_infinity_is_not():
    rows = [result("a", case, psnr) for case, psnr in enumerate((20.0, math.nan, 22.0))]
    assert summarize(rows)[0].measures["psnr"].mean == 21.0
    rows = [result("a", case, psnr) for case, psnr in enumerate((20.0, math.inf))]
    assert summarize(rows)[0].measures["psnr"].mean == math.inf
    assert "psnr" not in {test.measure for test in paired_tests([*rows, *rows], "a")}


def test_only_fair_methods_are_tested_and_only_on_shared_cases():
    rows = [result("reference", case, 20.0 + case) for case in range(6)]
    rows += [result("better", case, 21.0 + 1.1 * case) for case in range(2, 8)]
    rows += [result("truth", case, 40.0, ceiling=True) for case in range(6)]
    tests = paired_tests(rows, "reference")
    assert {test.method for test in tests} == {"better"}
    assert {test.found.num_cases for test in tests} == {4}
    table = paired_table(tests, "reference")
    assert table is not None
    assert "Method minus reference" in markdown(table)


def test_p_values_are_adjusted_over_methods_and_view_counts_of_a_measure():
    rows = []
    for views in (1, 2):
        rows += [result("reference", case, 20.0, num_views=views) for case in range(6)]
        rows += [result("a", case, 20.1 + case / 10, num_views=views) for case in range(6)]
    tests = [test for test in paired_tests(rows, "reference") if test.measure == "psnr"]
    assert [test.wilcoxon_p for test in tests] == pytest.approx([2 * 2 / 2**6] * 2)


def test_worst_and_median_are_by_psnr():
    rows = [result("a", case, psnr) for case, psnr in enumerate((25.0, 19.0, 22.0, 30.0, 21.0))]
    worst, median = worst_and_median(rows)
    assert (worst.case, median.case) == ("case-1", "case-2")


def test_tables_mark_ceilings_and_say_what_was_not_counted():
    rows = [result("a", 0, 20.0), result("truth", 0, 40.0, ceiling=True)]
    entries = summarize(rows, {("a", 2): 3.2e9})
    text = markdown(headline_tables(entries)[0])
    assert "| truth (ceiling: sees the truth) | 1 | 40.00 |" in text
    assert "| 3.20 | not measured |" in text
    assert "not counted" in text


def test_a_result_reads_back_as_written_and_a_damaged_one_does_not(tmp_path):
    one = result("a", 0, math.inf, notes=("x2ct: too small",))
    write_result(tmp_path, one)
    path = tmp_path / f"{one.key}.json"
    assert "Infinity" not in path.read_text()
    assert read_result(path) == one
    path.write_text(path.read_text()[:-40])
    assert read_result(path) is None
    write_tables(tmp_path, [one])
    assert (
        (tmp_path / "results.csv").read_text().splitlines()[1].startswith("a,False,case-0,2,0,inf")
    )
