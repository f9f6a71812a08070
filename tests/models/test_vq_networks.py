"""XctDiff's networks: published sizes, codes between encoder and decoder, depth from channels."""

import pytest
import torch

from fewview.inputs import GridConfig, ray_grid
from fewview.models.codebook import Codebook
from fewview.models.discriminator import DiscriminatorConfig, PatchDiscriminator
from fewview.models.progressive_encoder import ProgressiveEncoder, ProgressiveEncoderConfig
from fewview.models.replication import planes_along_rays, ray_axes
from fewview.models.vq_autoencoder import VqAutoencoder, VqAutoencoderConfig
from fewview.system import SystemConfig, build_networks
from fewview.xray.geometry import cameras, preset

SMALL_VQ = VqAutoencoderConfig(
    kind="vq", width=8, multipliers=(1, 2), num_blocks=1, num_codes=32, latent_channels=4
)
SMALL = ProgressiveEncoderConfig(
    kind="progressive",
    width=8,
    multipliers=(1, 2),
    num_blocks=1,
    slice_channels=4,
    num_codes=32,
    condition_channels=4,
    decoder_width=8,
)


def num_parameters(module: torch.nn.Module) -> int:
    return sum(value.numel() for value in module.parameters())


def rays_at(*angles_deg: float, size: int = 16):
    geometries = [preset("parallel", angle_deg=angle, size=32) for angle in angles_deg]
    batch = cameras(geometries, (0.0, 0.0, 0.0)).view(1, len(geometries))
    return ray_grid(batch, torch.zeros(1, 3), GridConfig(size=size))


