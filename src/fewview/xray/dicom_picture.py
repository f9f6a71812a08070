"""DICOM radiographs (DX, CR, RF, XA): pixels as they are shown.

What the header says of the geometry is read in `dicom_header.py`.
"""

import warnings
from pathlib import Path

import numpy as np
import pydicom
from jaxtyping import Bool, Float32, Shaped
from pydicom.errors import InvalidDicomError
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

from fewview.xray.dicom_header import Header, named, read_header

MODALITIES = {"DX", "CR", "RF", "XA", "RG", "PX", "OT"}


def is_dicom(path: Path) -> bool:
    """By its mark after the preamble, or by its name."""
    with path.open("rb") as file:
        head = file.read(132)
    return head[128:] == b"DICM" or path.suffix.lower() in (".dcm", ".dicom")


def read_dicom(path: Path) -> tuple[Float32[np.ndarray, "row col"], Header]:
    """Pixels, bone bright, and header of a single DICOM image of an X-ray modality.

    Raises:
        ValueError: If it cannot be read, is no single gray X-ray image, or contradicts itself.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd values in tags that nobody asked for
            dataset = pydicom.dcmread(path)
            _refuse_other_dicom(dataset, path)
            pixels = _shown(dataset, dataset.pixel_array)
            return pixels, read_header(dataset, path)
    except ValueError as error:
        known = str(path) in str(error)
        raise error if known else ValueError(f"cannot read the image {path}: {error}") from error
    except (
        InvalidDicomError, OSError, AttributeError, KeyError, RuntimeError, NotImplementedError,
        TypeError, EOFError, IndexError,
    ) as error:  # fmt: skip
        raise ValueError(f"cannot read the DICOM image {path}: {error}") from error


def _refuse_other_dicom(dataset: pydicom.Dataset, path: Path) -> None:
    """Refuse what is no single gray X-ray image."""
    modality = dataset.get("Modality", "")
    if modality not in MODALITIES:
        raise ValueError(f"{path} is no radiograph: its modality is {modality or 'missing'}")
    if "PixelData" not in dataset:
        raise ValueError(f"{path} is a DICOM file without an image")
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        frames = dataset.NumberOfFrames
        raise ValueError(f"{path} holds {frames} images; give one at a time")
    interpretation = dataset.get("PhotometricInterpretation", "")
    if interpretation not in ("MONOCHROME1", "MONOCHROME2"):
        raise ValueError(
            f"{path} is a color image ({interpretation}); an X-ray has one gray channel"
        )


def _shown(
    dataset: pydicom.Dataset, stored: Shaped[np.ndarray, "row col"]
) -> Float32[np.ndarray, "row col"]:
    """What a viewing station shows: stored values, Modality LUT, VOI LUT, polarity.

    Padding is no part of the picture and is shown as the darkest that is.

    References:
        DICOM PS3.3 C.7.5.1.1.2: Pixel Padding Value.
    """
    padding = _padding(dataset, stored)
    if not padding.any():
        return _displayed(dataset, stored)
    if padding.all():
        raise ValueError(f"all its pixels are {named(dataset, 'PixelPaddingValue')}")
    # A value of the picture in its place leaves the extremes to the picture.
    shown = _displayed(dataset, np.where(padding, stored[~padding].min(), stored))
    return np.where(padding, shown.min(), shown)


def _padding(
    dataset: pydicom.Dataset, stored: Shaped[np.ndarray, "row col"]
) -> Bool[np.ndarray, "row col"]:
    """Where Pixel Padding Value, or the range from it to Pixel Padding Range Limit, is stored."""
    value = dataset.get("PixelPaddingValue")
    if value is None or value == "":
        return np.zeros(stored.shape, dtype=bool)
    limit = dataset.get("PixelPaddingRangeLimit")
    ends = [int(value), int(value if limit is None or limit == "" else limit)]
    # Pixel Representation has the sign, whatever the tag was written as.
    bits, signed = int(dataset.BitsAllocated), dataset.PixelRepresentation == 1
    ends = [end % 2**bits for end in ends]
    ends = [end - 2**bits if signed and end >= 2 ** (bits - 1) else end for end in ends]
    return (stored >= min(ends)) & (stored <= max(ends))


def _displayed(
    dataset: pydicom.Dataset, stored: Shaped[np.ndarray, "row col"]
) -> Float32[np.ndarray, "row col"]:
    """Stored values, none of them padding, through the LUTs, bone bright.

    Raw images (For Processing) have no display polarity to trust: their Pixel Intensity
    Relationship Sign says where little radiation arrived, and linear ones need the logarithm.

    References:
        DICOM PS3.3 C.11.1 (Modality LUT), C.11.2 (VOI LUT), C.8.11.3.1.2 (relationship and sign).
    """
    values = apply_modality_lut(stored, dataset)
    sign = dataset.get("PixelIntensityRelationshipSign")
    if dataset.get("PresentationIntentType") == "FOR PROCESSING" and sign in (1, -1):
        raw = values.astype(np.float32)
        if dataset.get("PixelIntensityRelationship") == "LIN":
            raw = np.log(np.maximum(raw - min(float(raw.min()), 0.0), 1.0))
        return raw if sign == -1 else -raw
    if "VOILUTSequence" in dataset and values.dtype.kind == "f":
        values = np.rint(values).astype(np.int64)  # a table has no entries in between
    shown = np.asarray(apply_voi_lut(values, dataset), dtype=np.float32)
    inverse = dataset.get("PhotometricInterpretation") == "MONOCHROME1"
    return shown.max() + shown.min() - shown if inverse else shown
