"""The own truth among all."""

import numpy as np
import pytest

from fewview.evaluation.retrieval import own_truth_ranks, retrieval, thumbnail


def flat(hu: float) -> np.ndarray:
    return np.full((2, 2, 2), hu, dtype=np.float32)


def test_ranks_count_the_truths_that_are_nearer():
    truths = [flat(0.0), flat(100.0), flat(200.0)]
    predictions = [flat(10.0), flat(160.0), flat(0.0)]
    assert own_truth_ranks(predictions, truths).tolist() == [1, 2, 3]
    assert [one["top1"] for one in retrieval(predictions, truths)] == [1.0, 0.0, 0.0]
    assert all(one["top5"] == 1.0 for one in retrieval(predictions, truths))


def test_one_average_for_all_finds_only_one_of_them():
    truths = [flat(hu) for hu in (0.0, 100.0, 250.0, 500.0, 700.0, 950.0)]
    found = retrieval([flat(400.0)] * 6, truths)
    assert sum(one["top1"] for one in found) == 1.0
    assert sum(one["top5"] for one in found) == 5.0


def test_a_truth_that_stands_twice_cannot_be_told():
    assert own_truth_ranks([flat(0.0), flat(0.0)], [flat(5.0), flat(5.0)]).tolist() == [2, 2]


def test_a_prediction_that_is_no_number_is_found_last():
    truths = [flat(0.0), flat(100.0), flat(200.0)]
    found = own_truth_ranks([flat(np.nan), flat(110.0), flat(np.nan)], truths)
    assert found.tolist() == [3, 1, 3]
    assert own_truth_ranks([flat(0.0)] * 2, [flat(0.0), flat(np.nan)]).tolist() == [2, 2]


def test_a_thumbnail_averages_blocks_of_clipped_values():
    hu = np.random.default_rng(0).uniform(-2000.0, 3000.0, (70, 33, 5)).astype(np.float32)
    small = thumbnail(hu)
    assert small.shape == (23, 16, 5)
    expected = np.clip(hu[3:6, 2:4, 4], -1000.0, 1500.0).mean()
    assert small[1, 1, 4] == pytest.approx(expected, abs=1e-3)


def test_one_case_and_two_shapes_are_refused():
    with pytest.raises(ValueError, match="two or more cases"):
        own_truth_ranks([flat(0.0)], [flat(0.0)])
    with pytest.raises(ValueError, match="one shape"):
        own_truth_ranks([flat(0.0)] * 2, [flat(0.0), np.zeros((2, 2, 3), dtype=np.float32)])
