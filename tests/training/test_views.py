"""What training makes of line integrals: noise, collimation, and styles of display."""

from dataclasses import replace

import pytest
import torch

from fewview.training.examples import generator_of
from fewview.training.stage_config import AugmentationConfig
from fewview.training.views import degrade
from fewview.xray.detector import display_style
from fewview.xray.style import COLLIMATION, GAMMA, WINDOW_CUT

CLEAN = AugmentationConfig(
    noise_share=0.0, collimation_share=0.0, display_share=0.0, gamma=(1.0, 1.0)
)
SHOWN = replace(CLEAN, display_share=1.0)


@pytest.fixture(scope="module")
def twice() -> torch.Tensor:
    """One smooth picture as both views of a body."""
    down, across = torch.meshgrid(torch.linspace(0, 1, 48), torch.linspace(0, 1, 64), indexing="ij")
    return (4.0 * torch.sin(3.0 * across) * (0.3 + down)).expand(1, 2, 48, 64)


def test_without_shares_line_integrals_stay_what_they_are(twice):
    images, calibrated = degrade(twice, CLEAN, generator_of(1))
    assert calibrated
    assert torch.equal(images, twice)


def test_the_plain_display_is_that_of_reconstruct(twice):
    images, calibrated = degrade(twice, SHOWN, generator_of(1))
    assert not calibrated
    torch.testing.assert_close(images, display_style(twice), atol=0.03, rtol=0.0)


@pytest.mark.parametrize("change", [{"gamma": (0.5, 2.0)}, {"window_cut": 0.25}])
def test_each_view_has_a_style_of_its_own(twice, change):
    images, _ = degrade(twice, replace(SHOWN, **change), generator_of(1))
    plain = display_style(twice)
    first, second = images[0]
    assert (first - second).abs().mean() > 0.02
    assert min((one - plain[0, 0]).abs().mean() for one in images[0]) > 0.01
    again, _ = degrade(twice, replace(SHOWN, **change), generator_of(1))
    assert torch.equal(images, again)


def test_covered_line_integrals_are_zero_and_covered_displays_go_on(twice):
    covered = {"collimation_share": 1.0, "collimation": 0.4}
    images, _ = degrade(twice + 1.0, replace(CLEAN, **covered), generator_of(2))
    kept = images != 0.0
    assert 0.2 < kept.float().mean() < 0.9
    assert torch.equal(images[kept], (twice + 1.0)[kept])
    assert not torch.equal(kept[0, 0], kept[0, 1])  # a field for each view
    shown, _ = degrade(twice, replace(SHOWN, **covered), generator_of(2))
    for image in shown[0]:
        assert torch.equal(image[0], image[1])  # the last exposed row, repeated
        assert image.std() > 0.1


def test_displays_in_training_stay_inside_the_held_out_style():
    usual = AugmentationConfig()
    assert GAMMA[0] < usual.gamma[0] < usual.gamma[1] < GAMMA[1]
    assert usual.window_cut < WINDOW_CUT
    assert usual.collimation < COLLIMATION


@pytest.mark.parametrize(
    "change", [{"gamma": (2.0, 1.0)}, {"gamma": (0.0, 1.0)}, {"window_cut": 0.5}]
)
def test_displays_that_cannot_be_are_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        AugmentationConfig(**change)
