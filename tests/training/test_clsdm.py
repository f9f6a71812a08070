"""CLS-DM's networks through all three stages, with fresh and with fixed views."""

import pytest
import torch
from safetensors.torch import load_file

from fewview import config
from fewview.bundle import load_bundle
from fewview.data.store import open_store
from fewview.models.replicate_encoder import ReplicateEncoder
from fewview.reconstruct import reconstruct
from fewview.system import build_networks
from fewview.training import train
from fewview.training.conditions import cached_conditions
from fewview.training.config import RunConfig, load_run
from fewview.training.examples import ScanCache
from fewview.training.latents import Latents
from fewview.training.processes import join
from fewview.training.source import TrainingSource
from fewview.xray.views import read_views

PARTS = """
diffusion_target = "latent"
condition = "views"
[system.grid]
size = 16
[system.views]
num_pixels = 16
num_views = [1, 2]
num_views_weights = [0.5, 0.5]
any_angle_share = 0.0
[system.autoencoder]
kind = "ldm"
latent_channels = 2
width = 8
multipliers = [1, 1, 1]
num_blocks = 1
[system.view_encoder]
kind = "replicate"
width = 4
reduction = 4
condition_channels = 4
[system.denoiser]
kind = "unet"
width = 8
multipliers = [1, 1]
attention_levels = [1]
num_blocks = 1
[system.noise]
prediction = "epsilon"
[system.sampler]
num_samples = 1
nfe = 2
"""


@pytest.fixture
def clsdm_config(tiny_config):
    """The paper's parts in the smallest size that still has all of them."""
    training = tiny_config.read_text().partition("[training]")[2]
    tiny_config.write_text(f'[system]\nname = "tiny"{PARTS}[training]{training}')
    return tiny_config


@pytest.fixture
def fixed_config(clsdm_config):
    """The same with one set of views for each copy."""
    start = "[training.diffusion]\n"
    text = clsdm_config.read_text().replace(start, start + "fixed_views = true\n")
    clsdm_config.write_text(text)
    return clsdm_config


@pytest.fixture
def encodings(monkeypatch):
    """For every encoding of views: whether the network was training, and estimated the CT."""
    seen, forward = [], ReplicateEncoder.forward

    def noting(self, images, rays, *, with_estimate=True):
        seen.append((self.training, with_estimate))
        return forward(self, images, rays, with_estimate=with_estimate)

    monkeypatch.setattr(ReplicateEncoder, "forward", noting)
    return seen


def silent(stage: str, done: int, count: int, shown: str) -> None:
    """Report nothing."""


def told_to(told: list[int]):
    """Note what is reported."""

    def report(stage: str, done: int, count: int, shown: str) -> None:
        told.append(done)

    return report


def source_of(path, store) -> TrainingSource:
    run = config.load(path, RunConfig)
    opened = open_store(store)
    return TrainingSource(run.system, run.training, opened, ScanCache(opened), join("cpu"))


def test_the_papers_system_trains_and_reconstructs_with_and_without_sampling(
    clsdm_config, tiny_store, views_folder, encodings, tmp_path
):
    train(clsdm_config, tiny_store, tmp_path / "run")
    model, views = load_bundle(tmp_path / "run" / "model"), read_views(views_folder)
    encodings.clear()
    sampled, head = reconstruct(views, model=model), reconstruct(views, model=model, nfe=0)
    assert sampled.nfe == 2
    assert sampled.volume.shape == head.volume.shape == (16, 16, 16)
    assert [estimated for _, estimated in encodings] == [False, True]
    ceiling = model.autoencode(torch.full((1, 1, 16, 16, 16), 40.0))
    assert ceiling.shape == (1, 1, 16, 16, 16)


@pytest.mark.parametrize("fixed", [False, True], ids=["fresh views", "fixed views"])
def test_stage_three_estimates_nothing_and_encodes_fixed_views_once(
    fixed, clsdm_config, tiny_store, encodings, tmp_path
):
    start = "[training.diffusion]\nnum_steps = 4"
    steps = f"[training.diffusion]\nfixed_views = {str(fixed).lower()}\nnum_steps = 9"
    clsdm_config.write_text(clsdm_config.read_text().replace(start, steps))
    train(clsdm_config, tiny_store, tmp_path / "run", stage="autoencoder")
    train(clsdm_config, tiny_store, tmp_path / "run", stage="alignment", resume=True)
    encodings.clear()
    train(clsdm_config, tiny_store, tmp_path / "run", stage="diffusion", resume=True)
    copies_or_steps, validated = (4 if fixed else 9), 1
    assert encodings == [(False, False)] * (copies_or_steps + validated)


def test_kept_conditions_are_those_of_the_copies_own_views(fixed_config, tiny_store, tmp_path):
    torch.manual_seed(0)
    source = source_of(fixed_config, tiny_store)
    networks = build_networks(source.system)
    latents = Latents(source.keys(), torch.zeros(4, 2, 4, 4, 4))
    path = tmp_path / "conditions.safetensors"
    made = cached_conditions(path, source.system, networks, latents, source, silent)
    assert load_file(path)["results"].dtype == torch.float16
    told = []
    again = cached_conditions(path, source.system, networks, latents, source, told_to(told))
    assert torch.equal(again.condition, made.condition)
    assert told == []  # read, not made
    views = source.views([source.body(latents.keys[2])], range(1), 35, 2)
    with torch.no_grad():
        fresh = networks.view_encoder(views.images, views.rays).condition
    torch.testing.assert_close(made.of([2], "cpu").condition, fresh, atol=2e-3, rtol=2e-3)
    assert (made.condition[0] - made.condition[1]).abs().max() > 1e-3
    others = build_networks(source.system)
    other = cached_conditions(path, source.system, others, latents, source, told_to(told))
    assert len(told) == 4
    assert not torch.equal(other.condition, made.condition)


class Stopped(Exception):
    """Stands for a kill."""


def stop_in_diffusion(stage: str, done: int, _steps: int, _shown: str) -> None:
    if (stage, done) == ("diffusion", 3):
        raise Stopped


def test_a_run_with_fixed_views_resumes_exactly(fixed_config, tiny_store, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(fixed_config, tiny_store, whole)
    with pytest.raises(Stopped):
        train(fixed_config, tiny_store, broken, report=stop_in_diffusion)
    train(fixed_config, tiny_store, broken, resume=True)
    one, other = (load_file(run / "model" / "weights.safetensors") for run in (whole, broken))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_fixed_views_need_a_finished_view_encoder(tiny_config):
    text = tiny_config.read_text().replace(
        "[training.diffusion]\n", "[training.diffusion]\nfixed_views = true\n"
    )
    tiny_config.write_text(text)
    assert load_run(tiny_config).training.diffusion.fixed_views
    learned = text.replace(
        "condition_channels = 4\n", "condition_channels = 4\ndetail_channels = 2\n"
    )
    tiny_config.write_text(learned)
    with pytest.raises(ValueError, match="fixed_views needs"):
        load_run(tiny_config)
