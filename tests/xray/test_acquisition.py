"""Noise and display style on whole sets of views."""

import torch

from fewview.xray.acquisition import as_detected
from fewview.xray.geometry import preset
from fewview.xray.views import Views


def flat_views(value: float = 2.0) -> Views:
    ramp = value + torch.linspace(0.0, 1.0, 32 * 32).reshape(1, 1, 32, 32)
    return Views(
        ramp, (preset("chest", size=32),), (0.0, 0.0, 0.0), (True,), ("drr",), ("measured",)
    )


def test_noise_follows_its_seed_and_grows_with_fewer_photons():
    views = flat_views()
    few, again, many = (
        as_detected(views, photons=count, seed=3).images for count in (1e3, 1e3, 1e6)
    )
    assert torch.equal(few, again)
    assert not torch.equal(few, as_detected(views, photons=1e3, seed=4).images)
    assert (few - views.images).std() > 10 * (many - views.images).std()


def test_display_style_is_marked_as_not_calibrated():
    shown = as_detected(flat_views(), display=True)
    assert shown.calibrated == (False,)
    assert shown.images.min() == 0.0
    assert shown.images.max() == 1.0


def test_without_flags_nothing_changes():
    views = flat_views()
    assert as_detected(views) is views
