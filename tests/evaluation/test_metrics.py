"""Every measure against its definition."""

import math

import numpy as np
import pytest

from fewview.data.volume import Volume, cubic_grid
from fewview.evaluation import metrics
from fewview.evaluation.ssim import ssim3d
from fewview.xray.geometry import preset
from fewview.xray.views import drr


def chest_like(seed: int, shape: tuple[int, int, int] = (18, 20, 22)) -> np.ndarray:
    generator = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    body = np.where((x / 0.9) ** 2 + (y / 0.7) ** 2 < 1, 40.0, -1000.0) + 600.0 * (z > 0.8)
    return (body + generator.normal(0.0, 80.0, shape)).astype(np.float32)


def test_a_volume_equals_itself():
    hu = chest_like(0)
    assert metrics.psnr(hu, hu, data_range=2500.0) == math.inf
    assert ssim3d(hu, hu, data_range=2500.0) == pytest.approx(1.0, abs=1e-12)
    assert metrics.cosine(hu, hu) == pytest.approx(1.0, abs=1e-12)
    assert metrics.mae(hu, hu) == metrics.rmse(hu, hu) == metrics.bias(hu, hu) == 0.0
    assert metrics.bone_dice(hu, hu) == 1.0
    assert metrics.power_spectrum_ratio(hu, hu, (2.0, 2.0, 2.0)) == pytest.approx(1.0)


def test_errors_follow_their_definitions():
    truth = np.zeros((2, 2, 2), dtype=np.float32)
    prediction = truth.copy()
    prediction[0, 0, 0], prediction[1, 1, 1] = 8.0, -4.0
    assert metrics.mae(prediction, truth) == pytest.approx(12.0 / 8)
    assert metrics.rmse(prediction, truth) == pytest.approx(math.sqrt(80.0 / 8))
    assert metrics.bias(prediction, truth) == pytest.approx(4.0 / 8)
    expected = 10.0 * math.log10(2500.0**2 / 10.0)
    assert metrics.psnr(prediction, truth, data_range=2500.0) == pytest.approx(expected)


def test_the_psnr_of_a_plane_is_the_mean_over_its_slices_and_equal_ones_are_100_db():
    truth = np.zeros((4, 5, 6), dtype=np.float32)
    prediction = truth.copy()
    prediction[0] = 10.0
    prediction[1] = 1.0
    found = metrics.psnr_planes(prediction, truth, data_range=1000.0)
    assert found["axial"] == pytest.approx((40.0 + 60.0 + 100.0 + 100.0) / 4)
    lines = 10.0 * math.log10(1000.0**2 / (101.0 / 4))
    assert found["coronal"] == pytest.approx(lines)
    assert found["sagittal"] == pytest.approx(lines)


def test_a_slice_outside_the_mask_is_left_out():
    truth = np.zeros((4, 5, 6), dtype=np.float32)
    mask = np.ones(truth.shape, dtype=bool)
    mask[2:] = False
    mask[0, 0] = False
    found = metrics.psnr_planes(truth + 10.0, truth, data_range=1000.0, mask=mask)
    assert found == pytest.approx({"axial": 40.0, "coronal": 40.0, "sagittal": 40.0})


def test_the_cosine_is_that_of_two_vectors():
    one, other = np.zeros((2, 2, 2, 2), dtype=np.float32)
    one[0, 0, 0], other[0, 0, 0], other[1, 0, 0] = 3.0, 3.0, 4.0
    assert metrics.cosine(one, other) == pytest.approx(0.6)
    assert math.isnan(metrics.cosine(one, 0.0 * other))


def test_only_masked_voxels_count():
    truth = chest_like(3)
    prediction = truth.copy()
    prediction[0] += 500.0
    mask = np.ones(truth.shape, dtype=bool)
    mask[0] = False
    assert metrics.rmse(prediction, truth, mask) == 0.0
    assert metrics.bone_dice(prediction, truth, mask) == 1.0


def test_an_empty_mask_is_refused():
    hu = chest_like(0)
    with pytest.raises(ValueError, match="do not overlap"):
        metrics.mae(hu, hu, np.zeros(hu.shape, dtype=bool))


def test_bone_dice_counts_the_overlap_above_200_hu():
    truth = np.full((2, 2, 2), 200.0, dtype=np.float32)
    assert math.isnan(metrics.bone_dice(truth, truth))
    prediction = truth.copy()
    truth[0] = 700.0  # four voxels of bone
    prediction[:, 0] = 300.0  # four, two of them in common
    assert metrics.bone_dice(prediction, truth) == pytest.approx(0.5)


def test_a_wave_lies_at_its_frequency_in_the_power_spectrum():
    wave_per_mm = 0.125
    x = np.arange(32) * 2.0
    hu = np.broadcast_to(np.cos(2 * np.pi * wave_per_mm * x), (32, 32, 32)).astype(np.float32)
    frequency, power = metrics.radial_power_spectrum(hu, (2.0, 2.0, 2.0))
    assert frequency[-1] == pytest.approx(0.25)
    assert abs(frequency[power.argmax()] - wave_per_mm) <= frequency[0]


def test_the_power_spectrum_ratio_is_the_square_of_the_fine_contrast():
    truth = np.random.default_rng(0).normal(0.0, 100.0, (16, 16, 16)).astype(np.float32)
    ratio = metrics.power_spectrum_ratio(0.5 * truth, truth, (4.0, 2.0, 2.0))
    assert ratio == pytest.approx(0.25, rel=1e-5)
    assert math.isnan(metrics.power_spectrum_ratio(truth, 0.0 * truth, (4.0, 2.0, 2.0)))


def test_a_volume_reprojects_without_error_and_a_thinner_one_by_its_share():
    hu = np.full((12, 12, 12), -1000.0, dtype=np.float32)
    hu[3:9, 3:9, 3:9] = 0.0
    grid = cubic_grid(np.array([5.0, -3.0, 40.0]), size=12, extent_mm=120.0)
    truth = Volume(hu, grid.voxel_to_patient)
    views = drr(truth, [preset("chest", angle_deg=a, size=16) for a in (0.0, 90.0)])
    assert metrics.reprojection_error(truth, views) == pytest.approx(0.0, abs=1e-6)
    thinner = Volume(np.where(hu == 0.0, np.float32(-250.0), hu), grid.voxel_to_patient)
    assert metrics.reprojection_error(thinner, views) == pytest.approx(0.25, rel=1e-4)


def test_display_style_views_have_no_reprojection_error():
    grid = cubic_grid(np.zeros(3), size=8, extent_mm=80.0)
    volume = Volume(np.zeros((8, 8, 8), dtype=np.float32), grid.voxel_to_patient)
    views = drr(volume, [preset("chest", size=8)])
    object.__setattr__(views, "calibrated", (False,))
    assert math.isnan(metrics.reprojection_error(volume, views))
