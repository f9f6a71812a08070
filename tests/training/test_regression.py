"""Regressors: their losses, and training, storing and using them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fewview.bundle import load_bundle, load_model
from fewview.data.volume import Volume
from fewview.models.x2ct import ExampleDropout, X2ct
from fewview.reconstruct import reconstruct
from fewview.training import train
from fewview.training.config import load_run
from fewview.training.regression import adversarial_losses, projection_loss
from fewview.training.regression_config import RegressionRun
from fewview.xray.geometry import preset
from fewview.xray.views import drr

START = """
[system]
kind = "regressor"
name = "tiny"
[system.grid]
size = 16
[system.views]
num_pixels = 16
num_views = [2]
num_views_weights = [1.0]
any_angle_share = 0.0
"""
NETWORKS = {
    "x2ct": """
[system.network]
kind = "x2ct"
stem = 8
growth = 4
layers = [1, 1]
channels = [4, 4, 8]
""",
    "inrr3ct": """
[system.network]
kind = "inrr3ct"
image_widths = [4, 4, 4, 4]
features = 8
num_blocks = 1
num_head_layers = 1
""",
}
STAGE = """
[training]
num_examples = 4
[training.regression]
num_steps = 4
batch_size = 2
log_every = 1
save_every = 2
"""
KINDS = {
    "cnn": NETWORKS["x2ct"] + STAGE,
    "gan": NETWORKS["x2ct"]
    + STAGE
    + "projection_weight = 1.0\nadversarial_weight = 0.1\n[training.regression.discriminator]\n"
    + "width = 4\n",
    "inr": NETWORKS["inrr3ct"] + STAGE + "voxels_per_step = 64\n",
}


@pytest.fixture
def config(request, tmp_path) -> Path:
    path = tmp_path / "regressor.toml"
    path.write_text(START + KINDS[request.param])
    return path


class Stopped(Exception):
    """Stands for a kill."""


def stop_at_three(_stage: str, done: int, _steps: int, _shown: str) -> None:
    if done == 3:
        raise Stopped


@pytest.mark.parametrize("config", KINDS, indirect=True)
def test_a_regressor_trains_resumes_exactly_and_reconstructs(config, tiny_store, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(config, tiny_store, whole)
    with pytest.raises(Stopped):
        train(config, tiny_store, broken, report=stop_at_three)
    train(config, tiny_store, broken, resume=True)
    one, other = (load_file(run / "model" / "weights.safetensors") for run in (whole, broken))
    assert all(torch.equal(one[name], other[name]) for name in one)
    lines = (whole / "metrics.jsonl").read_text()
    assert "val_psnr_db" in lines
    body = Volume(np.full((16, 16, 16), 40.0, np.float32), np.diag([20.0, 20.0, 20.0, 1.0]))
    views = drr(body, [preset("chest", angle_deg=angle, size=32) for angle in (0.0, 90.0)])
    found = reconstruct(views, model=whole / "model")
    assert found.volume.shape == (16, 16, 16)
    assert found.nfe == 0
    assert found.sample is None
    with pytest.raises(ValueError, match="no samples"):
        reconstruct(views, model=whole / "model", samples=2)


@pytest.mark.parametrize("config", ["gan"], indirect=True)
def test_the_discriminator_is_trained_and_not_in_the_model(config, tiny_store, tmp_path):
    train(config, tiny_store, tmp_path / "run")
    moved = load_file(tmp_path / "run" / "regression.safetensors")
    names = {name for name in moved if "module.discriminator" in name}
    assert names
    assert not any(
        "discriminator" in name
        for name in load_file(tmp_path / "run" / "model" / "weights.safetensors")
    )


@pytest.mark.parametrize("config", ["cnn"], indirect=True)
def test_every_example_drops_other_links_and_in_a_second_run_the_same(
    config, tiny_store, tmp_path, monkeypatch
):
    seeds, forward = [], X2ct.forward

    def noting(self, images, rays):
        if self.training:
            links = [part for part in self.modules() if isinstance(part, ExampleDropout)]
            seeds.extend(one.initial_seed() for one in links[0].generators)
        return forward(self, images, rays)

    monkeypatch.setattr(X2ct, "forward", noting)
    train(config, tiny_store, tmp_path / "one")
    assert len(set(seeds)) == len(seeds) == 8  # 4 steps of 2 examples
    train(config, tiny_store, tmp_path / "two")
    assert seeds[8:] == seeds[:8]


@pytest.mark.parametrize("config", KINDS, indirect=True)
def test_micro_batches_give_the_losses_and_gradients_of_a_whole_batch(config, tiny_store, tmp_path):
    train(config, tiny_store, tmp_path / "whole")
    config.write_text(config.read_text().replace("num_steps = 4", "num_steps = 4\naccumulate = 2"))
    train(config, tiny_store, tmp_path / "parts")
    found = []
    for run in (tmp_path / "whole", tmp_path / "parts"):
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        tensors = load_file(run / "regression.safetensors")
        # Not the weights: a bias before a norm has no gradient, and Adam scales its rounding up.
        means = [value for name, value in tensors.items() if name.endswith("exp_avg")]
        found.append(([line["loss"] for line in lines if "loss" in line], means))
    (losses, means), (other_losses, other_means) = found
    assert other_losses == pytest.approx(losses, abs=1e-5)
    torch.testing.assert_close(other_means, means, atol=1e-5, rtol=0)


@pytest.mark.parametrize("config", ["cnn"], indirect=True)
def test_a_regressor_is_no_latent_system(config, tiny_store, tmp_path):
    train(config, tiny_store, tmp_path / "run")
    assert load_model(tmp_path / "run" / "model").config.name == "tiny"
    with pytest.raises(ValueError, match="is a regressor"):
        load_bundle(tmp_path / "run" / "model")
    with pytest.raises(ValueError, match="no stage 'diffusion'"):
        train(config, tiny_store, tmp_path / "other", stage="diffusion")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (NETWORKS["x2ct"] + STAGE + "voxels_per_step = 8\n", "inrr3ct"),
        (KINDS["inr"] + "projection_weight = 1.0\n", "whole volumes"),
        (NETWORKS["x2ct"].replace("[4, 4, 8]", "[4, 4]") + STAGE, "one entry more"),
    ],
)
def test_a_regressor_that_cannot_train_is_refused(text, message, tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text(START + text)
    with pytest.raises(ValueError, match=message):
        load_run(path)


@pytest.mark.parametrize("name", ["x2ct-cnn-64", "x2ct-gan-64", "inrr3ct-64"])
def test_committed_regressors_load(name):
    config = load_run(Path(__file__).parents[2] / "configs" / f"{name}.toml")
    assert isinstance(config, RegressionRun)
    assert config.system.name == name


def test_the_projection_loss_sees_only_what_an_axis_loses():
    volume = torch.rand(1, 1, 6, 6, 6, generator=torch.Generator().manual_seed(0))
    assert projection_loss(volume, volume) == 0.0
    shuffled = volume.flip(2)  # along depth: the mean along depth stays, the others move
    parts = [(shuffled.mean(axis) - volume.mean(axis)).abs().mean() for axis in (2, 3, 4)]
    assert parts[0] < 1e-6
    assert projection_loss(shuffled, volume) == pytest.approx(float(sum(parts)) / 3, rel=1e-5)


def test_adversarial_losses_are_a_quarter_at_a_half():
    volume = torch.zeros(1, 1, 4, 4, 4)
    halves = torch.nn.Module()
    halves.forward = lambda volume, condition: torch.full((1, 1, 2, 2, 2), 0.5)
    fooling, telling = adversarial_losses(halves, volume, volume, volume)
    assert fooling == pytest.approx(0.25)
    assert telling == pytest.approx(0.5)  # a quarter each for the true and the made volume


def test_each_network_learns_from_its_own_loss_alone():
    class Line(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.slope = torch.nn.Parameter(torch.tensor(0.3))

        def forward(self, volume, condition):
            return self.slope * volume + condition

    line = Line()
    made = torch.full((1, 1, 1, 1, 1), 0.5, requires_grad=True)
    true, nothing = torch.ones(1, 1, 1, 1, 1), torch.zeros(1, 1, 1, 1, 1)
    fooling, telling = adversarial_losses(line, made, true, nothing)
    (fooling + telling).backward()
    # d/dm (s m - 1)^2 = 2 s (s m - 1); d/ds [(s t - 1)^2 + (s m)^2] = 2 t (s t - 1) + 2 s m^2
    assert made.grad.item() == pytest.approx(2 * 0.3 * (0.15 - 1))
    assert line.slope.grad.item() == pytest.approx(2 * (0.3 - 1) + 2 * 0.3 * 0.25)
