"""Lists of cases checked for patients who stand in two of them.

Published splits are lists of scans, and some patients have two scans. Run it on such lists,
one file for each split and one case a line:

    python -m fewview.data.leaks train.txt val.txt test.txt

It names every patient who is in several lists, and exits with 1 if there is one.
"""

import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from fewview.data.splits import patient_of


def shared_patients(lists: Mapping[str, Sequence[str]]) -> dict[str, dict[str, list[str]]]:
    """Patients with cases in several lists.

    Args:
        lists: The cases of each list, by its name; whose they are is told by `patient_of`.

    Returns:
        For each such patient, in order, the lists and the cases in them.
    """
    where: dict[str, dict[str, list[str]]] = defaultdict(dict)
    for name, cases in lists.items():
        for case in cases:
            where[patient_of(case)].setdefault(name, []).append(case)
    return {patient: found for patient, found in sorted(where.items()) if len(found) > 1}


def read_list(path: Path) -> list[str]:
    """The cases of a text file, one a line; empty lines and those with `#` do not count.

    Raises:
        ValueError: If it is no text, or names no case.
        OSError: If it cannot be read.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no text with one case a line") from None
    cases = [line for line in lines if line and not line.startswith("#")]
    if not cases:
        raise ValueError(f"{path} names no case")
    return cases


def main(words: Sequence[str]) -> int:
    """Check the lists named on the command line; returns the exit code."""
    if len(words) < 2:
        sys.stderr.write("usage: python -m fewview.data.leaks LIST LIST ...\n")
        return 2
    try:
        lists = {word: read_list(Path(word)) for word in words}
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    shared = shared_patients(lists)
    for patient, found in shared.items():
        places = [f"{name} ({', '.join(cases)})" for name, cases in found.items()]
        sys.stdout.write(f"{patient}: {' and '.join(places)}\n")
    num_cases = sum(len(cases) for cases in lists.values())
    sys.stdout.write(f"{len(shared)} patients in several lists, of {num_cases} cases\n")
    return 1 if shared else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
