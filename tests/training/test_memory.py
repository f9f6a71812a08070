"""Batches in parts, blocks computed again, and what is said when memory runs out."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fewview.models.layers import ResidualBlock
from fewview.training import train
from fewview.training.loop import Stage, fit
from fewview.training.memory import recomputing
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


def test_micro_batches_give_the_weights_of_a_whole_batch(tiny_config, tiny_store, tmp_path):
    # Without the contrast, whose CT finds its views only among those of its micro-batch.
    line = "[training.alignment]\n"
    text = tiny_config.read_text()
    tiny_config.write_text(text.replace(line, f"{line}contrast_weight = 0.0\n"))
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


def test_another_failure_keeps_its_name(tmp_path):
    def step_loss(step, places):
        raise RuntimeError("something else")

    stage = Stage(
        name="diffusion",
        config=StageConfig(num_steps=1),
        module=torch.nn.Linear(1, 1),
        step_loss=step_loss,
        validate=dict,
    )
    with pytest.raises(RuntimeError, match="something else"):
        fit(stage, tmp_path, join("cpu"), report=lambda *_: None)
