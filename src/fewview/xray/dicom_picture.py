"""DICOM radiographs (DX, CR, RF, XA): pixels as they are shown, and what the header says.

The only place with DICOM tags of radiographs. What the header leaves open is decided in
`radiograph.py`; what it says twice and differently is refused here.
"""

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from jaxtyping import Float32, Shaped
from pydicom.datadict import dictionary_description, tag_for_keyword
from pydicom.errors import InvalidDicomError
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

MODALITIES = {"DX", "CR", "RF", "XA", "RG", "PX", "OT"}
VIEW_POSITION_DEG = {"PA": 0.0, "AP": 180.0, "LL": 90.0, "RL": -90.0}
SAME_VIEW_DEG = 45.0  # angles nearer than this still show the view that View Position names
SAME_MAGNIFICATION = 0.05  # relative; headers round
PATIENT_CALIBRATED = ("GEOMETRY", "FIDUCIAL")


@dataclass(frozen=True, kw_only=True)
class Header:
    """How a picture was taken, as far as its file says; None where it says nothing."""

    primary_angle_deg: float | None = None
    """Positioner Primary Angle, else by View Position."""

    secondary_angle_deg: float | None = None
    """Positioner Secondary Angle."""

    sdd_mm: float | None = None
    """Distance Source to Detector."""

    sod_mm: float | None = None
    """Source to isocenter, where a tag or the magnification tells it."""

    imager_pitch_mm: tuple[float, float] | None = None
    """Imager Pixel Spacing: distance of pixel centers (v, u) on the detector."""

    patient_pitch_mm: tuple[float, float] | None = None
    """Pixel Spacing that was calibrated to the depth of the patient."""

    nominal_pitch_mm: tuple[float, float] | None = None
    """Pixel Spacing of which nobody says in which plane it holds."""

    orientation: tuple[str, str] | None = None
    """Patient Orientation: where the picture's rows and its columns run, as L, R, A, P, H, F."""


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
            return pixels, _header(dataset, path)
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


def _header(dataset: pydicom.Dataset, path: Path) -> Header:
    """Angles, distances, pixel pitch and orientation in the header."""
    sdd_mm = _positive(dataset, "DistanceSourceToDetector", path)
    imager = _pair(dataset, "ImagerPixelSpacing", path)
    spacing = _pair(dataset, "PixelSpacing", path)
    at_patient = str(dataset.get("PixelSpacingCalibrationType", "")) in PATIENT_CALIBRATED
    alone = spacing is not None and imager is None
    return Header(
        primary_angle_deg=_primary_angle(dataset, path),
        secondary_angle_deg=_finite(dataset, "PositionerSecondaryAngle", path),
        sdd_mm=sdd_mm,
        sod_mm=_isocenter(dataset, path, sdd_mm, _magnification(dataset, path, imager, spacing)),
        imager_pitch_mm=imager,
        patient_pitch_mm=spacing if alone and at_patient else None,
        nominal_pitch_mm=spacing if alone and not at_patient else None,
        orientation=_orientation(dataset, path),
    )


def _primary_angle(dataset: pydicom.Dataset, path: Path) -> float | None:
    """The positioner's angle, else the angle that View Position stands for."""
    position = VIEW_POSITION_DEG.get(str(dataset.get("ViewPosition", "")).strip().upper())
    angle = _finite(dataset, "PositionerPrimaryAngle", path)
    if angle is None or position is None:
        return position if angle is None else angle
    if abs((angle - position + 180.0) % 360.0 - 180.0) > SAME_VIEW_DEG:
        raise ValueError(
            f"{path} contradicts itself: {_named(dataset, 'PositionerPrimaryAngle')} is no "
            f"{_named(dataset, 'ViewPosition')}; give --angles-deg and a corrected file"
        )
    return angle