def randomized(module: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(0)
    for value in module.parameters():
        torch.nn.init.normal_(value, std=0.2)
    return module


def still(module: torch.nn.Module) -> list[str]:
    """Weights without a gradient; a bias before a norm of its own channel may have none."""
    return [
        name
        for name, value in module.named_parameters()
        if value.grad is None or (value.ndim > 1 and not value.grad.abs().max() > 0)
    ]


def test_the_autoencoder_has_the_published_size_and_latent():
    with torch.device("meta"):
        autoencoder = VqAutoencoder(VqAutoencoderConfig(kind="vq"))
        latent = autoencoder.encode(torch.empty(1, 1, 128, 128, 128)).mean
        assert autoencoder.decode(latent).shape == (1, 1, 128, 128, 128)
    assert latent.shape == (1, 8, 32, 32, 32)
    assert num_parameters(autoencoder.encoder) == 2_114_916 + 40
    assert num_parameters(autoencoder.decoder) == 5_201_153 + 36
    assert num_parameters(autoencoder) == 7_381_681


def test_the_view_encoder_has_the_published_size():
    with torch.device("meta"):
        encoder = ProgressiveEncoder(ProgressiveEncoderConfig(kind="progressive"), 128)
    assert num_parameters(encoder) == 17_744_857
    kept = num_parameters(encoder) - num_parameters(encoder.estimate_head) - 8192 * 8
    assert kept == 17_207_264 + 136


def test_the_slice_discriminator_has_the_published_size_without_batch_norm():
    with torch.device("meta"):
        discriminator = PatchDiscriminator(DiscriminatorConfig(), 1, dims=2)
        assert discriminator(torch.empty(2, 1, 64, 64)).shape[:2] == (2, 1)
    assert num_parameters(discriminator) == 2_763_585 - 2 * (128 + 256 + 512)


@pytest.mark.parametrize("fold", [1, 2])
def test_every_weight_of_the_autoencoder_gets_a_gradient(fold):
    autoencoder = randomized(
        VqAutoencoder(VqAutoencoderConfig(kind="vq", width=8, num_blocks=1, num_codes=8, fold=fold))
    )
    latent = autoencoder.encode(torch.randn(1, 1, 16, 16, 16)).mean
    codes = autoencoder.codebook(latent)
    restored = autoencoder.decode_codes(codes.latent)
    assert restored.shape == (1, 1, 16, 16, 16)
    (restored.square().mean() + codes.codes.square().mean()).backward()
    assert not still(autoencoder)


@torch.no_grad()
def test_what_is_decoded_are_codes():
    autoencoder = randomized(VqAutoencoder(SMALL_VQ)).eval()
    latent = torch.randn(1, 4, 4, 4, 4)
    codes = autoencoder.codebook(latent)
    moved = codes.latent + 1e-3 * torch.randn_like(latent)
    assert torch.equal(autoencoder.codebook(moved).indices, codes.indices)
    torch.testing.assert_close(autoencoder.decode(moved), autoencoder.decode(latent))


@pytest.mark.parametrize("codebook", ["own", "none"])
@pytest.mark.parametrize("lifting", ["progressive", "copies"])
@pytest.mark.parametrize("angles", [(0.0,), (0.0, 90.0)])
def test_every_weight_of_the_view_encoder_gets_a_gradient(codebook, lifting, angles):
    config = ProgressiveEncoderConfig(
        **{**vars(SMALL), "codebook": codebook, "lifting": lifting, "num_codes": 2}
    )
    encoder = randomized(ProgressiveEncoder(config, 16))
    encoding = encoder(torch.randn(1, len(angles), 2, 32, 32), rays_at(*angles))
    assert encoding.condition.shape == (1, 4, 8, 8, 8)
    assert encoding.estimate.shape == (1, 1, 16, 16, 16)
    loss = encoding.estimate.square().mean()
    if encoder.codebook is not None:
        loss = loss + encoder.codebook(encoding.condition).codes.square().mean()
    loss.backward()
    assert not still(encoder)


@torch.no_grad()
def test_the_condition_is_the_same_without_the_estimate():
    encoder = randomized(ProgressiveEncoder(SMALL, 16)).eval()
    images, rays = torch.randn(1, 1, 2, 32, 32), rays_at(0.0)
    whole, short = (encoder(images, rays, with_estimate=flag) for flag in (True, False))
    assert torch.equal(whole.condition, short.condition)
    assert short.estimate.numel() == 0


@torch.no_grad()
@pytest.mark.parametrize(("angle", "axis"), [(0.0, 1), (90.0, 2)])
def test_depth_lies_along_a_views_own_rays(angle, axis):
    """Slices that differ from each other only along the rays, where the image is uniform."""
    encoder = randomized(ProgressiveEncoder(SMALL, 16))
    for part in encoder.planes.modules():  # kernels of one pixel: no borders
        if isinstance(part, torch.nn.Conv2d) and part.kernel_size == (3, 3):
            part.weight[:, :, [0, 0, 0, 1, 1, 2, 2, 2], [0, 1, 2, 0, 2, 0, 1, 2]] = 0.0
    lifted = encoder.lift_views(torch.full((1, 1, 2, 32, 32), 0.7), rays_at(angle))
    spread = [lifted.std(dim=2 + one).amax().item() for one in range(3)]
    assert spread[axis] > 0.01
    assert all(spread[one] < 1e-5 for one in range(3) if one != axis)


@torch.no_grad()
def test_a_view_from_the_other_side_mirrors_the_lifted_volume():
    encoder = randomized(ProgressiveEncoder(SMALL, 16))
    front, back = rays_at(180.0), rays_at(0.0)
    assert [one.backward for one in ray_axes(front) + ray_axes(back)] == [False, True]
    images = torch.randn(1, 1, 2, 32, 32)
    plane = planes_along_rays(images[:, :, :1], back)[0]
    mirrored = images.flip(-1)
    torch.testing.assert_close(planes_along_rays(mirrored[:, :, :1], front)[0], plane)
    lifted = encoder.lift_views(images, back)
    torch.testing.assert_close(encoder.lift_views(mirrored, front), lifted.flip(3))


def test_a_shared_codebook_is_the_autoencoders_own_object():
    config = {**vars(SMALL), "codebook": "shared"}
    system = SystemConfig(
        name="shared",
        grid=GridConfig(size=16),
        autoencoder=SMALL_VQ,
        view_encoder=ProgressiveEncoderConfig(**config),
    )
    networks = build_networks(system)
    assert isinstance(networks.view_encoder.codebook, Codebook)
    assert networks.view_encoder.codebook is networks.autoencoder.codebook


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, 'kind "vq"'),
        ({"autoencoder": VqAutoencoderConfig(kind="vq", multipliers=(1, 2))}, "as many"),
    ],
)
def test_a_codebook_that_cannot_be_shared_is_refused(parts, message):
    levels = (1, 2) if parts else (1, 2, 4)
    encoder = ProgressiveEncoderConfig(
        **{**vars(SMALL), "codebook": "shared", "multipliers": levels}
    )
    with pytest.raises(ValueError, match=message):
        SystemConfig(name="unfit", grid=GridConfig(size=16), view_encoder=encoder, **parts)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (VqAutoencoderConfig, {"multipliers": ()}, "at least one level"),
        (VqAutoencoderConfig, {"width": 0}, "at least 1"),
        (VqAutoencoderConfig, {"num_codes": 1}, "at least 2"),
        (ProgressiveEncoderConfig, {"multipliers": ()}, "at least one level"),
        (ProgressiveEncoderConfig, {"slice_channels": 0}, "at least 1"),
        (ProgressiveEncoderConfig, {"decoder_width": 2}, "at least 4"),
    ],
)
def test_sizes_that_cannot_exist_are_refused(kind, settings, message):
    name = "vq" if kind is VqAutoencoderConfig else "progressive"
    with pytest.raises(ValueError, match=message):
        kind(kind=name, **settings)
