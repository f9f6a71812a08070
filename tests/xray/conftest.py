"""Radiographs as the tests of their reading write them."""

import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from fewview.xray.radiograph import read_radiographs

RAMP = np.tile(np.linspace(0, 255, 64), (48, 1)).astype(np.uint8)  # brighter to the right


@pytest.fixture
def write_dicom():
    """Writes a radiograph with the tags that matter; a tag of None is left out."""

    def write(path, pixels=RAMP, **tags):
        meta = pydicom.dataset.FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
        meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset = pydicom.Dataset()
        dataset.file_meta = meta
        dataset.SOPClassUID = meta.MediaStorageSOPClassUID
        dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
        values = {
            "Modality": "DX", "PhotometricInterpretation": "MONOCHROME2", "SamplesPerPixel": 1,
            "Rows": pixels.shape[0], "Columns": pixels.shape[1], "BitsAllocated": 8,
            "BitsStored": 8, "HighBit": 7, "PixelRepresentation": 0, "PixelData": pixels.tobytes(),
        } | tags  # fmt: skip
        for name, value in values.items():
            if value is not None:
                setattr(dataset, name, value)
        dataset.save_as(path, enforce_file_format=True)
        return path

    return write


@pytest.fixture
def tagged(tmp_path, write_dicom):
    """The view that a DICOM file with these tags becomes."""

    def read(angles=None, **tags):
        path = write_dicom(tmp_path / "tagged.dcm", **tags)
        return read_radiographs([path], angles, keep_markings=True)

    return read


@pytest.fixture
def refused_dicom(tmp_path, write_dicom):
    """Sees a DICOM file with these tags refused with one line."""

    def read(complaint, **tags):
        path = write_dicom(tmp_path / "tagged.dcm", **tags)
        with pytest.raises(ValueError, match=complaint) as error:
            read_radiographs([path])
        assert "\n" not in str(error.value)

    return read


@pytest.fixture
def columns():
    """Mean of the columns of the picture's own rows."""

    def mean(views, index=0):
        image = views.images[index, 0]
        return image[image.sum(1) > 0].mean(0)

    return mean
