"""Every CT of a plain folder is found once, and by a name of its own."""

from pathlib import Path

import pytest

from fewview.data.collections import find_cases, source_files


@pytest.fixture
def files(tmp_path):
    def make(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"\0" * 128 + b"DICM" if "dicom" in name else b"")
        return tmp_path

    return make


def found(*sources: Path) -> dict[str, str]:
    return {case.id: case.source for case in find_cases(sources).cases}


def test_files_case_folders_and_dicom_folders_are_cases(files):
    root = files(
        "data/a.nii.gz",
        "data/b.mha",
        "data/b.raw",
        "data/case_0000/ct.nii.gz",
        "data/case_0000/labels.nii.gz",
        "data/case_0000/truth.json",
        "data/dicom1/1.2.840.113619",
        "data/dicom1/1.2.840.113620",
        "data/deep/er/dicom2/IM0001",
        "data/c.v2.dcm/0001.dcm",
        "data/.hidden/d.nii",
        "data/notes.txt",
    )
    assert found(root / "data") == {
        "a": "data/a.nii.gz",
        "b": "data/b.mha",
        "case_0000": "data/case_0000/ct.nii.gz",
        "dicom1": "data/dicom1",
        "dicom2": "data/deep/er/dicom2",
        "c.v2.dcm": "data/c.v2.dcm",
    }


def test_equal_names_grow_by_the_folders_above_until_they_differ(files):
    root = files(
        "one/case_0000/ct.nii.gz",
        "two/case_0000/ct.nii.gz",
        "two/case_0001/ct.nii.gz",
        "two/left/scan.nii",
        "two/right/scan.nrrd",
    )
    assert set(found(root / "one", root / "two")) == {
        "one-case_0000",
        "two-case_0000",
        "case_0001",
        "left-scan",
        "right-scan",
    }


def test_two_formats_of_one_name_in_one_folder_are_refused(files):
    root = files("data/a.nii", "data/a.mha")
    with pytest.raises(ValueError, match=r"one name: .*a\.mha.*a\.nii"):
        find_cases([root / "data"])


def test_a_scan_reached_by_two_sources_is_one_case(files):
    root = files("data/a.nii", "data/b.nii")
    assert list(found(root / "data", root / "data" / "a.nii", root / "data")) == ["a", "b"]


def test_a_source_may_be_a_file_or_a_dicom_folder(files):
    root = files("data/a.nii", "data/dicom/IM1", "case_0007/ct.nii.gz")
    sources = (root / "data" / "a.nii", root / "data" / "dicom", root / "case_0007")
    assert list(found(*sources)) == ["a", "case_0007", "dicom"]


def test_names_are_fit_for_files_and_no_path_of_a_machine_is_kept(files):
    root = files("data/a: b?.nii", "data/ä.nii")
    cases = find_cases([root / "data"]).cases
    assert [case.id for case in cases] == ["a__b_", "ä"]
    assert not any(str(root) in case.source for case in cases)


def test_a_circle_of_links_ends(files):
    root = files("data/a.nii")
    (root / "data" / "again").symlink_to(root / "data", target_is_directory=True)
    assert list(found(root / "data")) == ["a"]


def test_sources_without_a_ct_are_refused(files):
    root = files("data/notes.txt", "data/labels.nii.gz", "empty/.keep")
    for source in ("data", "empty", "data/notes.txt", "data/labels.nii.gz"):
        with pytest.raises(ValueError, match=f"no CT found in .*{source}"):
            find_cases([root / source])
    with pytest.raises(ValueError, match="does not exist"):
        find_cases([root / "other"])


def test_an_unknown_layout_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match=r"'lidc'; known: folder"):
        find_cases([tmp_path], "lidc")


def test_the_files_of_a_scan_include_its_detached_data(files):
    root = files("a.raw", "b.raw.gz", "c.nii", "dicom/2", "dicom/1")
    (root / "a.mhd").write_text("NDims = 3\nElementDataFile = a.raw\n")
    (root / "b.nhdr").write_text("NRRD0004\ndata file: b.raw.gz\n")
    names = {
        path: [file.name for file in source_files(root / path)]
        for path in ("a.mhd", "b.nhdr", "c.nii", "dicom")
    }
    assert names == {
        "a.mhd": ["a.mhd", "a.raw"],
        "b.nhdr": ["b.nhdr", "b.raw.gz"],
        "c.nii": ["c.nii"],
        "dicom": ["1", "2"],
    }


def test_scans_that_share_the_first_folder_are_one_patients(files):
    root = files(
        "data/anna/2019/IM1.dcm",
        "data/anna/2020/scan.nii",
        "data/bert/ct.nii.gz",
        "data/bert/labels.nii.gz",
        "data/deep/er/c.nii",
        "data/d.nii",
        "data/e.nii",
    )
    cases = find_cases([root / "data"]).cases
    assert {case.id: case.patient for case in cases} == {
        "2019": "anna",
        "scan": "anna",
        "bert": "bert",
        "c": "c",
        "d": "d",
        "e": "e",
    }


def test_a_case_keeps_the_name_of_its_collection(files):
    root = files("one/a.nii", "two/deep/b.nii", "three/c.nii")
    cases = find_cases([root / "one", root / "two", root / "three" / "c.nii"]).cases
    assert [case.collection for case in cases] == ["one", "two", "three"]


@pytest.mark.parametrize(
    "name",
    ["labels.nii.gz", "a_seg.nii.gz", "a-mask.nrrd", "labelsTr/a.nii.gz", "labels/liver/a.nii"],
)
def test_what_is_called_a_label_map_is_no_ct_and_is_told(files, name):
    root = files("data/ct/a.nii", f"data/{name}")
    found = find_cases([root / "data"])
    assert [case.source for case in found.cases] == ["data/ct/a.nii"]
    assert found.left_out == ((f"data/{name}", "label map, by its name"),)


@pytest.mark.parametrize("name", ["segment_1.nii", "masked.nii", "unmask.mha", "bigseg.nii"])
def test_a_ct_whose_name_only_looks_alike_is_taken(files, name):
    assert len(found(files(f"data/{name}") / "data")) == 1
