"""NIfTI headers, odd ones too."""

import struct
from pathlib import Path

import numpy as np
import pytest

from fewview.data.images import read_volume, write_volume
from fewview.data.volume import Volume

PIXDIM, SFORM_CODE, QFORM_CODE, SROW = 76, 254, 252, 280


@pytest.fixture
def ct(tmp_path) -> Path:
    """A plain .nii of 6 x 5 x 4 voxels of 1 x 2 x 3 mm."""
    hu = np.linspace(-1000, 1000, 120, dtype=np.float32).reshape(4, 5, 6).round()
    matrix = np.diag([1.0, 2.0, 3.0, 1.0])
    matrix[:3, 3] = [-10.0, 20.0, 30.0]
    write_volume(Volume(hu, matrix), tmp_path / "ct.nii")
    return tmp_path / "ct.nii"


def put(path: Path, at: int, form: str, *numbers: float) -> Path:
    """Overwrite a field of the header."""
    raw = bytearray(path.read_bytes())
    struct.pack_into("<" + form, raw, at, *numbers)
    path.write_bytes(raw)
    return path


def test_sform_wins_over_qform(ct):
    put(ct, SROW + 12, "f", 99.0)  # x offset, RAS
    assert read_volume(ct).voxel_to_patient[0, 3] == pytest.approx(-99.0 - 0.0, abs=1e-4)


def test_qform_alone_places_the_volume(ct):
    expected = read_volume(ct)
    put(ct, SFORM_CODE, "h", 0)
    put(ct, SROW, "12f", *[0.0] * 12)
    found = read_volume(ct)
    np.testing.assert_allclose(found.voxel_to_patient, expected.voxel_to_patient, atol=1e-4)
    assert np.array_equal(found.hu, expected.hu)


def test_qform_of_a_left_handed_volume_places_it_too(tmp_path):
    hu = np.linspace(-1000, 1000, 24, dtype=np.float32).reshape(2, 3, 4).round()
    matrix = np.diag([1.0, -2.0, 3.0, 1.0])
    write_volume(Volume(hu, matrix), tmp_path / "ct.nii")
    found = read_volume(put(tmp_path / "ct.nii", SFORM_CODE, "h", 0))
    assert np.array_equal(found.hu, hu[:, ::-1])
    np.testing.assert_allclose(found.center_mm, Volume(hu, matrix).center_mm, atol=1e-4)


def test_a_file_that_says_not_where_left_is_is_refused(ct):
    put(ct, QFORM_CODE, "2h", 0, 0)
    with pytest.raises(ValueError, match="left could be right"):
        read_volume(ct)


@pytest.mark.parametrize("spacing", [0.0, -1.0, float("nan"), float("inf")])
def test_missing_spacing_is_refused(ct, spacing):
    with pytest.raises(ValueError, match="spacing is missing"):
        read_volume(put(ct, PIXDIM + 8, "f", spacing))


def test_two_different_spacings_are_refused(ct):
    with pytest.raises(ValueError, match="two voxel spacings"):
        read_volume(put(ct, PIXDIM + 4, "f", 5.0))


def test_a_sheared_sform_is_refused(ct):
    with pytest.raises(ValueError, match=r"sheared by 1[0-9]\.\d degrees"):
        read_volume(put(put(ct, SROW + 8, "f", 0.8), PIXDIM + 12, "f", np.hypot(3.0, 0.8)))


def test_a_sform_that_is_not_finite_is_refused(ct):
    with pytest.raises(ValueError, match="position is missing"):
        read_volume(put(ct, SROW + 12, "f", float("nan")))


def test_lengths_in_meters_become_mm(ct):
    put(ct, 123, "b", 1)
    assert read_volume(ct).spacing_mm == pytest.approx((3000.0, 2000.0, 1000.0))


def test_slope_and_intercept_are_applied_and_nan_means_none(ct):
    expected = read_volume(ct).hu
    put(ct, 112, "2f", 0.5, -100.0)
    np.testing.assert_allclose(read_volume(ct).hu, expected * 0.5 - 100.0)
    for slope in (0.0, float("nan")):
        put(ct, 112, "2f", slope, float("nan"))
        np.testing.assert_array_equal(read_volume(ct).hu, expected)


@pytest.mark.parametrize(("code", "what"), [(128, "RGB"), (32, "complex"), (9999, "unknown")])
def test_values_that_are_not_gray_are_refused(ct, code, what):
    with pytest.raises(ValueError, match=what):
        read_volume(put(ct, 70, "h", code))


def test_counts_that_cannot_be_are_refused(ct):
    with pytest.raises(ValueError, match="too much"):
        read_volume(put(ct, 40, "4h", 3, 32767, 32767, 32767))
    with pytest.raises(ValueError, match="corrupt"):
        read_volume(put(ct, 40, "4h", 3, 6, -5, 4))
    with pytest.raises(ValueError, match="corrupt"):
        read_volume(put(ct, 40, "h", 77))


def test_the_header_of_a_pair_is_refused(ct):
    with pytest.raises(ValueError, match="pair"):
        read_volume(put(ct, 344, "4s", b"ni1\0"))


def test_big_endian_files_are_read(ct):
    expected = read_volume(ct)
    raw = bytearray(ct.read_bytes())
    fields = {0: "i", 40: "8h", 70: "h", 76: "8f", 108: "f", 112: "2f", 252: "2h", 256: "18f"}
    for at, form in fields.items():
        struct.pack_into(">" + form, raw, at, *struct.unpack_from("<" + form, raw, at))
    raw[352:] = np.frombuffer(bytes(raw[352:]), "<i2").astype(">i2").tobytes()
    ct.write_bytes(raw)
    found = read_volume(ct)
    assert np.array_equal(found.hu, expected.hu)
    np.testing.assert_array_equal(found.voxel_to_patient, expected.voxel_to_patient)


def test_nifti_2_is_read(ct):
    expected = read_volume(ct)
    old = ct.read_bytes()
    raw = bytearray(544)
    struct.pack_into("<i8s", raw, 0, 540, b"n+2\0\r\n\x1a\n")
    moves = {
        (40, "8h"): (16, "8q"), (70, "h"): (12, "h"), (76, "8f"): (104, "8d"),
        (112, "2f"): (176, "2d"), (252, "2h"): (344, "2i"), (256, "6f"): (352, "6d"),
        (280, "12f"): (400, "12d"),
    }  # fmt: skip
    for (at, form), (new_at, new_form) in moves.items():
        struct.pack_into("<" + new_form, raw, new_at, *struct.unpack_from("<" + form, old, at))
    struct.pack_into("<q", raw, 168, 544)
    ct.write_bytes(bytes(raw) + old[352:])
    found = read_volume(ct)
    assert np.array_equal(found.hu, expected.hu)
    np.testing.assert_array_equal(found.voxel_to_patient, expected.voxel_to_patient)
