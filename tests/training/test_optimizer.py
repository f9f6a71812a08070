"""Muon beside AdamW: which weights it moves, by what, and that a stopped run goes on exactly."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from fewview.models.layers import channels_last
from fewview.training import train
from fewview.training.optimizer import Muon, new_optimizer
from fewview.training.stage_config import StageConfig

CONFIG = StageConfig(num_steps=1, optimizer="muon", learning_rate=0.01, weight_decay=0.0)


def after_one_step(module: nn.Module, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
    """How a step of Muon changes each parameter."""
    before = {name: value.detach().clone() for name, value in module.named_parameters()}
    optimizer = new_optimizer(module, CONFIG)
    module(inputs).square().sum().backward()
    optimizer.step()
    return {name: value.detach() - before[name] for name, value in module.named_parameters()}


@pytest.mark.parametrize("layer", [nn.Conv3d(4, 8, 3), nn.Linear(8, 6), nn.Conv2d(3, 40, 1)])
def test_a_step_of_a_matrix_moves_all_directions_alike(layer):
    # A gradient that is eight times as strong in one direction as in another.
    outputs, inputs = layer.weight.flatten(1).shape
    rank = min(outputs, inputs)
    generator = torch.Generator().manual_seed(0)
    left = torch.linalg.qr(torch.randn(outputs, rank, generator=generator)).Q
    right = torch.linalg.qr(torch.randn(inputs, rank, generator=generator)).Q
    gradient = left @ torch.linspace(1.0, 8.0, rank).diag() @ right.T
    before = layer.weight.detach().clone()
    optimizer = new_optimizer(layer, CONFIG)
    layer.weight.grad = gradient.reshape(layer.weight.shape)
    optimizer.step()
    change = (layer.weight.detach() - before).flatten(1)
    wanted = 0.01 * 0.2 * max(outputs, inputs) ** 0.5  # the size of AdamW's, arXiv 2502.16982
    torch.testing.assert_close(change, -wanted * left @ right.T, atol=0.4 * wanted, rtol=0.0)
    strength = torch.linalg.svdvals(change)
    assert strength.min() > 0.6 * wanted
    assert strength.max() < 1.3 * wanted


def test_a_layer_with_one_output_is_left_to_adamw():
    change = after_one_step(nn.Linear(5, 1), torch.randn(3, 5))
    assert change["weight"].abs().allclose(torch.tensor(0.01), rtol=1e-3)


def test_the_order_of_weights_in_memory_changes_nothing():
    torch.manual_seed(0)
    module = nn.Conv3d(4, 8, 3)
    other = nn.Conv3d(4, 8, 3)
    other.load_state_dict(module.state_dict())
    channels_last(other)
    inputs = torch.randn(2, 4, 5, 5, 5)
    change, same = after_one_step(module, inputs), after_one_step(other, inputs)
    # Muon computes in bfloat16.
    torch.testing.assert_close(same["weight"], change["weight"], atol=2e-4, rtol=0.05)


def test_a_rate_set_from_outside_reaches_both_parts():
    module = nn.Linear(4, 4)
    optimizer = new_optimizer(module, CONFIG)
    assert isinstance(optimizer, Muon)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = module.weight.detach().clone()
    module(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    assert torch.equal(module.weight, before)


class Stopped(Exception):
    """Stands for a kill."""


def stop_at_three(stage: str, done: int, _steps: int, _shown: str) -> None:
    if (stage, done) == ("alignment", 3):
        raise Stopped


def test_a_stage_with_muon_resumes_exactly(tiny_config, tiny_store, tmp_path):
    text = tiny_config.read_text()
    stage = '[training.alignment]\noptimizer = "muon"\n'
    config = tmp_path / "muon.toml"
    config.write_text(text.replace("[training.alignment]\n", stage))
    train(config, tiny_store, tmp_path / "whole")
    with pytest.raises(Stopped):
        train(config, tiny_store, tmp_path / "stopped", report=stop_at_three)
    train(config, tiny_store, tmp_path / "stopped", resume=True)
    train(tiny_config, tiny_store, tmp_path / "adamw")
    whole, stopped, adamw = (
        load_file(tmp_path / run / "model" / "weights.safetensors")
        for run in ("whole", "stopped", "adamw")
    )
    assert all(torch.equal(whole[name], stopped[name]) for name in whole)
    assert not all(torch.equal(whole[name], adamw[name]) for name in whole)
