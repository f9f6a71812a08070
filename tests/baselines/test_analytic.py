"""Filtered backprojection: weights, filter and whole reconstructions."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from fewview.baselines.analytic import angular_weights, fdk, ramp_filter
from fewview.data.volume import Volume, cubic_grid
from fewview.xray.geometry import preset
from fewview.xray.views import Views, drr

GRID = cubic_grid(np.array([30.0, -10.0, 5.0]), size=32, extent_mm=240.0)


def cylinder() -> Volume:
    z, y, x = np.meshgrid(*(np.arange(32) - 15.5,) * 3, indexing="ij")
    radius = np.sqrt((x / 12) ** 2 + (y / 10) ** 2 + (z / 13) ** 4)
    hu = 1000.0 / (1.0 + np.exp(20.0 * (radius - 1.0))) - 1000.0  # water with a soft edge
    return Volume(hu.astype(np.float32), GRID.voxel_to_patient)


def views_of(volume: Volume, angles_deg: list[float], name: str) -> Views:
    return drr(volume, [preset(name, angle_deg=angle, size=80) for angle in angles_deg])


@pytest.mark.parametrize(
    ("name", "circle_deg"), [("chest", 360.0), ("parallel", 180.0), ("parallel", 360.0)]
)
def test_many_views_give_the_hu_back(name, circle_deg):
    truth = cylinder()
    angles = [index * circle_deg / 60 for index in range(60)]
    found = fdk(views_of(truth, angles, name), GRID)
    inner = truth.hu > -20.0
    assert found.hu[inner].mean() == pytest.approx(truth.hu[inner].mean(), abs=25.0)
    assert np.sqrt(np.square(found.hu - truth.hu).mean()) < 70.0


def test_a_near_source_is_weighted_by_distance_and_angle():
    truth = cylinder()
    near = [
        replace(preset("x2ct", angle_deg=6.0 * i, size=80), sod_mm=300.0, sdd_mm=600.0)
        for i in range(60)
    ]
    found = fdk(drr(truth, near), GRID).hu[13:19]  # near the plane of the sources: exact
    _, y, x = np.meshgrid(np.arange(6), *(np.arange(32) - 15.5,) * 2, indexing="ij")
    radius = np.sqrt(x**2 + y**2)
    assert found[radius < 4.0].mean() == pytest.approx(0.0, abs=8.0)
    outer = (radius > 7.0) & (truth.hu[13:19] > -20.0)
    assert found[outer].mean() == pytest.approx(0.0, abs=30.0)


def test_the_object_stays_in_its_place():
    hu = np.full(GRID.shape, -1000.0, dtype=np.float32)
    hu[20:23, 8:11, 24:27] = 800.0
    truth = Volume(hu, GRID.voxel_to_patient)
    angles = [index * 12.0 for index in range(30)]
    found = fdk(views_of(truth, angles, "chest"), GRID)
    mass = found.hu + 1000.0
    mass[mass < 0.3 * mass.max()] = 0.0
    center = [float((mass * np.indices(mass.shape)[axis]).sum() / mass.sum()) for axis in range(3)]
    assert center == pytest.approx([21.0, 9.0, 25.0], abs=0.2)


def test_few_views_keep_the_mean_attenuation_roughly():
    truth = cylinder()
    found = fdk(views_of(truth, [0.0, 90.0], "chest"), GRID)
    assert np.isfinite(found.hu).all()
    assert found.hu[truth.hu > -20.0].mean() > found.hu[truth.hu < -980.0].mean() + 200.0


@pytest.mark.parametrize(
    ("angles_deg", "weights_deg"),
    [
        ([0.0], [180.0]),
        ([0.0, 90.0], [90.0, 90.0]),
        ([0.0, 180.0], [90.0, 90.0]),
        ([0.0, 30.0, 90.0], [60.0, 45.0, 75.0]),
        ([-90.0, 0.0, 0.0], [90.0, 45.0, 45.0]),
    ],
)
def test_angular_weights_share_half_a_circle(angles_deg, weights_deg):
    assert angular_weights(angles_deg) == pytest.approx([math.radians(w) for w in weights_deg])


def test_the_ramp_filter_removes_a_constant_and_scales_a_wave_by_its_frequency():
    wave_per_mm = 1.0 / 32.0
    position = torch.arange(512) * 1.0
    wave = torch.cos(2 * math.pi * wave_per_mm * position).expand(2, -1)
    middle = slice(192, 320)
    filtered = ramp_filter(wave, 1.0, 1e6)  # a cutoff far away: no roll-off
    torch.testing.assert_close(
        filtered[:, middle], wave_per_mm * wave[:, middle], atol=2e-3, rtol=0.0
    )
    flat = ramp_filter(torch.ones(2, 512), 1.0, 1e6)
    assert flat[:, middle].abs().max() < 2e-3


def test_views_that_are_no_integrals_are_refused():
    views = replace(views_of(cylinder(), [0.0], "chest"), calibrated=(False,))
    with pytest.raises(ValueError, match="calibrated"):
        fdk(views, GRID)
