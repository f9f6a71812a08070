"""What the header of a DICOM radiograph says of how it was taken.

With `dicom_picture.py` the only place with DICOM tags of radiographs. What the header leaves open
is decided in `radiograph.py`; what it says twice and differently is refused here, but for the
angle, which a user may give.
"""

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom.datadict import dictionary_description, tag_for_keyword

VIEW_POSITION_DEG = {"PA": 0.0, "AP": 180.0, "LL": 90.0, "RL": -90.0}
SAME_VIEW_DEG = 45.0  # angles nearer than this still show the view that View Position names
SAME_MAGNIFICATION = 0.05  # relative; headers round
PATIENT_CALIBRATED = ("GEOMETRY", "FIDUCIAL")

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Header:
    """How a picture was taken, as far as its file says; None where it says nothing."""

    primary_angle_deg: float | None = None
    """Positioner Primary Angle, else by View Position; None where they contradict each other."""

    angle_conflict: str | None = None
    """How they contradict each other, for a message."""

    secondary_angle_deg: float | None = None
    """Positioner Secondary Angle."""

    sdd_mm: float | None = None
    """Distance Source to Detector."""

    sod_mm: float | None = None
    """Source to isocenter, where a tag or the magnification tells it."""

    magnification: float | None = None
    """Detector over patient, by its tag or by two pixel spacings."""

    imager_pitch_mm: tuple[float, float] | None = None
    """Imager Pixel Spacing: distance of pixel centers (v, u) on the detector."""

    patient_pitch_mm: tuple[float, float] | None = None
    """Pixel Spacing that was calibrated to the depth of the patient."""

    nominal_pitch_mm: tuple[float, float] | None = None
    """Pixel Spacing of which nobody says in which plane it holds."""

    orientation: tuple[str, str] | None = None
    """Patient Orientation: where the picture's rows and its columns run, as L, R, A, P, H, F."""


def read_header(dataset: pydicom.Dataset, path: Path) -> Header:
    """Angles, distances, pixel pitch and orientation in the header.

    Raises:
        ValueError: If a tag has no sense or contradicts another.
    """
    sdd_mm = _positive(dataset, "DistanceSourceToDetector", path)
    imager = _pair(dataset, "ImagerPixelSpacing", path)
    spacing = _pair(dataset, "PixelSpacing", path)
    at_patient = str(dataset.get("PixelSpacingCalibrationType", "")) in PATIENT_CALIBRATED
    alone = spacing is not None and imager is None
    magnification = _magnification(dataset, path, imager, spacing)
    primary_angle_deg, angle_conflict = _primary_angle(dataset, path)
    return Header(
        primary_angle_deg=primary_angle_deg,
        angle_conflict=angle_conflict,
        secondary_angle_deg=_finite(dataset, "PositionerSecondaryAngle", path),
        sdd_mm=sdd_mm,
        sod_mm=_isocenter(dataset, path, sdd_mm, magnification),
        magnification=magnification,
        imager_pitch_mm=imager,
        patient_pitch_mm=spacing if alone and at_patient else None,
        nominal_pitch_mm=spacing if alone and not at_patient else None,
        orientation=_orientation(dataset, path),
    )


