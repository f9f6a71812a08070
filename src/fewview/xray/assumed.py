"""The geometry that a header admits to, and what had to be assumed beside it."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from jaxtyping import Shaped
from torch import Tensor

from fewview.xray.dicom_header import Header
from fewview.xray.geometry import ViewGeometry, preset
from fewview.xray.geometry_record import DETECTOR_MM

ASSUMED_PRESET = "chest"
BEHIND_PATIENT_MM = 200.0  # isocenter to detector, as in the preset
PLAUSIBLE_MM = (200.0, 600.0)  # longer side of a radiograph of a trunk, on the detector
SIDEWAYS = {"L": (1.0, 0.0), "R": (-1.0, 0.0), "P": (0.0, 1.0), "A": (0.0, -1.0)}
HUNG_LIKE_PA_DEG = 45.0  # a view this near to 180 degrees is an AP radiograph
EDGE_ON = 0.5  # cosine below which a side of the patient is not a side of the picture


@dataclass(frozen=True)
class Assumption:
    """Something that a file leaves open."""

    unknown: str
    """What is not known, as a sentence's beginning."""
    instead: str
    """What is taken instead."""


@dataclass(frozen=True)
class Settled:
    """A geometry, whose detector is still the preset's, and where it comes from."""

    geometry: ViewGeometry
    pitch_mm: tuple[float, float] | None
    """Pixel pitch (v, u) of the picture on the detector; None fits it on the preset's detector."""
    assumed: tuple["Assumption", ...]
    """What no tag says; empty where all is measured."""


def settle(header: Header, shape: tuple[int, int], path: Path) -> Settled:
    """Distances and pitch by a header, by the preset where it is silent.

    Pixel spacings often survive a change of size that makes them wrong: they are taken only where
    the picture then has the extent of a radiograph. Pixel Spacing alone may hold on the detector or
    in the patient: it is taken for the detector's, and said to be assumed.

    Args:
        header: What the file says.
        shape: Rows and columns of the picture.
        path: The file, for messages.

    Raises:
        ValueError: If the distances cannot be.
    """
    standard = preset(ASSUMED_PRESET)
    geometry, assumed = standard, []
    unknown = "distances are not known"
    if header.sdd_mm is None:
        geometry, instead = _magnified(standard, header.magnification)
        assumed.append(Assumption(unknown, instead))
    else:
        sod = header.sod_mm
        if sod is None:
            sod = header.sdd_mm - BEHIND_PATIENT_MM
            instead = f"the isocenter is assumed {BEHIND_PATIENT_MM:g} mm before the detector"
            assumed.append(Assumption(unknown, instead))
        try:
            geometry = replace(standard, sdd_mm=header.sdd_mm, sod_mm=sod)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    geometry = replace(geometry, secondary_angle_deg=header.secondary_angle_deg or 0.0)
    pitch, told = _pitch(header, shape, geometry)
    return Settled(geometry, pitch, (*assumed, *told))


def _magnified(standard: ViewGeometry, magnification: float | None) -> tuple[ViewGeometry, str]:
    """The preset with its isocenter where a known magnification puts it, and what that is."""
    assert standard.sdd_mm is not None, "the preset has a cone beam"
    told = f"the '{ASSUMED_PRESET}' geometry is assumed"
    sod = standard.sdd_mm / (magnification or 1.0)
    if magnification is None or sod >= standard.sdd_mm:
        return standard, told  # at a magnification of 1 the patient would lie in the detector
    return replace(standard, sod_mm=sod), f"{told} at the magnification of {magnification:.3g}"


def _pitch(
    header: Header, shape: tuple[int, int], geometry: ViewGeometry
) -> tuple[tuple[float, float] | None, tuple[Assumption, ...]]:
    """Pixel pitch on the detector, and what of it is assumed."""
    unknown, fitted = "its size is not known", f"{DETECTOR_MM:g} mm is assumed"
    pitch, tag = header.imager_pitch_mm, "Imager Pixel Spacing (0018,1164)"
    if pitch is None:
        pitch, tag = _detector_pitch(header, geometry), "Pixel Spacing (0028,0030)"
    if pitch is None:
        return None, (Assumption(unknown, fitted),)
    longest = max(n * p for n, p in zip(shape, pitch, strict=True))
    low, high = PLAUSIBLE_MM
    if not low <= longest <= high:
        unknown = f"{unknown} ({tag} would make it {longest:.0f} mm)"
        return None, (Assumption(unknown, fitted),)
    if header.imager_pitch_mm is None and header.patient_pitch_mm is None:
        return pitch, (Assumption(unknown, f"{tag} is taken for the detector's"),)
    return pitch, ()


def _detector_pitch(header: Header, geometry: ViewGeometry) -> tuple[float, float] | None:
    """Pixel Spacing on the detector: magnified where it holds at the patient."""
    if header.patient_pitch_mm is None:
        return header.nominal_pitch_mm
    assert geometry.sdd_mm is not None, "the preset has a cone beam"
    assert geometry.sod_mm is not None, "the preset has a cone beam"
    magnified = geometry.sdd_mm / geometry.sod_mm
    pitch_v, pitch_u = header.patient_pitch_mm
    return pitch_v * magnified, pitch_u * magnified


def mirrored(
    orientation: tuple[str, str], angle_deg: float
) -> tuple[bool, bool, bool] | Literal["contradiction"]:
    """How to turn a picture that is labelled by Patient Orientation to our convention.

    Args:
        orientation: The patient's sides toward the last column and the last row.
        angle_deg: Primary angle; at 0 the patient's left is on the image's right.

    Returns:
        Whether to transpose, then to flip rows, then to flip columns; or that no side of the
        picture can be what the orientation says.
    """
    transposed = orientation[0] in "HF"
    across, down = orientation[::-1] if transposed else orientation
    left, posterior = SIDEWAYS[across]
    angle = math.radians(angle_deg)
    along = math.cos(angle) * left + math.sin(angle) * posterior
    if abs(along) < EDGE_ON:
        return "contradiction"
    return transposed, down == "H", along < 0.0


def to_convention(
    pixels: Shaped[Tensor, "row col"],
    pitch_mm: tuple[float, float] | None,
    header: Header,
    angle_deg: float,
    path: Path,
) -> tuple[Shaped[Tensor, "row2 col2"], tuple[float, float] | None]:
    """A picture for the eye as seen from the detector toward the source, row 0 superior.

    Patient Orientation decides where there is one. Without it the picture is taken to be hung as
    usual, with the patient's left on the right in frontal views: within 45 degrees of 180 (AP) it
    is mirrored.

    Raises:
        ValueError: If Patient Orientation contradicts the angle.
    """
    if header.orientation is None:
        is_ap = abs(angle_deg % 360.0 - 180.0) <= HUNG_LIKE_PA_DEG
        return (pixels.flip(-1) if is_ap else pixels), pitch_mm
    turn = mirrored(header.orientation, angle_deg)
    if turn == "contradiction":
        shown = "\\".join(header.orientation)
        raise ValueError(
            f"{path}: Patient Orientation (0020,0020) {shown} cannot be a view at "
            f"{angle_deg:g} degrees"
        )
    transposed, flip_rows, flip_cols = turn
    if transposed:
        pixels = pixels.T
        pitch_mm = None if pitch_mm is None else (pitch_mm[1], pitch_mm[0])
    flipped = [axis for axis, wanted in ((0, flip_rows), (1, flip_cols)) if wanted]
    return (pixels.flip(flipped) if flipped else pixels), pitch_mm
