"""Displays as line integrals: curves, covered sides, and what a reconstruction does with both."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from fewview.bundle import DEFAULT_MODEL, load_model
from fewview.calibration import calibrate, fit_curve, repeated_sides
from fewview.data.volume import Volume
from fewview.reconstruct import reconstruct
from fewview.xray.cleaning import continued
from fewview.xray.geometry import preset
from fewview.xray.views import drr, write_views

ANGLES = (0.0, 90.0)
COVERED = 12  # of 64 columns


def body() -> Volume:
    """An egg with a denser rod, inside its grid on all sides."""
    axis = np.linspace(-190.0, 190.0, 39)
    depth, height, width = np.meshgrid(axis, axis, axis, indexing="ij")
    hu = np.full(depth.shape, -1000.0, dtype=np.float32)
    hu[(depth / 150.0) ** 2 + (height / 100.0) ** 2 + (width / 160.0) ** 2 < 1.0] = 0.0
    hu[(np.abs(depth) < 100.0) & ((height - 50.0) ** 2 + (width - 40.0) ** 2 < 900.0)] = 500.0
    matrix = np.diag([10.0, 10.0, 10.0, 1.0])
    matrix[:3, 3] = -190.0
    return Volume(hu, matrix)


def pair(*angles: float):
    """The body and its line integrals."""
    geometries = [preset("chest", angle_deg=angle, size=64) for angle in angles or ANGLES]
    return body(), drr(body(), geometries)


def shown(views, *, exponent: float = 1.0, window: tuple[float, float] = (0.0, 1.0)):
    """The views as a viewing station shows them, each windowed and bent by itself."""
    highest = views.images.amax(dim=(-2, -1), keepdim=True)
    black, white = window
    gray = ((views.images / highest - black) / (white - black)).clamp(0.0, 1.0) ** exponent
    return replace(views, images=gray, calibrated=(False,) * len(gray))


@pytest.mark.parametrize("exponent", [0.4, 1.0, 2.2])
def test_a_curve_is_found_again(exponent):
    gray = np.linspace(0.01, 0.99, 500)
    noise = np.random.default_rng(0).normal(scale=0.02, size=500)
    found = fit_curve(gray, 0.5 + 6.0 * gray**exponent + noise)
    assert found is not None
    assert found.exponent == pytest.approx(exponent, rel=0.03)
    assert found.scale == pytest.approx(6.0, rel=0.02)
    assert found.offset == pytest.approx(0.5, abs=0.1)


def test_no_curve_falls_or_stands_on_a_few_pixels():
    gray = np.linspace(0.01, 0.99, 500)
    assert fit_curve(gray, 3.0 - gray) is None
    assert fit_curve(gray[:20], gray[:20]) is None


def test_sides_that_repeat_the_next_line_are_covered():
    field = torch.rand(20, 30, generator=torch.Generator().manual_seed(0))
    covered = repeated_sides(continued(field, (3, 23, 0, 30), (28, 34)))
    expected = torch.ones(28, 34, dtype=torch.bool)
    expected[3:23, 0:30] = False
    assert torch.equal(covered, expected)
    assert not repeated_sides(field).any()
    assert not repeated_sides(torch.zeros(8, 8)).any()


@pytest.mark.parametrize("exponent", [0.5, 2.0])
def test_displays_become_the_line_integrals_that_they_were(exponent):
    volume, views = pair()
    found, curves = calibrate(shown(views, exponent=exponent), volume)
    assert found.calibrated == (True, True)
    assert all(one is not None and abs(one.exponent * exponent - 1.0) < 0.05 for one in curves)
    torch.testing.assert_close(found.images, views.images, atol=0.15, rtol=0.03)


def test_what_the_window_cut_off_comes_from_the_volume():
    volume, views = pair()
    found, _ = calibrate(shown(views, window=(0.1, 0.7)), volume)
    cut = views.images > 0.7 * views.images.amax(dim=(-2, -1), keepdim=True)
    assert cut.float().mean() > 0.02
    torch.testing.assert_close(found.images[cut], views.images[cut], atol=0.15, rtol=0.03)


def test_a_covered_side_comes_from_the_volume_if_there_is_another_view():
    def collimated(views):
        images = shown(views).images
        images[0, 0] = continued(images[0, 0, :, COVERED:], (0, 64, COVERED, 64), (64, 64))
        return replace(views, images=images, calibrated=(False,) * len(images))

    volume, views = pair()
    found, _ = calibrate(collimated(views), volume)
    torch.testing.assert_close(found.images, views.images, atol=0.15, rtol=0.03)
    volume, single = pair(0.0)
    alone, _ = calibrate(collimated(single), volume)
    edge = alone.images[0, 0, :, COVERED : COVERED + 1]
    torch.testing.assert_close(alone.images[0, 0, :, :COVERED], edge.expand(-1, COVERED))


def test_line_integrals_stay_and_a_display_of_nothing_stays_a_display():
    volume, views = pair()
    mixed = replace(shown(views, exponent=2.0), calibrated=(True, False))
    found, curves = calibrate(mixed, volume)
    assert torch.equal(found.images[0], mixed.images[0])
    assert curves[0] is None
    assert curves[1] is not None
    blank = replace(mixed, images=torch.zeros_like(mixed.images), calibrated=(False, False))
    found, curves = calibrate(blank, volume)
    assert found.calibrated == (False, False)
    assert curves == (None, None)
    assert torch.equal(found.images, blank.images)


@pytest.fixture(scope="module")
def bundle():
    """The bundled model: the estimate of one that knows nothing has no curve."""
    return load_model(DEFAULT_MODEL)


@pytest.mark.parametrize("nfe", [0, 2])
def test_a_model_made_for_it_sees_displays_twice(bundle, nfe):
    views = shown(pair()[1], exponent=1.5)
    plain = replace(bundle, config=replace(bundle.config, calibrate_displays=False))
    once = reconstruct(views, model=plain, nfe=nfe, samples=1)
    twice = reconstruct(views, model=bundle, nfe=nfe, samples=1)
    left = reconstruct(views, model=bundle, nfe=nfe, samples=1, calibration=False)
    np.testing.assert_array_equal(left.volume.hu, once.volume.hu)
    assert left.curves == (None, None)
    assert all(curve is not None for curve in twice.curves)
    assert np.abs(twice.volume.hu - once.volume.hu).max() > 1.0


def test_a_found_curve_is_no_measurement_to_be_consistent_with(bundle):
    views = shown(pair()[1], exponent=1.5)
    made = [
        reconstruct(views, model=bundle, nfe=0, consistency=consistency).volume.hu
        for consistency in (True, False)
    ]
    assert bundle.config.consistency_steps
    np.testing.assert_array_equal(*made)


def test_line_integrals_are_seen_once(bundle):
    views = pair()[1]
    plain = replace(bundle, config=replace(bundle.config, calibrate_displays=False))
    found = reconstruct(views, model=bundle, nfe=0)
    assert found.curves == (None, None)
    np.testing.assert_array_equal(found.volume.hu, reconstruct(views, model=plain, nfe=0).volume.hu)


def test_the_command_records_what_gray_was_taken_to_mean(command, tmp_path):
    write_views(shown(pair()[1], exponent=1.5), tmp_path / "views")
    records = []
    for name, option in (("with", "--calibration"), ("without", "--no-calibration")):
        out = tmp_path / f"{name}.nii.gz"
        assert command("reconstruct", tmp_path / "views", "--out", out, option).exit_code == 0
        record = json.loads((tmp_path / f"{name}.run.json").read_text())
        records.append(record["settings"]["gray_curves"])
    assert records[1] == [None, None]
    assert all(one["exponent"] < 1.0 and one["scale"] > 0.0 for one in records[0])
