"""The score knows a chest from what is none."""

import logging

import numpy as np
import pytest
import torch

from fewview.data.phantom import phantom
from fewview.outside import warn_novel
from fewview.xray.acquisition import as_detected
from fewview.xray.geometry import preset
from fewview.xray.novelty import NUM_FIGURES, describe, kind_of, learn, novelties, novelty
from fewview.xray.views import drr


@pytest.fixture(scope="module")
def both():
    """A phantom seen from behind and from the side, display style."""
    geometries = [preset("chest", angle_deg=angle, size=128) for angle in (0.0, 90.0)]
    return as_detected(drr(phantom(4, size=64).volume, geometries), display=True)


def others():
    """Pictures that are no chest."""
    generator = torch.Generator().manual_seed(0)
    ramp = torch.linspace(0.01, 1.0, 128)
    rows, cols = torch.meshgrid(ramp - 0.5, ramp - 0.5, indexing="ij")
    return {
        "noise": torch.rand(128, 128, generator=generator),
        "gradient": (ramp[:, None] + ramp[None]) / 2.0,
        "disk": (rows**2 + cols**2 < 0.1).float() + 0.01,
    }


def test_radiographs_of_held_out_phantoms_are_near(both):
    assert all(one is not None and not one.is_far for one in novelties(both))


@pytest.mark.parametrize("name", ["noise", "gradient", "disk"])
def test_what_is_no_chest_is_far(name, caplog):
    found = novelty(others()[name])
    assert found.is_far
    with caplog.at_level(logging.WARNING):
        warn_novel([found])
    assert "far from the radiographs that fewview-64 was trained on" in caplog.text
    assert f"score {found.score:.1f}" in caplog.text


def test_a_chest_upside_down_is_far(both):
    assert novelty(both.images[0, 0].flip(0)).score > 1.5 * novelty(both.images[0, 0]).score
    assert novelty(both.images[0, 0].flip(0)).is_far


def test_brightness_contrast_and_black_borders_change_nothing(both):
    image = both.images[0, 0]
    figures = describe(image)
    assert figures.shape == (NUM_FIGURES,)
    np.testing.assert_allclose(describe(0.3 * image + 0.2), figures, atol=1e-2)
    filled = image + 0.01
    padded = torch.nn.functional.pad(filled, (20, 20, 0, 0))
    np.testing.assert_allclose(describe(padded), describe(filled), atol=1e-5)


def test_views_from_the_front_and_the_other_side_are_mirrored(both):
    assert [kind_of(angle) for angle in (0.0, 180.0, -180.0, 90.0, -90.0, 270.0)] == [
        ("frontal", False), ("frontal", True), ("frontal", True),
        ("lateral", False), ("lateral", True), ("lateral", True),
    ]  # fmt: skip
    image = both.images[0, 0]
    assert novelty(image.flip(-1), 180.0).score == pytest.approx(novelty(image).score)


def test_line_integrals_have_no_score():
    views = drr(phantom(4, size=16).volume, [preset("chest", size=32)])
    assert novelties(views) == [None]


def test_a_normal_cloud_scores_one_and_its_limit_holds_the_rest():
    rows = np.random.default_rng(0).normal(size=(4000, NUM_FIGURES))
    known = learn(rows)
    scores = np.array([known.score(row) for row in rows])
    assert np.sqrt(np.mean(scores**2)) == pytest.approx(1.0, abs=0.03)
    assert np.mean(scores > known.limit) == pytest.approx(0.01, abs=0.005)
    with pytest.raises(ValueError, match="at least 72"):
        learn(rows[:50])
