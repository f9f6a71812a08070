"""SIRT, CGLS, back-projection and TV on small volumes with known answers."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from fewview.baselines.constant import constant_hu
from fewview.baselines.iterative import backproject, cgls, least_squares, problem, sirt
from fewview.baselines.mean_volume import mean_volume
from fewview.baselines.variation import differences, differences_transposed, total_variation
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


@pytest.mark.parametrize(
    ("method", "limit_hu"), [(cgls, 120.0), (partial(total_variation, weight=2e-4), 100.0)]
)
def test_many_views_determine_the_volume_by_other_ways_too(method, limit_hu):
    truth = cylinder()
    found = method(views_of(truth, 12), GRID)
    assert np.sqrt(np.square(found.hu - truth.hu).mean()) < limit_hu


@pytest.mark.parametrize("method", [backproject, cgls, total_variation])
def test_views_without_integrals_are_refused_by_all(method):
    views = replace(views_of(cylinder(), 1), calibrated=(False,))
    with pytest.raises(ValueError, match="calibrated"):
        method(views, GRID)


def test_conjugate_gradients_solve_least_squares():
    wanted = problem(views_of(cylinder(), 3), GRID, "test")
    steps = [least_squares(wanted, count) for count in (1, 5, 40)]
    left = [float((wanted.forward(mu) - wanted.measured).norm()) for mu in steps]
    assert left[0] > left[1] > left[2]
    assert left[2] < 0.01 * float(wanted.measured.norm())
    first = wanted.transposed(wanted.measured)  # one step goes straight down the gradient
    torch.testing.assert_close(steps[0] / steps[0].max(), first / first.max())


def test_one_view_is_spread_evenly_along_its_rays():
    slab = np.full(GRID.shape, -1000.0, dtype=np.float32)
    slab[:, 8:12, :] = 0.0  # across the rays of a frontal view
    found = backproject(views_of(Volume(slab, GRID.voxel_to_patient), 1, "parallel"), GRID)
    inner = found.hu[8:12, :, 8:12]
    assert np.ptp(inner) < 5.0
    assert inner.mean() == pytest.approx(-1000.0 + 1000.0 * 4 / 20, abs=100.0)


def test_variation_flattens_and_keeps_the_mean():
    truth = cylinder()
    views = views_of(truth, 8)
    rough, flat = (total_variation(views, GRID, weight=weight) for weight in (0.0, 1e-3))
    variations = [
        float(differences(torch.from_numpy(v.hu)[None, None]).abs().sum()) for v in (rough, flat)
    ]
    assert variations[1] < 0.85 * variations[0]
    assert flat.hu.mean() == pytest.approx(rough.hu.mean(), abs=40.0)


def test_differences_and_their_adjoint_agree():
    generator = torch.Generator().manual_seed(1)
    mu = torch.rand(1, 1, 4, 5, 6, generator=generator)
    field = torch.rand(3, 4, 5, 6, generator=generator)
    assert float((differences(mu) * field).sum()) == pytest.approx(
        float((mu * differences_transposed(field)).sum()), rel=1e-5
    )


@pytest.mark.parametrize(
    ("settings", "word"), [({"weight": -1.0}, "weight"), ({"num_steps": 0}, "num_steps")]
)
def test_variation_refuses_nonsense(settings, word):
    with pytest.raises(ValueError, match=word):
        total_variation(views_of(cylinder(), 1), GRID, **settings)


def test_the_constant_is_the_mean_of_the_mean():
    grid = cubic_grid(np.zeros(3), size=64, extent_mm=400.0)
    constant = constant_hu(grid).hu
    assert np.ptp(constant) == 0.0
    assert constant.mean() == pytest.approx(mean_volume(grid, (0.0, 0.0, 0.0)).hu.mean(), abs=0.5)
    assert (constant_hu(grid, hu=-300.0).hu == -300.0).all()
    with pytest.raises(ValueError, match="finite"):
        constant_hu(grid, hu=float("nan"))
