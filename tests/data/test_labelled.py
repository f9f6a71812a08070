"""Labelled CTs: three archives' layouts, grids that agree, divisions without a common patient."""

import json

import numpy as np
import pytest

from fewview.data.images import write_labels, write_volume
from fewview.data.labelled import (
    BTCV_LABELS,
    class_table,
    divide,
    find_labelled,
    labels_on,
    on_cube,
    read_labelled,
)
from fewview.data.phantom import LABELS, write_cases
from fewview.data.volume import Grid, Volume, cubic_grid

GRID = cubic_grid(np.array([3.0, -8.0, 90.0]), size=12, extent_mm=240.0)


def write_pair(ct, labels, *, number=1, shift_mm=0.0):
    """A ball of water in air, and its map; the map lies `shift_mm` further left."""
    axis = np.linspace(-1, 1, 12)
    ball = axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2 < 0.5
    ct.parent.mkdir(parents=True, exist_ok=True)
    labels.parent.mkdir(parents=True, exist_ok=True)
    hu = np.where(ball, 0.0, -1000.0).astype(np.float32)
    write_volume(Volume(hu, GRID.voxel_to_patient), ct)
    moved = GRID.voxel_to_patient.copy()
    moved[0, 3] += shift_mm
    write_labels(ball.astype(np.uint8) * number, moved, labels)


def write_btcv(root, images="img", maps="label", numbers=("0001", "0040")):
    for number in numbers:
        write_pair(
            root / images / f"img{number}.nii.gz", root / maps / f"label{number}.nii.gz", number=6
        )


def write_decathlon(root, **changes):
    """As an archive of the Decathlon unpacks, with the files that a Mac leaves beside."""
    for index in (3, 12):
        name = f"spleen_{index}.nii.gz"
        write_pair(root / "imagesTr" / name, root / "labelsTr" / name)
        (root / "imagesTr" / f"._{name}").write_bytes(b"no image")
    pairs = [
        {"image": f"./imagesTr/spleen_{i}.nii.gz", "label": f"./labelsTr/spleen_{i}.nii.gz"}
        for i in (12, 3)
    ]
    told = {
        "name": "Spleen",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "spleen"},
        "numTraining": 2,
        "training": pairs,
        "test": ["./imagesTs/spleen_1.nii.gz"],
    }
    (root / "dataset.json").write_text(json.dumps(told | changes))


def test_phantoms_are_found_with_the_names_of_their_labels(tmp_path):
    write_cases(tmp_path / "cases", 2, size=16)
    found = find_labelled(tmp_path / "cases", "phantom")
    assert [case.id for case in found.cases] == ["case_0000", "case_0001"]
    assert 0 not in found.labels.values(), "what is outside the body is no class"
    volume, numbers = read_labelled(found.cases[1], found.labels)
    assert volume.shape == numbers.shape
    assert volume.hu[numbers == LABELS["lung"]].mean() < -400


@pytest.mark.parametrize("place", ["", "Training", "RawData/Training"])
@pytest.mark.parametrize("folders", [("img", "label"), ("imagesTr", "labelsTr")])
def test_btcv_is_found_wherever_its_archive_is_unpacked(tmp_path, place, folders):
    write_btcv(tmp_path / place, *folders)
    (tmp_path / "RawData" / "Testing" / "img").mkdir(parents=True)
    found = find_labelled(tmp_path, "btcv")
    assert [(case.id, case.patient) for case in found.cases] == [
        ("img0001", "0001"),
        ("img0040", "0040"),
    ]
    assert set(np.unique(read_labelled(found.cases[0], found.labels)[1])) == {
        0,
        BTCV_LABELS["liver"],
    }


def test_a_task_of_the_decathlon_is_read_by_its_description(tmp_path):
    write_decathlon(tmp_path)
    found = find_labelled(tmp_path, "msd")
    assert (found.name, dict(found.labels)) == ("Spleen", {"spleen": 1})
    assert [case.id for case in found.cases] == ["spleen_12", "spleen_3"]
    assert read_labelled(found.cases[1], found.labels)[1].max() == 1


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"modality": {"0": "FLAIR", "1": "T1w"}}, "must be CT alone, it is FLAIR, T1w"),
        ({"training": []}, "no training case"),
        ({"labels": ["spleen"]}, "does not describe"),
        ({"training": [{"image": "../a.nii.gz", "label": "b.nii.gz"}]}, "outside its folder"),
        ({"training": [{"image": "/a.nii.gz", "label": "b.nii.gz"}]}, "outside its folder"),
        ({"labels": {"0": "background", "256": "much"}}, "0 to 255, which much is not"),
        ({"training": [{"image": "a.nii.gz", "label": "b.nii.gz"}]}, "case a: .* is missing"),
    ],
)
def test_a_description_of_something_else_is_refused(tmp_path, changes, why):
    write_decathlon(tmp_path, **changes)
    with pytest.raises(ValueError, match=why):
        find_labelled(tmp_path, "msd")


