"""TOML files to frozen dataclasses and back.

A configuration is a frozen standard dataclass beside the code it configures. This module
only reads and writes them: it knows no field of any. Nothing is guessed: an unknown key,
also a nested one, is an error that names the key, the file and what may have been meant,
and a string is never taken for a number.
"""

import dataclasses
import json
import math
import tomllib
import types
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path, PurePath
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")

_MAX_PROBLEMS_SHOWN = 3


def load(path: str | Path, kind: type[T]) -> T:
    """Read a TOML file as a dataclass.

    Args:
        path: The TOML file.
        kind: The dataclass to build; its fields may be dataclasses again, or unions of
            dataclasses told apart by a `kind` literal. Where one member alone has a default for
            `kind`, a table without it means that member.

    Returns:
        A validated instance of `kind`.

    Raises:
        ValueError: If the file is not TOML, has an unknown key, lacks a required one, or a
            value has the wrong type or is refused by its dataclass. The message is one line
            with the file and the path of the key.
        OSError: If the file cannot be read.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text file, so not a TOML configuration") from error
    return parse(text, kind, name=str(path))


def parse(text: str, kind: type[T], *, name: str = "configuration") -> T:
    """Read TOML text as a dataclass; `name` stands for the file in messages.

    Args:
        text: The TOML text.
        kind: The dataclass to build, as in `load`.
        name: What to call the text in messages.

    Returns:
        A validated instance of `kind`.

    Raises:
        ValueError: As for `load`.
    """
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{name}: not valid TOML: {error}") from error
    unknown = list(_unknown_keys(values, kind, ()))
    if unknown:
        raise ValueError(f"{name}: {_join(unknown)}")
    _name_kinds(values, kind)
    try:
        # Through JSON because pydantic's strict mode takes lists for tuples and tables for
        # dataclasses only there, and strict mode is what keeps "3" from becoming 3.
        return TypeAdapter(kind).validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        raise ValueError(f"{name}: {_join(_problems(error))}") from None


def value_at(path: str | Path, *keys: str) -> object:
    """The value at a path of keys in a TOML file, None where there is none.

    For telling what kind of file it is; what cannot be read at all is left to `load` to refuse.
    """
    try:
        value: object = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError):
        return None
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def to_toml(config: object) -> str:
    """Write a dataclass as TOML text that `parse` reads back to an equal one.

    Args:
        config: An instance of a dataclass; fields that are None are left out.

    Returns:
        TOML text, one table per nested dataclass.

    Raises:
        ValueError: If a field is None though its default is not, which TOML cannot say.
    """
    assert dataclasses.is_dataclass(config), f"not a dataclass: {config!r}"
    assert not isinstance(config, type), f"a class, not an instance: {config!r}"
    return "\n".join(_table_lines(_as_dict(config), ())) + "\n"


def _unknown_keys(value: object, kind: Any, at: tuple[str, ...]) -> Iterator[str]:
    """One message per key below `value` that no field of `kind` has."""
    if isinstance(value, Mapping):
        kind = _dataclass_for(value, kind)
        if not dataclasses.is_dataclass(kind):
            inner = get_args(kind)[1] if get_origin(kind) is dict else object
            for key, item in value.items():
                yield from _unknown_keys(item, inner, (*at, key))
            return
        hints = get_type_hints(kind)
        names = [field.name for field in dataclasses.fields(kind) if field.init]
        for key, item in value.items():
            if key in names:
                yield from _unknown_keys(item, hints[key], (*at, key))
            else:
                yield _unknown_message(key, names, at)
    elif isinstance(value, list):
        for index, (item, entry) in enumerate(zip(value, _entries(value, kind), strict=True)):
            yield from _unknown_keys(item, entry, (*at, str(index)))


def _entries(value: Sequence[object], kind: Any) -> list[Any]:
    """What each entry of a list is to be."""
    known = [arg for arg in get_args(_without_none(kind)) if arg is not Ellipsis] or [object]
    return [known[min(index, len(known) - 1)] for index in range(len(value))]


def _unknown_message(key: str, names: Sequence[str], at: tuple[str, ...]) -> str:
    """Say which key is unknown, where, and what may have been meant."""
    near = get_close_matches(key, names, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known here: {', '.join(names)}"
    return f"unknown key {'.'.join((*at, key))} ({hint})"


def _without_none(kind: Any) -> Any:
    """Strip None from an optional type."""
    if get_origin(kind) not in (Union, types.UnionType):
        return kind
    members = tuple(arg for arg in get_args(kind) if arg is not type(None))
    return members[0] if len(members) == 1 else kind


def _dataclass_for(value: Mapping[str, object], kind: Any) -> Any:
    """The member of a union of dataclasses whose `kind` literal a table names."""
    kind = _without_none(kind)
    if get_origin(kind) not in (Union, types.UnionType):
        return kind
    wanted = value.get("kind", _default_kind(kind))
    for member in get_args(kind):
        if dataclasses.is_dataclass(member):
            literal = get_type_hints(member).get("kind")
            if get_origin(literal) is Literal and wanted in get_args(literal):
                return member
    return object  # pydantic names the wrong or missing `kind`


def _default_kind(union: Any) -> object:
    """The one default for `kind` among the members of a union; None if there is none or several."""
    defaults = [
        field.default
        for member in get_args(union)
        if dataclasses.is_dataclass(member)
        for field in dataclasses.fields(member)
        if field.name == "kind" and field.default is not dataclasses.MISSING
    ]
    return defaults[0] if len(defaults) == 1 else None


def _name_kinds(value: object, kind: Any) -> None:
    """Write the default `kind` into the tables below `value` that leave it out."""
    if isinstance(value, dict):
        union, member = _without_none(kind), _dataclass_for(value, kind)
        if not dataclasses.is_dataclass(member):
            return
        if member is not union and "kind" not in value:
            value["kind"] = _default_kind(union)
        hints = get_type_hints(member)
        for key, item in value.items():
            _name_kinds(item, hints.get(key, object))
    elif isinstance(value, list):
        for item, entry in zip(value, _entries(value, kind), strict=True):
            _name_kinds(item, entry)


def _problems(error: ValidationError) -> Iterator[str]:
    """One message per problem pydantic found, with the path of the key."""
    for problem in error.errors(include_url=False):
        where = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "missing":
            yield f"missing key {where}"
        elif problem["type"] in ("value_error", "assertion_error"):
            message = str(problem["ctx"]["error"])
            yield f"{where}: {message}" if where else message
        else:
            message = problem["msg"][0].lower() + problem["msg"][1:]
            yield f"{where or 'the file'}: {message}, got {_short(problem['input'])}"


def _short(value: object) -> str:
    """A value as a message shows it."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _join(problems: Iterator[str] | list[str]) -> str:
    """The first problems on one line, and how many more there are."""
    found = [" ".join(problem.split()) for problem in problems]
    shown = "; ".join(found[:_MAX_PROBLEMS_SHOWN])
    more = len(found) - _MAX_PROBLEMS_SHOWN
    return f"{shown}; and {more} more" if more > 0 else shown


