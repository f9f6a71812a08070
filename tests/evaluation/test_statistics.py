"""Intervals cover, tests find what is there and nothing else."""

import math

import numpy as np
import pytest

from fewview.evaluation.statistics import bootstrap_mean, compare_paired, holm, t_interval


def test_an_interval_covers_the_true_mean_about_as_often_as_it_says():
    generator = np.random.default_rng(1)
    found = [bootstrap_mean(generator.normal(3.0, 2.0, 30)) for _ in range(200)]
    assert 0.89 < np.mean([low < 3.0 < high for _, low, high in found]) < 0.985


def test_an_interval_has_the_width_of_two_standard_errors_to_each_side():
    values = np.random.default_rng(2).normal(size=400)
    mean, low, high = bootstrap_mean(values)
    error = values.std() / 20.0
    assert (mean - low, high - mean) == pytest.approx((1.96 * error, 1.96 * error), rel=0.06)


def test_equal_cases_have_an_interval_without_width_and_one_case_has_none():
    assert bootstrap_mean(np.full(5, 7.0)) == (7.0, 7.0, 7.0)
    mean, low, high = bootstrap_mean(np.array([7.0]))
    assert mean == 7.0
    assert math.isnan(low)
    assert math.isnan(high)


def test_a_t_interval_of_three_is_as_worked_by_hand_and_of_one_is_not_known():
    found = t_interval(np.array([20.0, 21.0, 22.0]))
    half = 4.302653 / math.sqrt(3.0)  # Student's t for two degrees of freedom, 97.5 %
    assert found == pytest.approx((21.0, 21.0 - half, 21.0 + half))
    assert [math.isnan(end) for end in t_interval(np.array([7.0]))] == [False, True, True]


def test_a_t_interval_of_three_covers_as_often_as_it_says_where_a_bootstrap_does_not():
    samples = np.random.default_rng(4).normal(3.0, 2.0, (1000, 3))
    found = [t_interval(values) for values in samples]
    assert 0.93 < np.mean([low < 3.0 < high for _, low, high in found]) < 0.97
    drawn = [bootstrap_mean(values) for values in samples[:200]]
    assert np.mean([low < 3.0 < high for _, low, high in drawn]) < 0.85


def test_a_method_does_not_differ_from_itself():
    values = np.array([1.0, 2.0, 4.0])
    found = compare_paired(values, values)
    assert found.difference == (0.0, 0.0, 0.0)
    assert (found.bootstrap_p, found.wilcoxon_p) == (1.0, 1.0)


def test_six_differences_of_one_sign_have_the_exact_signed_rank_p():
    reference = np.array([20.0, 21.0, 25.0, 30.0, 18.0, 22.0])
    found = compare_paired(reference + np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]), reference)
    assert found.wilcoxon_p == pytest.approx(2 / 2**6)
    assert found.bootstrap_p == pytest.approx(2 / 2**6)
    assert found.difference.mean == pytest.approx(0.35)


def test_many_differences_of_one_sign_are_as_unlikely_as_the_draws_can_tell():
    found = compare_paired(np.linspace(1.0, 2.0, 30), np.zeros(30))
    assert found.bootstrap_p == pytest.approx(2 / 10_001)


def test_pairing_finds_a_small_gain_between_very_different_cases():
    generator = np.random.default_rng(3)
    cases = generator.normal(25.0, 5.0, 20)
    better = cases + 0.3 + generator.normal(0.0, 0.2, 20)
    found = compare_paired(better, cases)
    assert found.difference.low > 0.0
    assert max(found.bootstrap_p, found.wilcoxon_p) < 0.01


def test_holm_adjusts_as_worked_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_what_has_no_interval_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        bootstrap_mean(np.zeros(0))
    with pytest.raises(ValueError, match="finite"):
        bootstrap_mean(np.array([1.0, math.nan]))
    with pytest.raises(ValueError, match="pairs"):
        compare_paired(np.zeros(3), np.zeros(4))
