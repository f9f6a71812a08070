"""Patients whom published lists of scans share are named, and no others."""

import pytest

from fewview.data.leaks import main, read_list, shared_patients

TWO_SCANS = {  # stand-ins: patient, series in the one and in the other list
    "LIDC-IDRI-0132": (3163, 3164),
    "LIDC-IDRI-0151": (3144, 3145),
    "LIDC-IDRI-0355": (3190, 3191),
}
TRAIN = [
    "LIDC-IDRI-0001.20000101.3000566.1",
    "LIDC-IDRI-0256.20000101.8658.4.1",
    "LIDC-IDRI-0315.20000101.5416.1",
    "LIDC-IDRI-0315.20000101.5435.1",  # two scans, but in one list
    *(f"{patient}.20000101.{series[0]}.1" for patient, series in TWO_SCANS.items()),
]
TEST = [
    "LIDC-IDRI-0535.20000101.30033.16",
    "LIDC-IDRI-0442.20000101.5406.1",
    *(f"{patient}.20000101.{series[1]}.1" for patient, series in TWO_SCANS.items()),
]
VAL = ["LIDC-IDRI-0861.20000101.5505.1", "LIDC-IDRI-0442.20000101.5405.1"]


@pytest.fixture
def lists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, cases in (("train", TRAIN), ("val", VAL), ("test", TEST)):
        (tmp_path / f"{name}.txt").write_text("\n".join(["# cases", *cases, ""]))
    return ["train.txt", "val.txt", "test.txt"]


def test_a_split_like_that_of_clsdm_shares_three_and_one():
    shared = shared_patients({"train": TRAIN, "val": VAL, "test": TEST})
    assert {patient: set(found) for patient, found in shared.items()} == {
        "LIDC-IDRI-0132": {"train", "test"},
        "LIDC-IDRI-0151": {"train", "test"},
        "LIDC-IDRI-0355": {"train", "test"},
        "LIDC-IDRI-0442": {"val", "test"},
    }
    assert shared["LIDC-IDRI-0442"]["val"] == ["LIDC-IDRI-0442.20000101.5405.1"]


def test_a_split_like_that_of_x2ct_shares_one():
    # Its train list is the other's train and test, its test list the other's val.
    assert set(shared_patients({"train": TEST + TRAIN, "test": VAL})) == {"LIDC-IDRI-0442"}


def test_without_the_four_scans_nothing_is_shared():
    train = [case for case in TRAIN if case.split(".")[0] not in TWO_SCANS]
    assert shared_patients({"train": train, "val": VAL[:1], "test": TEST}) == {}


def test_the_program_names_them_and_its_exit_code_tells(lists, capsys):
    assert main(lists) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[3] == (
        "LIDC-IDRI-0442: val.txt (LIDC-IDRI-0442.20000101.5405.1) and "
        "test.txt (LIDC-IDRI-0442.20000101.5406.1)"
    )
    assert lines[-1] == "4 patients in several lists, of 14 cases"
    assert main(lists[:2]) == 0


def test_lists_that_say_nothing_are_refused(lists, tmp_path, capsys):
    (tmp_path / "empty.txt").write_text("# none\n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x80")
    for wrong in (["train.txt"], ["train.txt", "no.txt"], ["train.txt", "empty.txt"]):
        assert main(wrong) == 2
        assert capsys.readouterr().err
    with pytest.raises(ValueError, match="no text with one case"):
        read_list(tmp_path / "binary.txt")
