"""Typed values from JSON objects that people may have written by hand.

Every complaint names the place, the key and what was expected.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        ValueError: If the file is not text, not JSON or not an object.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(record, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(record).__name__}")
    return record


def refuse_unknown(record: Mapping[str, Any], known: set[str], where: str) -> None:
    """Refuse keys that nothing would read."""
    unknown = sorted(set(record) - known)
    if unknown:
        names = ", ".join(sorted(known))
        raise ValueError(f"{where}: unknown key {unknown[0]!r}; there are {names}")


def number(
    record: Mapping[str, Any], key: str, where: str, *, default: float | None = None
) -> float:
    """A finite number; required unless there is a default."""
    value = record.get(key, default)
    if value is None:
        raise ValueError(f"{where} has no '{key}'")
    if not _is_number(value):
        raise ValueError(f"{where}: '{key}' must be a finite number, got {value!r}")
    return float(value)


def count(record: Mapping[str, Any], key: str, where: str, *, default: int) -> int:
    """A positive whole number."""
    value = record.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{where}: '{key}' must be a positive whole number, got {value!r}")
    return value


def numbers(
    record: Mapping[str, Any],
    key: str,
    length: int,
    where: str,
    *,
    default: Sequence[float] | None = None,
) -> tuple[float, ...]:
    """A list of so many finite numbers; required unless there is a default."""
    value = record.get(key, default)
    if value is None:
        raise ValueError(f"{where} has no '{key}'")
    is_list = isinstance(value, list | tuple) and len(value) == length
    if not is_list or not all(_is_number(one) for one in value):
        raise ValueError(f"{where}: '{key}' must be {length} finite numbers, got {value!r}")
    return tuple(float(one) for one in value)


def _is_number(value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    try:
        return is_number and math.isfinite(value)  # type: ignore[arg-type]
    except OverflowError:
        return False
