"""NIfTI files: the only place where RAS becomes LPS.

NIfTI-1 and NIfTI-2 in one file (`.nii`, `.nii.gz`), any byte order. Where a voxel lies is
read from the sform, else the qform (the order of the standard's own library); a header that
says nothing about its axes is refused, for nobody could tell left from right.
Writing is done here too: the usual library loses data on a full disk without an error.

References:
    nifti1.h and nifti2.h, https://nifti.nimh.nih.gov.
"""

import gzip
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Shaped
from scipy.spatial.transform import Rotation

from fewview.data.payload import ImageHeader, damage_told

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_TYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8",
    256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
}  # fmt: skip
_REFUSED_TYPES = {
    32: "complex numbers", 128: "an RGB image", 1536: "128-bit numbers",
    1792: "complex numbers", 2048: "complex numbers", 2304: "an RGB image",
}  # fmt: skip
_MM_PER_UNIT = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # unknown, meter, mm, micrometer


@dataclass(frozen=True)
class _Layout:
    """Where the fields that we need lie in a version of the header."""

    size: int
    magic: bytes
    magic_at: int
    fields: tuple[tuple[str, int, str], ...]


_NIFTI1 = _Layout(348, b"n+1\0", 344, (
    ("dim", 40, "8h"), ("datatype", 70, "h"), ("pixdim", 76, "8f"), ("vox_offset", 108, "f"),
    ("scl", 112, "2f"), ("units", 123, "b"), ("codes", 252, "2h"), ("quatern", 256, "6f"),
    ("srow", 280, "12f"),
))  # fmt: skip
_NIFTI2 = _Layout(540, b"n+2\0\r\n\x1a\n", 4, (
    ("dim", 16, "8q"), ("datatype", 12, "h"), ("pixdim", 104, "8d"), ("vox_offset", 168, "q"),
    ("scl", 176, "2d"), ("units", 500, "i"), ("codes", 344, "2i"), ("quatern", 352, "6d"),
    ("srow", 400, "12d"),
))  # fmt: skip

_Fields = dict[str, tuple[float | int, ...]]


def read_nifti_header(path: Path) -> ImageHeader:
    """What a NIfTI file says about its values.

    Raises:
        ValueError: If it is no NIfTI file of one gray 3-D image, or places no voxels.
    """
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    with damage_told(path), gzip.open(path) if packed else open(path, "rb") as file:
        raw = file.read(540)
    order, fields = _unpack(raw, path)
    datatype = int(fields["datatype"][0])
    if datatype not in _TYPES:
        found = _REFUSED_TYPES.get(datatype, f"values of unknown type {datatype}")
        raise ValueError(f"{path}: holds {found}, not CT values")
    slope, intercept = fields["scl"]
    if slope == 0.0 or not np.isfinite([slope, intercept]).all():
        slope, intercept = 1.0, 0.0  # the standard's way to say: not scaled
    return ImageHeader(
        shape=_shape(fields, path),
        dtype=np.dtype(order + _TYPES[datatype]),
        voxel_to_patient=RAS_TO_LPS @ _voxel_to_ras(fields, path),
        data_path=path,
        offset=max(int(fields["vox_offset"][0]), 348),
        encoding="whole file gzip" if packed else "raw",
        slope=slope,
        intercept=intercept,
    )


def write_nifti(
    array: Shaped[np.ndarray, "depth height width"],
    voxel_to_patient: Float64[np.ndarray, "4 4"],
    path: Path,
) -> None:
    """Write a NIfTI-1 file, compressed if its name ends in `.gz`.

    Position stands in sform and qform alike, both as scanner coordinates.

    Args:
        array: int16 or uint8 values.
        voxel_to_patient: Where voxel (x, y, z) lies, LPS mm; not sheared.
        path: Is overwritten.
    """
    voxel_to_ras = RAS_TO_LPS @ voxel_to_patient  # its own inverse
    spacing = np.linalg.norm(voxel_to_ras[:3, :3], axis=0)
    cosines = voxel_to_ras[:3, :3] / spacing
    handedness = 1.0 if np.linalg.det(cosines) > 0.0 else -1.0
    cosines[:, 2] *= handedness
    quaternion = Rotation.from_matrix(cosines).as_quat(canonical=True)[:3]
    datatype = {"int16": 4, "uint8": 2}[array.dtype.name]
    values: dict[str, list[float] | list[int]] = {
        "dim": [3, *array.shape[::-1], 1, 1, 1, 1],
        "datatype": [datatype],
        "pixdim": [handedness, *spacing, 0.0, 0.0, 0.0, 0.0],
        "vox_offset": [352.0],
        "scl": [1.0, 0.0],
        "units": [2],  # mm
        "codes": [1, 1],  # scanner coordinates
        "quatern": [*quaternion, *voxel_to_ras[:3, 3]],
        "srow": [*voxel_to_ras[:3].ravel()],
    }
    raw = bytearray(352)
    struct.pack_into("<i", raw, 0, _NIFTI1.size)
    struct.pack_into("<h", raw, 72, 8 * array.dtype.itemsize)
    struct.pack_into("4s", raw, _NIFTI1.magic_at, _NIFTI1.magic)
    for name, at, form in _NIFTI1.fields:
        struct.pack_into("<" + form, raw, at, *values[name])
    data = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    with open(path, "wb") as file:
        if path.name.lower().endswith(".gz"):
            with gzip.GzipFile("", "wb", compresslevel=5, fileobj=file, mtime=0) as packed:
                packed.write(raw)
                packed.write(data.data)
        else:
            file.write(raw)
            file.write(data.data)


