"""Networks: shapes, lifting, and what must not depend on the order of views."""

import math
from dataclasses import replace

import pytest
import torch

from fewview.models.autoencoder import Autoencoder, AutoencoderConfig
from fewview.models.denoiser import Denoiser, DenoiserConfig
from fewview.models.layers import (
    ResidualBlock,
    channels_last,
    depth_to_space,
    level_start,
    space_to_depth,
)
from fewview.models.lifting import RayGrid, fuse, fused_channels, lift
from fewview.models.view_encoder import Template, ViewEncoder, ViewEncoderConfig

SMALL = ViewEncoderConfig(
    image_width=8, lifted_channels=4, width=8, deep_width=16, bottom_width=16, num_blocks=1
)


def ray_grid(views: int = 2, size: int = 16) -> RayGrid:
    axis = (2 * torch.arange(size) + 1.0) / size - 1
    z, _y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    position = torch.stack([x, z], dim=-1).expand(1, views, -1, -1, -1, -1)
    return RayGrid(position, torch.zeros(1, views, 4, size, size, size))


def test_depth_to_space_undoes_space_to_depth():
    volume = torch.randn(2, 3, 8, 4, 6)
    torch.testing.assert_close(depth_to_space(space_to_depth(volume)), volume)


def test_autoencoder_keeps_the_volume_shape_and_shrinks_the_latent_fourfold():
    autoencoder = Autoencoder(
        AutoencoderConfig(latent_channels=3, width=8, deep_width=8, num_blocks=1)
    )
    posterior = autoencoder.encode(torch.zeros(1, 1, 16, 16, 16))
    assert posterior.mean.shape == (1, 3, 4, 4, 4)
    assert autoencoder.decode(posterior.mean).shape == (1, 1, 16, 16, 16)


def test_divergence_of_the_standard_normal_is_zero():
    autoencoder = Autoencoder(AutoencoderConfig(width=8, deep_width=8, num_blocks=1))
    posterior = autoencoder.encode(torch.zeros(1, 1, 8, 8, 8))
    normal = posterior._replace(
        mean=torch.zeros_like(posterior.mean), log_variance=torch.zeros_like(posterior.mean)
    )
    assert normal.kl().item() == 0.0


def test_lifting_reads_the_pixel_a_voxel_projects_to():
    image = torch.arange(16.0 * 16).reshape(1, 1, 1, 16, 16)
    lifted = lift(image, ray_grid(views=1))
    torch.testing.assert_close(lifted[0, 0, 0, :, 5, :], image[0, 0, 0])


def test_voxels_off_the_detector_read_zero():
    rays = ray_grid(views=1)
    off = RayGrid(rays.position + 3.0, rays.ray)
    assert lift(torch.ones(1, 1, 1, 16, 16), off).abs().max() == 0.0
    assert not off.on_detector.any()


def rays_at(*angles_deg: float, size: int = 4) -> RayGrid:
    """Parallel rays of frontal views (0) turned by some angles about the patient's axis."""
    angles = torch.tensor(angles_deg).deg2rad()
    rays = ray_grid(len(angles), size)
    rays.ray[0, :, 0] = angles.sin()[:, None, None, None]
    rays.ray[0, :, 1] = angles.cos()[:, None, None, None]
    return rays


@pytest.mark.parametrize("kind", ["direction", "max"])
def test_fusion_does_not_depend_on_the_order_of_views(kind):
    views = torch.randn(1, 3, 2, 4, 4, 4)
    fused = fuse(views, rays_at(0.0, 40.0, 90.0), kind)
    assert fused.shape[1] == 2 * fused_channels(kind)
    order = [2, 0, 1]
    again = fuse(views[:, order], rays_at(90.0, 0.0, 40.0), kind)
    torch.testing.assert_close(fused, again)


def test_frontal_and_lateral_features_can_be_told_apart_after_fusion():
    views = torch.randn(1, 2, 1, 4, 4, 4)
    mean, cosine, sine = fuse(views, rays_at(0.0, 90.0)).unbind(1)
    torch.testing.assert_close(mean - cosine, views[:, 0, 0])
    torch.testing.assert_close(mean + cosine, views[:, 1, 0])
    torch.testing.assert_close(sine, torch.zeros_like(sine), atol=1e-6, rtol=0.0)


def test_fusion_is_the_same_from_in_front_and_from_behind():
    views = torch.randn(1, 2, 1, 4, 4, 4)
    torch.testing.assert_close(
        fuse(views, rays_at(20.0, 90.0)), fuse(views, rays_at(200.0, -90.0)), atol=1e-6, rtol=1e-5
    )


def test_what_images_say_reaches_a_fresh_volume_as_strong_as_the_position():
    encoder = ViewEncoder(ViewEncoderConfig(width=16, deep_width=16, bottom_width=16))
    strength = {}
    for name in ("images", "full_down", "to_half", "place", "half_up"):
        getattr(encoder, name).register_forward_hook(
            lambda _module, _inputs, output, name=name: strength.update(
                {name: (output[0] if name == "images" else output).std().item()}
            )
        )
    encoder(torch.rand(1, 2, 2, 32, 32), rays_at(0.0, 90.0, size=32))
    assert strength["to_half"] > 0.5 * strength["place"]
    assert min(strength.values()) > 0.2
    assert max(strength.values()) < 6.0


def test_a_fresh_residual_block_is_not_the_identity_once_started_level():
    block = torch.nn.Sequential(ResidualBlock(16, 16))
    hidden = torch.randn(1, 16, 8, 8, 8)
    torch.testing.assert_close(block(hidden), hidden)
    level_start(block)
    assert 0.2 < (block(hidden) - hidden).std().item() < 0.7


