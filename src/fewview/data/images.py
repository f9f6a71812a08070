"""CT volumes and label maps in files: the readers and writers of every format.

By suffix: NIfTI (`.nii`, `.nii.gz`), NRRD (`.nrrd`, `.nhdr`), MetaImage (`.mha`, `.mhd`);
a folder is a DICOM series. Whatever the file's axes, what is read has patient axes, and
every voxel keeps its place in the patient.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from jaxtyping import Float64, Shaped, UInt8

from fewview.data.checks import checked_geometry, checked_hu
from fewview.data.dicom import read_series
from fewview.data.dicom_writer import write_series
from fewview.data.files import replacing_file
from fewview.data.metaimage import read_metaimage_header
from fewview.data.nifti import read_nifti_header, write_nifti
from fewview.data.nrrd import read_nrrd_header
from fewview.data.payload import ImageHeader, read_values
from fewview.data.volume import Volume, to_patient_axes

_READERS: dict[str, Callable[[Path], ImageHeader]] = {
    ".nii": read_nifti_header,
    ".nii.gz": read_nifti_header,
    ".nrrd": read_nrrd_header,
    ".nhdr": read_nrrd_header,
    ".mha": read_metaimage_header,
    ".mhd": read_metaimage_header,
}
WRITTEN_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".mha")


def read_volume(
    path: str | Path,
    *,
    series: str | None = None,
    resample_uneven: bool = False,
    known_hu: bool = False,
) -> Volume:
    """Read a CT volume.

    Padding below -1024 HU is raised to -1024 HU.

    Args:
        path: NIfTI, NRRD or MetaImage file, or a folder with DICOM files.
        series: Which series of the folder: its SeriesInstanceUID, the start of it, or its
            series number. Needed only where a folder holds several.
        resample_uneven: Interpolate a DICOM series whose slices are uneven, missing or tilted
            instead of refusing it.
        known_hu: The file was written by this package, so its values are HU whatever they look
            like: a poor prediction may lack air, and a constant is one too.

    Raises:
        ValueError: If it is no CT volume in HU, is damaged, or says not where its voxels lie.
    """
    path = Path(path)
    if path.is_dir():
        return read_series(path, series, resample_uneven)
    values, voxel_to_patient = _read(path)
    checked = values.astype(np.float32) if known_hu else checked_hu(values, path)
    hu, matrix = to_patient_axes(checked, voxel_to_patient)
    return Volume(hu, matrix)


def write_volume(volume: Volume, path: str | Path) -> None:
    """Write a CT volume as int16 HU, whole or not at all.

    Args:
        volume: What to write; HU are rounded.
        path: `.nii`, `.nii.gz`, `.nrrd` or `.mha`; with a trailing `/` a folder with a DICOM
            series, which must be empty or not exist yet.

    Raises:
        ValueError: If the suffix is unknown, or HU or geometry do not fit the format.
        OSError: If the place is not writable.
    """
    if str(path).endswith("/") or Path(path).is_dir():
        write_series(volume, path)
        return
    if not np.isfinite(volume.hu).all():
        raise ValueError(f"cannot write {path}: the volume holds NaN or infinite values")
    hu = np.clip(np.rint(volume.hu), -32768, 32767).astype(np.int16)
    _write(hu, volume.voxel_to_patient, Path(path))


def read_labels(
    path: str | Path,
) -> tuple[UInt8[np.ndarray, "depth height width"], Float64[np.ndarray, "4 4"]]:
    """Read a label map: whole numbers 0 to 255.

    Returns:
        Labels toward superior, posterior, left, and where voxel (x, y, z) lies (LPS mm).

    Raises:
        ValueError: If the file is damaged or holds other values.
    """
    path = Path(path)
    values, voxel_to_patient = _read(path)
    labels = values.astype(np.uint8)
    if not np.array_equal(labels, values):
        raise ValueError(f"{path}: not a label map: values other than whole numbers 0 to 255")
    return to_patient_axes(labels, voxel_to_patient)


def write_labels(
    labels: UInt8[np.ndarray, "depth height width"],
    voxel_to_patient: Float64[np.ndarray, "4 4"],
    path: str | Path,
) -> None:
    """Write a label map in any of the file formats, whole or not at all.

    Raises:
        ValueError: If the suffix is unknown or the matrix is sheared.
        OSError: If the place is not writable.
    """
    _write(labels, voxel_to_patient, Path(path))


def suffix_of(path: Path) -> str:
    """The suffix that names a format, `.nii.gz` in one piece, in lower case."""
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else Path(name).suffix


def _read(path: Path) -> tuple[Shaped[np.ndarray, "z y x"], Float64[np.ndarray, "4 4"]]:
    """Values in the file's own axis order, and their checked matrix."""
    if not path.exists():
        raise ValueError(f"{path}: no such file")
    reader = _READERS.get(suffix_of(path))
    if reader is None:
        known = ", ".join(_READERS)
        raise ValueError(f"{path}: not a volume by its suffix; known are {known} or a DICOM folder")
    header = reader(path)
    checked_geometry(header.voxel_to_patient, path)
    return read_values(header, path), header.voxel_to_patient


def _write(
    array: Shaped[np.ndarray, "depth height width"],
    voxel_to_patient: Float64[np.ndarray, "4 4"],
    path: Path,
) -> None:
    """Write any array by suffix."""
    if suffix_of(path) not in WRITTEN_SUFFIXES:
        known = ", ".join(WRITTEN_SUFFIXES)
        raise ValueError(f"cannot write {path}: known are {known} and a folder/ for DICOM")
    checked_geometry(voxel_to_patient, path)
    with replacing_file(path) as temporary:
        if suffix_of(path).startswith(".nii"):
            write_nifti(array, voxel_to_patient, temporary)
        else:
            _write_itk(array, voxel_to_patient, temporary, path)


def _write_itk(
    array: Shaped[np.ndarray, "depth height width"],
    voxel_to_patient: Float64[np.ndarray, "4 4"],
    temporary: Path,
    path: Path,
) -> None:
    """Write NRRD or MetaImage by suffix; `path` is the final name, for messages."""
    image: Any = sitk.GetImageFromArray(array)
    spacing = np.linalg.norm(voxel_to_patient[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((voxel_to_patient[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(voxel_to_patient[:3, 3].tolist())
    try:
        sitk.WriteImage(image, str(temporary), useCompression=True)
    except RuntimeError as error:  # all that ITK tells, over several lines
        reason = str(error).strip().splitlines()[-1].strip()
        raise OSError(f"cannot write {path}: {reason}") from error
