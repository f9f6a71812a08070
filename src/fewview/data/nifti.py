"""Headers of NIfTI files: the only place where RAS becomes LPS.

NIfTI-1 and NIfTI-2 in one file (`.nii`, `.nii.gz`), any byte order. Where a voxel lies is
read from the sform, else the qform (the order of the standard's own library); a header that
says nothing about its axes is refused, for nobody could tell left from right.

References:
    nifti1.h and nifti2.h, https://nifti.nimh.nih.gov.
"""

import gzip
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64

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

_Fields = dict[str, tuple[float, ...]]


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
        raise ValueError(f"{path}: {len(counts)}-D image {counts}; give one 3-D volume of it")
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


def _rotation(quaternion: tuple[float, ...]) -> Float64[np.ndarray, "3 3"]:
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