def _magnification(
    dataset: pydicom.Dataset,
    path: Path,
    imager: tuple[float, float] | None,
    spacing: tuple[float, float] | None,
) -> float | None:
    """Detector over patient: by its tag, else by two pixel spacings of a calibrated image.

    References:
        DICOM PS3.3 10.7.1.3: Pixel Spacing beside Imager Pixel Spacing.
    """
    told = _positive(dataset, "EstimatedRadiographicMagnificationFactor", path)
    if told is not None and told < 1.0:
        what = _named(dataset, "EstimatedRadiographicMagnificationFactor")
        raise ValueError(f"{path}: {what} is below 1, but the detector is behind the patient")
    if imager is None or spacing is None:
        return told
    ratio = math.sqrt(imager[0] * imager[1] / (spacing[0] * spacing[1]))
    if ratio < 1.0 - SAME_MAGNIFICATION:
        raise ValueError(
            f"{path} contradicts itself: {_named(dataset, 'PixelSpacing')} at the patient is wider "
            f"than {_named(dataset, 'ImagerPixelSpacing')} on the detector behind"
        )
    if str(dataset.get("PixelSpacingCalibrationType", "")) not in PATIENT_CALIBRATED:
        return told
    if told is not None and abs(ratio / told - 1.0) > SAME_MAGNIFICATION:
        what = _named(dataset, "EstimatedRadiographicMagnificationFactor")
        raise ValueError(
            f"{path} contradicts itself: {what}, but {_named(dataset, 'ImagerPixelSpacing')} over "
            f"{_named(dataset, 'PixelSpacing')} is {ratio:.3g}"
        )
    return ratio if told is None else told


def _isocenter(
    dataset: pydicom.Dataset, path: Path, sdd_mm: float | None, magnification: float | None
) -> float | None:
    """Source to isocenter: by its tag in XA, else by the magnification.

    In DX and CR the tag ends at the support on the patient's side: no isocenter, but a bound.
    """
    near = _positive(dataset, "DistanceSourceToPatient", path)
    if near is not None and sdd_mm is not None and near >= sdd_mm:
        raise ValueError(
            f"{path} contradicts itself: {_named(dataset, 'DistanceSourceToPatient')} is not less "
            f"than {_named(dataset, 'DistanceSourceToDetector')}"
        )
    is_isocentric = dataset.get("Modality") == "XA"
    if magnification is None or sdd_mm is None:
        return near if is_isocentric else None
    by_magnification = sdd_mm / magnification
    if near is None or not is_isocentric:
        # At a magnification of 1 the patient lies in the detector, which nobody measures.
        return by_magnification if by_magnification < sdd_mm else None
    if abs(near / by_magnification - 1.0) > SAME_MAGNIFICATION:
        raise ValueError(
            f"{path} contradicts itself: {_named(dataset, 'DistanceSourceToPatient')}, but its "
            f"magnification of {magnification:.3g} puts the patient at {by_magnification:.0f} mm"
        )
    return near


def _orientation(dataset: pydicom.Dataset, path: Path) -> tuple[str, str] | None:
    """The main letters of Patient Orientation: toward the last column, toward the last row."""
    value = dataset.get("PatientOrientation")
    if not value:
        return None
    letters = [str(one).strip().upper()[:1] for one in value]
    if len(letters) != 2 or not all(one and one in "LRAPHF" for one in letters):
        raise ValueError(
            f"{path}: {_named(dataset, 'PatientOrientation')} is no pair of L R A P H F"
        )
    if len([one for one in letters if one in "HF"]) != 1:
        raise ValueError(
            f"{path}: {_named(dataset, 'PatientOrientation')} is not upright; an X-ray view has "
            "one side toward the head"
        )
    return letters[0], letters[1]


def _named(dataset: pydicom.Dataset, keyword: str) -> str:
    """A tag for a message: name, number and value."""
    tag = tag_for_keyword(keyword)
    assert tag is not None, keyword
    value: Any = dataset.get(keyword)
    shown = "\\".join(map(str, value)) if isinstance(value, pydicom.multival.MultiValue) else value
    return f"{dictionary_description(tag)} ({tag >> 16:04x},{tag & 0xFFFF:04x}) {shown}"


def _finite(dataset: pydicom.Dataset, keyword: str, path: Path) -> float | None:
    """A number, or None where the tag is missing or empty."""
    value = dataset.get(keyword)
    if value is None or value == "":
        return None
    if not math.isfinite(float(value)):
        raise ValueError(f"{path}: {_named(dataset, keyword)} is no number")
    return float(value)


def _positive(dataset: pydicom.Dataset, keyword: str, path: Path) -> float | None:
    """A positive number; scanners write 0 where they do not know."""
    value = _finite(dataset, keyword, path)
    if value is not None and value < 0.0:
        raise ValueError(f"{path}: {_named(dataset, keyword)} is negative")
    return value or None


def _pair(dataset: pydicom.Dataset, keyword: str, path: Path) -> tuple[float, float] | None:
    """Two positive numbers (row, column), or None where the tag is missing or empty."""
    value = dataset.get(keyword)
    if not value:
        return None
    if len(value) != 2 or not all(math.isfinite(one) and one > 0.0 for one in map(float, value)):
        raise ValueError(f"{path}: {_named(dataset, keyword)} is no pair of positive lengths")
    return float(value[0]), float(value[1])
