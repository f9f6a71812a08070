"""A volume as a series of CT Image Storage objects.

The series belongs to no patient and no study that exists: its UIDs are fresh, and its
description says what it is.

References:
    DICOM PS3.3 A.3 (CT Image IOD); PS3.5 6.2 (a decimal string has at most 16 characters).
"""

from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pydicom.valuerep import DSfloat

from fewview.data.checks import checked_geometry
from fewview.data.files import replacing_folder
from fewview.data.volume import Volume, to_patient_axes


def write_series(volume: Volume, folder: str | Path) -> None:
    """Write a volume as one DICOM file per axial slice, all or none.

    HU are rounded to int16; positions are kept to far below 0.01 mm.

    Args:
        volume: What to write.
        folder: Must be empty or not exist yet.

    Raises:
        ValueError: If the folder is not empty, the matrix is sheared or a value not finite.
        OSError: If the place is not writable.
    """
    checked_geometry(volume.voxel_to_patient, f"cannot write {folder}")
    if not np.isfinite(volume.hu).all():
        raise ValueError(f"cannot write {folder}: the volume holds NaN or infinite values")
    hu, matrix = to_patient_axes(volume.hu, volume.voxel_to_patient)
    stored = np.clip(np.rint(hu), -32768, 32767).astype("<i2")
    common = _common_tags(matrix)
    with replacing_folder(folder) as temporary:
        for index, pixels in enumerate(stored):
            dataset = _slice(common, pixels, index, matrix)
            dataset.save_as(temporary / f"slice_{index + 1:04d}.dcm", enforce_file_format=True)


def _common_tags(matrix: np.ndarray) -> Dataset:
    """What all slices share; tags that must be there may be empty where nothing is known."""
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    tags = Dataset()
    for name in (
        "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "ReferringPhysicianName",
        "StudyID", "AccessionNumber", "PositionReferenceIndicator", "AcquisitionNumber", "KVP",
    ):  # fmt: skip
        setattr(tags, name, None)
    tags.SpecificCharacterSet = "ISO_IR 100"
    tags.PatientName = tags.PatientID = "fewview"
    tags.StudyInstanceUID = generate_uid(prefix=None)
    tags.Manufacturer = "fewview"
    tags.Modality = "CT"
    tags.SeriesInstanceUID = generate_uid(prefix=None)
    tags.SeriesNumber = 1
    tags.SeriesDescription = "Computed by fewview, not for diagnosis"
    tags.PatientPosition = "HFS"
    tags.FrameOfReferenceUID = generate_uid(prefix=None)
    tags.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
    tags.SOPClassUID = CTImageStorage
    tags.PixelSpacing = [_decimal(spacing[1]), _decimal(spacing[0])]
    tags.SliceThickness = _decimal(spacing[2])
    cosines = (matrix[:3, :3] / spacing)[:, :2]
    tags.ImageOrientationPatient = [_decimal(value) for value in cosines.T.ravel()]
    tags.SamplesPerPixel = 1
    tags.PhotometricInterpretation = "MONOCHROME2"
    tags.BitsAllocated = tags.BitsStored = 16
    tags.HighBit = 15
    tags.PixelRepresentation = 1  # signed
    tags.RescaleSlope = _decimal(1.0)
    tags.RescaleIntercept = _decimal(0.0)
    tags.RescaleType = "HU"
    tags.WindowCenter = _decimal(40.0)
    tags.WindowWidth = _decimal(400.0)
    return tags


def _slice(common: Dataset, pixels: np.ndarray, index: int, matrix: np.ndarray) -> Dataset:
    """One file's content."""
    dataset = Dataset(common)
    dataset.SOPInstanceUID = generate_uid(prefix=None)
    dataset.InstanceNumber = index + 1
    position = matrix[:3, 3] + index * matrix[:3, 2]
    dataset.ImagePositionPatient = [_decimal(value) for value in position]
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OW"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def _decimal(value: float) -> DSfloat:
    """A number in at most 16 characters."""
    return DSfloat(float(value), auto_format=True)
