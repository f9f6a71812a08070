"""Headers of NRRD files: `.nrrd`, and `.nhdr` with its values in a file beside it.

References:
    http://teem.sourceforge.net/nrrd/format.html
"""

import re
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float64

from fewview.data.payload import ImageHeader, numbers

_TYPES = {
    "i1": "signed char, int8, int8_t",
    "u1": "uchar, unsigned char, uint8, uint8_t",
    "i2": "short, short int, signed short, signed short int, int16, int16_t",
    "u2": "ushort, unsigned short, unsigned short int, uint16, uint16_t",
    "i4": "int, signed int, int32, int32_t",
    "u4": "uint, unsigned int, uint32, uint32_t",
    "i8": "longlong, long long, long long int, signed long long, int64, int64_t",
    "u8": "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t",
    "f4": "float",
    "f8": "double",
}
_TYPE_OF = {name: code for code, names in _TYPES.items() for name in names.split(", ")}
_TO_LPS = {
    "left-posterior-superior": (1.0, 1.0, 1.0), "lps": (1.0, 1.0, 1.0),
    "right-anterior-superior": (-1.0, -1.0, 1.0), "ras": (-1.0, -1.0, 1.0),
    "left-anterior-superior": (1.0, -1.0, 1.0), "las": (1.0, -1.0, 1.0),
}  # fmt: skip


def read_nrrd_header(path: Path) -> ImageHeader:
    """What an NRRD file says about its values.

    Raises:
        ValueError: If it is no NRRD file of one gray 3-D image in patient space.
    """
    fields, end = _fields(path)
    num_axes = int(numbers(fields.get("dimension", ""), 1, f"{path}: dimension")[0])
    if num_axes != 3:
        colors = " (RGB or vector?)" if "space" in fields and num_axes == 4 else ""
        raise ValueError(f"{path}: {num_axes}-D image{colors}; a 3-D volume is needed")
    if re.search(r"vector|color|complex|matrix", fields.get("kinds", ""), re.IGNORECASE):
        raise ValueError(f"{path}: holds an RGB or vector image, not CT values")
    x, y, z = (int(count) for count in numbers(fields.get("sizes", ""), 3, f"{path}: sizes"))
    if min(x, y, z) < 1:
        raise ValueError(f"{path}: header says {x} x {y} x {z} voxels; corrupt")
    if fields.get("type", "").lower() not in _TYPE_OF:
        raise ValueError(f"{path}: values of unknown type {fields.get('type')}")
    order = ">" if fields.get("endian", "little").lower() == "big" else "<"
    data_path, offset = _place_of_values(path, fields, end)
    return ImageHeader(
        shape=(z, y, x),
        dtype=np.dtype(order + _TYPE_OF[fields["type"].lower()]),
        voxel_to_patient=_voxel_to_patient(fields, path),
        data_path=data_path,
        offset=offset,
        encoding=_encoding(path, fields),
    )


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """The lines `name: value`, and where the empty line after them ends."""
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        if not file.readline(100).startswith(b"NRRD"):
            raise ValueError(f"{path}: no NRRD header in its first bytes; corrupt?")
        for _ in range(10_000):
            raw = file.readline(100_000)
            line = raw.decode("latin1").rstrip("\r\n")
            if not line:
                return fields, file.tell()
            name, colon, value = line.partition(": ")
            if colon and not line.startswith("#"):
                fields[name.strip().lower().replace("datafile", "data file")] = value.strip()
    raise ValueError(f"{path}: the NRRD header does not end; corrupt?")


def _place_of_values(path: Path, fields: dict[str, str], end: int) -> tuple[Path, int]:
    """File with the values, and how many bytes stand before them there."""
    if fields.get("line skip", "0") != "0" or fields.get("byte skip", "0") != "0":
        raise ValueError(f"{path}: skipped lines or bytes are not supported; write it as .nrrd")
    name = fields.get("data file")
    if name is None:
        return path, end
    if name.upper().startswith("LIST") or "%" in name:
        raise ValueError(f"{path}: a file per slice is not supported; write it as one .nrrd")
    if not (path.parent / name).is_file():
        raise ValueError(f"{path}: its values are in {name}, which is not beside it")
    return path.parent / name, 0


def _encoding(path: Path, fields: dict[str, str]) -> Literal["raw", "gzip"]:
    match fields.get("encoding", "").lower():
        case "raw":
            return "raw"
        case "gzip" | "gz":
            return "gzip"
        case other:
            raise ValueError(f"{path}: encoding {other!r} is not supported; write it as gzip")


def _voxel_to_patient(fields: dict[str, str], path: Path) -> Float64[np.ndarray, "4 4"]:
    """Directions and origin in a space that names the patient's sides."""
    space = fields.get("space", "").lower()
    if space not in _TO_LPS:
        raise ValueError(
            f"{path}: space {space!r} says not where the patient's left is; "
            "write it with space left-posterior-superior"
        )
    units = fields.get("space units", "mm").replace('"', " ").split()
    if not set(units) <= {"mm", "millimeter", "millimeters"}:
        raise ValueError(f"{path}: space units {units} are not mm")
    vectors = re.sub(r"[(),]", " ", fields.get("space directions", ""))
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(numbers(vectors, 9, f"{path}: space directions"), (3, 3)).T
    origin = re.sub(r"[(),]", " ", fields.get("space origin", ""))
    matrix[:3, 3] = numbers(origin, 3, f"{path}: space origin")
    return np.diag([*_TO_LPS[space], 1.0]) @ matrix
