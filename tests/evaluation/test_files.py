"""Predictions meet the truth of their own name."""

import pytest

from fewview.evaluation.files import mean_scores, pair_files


@pytest.fixture
def folders(tmp_path):
    predicted, true = tmp_path / "predicted", tmp_path / "true"
    for folder, names in (
        (predicted, ("b.nii.gz", "a.mha")),
        (true, ("a.nii.gz", "b.nrrd", "c.nii")),
    ):
        folder.mkdir()
        for name in names:
            (folder / name).touch()
    return predicted, true


def test_volumes_are_paired_by_name_whatever_their_format(folders):
    pairs, unmatched = pair_files(*folders)
    assert {name: (p.name, t.name) for name, (p, t) in pairs.items()} == {
        "a": ("a.mha", "a.nii.gz"),
        "b": ("b.nii.gz", "b.nrrd"),
    }
    assert unmatched == []


def test_a_prediction_without_truth_is_told(folders):
    (folders[0] / "d.nii").touch()
    assert pair_files(*folders)[1] == ["d"]


def test_two_volumes_of_one_name_in_a_folder_are_refused(folders):
    (folders[0] / "a.nii").touch()
    with pytest.raises(ValueError, match="a is there twice"):
        pair_files(*folders)


def test_a_dicom_folder_is_one_volume(folders, tmp_path):
    series = tmp_path / "series"
    series.mkdir()
    (series / "0001.dcm").touch()
    pairs, _ = pair_files(folders[0] / "a.mha", series)
    assert pairs == {"a": (folders[0] / "a.mha", series)}


def test_a_volume_against_a_folder_of_volumes_is_refused(folders):
    with pytest.raises(ValueError, match="two volumes, or two folders"):
        pair_files(folders[0] / "a.mha", folders[1])


def test_folders_without_a_shared_name_are_refused(folders):
    for name in ("a.nii.gz", "b.nrrd"):
        (folders[1] / name).unlink()
    with pytest.raises(ValueError, match="no volume in"):
        pair_files(*folders)


def test_the_mean_is_over_what_all_cases_have():
    scores = {"a": {"psnr": 20.0, "body_psnr": 1.0}, "b": {"psnr": 30.0}}
    assert mean_scores(scores) == {"psnr": 25.0}
