"""SSIM of volumes and slices against scikit-image."""

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from fewview.evaluation.ssim import ssim3d, ssim_planes


def pair(shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A body with noise, from 0 to 2500."""
    generator = np.random.default_rng(1)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    body = np.where((x / 0.9) ** 2 + (y / 0.7) ** 2 < 1, 1040.0, 0.0) + 600.0 * (z > 0.8)
    one, other = (body + generator.normal(0.0, 80.0, shape) for _ in range(2))
    return one, other


@pytest.mark.parametrize("shape", [(7, 7, 7), (18, 20, 22), (31, 9, 14)])
def test_ssim_of_a_volume_equals_scikit_image(shape):
    x, y = pair(shape)
    expected = structural_similarity(x, y, data_range=2500.0)
    assert ssim3d(x, y, data_range=2500.0) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("shape", [(7, 7, 7), (18, 20, 22), (31, 9, 14)])
def test_ssim_of_slices_equals_scikit_image(shape):
    x, y = pair(shape)
    for axis, found in enumerate(ssim_planes(x, y, data_range=2500.0).values()):
        expected = [
            structural_similarity(x.take(i, axis), y.take(i, axis), data_range=2500.0)
            for i in range(shape[axis])
        ]
        assert found == pytest.approx(np.mean(expected), abs=1e-9)


def test_single_precision_volumes_give_the_same():
    x, y = (volume.astype(np.float32) for volume in pair((18, 20, 22)))
    expected = structural_similarity(x.astype(float), y.astype(float), data_range=2500.0)
    assert ssim3d(x, y, data_range=2500.0) == pytest.approx(expected, abs=1e-9)


def test_ssim_inside_a_box_shaped_mask_is_the_ssim_of_the_box():
    x, y = pair((18, 20, 22))
    mask = np.zeros(x.shape, dtype=bool)
    mask[2:17, 3:, :12] = True
    box = np.s_[2:17, 3:, :12]
    alone = ssim3d(x[box], y[box], data_range=2500.0)
    assert ssim3d(x, y, data_range=2500.0, mask=mask) == pytest.approx(alone, abs=1e-9)
    planes = ssim_planes(x[box], y[box], data_range=2500.0)
    assert ssim_planes(x, y, data_range=2500.0, mask=mask) == pytest.approx(planes, abs=1e-9)


def test_too_few_voxels_are_refused():
    thin = np.zeros((6, 9, 9))
    for measure in (ssim3d, ssim_planes):
        with pytest.raises(ValueError, match="7 overlapping voxels"):
            measure(thin, thin, data_range=1.0)


def test_a_mask_that_holds_no_whole_window_is_refused():
    volume = np.zeros((9, 9, 9))
    holes = np.ones(volume.shape, dtype=bool)
    holes[::3, ::3, ::3] = False
    with pytest.raises(ValueError, match="7 overlapping voxels"):
        ssim3d(volume, volume, data_range=1.0, mask=holes)
