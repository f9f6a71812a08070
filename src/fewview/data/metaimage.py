"""Headers of MetaImage files: `.mha`, and `.mhd` with its values in a file beside it.

Positions are LPS mm by the format's own convention.

References:
    https://itk.org/Wiki/ITK/MetaIO/Documentation
"""

from math import prod
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from fewview.data.payload import ImageHeader, numbers

_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2",
    "MET_INT": "i4", "MET_UINT": "u4", "MET_LONG": "i4", "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip


def read_metaimage_header(path: Path) -> ImageHeader:
    """What a MetaImage file says about its values.

    Raises:
        ValueError: If it is no MetaImage file of one gray 3-D image, or has no spacing.
    """
    fields, end = _fields(path)
    num_axes = int(numbers(fields.get("NDims", ""), 1, f"{path}: NDims")[0])
    if num_axes != 3:
        raise ValueError(f"{path}: {num_axes}-D image; a 3-D volume is needed")
    if int(fields.get("ElementNumberOfChannels", "1")) != 1:
        raise ValueError(f"{path}: holds an RGB or vector image, not CT values")
    if fields.get("ElementType") not in _TYPES:
        raise ValueError(f"{path}: values of unknown type {fields.get('ElementType')}")
    if not _is_true(fields, "BinaryData", default="True"):
        raise ValueError(f"{path}: values written as text are not supported; write it as binary")
    most_significant_first = _is_true(fields, "BinaryDataByteOrderMSB", "ElementByteOrderMSB")
    dtype = np.dtype((">" if most_significant_first else "<") + _TYPES[fields["ElementType"]])
    x, y, z = (int(count) for count in numbers(fields.get("DimSize", ""), 3, f"{path}: DimSize"))
    if min(x, y, z) < 1:
        raise ValueError(f"{path}: header says {x} x {y} x {z} voxels; corrupt")
    data_path, offset = _place_of_values(path, fields, end, prod((x, y, z)) * dtype.itemsize)
    return ImageHeader(
        shape=(z, y, x),
        dtype=dtype,
        voxel_to_patient=_voxel_to_patient(fields, path),
        data_path=data_path,
        offset=offset,
        encoding="zlib" if _is_true(fields, "CompressedData") else "raw",
    )


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """The lines `name = value`, and where the last of them (ElementDataFile) ends."""
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        for _ in range(1000):
            line = file.readline(10_000)
            name, equals, value = (part.strip() for part in line.decode("latin1").partition("="))
            if not equals or not name.isidentifier():
                break
            fields[name] = value
            if name == "ElementDataFile":
                return fields, file.tell()
    raise ValueError(f"{path}: no MetaImage header (no ElementDataFile line); corrupt?")


def _is_true(fields: dict[str, str], *names: str, default: str = "False") -> bool:
    return next((fields[name] for name in names if name in fields), default).lower() == "true"


def _place_of_values(
    path: Path, fields: dict[str, str], end: int, num_bytes: int
) -> tuple[Path, int]:
    """File with the values, and how many bytes stand before them there."""
    name = fields["ElementDataFile"]
    if name.upper() == "LOCAL":
        return path, end
    if name.upper().startswith("LIST") or "%" in name:
        raise ValueError(f"{path}: a file per slice is not supported; write it as one .mha")
    data_path = path.parent / name
    if not data_path.is_file():
        raise ValueError(f"{path}: its values are in {name}, which is not beside it")
    offset = int(fields.get("HeaderSize", "0"))
    if offset == -1:  # "the values stand at the end"
        offset = max(0, data_path.stat().st_size - num_bytes)
    return data_path, offset


def _voxel_to_patient(fields: dict[str, str], path: Path) -> Float64[np.ndarray, "4 4"]:
    """Direction, spacing and offset; a file without direction is axis-aligned by definition."""

    def field(names: tuple[str, ...], count: int, default: str) -> list[float]:
        value = next((fields[name] for name in names if name in fields), default)
        return numbers(value, count, f"{path}: {names[0]}")

    spacing = field(("ElementSpacing", "ElementSize"), 3, "")
    if not all(0.0 < step < np.inf for step in spacing):
        raise ValueError(f"{path}: voxel spacing is missing: header says {spacing}")
    directions = field(("TransformMatrix", "Rotation", "Orientation"), 9, "1 0 0 0 1 0 0 0 1")
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(directions, (3, 3)).T * spacing
    matrix[:3, 3] = field(("Offset", "Position", "Origin"), 3, "0 0 0")
    return matrix
