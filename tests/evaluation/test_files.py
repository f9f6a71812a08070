"""Predictions meet the truth of their own name; doubles are told."""

import numpy as np
import pytest

from fewview.data.volume import Volume
from fewview.evaluation.files import Doubles, companions, pair_files


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
    pairing = pair_files(*folders)
    assert {name: (p.name, t.name) for name, (p, t) in pairing.pairs.items()} == {
        "a": ("a.mha", "a.nii.gz"),
        "b": ("b.nii.gz", "b.nrrd"),
    }


def test_what_has_no_partner_is_told(folders):
    (folders[0] / "d.nii").touch()
    pairing = pair_files(*folders)
    assert (pairing.without_truth, pairing.without_prediction) == (["d"], ["c"])
    assert pairing.remarks() == [
        "left out d: no truth of that name",
        "missing c: no prediction of that truth",
    ]


def test_two_volumes_of_one_name_in_a_folder_are_refused(folders):
    (folders[0] / "a.nii").touch()
    with pytest.raises(ValueError, match="a is there twice"):
        pair_files(*folders)


def test_a_dicom_folder_is_one_volume(folders, tmp_path):
    series = tmp_path / "series"
    series.mkdir()
    (series / "0001.dcm").touch()
    assert pair_files(folders[0] / "a.mha", series).pairs == {"a": (folders[0] / "a.mha", series)}


def test_a_volume_against_a_folder_of_volumes_is_refused(folders):
    with pytest.raises(ValueError, match="two volumes, or two folders"):
        pair_files(folders[0] / "a.mha", folders[1])


def test_folders_without_a_shared_name_are_refused(folders):
    for name in ("a.nii.gz", "b.nrrd"):
        (folders[1] / name).unlink()
    with pytest.raises(ValueError, match="no volume in"):
        pair_files(*folders)


def test_every_case_needs_its_label_map(folders, tmp_path):
    def labels(path, names):
        return companions(names, labels=path, views=None).labels

    assert labels(tmp_path / "one.nii", ["a"]) == {"a": tmp_path / "one.nii"}
    assert set(labels(folders[1], ["a", "b"])) == {"a", "b"}
    with pytest.raises(ValueError, match=r"no label map in .* for d"):
        labels(folders[1], ["a", "d"])
    with pytest.raises(ValueError, match="one label map for 2 cases"):
        labels(tmp_path / "one.nii", ["a", "b"])


def test_every_case_needs_its_views(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "views.json").touch()
    (tmp_path / "notes").mkdir()

    def views(path, names):
        return companions(names, labels=None, views=path).views

    assert views(tmp_path / "a", ["scan"]) == {"scan": tmp_path / "a"}
    assert views(tmp_path, ["a", "b"]) == {"a": tmp_path / "a", "b": tmp_path / "b"}
    with pytest.raises(ValueError, match=r"no folder of views in .* for notes"):
        views(tmp_path, ["a", "notes"])
    with pytest.raises(ValueError, match="one folder of views for 2 cases"):
        views(tmp_path / "a", ["a", "b"])


def volume(seed: int) -> Volume:
    hu = np.random.default_rng(seed).normal(0.0, 300.0, (3, 3, 3)).astype(np.float32)
    return Volume(hu, np.eye(4))


def test_a_case_that_stands_twice_is_told():
    doubles = Doubles()
    doubles.remarks("a", volume(0), volume(1))
    assert doubles.remarks("b", volume(2), volume(1)) == ["b: its truth is identical to that of a"]
    told = doubles.remarks("c", volume(0), volume(3))
    assert told == ["c: its prediction is identical to that of a"]
