"""The networks of the paper's sizes: published counts, shapes, and what replication must keep."""

import pytest
import torch

from fewview.inputs import GridConfig, ray_grid
from fewview.models.discriminator import DiscriminatorConfig, PatchDiscriminator
from fewview.models.ldm_autoencoder import LdmAutoencoder, LdmAutoencoderConfig
from fewview.models.progressive_encoder import ProgressiveEncoder, ProgressiveEncoderConfig
from fewview.models.replicate_encoder import ReplicateEncoder, ReplicateEncoderConfig
from fewview.models.replication import planes_along_rays, ray_axes
from fewview.models.unet import UnetDenoiser, UnetDenoiserConfig
from fewview.models.view_encoder import ViewEncoder, ViewEncoderConfig
from fewview.xray.geometry import cameras, preset

SMALL_LDM = LdmAutoencoderConfig(kind="ldm", width=8, multipliers=(1, 2, 2), num_blocks=1)
SMALL_REPLICATE = ReplicateEncoderConfig(kind="replicate", width=4, reduction=4)
SMALL_PROGRESSIVE = ProgressiveEncoderConfig(
    kind="progressive",
    width=8,
    multipliers=(1, 2, 2),
    num_blocks=1,
    slice_channels=4,
    codebook="none",
    condition_channels=4,
    decoder_width=8,
)
SMALL_UNET = UnetDenoiserConfig(
    kind="unet", width=8, multipliers=(1, 2), num_blocks=1, attention_levels=(0, 1)
)


def num_parameters(module: torch.nn.Module) -> int:
    return sum(value.numel() for value in module.parameters())


def rays_at(*angles_deg: float, size: int = 16, name: str = "parallel"):
    geometries = [preset(name, angle_deg=angle, size=32) for angle in angles_deg]
    batch = cameras(geometries, (0.0, 0.0, 0.0)).view(1, len(geometries))
    return ray_grid(batch, torch.zeros(1, 3), GridConfig(size=size))


def rays_of_cases(*angles_deg: tuple[float, ...], size: int = 16):
    """Rays of a batch whose cases have angles of their own."""
    flat = [angle for own in angles_deg for angle in own]
    geometries = [preset("parallel", angle_deg=angle, size=32) for angle in flat]
    batch = cameras(geometries, (0.0, 0.0, 0.0)).view(len(angles_deg), -1)
    return ray_grid(batch, torch.zeros(len(angles_deg), 3), GridConfig(size=size))


def still(module: torch.nn.Module) -> list[str]:
    """Weights without a gradient; a bias before a norm of its own channel may have none."""
    return [
        name
        for name, value in module.named_parameters()
        if value.grad is None or (value.ndim > 1 and not value.grad.abs().max() > 0)
    ]


