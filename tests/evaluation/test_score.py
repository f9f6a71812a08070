"""`fewview evaluate`: what it writes, tells and refuses."""

import csv
import json
import math
import shutil

import numpy as np
import pytest
import SimpleITK as sitk

from fewview.evaluation.score import mean_scores


@pytest.fixture
def cases(ct_file, tmp_path):
    """Folders of two predictions and their truths; the second body is smaller."""
    axis = np.linspace(-1, 1, 24)
    distance = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    for folder, more in (("predicted", 25), ("true", 0)):
        (tmp_path / folder).mkdir()
        for name, radius in (("a", 0.7), ("b", 0.5)):
            hu = np.where(distance < radius, 40 + more, -1000).astype(np.int16)
            write(tmp_path / folder / f"{name}.nii.gz", hu)
    return tmp_path / "predicted", tmp_path / "true", tmp_path / "out"


def write(path, values):
    image = sitk.GetImageFromArray(values)
    image.SetSpacing([5.0, 5.0, 5.0])
    sitk.WriteImage(image, str(path))


def words(predicted, true, out, *more):
    return "evaluate", "--prediction", predicted, "--truth", true, "--out", out, *more


def test_every_case_has_a_row_and_every_protocol_its_columns(cases, command):
    done = command(*words(*cases, "--protocol", "hu3d,x2ct,tfprdit_hu,retrieval"))
    assert done.exit_code == 0, done.stderr
    written = json.loads((cases[2] / "metrics.json").read_text())
    rows = list(csv.DictReader((cases[2] / "cases.csv").read_text().splitlines()))
    assert [row["case"] for row in rows] == ["a", "b"]
    for row in rows:
        scores = written["cases"][row["case"]]
        assert {key: float(value) for key, value in row.items() if key != "case"} == pytest.approx(
            scores, nan_ok=True
        )
    assert written["protocols"] == ["hu3d", "x2ct", "tfprdit_hu", "retrieval"]
    assert written["mean"]["tfprdit_hu_soft_mae"] == pytest.approx(25.0)
    assert written["mean"]["retrieval_top1"] == 1.0
    assert "x2ct_psnr_slices" in done.stdout


def test_what_needs_weights_is_skipped_by_name(cases, command):
    done = command(*words(*cases, "--protocol", "perx2ct"))
    assert "perx2ct: skipped LPIPS" in done.stdout
    assert "VGG" in json.loads((cases[2] / "metrics.json").read_text())["skipped"]["perx2ct"]


def test_an_unknown_protocol_is_wrong_usage_and_the_known_ones_are_listed(
    cases, command, complaint
):
    result = command(*words(*cases, "--protocol", "hu3d,psnr"))
    assert result.exit_code == 2
    assert "'psnr'; there is hu3d, x2ct" in complaint(result)
    assert not cases[2].exists()


def test_errors_by_tissue_come_from_a_label_map(cases, command):
    labels = np.zeros((24, 24, 24), dtype=np.uint8)
    labels[12, 12, 12] = 5
    write(cases[1].parent / "labels.nii.gz", labels)
    one = cases[0] / "a.nii.gz", cases[1] / "a.nii.gz", cases[2]
    done = command(*words(*one, "--labels", cases[1].parent / "labels.nii.gz"))
    assert done.exit_code == 0, done.stderr
    assert json.loads((cases[2] / "metrics.json").read_text())["cases"]["a"]["label_5_mae"] == 25.0


def test_the_re_projection_error_comes_from_the_views(cases, command):
    predicted, true, out = cases
    views = out.parent / "views"
    assert command("project", true / "a.nii.gz", "--out", views, "--size", 16).exit_code == 0
    for prediction, low, high in ((true, 0.0, 1e-6), (predicted, 0.01, 0.1)):
        one = prediction / "a.nii.gz", true / "a.nii.gz", out
        done = command(*words(*one, "--views", views, "--force"))
        assert done.exit_code == 0, done.stderr
        score = json.loads((out / "metrics.json").read_text())["cases"]["a"]
        assert low <= score["reprojection_error"] <= high
        assert f"re-projection {score['reprojection_error']:.1%}" in done.stdout


def test_missing_and_identical_cases_are_told_and_refused_where_asked(cases, command, complaint):
    predicted, true, out = cases
    (predicted / "b.nii.gz").unlink()
    shutil.copy(true / "a.nii.gz", predicted / "a.nii.gz")
    told = command(*words(*cases))
    assert told.exit_code == 0
    assert "missing b: no prediction of that truth" in told.stderr
    assert "a: prediction and truth are identical" in told.stderr
    assert len(json.loads((out / "metrics.json").read_text())["remarks"]) == 2
    assert "missing b" in complaint(command(*words(*cases, "--force", "--strict")))
    (true / "b.nii.gz").unlink()
    assert "identical" in complaint(command(*words(*cases, "--force", "--strict")))


def test_a_truth_without_its_couch_is_still_the_truth(cases, command):
    predicted, true, _ = cases
    hu = sitk.GetArrayFromImage(sitk.ReadImage(str(true / "a.nii.gz")))
    shutil.copy(true / "a.nii.gz", predicted / "a.nii.gz")
    hu[:, 23] = -100  # the couch, which is removed again
    write(true / "a.nii.gz", hu)
    told = command(*words(*cases))
    assert "a: prediction and truth are identical" in told.stderr


def test_a_prediction_in_other_units_is_refused_with_its_name(cases, command, complaint):
    for values, says in ((np.float32([0.0, 1.0]), "normalized"), (np.float32([0, np.nan]), "NaN")):
        write(cases[0] / "a.nii.gz", np.resize(values, (24, 24, 24)))
        told = complaint(command(*words(*cases)))
        assert "a.nii.gz" in told
        assert says in told


def test_the_mean_is_over_what_all_cases_have_and_where_it_is_defined():
    scores = {
        "a": {"psnr": 20.0, "dice": math.nan, "body_psnr": 1.0},
        "b": {"psnr": 30.0, "dice": 0.5},
    }
    assert mean_scores(scores) == {"psnr": 25.0, "dice": 0.5}
