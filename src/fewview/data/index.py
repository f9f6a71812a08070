"""The index of a prepared store as text: one line for each case.

What was not yet kept by the first stores stands beside the old keys, where older versions do
not look: both can read the stores of both.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fewview.data.splits import split_hash

FORMAT = "fewview-store/1"
_LATER_SETTINGS = {"layout": "folder", "stored_offset_hu": None}
"""Settings that the first stores lack, and what they were."""

_LATER_OF_CASES = {"collection": "collections", "license": "licenses"}
"""What the first stores do not say of a case, and the table that says it by the case's id."""


class OtherVersionError(Exception):
    """The index was written by a version whose stores this one cannot read."""


def index_text(settings: Mapping[str, Any], cases: Sequence[Mapping[str, Any]]) -> str:
    """The index of a store with these settings and cases."""
    later = {
        table: {case["id"]: case[name] for case in cases if case[name]}
        for name, table in _LATER_OF_CASES.items()
    }
    index = {
        "format": FORMAT,
        **{name: settings[name] for name in _LATER_SETTINGS},
        "settings": {name: settings[name] for name in settings if name not in _LATER_SETTINGS},
        "split_sha256": split_hash((case["patient"], case["split"]) for case in cases),
        **later,
    }
    # With 1,000 cases, json's own indentation takes ten times as long.
    lines = [
        json.dumps({name: case[name] for name in case if name not in _LATER_OF_CASES})
        for case in cases
    ]
    return json.dumps(index)[:-1] + ', "cases": [\n' + ",\n".join(lines) + "\n]}\n"


def parse_index(text: bytes) -> tuple[dict[str, Any], list[dict[str, Any]], str | None]:
    """Settings and cases of an index, and the split hash that it was written with.

    Raises:
        OtherVersionError: If it is the index of another version, with that version's name.
        ValueError, KeyError, TypeError, AttributeError: If it is damaged.
    """
    index = json.loads(text)
    if index["format"] != FORMAT:
        raise OtherVersionError(repr(index["format"]))
    later = {name: index.get(name, before) for name, before in _LATER_SETTINGS.items()}
    tables = {name: index.get(table, {}) for name, table in _LATER_OF_CASES.items()}
    cases = [
        {**case, **{name: table.get(case["id"], "") for name, table in tables.items()}}
        for case in index["cases"]
    ]
    return {**index["settings"], **later}, cases, index.get("split_sha256")
