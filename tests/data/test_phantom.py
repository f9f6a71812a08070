"""Phantoms are chests: everything is there, in its place, of the right size and CT value."""

import numpy as np
import pytest
from scipy.ndimage import binary_dilation
from scipy.ndimage import label as components

from fewview.data.phantom import (
    DEMO_SEED,
    HELD_OUT_SEEDS,
    LABELS,
    NUM_TRAINING_SEEDS,
    OPTIONAL,
    Phantom,
    phantom,
)
from fewview.data.phantom.ribs import rib_courses


@pytest.fixture(scope="module")
def body() -> Phantom:
    return phantom(3, size=96)


@pytest.fixture(scope="module")
def bodies() -> list[Phantom]:
    return [phantom(seed, size=40) for seed in range(20, 26)]


def center_mm(body: Phantom, name: str) -> np.ndarray:
    """Center (left, posterior, superior) of a tissue, mm."""
    place = np.argwhere(body.labels == LABELS[name]).mean(axis=0)[::-1]
    matrix = body.volume.voxel_to_patient
    return matrix[:3, :3] @ place + matrix[:3, 3]


def test_one_seed_is_one_body():
    first, again = phantom(5, size=32), phantom(5, size=32)
    np.testing.assert_array_equal(first.volume.hu, again.volume.hu)
    np.testing.assert_array_equal(first.labels, again.labels)
    assert first.truth == again.truth


def test_another_seed_is_another_body():
    first, other = phantom(5, size=32), phantom(6, size=32)
    assert first.truth["parameters"] != other.truth["parameters"]
    assert (first.labels != other.labels).mean() > 0.03


def test_sizes_agree_on_the_anatomy(body: Phantom):
    coarse = phantom(3, size=48)
    assert coarse.truth["parameters"] == body.truth["parameters"]
    large = ["lung", "heart", "liver", "muscle", "fat"]
    for name in large:
        fine_ml, coarse_ml = (b.truth["volumes_ml"][name] for b in (body, coarse))
        assert coarse_ml == pytest.approx(fine_ml, rel=0.15), name
    corner = body.labels[1::2, 1::2, 1::2]
    assert (corner == coarse.labels).mean() > 0.85


def test_the_grid_is_centered_on_the_patient_origin(body: Phantom):
    np.testing.assert_allclose(body.volume.center_mm, 0.0, atol=1e-6)
    assert body.volume.hu.dtype == np.float32
    assert body.labels.shape == body.volume.shape == (96, 96, 96)


def test_every_tissue_is_there(body: Phantom):
    found = set(np.unique(body.labels))
    missing = {name for name, number in LABELS.items() if number not in found}
    assert missing <= OPTIONAL


def test_sides_are_the_patients_own(bodies: list[Phantom]):
    for body in bodies:
        spine = center_mm(body, "vertebra")
        assert center_mm(body, "heart")[0] > spine[0] + 3
        assert center_mm(body, "spleen")[0] > spine[0] + 40
        assert center_mm(body, "liver")[0] < spine[0] - 20
        assert center_mm(body, "sternum")[1] < center_mm(body, "heart")[1] < spine[1]
        assert center_mm(body, "liver")[2] < center_mm(body, "lung")[2]


def test_the_descending_aorta_runs_left_of_the_spine(body: Phantom):
    heart = np.argwhere(body.labels == LABELS["heart"])[:, 0]
    level = int(np.median(heart))
    aorta = np.argwhere(body.labels[level] == LABELS["aorta"])
    spine = np.argwhere(body.labels[level] == LABELS["vertebra"])
    behind = aorta[
        aorta[:, 0] > np.median(np.argwhere(body.labels[level] == LABELS["heart"])[:, 0])
    ]
    assert len(behind) > 0
    assert behind[:, 1].mean() > spine[:, 1].mean()


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("outside", -1000, -995),
        ("fat", -130, -70),
        ("muscle", 10, 70),
        ("lung", -910, -700),
        ("liver", 20, 140),
        ("rib", 100, 700),
        ("vertebra", 100, 500),
        ("airway", -1000, -750),
    ],
)
def test_ct_values_fit_the_tissue(body: Phantom, name: str, low: float, high: float):
    assert low <= np.median(body.volume.hu[body.labels == LABELS[name]]) <= high


