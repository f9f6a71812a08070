"""Body, lungs and bone by threshold; overlap and surface distance."""

import math
from itertools import product

import numpy as np
import pytest

from fewview.evaluation.regions import dice, hd95_mm, region_masks, regions


def chest() -> np.ndarray:
    """Water with two air-filled lungs and a spine, and a table apart from it."""
    hu = np.full((8, 24, 24), -1000.0, dtype=np.float32)
    hu[:, 3:18, 2:22] = 0.0
    hu[:, 6:12, 5:9] = hu[:, 6:12, 14:18] = -850.0
    hu[:, 13:16, 10:13] = 500.0
    hu[:, 22, 4:20] = 100.0
    return hu


def test_regions_are_found_by_threshold():
    found = region_masks(chest())
    body = np.zeros((8, 24, 24), dtype=bool)
    body[:, 3:18, 2:22] = True
    np.testing.assert_array_equal(found["body"], body)
    np.testing.assert_array_equal(found["lung"], chest() == -850.0)
    np.testing.assert_array_equal(found["bone"], chest() == 500.0)


def test_a_volume_has_the_regions_of_itself():
    result = regions(chest(), chest(), (2.0, 1.0, 1.0))
    assert [result[f"{name}_dice"] for name in ("body", "lung", "bone")] == [1.0] * 3
    assert [result[f"{name}_hd95_mm"] for name in ("body", "lung", "bone")] == [0.0] * 3


def test_only_what_the_mask_holds_is_compared():
    prediction = chest()
    prediction[6:] = -1000.0
    mask = np.ones(prediction.shape, dtype=bool)
    mask[6:] = False
    assert regions(prediction, chest(), (1.0, 1.0, 1.0))["lung_dice"] < 0.9
    assert regions(prediction, chest(), (1.0, 1.0, 1.0), mask)["lung_dice"] == 1.0


def test_dice_counts_the_overlap():
    one, other = np.zeros((2, 8, 1, 1), dtype=bool)
    one[:4], other[3:] = True, True
    assert dice(one, other) == pytest.approx(2 * 1 / (4 + 5))
    assert math.isnan(dice(one & other & ~one, one & ~one))


def test_a_plane_that_moves_by_two_voxels_moves_by_their_spacing():
    one, other = np.zeros((2, 60, 5, 5), dtype=bool)
    one[:50], other[:52] = True, True  # their sides are cuts, no surfaces: else most would agree
    assert hd95_mm(one, other, (3.0, 1.0, 1.0)) == pytest.approx(6.0)


def plain_surface(region):
    padded = np.pad(region, 1, mode="edge")
    faces = [(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)]
    return [
        corner
        for corner in product(*map(range, region.shape))
        if region[corner]
        and not all(padded[tuple(np.array(corner) + 1 + np.array(face))] for face in faces)
    ]


def test_hd95_follows_its_definition():
    generator = np.random.default_rng(5)
    z, y, x = np.indices((9, 10, 11))
    ball = (z - 4) ** 2 + (y - 5) ** 2 + (x - 5) ** 2
    one, other = ball < 12, (ball < 9) | (generator.random(ball.shape) < 0.01)
    spacing = np.array([3.0, 1.5, 1.0])
    surfaces = [np.array(plain_surface(region)) * spacing for region in (one, other)]
    apart = np.linalg.norm(surfaces[0][:, None] - surfaces[1], axis=2)
    expected = max(np.percentile(apart.min(axis=axis), 95) for axis in (0, 1))
    assert hd95_mm(one, other, (3.0, 1.5, 1.0)) == pytest.approx(expected, abs=1e-9)


def test_a_region_without_surface_has_no_distance():
    nothing = np.zeros((4, 4, 4), dtype=bool)
    something = nothing.copy()
    something[1, 1, 1] = True
    assert math.isnan(hd95_mm(nothing, something, (1.0, 1.0, 1.0)))
    assert dice(nothing, something) == 0.0
