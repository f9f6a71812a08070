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

from fewview.xray.assumed import Assumption, settle, to_convention
from fewview.xray.cleaning import clean
from fewview.xray.detector import display_style
from fewview.xray.geometry import ViewGeometry
from fewview.xray.geometry_record import read_record
from fewview.xray.picture import Picture, read_picture
from fewview.xray.views import Views

OTHER_VIEW_DEG = 45.0  # an angle farther from the header's shows another view

log = logging.getLogger(__name__)


def read_radiographs(
    paths: Sequence[str | Path],
    angles_deg: Sequence[float] | None = None,
    geometry: ViewGeometry | None = None,
    *,
    strict: bool = False,
    keep_markings: bool = False,
) -> Views:
    """Read X-ray pictures (PNG, JPEG, TIFF, DICOM) as views.

    The geometry of a picture is, in this order: `geometry` with its angle; the file beside
    it with the suffix `.json` (a view of `views.json` without image); its DICOM header; the
    `chest` preset. What no source says is assumed, with one warning for all pictures. Pictures
    are brought to the detector's pixel count and padded to keep their shape. The isocenter is
    the origin.

    Every detector keeps its extent and gets the pixel count of the first one. A file beside a
    picture may mark its geometry as assumed.

    Display-style pictures are turned to our convention (`assumed.to_convention`); collimated
    borders and letters are removed from them (`cleaning.clean`).

    Args:
        paths: One picture per view.
        angles_deg: One primary angle per view; from the files without it.
        geometry: Beam, distances and detector of all views; its own angle is not used.
        strict: Refuse views whose distances or size are not known instead of assuming them.
        keep_markings: Leave borders and letters in the pictures.

    Raises:
        ValueError: If a picture cannot be used, angles and pictures do not match, an angle
            is not known, or `strict` is set and something would be assumed.
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
    on_detector = [_on_detector(one, size, keep_markings=keep_markings) for one in taken]
    images, geometries = zip(*on_detector, strict=True)
    return Views(
        images=torch.stack(images)[:, None],
        geometries=geometries,
        isocenter_mm=(0.0, 0.0, 0.0),
        calibrated=tuple(one.picture.is_float for one in taken),
        source=tuple(one.source for one in taken),
        geometry_source=tuple("assumed" if one.assumed else "measured" for one in taken),
    )


@dataclass(frozen=True, eq=False)
class _Taken:
    """A picture and how it was taken."""

    path: Path
    picture: Picture
    geometry: ViewGeometry
    pitch_mm: tuple[float, float] | None = None
    """Pixel pitch of the picture itself, where the geometry's is not to be taken."""
    assumed: tuple[Assumption, ...] = ()
    """What of its geometry is not known."""
    source: str = "radiograph"
    """`drr` where a file says so."""


def _take(path: Path, angle: float | None, given: ViewGeometry | None) -> _Taken:
    """Read a picture and settle its geometry."""
    picture = read_picture(path)
    header, beside = picture.header, path.with_suffix(".json")
    own_angle = header.primary_angle_deg
    if given is not None:
        taken = _Taken(path, picture, given)
    elif beside.is_file():
        taken = _take_by_file(path, picture, beside)
        own_angle = taken.geometry.primary_angle_deg
    else:
        rows, cols = picture.pixels.shape
        settled = settle(header, (rows, cols), path)
        taken = _Taken(path, picture, settled.geometry, settled.pitch_mm, settled.assumed)
    chosen = own_angle if angle is None else angle
    if chosen is None:
        why = header.angle_conflict
        wrong = f"contradicts itself: {why}" if why else "has no geometry: its angle is not known"
        raise ValueError(f"{path} {wrong}; give --angles-deg")
    if header.angle_conflict:
        told = "%s contradicts itself: %s; the given %g degrees are taken"
        log.warning(told, path.name, header.angle_conflict, chosen)
    if angle is not None and own_angle is not None:
        _tell_other_angle(path, angle, own_angle)
    return replace(taken, geometry=replace(taken.geometry, primary_angle_deg=chosen))


