"""Each known collection is read as it is handed out: its scans, its patients, nothing else."""

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import DigitalXRayImageStorageForPresentation, SegmentationStorage

from fewview.data.collections import find_cases
from fewview.data.dicom_writer import write_series
from fewview.data.splits import check_disjoint, default_split
from fewview.data.volume import Volume


@pytest.fixture
def files(tmp_path):
    def make(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
        return tmp_path

    return make


@pytest.fixture
def series(tmp_path):
    """Writes a DICOM series of two slices; of another kind if that is given."""
    hu = np.zeros((2, 4, 4), dtype=np.float32)

    def write(name, kind=None):
        write_series(Volume(hu, np.eye(4)), tmp_path / name)
        for path in (tmp_path / name).iterdir() if kind else ():
            dataset = dcmread(path)
            dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = kind
            dataset.save_as(path)

    return write


def test_lidc_idri_as_the_archive_hands_it_out(series, tmp_path):
    lidc = "manifest-16/LIDC-IDRI"
    series(f"{lidc}/LIDC-IDRI-0001/01-01-2000-NA-NA-30178/3000566.000000-NA-03192")
    series(
        f"{lidc}/LIDC-IDRI-0001/01-01-2000-NA-NA-35511/3000923.000000-NA-62357",
        DigitalXRayImageStorageForPresentation,
    )
    series(f"{lidc}/LIDC-IDRI-0132/1.3.6.1.4.7/1.3.6.1.4.8")
    series(f"{lidc}/LIDC-IDRI-0132/1.3.6.1.4.9/1.3.6.1.4.10")
    series(f"{lidc}/LIDC-IDRI-0132/1.3.6.1.4.9/300.000000-Segmentation", SegmentationStorage)
    (tmp_path / lidc / "LICENSE.nii").write_text("no scan")
    found = find_cases([tmp_path / "manifest-16"], "lidc-idri")
    assert [(case.id, case.patient, case.collection) for case in found.cases] == [
        ("LIDC-IDRI-0001.3000566.000000-NA-03192", "LIDC-IDRI-0001", "LIDC-IDRI"),
        ("LIDC-IDRI-0132.1.3.6.1.4.10", "LIDC-IDRI-0132", "LIDC-IDRI"),
        ("LIDC-IDRI-0132.1.3.6.1.4.8", "LIDC-IDRI-0132", "LIDC-IDRI"),
    ]
    kinds = [kind for _, kind in found.left_out]
    assert kinds == [
        "file of another layout",
        "series of Digital X-Ray Image Storage - For Presentation",
        "series of Segmentation Storage",
    ]
    check_disjoint((case.patient, default_split(case.patient)) for case in found.cases)
    one = find_cases([tmp_path / lidc / "LIDC-IDRI-0132"], "lidc-idri").cases
    assert [case.id for case in one] == [case.id for case in found.cases[1:]], (
        "a part is named alike"
    )


def test_lidc_series_of_one_name_in_two_studies_stay_apart_and_damage_is_left_to_reading(
    series, files
):
    series("LIDC-IDRI-0005/one/CT")
    series("LIDC-IDRI-0005/two/CT")
    root = files("LIDC-IDRI-0006/one/CT/1.dcm", "other/series/1.dcm")
    found = find_cases([root], "lidc-idri")
    assert [case.id for case in found.cases] == [
        "LIDC-IDRI-0006.CT",
        "one-LIDC-IDRI-0005.CT",
        "two-LIDC-IDRI-0005.CT",
    ]
    assert [kind for _, kind in found.left_out] == ["DICOM folder outside LIDC-IDRI-nnnn"]


def test_files_of_the_x2ct_line(files):
    root = files(
        "x2ct/LIDC-IDRI-0132.20000101.3163.1/ct_xray_data.h5",
        "x2ct/LIDC-IDRI-0132.20000101.3164.1/ct_xray_data.h5",
        "x2ct/liver_12/ct_xray_data.h5",
        "x2ct/liver_12/ct.nii.gz",
    )
    found = find_cases([root / "x2ct"], "x2ct")
    assert [(case.id, case.patient, case.collection) for case in found.cases] == [
        ("LIDC-IDRI-0132.20000101.3163.1", "LIDC-IDRI-0132", "X2CT"),
        ("LIDC-IDRI-0132.20000101.3164.1", "LIDC-IDRI-0132", "X2CT"),
        ("liver_12", "liver_12", "X2CT"),
    ]
    plain = find_cases([root / "x2ct"])
    assert len(plain.cases) == 1
    assert "--layout x2ct" in plain.left_out[0][1]


def test_ctspine1k_without_its_masks(files):
    root = files(
        "raw_data/volumes/COLONOG/1.3.6.1.4.1.9328.50.4.0001.nii.gz",
        "raw_data/volumes/COVID-19/volume-covid19-A-0003_ct.nii.gz",
        "raw_data/volumes/HNSCC-3DCT-RT/HN_P001.nii.gz",
        "raw_data/volumes/liver/liver_0.nii.gz",
        "raw_data/volumes/liver/liver_0_seg.nii.gz",
        "raw_data/labels/COLONOG/1.3.6.1.4.1.9328.50.4.0001_seg.nii.gz",
        "raw_data/labels/liver/liver_0.nii.gz",
    )
    found = find_cases([root / "raw_data"], "ctspine1k")
    assert [(case.id, case.patient, case.collection) for case in found.cases] == [
        ("1.3.6.1.4.1.9328.50.4.0001", "1.3.6.1.4.1.9328.50.4.0001", "CTSpine1K/COLONOG"),
        ("HN_P001", "HN_P001", "CTSpine1K/HNSCC-3DCT-RT"),
        ("liver_0", "liver_0", "CTSpine1K/liver"),
        ("volume-covid19-A-0003_ct", "volume-covid19-A-0003", "CTSpine1K/COVID-19"),
    ]
    assert {kind for _, kind in found.left_out} == {"label map, by its name"}
    assert len(found.left_out) == 3


@pytest.mark.parametrize("layout", ["lidc-idri", "x2ct", "ctspine1k"])
def test_a_layout_that_finds_nothing_of_its_own_says_what_it_looked_for(files, layout):
    root = files("data/notes.txt", "data/scan.nrrd")
    with pytest.raises(ValueError, match=r"no CT found .*looked for .*1 left out"):
        find_cases([root / "data"], layout)
