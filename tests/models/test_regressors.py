"""Networks of the learned baselines: published sizes, geometry, and what they do not depend on."""

import pytest
import torch

from fewview.inputs import GridConfig, ray_grid
from fewview.models.discriminator import DiscriminatorConfig, PatchDiscriminator
from fewview.models.implicit import Implicit, ImplicitConfig
from fewview.models.lifting import RayGrid, coarser
from fewview.models.replication import central_images, replicate
from fewview.models.x2ct import X2ct, X2ctConfig
from fewview.xray.geometry import cameras, preset

SMALL_X2CT = {"stem": 8, "growth": 4, "layers": (1, 2, 1), "channels": (4, 4, 8, 8)}
SMALL_INR = {"image_widths": (4, 4, 8, 8), "features": 8, "num_blocks": 1, "num_head_layers": 1}


def num_parameters(module: torch.nn.Module) -> int:
    return sum(value.numel() for value in module.parameters())


def rays_at(*angles_deg: float, size: int = 16, name: str = "parallel") -> RayGrid:
    geometries = [preset(name, angle_deg=angle, size=32) for angle in angles_deg]
    batch = cameras(geometries, (0.0, 0.0, 0.0)).view(1, len(geometries))
    return ray_grid(batch, torch.zeros(1, 3), GridConfig(size=size))