def _unpack(raw: bytes, path: Path) -> tuple[str, _Fields]:
    """Byte order and fields of either version."""
    for layout in (_NIFTI1, _NIFTI2):
        for order in "<>":
            if len(raw) < layout.size or struct.unpack_from(order + "i", raw)[0] != layout.size:
                continue
            magic = raw[layout.magic_at : layout.magic_at + len(layout.magic)]
            if magic != layout.magic:
                raise ValueError(
                    f"{path}: not a NIfTI file in one piece (magic {magic!r}); an Analyze file "
                    "or the header of an .hdr/.img pair? Convert it to .nii.gz"
                )
            found = {
                name: struct.unpack_from(order + form, raw, at) for name, at, form in layout.fields
            }
            return order, found
    raise ValueError(f"{path}: no NIfTI header in its first bytes; corrupt, or another format")


def _shape(fields: _Fields, path: Path) -> tuple[int, int, int]:
    """Number of voxels along (z, y, x); the standard allows further axes of length 1."""
    num_axes = int(fields["dim"][0])
    if not 1 <= num_axes <= 7:
        raise ValueError(f"{path}: header says {num_axes} axes; corrupt")
    counts = [int(count) for count in fields["dim"][1 : num_axes + 1]]
    if min(counts) < 1:
        raise ValueError(f"{path}: header says {counts} voxels; corrupt")
    while len(counts) > 3 and counts[-1] == 1:
        counts.pop()
    if len(counts) > 3:
        raise ValueError(
            f"{path}: {len(counts)}-D image {counts} (a film, RGB or vectors?); give one 3-D volume"
        )
    x, y, z = counts + [1] * (3 - len(counts))
    return z, y, x


def _voxel_to_ras(fields: _Fields, path: Path) -> Float64[np.ndarray, "4 4"]:
    """The sform, else the qform, in mm."""
    spacing = np.array(fields["pixdim"][1:4])
    if not (np.isfinite(spacing) & (spacing > 0.0)).all():
        raise ValueError(f"{path}: voxel spacing is missing: header says {spacing.tolist()}")
    qform_code, sform_code = fields["codes"]
    matrix = np.eye(4)
    if sform_code > 0:
        matrix[:3] = np.reshape(fields["srow"], (3, 4))
        lengths = np.linalg.norm(matrix[:3, :3], axis=0)
        if not np.allclose(lengths, spacing, rtol=0.01):
            raise ValueError(
                f"{path}: two voxel spacings: pixdim says {spacing.tolist()}, the sform "
                f"{lengths.tolist()}; repair the header"
            )
    elif qform_code > 0:
        matrix[:3, :3] = _rotation(fields["quatern"][:3]) * spacing
        matrix[:3, 2] *= -1.0 if fields["pixdim"][0] < 0.0 else 1.0
        matrix[:3, 3] = fields["quatern"][3:]
    else:
        raise ValueError(
            f"{path}: says not where its axes point (sform_code and qform_code are 0), so left "
            "could be right; set the orientation with the program that wrote it"
        )
    unit = int(fields["units"][0]) & 7
    matrix[:3] *= _MM_PER_UNIT.get(unit, 1.0)
    return matrix


def _rotation(quaternion: tuple[float | int, ...]) -> Float64[np.ndarray, "3 3"]:
    """Rotation of the unit quaternion whose last three parts are given."""
    b, c, d = quaternion
    a = np.sqrt(max(0.0, 1.0 - (b * b + c * c + d * d)))
    a, b, c, d = np.array([a, b, c, d]) / np.linalg.norm([a, b, c, d])
    return np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
