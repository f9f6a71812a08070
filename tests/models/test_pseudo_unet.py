"""The pseudo-3-D denoiser: its published size, and what mixes with what."""

import contextlib

import pytest
import torch

from fewview.models.pseudo_layers import LineAttention, distance_buckets, rotated
from fewview.models.pseudo_unet import PseudoUnetConfig, PseudoUnetDenoiser
from fewview.training.memory import recomputing

SMALL = PseudoUnetConfig(kind="pseudo", width=8, multipliers=(1, 2), num_heads=2)


def small_denoiser() -> PseudoUnetDenoiser:
    torch.manual_seed(0)
    denoiser = PseudoUnetDenoiser(SMALL, latent_channels=2, condition_channels=3)
    for value in denoiser.parameters():
        torch.nn.init.normal_(value, std=0.2)
    return denoiser


def inputs():
    torch.manual_seed(1)
    return torch.randn(1, 2, 4, 8, 6), torch.rand(1), torch.randn(1, 3, 4, 8, 6)


def test_the_denoiser_has_the_published_size():
    with torch.device("meta"):
        denoiser = PseudoUnetDenoiser(
            PseudoUnetConfig(kind="pseudo"), latent_channels=8, condition_channels=8
        )
    assert sum(value.numel() for value in denoiser.parameters()) == 35_755_400


def test_every_weight_gets_a_gradient_and_the_output_starts_at_zero():
    fresh = PseudoUnetDenoiser(SMALL, latent_channels=2, condition_channels=3)
    assert fresh(*inputs()).abs().max() == 0.0
    denoiser = small_denoiser()
    output = denoiser(*inputs())
    assert output.shape == (1, 2, 4, 8, 6)
    output.square().mean().backward()
    assert not [name for name, value in denoiser.named_parameters() if value.grad is None]


def test_blocks_computed_again_give_the_same_gradients():
    denoiser, calls = small_denoiser(), []
    denoiser.middle_in.conv_in.register_forward_hook(lambda *_: calls.append(1))
    gradients = []
    for mode in (contextlib.nullcontext(), recomputing(denoiser)):
        denoiser.zero_grad()
        with mode:
            denoiser(*inputs()).square().mean().backward()
        gradients.append(denoiser.start.weight.grad.clone())
    assert torch.equal(*gradients)
    assert len(calls) == 1 + 2


@torch.no_grad()
def test_left_and_right_meet_in_attention_alone():
    """Without attention across them, what is in one sagittal plane stays there."""
    denoiser = small_denoiser()
    noisy, time, told = inputs()
    moved = noisy.clone()
    moved[..., 2] += 1.0

    def planes_that_differ() -> list[int]:
        change = (denoiser(moved, time, told) - denoiser(noisy, time, told)).abs()
        return (change.amax(dim=(0, 1, 2, 3)) > 1e-5).nonzero()[:, 0].tolist()

    assert planes_that_differ() == [0, 1, 2, 3, 4, 5]
    for name, part in denoiser.named_modules():
        if name.endswith("across"):
            part.to_out.weight.zero_()
        if isinstance(part, torch.nn.GroupNorm):  # its statistics are of all planes
            part.forward = lambda hidden: hidden
    assert planes_that_differ() == [2]


def test_products_of_rotated_vectors_depend_on_their_distance_alone():
    query, key = torch.randn(2, 1, 1, 1, 8).expand(-1, -1, -1, 9, -1)
    products = (rotated(query) @ rotated(key).transpose(-1, -2))[0, 0]
    torch.testing.assert_close(products[0, 3], products[5, 8])
    assert (products[0, 3] - products[0, 4]).abs() > 1e-4


@torch.no_grad()
def test_attention_across_planes_knows_their_distance_and_that_within_does_not():
    hidden, order = torch.randn(1, 8, 5, 1, 1), [2, 0, 1, 4, 3]
    torch.manual_seed(0)
    across, within = (LineAttention(8, 2, across=flag) for flag in (True, False))
    assert (across(hidden)[:, :, order] - across(hidden[:, :, order])).abs().max() > 1e-4
    turned = hidden.transpose(2, 3)
    torch.testing.assert_close(within(turned)[:, :, :, order], within(turned[:, :, :, order]))


def test_buckets_tell_near_distances_and_both_directions_apart():
    buckets = distance_buckets(32)
    assert len(set(buckets[10, 3:18].tolist())) == 15
    assert buckets.min() == 0
    assert buckets.max() == 31
    assert buckets[0, 31] != buckets[31, 0]
    assert torch.equal(buckets[:-1, :-1], buckets[1:, 1:])


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"multipliers": ()}, "level"), ({"num_heads": 0}, "least 1"), ({"width": 12}, "of 8")],
)
def test_sizes_that_cannot_exist_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        PseudoUnetConfig(kind="pseudo", **settings)
