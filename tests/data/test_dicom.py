"""CT series: sorted by position, told from all else, refused with the slice named."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import Dataset, dcmread
from pydicom.uid import MRImageStorage, generate_uid

from fewview.data.dicom import list_series, read_series
from fewview.data.dicom_writer import write_series
from fewview.data.images import read_volume, write_volume
from fewview.data.volume import Volume, resample, scanned


def ramp(shape: tuple[int, int, int] = (8, 6, 7)) -> Volume:
    """HU that rise with the patient position: -600 + 10 x + 20 y + 15 z, in mm."""
    matrix = np.diag([0.7, 1.3, 2.5, 1.0])
    matrix[:3, 3] = [-12.3456, 7.8912, -20.125]
    z, y, x = np.indices(shape)
    points = np.stack([x, y, z], -1) @ matrix[:3, :3] + matrix[:3, 3]
    return Volume((-600 + points @ [10.0, 20.0, 15.0]).round().astype(np.float32), matrix)


@pytest.fixture
def series(tmp_path) -> Path:
    write_series(ramp(), tmp_path / "series")
    return tmp_path / "series"


def slices(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.dcm"))


def change(path: Path, **tags: object) -> None:
    """Set tags of a file; None removes one."""
    dataset = dcmread(path)
    for name, value in tags.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)


def test_a_written_series_is_read_at_the_same_place(series):
    found = read_series(series)
    assert np.array_equal(found.hu, ramp().hu)
    np.testing.assert_allclose(found.voxel_to_patient, ramp().voxel_to_patient, atol=1e-6)


def test_dicom_and_nifti_of_one_volume_are_one_volume(series, tmp_path):
    write_volume(ramp(), tmp_path / "ct.nii.gz")
    nifti, dicom = read_volume(tmp_path / "ct.nii.gz"), read_volume(series)
    assert np.array_equal(nifti.hu, dicom.hu)
    np.testing.assert_allclose(nifti.voxel_to_patient, dicom.voxel_to_patient, atol=1e-4)


def test_an_oblique_series_of_odd_numbers_keeps_every_position(tmp_path):
    c, s = np.cos(1 / 3), np.sin(1 / 3)
    matrix = np.eye(4)
    matrix[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) * [1 / 3, 2 / 3, 10 / 7]
    matrix[:3, 3] = [-1234.56789012345, 1e-7, 987.654321098765]
    volume = Volume(ramp((30, 6, 7)).hu, matrix)
    write_series(volume, tmp_path / "s")
    np.testing.assert_allclose(read_series(tmp_path / "s").voxel_to_patient, matrix, atol=1e-6)
    longest = max(
        len(str(value))
        for path in slices(tmp_path / "s")
        for value in dcmread(path).ImagePositionPatient
    )
    assert longest <= 16


def test_other_programs_read_the_series_at_the_same_place(series):
    image = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(series)))
    assert np.array_equal(sitk.GetArrayFromImage(image), ramp().hu)
    corner = (ramp().voxel_to_patient @ [6.0, 5.0, 7.0, 1.0])[:3]
    np.testing.assert_allclose(image.TransformIndexToPhysicalPoint((6, 5, 7)), corner, atol=1e-4)


def test_order_comes_from_positions_not_from_names_or_numbers(series, tmp_path):
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for number, path in enumerate(reversed(slices(series))):
        change(path, InstanceNumber=number)
        shutil.copy(path, mixed / f"{number * 7 % 8}")
    assert np.array_equal(read_series(mixed).hu, ramp().hu)


def test_each_slice_has_its_own_rescale(series):
    path = slices(series)[3]
    dataset = dcmread(path)
    stored = (dataset.pixel_array.astype(int) + 1000) * 2
    change(path, RescaleSlope=0.5, RescaleIntercept=-1000, PixelData=stored.astype("<i2").tobytes())
    assert np.array_equal(read_series(series).hu, ramp().hu)


def test_other_objects_and_files_in_the_folder_are_skipped(series):
    first = dcmread(slices(series)[0])
    first.SOPClassUID = first.file_meta.MediaStorageSOPClassUID = MRImageStorage
    first.save_as(series / "mr.dcm", enforce_file_format=True)
    shutil.copy(slices(series)[1], series / "scout.dcm")
    change(series / "scout.dcm", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    (series / "readme.txt").write_text("hello")
    assert np.array_equal(read_series(series).hu, ramp().hu)


def test_a_folder_of_two_series_is_listed_and_one_is_chosen(series, tmp_path):
    other = ramp()
    write_series(Volume(other.hu + 100, other.voxel_to_patient), tmp_path / "series" / "b")
    for path in slices(series / "b"):
        change(path, SeriesNumber=7, SeriesDescription="lung")
    with pytest.raises(ValueError, match=r"2 CT series; choose one with series=.*7 'lung' with 8"):
        read_volume(series)
    np.testing.assert_array_equal(read_volume(series, series="7").hu, ramp().hu + 100)
    uid = list_series(series)[0].uid
    np.testing.assert_array_equal(read_volume(series, series=uid).hu, ramp().hu)
    np.testing.assert_array_equal(read_volume(series, series=uid[:-2]).hu, ramp().hu)
    with pytest.raises(ValueError, match="no CT series 'x'"):
        read_volume(series, series="x")


def test_folders_without_ct_say_what_is_there(tmp_path):
    with pytest.raises(ValueError, match=r"no CT slices .*it is empty"):
        read_volume(tmp_path)
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(ValueError, match="1 files that are not DICOM"):
        read_volume(tmp_path)
    with pytest.raises(ValueError, match="no such folder"):
        list_series(tmp_path / "none")


def test_a_missing_slice_is_refused_between_its_neighbors_or_interpolated(series):
    slices(series)[3].unlink()
    with pytest.raises(ValueError, match=r"1 slice is missing between slice_0003.dcm and slice_00"):
        read_series(series)
    found = read_series(series, resample_uneven=True)
    np.testing.assert_allclose(found.hu, ramp().hu, atol=1.0)
    np.testing.assert_allclose(found.voxel_to_patient, ramp().voxel_to_patient, atol=1e-6)


def test_uneven_slices_are_refused_with_the_slice_named_or_interpolated(series):
    volume = ramp()
    path = slices(series)[4]
    x, y, z = dcmread(path).ImagePositionPatient
    stored = np.round(volume.hu[4] + 15 * 0.8).astype("<i2")
    change(path, ImagePositionPatient=[x, y, z + 0.8], PixelData=stored.tobytes())
    with pytest.raises(ValueError, match=r"uneven: 3\.300 mm from slice_0004.dcm to slice_0005"):
        read_series(series)
    np.testing.assert_allclose(read_series(series, None, True).hu, volume.hu, atol=1.1)


def test_a_slice_moved_sideways_is_named(series):
    path = slices(series)[4]
    x, y, z = dcmread(path).ImagePositionPatient
    change(path, ImagePositionPatient=[x + 1, y, z])
    with pytest.raises(ValueError, match=r"slice_0005\.dcm is 1\.000 mm off"):
        read_series(series)


def test_gantry_tilt_is_refused_or_straightened_to_where_the_patient_is(tmp_path):
    """The table moves along z, the slices lean by 15 degrees."""
    lean = np.radians(15.0)
    row, column = np.array([1.0, 0, 0]), np.array([0, np.cos(lean), np.sin(lean)])
    write_series(ramp((8, 20, 20)), tmp_path / "s")
    shown = np.stack(np.meshgrid(np.arange(20) * 0.7, np.arange(20) * 1.3), -1)
    for index, path in enumerate(slices(tmp_path / "s")):
        corner = np.array([-12.0, 8.0, -20.0 + 2.5 * index])
        points = corner + shown[..., :1] * row + shown[..., 1:] * column
        stored = (-600 + points @ [10.0, 20.0, 15.0]).round().astype("<i2")
        change(
            path,
            ImageOrientationPatient=[f"{value:.10f}" for value in [*row, *column]],
            ImagePositionPatient=corner.tolist(),
            PixelData=stored.tobytes(),
        )
    with pytest.raises(ValueError, match=r"tilted by 15\.00 degrees"):
        read_series(tmp_path / "s")
    found = read_series(tmp_path / "s", resample_uneven=True)
    z, y, x = np.indices(found.shape)
    points = np.stack([x, y, z], -1) @ found.voxel_to_patient[:3, :3].T
    points = points + found.voxel_to_patient[:3, 3]
    expected = -600 + points @ [10.0, 20.0, 15.0]
    inside = np.zeros(found.shape, dtype=bool)
    inside[:, 7:-7] = True
    np.testing.assert_allclose(found.hu[inside], expected[inside], atol=1.0)


def test_a_slice_that_is_there_twice_is_refused(series):
    shutil.copy(slices(series)[2], series / "again.dcm")
    with pytest.raises(ValueError, match=r"again\.dcm and slice_0003.dcm lie at the same place"):
        read_series(series)


@pytest.mark.parametrize(
    "name", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows"]
)
def test_a_slice_without_position_or_spacing_is_named(series, name):
    change(slices(series)[5], **{name: None})
    with pytest.raises(ValueError, match=rf"slice_0006\.dcm: {name} is missing"):
        read_series(series)


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"PixelSpacing": [0, 1]}, "PixelSpacing is 0, 1"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "perpendicular"),
        ({"ImageOrientationPatient": [0, 1, 0, -1, 0, 0]}, "differs from slice_0001"),
        ({"Rows": 3, "PixelData": b"\0" * 42}, "pixels, but"),
        ({"NumberOfFrames": 2}, "several frames"),
        ({"RescaleSlope": 0}, "rescale slope 0"),
    ],
)
def test_a_slice_that_does_not_fit_is_named(series, tags, message):
    change(slices(series)[5], **tags)
    with pytest.raises(ValueError, match=rf"slice_0006\.dcm: .*{message}"):
        read_series(series)


@pytest.mark.parametrize("kept", [0.0, 0.05, 0.3, 0.6, 0.9, 0.99])
def test_a_truncated_slice_is_named(series, kept):
    path = slices(series)[5]
    raw = path.read_bytes()
    path.write_bytes(raw[: int(kept * len(raw))])
    with pytest.raises(ValueError, match=r"slice_0006\.dcm: (truncated|\w+ is missing)") as caught:
        read_series(series)
    assert "\n" not in str(caught.value)


def test_one_slice_is_no_volume(series):
    for path in slices(series)[1:]:
        path.unlink()
    with pytest.raises(ValueError, match="1 slice"):
        read_series(series)


def test_a_series_that_is_not_in_hu_is_refused(series):
    for path in slices(series):
        change(path, RescaleIntercept=1500)
    with pytest.raises(ValueError, match="not in HU"):
        read_series(series)


def test_every_slice_is_a_ct_image_of_one_series_with_its_own_uid(series):
    datasets: list[Dataset] = [dcmread(path) for path in slices(series)]
    assert {d.SOPClassUID.name for d in datasets} == {"CT Image Storage"}
    assert len({d.SOPInstanceUID for d in datasets}) == len(datasets)
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        assert len({d[name].value for d in datasets}) == 1
    assert datasets[0].SeriesInstanceUID != generate_uid()
    assert "not for diagnosis" in datasets[0].SeriesDescription


def test_a_folder_with_content_is_not_overwritten(series):
    with pytest.raises(ValueError, match="not empty"):
        write_volume(ramp(), f"{series}/")
    assert len(slices(series)) == 8


def test_the_real_series_lies_where_its_nifti_lies(real_data):
    dicom = read_volume(real_data / "dicom" / "lungpetctdx_A0002")
    nifti = read_volume(real_data / "ct" / "lungpetctdx_A0002_B40f.nii.gz")
    assert dicom.shape == (30, 512, 512)
    assert dicom.spacing_mm == pytest.approx((8.0, 0.6465, 0.6465), abs=1e-3)
    found = resample(dicom, nifti.grid)
    both = scanned(dicom, nifti.grid)
    assert both.mean() > 0.95
    assert np.corrcoef(found.hu[both], nifti.hu[both])[0, 1] > 0.99
    moved = found.hu[:, 3:], nifti.hu[:, :-3]  # 6 mm off is clearly worse
    assert np.corrcoef(moved[0].ravel(), moved[1].ravel())[0, 1] < 0.97