def test_a_view_encoder_lifts_deep_features_past_the_full_resolution():
    encoder = ViewEncoder(SMALL)
    for part in (encoder.images.head, encoder.full_down[0]):
        torch.nn.init.zeros_(part.weight)
    images = torch.randn(1, 2, 2, 16, 16, requires_grad=True)
    encoder(images, rays_at(0.0, 90.0, size=16)).estimate.square().sum().backward()
    assert images.grad is not None
    assert images.grad.abs().max() > 0.0
    without = ViewEncoder(replace(SMALL, half_lifted=0, deep_lifted=0))
    for part in (without.images.head, without.full_down[0]):
        torch.nn.init.zeros_(part.weight)
    again = images.detach().requires_grad_()
    without(again, rays_at(0.0, 90.0, size=16)).estimate.square().sum().backward()
    assert again.grad is not None
    assert again.grad.abs().max() == 0.0


def test_a_template_is_the_sum_of_its_cosines():
    template = Template(2, 3)
    like = torch.zeros(1, 1, 4, 5, 6, dtype=torch.float64)
    volume = template(like)
    assert volume.shape == (1, 2, 4, 5, 6)
    z, y, x = 2.5 / 4, 1.5 / 5, 4.5 / 6
    expected = sum(
        template.weight[1, i, j, k].item()
        * math.cos(math.pi * i * z)
        * math.cos(math.pi * j * y)
        * math.cos(math.pi * k * x)
        for i in range(3)
        for j in range(3)
        for k in range(3)
    )
    assert volume[0, 1, 2, 1, 4].item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("waves", [0, 4])
def test_an_encoder_that_sees_nothing_still_tells_places_apart(waves):
    encoder = ViewEncoder(replace(SMALL, template_waves=waves))
    blank = encoder.place(torch.zeros(1, 8, 8, 8, 8))
    assert blank.std(dim=(2, 3, 4)).min() > 0.05


@pytest.mark.parametrize("views", [1, 2, 5])
def test_one_view_encoder_takes_any_number_of_views(views):
    encoder = ViewEncoder(SMALL)
    encoding = encoder(torch.randn(1, views, 2, 16, 16), ray_grid(views))
    assert encoding.condition.shape == (1, 16, 4, 4, 4)
    assert encoding.estimate.shape == (1, 1, 16, 16, 16)


def test_views_are_told_apart_by_their_direction_not_by_their_order():
    encoder = ViewEncoder(SMALL).eval()
    images = torch.randn(1, 2, 2, 16, 16)
    rays = ray_grid()
    rays.ray[:, 0, 1] = 1.0
    rays.ray[:, 1, 0] = 1.0
    turned = RayGrid(rays.position.flip(1), rays.ray.flip(1))
    estimate = encoder(images, rays).estimate
    torch.testing.assert_close(encoder(images.flip(1), turned).estimate, estimate)
    assert not torch.allclose(encoder(images.flip(1), rays).estimate, estimate, atol=1e-4)


def test_channels_last_keeps_what_a_network_says():
    encoder = ViewEncoder(SMALL).eval()
    images = torch.randn(1, 2, 2, 16, 16)
    before = encoder(images, ray_grid()).estimate
    weight = channels_last(encoder).get_parameter("to_half.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(encoder(images, ray_grid()).estimate, before, atol=1e-5, rtol=1e-4)


def test_condition_is_the_same_without_the_estimate():
    encoder = ViewEncoder(SMALL).eval()
    images = torch.randn(1, 2, 2, 16, 16)
    with_estimate = encoder(images, ray_grid()).condition
    without = encoder(images, ray_grid(), with_estimate=False).condition
    torch.testing.assert_close(with_estimate, without)


def test_every_view_changes_the_estimate():
    encoder = ViewEncoder(SMALL)
    images = torch.randn(1, 2, 2, 16, 16, requires_grad=True)
    for block in encoder.modules():
        for parameter in block.parameters(recurse=False):
            torch.nn.init.normal_(parameter, std=0.1)
    encoder(images, ray_grid()).estimate.square().sum().backward()
    assert images.grad is not None
    assert (images.grad.abs().amax(dim=(0, 2, 3, 4)) > 0).all()


def test_denoiser_keeps_the_latent_shape_and_starts_at_zero():
    denoiser = Denoiser(
        DenoiserConfig(width=16, deep_width=16, num_blocks=1),
        latent_channels=3,
        condition_channels=5,
    )
    output = denoiser(torch.randn(2, 3, 8, 8, 8), torch.rand(2), torch.randn(2, 5, 8, 8, 8))
    assert output.shape == (2, 3, 8, 8, 8)
    assert output.abs().max() == 0.0


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="divisible"):
        DenoiserConfig(deep_width=10, num_heads=4)


def test_every_block_of_the_denoiser_is_told_the_time():
    config = DenoiserConfig(width=8, deep_width=8, num_blocks=1, num_heads=2)
    denoiser = Denoiser(config, latent_channels=2, condition_channels=3)
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    told = denoiser(torch.randn(1, 2, 4, 4, 4), torch.tensor([0.5]), torch.randn(1, 3, 4, 4, 4))
    told.square().sum().backward()
    blocks = [module for module in denoiser.modules() if isinstance(module, ResidualBlock)]
    assert len(blocks) == 4
    for block in blocks:
        assert block.modulation is not None
        assert block.modulation.weight.grad is not None
        assert block.modulation.weight.grad.abs().max() > 0
