"""Two volumes brought to one grid, and the numbers of a comparison."""

import math

import numpy as np
import pytest

from fewview.data.volume import Volume, cubic_grid, resample
from fewview.evaluation.compare import compare, on_one_grid

CENTER_MM = np.array([12.0, -30.0, 250.0])


def scan(*, num_slices: int = 40) -> Volume:
    """A body of water with bone in it, in voxels of 5 mm, above a couch."""
    _, y, x = np.meshgrid(np.arange(num_slices), *(np.arange(40) - 19.5,) * 2, indexing="ij")
    hu = np.where((x / 15) ** 2 + (y / 11) ** 2 < 1.0, 0.0, -1000.0).astype(np.float32)
    hu[:, 24:27, 18:22] = 700.0
    hu[:, 37:38] = -100.0  # the couch
    matrix = np.diag([5.0, 5.0, 5.0, 1.0])
    matrix[:3, 3] = CENTER_MM - 5.0 * np.array([19.5, 19.5, (num_slices - 1) / 2])
    return Volume(hu, matrix)


def test_a_volume_compared_with_itself_is_perfect():
    truth = scan()
    result = compare(truth, truth, keep_couch=True)
    assert result["psnr"] == result["body_psnr"] == math.inf
    assert result["scanned_share"] == 1.0
    assert result["bone_dice"] == 1.0
    assert result["power_spectrum_ratio"] == pytest.approx(1.0)


def test_the_couch_is_removed_from_the_truth():
    with_couch = scan()
    without = Volume(with_couch.hu.copy(), with_couch.voxel_to_patient)
    without.hu[:, 37:38] = -1000.0
    assert compare(without, with_couch)["rmse"] == 0.0
    assert compare(without, with_couch, keep_couch=True)["rmse"] > 100.0


def test_only_the_scanned_extent_counts_and_its_share_is_told():
    truth = scan(num_slices=20)
    grid = cubic_grid(CENTER_MM, size=20, extent_mm=200.0)
    prediction = resample(truth, grid)
    prediction.hu[:5] = prediction.hu[15:] = 300.0  # beyond the scan anything may stand
    result = compare(prediction, truth, keep_couch=True)
    assert result["scanned_share"] == pytest.approx(0.5)
    assert result["rmse"] == 0.0


def test_a_finer_truth_is_averaged_to_the_prediction_and_not_picked():
    generator = np.random.default_rng(0)
    truth = scan()
    truth.hu[:] = generator.normal(0.0, 200.0, truth.shape)
    grid = cubic_grid(CENTER_MM, size=10, extent_mm=200.0)
    flat = Volume(np.zeros(grid.shape, np.float32), grid.voxel_to_patient)
    assert compare(flat, truth, keep_couch=True)["rmse"] < 40.0


def test_on_the_grid_of_the_truth_the_prediction_is_brought_there():
    truth = scan()
    prediction = resample(truth, cubic_grid(CENTER_MM, size=20, extent_mm=200.0))
    _, true, mask = on_one_grid(prediction, truth, grid="truth", keep_couch=True)
    np.testing.assert_array_equal(true.hu, truth.hu)
    assert mask.all()
    fine = compare(prediction, truth, grid="truth", keep_couch=True)
    coarse = compare(prediction, truth, keep_couch=True)
    assert fine["rmse"] > coarse["rmse"] == 0.0


def test_the_cropped_volumes_stay_at_their_place():
    truth = scan(num_slices=20)
    prediction = resample(truth, cubic_grid(CENTER_MM, size=40, extent_mm=200.0))
    predicted, true, _ = on_one_grid(prediction, truth, keep_couch=True)
    np.testing.assert_allclose(predicted.center_mm, CENTER_MM, atol=1e-9)
    np.testing.assert_allclose(true.hu, truth.hu, atol=1e-3)


def test_volumes_apart_are_refused():
    truth = scan()
    moved = truth.voxel_to_patient.copy()
    moved[2, 3] += 5000.0
    with pytest.raises(ValueError, match="do not overlap"):
        compare(Volume(truth.hu, moved), truth)


def test_protocols_and_labels_stand_beside_the_headline_under_their_names():
    truth = scan()
    prediction = Volume(truth.hu + 20.0, truth.voxel_to_patient)
    labels = (truth.hu == 700.0).astype(np.uint8), truth.voxel_to_patient
    result = compare(
        prediction, truth, keep_couch=True, protocols=("hu3d", "x2ct", "regions"), labels=labels
    )
    assert result["mae"] == result["label_1_mae"] == pytest.approx(20.0)
    assert result["label_1_share"] == pytest.approx(labels[0].mean())
    assert result["x2ct_mae"] == pytest.approx(20.0)
    assert result["regions_bone_dice"] == 1.0
    alone = compare(prediction, truth, keep_couch=True, protocols=("liftxr",))
    assert set(alone) == {"liftxr_psnr", "liftxr_ssim", "scanned_share"}


def test_a_scan_turned_against_the_grid_counts_inside_its_extent_only():
    truth = scan()
    turned = truth.voxel_to_patient.copy()
    angle = np.radians(20.0)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turned[:2, :2] = turn @ turned[:2, :2]
    turned[:2, 3] = CENTER_MM[:2] - turned[:2, :2] @ [19.5, 19.5]
    grid = cubic_grid(CENTER_MM, size=40, extent_mm=200.0)
    prediction = resample(Volume(truth.hu, turned), grid)
    result = compare(prediction, Volume(truth.hu, turned), keep_couch=True, protocols=("x2ct",))
    assert result["scanned_share"] < 0.9
    assert result["x2ct_psnr_slices"] == 100.0
    prediction.hu[0, 0, 0] = 500.0  # a corner that was not scanned
    again = compare(prediction, Volume(truth.hu, turned), keep_couch=True, protocols=("x2ct",))
    assert again == result


@pytest.mark.parametrize(
    ("values", "says"),
    [((0.0, 1.0), "normalized"), ((-1.0, 1.0), "normalized"), ((0, np.nan), "NaN")],
)
def test_values_that_are_no_hu_are_refused_by_name(values, says):
    truth = scan()
    hu = np.where(truth.hu > -500.0, values[1], values[0]).astype(np.float32)
    with pytest.raises(ValueError, match=f"the prediction.*{says}"):
        compare(Volume(hu, truth.voxel_to_patient), truth)


def test_a_real_chest_is_scanned_where_its_file_lies(real_data):
    from fewview.data.images import read_volume

    truth = read_volume(real_data / "ct" / "cip_ct64.nii.gz")
    grid = cubic_grid(truth.center_mm, size=32, extent_mm=400.0)
    result = compare(resample(truth, grid), truth, keep_couch=True)
    assert result["rmse"] < 1e-3
    expected = np.prod(np.array(truth.shape) * truth.spacing_mm) / 400.0**3
    assert result["scanned_share"] == pytest.approx(expected, abs=0.05)
