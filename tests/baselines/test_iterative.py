"""SIRT on small volumes with known answers."""

from dataclasses import replace

import numpy as np
import pytest

from fewview.baselines.iterative import sirt
from fewview.data.volume import Volume, cubic_grid
from fewview.xray.geometry import preset, spread_angles
from fewview.xray.views import Views, drr

GRID = cubic_grid(np.array([30.0, -10.0, 5.0]), size=20, extent_mm=200.0)


def cylinder() -> Volume:
    _, y, x = np.meshgrid(*(np.arange(20) - 9.5,) * 3, indexing="ij")
    hu = np.where((x / 8) ** 2 + (y / 6) ** 2 < 1.0, 0.0, -1000.0).astype(np.float32)
    hu[:3] = hu[-3:] = -1000.0
    hu[8:12, 8:12, 5:8] = -800.0
    return Volume(hu, GRID.voxel_to_patient)


def views_of(volume: Volume, num_views: int, name: str = "chest") -> Views:
    geometries = [preset(name, angle_deg=a, size=40) for a in spread_angles(num_views)]
    return drr(volume, geometries)


@pytest.mark.parametrize("name", ["chest", "parallel"])
def test_many_views_determine_the_volume(name):
    truth = cylinder()
    found = sirt(views_of(truth, 12, name), GRID)
    assert np.sqrt(np.square(found.hu - truth.hu).mean()) < 100.0


def test_more_views_are_better():
    truth = cylinder()
    errors = [
        np.square(sirt(views_of(truth, count), GRID).hu - truth.hu).mean() for count in (1, 2, 6)
    ]
    assert errors[0] > errors[1] > errors[2]


def test_attenuation_is_never_negative():
    assert sirt(views_of(cylinder(), 2), GRID, num_steps=5).hu.min() >= -1000.0


def test_what_no_ray_crosses_is_air():
    narrow = replace(preset("chest", size=40), num_rows=4)
    found = sirt(drr(cylinder(), [narrow]), GRID, num_steps=3)
    assert (found.hu[:5] == -1000.0).all()


def test_views_that_are_no_integrals_are_refused():
    views = replace(views_of(cylinder(), 1), calibrated=(False,))
    with pytest.raises(ValueError, match="calibrated"):
        sirt(views, GRID)
    with pytest.raises(ValueError, match="num_steps"):
        sirt(views, GRID, num_steps=0)