def test_lungs_hearts_and_bodies_have_human_sizes(bodies: list[Phantom]):
    voxel_mm = 400 / 40
    for body in bodies:
        volumes = body.truth["volumes_ml"]
        assert 2000 < volumes["lung"] + volumes["lung_vessel"] < 7500
        assert 200 < volumes["heart"] < 1000
        level = int(np.median(np.argwhere(body.labels == LABELS["heart"])[:, 0]))
        heart, lungs = (
            np.count_nonzero((body.labels == LABELS[name]).any(axis=(0, 1)))
            for name in ("heart", "lung")
        )
        assert 0.33 < heart / lungs < 0.62
        inside = body.labels[level] > 0
        assert 180 < np.ptp(np.flatnonzero(inside.any(axis=1))) * voxel_mm < 320
        assert 260 < np.ptp(np.flatnonzero(inside.any(axis=0))) * voxel_mm <= 400


def test_ribs_come_in_twelve_pairs_one_below_the_other():
    courses = rib_courses()
    assert len(courses) == 12
    for angle in (40, 80):
        heights = [rib.below[angle] for rib in courses if rib.bone_end_deg > angle]
        assert np.all(np.diff(heights) > 10)
    for rib in courses:
        assert rib.below[int(rib.bone_end_deg)] > rib.below[15] + 20


def test_ribs_stand_apart_and_on_both_sides(body: Phantom):
    _, num_parts = components(body.labels == LABELS["rib"])
    assert num_parts >= 12
    level = body.labels.shape[0] // 2
    where = np.argwhere(body.labels[level - 8 : level + 8] == LABELS["rib"])[:, 2]
    assert (where < 48).sum() > 50
    assert (where > 48).sum() > 50


def test_ribs_lie_on_the_chest_wall(body: Phantom):
    inside = np.isin(body.labels, [LABELS["lung"], LABELS["liver"], LABELS["diaphragm"]])
    near = binary_dilation(inside, iterations=3)
    ribs = body.labels == LABELS["rib"]
    upper = slice(body.labels.shape[0] // 3, None)
    assert near[upper][ribs[upper]].mean() > 0.7


def test_nodules_are_where_the_truth_says():
    body = phantom(101, size=64)
    made = body.truth
    assert made["nodules"]
    x, y, z = made["nodules"][0]["position_lps_mm"]
    inverse = np.linalg.inv(body.volume.voxel_to_patient)
    column, row, layer = np.round(inverse[:3, :3] @ [x, y, z] + inverse[:3, 3]).astype(int)
    around = body.labels[layer - 2 : layer + 3, row - 2 : row + 3, column - 2 : column + 3]
    assert (around == LABELS["nodule"]).any()


def test_held_out_seeds_are_never_training_seeds():
    training = range(NUM_TRAINING_SEEDS)
    assert len(HELD_OUT_SEEDS) == 50
    assert not set(HELD_OUT_SEEDS) & set(training)
    assert DEMO_SEED not in training
    assert DEMO_SEED not in HELD_OUT_SEEDS


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, "seed must be 0 or more"),
        ({"seed": 1, "size": 4}, "size must be 16 to 512"),
        ({"seed": 1, "extent_mm": 40.0}, "is it in cm"),
        ({"seed": 1, "extent_mm": float("nan")}, "extent_mm"),
    ],
)
def test_nonsense_is_refused(arguments: dict[str, float], message: str):
    with pytest.raises(ValueError, match=message):
        phantom(**arguments)
