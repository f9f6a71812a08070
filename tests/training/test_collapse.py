"""A representation that has collapsed is seen and said once; one that has not is left alone."""

import logging
import math

import pytest
import torch

from fewview.training.collapse import NUM_STEPS, Watch, effective_rank, matched_cosine, spread


def drawn(seed: int, count: int = 2) -> torch.Tensor:
    return torch.randn(count, 4, 4, 4, 4, generator=torch.Generator().manual_seed(seed))


def watched(make, *, first_step: int = 0) -> Watch:
    watch = Watch(first_step)
    for step in range(NUM_STEPS + 5):
        watch.see(step, make(step), drawn(1000 + step))
    return watch


def constant(step: int) -> torch.Tensor:
    """An encoder that says the same of every patient, another thing at every place and step."""
    return drawn(step, 1).expand(2, -1, -1, -1, -1)


def one_direction(step: int) -> torch.Tensor:
    """An encoder whose vectors differ, but along one line only."""
    return drawn(step)[:, :1] * torch.tensor([1.0, 2.0, -1.0, 0.5])[None, :, None, None, None]


@pytest.mark.parametrize(
    ("make", "meaning"), [(constant, "encoded alike"), (one_direction, "one direction")]
)
def test_a_collapsed_representation_is_said_once_in_one_line(make, meaning, caplog):
    with caplog.at_level(logging.WARNING):
        watch = watched(make)
        watch.see(99, make(99), drawn(2000))
    (record,) = caplog.records
    assert meaning in record.getMessage()
    assert "\n" not in record.getMessage()


def test_nothing_is_said_of_views_that_differ_as_cts_do_or_before_the_first_step(caplog):
    watched(drawn)
    watched(constant, first_step=1000)
    assert caplog.records == []


def test_zeros_are_a_collapse_too(caplog):
    watched(lambda step: torch.zeros(2, 4, 4, 4, 4))
    assert len(caplog.records) == 1


def test_a_latent_of_one_channel_has_no_rank_to_lose(caplog):
    watch = Watch(0)
    for step in range(NUM_STEPS + 5):
        watch.see(step, drawn(step)[:, :1], drawn(100 + step)[:, :1])
    assert caplog.records == []


def test_the_rank_counts_directions():
    axes = torch.eye(4)[:, :3].T  # three orthogonal vectors, equally often
    vectors = torch.cat([axes, -axes]).T.reshape(1, 4, 6, 1, 1)
    assert effective_rank(vectors) == pytest.approx(3.0, rel=1e-6)
    assert effective_rank(torch.ones(2, 4, 2, 2, 2)) == 0.0


def test_the_spread_of_opposite_latents_is_one_and_of_equal_ones_none():
    one = drawn(0, 1)
    assert spread(torch.cat([one, -one])) == pytest.approx(1.0, rel=1e-5)
    assert spread(torch.cat([one, 3.0 * one])) == pytest.approx(0.0, abs=1e-6)


def alone(make, *, turns: int = 1, steps: int = NUM_STEPS, **options: bool) -> Watch:
    """A stage whose turns have one case each."""
    watch = Watch(0, **options)
    for turn in range(turns * steps):
        watch.see(turn // turns, make(turn), drawn(1000 + turn, 1))
    return watch


def test_cases_that_come_alone_are_compared_with_the_one_before(caplog):
    watch = Watch(0)
    assert "spread" not in watch.see(0, drawn(0, 1), drawn(1, 1)), "there is only one"
    assert watch.see(1, drawn(2, 1), drawn(3, 1))["spread"] == pytest.approx(1.0, abs=0.3)
    assert watch.see(2, drawn(2, 1), drawn(4, 1))["spread"] == pytest.approx(0.0, abs=1e-6)
    alone(lambda turn: drawn(turn, 1))
    assert caplog.records == []
    alone(lambda turn: drawn(7, 1), steps=NUM_STEPS + 1)  # the first step tells none apart
    (record,) = caplog.records
    assert "encoded alike" in record.getMessage()


def test_steps_are_counted_and_not_their_turns(caplog):
    alone(lambda turn: drawn(7, 1), turns=4, steps=NUM_STEPS - 1)
    assert caplog.records == []
    alone(lambda turn: drawn(7, 1), turns=4)
    assert len(caplog.records) == 1


def test_one_process_of_a_group_warns(caplog):
    watch = alone(lambda turn: drawn(7, 1), steps=NUM_STEPS + 1, tells=False)
    assert watch.has_warned
    assert caplog.records == []


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nothing_is_said_of_latents_that_are_no_numbers(value, caplog):
    assert Watch(0).see(0, drawn(0) * value, drawn(1)) == {}
    assert Watch(0).see(0, drawn(0), drawn(1) * value) == {}


def test_the_cosine_of_matched_pairs_is_of_each_position():
    assert matched_cosine(drawn(0), 2.0 * drawn(0)) == pytest.approx(1.0)
    turned = torch.stack([torch.tensor([1.0, 1.0]), torch.tensor([1.0, 0.0])])
    first, second = (turned[index].reshape(1, 2, 1, 1, 1) for index in (0, 1))
    assert matched_cosine(first, second) == pytest.approx(math.sqrt(0.5), rel=1e-6)
