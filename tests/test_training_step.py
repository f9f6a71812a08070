"""The benchmark of training steps: few copies, each met for the first time, and failures named."""

import argparse
import signal
import subprocess
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

import pytest
import torch

from fewview.training.config import load_run
from fewview.training.processes import OneProcessFailed

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(
    not (ROOT / "benchmarks" / "training_step.py").is_file(), reason="not a source checkout"
)


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import training_step

    # The limit would stay in this process, which runs the other tests.
    monkeypatch.setattr(training_step, "limit_memory", lambda options: None)
    return training_step


@pytest.fixture
def options(tiny_config, tiny_store) -> argparse.Namespace:
    """To measure two steps of a tiny system with forty copies whose views stay the same."""
    text = tiny_config.read_text().replace("num_examples = 4", "num_examples = 40")
    for stage, setting in (("alignment", "num_negatives = 3"), ("diffusion", "fixed_views = true")):
        text = text.replace(f"[training.{stage}]\n", f"[training.{stage}]\n{setting}\n")
    tiny_config.write_text(text)
    words = {"config": tiny_config, "data": tiny_store, "device": "cpu", "steps": 2}
    # As many threads as there are: the number would stay, and other tests compare bit by bit.
    threads = torch.get_num_threads()
    return argparse.Namespace(**words, threads=threads, memory_gb=3.0, stage="diffusion")


def calls_of(name: str, benchmark, options) -> int:
    """How often a function of the package is called while a stage is measured."""
    module = __import__(name.rpartition(".")[0], fromlist=["any"])
    with patch(name, wraps=getattr(module, name.rpartition(".")[2])) as watched:
        assert "failure" not in benchmark.measured(options)
    return watched.call_count


@pytest.mark.parametrize("name", ["clsdm-paper", "fewview-64", "x2ct-cnn-64"])
def test_there_are_as_many_copies_as_a_step_needs(name, benchmark):
    config = load_run(ROOT / "configs" / f"{name}.toml")
    training = benchmark.few_copies(config).training
    stages = [getattr(training, stage) for stage in benchmark.stages_of(config)]
    most = max(one.batch_size + getattr(one, "num_negatives", 0) for one in stages)
    assert training.num_examples == most < config.training.num_examples


def test_conditions_are_computed_of_these_copies_alone(benchmark, options):
    assert calls_of("fewview.training.conditions.condition_of", benchmark, options) == 2 + 3


def test_every_copy_of_a_timed_step_is_made_anew(benchmark, options):
    options.stage = "alignment"
    num_steps = 1 + 1 + options.steps  # one is counted, one is not timed
    assert calls_of("fewview.training.source.augment", benchmark, options) == 2 * num_steps


def explained(cause: Exception) -> Exception:
    """As `fewview.training.memory.explained` tells it."""
    failure = OneProcessFailed("autoencoder: not enough memory for a global batch of 2")
    failure.__cause__ = cause
    return failure


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (RuntimeError("could not create a primitive"), "does not fit in 3 GB"),
        (explained(RuntimeError("could not create a primitive")), "does not fit in 3 GB"),
        (explained(MemoryError()), "does not fit in 3 GB"),
        (RuntimeError("can't allocate memory: you tried to allocate 8"), "does not fit in 3 GB"),
        (ValueError("no case in the train split"), "no case in the train split"),
        (RuntimeError("could not create a primitive descriptor for a convolution"), None),
    ],
)
def test_lack_of_memory_is_told_from_other_failures(failure, said, benchmark, options):
    expected = nullcontext() if said else pytest.raises(RuntimeError, match="descriptor")
    with patch.object(benchmark, "run_stage", side_effect=failure), expected:
        assert benchmark.measured(options) == {"failure": said}


@pytest.mark.parametrize(
    ("code", "said"), [(-signal.SIGKILL, "killed (SIGKILL)"), (1, "failed, see its error")]
)
def test_a_stage_that_is_killed_says_so_and_one_that_ends_by_itself_does_not(code, said, benchmark):
    done = subprocess.CompletedProcess([], code, stdout="")
    assert benchmark.figures_of(done) == {"failure": said}
    assert said in benchmark.row("alignment", benchmark.figures_of(done), None)
