"""A volume keeps every voxel at its place in the patient."""

from itertools import permutations, product

import numpy as np
import pytest

from fewview.data.volume import Grid, Volume, cubic_grid, resample, scanned, to_patient_axes

ORIENTATIONS = list(product(permutations(range(3)), product((1.0, -1.0), repeat=3)))


def ramp(grid: Grid) -> Volume:
    """A volume whose value at LPS (x, y, z) is x + 2 y + 3 z, in mm."""
    indices = np.stack(np.indices(grid.shape)[::-1], axis=-1).astype(float)
    points = indices @ grid.voxel_to_patient[:3, :3].T + grid.voxel_to_patient[:3, 3]
    return Volume((points @ [1.0, 2.0, 3.0]).astype(np.float32), grid.voxel_to_patient)


def turned(angle_deg: float) -> np.ndarray:
    """A rotation about z with some spacing and offset."""
    c, s = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    matrix = np.array([[c, -s, 0, -30], [s, c, 0, 20], [0, 0, 1, 5], [0, 0, 0, 1.0]])
    return matrix @ np.diag([1.5, 1.0, 2.5, 1.0])


def test_center_is_the_middle_of_the_voxel_extent():
    volume = Volume(np.zeros((2, 3, 4), np.float32), np.diag([3.0, 2.0, 1.0, 1.0]))
    np.testing.assert_allclose(volume.center_mm, [4.5, 2.0, 0.5])
    assert volume.spacing_mm == (1.0, 2.0, 3.0)


def test_cubic_grid_lies_around_its_center():
    grid = cubic_grid(np.array([10.0, -20.0, 30.0]), size=5, extent_mm=100.0)
    np.testing.assert_allclose(grid.center_mm, [10.0, -20.0, 30.0])
    assert grid.spacing_mm == (20.0, 20.0, 20.0)


def test_resampling_to_the_own_grid_or_a_crop_changes_no_value():
    rng = np.random.default_rng(0)
    volume = Volume(rng.normal(size=(6, 7, 8)).astype(np.float32), turned(0.0))
    assert np.array_equal(resample(volume, volume.grid).hu, volume.hu)
    crop = volume.voxel_to_patient.copy()
    crop[:3, 3] = (volume.voxel_to_patient @ [1.0, 2.0, 3.0, 1.0])[:3]
    found = resample(volume, Grid((2, 3, 4), crop))
    assert np.array_equal(found.hu, volume.hu[3:5, 2:5, 1:5])


@pytest.mark.parametrize("angle_deg", [0.0, 25.0, 180.0])
@pytest.mark.parametrize("spacing_mm", [0.7, 4.0])
def test_a_ramp_in_mm_stays_a_ramp_in_mm(angle_deg, spacing_mm):
    volume = ramp(Grid((40, 60, 50), turned(angle_deg)))
    grid = cubic_grid(volume.center_mm, size=5, extent_mm=5 * spacing_mm)
    np.testing.assert_allclose(resample(volume, grid).hu, ramp(grid).hu, atol=0.01)


def test_a_marker_stays_at_its_place_and_keeps_its_mass():
    hu = np.zeros((40, 40, 40), np.float32)
    hu[30, 10, 20] = 1000.0
    volume = Volume(hu, np.diag([2.0, 2.0, 2.0, 1.0]))
    found = resample(volume, cubic_grid(volume.center_mm, size=20, extent_mm=80.0), outside_hu=0.0)
    points = np.stack(np.indices(found.shape)[::-1], -1) @ np.diag([4.0] * 3)
    points = points + found.voxel_to_patient[:3, 3]
    center = np.average(points.reshape(-1, 3), axis=0, weights=found.hu.ravel())
    np.testing.assert_allclose(center, [40.0, 20.0, 60.0], atol=0.3)
    np.testing.assert_allclose(found.hu.sum() * 4.0**3, 1000.0 * 2.0**3, rtol=0.02)


def test_detail_too_fine_for_the_grid_becomes_its_mean_not_a_pattern():
    hu = np.zeros((64, 64, 64), np.float32)
    hu[:, :, ::2] = 1000.0
    volume = Volume(hu, np.eye(4))
    found = resample(volume, cubic_grid(volume.center_mm + 0.3, size=10, extent_mm=40.0))
    np.testing.assert_allclose(found.hu, 500.0, atol=5.0)


def test_turned_and_parallel_grids_are_blurred_alike():
    rng = np.random.default_rng(1)
    volume = Volume(rng.normal(size=(30, 30, 30)).astype(np.float32), np.eye(4))
    grid = cubic_grid(volume.center_mm, size=5, extent_mm=15.0)
    tilt = np.eye(4)
    tilt[0, 1] = 1e-3  # enough to take the other path
    found = resample(volume, Grid(grid.shape, grid.voxel_to_patient @ tilt))
    np.testing.assert_allclose(found.hu, resample(volume, grid).hu, atol=0.02)


def test_outside_the_scan_is_air_and_is_told():
    volume = Volume(np.zeros((4, 4, 4), np.float32), np.eye(4))
    grid = cubic_grid(volume.center_mm, size=6, extent_mm=6.0)
    inside = scanned(volume, grid)
    assert inside[1:5, 1:5, 1:5].all()
    assert inside.sum() == 4**3
    assert (resample(volume, grid, outside_hu=-1000.0).hu[~inside] == -1000.0).all()


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_all_48_orientations_are_turned_without_moving_a_voxel(order, signs):
    oblique = turned(20.0)
    oblique[:3, :3] = (oblique[:3, :3] * signs)[:, order]
    volume = ramp(Grid((3, 4, 5), oblique))
    array, matrix = to_patient_axes(volume.hu, volume.voxel_to_patient)
    assert (np.diag(matrix)[:3] > 0.9).all()
    np.testing.assert_allclose(array, ramp(Grid(array.shape, matrix)).hu, atol=1e-3)
    assert sorted(array.ravel()) == sorted(volume.hu.ravel())


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.diag([1.0, 0.0, 1.0, 1.0]), "flat"),
        (np.full((4, 4), np.nan), "finite"),
        (np.diag([1.0, 1.0, 1.0, 2.0]), "last row"),
    ],
)
def test_a_matrix_that_places_no_voxels_is_refused(matrix, message):
    with pytest.raises(ValueError, match=message):
        Volume(np.zeros((2, 2, 2), np.float32), matrix)


def test_grids_without_voxels_are_refused():
    with pytest.raises(ValueError, match="at least one voxel"):
        Grid((0, 2, 2), np.eye(4))
    with pytest.raises(ValueError, match="extent_mm"):
        cubic_grid(np.zeros(3), size=4, extent_mm=0.0)
