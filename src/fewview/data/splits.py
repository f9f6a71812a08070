"""Which cases train, which choose and which judge: by patient, and without a leak.

A patient has one split. A split file says which; without one, a hash of the patient's name
does, so that adding cases never moves anyone from one split to another.
"""

import csv
import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SPLITS = ("train", "val", "test")
VAL_SHARE = 0.1
TEST_SHARE = 0.1
_COLUMNS = ["case", "patient", "split"]
_NUM_NAMED = 3  # cases or patients named in an error; the rest is counted


@dataclass(frozen=True)
class Assignment:
    """Whose scan a case is, and what it may be used for."""

    patient: str
    split: str


def default_split(patient: str) -> str:
    """Split of a patient without a split file: 10 % test, 10 % val, the rest train.

    Depends on the name alone. The shares hold on average; of ten patients there may be none
    in val, and then a split file is the way.
    """
    digest = hashlib.sha256(patient.encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2.0**64
    if position < TEST_SHARE:
        return "test"
    return "val" if position < TEST_SHARE + VAL_SHARE else "train"


def assign_splits(case_ids: Sequence[str], split_file: Path | None = None) -> dict[str, Assignment]:
    """Patient and split of every case.

    Args:
        case_ids: The cases found.
        split_file: CSV with the columns `case,patient,split`; it may name further cases.
            Without it each case is a patient of its own, in the default split.

    Raises:
        ValueError: If the file is damaged, forgets a case, or has a patient in two splits.
    """
    if split_file is None:
        return {case: Assignment(case, default_split(case)) for case in case_ids}
    rows = read_split_file(split_file)
    missing = [case for case in case_ids if case not in rows]
    if missing:
        raise ValueError(f"{split_file} has no row for {_some(missing)}")
    return {case: rows[case] for case in case_ids}


def read_split_file(path: Path) -> dict[str, Assignment]:
    """Read and check a split file.

    Args:
        path: CSV with the header `case,patient,split`; an empty patient means that the case
            is the only one of its patient.

    Raises:
        ValueError: If it is no such file, a case comes twice, a split is not train, val or
            test, or a patient is in two splits; with the line or the names.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = list(csv.reader(file, strict=True))
    except FileNotFoundError:
        raise ValueError(f"the split file {path} does not exist") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"the split file {path} is not a CSV text: {error}") from None
    if not lines or [word.strip() for word in lines[0]] != _COLUMNS:
        raise ValueError(f"the first line of {path} must be {','.join(_COLUMNS)}")
    rows: dict[str, Assignment] = {}
    for number, line in enumerate(lines[1:], start=2):
        if not any(line):
            continue
        words = [word.strip() for word in line]
        if len(words) != len(_COLUMNS) or not words[0] or words[2] not in SPLITS:
            raise ValueError(
                f"line {number} of {path} must be case,patient,split with a split of "
                f"{', '.join(SPLITS)}; it is {','.join(line)}"
            )
        if words[0] in rows:
            raise ValueError(f"line {number} of {path} names the case {words[0]} again")
        rows[words[0]] = Assignment(words[1] or words[0], words[2])
    check_disjoint(rows)
    return rows


def check_disjoint(cases: Mapping[str, Assignment]) -> None:
    """Refuse a patient who is in two splits.

    Raises:
        ValueError: With the names of such patients and their splits.
    """
    splits: dict[str, set[str]] = defaultdict(set)
    for assignment in cases.values():
        splits[assignment.patient].add(assignment.split)
    leaks = [
        f"{patient} ({' and '.join(sorted(where))})"
        for patient, where in sorted(splits.items())
        if len(where) > 1
    ]
    if leaks:
        raise ValueError(f"a patient may be in one split only: {_some(leaks)}")


def _some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    rest = len(names) - _NUM_NAMED
    return ", ".join(names[:_NUM_NAMED]) + (f" and {rest} more" if rest > 0 else "")
