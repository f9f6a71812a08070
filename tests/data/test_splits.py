"""No patient is in two splits, whatever a split file says."""

from collections import Counter

import pytest

from fewview.data.splits import (
    SPLITS,
    Assignment,
    SplitRule,
    assign_splits,
    check_disjoint,
    default_split,
    patient_of,
    read_split_file,
    split_hash,
)

KNOWN = (
    "val train train test train train train train train train "
    "train train train val val train train test train train"
)


@pytest.fixture
def split_file(tmp_path):
    def write(text):
        path = tmp_path / "split.csv"
        path.write_text(text)
        return path

    return write


def test_a_split_file_says_whose_scan_a_case_is_and_where_it_goes(split_file):
    path = split_file("case,patient,split\r\na1,anna,train\r\na2, anna ,train\r\n\r\nb,,val\r\n")
    assert assign_splits({"a2": "a2", "b": "b"}, path) == {
        "a2": Assignment("anna", "train"),
        "b": Assignment("b", "val"),
    }


def test_a_patient_in_two_splits_is_refused_by_name(split_file):
    path = split_file("case,patient,split\na1,anna,train\na2,anna,test\nb,,val\n")
    with pytest.raises(ValueError, match=r"one split only: anna \(test and train\)$"):
        read_split_file(path)


def test_a_case_named_like_another_ones_patient_counts_as_that_patient(split_file):
    path = split_file("case,patient,split\nanna,,train\na2,anna,test\n")
    with pytest.raises(ValueError, match="anna"):
        read_split_file(path)


def test_a_case_without_a_row_is_refused(split_file):
    path = split_file("case,patient,split\na,,train\n")
    with pytest.raises(ValueError, match=r"no row for b, c, d and 1 more"):
        assign_splits({case: case for case in "abcde"}, path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "first line"),
        ("case,split\na,train\n", "first line"),
        ("case,patient,split\na,a,training\n", "line 2 .*train, val, test"),
        ("case,patient,split\na,a\n", "line 2"),
        ("case,patient,split\n,a,train\n", "line 2"),
        ("case,patient,split\na,a,train\na,a,train\n", "line 3 .*names the case a again"),
        ('case,patient,split\n"a', "not a CSV"),
    ],
)
def test_a_damaged_split_file_is_refused_with_the_line(split_file, text, message):
    with pytest.raises(ValueError, match=message):
        read_split_file(split_file(text))


def test_a_split_file_that_is_no_text_or_not_there_is_refused(tmp_path):
    (tmp_path / "split.csv").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ValueError, match="not a CSV text"):
        read_split_file(tmp_path / "split.csv")
    with pytest.raises(ValueError, match="does not exist"):
        read_split_file(tmp_path / "other.csv")


def test_the_default_split_keeps_its_shares_and_never_changes():
    counts = Counter(default_split(f"patient {number}") for number in range(5000))
    assert set(counts) == set(SPLITS)
    assert counts["val"] / 5000 == pytest.approx(0.1, abs=0.015)
    assert counts["test"] / 5000 == pytest.approx(0.1, abs=0.015)
    known = [default_split(f"case_{number:04d}") for number in range(20)]
    assert known == KNOWN.split(), (
        "a change would move patients between the splits of existing stores"
    )


def test_shares_and_seed_make_another_split_that_keeps_the_shares():
    rule = SplitRule(seed=3, val_share=0.05, test_share=0.3)
    splits = [default_split(f"patient {number}", rule) for number in range(5000)]
    assert splits.count("val") / 5000 == pytest.approx(0.05, abs=0.015)
    assert splits.count("test") / 5000 == pytest.approx(0.3, abs=0.02)
    other = SplitRule(seed=4, val_share=0.05, test_share=0.3)
    moved = [default_split(f"patient {number}", other) for number in range(5000)]
    agree = sum(a == b for a, b in zip(splits, moved, strict=True)) / 5000
    assert agree == pytest.approx(0.05**2 + 0.3**2 + 0.65**2, abs=0.03), "as unrelated draws do"


@pytest.mark.parametrize("shares", [(-0.1, 0.1), (0.5, 0.5), (float("nan"), 0.1)])
def test_shares_that_leave_nothing_to_train_on_are_refused(shares):
    with pytest.raises(ValueError, match="below 1 together"):
        SplitRule(val_share=shares[0], test_share=shares[1])


def test_all_scans_of_a_patient_share_the_default_split():
    patients = {f"scan {number}": f"patient {number // 3}" for number in range(300)}
    assigned = assign_splits(patients)
    check_disjoint((row.patient, row.split) for row in assigned.values())
    assert {row.split for row in assigned.values()} == set(SPLITS)


def test_a_split_file_that_leaves_a_patient_open_gets_the_layouts(split_file):
    path = split_file("case,patient,split\na1,,train\na2,,test\n")
    assert assign_splits({"a1": "a1", "a2": "a2"}, path)["a2"] == Assignment("a2", "test")
    with pytest.raises(ValueError, match=r"one split only: anna \(test and train\)"):
        assign_splits({"a1": "anna", "a2": "anna"}, path)


def test_a_table_says_whose_the_scans_are(split_file):
    path = split_file("case,patient\na1,anna\na2,anna\nother,bert\n")
    assigned = assign_splits({"a1": "a1", "a2": "a2"}, patients_file=path)
    assert {row.patient for row in assigned.values()} == {"anna"}
    assert {row.split for row in assigned.values()} == {default_split("anna")}
    with pytest.raises(ValueError, match="no row for a3"):
        assign_splits({"a3": "a3"}, patients_file=path)
    with pytest.raises(ValueError, match="one file, not both"):
        assign_splits({"a1": "a1"}, path, patients_file=path)
    with pytest.raises(ValueError, match=r"line 2 .*names no patient for a1"):
        assign_splits({"a1": "a1"}, patients_file=split_file("case,patient\na1,\n"))


def test_the_hash_names_who_is_where_and_nothing_else():
    pairs = [("anna", "train"), ("bert", "test")]
    assert split_hash(reversed([*pairs, *pairs])) == split_hash(pairs)
    assert split_hash([("anna", "test"), ("bert", "train")]) != split_hash(pairs)
    assert split_hash([("anna", "train")]) != split_hash(pairs)
    assert split_hash(pairs).startswith("72d8e9deb2b5"), "names in published results must last"


@pytest.mark.parametrize(
    ("case", "patient"),
    [
        ("LIDC-IDRI-0132.20000101.3163.1", "LIDC-IDRI-0132"),
        ("LIDC-IDRI/LIDC-IDRI-0132/01-01-2000-1/3163", "LIDC-IDRI-0132"),
        ("1.3.6.1.4.1.9328.50.4.0001", "1.3.6.1.4.1.9328.50.4.0001"),
        ("volume-covid19-A-0003_ct", "volume-covid19-A-0003"),
        ("liver_12_0000", "liver_12"),
        ("case_0000", "case_0000"),
    ],
)
def test_a_name_tells_the_patient(case, patient):
    assert patient_of(case) == patient