def randomized(module: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(0)
    for value in module.parameters():
        torch.nn.init.normal_(value, std=0.2)
    return module


def test_the_autoencoder_has_the_published_size():
    with torch.device("meta"):
        autoencoder = LdmAutoencoder(LdmAutoencoderConfig(kind="ldm"))
    assert num_parameters(autoencoder) == 40_699_909
    assert num_parameters(autoencoder.encoder) == 16_270_056
    assert num_parameters(autoencoder.decoder) == 24_429_761


def test_the_view_encoder_has_the_published_size_without_the_unused_convolutions():
    with torch.device("meta"):
        encoder = ReplicateEncoder(ReplicateEncoderConfig(kind="replicate"), 128)
    assert num_parameters(encoder.lift) == 2_357
    # Published: 2,185,057, of which 22,000 in convolutions that are never called. Group norm has
    # as many weights as batch norm.
    assert num_parameters(encoder) - num_parameters(encoder.lift) == 2_185_057 - 22_000


def test_the_denoiser_has_the_published_size():
    with torch.device("meta"):
        denoiser = UnetDenoiser(
            UnetDenoiserConfig(kind="unet"), latent_channels=4, condition_channels=16
        )
    # Halving three axes instead of two costs no weights.
    assert num_parameters(denoiser) == 16_151_428


def test_the_volume_discriminator_has_the_published_size_without_batch_norm():
    with torch.device("meta"):
        discriminator = PatchDiscriminator(DiscriminatorConfig(), 1)
    # Published: 11,048,769, of which 2 x (128 + 256 + 512) in batch norms.
    assert num_parameters(discriminator) == 11_048_769 - 1_792


@pytest.mark.parametrize(
    ("levels", "fold", "channels", "ratio"),
    [(4, 1, 4, 128), (3, 1, 4, 16), (3, 1, 2, 32), (3, 2, 4, 128), (5, 1, 8, 512)],
)
def test_levels_and_channels_set_the_compression(levels, fold, channels, ratio):
    config = LdmAutoencoderConfig(
        kind="ldm", width=8, multipliers=(1,) * levels, fold=fold, latent_channels=channels
    )
    with torch.device("meta"):
        autoencoder = LdmAutoencoder(config)
        mean = autoencoder.encode(torch.empty(1, 1, 64, 64, 64)).mean
        assert autoencoder.decode(mean).shape == (1, 1, 64, 64, 64)
    assert mean.shape[2:] == (64 // config.reduction,) * 3
    assert 64**3 / mean.numel() == ratio


def test_every_weight_of_the_autoencoder_gets_a_gradient():
    autoencoder = randomized(LdmAutoencoder(SMALL_LDM))
    posterior = autoencoder.encode(torch.randn(1, 1, 16, 16, 16))
    volume = autoencoder.decode(posterior.mean)
    (volume.square().mean() + posterior.kl()).backward()
    assert not still(autoencoder)


@pytest.mark.parametrize("lifting", ["replicate", "channels"])
@pytest.mark.parametrize("angles", [(0.0,), (0.0, 90.0), (0.0, 60.0, 120.0)])
def test_every_weight_of_the_view_encoder_gets_a_gradient(lifting, angles):
    config = ReplicateEncoderConfig(kind="replicate", width=4, reduction=4, lifting=lifting)
    encoder = randomized(ReplicateEncoder(config, 16))
    encoding = encoder(torch.randn(1, len(angles), 2, 32, 32), rays_at(*angles))
    assert encoding.condition.shape == (1, 16, 4, 4, 4)
    assert encoding.estimate.shape == (1, 1, 16, 16, 16)
    (encoding.condition.square().mean() + encoding.estimate.square().mean()).backward()
    assert not still(encoder)


@torch.no_grad()
@pytest.mark.parametrize("encoder", [SMALL_REPLICATE, None], ids=["replicate", "rays"])
def test_the_condition_is_the_same_without_the_estimate(encoder):
    if encoder is None:
        small = ViewEncoderConfig(
            image_width=8, lifted_channels=4, width=8, deep_width=16, bottom_width=16, reduction=8
        )
        network = randomized(ViewEncoder(small))
    else:
        network = randomized(ReplicateEncoder(encoder, 16))
    images, rays = torch.randn(1, 2, 2, 32, 32), rays_at(0.0, 90.0)
    whole, short = (network(images, rays, with_estimate=flag) for flag in (True, False))
    assert torch.equal(whole.condition, short.condition)
    assert short.estimate.numel() == 0
    assert whole.condition.shape[2] == 16 // network.config.reduction


@pytest.mark.parametrize("reduction", [4, 8, 16])
def test_ray_true_lifting_serves_an_autoencoder_of_any_reduction(reduction):
    config = ViewEncoderConfig(
        image_width=8,
        lifted_channels=2,
        width=8,
        deep_width=8,
        bottom_width=8,
        num_blocks=1,
        detail_channels=3,
        reduction=reduction,
    )
    encoding = ViewEncoder(config)(torch.zeros(1, 1, 2, 32, 32), rays_at(0.0))
    assert encoding.condition.shape[2:] == encoding.detail.shape[2:] == (16 // reduction,) * 3


@torch.no_grad()
@pytest.mark.parametrize(("angle", "axis"), [(0.0, 1), (90.0, 2)])
def test_a_view_is_lifted_along_its_own_rays(angle, axis):
    """What one pixel says stays on the line of voxels that project to it."""
    encoder = randomized(ReplicateEncoder(SMALL_REPLICATE, 16))
    rays = rays_at(angle)
    images = torch.randn(1, 1, 2, 32, 32)
    voxel = (11, 4, 6)
    col, row = ((rays.position[(0, 0, *voxel)] + 1) * 16).long().tolist()
    changed = images.clone()
    changed[..., row - 1 : row + 2, col - 1 : col + 2] += 5.0
    moved = (encoder.lift_views(changed, rays) - encoder.lift_views(images, rays)).abs()[0, 0]
    across = moved.mean(dim=axis)
    line = [place for index, place in enumerate(voxel) if index != axis]
    found = torch.unravel_index(across.argmax(), across.shape)
    assert all(abs(int(a) - b) <= 1 for a, b in zip(found, line, strict=True))
    assert (moved.movedim(axis, -1)[tuple(line)] > 0).sum() >= 8  # ReLUs silence some slices


@torch.no_grad()
@pytest.mark.parametrize("kind", ["replicate", "progressive"])
def test_each_case_of_a_batch_is_lifted_along_its_own_rays(kind):
    """Also where its views come from elsewhere than those of the case before."""
    encoder = randomized(
        ReplicateEncoder(SMALL_REPLICATE, 16)
        if kind == "replicate"
        else ProgressiveEncoder(SMALL_PROGRESSIVE, 16)
    )
    angles = ((0.0, 90.0), (90.0, 0.0), (0.0, 90.0), (180.0, 60.0))
    images = torch.randn(len(angles), 2, 2, 32, 32)
    together = encoder(images, rays_of_cases(*angles))
    for case, own in enumerate(angles):
        alone = encoder(images[case : case + 1], rays_of_cases(own))
        for found, expected in zip(together, alone, strict=True):
            torch.testing.assert_close(found[case : case + 1], expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_cases_with_equal_axes_are_lifted_in_one_pass(monkeypatch):
    counts, make = [], torch.nn.functional.grid_sample
    monkeypatch.setattr(
        torch.nn.functional,
        "grid_sample",
        lambda image, *rest, **more: counts.append(len(image)) or make(image, *rest, **more),
    )
    images = torch.randn(3, 1, 1, 32, 32)
    planes_along_rays(images, rays_of_cases((2.0,), (-3.0,), (0.0,)))
    assert counts == [3]
    counts.clear()
    planes_along_rays(images, rays_of_cases((2.0,), (88.0,), (0.0,)))
    assert counts == [2, 1]


@torch.no_grad()
def test_a_view_from_the_other_side_mirrors_the_lifted_volume():
    encoder = randomized(ReplicateEncoder(SMALL_REPLICATE, 16))
    front, back = rays_at(180.0), rays_at(0.0)
    assert [one.backward for one in ray_axes(front) + ray_axes(back)] == [False, True]
    images = torch.randn(1, 1, 2, 32, 32)
    plane = planes_along_rays(images[:, :, :1], back)[0]
    mirrored = images.flip(-1)  # the same rays, seen from their other ends
    torch.testing.assert_close(planes_along_rays(mirrored[:, :, :1], front)[0], plane)
    lifted = encoder.lift_views(images, back)
    torch.testing.assert_close(encoder.lift_views(mirrored, front), lifted.flip(3))


def test_every_weight_of_the_denoiser_gets_a_gradient_and_it_starts_at_zero():
    denoiser = UnetDenoiser(SMALL_UNET, latent_channels=2, condition_channels=3)
    noisy, time, told = torch.randn(2, 2, 4, 4, 4), torch.rand(2), torch.randn(2, 3, 4, 4, 4)
    assert denoiser(noisy, time, told).abs().max() == 0.0
    output = randomized(denoiser)(noisy, time, told)
    assert output.shape == noisy.shape
    output.square().mean().backward()
    assert not still(denoiser)


@torch.no_grad()
def test_the_denoiser_treats_all_three_axes_alike():
    """With kernels that do not tell axes apart, turned input gives turned output."""
    denoiser = randomized(UnetDenoiser(SMALL_UNET, latent_channels=2, condition_channels=3))
    for part in denoiser.modules():
        if isinstance(part, torch.nn.Conv3d):
            part.weight.copy_(part.weight.mean(dim=(2, 3, 4), keepdim=True).expand_as(part.weight))
    noisy, time, told = torch.randn(1, 2, 4, 4, 4), torch.rand(1), torch.randn(1, 3, 4, 4, 4)
    turned = denoiser(noisy.transpose(2, 4), time, told.transpose(2, 4))
    torch.testing.assert_close(turned, denoiser(noisy, time, told).transpose(2, 4))


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (LdmAutoencoderConfig, {"multipliers": ()}, "at least one level"),
        (LdmAutoencoderConfig, {"width": 0}, "at least 1"),
        (ReplicateEncoderConfig, {"width": 0}, "at least 1"),
        (UnetDenoiserConfig, {"attention_levels": (4,)}, "0 to 3"),
        (UnetDenoiserConfig, {"head_channels": 12}, "divisible"),
    ],
)
def test_sizes_that_cannot_exist_are_refused(kind, settings, message):
    names = {LdmAutoencoderConfig: "ldm", ReplicateEncoderConfig: "replicate"}
    with pytest.raises(ValueError, match=message):
        kind(kind=names.get(kind, "unet"), **settings)
