"""Views to a volume with a system that knows nothing: place, seeds, counts, warnings."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from fewview.bundle import load_bundle, save_bundle
from fewview.data.volume import Volume
from fewview.outside import warn_depth, warn_outside
from fewview.reconstruct import bin_views, pitch_at_isocenter, reconstruct
from fewview.xray.acquisition import as_detected
from fewview.xray.geometry import preset, project_points
from fewview.xray.views import drr


@pytest.fixture(scope="module")
def bundle(tiny_run):
    return load_bundle(tiny_run / "model")


@torch.no_grad()
@pytest.mark.parametrize("lean", [False, True])
def test_a_coded_head_is_the_estimate_through_the_autoencoder(bundle, lean):
    changes = {"diffusion_target": "latent", "condition": "views"} if lean else {}
    plain = replace(bundle, config=replace(bundle.config, consistency_steps=0, **changes))
    coded = replace(plain, config=replace(plain.config, head="coded"))
    views = ball_views(0.0, 90.0)
    estimate = reconstruct(views, model=plain, nfe=0).volume
    found = reconstruct(views, model=coded, nfe=0).volume
    expected = plain.autoencode(torch.from_numpy(estimate.hu)[None, None])[0, 0]
    assert np.abs(found.hu - estimate.hu).max() > 1.0
    np.testing.assert_allclose(found.hu, expected.numpy(), atol=25.0)  # bfloat16 of 2500 HU


def ball_views(*angles: float, size: int = 64):
    axis = np.linspace(-190.0, 190.0, 20)
    distance = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    hu = np.where(distance < 120.0, 0.0, -1000.0).astype(np.float32)
    matrix = np.diag([20.0, 20.0, 20.0, 1.0])
    matrix[:3, 3] = [-190.0 + 30.0, -190.0 - 100.0, -190.0 + 50.0]
    volume = Volume(hu, matrix)
    return drr(volume, [preset("chest", angle_deg=angle, size=size) for angle in angles])


def test_the_result_lies_where_the_views_turn(bundle):
    result = reconstruct(ball_views(0.0, 90.0), model=bundle, nfe=0)
    np.testing.assert_allclose(result.volume.center_mm, [30.0, -100.0, 50.0], atol=1e-4)
    assert result.volume.shape == (16, 16, 16)
    assert result.volume.hu.min() >= -1000.0
    assert result.sample is None
    assert result.std is None


def test_the_same_seed_gives_the_same_samples_and_another_does_not(bundle):
    views = ball_views(0.0, 90.0)
    first, again, other = (
        reconstruct(views, model=bundle, nfe=2, samples=1, seed=seed).volume.hu
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.0


def test_the_first_of_several_samples_is_the_only_sample_of_its_seed(bundle):
    views = ball_views(0.0, 90.0)
    several = reconstruct(views, model=bundle, nfe=2, samples=3, seed=5)
    single = reconstruct(views, model=bundle, nfe=2, samples=1, seed=5)
    assert several.sample is not None
    assert several.std is not None
    np.testing.assert_allclose(several.sample.hu, single.volume.hu, atol=1e-3)
    assert several.std.hu.max() > 0.0


@pytest.mark.parametrize("count", [1, 2, 5])
def test_any_number_of_views_is_taken(bundle, count):
    views = ball_views(*np.linspace(0.0, 150.0, count).tolist())
    assert reconstruct(views, model=bundle, nfe=0).volume.shape == (16, 16, 16)


def test_binning_keeps_what_is_seen_and_where():
    views = ball_views(20.0, size=200)
    from fewview.inputs import ViewRange
    from fewview.system import SystemConfig

    config = SystemConfig(name="x", views=ViewRange(num_pixels=64))
    binned = bin_views(views, config)
    assert pitch_at_isocenter(binned.geometries[0])[0] == pytest.approx(
        3 * pitch_at_isocenter(views.geometries[0])[0]
    )
    assert binned.images.shape[-1] % 8 == 0
    point = torch.tensor([[[60.0, -120.0, 20.0]]])
    fine, coarse = (project_points(one.cameras, point)[0][0, 0] for one in (views, binned))
    torch.testing.assert_close((fine + 0.5) / 3, coarse + 0.5, atol=1e-3, rtol=0)


def test_views_outside_the_trained_range_are_named(bundle, caplog):
    views = ball_views(0.0, 90.0)
    far = tuple(replace(one, sod_mm=1000.0, sdd_mm=1200.0) for one in views.geometries)
    with caplog.at_level(logging.WARNING, logger="fewview"):
        reconstruct(replace(views, geometries=far), model=bundle, nfe=0)
    assert "sod_mm 1000" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="fewview"):
        reconstruct(ball_views(0.0, 45.0, 90.0, 135.0), model=bundle, nfe=0)
    assert "4 views (trained on" in caplog.text


@pytest.mark.parametrize(
    ("angles", "said"),
    [
        ((0.0, 90.0), None),
        ((4.0, -273.0), None),
        ((0.0, 45.0), "angles 45 degrees (trained on 0, 90)"),
        ((30.0,), "angles 30 degrees (trained on 0)"),
    ],
)
def test_angles_that_a_model_of_standard_sets_never_saw_are_named(bundle, angles, said, caplog):
    seen = replace(
        bundle.config.views, any_angle_share=0.0, num_views=(1, 2), num_views_weights=(0.5, 0.5)
    )
    with caplog.at_level(logging.WARNING, logger="fewview"):
        warn_outside(ball_views(*angles), replace(bundle.config, views=seen))
    assert (said in caplog.text) if said else not caplog.text
    caplog.clear()
    anywhere = replace(seen, any_angle_share=0.1)
    with caplog.at_level(logging.WARNING, logger="fewview"):
        warn_outside(ball_views(*angles), replace(bundle.config, views=anywhere))
    assert not caplog.text


@pytest.mark.parametrize(
    ("angles", "said"),
    [
        ((0.0,), "one view along about 0 degrees"),
        ((90.0, -92.0), "2 views along about 90 degrees"),
        ((-10.0, 175.0), "2 views along about -10 degrees"),
        ((0.0, 90.0), None),
        ((0.0, 180.0, 30.0), None),
    ],
)
def test_views_along_one_direction_leave_depth_to_the_model(angles, said, caplog):
    with caplog.at_level(logging.WARNING, logger="fewview"):
        warn_depth(ball_views(*angles))
    assert (said in caplog.text) if said else not caplog.text


def test_pictures_for_the_eye_are_named_to_a_model_that_never_saw_one(tiny_run, tmp_path, caplog):
    views = as_detected(ball_views(0.0, 90.0), display=True)
    known = load_bundle(tiny_run / "model")
    assert known.display_share == 0.1  # the default of training
    save_bundle(tmp_path / "blind", known.config, known.networks, "", display_share=0.0)
    for model, said in ((known, False), (load_bundle(tmp_path / "blind"), True)):
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="fewview"):
            reconstruct(views, model=model, nfe=1)
        assert ("pictures for the eye (trained on line integrals alone)" in caplog.text) == said


def test_impossible_counts_are_refused(bundle):
    with pytest.raises(ValueError, match="nfe"):
        reconstruct(ball_views(0.0), model=bundle, nfe=-1)
    with pytest.raises(ValueError, match="samples"):
        reconstruct(ball_views(0.0), model=bundle, samples=0)


def test_the_default_is_the_deterministic_head_and_samples_are_drawn_when_asked(bundle):
    views = ball_views(0.0, 90.0)
    assert bundle.config.sampler.num_samples == 0
    assert reconstruct(views, model=bundle).nfe == 0
    assert reconstruct(views, model=bundle, nfe=3).sample is not None
    drawn = reconstruct(views, model=bundle, samples=2)
    assert drawn.nfe == bundle.config.sampler.nfe
    assert drawn.std is not None


def test_samples_of_the_deterministic_head_are_refused(bundle):
    with pytest.raises(ValueError, match="no samples to average"):
        reconstruct(ball_views(0.0), model=bundle, nfe=0, samples=2)
