"""CT series: the only place that knows the DICOM tags of CT.

A folder may hold anything; CT slices are picked out and sorted into series. Within one,
slices are ordered by Image Position (Patient), never by name or instance number, which
run either way.

References:
    DICOM PS3.3 A.3 (CT Image IOD), C.7.6.2 (Image Plane), C.8.2.1 (CT Image).
"""

import struct
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64
from pydicom import Dataset, dcmread
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.uid import CTImageStorage, DeflatedExplicitVRLittleEndian

from fewview.data.checks import LOWEST_HU, checked_geometry, checked_hu
from fewview.data.payload import check_size
from fewview.data.slices import SliceStack, refuse_repeated, straighten, unevenness
from fewview.data.volume import Volume, to_patient_axes

_HEADER_TAGS = [
    "SOPClassUID", "ImageType", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription",
    "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing",
]  # fmt: skip
_DAMAGE = (
    InvalidDicomError, BytesLengthException, EOFError, ValueError, RuntimeError, AttributeError,
    KeyError, TypeError, NotImplementedError, struct.error,
)  # fmt: skip
"""What pydicom raises on files that are cut off or damaged, depending on where."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Series:
    """The CT slices of one series, in no order."""

    uid: str
    number: int | None
    description: str
    files: tuple[Path, ...]
    headers: tuple[Dataset, ...]

    def __str__(self) -> str:
        """One series in a list to choose from."""
        number = "without number" if self.number is None else f"number {self.number}"
        return f"{number} {self.description!r} with {len(self.files)} slices (UID {self.uid})"


def list_series(folder: str | Path) -> list[Series]:
    """All CT series in a folder and the folders below it.

    Other objects (scout views, PET, dose reports, segmentations) and other files are skipped.

    Raises:
        ValueError: If there is no CT slice, with what is there; if a file is damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    found: dict[str, list[tuple[Path, Dataset]]] = {}
    others: Counter[str] = Counter()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        header = _header(path)
        kind = "files that are not DICOM" if header is None else _kind(header)
        if header is not None and kind == "CT":
            found.setdefault(str(header.get("SeriesInstanceUID", "")), []).append((path, header))
        else:
            others[kind] += 1
    if not found:
        there = ", ".join(f"{count} {kind}" for kind, count in others.items()) or "it is empty"
        raise ValueError(f"{folder}: no CT slices in this folder ({there})")
    return sorted((_series(uid, members) for uid, members in found.items()), key=_series_order)


def read_series(
    folder: str | Path, series: str | None = None, resample_uneven: bool = False
) -> Volume:
    """Read one CT series as a volume in HU.

    Args:
        folder: Searched with all folders below it.
        series: SeriesInstanceUID, the start of it, or the series number; needed only where
            there are several.
        resample_uneven: Bring a tilted or uneven stack, or one with missing slices, to an
            even one by interpolation instead of refusing it.

    Raises:
        ValueError: If there is not exactly one such series, if slices are damaged, repeated,
            missing, uneven or tilted, or if values are not in HU. Slices are named.
    """
    chosen = _choose(list_series(folder), series, Path(folder))
    if len(chosen.files) < 2:
        raise ValueError(f"{folder}: series {chosen.uid} has 1 slice, which is no volume")
    stack, order = _stack(chosen).sorted()
    try:
        refuse_repeated(stack)
        problem = unevenness(stack)
        if problem and not resample_uneven:
            raise ValueError(f"{problem}; resample_uneven=True interpolates")
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None
    header = chosen.headers[0]
    size = (len(order), int(header.Rows), int(header.Columns))
    check_size(size, 4, Path(folder))
    hu = np.empty(size, np.float32)
    for slot, index in enumerate(order):
        hu[slot] = _slice_hu(chosen.files[index], size[1:])
    hu = checked_hu(hu, folder)
    matrix = stack.voxel_to_patient()
    if problem:
        hu, matrix = straighten(hu, stack, outside_hu=LOWEST_HU)
    checked_geometry(matrix, folder)
    return Volume(*to_patient_axes(hu, matrix))


def _header(path: Path) -> Dataset | None:
    """The tags that we need, or None if the file is something else than DICOM."""
    try:
        with warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("ignore")  # odd values in tags that nobody asked for
            header = dcmread(file, stop_before_pixels=True, specific_tags=list(_HEADER_TAGS))
            at_end = file.tell() >= path.stat().st_size
    except _DAMAGE as error:
        if path.suffix.lower() == ".dcm":
            raise ValueError(f"{path}: truncated or no DICOM file ({_short(error)})") from error
        return None
    meta = header.file_meta  # stands first, so it is whole where the rest is cut off
    deflated = meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian
    kind = meta.get("MediaStorageSOPClassUID") or header.get("SOPClassUID")
    if at_end and not deflated and kind in (None, CTImageStorage):
        raise ValueError(f"{path}: truncated: the file ends before its pixels")
    return header


def _kind(header: Dataset) -> str:
    """`CT` for a slice, else what it is in words."""
    uid = header.get("SOPClassUID")
    if uid != CTImageStorage:
        return "DICOM objects without class" if uid is None else str(uid.name)
    return "scout views" if "LOCALIZER" in (header.get("ImageType") or ()) else "CT"