def _as_dict(config: Any) -> dict[str, object]:
    """The fields of a dataclass that can be set, nested ones as dicts, None left out."""
    found: dict[str, object] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if not field.init:
            continue
        if value is None:
            if field.default is not None:
                raise ValueError(
                    f"{field.name} is None, which TOML cannot say; make it the default"
                )
            continue
        found[field.name] = _plain(value)
    return found


def _plain(value: object) -> object:
    """A field's value as TOML knows it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _as_dict(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value.as_posix() if isinstance(value, PurePath) else value


def _table_lines(table: Mapping[str, object], at: tuple[str, ...]) -> Iterator[str]:
    """The lines of one table: its own values first, as TOML wants, then its tables."""
    for key, value in table.items():
        if not isinstance(value, dict):
            yield f"{_key(key)} = {_value(value)}"
    for key, value in table.items():
        if isinstance(value, dict):
            below = (*at, _key(key))
            yield ""
            yield f"[{'.'.join(below)}]"
            yield from _table_lines(value, below)


def _key(name: str) -> str:
    """A key, quoted where TOML needs it."""
    bare = name.isascii() and name.replace("_", "a").replace("-", "a").isalnum()
    return name if bare else _value(name)


def _value(value: object) -> str:
    """One value as TOML text."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case float() if not math.isfinite(value):
            return str(value)
        case int() | float():
            return repr(value)
        case list():
            return f"[{', '.join(_value(item) for item in value)}]"
        case dict():
            pairs = ", ".join(f"{_key(key)} = {_value(item)}" for key, item in value.items())
            return f"{{ {pairs} }}" if pairs else "{}"
    raise ValueError(f"TOML cannot say {value!r}")
