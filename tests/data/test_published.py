"""Published lists become a split file, and nothing is guessed where they do not fit."""

from pathlib import Path

import pytest

from fewview.data.collections import FoundCase
from fewview.data.published import main, split_of_lists


def case(name: str, patient: str = "") -> FoundCase:
    return FoundCase(name, Path(name), f"source/{name}", patient or name, "C")


LIDC = [
    case(f"LIDC-IDRI-{name}", f"LIDC-IDRI-{name[:4]}")
    for name in ("0001.1.11.1", "0132.1.21.1", "0132.1.22.1", "0009.1.31.1")
]
LISTS = {
    "train": ["LIDC-IDRI-0001.1.11.1", "LIDC-IDRI-0132.1.21.1"],
    "val": ["LIDC-IDRI-0777.1.5.1"],
    "test": ["LIDC-IDRI-0132.1.22.1"],
}


def test_the_stricter_list_keeps_a_patient_and_the_rest_is_told():
    splits, without, missing = split_of_lists(LIDC, LISTS, "x2ct")
    assert splits == {"LIDC-IDRI-0001.1.11.1": "train", "LIDC-IDRI-0132.1.22.1": "test"}
    assert [one.id for one in without] == ["LIDC-IDRI-0132.1.21.1", "LIDC-IDRI-0009.1.31.1"]
    assert missing == ["LIDC-IDRI-0777.1.5.1"]


def test_one_name_in_two_lists_is_refused():
    lists = LISTS | {"val": ["LIDC-IDRI-0001.1.11.1"]}
    with pytest.raises(ValueError, match="stands in two lists: train and val"):
        split_of_lists(LIDC, lists, "x2ct")


def test_the_program_writes_rows_and_names_what_to_set_aside(tmp_path, capsys):
    for name in ("a", "b_ct", "c"):
        (tmp_path / "scans").mkdir(exist_ok=True)
        (tmp_path / "scans" / f"{name}.nii.gz").write_bytes(b"")
    for split, name in (("train", "a"), ("val", "b_ct"), ("test", "d")):
        (tmp_path / split).write_text(f"{name}\n")
    words = ["ctspine1k", str(tmp_path / "scans")]
    words += [str(tmp_path / split) for split in ("train", "val", "test")]
    assert main(words) == 1
    out, err = capsys.readouterr()
    assert out.splitlines() == ["case,patient,split", "a,,train", "b_ct,,val"]
    assert err.splitlines() == [
        "1 names without a scan: d",
        "set aside before prepare: scans/c.nii.gz",
    ]
    (tmp_path / "scans" / "c.nii.gz").unlink()
    assert main(words) == 0
    assert main(words[:3]) == 2
