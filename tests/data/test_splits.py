"""No patient is in two splits, whatever a split file says."""

from collections import Counter

import pytest

from fewview.data.splits import SPLITS, Assignment, assign_splits, default_split, read_split_file

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
    assert assign_splits(["a2", "b"], path) == {
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
        assign_splits(["a", "b", "c", "d", "e"], path)


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
