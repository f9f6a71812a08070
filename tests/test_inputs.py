"""The model grid's window, and the rays and images that networks are given."""

import torch

from fewview.inputs import GridConfig, network_images, ray_grid
from fewview.models.lifting import lift
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
