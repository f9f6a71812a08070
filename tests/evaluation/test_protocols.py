"""The named protocols: fixed ranges, fixed measures."""

import math

import numpy as np
import pytest

from fewview.data.volume import Volume, cubic_grid
from fewview.evaluation import legacy
from fewview.evaluation.protocols import (
    HU3D_KEYS,
    NEEDS_WEIGHTS,
    PROTOCOLS,
    RETRIEVAL,
    hu3d,
    measure,
    protocol_names,
)


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


def test_hu3d_follows_its_definition():
    generator = np.random.default_rng(2)
    truth = generator.normal(-300.0, 700.0, (8, 9, 7))
    prediction = truth + generator.normal(20.0, 150.0, truth.shape)
    g, p = (np.clip(hu, -1000, 1500) + 1000 for hu in (truth, prediction))
    windows = [np.s_[z : z + 7, y : y + 7, :] for z in range(2) for y in range(3)]
    c1, c2 = 25.0**2, 75.0**2
    ssim = []
    for window in windows:
        a, b = g[window].ravel(), p[window].ravel()
        (var_a, cov), (_, var_b) = np.cov(a, b)
        light = (2 * a.mean() * b.mean() + c1) / (a.mean() ** 2 + b.mean() ** 2 + c1)
        ssim.append(light * (2 * cov + c2) / (var_a + var_b + c2))
    errors = [x - y for x, y in zip(p.ravel(), g.ravel(), strict=True)]
    square = sum(error**2 for error in errors) / len(errors)
    expected = {
        "psnr": 10 * math.log10(2500**2 / square),
        "ssim": sum(ssim) / len(ssim),
        "mae": sum(map(abs, errors)) / len(errors),
        "rmse": math.sqrt(square),
        "bias": sum(errors) / len(errors),
    }
    assert hu3d(prediction, truth) == pytest.approx(expected, abs=1e-6)


def volumes() -> tuple[Volume, Volume]:
    grid = cubic_grid(np.zeros(3), size=9, extent_mm=36.0)
    values = np.random.default_rng(0).normal(-200.0, 500.0, (2, 9, 9, 9)).astype(np.float32)
    return Volume(values[0], grid.voxel_to_patient), Volume(values[1], grid.voxel_to_patient)


@pytest.mark.parametrize("name", sorted(PROTOCOLS.keys() - {RETRIEVAL}))
def test_every_named_protocol_measures(name):
    result = measure(name, *volumes())
    assert result
    assert all(isinstance(value, float) for value in result.values())


def test_the_two_readings_of_stored_units_have_names_of_their_own():
    prediction, truth = volumes()
    assert measure("x2ct", prediction, truth) == legacy.x2ct(prediction.hu, truth.hu)
    other = legacy.x2ct(prediction.hu, truth.hu, offset_hu=1024.0)
    assert measure("x2ct-1024", prediction, truth) == other != measure("x2ct", prediction, truth)


def test_names_are_taken_once_and_in_order_and_unknown_ones_are_refused():
    assert protocol_names(["x2ct", " hu3d", "x2ct"]) == ("x2ct", "hu3d")
    assert NEEDS_WEIGHTS.keys() <= PROTOCOLS.keys()
    with pytest.raises(ValueError, match="no protocol 'x2xt'; there is hu3d, x2ct"):
        protocol_names(["hu3d", "x2xt"])
    with pytest.raises(ValueError, match="no protocol given"):
        protocol_names([])
