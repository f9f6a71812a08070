"""What is computed once for all copies: kept part by part, told, and read again."""

import json

import pytest
import torch
from safetensors.torch import save_file

from fewview.training.caches import cached
from fewview.training.examples import ExampleKey
from fewview.training.processes import OneProcessFailed, join

KEYS = [ExampleKey("case", seed) for seed in range(20)]


class Stopped(Exception):
    """Stands for a kill."""


@pytest.fixture
def computed() -> list[int]:
    """The copies computed, in turn."""
    return []


@pytest.fixture
def compute(computed, tmp_path):
    """Brings the number of each copy into a file, or reads it."""

    def work(index: int) -> torch.Tensor:
        computed.append(index)
        return torch.full((1, 2), float(index))

    def run(keys=KEYS, tell=lambda *told: None, made_by="", work=work) -> torch.Tensor:
        path = tmp_path / "cache.safetensors"
        return cached(path, keys, work, join("cpu"), tell, made_by=made_by)

    return run


def test_each_result_is_told_once_and_all_are_read_again_in_silence(compute, computed):
    told = []
    first = compute(tell=lambda *words: told.append(words))
    assert told == [(done, 20, "") for done in range(1, 21)]
    assert torch.equal(compute(tell=lambda *words: told.append(words)), first)
    assert torch.equal(first, torch.arange(20.0)[:, None].expand(20, 2))
    assert (len(told), computed) == (20, list(range(20)))


def test_a_killed_computation_goes_on_with_the_part_it_was_killed_in(compute, computed):
    def stop(done: int, _count: int, _shown: str) -> None:
        if done == 8:
            raise Stopped

    with pytest.raises(Stopped):
        compute(tell=stop)
    whole = compute()
    assert computed == [*range(8), *range(6, 20)]
    assert torch.equal(whole[:, 0], torch.arange(20.0))


def test_results_of_other_copies_are_not_taken(compute, computed):
    compute()
    compute([ExampleKey("case", seed + 1) for seed in range(20)])
    assert computed == 2 * list(range(20))


def test_results_of_other_weights_are_not_taken(compute, computed):
    compute(made_by="some")
    compute(made_by="some")
    assert computed == list(range(20))
    compute(made_by="others")
    assert computed == 2 * list(range(20))


def test_a_file_that_does_not_say_by_which_weights_it_is_is_not_taken(compute, computed, tmp_path):
    named = json.dumps([[key.case, key.seed] for key in KEYS])
    save_file({"results": torch.ones(20, 2)}, tmp_path / "cache.safetensors", {"keys": named})
    compute()
    assert computed == list(range(20))


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (RuntimeError("can't allocate memory"), "cache: not enough memory for one case at a time"),
        (RuntimeError("could not create a primitive"), "what helps: a smaller system.grid"),
        (ValueError("case_0001: damaged"), "case_0001: damaged"),
        (OSError(5, "Input/output error"), "Input/output error"),
    ],
)
def test_what_one_process_alone_runs_into_is_told_by_that_one(failure, message, compute):
    def work(index: int) -> torch.Tensor:
        raise failure

    with pytest.raises(OneProcessFailed, match=message):
        compute(work=work)
