"""Errors by band and by label."""

import math

import numpy as np
import pytest

from fewview.evaluation.tissues import error_by_label, tfprdit_hu

BANDS = {"air": (-1024, -900), "lung": (-900, -500), "fat": (-150, -50), "soft": (-50, 100),
         "bone": (300, 1500)}  # fmt: skip


def test_errors_by_band_follow_their_definition():
    generator = np.random.default_rng(3)
    truth = generator.uniform(-1100.0, 1700.0, (6, 7, 8)).astype(np.float32)
    prediction = truth + generator.normal(0.0, 90.0, truth.shape).astype(np.float32)
    mask = generator.random(truth.shape) < 0.8
    found = tfprdit_hu(prediction, truth, mask)
    errors = {name: [] for name in ("", *BANDS)}
    for p, t in zip(prediction[mask], truth[mask], strict=True):
        p, t = (min(max(float(hu), -1000.0), 1500.0) for hu in (p, t))
        errors[""].append(p - t)
        for name, (low, high) in BANDS.items():
            if low <= t < high:
                errors[name].append(p - t)
    for name, band in errors.items():
        prefix = f"{name}_" if name else ""
        assert found[f"{prefix}mae"] == pytest.approx(sum(map(abs, band)) / len(band), abs=1e-6)
        square = sum(error * error for error in band) / len(band)
        assert found[f"{prefix}rmse"] == pytest.approx(math.sqrt(square), abs=1e-6)
        if name:
            assert found[f"{name}_share"] == pytest.approx(len(band) / mask.sum(), abs=1e-9)


def test_a_band_that_the_truth_does_not_have_has_no_error_and_no_share():
    water = np.zeros((3, 3, 3), dtype=np.float32)
    found = tfprdit_hu(water + 10.0, water)
    assert found["soft_mae"] == found["mae"] == pytest.approx(10.0)
    assert math.isnan(found["bone_mae"])
    assert found["bone_share"] == 0.0


def test_errors_by_label_are_those_of_its_voxels():
    labels = np.zeros((2, 2, 2), dtype=np.uint8)
    labels[1, 0, 0] = labels[1, 0, 1] = 7
    labels[0] = 3
    truth = np.zeros(labels.shape, dtype=np.float32)
    prediction = truth.copy()
    prediction[1, 0, 0], prediction[1, 0, 1] = 30.0, -10.0
    mask = np.ones(labels.shape, dtype=bool)
    mask[0] = False
    found = error_by_label(prediction, truth, labels, mask, names={7: "lung"})
    assert found == {
        "label_0_mae": 0.0, "label_0_bias": 0.0, "label_0_share": 0.5,
        "lung_mae": 20.0, "lung_bias": 10.0, "lung_share": 0.5,
    }  # fmt: skip
