"""The geometry of one view as a JSON object, as in `views.json` and geometry files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fewview.xray.geometry import ViewGeometry
from fewview.xray.records import count, number, numbers, read_object, refuse_unknown

DETECTOR_MM = 430.0  # extent of a detector whose pixels a record does not count
GEOMETRY_KEYS = {
    "beam",
    "primary_angle_deg",
    "secondary_angle_deg",
    "roll_deg",
    "sdd_mm",
    "sod_mm",
    "num_rows",
    "num_cols",
    "pixel_pitch_mm",
    "detector_offset_mm",
}
VIEW_KEYS = GEOMETRY_KEYS | {"image", "calibrated", "source", "geometry"}
SOURCES = ("drr", "radiograph")
GEOMETRY_SOURCES = ("measured", "assumed")


def to_record(geometry: ViewGeometry) -> dict[str, Any]:
    """The JSON object of a geometry; a parallel beam has no distances."""
    record: dict[str, Any] = {
        "beam": geometry.beam,
        "primary_angle_deg": geometry.primary_angle_deg,
        "secondary_angle_deg": geometry.secondary_angle_deg,
    }
    if geometry.roll_deg:
        record["roll_deg"] = geometry.roll_deg
    if geometry.beam == "cone":
        record |= {"sdd_mm": geometry.sdd_mm, "sod_mm": geometry.sod_mm}
    return record | {
        "num_rows": geometry.num_rows,
        "num_cols": geometry.num_cols,
        "pixel_pitch_mm": list(geometry.pixel_pitch_mm),
        "detector_offset_mm": list(geometry.detector_offset_mm),
    }


def from_record(
    record: Mapping[str, Any], where: str, size: tuple[int, int] | None = None
) -> ViewGeometry:
    """The geometry in a JSON object.

    Args:
        record: Keys of `GEOMETRY_KEYS`; others are not looked at.
        where: How complaints name the object.
        size: Pixels (rows, cols) of a view whose record does not count them; without it
            its detector is 430 mm high and wide.

    Raises:
        ValueError: If something is missing or cannot be.
    """
    beam = record.get("beam")
    if beam is None:
        raise ValueError(f"{where} has no 'beam': a view needs its geometry")
    if beam not in ("cone", "parallel"):
        raise ValueError(f"{where}: 'beam' must be 'cone' or 'parallel', got {beam!r}")
    distances = {key: number(record, key, where) for key in ("sdd_mm", "sod_mm") if key in record}
    pitch = numbers(record, "pixel_pitch_mm", 2, where)
    if min(pitch) <= 0.0:
        raise ValueError(f"{where}: 'pixel_pitch_mm' must be positive, got {list(pitch)}")
    offset = numbers(record, "detector_offset_mm", 2, where, default=(0.0, 0.0))
    num_rows, num_cols = size or (max(1, round(DETECTOR_MM / one)) for one in pitch)
    primary = number(record, "primary_angle_deg", where)
    secondary = number(record, "secondary_angle_deg", where, default=0.0)
    roll = number(record, "roll_deg", where, default=0.0)
    num_rows = count(record, "num_rows", where, default=num_rows)
    num_cols = count(record, "num_cols", where, default=num_cols)
    try:
        return ViewGeometry(
            beam=beam,
            primary_angle_deg=primary,
            secondary_angle_deg=secondary,
            roll_deg=roll,
            sdd_mm=distances.get("sdd_mm"),
            sod_mm=distances.get("sod_mm"),
            num_rows=num_rows,
            num_cols=num_cols,
            pixel_pitch_mm=(pitch[0], pitch[1]),
            detector_offset_mm=(offset[0], offset[1]),
        )
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def check_marks(record: Mapping[str, Any], where: str) -> None:
    """Refuse marks of a view that mean nothing."""
    if not isinstance(record.get("calibrated", False), bool):
        raise ValueError(f"{where}: 'calibrated' must be true or false")
    for key, choices in (("source", SOURCES), ("geometry", GEOMETRY_SOURCES)):
        if record.get(key, choices[0]) not in choices:
            raise ValueError(f"{where}: '{key}' must be one of {choices}, got {record[key]!r}")


def read_record(path: Path) -> tuple[ViewGeometry, dict[str, Any]]:
    """The geometry in a file with one view of `views.json`, and the whole object.

    Raises:
        ValueError: If the file is not such a view.
    """
    record = read_object(path)
    refuse_unknown(record, VIEW_KEYS, str(path))
    check_marks(record, str(path))
    return from_record(record, str(path)), record
