"""Lifting follows the projector; windows and image kinds."""

import pytest
import torch

from fewview import config
from fewview.models.lifting import lift
from fewview.system import GridConfig, SystemConfig, build_networks, network_images, ray_grid
from fewview.xray.geometry import cameras, preset, stack_cameras
from fewview.xray.projector import project

GRID = GridConfig(size=32, extent_mm=400.0)


def marker(voxel: tuple[int, int, int]) -> torch.Tensor:
    mu = torch.zeros(1, 1, 32, 32, 32)
    mu[(0, 0, *voxel)] = 1.0
    return mu


def views(*angles: float, name: str = "chest"):
    return stack_cameras(
        [cameras([preset(name, angle_deg=angle, size=64) for angle in angles], (0.0, 0.0, 0.0))]
    )


def grid_matrix() -> torch.Tensor:
    matrix = torch.diag(torch.tensor([12.5, 12.5, 12.5, 1.0]))
    matrix[:3, 3] = -12.5 * 15.5
    return matrix[None]


def test_a_voxel_lifts_the_pixels_that_its_own_rays_hit():
    voxel = (20, 9, 25)
    for name in ("chest", "parallel"):
        both = views(0.0, 70.0, name=name)
        images = project(marker(voxel), grid_matrix(), both)
        lifted = lift(images[:, :, None], ray_grid(both, torch.zeros(1, 3), GRID))
        for view in range(2):
            seen = lifted[(0, view, 0, *voxel)]
            assert seen > 0.5 * images[0, view].max()
        together = lifted[0, :, 0].amin(dim=0)
        assert divmod(int(together.argmax()), 32 * 32)[0] == voxel[0]
        assert tuple(torch.unravel_index(together.argmax(), together.shape)) == voxel


def test_rays_are_unit_vectors_that_leave_the_source():
    rays = ray_grid(views(0.0), torch.zeros(1, 3), GRID).ray[0, 0]
    torch.testing.assert_close(rays[:3].norm(dim=0), torch.ones(32, 32, 32))
    assert (rays[1] < 0).all()  # PA: from behind the patient to the front, toward -y
    assert rays[3, 0, 0, 0] > rays[3, 0, -1, 0]  # the front is nearer to the detector


def test_the_grid_moves_with_its_center():
    first = ray_grid(views(0.0), torch.zeros(1, 3), GRID).position
    moved = ray_grid(views(0.0), torch.tensor([[12.5, 0.0, 0.0]]), GRID).position
    torch.testing.assert_close(moved[..., :-1, :], first[..., 1:, :])


def test_hu_survive_the_window_and_back():
    hu = torch.tensor([-1000.0, -850.0, 0.0, 40.0, 1500.0])
    torch.testing.assert_close(GRID.to_hu(GRID.to_unit(hu)), hu, atol=1e-3, rtol=0)
    assert GRID.to_unit(torch.tensor(3000.0)) == 1.0


def test_display_images_are_standardized_and_line_integrals_are_not():
    images = torch.rand(2, 1, 8, 8) * 5 + 2
    calibrated, display = network_images(images, [True, False])
    torch.testing.assert_close(calibrated[0], images[0, 0] / 4 - 1)
    assert abs(display[0].mean()) < 1e-5
    assert calibrated[1].min() == 1.0
    assert display[1].max() == 0.0


CLSDM = """
name = "tiny"
diffusion_target = "latent"
condition = "views"
[grid]
size = 16
[autoencoder]
kind = "ldm"
width = 8
multipliers = [1, 1, 1]
num_blocks = 1
[view_encoder]
kind = "replicate"
width = 4
reduction = 4
[denoiser]
kind = "unet"
width = 8
multipliers = [1, 1]
attention_levels = [1]
num_blocks = 1
"""


def test_every_part_is_built_by_its_kind_and_by_todays_without_one():
    system = config.parse(CLSDM, SystemConfig)
    names = [type(part).__name__ for part in build_networks(system).modules().values()]
    assert names == ["LdmAutoencoder", "ReplicateEncoder", "Projector", "UnetDenoiser"]
    old = 'name = "old"\n[autoencoder]\nwidth = 8\n[view_encoder]\nwidth = 8\n[denoiser]\nwidth = 8'
    names = [
        type(part).__name__
        for part in build_networks(config.parse(old, SystemConfig)).modules().values()
    ]
    assert names == ["Autoencoder", "ViewEncoder", "Projector", "Denoiser"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("multipliers = [1, 1, 1]\nnum", "multipliers = [1, 1]\nnum", "1/2 .* 1/4 .* must agree"),
        ("multipliers = [1, 1]\natt", "multipliers = [1, 1, 1, 1]\natt", "grid.size .* of 32"),
        ("[denoiser]", "detail_channels = 4\n[denoiser]", "view_encoder.detail_channels"),
        ("[view_encoder]", "num_levels = 3\n[view_encoder]", "autoencoder.num_levels"),
        ('"ldm"\nwidth = 8', '"ldm"\nwidth = "8"', "autoencoder.ldm.width: "),
    ],
)
def test_parts_that_do_not_fit_are_refused_in_one_line(old, new, message):
    assert old in CLSDM
    with pytest.raises(ValueError, match=message) as caught:
        config.parse(CLSDM.replace(old, new, 1), SystemConfig)
    assert "\n" not in str(caught.value)