def _take_by_file(path: Path, picture: Picture, beside: Path) -> _Taken:
    """A picture with the geometry and the marks in the file beside it."""
    geometry, record = read_record(beside)
    if record.get("image", path.name) != path.name:
        raise ValueError(f"{beside} is about {record['image']!r}, not about {path.name}")
    calibrated = record.get("calibrated", picture.is_float)
    if calibrated and not picture.is_float:
        raise ValueError(
            f"{beside}: 'calibrated' is true, but {path.name} has no floating-point numbers: "
            "line integrals need a float TIFF"
        )
    marked = Assumption(f"{beside.name} says that its geometry is assumed", "it is taken as it is")
    assumed = (marked,) if record.get("geometry") == "assumed" else ()
    return _Taken(
        path,
        replace(picture, is_float=calibrated),
        geometry,
        assumed=assumed,
        source=record.get("source", "radiograph"),
    )


def _tell_other_angle(path: Path, angle: float, own_angle: float) -> None:
    """Say that a flag makes another view of a picture than its file."""
    if abs((angle - own_angle + 180.0) % 360.0 - 180.0) > OTHER_VIEW_DEG:
        log.warning(
            "%s: its file says %g degrees; the given %g degrees are taken",
            path.name,
            own_angle,
            angle,
        )


def _tell_assumed(taken: Sequence[_Taken], *, strict: bool) -> None:
    """Say once what is assumed of which views, or refuse it."""
    by_reason: dict[tuple[Assumption, ...], list[str]] = {}
    for one in taken:
        if one.assumed:
            by_reason.setdefault(one.assumed, []).append(one.path.name)
    if not by_reason:
        return
    told = []
    for assumed, names in by_reason.items():
        parts = [one.unknown if strict else f"{one.unknown}, {one.instead}" for one in assumed]
        told.append(f"{', '.join(names)}: {'; '.join(parts)}")
    message = f"{'; '.join(told)}; give --geometry"
    if strict:
        raise ValueError(message)
    log.warning("%s", message)


def _on_detector(
    taken: _Taken, size: tuple[int, int], *, keep_markings: bool
) -> tuple[Float32[Tensor, "row col"], ViewGeometry]:
    """The picture on a detector of `size` pixels, centered and padded to keep its shape."""
    pixels, own_pitch = torch.from_numpy(taken.picture.pixels), taken.pitch_mm
    if not taken.picture.is_float:
        angle = taken.geometry.primary_angle_deg
        pixels, own_pitch = to_convention(
            pixels, own_pitch, taken.picture.header, angle, taken.path
        )
    geometry = _with_pixels(taken.geometry, size)
    pitch = own_pitch or (1.0, 1.0)
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
        image = display_style(image) if keep_markings else clean(image).image
    top, left = (room - count for room, count in zip(size, inner, strict=True))
    image = functional.pad(image, (left // 2, left - left // 2, top // 2, top - top // 2))
    if own_pitch is not None:
        pitch_v, pitch_u = geometry.pixel_pitch_mm
        geometry = replace(geometry, pixel_pitch_mm=(shrink * pitch_v, shrink * pitch_u))
    return image, geometry


def _with_pixels(geometry: ViewGeometry, size: tuple[int, int]) -> ViewGeometry:
    """The geometry with a detector of the same extent and so many pixels."""
    pitch_v, pitch_u = geometry.pixel_pitch_mm
    pitch = (pitch_v * (geometry.num_rows / size[0]), pitch_u * (geometry.num_cols / size[1]))
    return replace(geometry, num_rows=size[0], num_cols=size[1], pixel_pitch_mm=pitch)


def _resized(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """The image with so many pixels, averaged where it shrinks; untouched if it has them."""
    resized = functional.interpolate(
        pixels[None, None], size=size, mode="bilinear", antialias=True, align_corners=False
    )
    return resized[0, 0]
