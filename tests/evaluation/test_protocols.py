"""The named protocols: fixed ranges, fixed measures."""

import math

import numpy as np
import pytest

from fewview.evaluation.protocols import HU3D_KEYS, hu3d


def test_hu3d_has_a_fixed_range():
    truth = np.zeros((8, 8, 8), dtype=np.float32)
    result = hu3d(truth + 25.0, truth)
    assert tuple(result) == HU3D_KEYS
    assert result["psnr"] == pytest.approx(40.0)
    assert result["mae"] == result["rmse"] == result["bias"] == pytest.approx(25.0)


def test_hu3d_of_a_volume_with_itself_is_perfect():
    hu = np.random.default_rng(0).uniform(-1000.0, 1500.0, (9, 9, 9)).astype(np.float32)
    result = hu3d(hu, hu)
    assert result["psnr"] == math.inf
    assert result["ssim"] == pytest.approx(1.0, abs=1e-12)


def test_hu3d_sees_nothing_beyond_its_range():
    truth = np.full((8, 8, 8), 1500.0, dtype=np.float32)
    truth[0] = -1000.0
    beyond = np.where(truth > 0.0, 3000.0, -3024.0).astype(np.float32)
    assert hu3d(beyond, truth)["rmse"] == 0.0