def images_of(num_views: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(1, num_views, 2, 32, 32, generator=torch.Generator().manual_seed(seed))


@pytest.mark.slow
@pytest.mark.parametrize(("num_views", "expected"), [(2, 61_715_633), (1, 29_384_481)])
def test_the_x2ct_generator_has_the_published_size(num_views, expected):
    assert num_parameters(X2ct(X2ctConfig(num_views=num_views), 128)) == expected


def test_the_other_baselines_have_their_published_sizes():
    assert num_parameters(Implicit(ImplicitConfig(network_per_view=True))) == 20_484_801
    assert num_parameters(PatchDiscriminator(DiscriminatorConfig(), 3)) == 11_055_169
    assert num_parameters(PatchDiscriminator(DiscriminatorConfig(), 2)) == 11_051_073


def test_the_discriminator_judges_overlapping_patches():
    discriminator = PatchDiscriminator(DiscriminatorConfig(width=4), 3)
    logits = discriminator(torch.zeros(1, 1, 64, 64, 64), torch.zeros(1, 2, 64, 64, 64))
    assert logits.shape == (1, 1, 11, 11, 11)


@pytest.mark.parametrize(
    ("settings", "angles"),
    [
        ({"num_views": 2}, (0.0, 90.0)),
        ({"num_views": 1}, (0.0,)),
        ({"lifting": "rays"}, (0.0, 45.0, 90.0)),
    ],
)
def test_every_weight_of_the_generator_gets_a_gradient(settings, angles):
    torch.manual_seed(0)
    network = X2ct(X2ctConfig(**SMALL_X2CT, dropout=0.0, **settings), 16)
    volume = network(images_of(len(angles)), rays_at(*angles))
    assert volume.shape == (1, 1, 16, 16, 16)
    volume.square().mean().backward()
    # An instance norm takes away what a bias before it adds, so biases may stay unmoved.
    still = [
        name
        for name, value in network.named_parameters()
        if value.grad is None or (value.ndim > 1 and not value.grad.abs().max() > 0)
    ]
    assert not still


def test_the_generator_does_not_see_gain_or_offset_of_an_image():
    torch.manual_seed(0)
    network = X2ct(X2ctConfig(**SMALL_X2CT), 16).eval()
    images, rays = images_of(2), rays_at(0.0, 90.0)
    moved = images.clone()
    moved[:, :, 0] = 100.0 * moved[:, :, 0] - 40.0
    other = images_of(2, seed=1)
    with torch.no_grad():
        base, same, far = (network(one, rays) for one in (images, moved, other))
    assert (same - base).abs().max() < 0.01 * (far - base).abs().max()


def test_replicated_images_stand_where_the_rays_pass():
    size = 16
    images = images_of(2)
    rays = rays_at(0.0, 90.0, size=size)
    planes, axes = central_images(images[:, :, :1], rays, 2)
    assert axes == [1, 2]
    lifted = [replicate(planes[:, view], axis) for view, axis in enumerate(axes)]
    # Parallel rays run along the axes, so every voxel sees what replication copies to it.
    for view, one in enumerate(lifted):
        seen = torch.nn.functional.grid_sample(
            images[:, view, :1],
            rays.position[:, view].reshape(1, size * size, size, 2),
            align_corners=False,
        ).reshape(1, 1, size, size, size)
        torch.testing.assert_close(one, seen, atol=1e-4, rtol=1e-4)


def test_views_are_sorted_into_frontal_and_lateral():
    images = images_of(2)
    there = central_images(images[:, :, :1], rays_at(0.0, 90.0), 2)
    swapped = central_images(images.flip(1)[:, :, :1], rays_at(90.0, 0.0), 2)
    torch.testing.assert_close(there[0], swapped[0])


def test_views_of_each_case_are_sorted_by_its_own_rays():
    images, both = images_of(2), (rays_at(0.0, 90.0), rays_at(90.0, 0.0))
    together = RayGrid(
        torch.cat([rays.position for rays in both]), torch.cat([rays.ray for rays in both])
    )
    planes, _ = central_images(torch.cat([images, images.flip(1)])[:, :, :1], together, 2)
    torch.testing.assert_close(planes[1], planes[0])


@pytest.mark.parametrize(("angles", "num_views"), [((0.0, 20.0), 2), ((90.0,), 1), ((0.0,), 2)])
def test_views_a_replicating_generator_cannot_take_are_refused(angles, num_views):
    with pytest.raises(ValueError, match="frontal"):
        central_images(images_of(len(angles))[:, :, :1], rays_at(*angles), num_views)


def test_a_grid_that_cannot_be_halved_is_refused():
    with pytest.raises(ValueError, match="fewer layers"):
        X2ct(X2ctConfig(**SMALL_X2CT), 12)


def test_coarser_rays_pass_the_middle_of_eight_voxels():
    rays = rays_at(30.0, name="chest")
    half = coarser(rays, 2)
    middle = rays.position[:, :, 4:6, 6:8, 8:10].mean(dim=(2, 3, 4))
    torch.testing.assert_close(half.position[:, :, 2, 3, 4], middle)
    assert half.ray.shape == (1, 1, 4, 8, 8, 8)
    assert coarser(rays, 1) is rays


@torch.no_grad()
def test_chosen_voxels_equal_those_of_the_whole_volume():
    torch.manual_seed(0)
    network = Implicit(ImplicitConfig(**SMALL_INR))
    images, rays = images_of(2), rays_at(0.0, 90.0, name="chest")
    voxels = torch.tensor([0, 77, 4095, 1234])
    whole = network(images, rays).flatten(1)
    torch.testing.assert_close(network.at(images, rays, voxels), whole[:, voxels])


@torch.no_grad()
def test_a_voxel_depends_only_on_its_own_pixels_features():
    torch.manual_seed(0)
    network = Implicit(ImplicitConfig(**SMALL_INR))
    rays = rays_at(0.0)
    features = network.features_of(images_of(1))
    changed = features.clone()
    changed[..., :16, :] += 1.0  # the upper half of the image
    difference = [
        network._at(f, rays, torch.arange(16**3)).reshape(16, 16, 16) for f in (features, changed)
    ]
    moved = (difference[0] - difference[1]).abs().amax(dim=(1, 2)) > 0
    assert moved[9:].all()
    assert not moved[:7].any()  # the lower half of the patient


@torch.no_grad()
def test_the_implicit_network_sees_gain_and_does_not_see_views_that_miss():
    torch.manual_seed(0)
    network = Implicit(ImplicitConfig(**SMALL_INR))
    images, rays = images_of(2), rays_at(0.0, 90.0)
    assert not torch.allclose(network(images, rays), network(3.0 * images, rays))
    gone = RayGrid(rays.position.clone(), rays.ray)
    gone.position[:, 1] = 5.0
    alone = network(images[:, :1], rays.view(0))
    torch.testing.assert_close(network(images, gone), alone)


@torch.no_grad()
def test_one_network_for_all_views_does_not_care_about_their_order():
    torch.manual_seed(0)
    network = Implicit(ImplicitConfig(**SMALL_INR))
    images = images_of(3)
    there = network(images, rays_at(0.0, 60.0, 120.0))
    back = network(images.flip(1), rays_at(120.0, 60.0, 0.0))
    torch.testing.assert_close(there, back, atol=1e-5, rtol=1e-4)


def test_networks_per_view_take_two_views_only():
    network = Implicit(ImplicitConfig(**SMALL_INR, network_per_view=True))
    with pytest.raises(ValueError, match="takes 2 views, got 1"):
        network(images_of(1), rays_at(0.0))
