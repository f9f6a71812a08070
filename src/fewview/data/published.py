"""Published lists of cases to a split file for `prepare --split`, whatever the files are called.

    python -m fewview.data.published LAYOUT SOURCE train.txt val.txt test.txt > split.csv

The lists of the X2CT line name LIDC-IDRI's scans `LIDC-IDRI-0132.20000101.3163.1`: patient, date,
series number and a running number. Files of that line carry the same names. Scans from the archive
do not, and are found by patient and Series Number (0020,0011). Elsewhere a case goes by its own
name.

A scan that stands in no list, or whose patient a stricter list claims, has no place in such a
split: each is named, to be set aside before `prepare`, and the exit code is 1.
"""

import csv
import io
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydicom import dcmread

from fewview.data.collections import FoundCase, find_cases
from fewview.data.layouts import dicom_file
from fewview.data.leaks import read_list
from fewview.data.splits import SPLITS, patient_of, some

Key = str | tuple[str, int]

_LIDC_NAME = re.compile(r"(LIDC-IDRI-\d{4})\.\d+\.(\d+)\.\d+")


def split_of_lists(
    cases: Sequence[FoundCase], lists: Mapping[str, Sequence[str]], layout: str
) -> tuple[dict[str, str], list[FoundCase], list[str]]:
    """The split of each scan that published lists give one.

    Args:
        cases: The scans that were found.
        lists: The names of each split.
        layout: How the scans lie.

    Returns:
        The split by case; scans without one; names of the lists without a scan.

    Raises:
        ValueError: If two scans answer to one name, or one name stands in two lists.
    """
    found: dict[Key, FoundCase] = {}
    for case in cases:
        key = _key_of_scan(case, layout)
        if key in found:
            raise ValueError(f"{case.source} and {found[key].source} answer to one name")
        found[key] = case
    owners = {patient_of(name): split for split in SPLITS for name in lists.get(split, ())}
    splits: dict[str, str] = {}
    missing = []
    for split, names in lists.items():
        for name in names:
            scan = found.get(_key_of_name(name, layout))
            if scan is None:
                missing.append(name)
            elif splits.setdefault(scan.id, split) != split:
                raise ValueError(f"{name} stands in two lists: {splits[scan.id]} and {split}")
    kept = {
        case.id: splits[case.id]
        for case in cases
        if case.id in splits and owners[case.patient] == splits[case.id]
    }
    return kept, [case for case in cases if case.id not in kept], missing


def _key_of_name(name: str, layout: str) -> Key:
    """What a published name says of its scan."""
    named = _LIDC_NAME.fullmatch(name)
    if layout == "lidc-idri" and named:
        return named[1], int(named[2])
    return name


def _key_of_scan(case: FoundCase, layout: str) -> Key:
    """What a scan says of its published name."""
    if layout != "lidc-idri":
        return case.id
    file = dicom_file(sorted(one for one in case.path.iterdir() if one.is_file()))
    assert file is not None, "a case of this layout is a folder with DICOM files"
    header = dcmread(file, stop_before_pixels=True, specific_tags=["SeriesNumber"], force=True)
    number = header.get("SeriesNumber")
    return case.id if number is None else (case.patient, int(number))


def main(words: Sequence[str]) -> int:
    """Write the split file to standard output; returns the exit code."""
    if len(words) != 2 + len(SPLITS):
        usage = "usage: python -m fewview.data.published LAYOUT SOURCE TRAIN VAL TEST\n"
        sys.stderr.write(usage)
        return 2
    layout, source, *files = words
    try:
        lists = {split: read_list(Path(file)) for split, file in zip(SPLITS, files, strict=True)}
        cases = find_cases([Path(source)], layout).cases
        splits, without, missing = split_of_lists(cases, lists, layout)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["case", "patient", "split"])
    writer.writerows([case, "", split] for case, split in sorted(splits.items()))
    sys.stdout.write(text.getvalue())
    if missing:
        sys.stderr.write(f"{len(missing)} names without a scan: {some(missing)}\n")
    for case in without:
        sys.stderr.write(f"set aside before prepare: {case.source}\n")
    return 1 if without else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
