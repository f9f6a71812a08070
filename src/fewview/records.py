"""run.json: what made a result, so that it can be made again.

Holds no path of the machine, only names, so that results can be passed on.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from fewview import __version__
from fewview.data.files import replacing_file

RECORD = "run.json"


def write_record(
    path: str | Path,
    command: str,
    *,
    settings: Mapping[str, object],
    inputs: Sequence[str | Path] = (),
    seed: int | None = None,
    device: str = "cpu",
) -> None:
    """Write down how a result was made.

    Args:
        path: The JSON file to write, `run.json` in a result's folder.
        command: The command that made the result.
        settings: The resolved settings; dataclasses are written out.
        inputs: What was read; only the names are kept.
        seed: The seed, if the result depends on one.
        device: Where it was computed.
    """
    record = {
        "fewview": __version__,
        "command": command,
        "settings": dict(settings),
        "seed": seed,
        "device": device,
        "inputs": [Path(name).name for name in inputs],
    }
    with replacing_file(path) as temporary:
        temporary.write_text(json.dumps(record, indent=1, default=_plain) + "\n", encoding="utf-8")


def is_record_of(path: Path, command: str) -> bool:
    """Whether a file is the record of a result that a command made."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and record.get("command") == command and "fewview" in record


def _plain(value: object) -> Any:
    """What JSON does not know: dataclasses become objects, anything else its text."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return str(value)
