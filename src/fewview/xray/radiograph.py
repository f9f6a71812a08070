"""Measured X-ray pictures to views.

A picture for the eye has lost its calibration: it becomes a display-style view. Only a
TIFF of floating-point numbers is taken for line integrals. Angles and distances come from
the caller, from a file beside the picture or from its DICOM header; where no distances
are known, those of a radiography room are assumed, and the view says so.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float32
from torch import Tensor
from torch.nn import functional

from fewview.xray.detector import display_style
from fewview.xray.geometry import ViewGeometry, preset
from fewview.xray.picture import Picture, read_picture
from fewview.xray.views import Views, read_geometry

ASSUMED_PRESET = "chest"
HUNG_LIKE_PA_DEG = 45.0  # a view this near to 180 degrees is an AP radiograph

log = logging.getLogger(__name__)


def read_radiographs(
    paths: Sequence[str | Path],
    angles_deg: Sequence[float] | None = None,
    geometry: ViewGeometry | None = None,
    *,
    strict: bool = False,
) -> Views:
    """Read X-ray pictures (PNG, JPEG, TIFF, DICOM) as views.

    The geometry of a picture is, in this order: `geometry` with its angle; the file beside
    it with the suffix `.json` (a view of `views.json` without image); its DICOM header; the
    `chest` preset, with one warning. Pictures are brought to the detector's pixel count and
    padded to keep their shape. The isocenter is the origin.

    An AP radiograph (180 degrees) is hung like a PA one, so a display-style picture within
    45 degrees of 180 is mirrored.

    Args:
        paths: One picture per view.
        angles_deg: One primary angle per view; from the files without it.
        geometry: Beam, distances and detector of all views; its own angle is not used.
        strict: Refuse views without known distances instead of assuming the preset.

    Raises:
        ValueError: If a picture cannot be used, angles and pictures do not match, an angle
            is not known, or `strict` is set and distances are not known.
    """
    if not paths:
        raise ValueError("no views: at least one image is needed")
    if angles_deg is not None and len(angles_deg) != len(paths):
        raise ValueError(f"{len(paths)} images but {len(angles_deg)} angles: give one for each")
    taken = [
        _take(Path(path), None if angles_deg is None else float(angles_deg[index]), geometry)
        for index, path in enumerate(paths)
    ]
    _tell_assumed(taken, strict=strict)
    size = (taken[0].geometry.num_rows, taken[0].geometry.num_cols)
    images, geometries = zip(*(_on_detector(one, size) for one in taken), strict=True)
    return Views(
        images=torch.stack(images)[:, None],
        geometries=geometries,
        isocenter_mm=(0.0, 0.0, 0.0),
        calibrated=tuple(one.picture.is_float for one in taken),
        source=("radiograph",) * len(taken),
        geometry_source=tuple("measured" if one.is_known else "assumed" for one in taken),
    )


@dataclass(frozen=True, eq=False)
class _Taken:
    """A picture and how it was taken."""

    path: Path
    picture: Picture
    geometry: ViewGeometry
    is_known: bool
    """Whether its distances are known."""
    pitch_mm: tuple[float, float] | None
    """Pixel pitch of the picture itself, where the geometry's is not to be taken."""


def _take(path: Path, angle: float | None, given: ViewGeometry | None) -> _Taken:
    """Read a picture and settle its geometry."""
    picture = read_picture(path)
    beside = path.with_suffix(".json")
    pitch = None
    if given is not None:
        geometry, is_known, own_angle = given, True, picture.tags.get("primary_angle_deg")
    elif beside.is_file():
        geometry, is_known = read_geometry(beside), True
        own_angle = geometry.primary_angle_deg
    else:
        geometry, is_known = _from_header(path, picture)
        pitch, own_angle = picture.pixel_pitch_mm, picture.tags.get("primary_angle_deg")
    angle = own_angle if angle is None else angle
    if angle is None:
        raise ValueError(f"{path} has no geometry: its angle is not known; give --angles-deg")
    return _Taken(path, picture, replace(geometry, primary_angle_deg=angle), is_known, pitch)


def _from_header(path: Path, picture: Picture) -> tuple[ViewGeometry, bool]:
    """Geometry by the DICOM header, else the preset; and whether the distances are known."""
    tags = picture.tags
    standard = preset(ASSUMED_PRESET)
    if picture.pixel_pitch_mm is None or not {"sdd_mm", "sod_mm"} <= tags.keys():
        return standard, False
    try:
        geometry = replace(
            standard,
            secondary_angle_deg=tags.get("secondary_angle_deg", 0.0),
            sdd_mm=tags["sdd_mm"],
            sod_mm=tags["sod_mm"],
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return geometry, True


def _tell_assumed(taken: Sequence[_Taken], *, strict: bool) -> None:
    """Say once which views' distances are assumed, or refuse them."""
    assumed = [one.path.name for one in taken if not one.is_known]
    if not assumed:
        return
    names = ", ".join(assumed)
    if strict:
        raise ValueError(f"{names}: distances are not known; give --geometry")
    log.warning(
        "%s: distances are not known, the '%s' geometry is assumed; give --geometry",
        names,
        ASSUMED_PRESET,
    )


def _on_detector(
    taken: _Taken, size: tuple[int, int]
) -> tuple[Float32[Tensor, "row col"], ViewGeometry]:
    """The picture on a detector of `size` pixels, centered and padded to keep its shape."""
    pixels = torch.from_numpy(taken.picture.pixels)
    geometry = replace(taken.geometry, num_rows=size[0], num_cols=size[1])
    pitch = taken.pitch_mm or (1.0, 1.0)
    # Extent of the picture in pixels of the detector, before it is shrunk to fit.
    extent = [
        count * own / target
        for count, own, target in zip(pixels.shape, pitch, geometry.pixel_pitch_mm, strict=True)
    ]
    shrink = max(have / room for have, room in zip(extent, size, strict=True))
    # Equal margins on both sides keep the picture's center on the detector's.
    margins = [round((room - have / shrink) / 2.0) for have, room in zip(extent, size, strict=True)]
    inner = [max(1, room - 2 * margin) for room, margin in zip(size, margins, strict=True)]
    image = _resized(pixels, (inner[0], inner[1]))
    if not taken.picture.is_float:
        image = display_style(image)
        if _is_hung_like_pa(geometry.primary_angle_deg):
            image = image.flip(-1)
    top, left = (room - count for room, count in zip(size, inner, strict=True))
    image = functional.pad(image, (left // 2, left - left // 2, top // 2, top - top // 2))
    if taken.pitch_mm is not None:
        pitch_v, pitch_u = geometry.pixel_pitch_mm
        geometry = replace(geometry, pixel_pitch_mm=(shrink * pitch_v, shrink * pitch_u))
    return image, geometry


def _resized(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """The image with so many pixels, averaged where it shrinks; untouched if it has them."""
    resized = functional.interpolate(
        pixels[None, None], size=size, mode="bilinear", antialias=True, align_corners=False
    )
    return resized[0, 0]


def _is_hung_like_pa(angle_deg: float) -> bool:
    """Whether the detector was behind the patient."""
    return abs(angle_deg % 360.0 - 180.0) <= HUNG_LIKE_PA_DEG
