"""Phantoms on disk: three files a case, whole or not at all."""

import json
from pathlib import Path

import numpy as np
import pytest

from fewview.data.images import read_labels, read_volume
from fewview.data.phantom import cases, phantom, write_cases


def test_a_case_is_a_ct_its_labels_and_its_truth(tmp_path: Path):
    out = tmp_path / "phantoms"
    write_cases(out, 2, size=32, seed=11)
    assert sorted(p.name for p in out.iterdir()) == ["case_0000", "case_0001"]
    for index in range(2):
        case, made = out / f"case_{index:04d}", phantom(11 + index, size=32)
        assert sorted(p.name for p in case.iterdir()) == [
            "ct.nii.gz",
            "labels.nii.gz",
            "truth.json",
        ]
        volume = read_volume(case / "ct.nii.gz")
        np.testing.assert_allclose(volume.hu, made.volume.hu, atol=0.51)
        np.testing.assert_allclose(volume.voxel_to_patient, made.volume.voxel_to_patient, atol=1e-3)
        labels, _ = read_labels(case / "labels.nii.gz")
        np.testing.assert_array_equal(labels, made.labels)
        assert json.loads((case / "truth.json").read_text())["seed"] == 11 + index


def test_a_folder_with_files_is_kept_unless_forced(tmp_path: Path):
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(ValueError, match="force"):
        write_cases(tmp_path, 1, size=16)
    assert (tmp_path / "note.txt").read_text() == "mine"
    out = tmp_path / "phantoms"
    write_cases(out, 2, size=16)
    write_cases(out, 1, size=16, force=True)
    assert [p.name for p in out.iterdir()] == ["case_0000"]


def test_a_broken_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cases, "write_labels", stop)
    with pytest.raises(KeyboardInterrupt):
        write_cases(tmp_path / "phantoms", 1, size=16)
    assert not (tmp_path / "phantoms").exists()


def test_files_do_not_depend_on_the_number_of_workers(tmp_path: Path):
    folders = [tmp_path / "one", tmp_path / "two"]
    for workers, folder in enumerate(folders, start=1):
        write_cases(folder, 3, size=16, seed=7, workers=workers)
    files = [sorted(path for path in folder.rglob("*") if path.is_file()) for folder in folders]
    assert len(files[0]) == 9
    for one, two in zip(*files, strict=True):
        assert one.relative_to(folders[0]) == two.relative_to(folders[1])
        assert one.read_bytes() == two.read_bytes()


def test_a_killed_worker_is_named_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cases, "run_tasks", lambda _work, tasks, **_: [(tasks[0], None)])
    with pytest.raises(ValueError, match="phantom of seed 5 was killed; give fewer workers"):
        write_cases(tmp_path / "phantoms", 2, size=16, seed=5, workers=2)
    assert not (tmp_path / "phantoms").exists()


def test_no_cases_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="count must be 1 or more"):
        write_cases(tmp_path / "phantoms", 0)
