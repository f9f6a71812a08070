"""From encoded views to latents: what is sampled, and what is added to it."""

import itertools
from dataclasses import replace

import pytest
import torch

from fewview import config
from fewview.diffusion.noise import Schedule, own_estimate, per_volume
from fewview.models.lifting import RayGrid
from fewview.models.unet import UnetDenoiserConfig
from fewview.sampling import condition_of, sample_latents
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


def encoded_views(system, networks: Networks, *, for_head: bool = False):
    rays = RayGrid(torch.zeros(1, 2, 16, 16, 16, 2), torch.zeros(1, 2, 4, 16, 16, 16))
    images = torch.randn(1, 2, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    return condition_of(system, networks, images, rays, for_head=for_head)


@torch.no_grad()
@pytest.mark.parametrize("target", ["residual", "latent"])
def test_what_is_sampled_is_unscaled_and_stands_on_the_estimate_if_a_residual(system, target):
    system = system.__class__(**{**vars(system), "diffusion_target": target})
    networks = networks_that_sample(CLEAN, system)
    encoded = encoded_views(system, networks)
    latent = sample_latents(system, networks, encoded, torch.randn(1, 2, 4, 4, 4), nfe=5)
    below = encoded.coarse if target == "residual" else torch.zeros_like(encoded.coarse)
    torch.testing.assert_close(latent, below + CLEAN / 2.0, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_the_condition_is_the_aligned_one_beside_the_latent_of_the_estimate(system):
    networks = networks_that_sample(0.0, system)
    encoded = encoded_views(system, networks)
    assert encoded.condition.shape[1] == system.view_encoder.condition_channels + 2
    assert torch.equal(encoded.condition[:, -2:], encoded.coarse)


@torch.no_grad()
@pytest.mark.parametrize(("condition", "channels"), [("both", 6), ("views", 4), ("coarse", 2)])
def test_the_denoiser_is_told_what_the_config_says(system, condition, channels):
    networks = networks_that_sample(0.0, replace(system, condition=condition))
    encoded = encoded_views(replace(system, condition=condition), networks)
    assert encoded.condition.shape[1] == channels


@torch.no_grad()
def test_the_detail_stands_behind_the_condition(system):
    detailed = replace(system, view_encoder=replace(system.view_encoder, detail_channels=3))
    networks = networks_that_sample(0.0, detailed)
    encoded = encoded_views(detailed, networks)
    assert encoded.condition.shape[1] == 6 + 3
    assert encoded.condition[:, 6:].std() > 0


@torch.no_grad()
def test_a_system_without_an_estimate_stands_on_nothing(system):
    plain = replace(
        system,
        estimate=False,
        diffusion_target="latent",
        condition="views",
        sampler=replace(system.sampler, num_samples=1),
    )
    networks = networks_that_sample(CLEAN, plain)
    encoded = encoded_views(plain, networks)
    assert encoded.estimate.numel() == 0
    assert encoded.coarse.abs().max() == 0.0
    latent = sample_latents(plain, networks, encoded, torch.randn(1, 2, 4, 4, 4), nfe=5)
    volume = networks.autoencoder.decode(latent)
    assert volume.shape == (1, 1, 16, 16, 16)


@torch.no_grad()
def test_nothing_is_estimated_or_encoded_that_is_not_needed(system):
    lean = replace(system, diffusion_target="latent", condition="views")
    networks = networks_that_sample(0.0, lean)
    networks.autoencoder.encode = None  # not to be called
    encoded = encoded_views(lean, networks)
    assert encoded.estimate.numel() == 0
    assert encoded.coarse.shape == (1, 2, 4, 4, 4)
    assert encoded.coarse.abs().max() == 0.0
    head = encoded_views(lean, networks, for_head=True)
    assert head.estimate.shape == (1, 1, 16, 16, 16)
    assert torch.equal(head.condition, encoded.condition)


@torch.no_grad()
def test_the_detail_is_there_also_where_no_estimate_is_needed(system):
    detailed = replace(system.view_encoder, detail_channels=3)
    lean = replace(system, diffusion_target="latent", condition="views", view_encoder=detailed)
    encoded = encoded_views(lean, networks_that_sample(0.0, lean))
    assert encoded.condition.shape[1] == 4 + 3
    assert encoded.condition[:, 4:].std() > 0


@pytest.mark.parametrize(
    "changes",
    [
        {"estimate": False},
        {"estimate": False, "diffusion_target": "latent", "condition": "coarse"},
        {"estimate": False, "diffusion_target": "latent", "condition": "views"},
    ],
)
def test_a_system_that_needs_an_estimate_it_does_not_make_is_refused(system, changes):
    with pytest.raises(ValueError, match="without an estimate"):
        replace(system, **{"sampler": replace(system.sampler, num_samples=0), **changes})


def test_displays_cannot_be_calibrated_without_an_estimate(system):
    changes = {"estimate": False, "diffusion_target": "latent", "condition": "views"}
    told = replace(system.view_encoder, detail_channels=0)
    sampler = replace(system.sampler, num_samples=1)
    made = replace(system, view_encoder=told, sampler=sampler, **changes)
    with pytest.raises(ValueError, match="calibrate_displays"):
        replace(made, calibrate_displays=True)


@torch.no_grad()
def test_guidance_goes_beyond_the_condition_and_costs_two_calls_per_step(system):
    sampler = replace(system.sampler, guidance=3.0, nfe=8)
    guided = replace(system, sampler=sampler, diffusion_target="latent")
    networks, calls = networks_that_sample(0.0, system), []
    schedule = Schedule(system.noise)

    def denoiser(noisy, time, condition):
        """Knows the clean latent to be 0.5 if it is told anything, and 0.2 if not."""
        calls.append(condition)
        value = 0.5 if condition.any() else 0.2
        alpha, sigma = (per_volume(share, noisy) for share in schedule.alpha_sigma(time))
        return alpha * (noisy - alpha * value) / sigma - sigma * value

    networks.denoiser = denoiser
    encoded = encoded_views(guided, networks)
    latent = sample_latents(guided, networks, encoded, torch.randn(1, 2, 4, 4, 4), nfe=8)
    assert len(calls) == 8
    expected = (0.2 + 3.0 * (0.5 - 0.2)) / networks.latent_scale
    torch.testing.assert_close(latent, torch.full_like(latent, expected), atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="even"):
        sample_latents(guided, networks, encoded, torch.randn(1, 2, 4, 4, 4), nfe=5)


@torch.no_grad()
def test_each_call_is_shown_the_clean_estimate_of_the_one_before(system):
    unet = UnetDenoiserConfig(
        kind="unet",
        width=8,
        multipliers=(1, 2),
        num_blocks=1,
        attention_levels=(1,),
        self_conditioning=True,
    )
    system = replace(system, denoiser=unet, diffusion_target="latent")
    networks, seen = build_networks(system), []

    def denoiser(noisy, time, condition, *previous):
        output = 0.3 * noisy
        seen.append((previous, own_estimate(Schedule(system.noise), output, noisy, time)))
        return output

    networks.denoiser = denoiser
    encoded = encoded_views(system, networks)
    sample_latents(system, networks, encoded, torch.randn(1, 2, 4, 4, 4), nfe=3)
    assert [len(previous) for previous, _ in seen] == [0, 1, 1]
    for (_, made), (shown, _) in itertools.pairwise(seen):
        assert torch.equal(shown[0], made)