def _primary_angle(dataset: pydicom.Dataset, path: Path) -> tuple[float | None, str | None]:
    """The positioner's angle, else that of View Position; or how they contradict each other."""
    position = VIEW_POSITION_DEG.get(str(dataset.get("ViewPosition", "")).strip().upper())
    angle = _finite(dataset, "PositionerPrimaryAngle", path)
    if angle is None or position is None:
        return position if angle is None else angle, None
    if abs((angle - position + 180.0) % 360.0 - 180.0) > SAME_VIEW_DEG:
        angle_tag = named(dataset, "PositionerPrimaryAngle")
        return None, f"{angle_tag} is no {named(dataset, 'ViewPosition')}"
    return angle, None


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
        what = named(dataset, "EstimatedRadiographicMagnificationFactor")
        raise ValueError(f"{path}: {what} is below 1, but the detector is behind the patient")
    if imager is None or spacing is None:
        return told
    ratio = math.sqrt(imager[0] * imager[1] / (spacing[0] * spacing[1]))
    if ratio < 1.0 - SAME_MAGNIFICATION:
        raise ValueError(
            f"{path} contradicts itself: {named(dataset, 'PixelSpacing')} at the patient is wider "
            f"than {named(dataset, 'ImagerPixelSpacing')} on the detector behind"
        )
    if str(dataset.get("PixelSpacingCalibrationType", "")) not in PATIENT_CALIBRATED:
        return told
    if told is not None and abs(ratio / told - 1.0) > SAME_MAGNIFICATION:
        what = named(dataset, "EstimatedRadiographicMagnificationFactor")
        raise ValueError(
            f"{path} contradicts itself: {what}, but {named(dataset, 'ImagerPixelSpacing')} over "
            f"{named(dataset, 'PixelSpacing')} is {ratio:.3g}"
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
            f"{path} contradicts itself: {named(dataset, 'DistanceSourceToPatient')} is not less "
            f"than {named(dataset, 'DistanceSourceToDetector')}"
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
            f"{path} contradicts itself: {named(dataset, 'DistanceSourceToPatient')}, but its "
            f"magnification of {magnification:.3g} puts the patient at {by_magnification:.0f} mm"
        )
    return near


def _orientation(dataset: pydicom.Dataset, path: Path) -> tuple[str, str] | None:
    """The main letters of Patient Orientation: toward the last column, toward the last row.

    None where it is empty or lacks one of them.
    """
    letters = [str(one).strip().upper()[:1] for one in _values(dataset, "PatientOrientation")]
    if len(letters) < 2 or "" in letters:
        if any(letters):
            told = named(dataset, "PatientOrientation")
            log.warning("%s: %s is not a pair and not looked at", path.name, told)
        return None
    if len(letters) != 2 or not all(one in "LRAPHF" for one in letters):
        raise ValueError(
            f"{path}: {named(dataset, 'PatientOrientation')} is no pair of L R A P H F"
        )
    if len([one for one in letters if one in "HF"]) != 1:
        raise ValueError(
            f"{path}: {named(dataset, 'PatientOrientation')} is not upright; an X-ray view has "
            "one side toward the head"
        )
    return letters[0], letters[1]


def named(dataset: pydicom.Dataset, keyword: str) -> str:
    """A tag for a message: name, number and value."""
    tag = tag_for_keyword(keyword)
    assert tag is not None, keyword
    shown = "\\".join(map(str, _values(dataset, keyword)))
    return f"{dictionary_description(tag)} ({tag >> 16:04x},{tag & 0xFFFF:04x}) {shown}"


def _values(dataset: pydicom.Dataset, keyword: str) -> list[Any]:
    """The values of a tag that may have several; a text is one value, not its letters."""
    value = dataset.get(keyword)
    if isinstance(value, pydicom.multival.MultiValue):
        return list(value)
    return [] if value is None else [value]


def _finite(dataset: pydicom.Dataset, keyword: str, path: Path) -> float | None:
    """A number, or None where the tag is missing or empty."""
    value = dataset.get(keyword)
    if value is None or value == "":
        return None
    if not math.isfinite(float(value)):
        raise ValueError(f"{path}: {named(dataset, keyword)} is no number")
    return float(value)


def _positive(dataset: pydicom.Dataset, keyword: str, path: Path) -> float | None:
    """A positive number; scanners write 0 where they do not know."""
    value = _finite(dataset, keyword, path)
    if value is not None and value < 0.0:
        raise ValueError(f"{path}: {named(dataset, keyword)} is negative")
    return value or None


def _pair(dataset: pydicom.Dataset, keyword: str, path: Path) -> tuple[float, float] | None:
    """Two positive numbers (row, column), or None where the tag is missing, empty or 0."""
    lengths = [float(one or 0.0) for one in _values(dataset, keyword)]
    if not any(lengths):
        return None
    if len(lengths) != 2 or not all(math.isfinite(one) and one > 0.0 for one in lengths):
        raise ValueError(f"{path}: {named(dataset, keyword)} is no pair of positive lengths")
    return lengths[0], lengths[1]
