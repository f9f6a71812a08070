"""Weights of rays that are measured more than once."""

import math

import numpy as np
import pytest
import torch

from fewview.baselines.analytic import fdk
from fewview.baselines.redundancy import half_scan_weights, scan_arc
from fewview.data.volume import Volume, cubic_grid
from fewview.xray.geometry import ViewGeometry
from fewview.xray.views import drr

GRID = cubic_grid(np.zeros(3), size=32, extent_mm=240.0)


def views_at(angles_deg: list[float], beam: str = "cone"):
    """Views with a wide fan: 28 degrees to either side."""
    near = {"sod_mm": 300.0, "sdd_mm": 600.0} if beam == "cone" else {}
    _, y, x = np.meshgrid(*(np.arange(32) - 15.5,) * 3, indexing="ij")
    radius = np.sqrt((x / 11) ** 2 + (y / 11) ** 2)
    hu = 1000.0 / (1.0 + np.exp(20.0 * (radius - 1.0))) - 1000.0
    geometries = [
        ViewGeometry(
            beam=beam,
            primary_angle_deg=angle,
            num_rows=80,
            num_cols=80,
            pixel_pitch_mm=(8.0, 8.0),
            **near,
        )
        for angle in angles_deg
    ]
    return drr(Volume(hu.astype(np.float32), GRID.voxel_to_patient), geometries)


@pytest.mark.parametrize(
    ("azimuths", "length", "widths"),
    [
        ([0.0, 90.0], 180.0, [90.0, 90.0]),
        ([90.0, 0.0], 180.0, [90.0, 90.0]),
        ([0.0, 45.0, 90.0, 135.0], 180.0, [45.0] * 4),
        ([350.0, 80.0, 170.0], 270.0, [90.0] * 3),
        ([0.0, 90.0, 180.0, 270.0], 360.0, [90.0] * 4),
        ([0.0, 90.0, 90.0], 180.0, [90.0, 45.0, 45.0]),
    ],
)
def test_views_share_the_arc_they_lie_on(azimuths, length, widths):
    arc = scan_arc(azimuths)
    assert arc is not None
    assert arc.length == pytest.approx(length)
    assert arc.widths == pytest.approx(widths)


@pytest.mark.parametrize("azimuths", [[10.0], [0.0, 0.0], [0.0, 30.0], [0.0, 20.0, 40.0, 60.0]])
def test_a_short_arc_has_no_half_scan(azimuths):
    assert scan_arc(azimuths) is None


def test_a_full_circle_counts_every_ray_half():
    views = views_at([12.0 * index for index in range(30)])
    weights = half_scan_weights(views.cameras, views.isocenter_mm)
    torch.testing.assert_close(weights, torch.full((30, 80), math.radians(12.0) / 2))


def test_rays_of_two_views_at_right_angles_come_once():
    views = views_at([0.0, 90.0])
    weights = half_scan_weights(views.cameras, views.isocenter_mm)
    near_middle = weights[:, 24:56]  # further out, the fan of the other view begins
    torch.testing.assert_close(near_middle, torch.full((2, 32), math.pi / 2))


@pytest.mark.parametrize("length", [180.0, 240.0, 300.0])
def test_the_middle_ray_sums_to_half_a_circle(length):
    views = views_at([length / 60 * index for index in range(60)])
    weights = half_scan_weights(views.cameras, views.isocenter_mm)
    assert float(weights[:, 39:41].mean(1).sum()) == pytest.approx(math.pi, rel=0.01)


def test_a_half_scan_gives_what_a_full_circle_gives():
    inner = slice(10, 22)
    full, half = (
        fdk(views_at([length / 90 * index for index in range(90)]), GRID).hu[14:18, inner, inner]
        for length in (360.0, 240.0)
    )
    assert np.abs(half - full).max() < 25.0
    assert half.mean() == pytest.approx(0.0, abs=15.0)


def test_parallel_views_over_more_than_half_a_circle_are_shared():
    inner = slice(10, 22)
    found = fdk(views_at([4.0 * index for index in range(65)], "parallel"), GRID)
    assert found.hu[14:18, inner, inner].mean() == pytest.approx(0.0, abs=15.0)
