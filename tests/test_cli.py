"""Commands do their job, and refuse wrong usage with one clear line."""

import json
import shutil

import pytest


def test_help_names_every_command(command):
    result = command("--help")
    assert result.exit_code == 0
    for name in ("demo", "phantom", "prepare", "project", "train", "reconstruct", "evaluate"):
        assert name in result.output


def test_the_version_is_told(command):
    assert command("--version").output.startswith("fewview ")


def test_project_writes_views_with_a_preview_and_a_record(views_folder):
    assert {path.name for path in views_folder.iterdir()} == {
        "views.json", "view_00.tiff", "view_01.tiff", "preview.png", "run.json",
    }  # fmt: skip
    angles = [
        one["primary_angle_deg"]
        for one in json.loads((views_folder / "views.json").read_text())["views"]
    ]
    assert angles == [0.0, 90.0]
    record = json.loads((views_folder / "run.json").read_text())
    assert record["inputs"] == ["scan.nii.gz"]


def test_a_folder_in_use_is_kept_unless_forced(ct_file, views_folder, command, complaint):
    before = (views_folder / "views.json").read_bytes()
    again = ("project", ct_file, "--out", views_folder, "--num-views", 3, "--size", 32)
    assert "--force" in complaint(command(*again))
    assert (views_folder / "views.json").read_bytes() == before
    assert command(*again, "--force").exit_code == 0
    assert (views_folder / "view_02.tiff").exists()


def test_evaluate_scores_a_volume_with_itself_as_perfect(ct_file, tmp_path, command):
    out = tmp_path / "scores"
    result = command(
        "evaluate", "--prediction", ct_file, "--truth", ct_file, "--out", out, "--keep-couch"
    )
    assert result.exit_code == 0, result.stderr
    scores = json.loads((out / "metrics.json").read_text())["cases"]["scan"]
    assert scores["mae"] == 0.0
    assert scores["ssim"] == pytest.approx(1.0)
    assert (out / "scan.png").exists()


def test_evaluate_pairs_folders_by_name_and_says_what_it_left_out(ct_file, tmp_path, command):
    predicted, true = tmp_path / "predicted", tmp_path / "true"
    for folder, names in ((predicted, ("a", "b", "b_sample")), (true, ("a", "b"))):
        folder.mkdir()
        for name in names:
            shutil.copy(ct_file, folder / f"{name}.nii.gz")
    result = command(
        "evaluate", "--prediction", predicted, "--truth", true, "--out", tmp_path / "o"
    )
    assert result.exit_code == 0, result.stderr
    assert "left out b_sample" in result.stderr
    assert "mean: " in result.stdout


def test_phantom_writes_cases(tmp_path, command):
    result = command("phantom", tmp_path / "p", "--count", 1, "--size", 32)
    assert result.exit_code == 0, result.stderr
    assert {path.name for path in (tmp_path / "p" / "case_0000").iterdir()} == {
        "ct.nii.gz", "labels.nii.gz", "truth.json",
    }  # fmt: skip


def test_prepare_leaves_out_one_bad_scan_and_says_why(ct_file, tmp_path, command):
    (tmp_path / "broken.nii.gz").write_bytes(ct_file.read_bytes()[:200])
    result = command("prepare", tmp_path, "--out", tmp_path / "store", "--size", 16, "--keep-couch")
    assert result.exit_code == 0, result.stderr
    assert "broken.nii.gz: truncated" in result.stderr
    assert "1 prepared" in result.stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("reconstruct", "VIEWS", "--out", "ct.jpg"), ".nii.gz"),
        (("reconstruct", "VIEWS", "--out", "ct.nii.gz", "--samples", "0"), "--samples"),
        (("reconstruct", "VIEWS", "--out", "ct.nii.gz", "--uncertainty", "s.nii"), "--samples 2"),
        (("reconstruct", "VIEWS", "--out", "ct.nii.gz", "--device", "cuda:9"), "cpu"),
        (("reconstruct", "VIEWS", "--out", "ct.nii.gz", "--angles-deg", "0,90"), "--angles-deg"),
        (("project", "SCAN", "--out", "o", "--angles-deg", "0,left"), "0,left"),
        (("project", "SCAN", "--out", "o", "--angles-deg", "0", "--num-views", "2"), "not both"),
        (("project", "SCAN", "--out", "o", "--geometry", "chst"), "chest"),
        (("project", "SCAN", "--out", "o", "--isocenter-mm", "1,2"), "3 numbers"),
        (("project", "SCAN", "--outt", "o"), "--out"),
        (("projct", "SCAN"), "project"),
        (("models", "nothing"), "no bundled model nothing"),
    ],
)
def test_wrong_usage_is_exit_2_with_one_line(
    words, says, ct_file, views_folder, tmp_path, monkeypatch, command, complaint
):
    monkeypatch.chdir(tmp_path)
    places = {"VIEWS": views_folder, "SCAN": ct_file}
    result = command(*(places.get(word, word) for word in words))
    assert says in complaint(result)
    assert result.exit_code == 2
