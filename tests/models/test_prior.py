"""The prior by cross-attention, and self-conditioning, in both denoising U-Nets."""

from dataclasses import replace

import pytest
import torch

from fewview.models.prior import place_code
from fewview.models.pseudo_unet import PseudoUnetConfig, PseudoUnetDenoiser
from fewview.models.unet import UnetDenoiser, UnetDenoiserConfig
from fewview.system import SystemConfig

ATTENDING = UnetDenoiserConfig(
    kind="unet",
    width=8,
    multipliers=(1, 2),
    num_blocks=1,
    attention_levels=(0, 1),
    prior="cross-attention",
    prior_block=2,
)
PSEUDO = PseudoUnetConfig(
    kind="pseudo",
    width=8,
    multipliers=(1, 2),
    num_heads=2,
    prior="cross-attention",
    prior_block=2,
)
both_networks = pytest.mark.parametrize("config", [ATTENDING, PSEUDO], ids=["unet", "pseudo"])


def denoiser_of(config: UnetDenoiserConfig | PseudoUnetConfig) -> torch.nn.Module:
    torch.manual_seed(0)
    kind = UnetDenoiser if isinstance(config, UnetDenoiserConfig) else PseudoUnetDenoiser
    denoiser = kind(config, latent_channels=2, condition_channels=3)
    for value in denoiser.parameters():
        torch.nn.init.normal_(value, std=0.2)
    return denoiser


def inputs(count: int = 1):
    torch.manual_seed(1)
    noisy, told = torch.randn(count, 2, 4, 4, 4), torch.randn(count, 3, 4, 4, 4)
    return noisy, torch.rand(count), told


@both_networks
@pytest.mark.parametrize("self_conditioning", [False, True])
def test_every_weight_gets_a_gradient(config, self_conditioning):
    denoiser = denoiser_of(replace(config, self_conditioning=self_conditioning))
    noisy, time, told = inputs(2)
    previous = torch.randn_like(noisy)
    denoiser(noisy, time, told, previous).square().mean().backward()
    still = [name for name, value in denoiser.named_parameters() if value.grad is None]
    assert not still


@torch.no_grad()
@both_networks
@pytest.mark.parametrize("prior", ["concatenation", "cross-attention"])
def test_the_condition_matters_and_where_it_lies_too(config, prior):
    denoiser = denoiser_of(replace(config, prior=prior))
    noisy, time, told = inputs()
    plain = denoiser(noisy, time, told)
    assert (denoiser(noisy, time, torch.zeros_like(told)) - plain).abs().max() > 1e-3
    moved = told.roll(2, dims=2)  # whole blocks: the same tokens, but for their places
    assert (denoiser(noisy, time, moved) - plain).abs().max() > 1e-3


@torch.no_grad()
@both_networks
def test_no_estimate_yet_is_the_same_as_zeros(config):
    denoiser = denoiser_of(replace(config, self_conditioning=True))
    noisy, time, told = inputs()
    none = denoiser(noisy, time, told)
    assert torch.equal(denoiser(noisy, time, told, torch.zeros_like(noisy)), none)
    assert (denoiser(noisy, time, told, noisy) - none).abs().max() > 1e-3


def test_a_place_has_one_code_in_grids_of_any_size():
    like = torch.zeros(1)
    coarse, fine = place_code([2, 2, 2], like), place_code([6, 6, 6], like)
    center_of_block = torch.arange(216).reshape(6, 6, 6)[1::3, 1::3, 1::3].flatten()
    torch.testing.assert_close(coarse, fine[center_of_block])
    assert len(torch.unique(fine, dim=0)) == 216


def test_tokens_are_few_at_the_papers_size():
    with torch.device("meta"):
        denoiser = UnetDenoiser(
            UnetDenoiserConfig(kind="unet", prior="cross-attention"),
            latent_channels=8,
            condition_channels=8,
        )
        assert denoiser.to_tokens(torch.empty(1, 8, 32, 32, 32)).shape[1] == 512


@both_networks
def test_blocks_that_do_not_divide_the_latent_are_refused(config):
    with pytest.raises(ValueError, match="prior_block 3"):
        SystemConfig(name="unfit", denoiser=replace(config, prior_block=3))
    with pytest.raises(ValueError, match="at least 1"):
        replace(config, prior_block=0)
