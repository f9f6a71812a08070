"""Per-case results as files: one JSON file each while an experiment runs, tables when it ends."""

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fewview.data.files import replacing_file

CONFIG, PLAN = "config.toml", "plan.json"
RESULTS, COSTS, ERRORS, WORK = "results", "costs", "errors", "work"
"""Files and folders of an experiment."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one method made of one case at one view count with one seed."""

    key: str
    """Hash of everything that determines the result; names its files."""

    method: str
    ceiling: bool
    """Whether the method sees the truth."""

    case: str
    num_views: int
    seed: int
    """0 where the method draws nothing."""

    scores: dict[str, float]
    seconds: float
    """Wall time of the prediction with the model already loaded."""

    nfe: int
    """Denoiser calls for the volume."""

    peak_memory_mb: float | None
    """Peak resident memory of the process while predicting, libraries included, in MB."""

    peak_device_mb: float | None = None
    """Peak memory of tensors on the GPU, in MB."""

    device: str = "cpu"
    num_threads: int = 1
    version: str = ""
    source: str = ""
    """Hash of the package's source at that time."""

    notes: tuple[str, ...] = ()
    """What could not be computed, and why."""


def write_json(path: Path, value: object) -> None:
    """Write strict JSON: numbers that are not finite become the text `nan`, `inf` or `-inf`."""
    with replacing_file(path) as temporary:
        text = json.dumps(_strict(value), indent=1, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def _strict(value: Any) -> Any:
    """A value with its numbers as JSON can say them."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    return value


def write_result(folder: Path, result: Result) -> None:
    """Write a result as `KEY.json`; there once it is whole."""
    write_json(folder / f"{result.key}.json", asdict(result))


def read_result(path: Path) -> Result | None:
    """Read a result; None if it is not there, damaged or of another form: it is made again."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        values["scores"] = {key: float(value) for key, value in values["scores"].items()}
        values["notes"] = tuple(values["notes"])
        return Result(**values)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write_tables(out: Path, results: Sequence[Result]) -> None:
    """Write all results as `results.json` and `results.csv`, a row each."""
    write_json(out / "results.json", [asdict(result) for result in results])
    measures = list(dict.fromkeys(key for result in results for key in result.scores))
    columns = ["method", "ceiling", "case", "num_views", "seed", *measures]
    columns += ["seconds", "nfe", "peak_memory_mb", "peak_device_mb", "device", "num_threads"]
    columns += ["version", "source", "key"]
    with (
        replacing_file(out / "results.csv") as temporary,
        temporary.open("w", newline="", encoding="utf-8") as stream,
    ):
        writer = csv.DictWriter(stream, columns, extrasaction="ignore")
        writer.writeheader()
        for result in results:
            writer.writerow({**asdict(result), **result.scores})
