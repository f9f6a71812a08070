"""FLOP are counted by hand-checked formulas, and what is not counted has no figure."""

import torch
from torch.nn import functional

from fewview.experiment.cost import count_flop, peak_memory_mb, reset_peak_memory


def test_a_matrix_product_and_a_convolution_count_two_per_multiplication():
    a, b = torch.zeros(3, 4), torch.zeros(4, 5)
    assert count_flop(lambda: a @ b) == 2 * 3 * 4 * 5
    image, kernel = torch.zeros(1, 2, 6, 6), torch.zeros(7, 2, 3, 3)
    assert count_flop(lambda: functional.conv2d(image, kernel)) == 2 * 7 * 2 * 9 * 16


def test_attention_counts_both_products():
    q = torch.zeros(1, 2, 8, 4)
    found = count_flop(lambda: functional.scaled_dot_product_attention(q, q, q))
    assert found == 2 * (2 * 2 * 8 * 8 * 4)


def test_samples_and_spread_values_are_counted():
    image, grid = torch.zeros(5, 1, 8, 8), torch.zeros(5, 3, 4, 2)
    sampled = count_flop(lambda: functional.grid_sample(image, grid, align_corners=False))
    assert sampled == 8 * 5 * 3 * 4
    target, index = torch.zeros(9), torch.zeros(20, dtype=torch.int64)
    assert count_flop(lambda: target.scatter_add_(0, index, torch.ones(20))) == 20


def test_what_does_nothing_that_is_counted_has_no_figure():
    assert count_flop(lambda: torch.zeros(3) + 1.0) is None


def test_the_peak_holds_what_was_there_and_is_forgotten():
    if not reset_peak_memory("cpu"):
        return
    before = peak_memory_mb()
    block = torch.ones(25_000_000)
    del block
    after = peak_memory_mb()
    assert before is not None
    assert after is not None
    assert after - before > 80.0
    reset_peak_memory("cpu")
    assert (peak_memory_mb() or 0.0) < after - 80.0
