"""The distance in random features."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from fewview.evaluation.features import random_features_distance


def textured(seed: int = 0) -> np.ndarray:
    noise = gaussian_filter(np.random.default_rng(seed).normal(0.0, 1.0, (16, 16, 16)), 1.0)
    return (400.0 * noise / noise.std()).astype(np.float32)


def test_equal_volumes_have_no_distance_and_more_blur_has_more():
    truth = textured()
    blurred = [random_features_distance(gaussian_filter(truth, s), truth) for s in (0.0, 0.7, 2.0)]
    assert blurred[0] == 0.0 < blurred[1] < blurred[2] < 6.0


FIXED = 1.9004637  # a change means that distances can no longer be compared with older ones


def test_the_network_is_fixed():
    found = random_features_distance(textured(1), textured(2))
    assert found == random_features_distance(textured(1), textured(2))
    assert found == pytest.approx(FIXED, rel=1e-4)


def test_what_lies_outside_the_mask_does_not_count():
    truth = textured()
    prediction = truth.copy()
    prediction[8:] += 300.0
    mask = np.ones(truth.shape, dtype=bool)
    mask[8:] = False
    assert random_features_distance(prediction, truth, mask) == 0.0


def test_a_thin_volume_is_refused():
    thin = np.zeros((3, 9, 9), dtype=np.float32)
    with pytest.raises(ValueError, match="4 voxels"):
        random_features_distance(thin, thin)
