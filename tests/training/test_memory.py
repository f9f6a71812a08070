"""Batches in parts, blocks computed again, and what is said when memory runs out."""

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fewview.models.layers import ResidualBlock
from fewview.terminal import exit_code_of
from fewview.training import train
from fewview.training.loop import Stage, fit, gradients
from fewview.training.memory import is_out_of_memory, recomputing
from fewview.training.processes import join
from fewview.training.stage_config import StageConfig

STAGES = ("autoencoder", "alignment", "diffusion")


def with_every_stage(config: Path, line: str) -> Path:
    """The config with a line more in each stage."""
    text = config.read_text()
    config.write_text(text.replace("num_steps = 4", f"num_steps = 4\n{line}"))
    return config


def farthest(first: Path, second: Path) -> float:
    """The largest difference of weights of two runs, over all stages."""
    return max(
        (value - load_file(second / f"{stage}.safetensors")[name]).abs().max().item()
        for stage in STAGES
        for name, value in load_file(first / f"{stage}.safetensors").items()
        if name.startswith("module.")
    )


APART = """contrast_weight = 1.0
case_weight = 0.0
match_weight = 1.0
local_weight = 1.0
local_negatives = "positions"
"""
"""The terms that compare no case with another."""


@pytest.mark.parametrize("terms", ["contrast_weight = 0.0\n", APART], ids=["none", "apart"])
def test_micro_batches_give_the_weights_of_a_whole_batch(terms, tiny_config, tiny_store, tmp_path):
    # Without what tells cases apart, which has only those of its micro-batch.
    line = "[training.alignment]\n"
    text = tiny_config.read_text()
    tiny_config.write_text(text.replace(line, f"{line}{terms}"))
    train(tiny_config, tiny_store, tmp_path / "whole")
    train(with_every_stage(tiny_config, "accumulate = 2"), tiny_store, tmp_path / "parts")
    assert farthest(tmp_path / "whole", tmp_path / "parts") < 1e-5


def test_blocks_computed_again_change_nothing(tiny_config, tiny_store, tiny_run, tmp_path):
    train(with_every_stage(tiny_config, "checkpointing = true"), tiny_store, tmp_path / "run")
    assert farthest(tiny_run, tmp_path / "run") == 0.0


def test_a_block_is_computed_again_only_inside_and_only_for_gradients():
    block = torch.nn.Sequential(ResidualBlock(8, 8))
    calls = []
    block[0].conv_in.register_forward_hook(lambda *_: calls.append(1))
    volume = torch.randn(1, 8, 4, 4, 4)

    def count(wanted: bool) -> int:
        calls.clear()
        with torch.set_grad_enabled(wanted):
            found = block(volume)
        if wanted:
            found.sum().backward()
        return len(calls)

    assert count(True) == 1
    with recomputing(block):
        assert count(True) == 2
        assert count(False) == 1
    assert count(True) == 1


@pytest.mark.parametrize(
    ("failure", "settings", "advice"),
    [
        (lambda: torch.empty(2**50), {}, "checkpointing = true, a larger accumulate"),
        (lambda: torch.empty(2**50), {"accumulate": 4}, "checkpointing = true, a smaller system"),
        (lambda: torch.empty(2**50), {"checkpointing": True}, "what helps: a larger accumulate"),
        (torch.OutOfMemoryError("CUDA out of memory"), {}, "a larger accumulate"),
        (MemoryError(), {}, "a larger accumulate"),
        (RuntimeError("could not create a primitive"), {}, "a larger accumulate"),
        (RuntimeError("could not execute a primitive"), {}, "a larger accumulate"),
    ],
)
def test_a_batch_that_does_not_fit_is_one_line_with_what_to_change(
    failure, settings, advice, tmp_path
):
    def step_loss(step, places):
        if isinstance(failure, Exception):
            raise failure
        return failure(), {}

    stage = Stage(
        name="diffusion",
        config=StageConfig(num_steps=1, batch_size=4, **settings),
        module=torch.nn.Linear(1, 1),
        step_loss=step_loss,
        validate=dict,
    )
    with pytest.raises(ValueError, match=rf"diffusion: .* global batch of 4, .*{advice}"):
        fit(stage, tmp_path, join("cpu"), report=lambda *_: None)


def test_a_validation_that_does_not_fit_is_told_what_helps_a_single_case(tmp_path):
    module = torch.nn.Linear(1, 1)
    stage = Stage(
        name="diffusion",
        config=StageConfig(num_steps=1),
        module=module,
        step_loss=lambda *_: (module.weight.sum(), {}),
        validate=lambda: torch.empty(2**50),
    )
    with pytest.raises(ValueError, match="for one case at a time; what helps: a smaller system"):
        fit(stage, tmp_path, join("cpu"), report=lambda *_: None)


@pytest.mark.parametrize(
    ("text", "lacks"),
    [
        ("could not create a primitive", True),
        ("could not execute a primitive", True),
        ("could not create a primitive descriptor for the sum primitive.", False),
        ("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory: 8 bytes", True),
        ("CUDA out of memory. Tried to allocate 2 MiB", True),
        ("mat1 and mat2 shapes cannot be multiplied", False),
    ],
)
def test_commands_and_training_know_lack_of_memory_by_the_same_words(text, lacks, capsys):
    assert is_out_of_memory(RuntimeError(text)) is lacks

    def fail() -> None:
        raise RuntimeError(text)

    with nullcontext() if lacks else pytest.raises(RuntimeError):
        assert exit_code_of(fail) == 1
        assert "not enough memory" in capsys.readouterr().err


def test_a_figure_is_the_mean_over_the_turns_that_have_it():
    module = torch.nn.Linear(1, 1)
    stage = Stage(
        name="stage",
        config=StageConfig(num_steps=1),
        module=module,
        step_loss=lambda step, places: (
            module.weight.sum() * 0.0 + places.start,
            {"late": 3.0} if places.start else {},
        ),
        validate=dict,
    )
    assert gradients(stage, 0, [range(1), range(1, 2)]) == {"loss": 0.5, "late": 3.0}


@pytest.mark.parametrize("text", ["something else", "could not create a primitive descriptor"])
def test_another_failure_keeps_its_name(text, tmp_path):
    def step_loss(step, places):
        raise RuntimeError(text)

    stage = Stage(
        name="diffusion",
        config=StageConfig(num_steps=1),
        module=torch.nn.Linear(1, 1),
        step_loss=step_loss,
        validate=dict,
    )
    with pytest.raises(RuntimeError, match=text):
        fit(stage, tmp_path, join("cpu"), report=lambda *_: None)
