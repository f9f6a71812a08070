"""From encoded views to latents: what is sampled, and what is added to it."""

import pytest
import torch

from fewview import config
from fewview.diffusion.noise import Schedule, per_volume
from fewview.models.lifting import RayGrid
from fewview.sampling import condition_of, lost_in_coding, sample_latents
from fewview.system import Networks, build_networks
from fewview.training.config import RunConfig

CLEAN = 0.25


@pytest.fixture
def system(tiny_config):
    return config.load(tiny_config, RunConfig).system


def networks_that_sample(value: float, system) -> Networks:
    """Networks whose denoiser knows that the clean latent is `value` everywhere."""
    torch.manual_seed(0)
    networks = build_networks(system)
    schedule = Schedule(system.noise)

    def denoiser(noisy, time, condition):
        alpha, sigma = (per_volume(share, noisy) for share in schedule.alpha_sigma(time))
        return alpha * (noisy - alpha * value) / sigma - sigma * value

    networks.denoiser = denoiser
    networks.latent_scale = 2.0
    return networks


def encoded_views(networks: Networks):
    rays = RayGrid(torch.zeros(1, 2, 16, 16, 16, 2), torch.zeros(1, 2, 4, 16, 16, 16))
    return condition_of(networks, torch.randn(1, 2, 2, 16, 16), rays)


@torch.no_grad()
def test_a_residual_of_zero_gives_back_the_estimate(system):
    networks = networks_that_sample(0.0, system)
    encoded = encoded_views(networks)
    latent = sample_latents(system, networks, encoded, torch.randn(2, 2, 4, 4, 4), nfe=5)
    volumes = networks.autoencoder.decode(latent) + lost_in_coding(system, networks, encoded)
    expected = encoded.estimate.expand(2, -1, -1, -1, -1)
    torch.testing.assert_close(volumes, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("target", ["residual", "latent"])
def test_what_is_sampled_is_unscaled_and_stands_on_the_estimate_if_a_residual(system, target):
    system = system.__class__(**{**vars(system), "diffusion_target": target})
    networks = networks_that_sample(CLEAN, system)
    encoded = encoded_views(networks)
    latent = sample_latents(system, networks, encoded, torch.randn(1, 2, 4, 4, 4), nfe=5)
    below = encoded.coarse if target == "residual" else torch.zeros_like(encoded.coarse)
    torch.testing.assert_close(latent, below + CLEAN / 2.0, atol=1e-4, rtol=1e-4)
    if target == "latent":
        assert lost_in_coding(system, networks, encoded).abs().max() == 0.0


@torch.no_grad()
def test_the_condition_is_the_aligned_one_beside_the_latent_of_the_estimate(system):
    networks = networks_that_sample(0.0, system)
    encoded = encoded_views(networks)
    assert encoded.condition.shape[1] == system.view_encoder.condition_channels + 2
    assert torch.equal(encoded.condition[:, -2:], encoded.coarse)
