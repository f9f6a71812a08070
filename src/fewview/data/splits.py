"""Which cases train, which choose and which judge: by patient, and without a leak.

A patient has one split. A split file says which; without one, a hash of the patient's name
does, so that adding cases never moves anyone from one split to another. A hash over all
patients and their splits names the whole assignment, for a result to say what it was made on.
"""

import csv
import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

RowT = TypeVar("RowT")

SPLITS = ("train", "val", "test")
_NUM_NAMED = 3  # cases or patients named in an error; the rest is counted


@dataclass(frozen=True)
class Assignment:
    """Whose scan a case is, and what it may be used for."""

    patient: str
    split: str


@dataclass(frozen=True, kw_only=True)
class SplitRule:
    """How patients are split where no file says it."""

    seed: int = 0
    """Another seed is another split of the same patients."""

    val_share: float = 0.1
    """Share of the patients in val."""

    test_share: float = 0.1
    """Share of the patients in test; the rest is train."""

    def __post_init__(self) -> None:
        """Refuse shares that leave nothing to train on."""
        shares = (self.val_share, self.test_share)
        if not (min(shares) >= 0.0 and sum(shares) < 1.0):  # also what is no number
            raise ValueError(
                "the shares of val and test must be at least 0 and below 1 together, got "
                f"{self.val_share:g} and {self.test_share:g}"
            )


DEFAULT_RULE = SplitRule()


def default_split(patient: str, rule: SplitRule = DEFAULT_RULE) -> str:
    """Split of a patient without a split file: 10 % test, 10 % val, the rest train.

    Depends on name, seed and shares alone. The shares hold on average; of ten patients there
    may be none in val, and then a split file is the way.
    """
    # Stores of before there were seeds hash the bare name; seed 0 keeps their splits.
    name = patient if rule.seed == 0 else f"{rule.seed}:{patient}"
    digest = hashlib.sha256(name.encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2.0**64
    if position < rule.test_share:
        return "test"
    return "val" if position < rule.test_share + rule.val_share else "train"


def assign_splits(
    patients: Mapping[str, str],
    split_file: Path | None = None,
    *,
    patients_file: Path | None = None,
    rule: SplitRule = DEFAULT_RULE,
) -> dict[str, Assignment]:
    """Patient and split of every case.

    Args:
        patients: The cases found, and whose they are as far as their layout tells.
        split_file: CSV with the columns `case,patient,split`; it may name further cases. An
            empty patient means the one that the layout tells.
        patients_file: CSV with the columns `case,patient`, instead of a split file.
        rule: How patients are split without a split file.

    Raises:
        ValueError: If a file is damaged, forgets a case, or has a patient in two splits; if
            both files are given.
    """
    if split_file is None:
        if patients_file is not None:
            patients = _of_all(patients, read_patients_file(patients_file), patients_file)
        return {
            case: Assignment(patient, default_split(patient, rule))
            for case, patient in patients.items()
        }
    if patients_file is not None:
        raise ValueError("a split file names the patients too; give one file, not both")
    return _of_all(patients, read_split_file(split_file, patients), split_file)


def read_split_file(path: Path, patients: Mapping[str, str] | None = None) -> dict[str, Assignment]:
    """Read and check a split file.

    Args:
        path: CSV with the header `case,patient,split`.
        patients: Whose scan a case is where the file leaves the patient empty. A case that is
            not in it either is the only one of its patient.

    Raises:
        ValueError: If it is no such file, a case comes twice, a split is not train, val or
            test, or a patient is in two splits; with the line or the names.
    """
    rows: dict[str, Assignment] = {}
    for number, words in _rows(path, ("case", "patient", "split")):
        case, patient, split = words
        if split not in SPLITS:
            raise ValueError(
                f"line {number} of {path} must be case,patient,split with a split of "
                f"{', '.join(SPLITS)}; it is {','.join(words)}"
            )
        rows[case] = Assignment(patient or (patients or {}).get(case, case), split)
    check_disjoint((row.patient, row.split) for row in rows.values())
    return rows


def read_patients_file(path: Path) -> dict[str, str]:
    """Read whose scan each case is: CSV with the header `case,patient`.

    Raises:
        ValueError: If it is no such file, a case comes twice or a patient is missing; with
            the line.
    """
    rows: dict[str, str] = {}
    for number, (case, patient) in _rows(path, ("case", "patient")):
        if not patient:
            raise ValueError(f"line {number} of {path} names no patient for {case}")
        rows[case] = patient
    return rows


def check_disjoint(assigned: Iterable[tuple[str, str]]) -> None:
    """Refuse a patient who is in two splits.

    Args:
        assigned: A patient and a split for every case.

    Raises:
        ValueError: With the names of such patients and their splits.
    """
    splits: dict[str, set[str]] = defaultdict(set)
    for patient, split in assigned:
        splits[patient].add(split)
    leaks = [
        f"{patient} ({' and '.join(sorted(where))})"
        for patient, where in sorted(splits.items())
        if len(where) > 1
    ]
    if leaks:
        raise ValueError(f"a patient may be in one split only: {some(leaks)}")


def split_hash(assigned: Iterable[tuple[str, str]]) -> str:
    """A name for an assignment: SHA-256 of its sorted (patient, split) pairs, as JSON.

    Scans, their order and what was done to them do not matter.
    """
    pairs = sorted(set(assigned))
    return hashlib.sha256(json.dumps(pairs, separators=(",", ":")).encode()).hexdigest()


def patient_of(case: str) -> str:
    """Whose scan a case of a public collection is, by its name.

    LIDC-IDRI's patients are `LIDC-IDRI-nnnn` wherever that stands in a name, such as
    `LIDC-IDRI-0132.20000101.3163.1` in the lists of the X2CT line. Otherwise a name is a
    patient, but for a `_ct` or a channel `_0000` behind it (CTSpine1K, nnU-Net).
    """
    if lidc := re.search(r"LIDC-IDRI-\d{4}", case):
        return lidc[0]
    return re.sub(r"(?<=\d)_0000$", "", re.sub(r"_ct$", "", case))


def some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    rest = len(names) - _NUM_NAMED
    return ", ".join(names[:_NUM_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _of_all(cases: Iterable[str], rows: Mapping[str, RowT], path: Path) -> dict[str, RowT]:
    """The rows of the cases, each of which must have one."""
    cases = list(cases)
    missing = [case for case in cases if case not in rows]
    if missing:
        raise ValueError(f"{path} has no row for {some(missing)}")
    return {case: rows[case] for case in cases}


def _rows(path: Path, columns: Sequence[str]) -> list[tuple[int, list[str]]]:
    """The rows of a CSV with these columns, each with its line; the first names a case."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = list(csv.reader(file, strict=True))
    except FileNotFoundError:
        raise ValueError(f"the table {path} does not exist") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"the table {path} is not a CSV text: {error}") from None
    if not lines or [word.strip() for word in lines[0]] != list(columns):
        raise ValueError(f"the first line of {path} must be {','.join(columns)}")
    rows: list[tuple[int, list[str]]] = []
    known: set[str] = set()
    for number, line in enumerate(lines[1:], start=2):
        if not any(line):
            continue
        words = [word.strip() for word in line]
        if len(words) != len(columns) or not words[0]:
            raise ValueError(
                f"line {number} of {path} must be {','.join(columns)}; it is {','.join(line)}"
            )
        if words[0] in known:
            raise ValueError(f"line {number} of {path} names the case {words[0]} again")
        known.add(words[0])
        rows.append((number, words))
    return rows