@pytest.mark.parametrize("layout", ["phantom", "btcv", "msd"])
def test_a_folder_without_labelled_cases_is_refused(tmp_path, layout):
    with pytest.raises(ValueError, match=r"no phantom|no BTCV|no dataset\.json"):
        find_labelled(tmp_path, layout)


def test_a_scan_without_its_label_map_is_refused_by_name(tmp_path):
    write_btcv(tmp_path)
    (tmp_path / "label" / "label0040.nii.gz").unlink()
    with pytest.raises(ValueError, match=r"case img0040: .*label0040\.nii\.gz is missing"):
        find_labelled(tmp_path, "btcv")


def test_labels_that_lie_elsewhere_than_their_ct_are_refused_by_name(tmp_path):
    write_pair(tmp_path / "img/img0007.nii.gz", tmp_path / "label/label0007.nii.gz", shift_mm=5.0)
    found = find_labelled(tmp_path, "btcv")
    with pytest.raises(ValueError, match=r"img0007: labels lie 0\.25 voxels away"):
        read_labelled(found.cases[0], found.labels)


def test_labels_on_other_voxels_than_their_ct_are_refused_by_name(tmp_path):
    write_btcv(tmp_path)
    write_labels(
        np.zeros((12, 12, 11), dtype=np.uint8),
        GRID.voxel_to_patient,
        tmp_path / "label/label0001.nii.gz",
    )
    found = find_labelled(tmp_path, "btcv")
    with pytest.raises(ValueError, match="case img0001: CT has"):
        read_labelled(found.cases[0], found.labels)


def test_a_label_number_that_nobody_named_is_refused(tmp_path):
    write_pair(tmp_path / "img/img0001.nii.gz", tmp_path / "label/label0001.nii.gz", number=14)
    found = find_labelled(tmp_path, "btcv")
    with pytest.raises(ValueError, match="labels without a name: 14"):
        read_labelled(found.cases[0], found.labels)


def test_no_patient_is_in_two_groups_and_a_division_is_always_the_same(tmp_path):
    write_btcv(tmp_path, numbers=[f"{number:04d}" for number in range(1, 9)])
    cases = find_labelled(tmp_path, "btcv").cases
    counts = {"test": 3, "labelled": 4}
    groups = divide(cases, counts)
    assert [len(groups[name]) for name in counts] == [3, 4]
    assert not set(groups["test"]) & set(groups["labelled"])
    assert divide(cases[::-1], counts)["test"] == groups["test"][::-1]
    assert divide(cases, counts, seed=1) != groups
    larger = divide(cases, {"test": 3, "labelled": 5})
    assert larger["test"] == groups["test"]
    assert set(groups["labelled"]) < set(larger["labelled"])
    with pytest.raises(ValueError, match="8 patients are too few for 5 test, 4 labelled"):
        divide(cases, {"test": 5, "labelled": 4})


def test_classes_join_labels_and_what_is_in_none_is_background():
    labels = {"left": 3, "right": 7, "tumor": 9}
    names, table = class_table(labels, {"kidney": ("left", "right")})
    assert names == ("kidney",)
    assert [table[number] for number in (0, 3, 7, 9)] == [0, 1, 1, 0]
    names, table = class_table(labels, {})
    assert names == ("left", "right", "tumor")
    assert table[[3, 7, 9]].tolist() == [1, 2, 3]


def test_classes_of_unknown_or_doubled_labels_are_refused():
    with pytest.raises(ValueError, match="class a needs labels out of left"):
        class_table({"left": 3}, {"a": ("right",)})
    with pytest.raises(ValueError, match="left is in two classes"):
        class_table({"left": 3}, {"a": ("left",), "b": ("left",)})


def test_ct_and_labels_stay_together_on_the_cube(tmp_path):
    write_btcv(tmp_path, numbers=["0001"])
    found = find_labelled(tmp_path, "btcv")
    volume, numbers = read_labelled(found.cases[0], found.labels)
    cube, labels = on_cube(volume, numbers, size=24, extent_mm=360.0)
    np.testing.assert_allclose(cube.center_mm, volume.center_mm)
    inside, outside = cube.hu[labels == 6], cube.hu[labels == 0]
    assert inside.mean() > -300.0
    assert outside.mean() < -900.0
    assert set(np.unique(labels)) == {0, 6}  # none made between labels


def test_labels_keep_their_place_on_another_grid_and_are_never_mixed():
    coarse = cubic_grid(np.array([5.0, -3.0, 40.0]), size=3, extent_mm=30.0)
    labels = np.arange(27, dtype=np.uint8).reshape(3, 3, 3) * 9
    fine = cubic_grid(np.array([5.0, -3.0, 40.0]), size=6, extent_mm=30.0)
    expected = labels.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    np.testing.assert_array_equal(labels_on((labels, coarse.voxel_to_patient), fine), expected)
    moved = coarse.voxel_to_patient.copy()
    moved[2, 3] += 10.0  # one voxel toward superior
    shifted = labels_on((labels, coarse.voxel_to_patient), Grid((3, 3, 3), moved))
    np.testing.assert_array_equal(shifted[:2], labels[1:])
    assert not shifted[2].any()
