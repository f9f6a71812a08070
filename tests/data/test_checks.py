"""What is HU is taken, what is not is refused with what was found."""

import numpy as np
import pytest

from fewview.data.checks import checked_geometry, checked_hu


def body(seed: int = 0) -> np.ndarray:
    """Noisy soft tissue with a little bone, no air."""
    rng = np.random.default_rng(seed)
    hu = rng.normal(30.0, 25.0, (16, 16, 16))
    hu[:, :4] = rng.normal(-100.0, 15.0, (16, 4, 16))
    hu[8:10, 8:10] = 900.0
    return hu


def chest() -> np.ndarray:
    hu = body()
    hu[:, 8:] = -850.0
    hu[:, :, :3] = -1000.0
    return hu


@pytest.mark.parametrize(
    "values",
    [
        np.where(np.indices((16, 16, 16)).sum(0) < 24, 0, -1000),  # a corner of water in air
        body(),
        chest(),
        np.where(chest() > 800, 3071, chest()),
        np.where(chest() > 800, 30000, chest()),
    ],
    ids=["water in air", "abdomen without air", "chest", "metal", "metal on an extended scale"],
)
def test_volumes_in_hu_are_taken_as_they_are(values):
    np.testing.assert_allclose(checked_hu(values, "ct"), values.astype(np.float32))


@pytest.mark.parametrize("padding", [-2000, -3024, -32768])
def test_vendor_padding_becomes_air(padding):
    hu = chest()
    hu[0] = padding
    found = checked_hu(hu.astype(np.int16), "ct")
    assert (found[0] == -1024.0).all()
    assert np.array_equal(found[1:], hu[1:].astype(np.int16))


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (np.full((4, 4, 4), -1000), "every voxel is -1000"),
        (np.where(body() > 0, np.nan, 0.0), "NaN"),
        (np.where(body() > 0, np.inf, 0.0), "infinite"),
        (np.clip((chest() + 1000) / 10, 0, 255).astype(np.uint8), "from 0 to .*8-bit picture"),
        (np.clip((chest() + 1000) / 2500, 0, 1), "from 0 to .*normalized"),
        (np.clip((chest() + 1000) / 1250 - 1, -1, 1), "normalized"),
        (np.clip(chest() + 1024, 0, 4095).astype(np.uint16), "1024 still to be subtracted"),
        (chest() + 1024 - 50, "1024 still to be subtracted"),
        (np.where(chest() <= -1000, -2000, chest() + 1024), "1024 still to be subtracted"),
        (chest() * 1e6, "any metal"),
        (np.where(chest() > 0, -1500, -2000), "nothing as dense as air"),
    ],
    ids=[
        "constant", "nan", "inf", "8 bit", "0 to 1", "-1 to 1", "offset", "offset and noise",
        "offset and padding", "huge", "below air",
    ],
)  # fmt: skip
def test_what_is_not_hu_is_refused_with_what_was_found(values, found):
    with pytest.raises(ValueError, match=found) as caught:
        checked_hu(values, "ct.nii.gz")
    assert str(caught.value).startswith("ct.nii.gz: ")


def test_a_straight_grid_of_any_orientation_passes():
    matrix = np.eye(4)
    matrix[:3, :3] = np.array([[0, -0.6, 0.8], [1, 0, 0], [0, 0.8, 0.6]]) * [0.5, 1.0, 8.0]
    checked_geometry(matrix, "ct")


def test_sheared_and_flat_grids_are_refused():
    matrix = np.eye(4)
    matrix[1, 2] = 0.1
    with pytest.raises(ValueError, match=r"sheared by 5\.7 degrees"):
        checked_geometry(matrix, "ct")
    with pytest.raises(ValueError, match="spacing or position is missing"):
        checked_geometry(np.diag([1.0, 0.0, 1.0, 1.0]), "ct")
