"""A store knows whose its scans are, where they come from, and what its split is called."""

import numpy as np
import pytest

from fewview.data.images import write_labels, write_volume
from fewview.data.prepare import prepare
from fewview.data.splits import SplitRule
from fewview.data.store import open_store
from fewview.data.volume import Volume


def write_scan(path, fat_hu: float) -> None:
    """A ball of fat in air; 10 mm voxels."""
    axis = np.linspace(-1.0, 1.0, 16)
    distance = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    hu = np.where(distance < 0.8, fat_hu, -1000.0).astype(np.float32)
    write_volume(Volume(hu, np.diag([10.0, 10.0, 10.0, 1.0])), path)


@pytest.fixture
def scans(tmp_path):
    for number in range(3):
        write_scan(tmp_path / "scans" / f"case_{number:04d}" / "ct.nii.gz", -80.0 + number)
    return tmp_path / "scans"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "store"


def test_the_store_keeps_whose_and_from_where_and_names_its_split(scans, out, tmp_path):
    for number in (5, 6):
        write_scan(tmp_path / "more" / "anna" / f"scan_{number}.nii", -90.0 - number)
    report = prepare([scans, tmp_path / "more"], out, size=8)
    store = open_store(out)
    assert {case.id: (case.patient, case.collection) for case in store.cases} == {
        **{f"case_000{n}": (f"case_000{n}", "scans") for n in range(3)},
        "scan_5": ("anna", "more"),
        "scan_6": ("anna", "more"),
    }
    assert report.split_hash == store.split_hash
    assert sum(report.num_patients.values()) == 4
    assert any(line.startswith("5 scans of 4 patients") for line in report.summary())


def test_rule_and_table_change_splits_without_preparing_again(scans, out, tmp_path):
    first = prepare([scans], out, size=8)
    second = prepare([scans], out, size=8, split_rule=SplitRule(val_share=0.0, test_share=0.99))
    assert (second.num_kept, second.num_patients["test"]) == (3, 3)
    assert second.split_hash != first.split_hash
    table = tmp_path / "patients.csv"
    table.write_text("case,patient\ncase_0000,anna\ncase_0001,anna\ncase_0002,bert\n")
    third = prepare([scans], out, size=8, patients_file=table)
    assert (third.num_kept, sum(third.num_patients.values())) == (3, 2)


def test_splits_changed_by_hand_are_set_anew(scans, out):
    report = prepare([scans], out, size=8)
    split = open_store(out).cases[0].split
    other = "test" if split == "train" else "train"
    text = (out / "index.json").read_text()
    (out / "index.json").write_text(text.replace(f'"split": "{split}"', f'"split": "{other}"', 1))
    with pytest.raises(ValueError, match="changed by hand"):
        open_store(out)
    assert prepare([scans], out, size=8).split_hash == report.split_hash
    assert open_store(out).split_hash == report.split_hash


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--layout", "lidc"), "known are folder, lidc-idri, x2ct, ctspine1k"),
        (("--layout", "x2ct"), "needs --stored-offset-hu 1000 or 1024"),
        (("--layout", "x2ct", "--stored-offset-hu", 1001), "1000 or 1024"),
        (("--stored-offset-hu", 1000), "--layout x2ct only"),
        (("--dask", "tcp://here:1", "--workers", 2), "not both"),
        (("--split", "a.csv", "--patients", "b.csv"), "--split says it all"),
        (("--split", "a.csv", "--split-seed", 1), "--split says it all"),
        (("--split-shares", "0.1"), "need 2 numbers"),
    ],
)
def test_wrong_words_are_refused_before_anything_is_read(words, says, tmp_path, command, complaint):
    result = command("prepare", tmp_path, "--out", tmp_path / "store", *words)
    assert says in complaint(result)
    assert result.exit_code == 2
    assert not (tmp_path / "store").exists()


def test_the_command_says_who_is_in_the_store(scans, out, command):
    write_labels(np.ones((4, 4, 4), dtype=np.uint8), np.eye(4), scans / "a_seg.nii")
    result = command("prepare", scans, "--out", out, "--size", 8, "--split-shares", "0,0.99")
    assert result.exit_code == 0, result.stderr
    assert "1 left out, such as scans/a_seg.nii: label map, by its name" in result.stdout
    short = open_store(out).split_hash[:12]
    assert f"3 scans of 3 patients (0 train, 0 val, 3 test; split {short})" in result.stdout
