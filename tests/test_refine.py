"""Projection consistency and posterior statistics."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fewview.data.volume import Volume, cubic_grid
from fewview.refine import (
    calibrated_views,
    explainable_rays,
    make_consistent,
    posterior_mean_std,
)
from fewview.xray.geometry import preset, spread_angles
from fewview.xray.views import Views, drr

SIZE, EXTENT_MM = 24, 240.0
CENTER_MM = np.array([10.0, -20.0, 300.0])


def body(*, bottom: int = 4, heart_hu: float = 50.0) -> Volume:
    """A box of soft tissue with a heart in it, from slice `bottom` to slice 20."""
    grid = cubic_grid(CENTER_MM, size=SIZE, extent_mm=EXTENT_MM)
    hu = np.full(grid.shape, -1000.0, dtype=np.float32)
    hu[bottom:20, 5:19, 4:20] = 0.0
    hu[9:15, 8:14, 12:17] = heart_hu
    return Volume(hu, grid.voxel_to_patient)


def two_views(volume: Volume) -> Views:
    geometries = [preset("chest", angle_deg=angle, size=48) for angle in spread_angles(2)]
    return drr(volume, geometries, isocenter_mm=tuple(CENTER_MM))


def misfit(volume: Volume, views: Views) -> float:
    again = drr(volume, views.geometries, isocenter_mm=views.isocenter_mm).images
    return float((again - views.images).square().mean().sqrt())


def test_the_truth_stays_as_it_is():
    truth = body()
    refined = make_consistent(truth, two_views(truth), num_steps=5)
    np.testing.assert_allclose(refined.hu, truth.hu, atol=0.05)


def test_a_wrong_volume_comes_closer_to_its_views_and_to_the_truth():
    truth, wrong = body(), body(heart_hu=-700.0)
    views = two_views(truth)
    refined = make_consistent(wrong, views, num_steps=10)
    assert misfit(refined, views) < 0.2 * misfit(wrong, views)
    error_before = np.square(wrong.hu - truth.hu).mean()
    assert np.square(refined.hu - truth.hu).mean() < 0.7 * error_before
    assert refined.hu.min() >= -1000.01


def test_what_no_ray_crosses_is_unchanged():
    truth, wrong = body(), body(heart_hu=-700.0)
    wrong.hu[0] = -1020.0  # below air, which attenuation cannot tell from air
    narrow = replace(preset("chest", size=24), num_rows=6)  # a slit across the heart
    views = drr(truth, [narrow], isocenter_mm=tuple(CENTER_MM))
    refined = make_consistent(wrong, views, num_steps=5)
    np.testing.assert_array_equal(refined.hu[:4], wrong.hu[:4])
    assert not np.array_equal(refined.hu[9:15], wrong.hu[9:15])


def test_tissue_outside_the_grid_is_not_smeared_into_it():
    whole = np.pad(body(bottom=0).hu, ((24, 0), (0, 0), (0, 0)), constant_values=-1000.0)
    whole[:24, 5:19, 4:20] = 400.0  # a dense belly below the grid
    matrix = body().voxel_to_patient.copy()
    matrix[2, 3] -= EXTENT_MM
    views = two_views(Volume(whole, matrix))
    inside = body(bottom=0)
    assert explainable_rays(inside, views).mean() < 1.0
    refined = make_consistent(inside, views, num_steps=10)
    assert np.abs(refined.hu - inside.hu).mean() < 1.0
    assert np.abs(refined.hu - inside.hu)[1:].max() < 30.0


def test_a_body_that_ends_inside_the_grid_uses_every_ray():
    assert explainable_rays(body(), two_views(body())).min() == 1.0


def test_no_steps_and_no_calibrated_view_change_nothing():
    volume = body()
    views = two_views(body(heart_hu=0.0))
    assert make_consistent(volume, views, num_steps=0) is volume
    styled = replace(views, calibrated=(False, False))
    assert calibrated_views(styled) is None
    assert make_consistent(volume, styled, num_steps=3) is volume


def test_only_calibrated_views_are_used():
    views = two_views(body())
    mixed = replace(views, calibrated=(False, True))
    chosen = calibrated_views(mixed)
    assert chosen is not None
    assert chosen.geometries == views.geometries[1:]
    torch.testing.assert_close(chosen.images, views.images[1:])


def test_negative_steps_are_refused():
    with pytest.raises(ValueError, match="num_steps"):
        make_consistent(body(), two_views(body()), num_steps=-1)


def test_the_posterior_is_summarized_voxel_by_voxel():
    grid = cubic_grid(np.zeros(3), size=2, extent_mm=20.0)
    samples = [
        Volume(np.full(grid.shape, value, np.float32), grid.voxel_to_patient)
        for value in (0.0, 30.0, 60.0)
    ]
    mean, std = posterior_mean_std(samples)
    np.testing.assert_allclose(mean.hu, 30.0)
    np.testing.assert_allclose(std.hu, 30.0)


def test_samples_of_two_grids_and_single_samples_are_refused():
    first = body()
    moved = first.voxel_to_patient.copy()
    moved[0, 3] += 1.0
    with pytest.raises(ValueError, match="another grid"):
        posterior_mean_std([first, Volume(first.hu, moved)])
    with pytest.raises(ValueError, match="at least 2"):
        posterior_mean_std([first])
