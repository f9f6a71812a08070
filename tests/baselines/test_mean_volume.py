"""The mean of phantoms: how it is built and where it is put."""

import numpy as np
import pytest

from fewview.baselines.mean_volume import build_mean_volume, main, mean_volume
from fewview.data.images import read_volume
from fewview.data.phantom import HELD_OUT_SEEDS, phantom
from fewview.data.volume import cubic_grid


def test_the_mean_is_the_mean_of_its_phantoms():
    mean = build_mean_volume([3, 4], 16, 400.0)
    expected = np.mean([phantom(seed, size=16, extent_mm=400.0).volume.hu for seed in (3, 4)], 0)
    np.testing.assert_allclose(mean.hu, expected, atol=0.01)
    np.testing.assert_allclose(mean.center_mm, 0.0, atol=1e-9)


def test_held_out_phantoms_and_no_phantoms_are_refused():
    with pytest.raises(ValueError, match="held out"):
        build_mean_volume([0, HELD_OUT_SEEDS[0]], 16, 400.0)
    with pytest.raises(ValueError, match="at least one"):
        build_mean_volume([], 16, 400.0)


def test_the_command_writes_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr("fewview.baselines.mean_volume.MEAN_SIZE", 16)
    main([str(tmp_path / "mean.nii.gz"), "--count", "1"])
    written = read_volume(tmp_path / "mean.nii.gz")
    np.testing.assert_allclose(written.hu, build_mean_volume([0], 16, 400.0).hu, atol=0.5)


def test_the_bundled_mean_is_a_chest_about_the_isocenter():
    isocenter = np.array([40.0, -60.0, 900.0])
    grid = cubic_grid(isocenter, size=64, extent_mm=400.0)
    mean = mean_volume(grid, tuple(isocenter))
    middle = mean.hu[30:34, 28:36, 28:36].mean()
    assert -200.0 < middle < 200.0  # mediastinum
    assert (mean.hu[30:34] < -600.0).mean() > 0.1
    assert mean.hu[:, 0].max() < -900.0  # air in front
    at_origin = cubic_grid(np.zeros(3), size=64, extent_mm=400.0)
    same = mean_volume(at_origin, (0.0, 0.0, 0.0))
    np.testing.assert_allclose(mean.hu, same.hu, atol=1e-2)


def test_a_shifted_grid_shows_the_mean_shifted():
    grid = cubic_grid(np.zeros(3), size=64, extent_mm=400.0)
    moved = cubic_grid(np.array([0.0, 0.0, 62.5]), size=64, extent_mm=400.0)
    here, there = mean_volume(grid, (0.0, 0.0, 0.0)), mean_volume(moved, (0.0, 0.0, 0.0))
    np.testing.assert_allclose(there.hu[:-10], here.hu[10:], atol=1e-2)
    np.testing.assert_allclose(there.hu[-10:], -1000.0)