def _series(uid: str, members: Sequence[tuple[Path, Dataset]]) -> Series:
    files, headers = zip(*members, strict=True)
    number = headers[0].get("SeriesNumber")
    return Series(
        uid=uid,
        number=None if number is None else int(number),
        description=str(headers[0].get("SeriesDescription") or ""),
        files=files,
        headers=headers,
    )


def _series_order(series: Series) -> tuple[float, str]:
    return (np.inf if series.number is None else float(series.number), series.uid)


def _choose(found: list[Series], wanted: str | None, folder: Path) -> Series:
    """The one series that is wanted."""
    matching = found
    if wanted is not None:
        matching = [s for s in found if wanted in (s.uid, str(s.number))]
        matching = matching or [s for s in found if s.uid.startswith(wanted)]
    if len(matching) == 1:
        return matching[0]
    there = "; ".join(str(series) for series in matching or found)
    if not matching:
        raise ValueError(f"{folder}: no CT series {wanted!r}; there are: {there}")
    raise ValueError(
        f"{folder}: {len(matching)} CT series; choose one with series= and its number or UID: "
        f"{there}"
    )


def _stack(series: Series) -> SliceStack:
    """Positions and axes of all slices, which must agree."""
    first = _plane(series.files[0], series.headers[0])
    positions = []
    for path, header in zip(series.files, series.headers, strict=True):
        plane = _plane(path, header)
        if not np.allclose(plane.axes, first.axes, rtol=0.0, atol=1e-3):
            raise ValueError(
                f"{path}: orientation or pixel spacing differs from {series.files[0].name}"
            )
        if plane.size != first.size:
            raise ValueError(
                f"{path}: {plane.size} pixels, but {first.size} in {series.files[0].name}"
            )
        positions.append(plane.position)
    return SliceStack(
        names=tuple(path.name for path in series.files),
        positions=np.array(positions),
        axes=first.axes,
    )


@dataclass(frozen=True, eq=False)
class _Plane:
    """Where a slice lies."""

    position: Float64[np.ndarray, "3"]
    axes: Float64[np.ndarray, "3 3"]
    size: tuple[int, int]


def _plane(path: Path, header: Dataset) -> _Plane:
    """Position, axes and size of one slice; a tag that is missing is named."""
    if int(header.get("NumberOfFrames") or 1) != 1 or int(header.get("SamplesPerPixel") or 1) != 1:
        raise ValueError(f"{path}: several frames or colors in one CT slice")
    position = _tag(path, header, "ImagePositionPatient", 3)
    orientation = _tag(path, header, "ImageOrientationPatient", 6).reshape(2, 3)
    row_spacing, column_spacing = _tag(path, header, "PixelSpacing", 2)
    rows, columns = (int(_tag(path, header, name, 1)[0]) for name in ("Rows", "Columns"))
    lengths = np.linalg.norm(orientation, axis=1)
    if np.abs(lengths - 1.0).max() > 0.01 or abs(orientation[0] @ orientation[1]) > 0.01:
        raise ValueError(f"{path}: ImageOrientationPatient is not two perpendicular units")
    if min(row_spacing, column_spacing) <= 0.0:
        raise ValueError(f"{path}: PixelSpacing is {row_spacing:g}, {column_spacing:g} mm")
    along_row, down_column = orientation / lengths[:, None]
    normal = np.cross(along_row, down_column)
    axes = np.stack(
        [along_row * column_spacing, down_column * row_spacing, normal / np.linalg.norm(normal)],
        axis=1,
    )
    return _Plane(position, axes, (rows, columns))


def _tag(path: Path, header: Dataset, name: str, count: int) -> Float64[np.ndarray, "count"]:
    """The finite numbers of a tag that must be there."""
    value = header.get(name)
    try:
        numbers = np.atleast_1d(np.array(value, dtype=np.float64))
    except (TypeError, ValueError):
        numbers = np.empty(0)
    if value is None or numbers.shape != (count,) or not np.isfinite(numbers).all():
        raise ValueError(f"{path}: {name} is missing or damaged: {value}")
    return numbers


def _slice_hu(path: Path, size: tuple[int, int]) -> Float32[np.ndarray, "row col"]:
    """Pixel values of one slice with its own rescale applied."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = dcmread(path)
            pixels = dataset.pixel_array
            slope = float(dataset.get("RescaleSlope", 1.0))
            intercept = float(dataset.get("RescaleIntercept", 0.0))
    except _DAMAGE as error:
        raise ValueError(f"{path}: truncated or damaged slice ({_short(error)})") from error
    if pixels.shape != size or not np.isfinite([slope, intercept]).all() or slope == 0.0:
        raise ValueError(
            f"{path}: damaged: {pixels.shape} pixels, rescale slope {slope}, intercept {intercept}"
        )
    hu = pixels.astype(np.float32)
    hu *= slope
    hu += intercept
    return hu


def _short(error: BaseException) -> str:
    """The first line of an error's text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
