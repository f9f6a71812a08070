"""CT volumes and label maps in files: NIfTI, NRRD, MetaImage and DICOM series."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from jaxtyping import Float64, UInt8

from fewview.data.files import replacing_file
from fewview.data.volume import Volume, to_patient_axes


def read_volume(path: str | Path, *, series: str | None = None) -> Volume:
    """Read a CT volume in HU."""
    hu, matrix = _read(Path(path))
    hu, matrix = to_patient_axes(np.maximum(hu, -1024).astype(np.float32), matrix)
    return Volume(hu, matrix)


def write_volume(volume: Volume, path: str | Path) -> None:
    """Write a CT volume as int16 HU."""
    hu = np.clip(np.rint(volume.hu), -32768, 32767).astype(np.int16)
    _write(hu, volume.voxel_to_patient, Path(path))


def read_labels(
    path: str | Path,
) -> tuple[UInt8[np.ndarray, "depth height width"], Float64[np.ndarray, "4 4"]]:
    """Read a label map."""
    labels, matrix = to_patient_axes(*_read(Path(path)))
    return labels.astype(np.uint8), matrix


def write_labels(
    labels: UInt8[np.ndarray, "depth height width"],
    voxel_to_patient: Float64[np.ndarray, "4 4"],
    path: str | Path,
) -> None:
    """Write a label map."""
    _write(labels, voxel_to_patient, Path(path))


def _read(path: Path) -> tuple[np.ndarray, Float64[np.ndarray, "4 4"]]:
    if path.is_dir():
        files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(path))
        image = sitk.ReadImage(files)
    else:
        image = sitk.ReadImage(str(path))
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    matrix[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image), matrix


def _write(array: np.ndarray, matrix: Float64[np.ndarray, "4 4"], path: Path) -> None:
    image = sitk.GetImageFromArray(array)
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((matrix[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(matrix[:3, 3].tolist())
    with replacing_file(path) as temporary:
        sitk.WriteImage(image, str(temporary), useCompression=True)
