"""Where the X-ray source and the detector stand.

A `ViewGeometry` is what a person writes down: angles, distances, pixels. `Cameras` are
the same views as tensors in patient coordinates (DICOM LPS, mm), ready for the projector.
Neither knows a volume. `docs/conventions.md` has the drawing.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Beam = Literal["cone", "parallel"]
PRESET_NAMES = ("chest", "x2ct", "parallel")
SHORTEST_SDD_MM = 50.0  # no unit that takes a patient is shorter: below it the unit is not mm
CLOSEST_DEPTH_MM = 1e-3  # a point at the source has no image; it is sent far off the detector


@dataclass(frozen=True, kw_only=True)
class ViewGeometry:
    """One view: beam, angles, distances and detector. Lengths in mm, angles in degrees."""

    beam: Beam
    """`cone` from a point source, or `parallel`, which has no distances."""

    primary_angle_deg: float = 0.0
    """DICOM (0018,1510): 0 is a PA image, +90 puts the detector on the patient's left."""

    secondary_angle_deg: float = 0.0
    """DICOM (0018,1511): + tilts the detector toward the head."""

    roll_deg: float = 0.0
    """Turns the detector about the central ray, its u axis toward its v axis."""

    sdd_mm: float | None = None
    """Source-to-detector distance, DICOM (0018,1110)."""

    sod_mm: float | None = None
    """Source-to-isocenter distance; DICOM (0018,1111) in XA only."""

    num_rows: int
    """Detector pixels down."""

    num_cols: int
    """Detector pixels across."""

    pixel_pitch_mm: tuple[float, float]
    """Distance of pixel centers (v, u) on the detector, DICOM (0018,1164)."""

    detector_offset_mm: tuple[float, float] = (0.0, 0.0)
    """Where the foot of the source's perpendicular lies from the detector's center, (v, u)."""

    def __post_init__(self) -> None:
        """Refuse a view that cannot exist."""
        if self.beam not in ("cone", "parallel"):
            raise ValueError(f"beam must be 'cone' or 'parallel', got {self.beam!r}")
        _check_finite(self)
        if not -90.0 < self.secondary_angle_deg < 90.0:
            raise ValueError(
                f"secondary_angle_deg must be between -90 and 90, got {self.secondary_angle_deg}"
            )
        if self.num_rows < 1 or self.num_cols < 1:
            raise ValueError(f"the detector needs pixels, got {self.num_rows} x {self.num_cols}")
        if min(self.pixel_pitch_mm) <= 0.0:
            raise ValueError(f"pixel_pitch_mm must be positive, got {self.pixel_pitch_mm}")
        _check_distances(self)


def _check_finite(geometry: ViewGeometry) -> None:
    for name in ("pixel_pitch_mm", "detector_offset_mm"):
        if len(getattr(geometry, name)) != 2:
            raise ValueError(f"{name} must be a pair (v, u), got {getattr(geometry, name)}")
    numbers = {
        "primary_angle_deg": (geometry.primary_angle_deg,),
        "secondary_angle_deg": (geometry.secondary_angle_deg,),
        "roll_deg": (geometry.roll_deg,),
        "pixel_pitch_mm": geometry.pixel_pitch_mm,
        "detector_offset_mm": geometry.detector_offset_mm,
    }
    for name, values in numbers.items():
        if not all(math.isfinite(value) for value in values):
            raise ValueError(f"{name} must be finite, got {getattr(geometry, name)}")


def _check_distances(geometry: ViewGeometry) -> None:
    sdd_mm, sod_mm = geometry.sdd_mm, geometry.sod_mm
    if geometry.beam == "parallel":
        if sdd_mm is not None or sod_mm is not None:
            raise ValueError("a parallel beam has no sdd_mm and sod_mm; leave them out")
        return
    if sdd_mm is None or sod_mm is None:
        raise ValueError("a cone beam needs sdd_mm and sod_mm")
    if not 0.0 < sod_mm < sdd_mm or not math.isfinite(sdd_mm):
        raise ValueError(f"need 0 < sod_mm < sdd_mm, got sod_mm {sod_mm} and sdd_mm {sdd_mm}")
    if sdd_mm < SHORTEST_SDD_MM:
        raise ValueError(f"sdd_mm is {sdd_mm}: too short for a patient; is it in m or cm?")


def preset(name: str, *, angle_deg: float = 0.0, size: int | None = None) -> ViewGeometry:
    """A named view geometry.

    `chest` is a radiography room: SDD 1800, SOD 1600, 430 mm detector. `x2ct` is the
    geometry of the X2CT and CLS-DM data: SDD 949, SOD 541, 500 mm detector, which is
    285 mm at the isocenter, so wide bodies are cut off. `parallel` sees 400 mm.

    Args:
        name: One of `PRESET_NAMES`.
        angle_deg: Primary angle.
        size: Pixels per side; the detector keeps its extent.

    Raises:
        ValueError: If the name is unknown or `size` is not positive.
    """
    if size is not None and size < 1:
        raise ValueError(f"size must be a positive number of pixels, got {size}")
    beam: Beam = "cone"
    sdd_mm: float | None
    sod_mm: float | None
    match name:
        case "chest":
            sdd_mm, sod_mm, num_pixels, extent_mm = 1800.0, 1600.0, size or 256, 430.0
        case "x2ct":
            sdd_mm, sod_mm, num_pixels, extent_mm = 949.0, 541.0, size or 320, 500.0
        case "parallel":
            beam, sdd_mm, sod_mm = "parallel", None, None
            num_pixels, extent_mm = size or 256, 400.0
        case _:
            raise ValueError(f"no geometry named {name!r}; there are {', '.join(PRESET_NAMES)}")
    pitch = extent_mm / num_pixels
    return ViewGeometry(
        beam=beam,
        primary_angle_deg=angle_deg,
        sdd_mm=sdd_mm,
        sod_mm=sod_mm,
        num_rows=num_pixels,
        num_cols=num_pixels,
        pixel_pitch_mm=(pitch, pitch),
    )


def spread_angles(num_views: int) -> tuple[float, ...]:
    """Primary angles in degrees of `num_views` views spread over 180 degrees from 0.

    Raises:
        ValueError: If there is no view.
    """
    if num_views < 1:
        raise ValueError(f"num_views must be at least 1, got {num_views}")
    return tuple(index * 180.0 / num_views for index in range(num_views))


@dataclass(frozen=True, eq=False)
class Cameras:
    """Views as tensors in patient coordinates (LPS, mm), with any leading shape.

    Pixel (row, col) is centered on `origin + row * step_v + col * step_u`. A cone view's
    ray starts in `source`; a parallel view's ray runs along `direction`, and its `source`
    is the isocenter. `step_v`, `step_u` and `direction` are orthogonal.
    """

    source: Float[Tensor, "*lead 3"]
    origin: Float[Tensor, "*lead 3"]
    step_v: Float[Tensor, "*lead 3"]
    step_u: Float[Tensor, "*lead 3"]
    direction: Float[Tensor, "*lead 3"]
    parallel: Bool[Tensor, "*lead"]
    num_rows: int
    num_cols: int

    @property
    def lead(self) -> tuple[int, ...]:
        """The leading shape, such as (view,) or (batch, view)."""
        return tuple(self.parallel.shape)

    @property
    def vectors(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The five vector tensors in the order of the fields."""
        return self.source, self.origin, self.step_v, self.step_u, self.direction

    def _with(self, vectors: Iterable[Tensor], parallel: Tensor) -> "Cameras":
        source, origin, step_v, step_u, direction = vectors
        return Cameras(
            source, origin, step_v, step_u, direction, parallel, self.num_rows, self.num_cols
        )

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> "Cameras":
        """The same cameras on another device or in another floating-point type."""
        vectors = [vector.to(device=device, dtype=dtype) for vector in self.vectors]
        return self._with(vectors, self.parallel.to(device=device))

    def view(self, *lead: int) -> "Cameras":
        """The same cameras with another leading shape, as `Tensor.view`."""
        vectors = [vector.reshape(*lead, 3) for vector in self.vectors]
        return self._with(vectors, self.parallel.reshape(*lead))

    def __getitem__(self, index: int | slice | tuple[int | slice, ...]) -> "Cameras":
        """Cameras picked along the leading shape."""
        vectors = [vector[index] for vector in self.vectors]
        return self._with(vectors, self.parallel[index])


def cameras(
    geometries: Sequence[ViewGeometry],
    isocenter_mm: Sequence[float],
    *,
    dtype: torch.dtype = torch.float32,
) -> Cameras:
    """Cameras of the views of one patient, leading shape [view].

    Args:
        geometries: One per view, all with the same detector size in pixels.
        isocenter_mm: The point (LPS, mm) all views turn about.
        dtype: Floating-point type of the tensors.

    Raises:
        ValueError: If there is no view or the detectors differ in pixel count.
    """
    if not geometries:
        raise ValueError("no views: at least one geometry is needed")
    sizes = {(geometry.num_rows, geometry.num_cols) for geometry in geometries}
    if len(sizes) > 1:
        raise ValueError(f"all views need one detector size in pixels, got {sorted(sizes)}")
    isocenter = torch.tensor([float(x) for x in isocenter_mm], dtype=torch.float64)
    return stack_cameras([_camera(geometry, isocenter) for geometry in geometries]).to(dtype=dtype)


def _camera(geometry: ViewGeometry, isocenter: Tensor) -> Cameras:
    """The camera of one view without leading shape, in float64."""
    direction, axis_v, axis_u = _view_axes(geometry)
    source = foot = isocenter
    if geometry.sdd_mm is not None and geometry.sod_mm is not None:
        source = isocenter - geometry.sod_mm * direction
        foot = source + geometry.sdd_mm * direction
    pitch_v, pitch_u = geometry.pixel_pitch_mm
    offset_v, offset_u = geometry.detector_offset_mm
    first_v = 0.5 * pitch_v * (1 - geometry.num_rows) - offset_v
    first_u = 0.5 * pitch_u * (1 - geometry.num_cols) - offset_u
    origin = foot + first_v * axis_v + first_u * axis_u
    parallel = torch.tensor(geometry.beam == "parallel")
    return Cameras(
        source=source,
        origin=origin,
        step_v=pitch_v * axis_v,
        step_u=pitch_u * axis_u,
        direction=direction,
        parallel=parallel,
        num_rows=geometry.num_rows,
        num_cols=geometry.num_cols,
    )


def _view_axes(geometry: ViewGeometry) -> tuple[Tensor, Tensor, Tensor]:
    """Unit vectors along the central ray, down and to the right of the image (LPS)."""
    primary = math.radians(geometry.primary_angle_deg)
    secondary = math.radians(geometry.secondary_angle_deg)
    roll = math.radians(geometry.roll_deg)
    direction = torch.tensor(
        [
            math.cos(secondary) * math.sin(primary),
            -math.cos(secondary) * math.cos(primary),
            math.sin(secondary),
        ],
        dtype=torch.float64,
    )
    right = torch.tensor([math.cos(primary), math.sin(primary), 0.0], dtype=torch.float64)
    down = torch.linalg.cross(right, direction)
    axis_u = math.cos(roll) * right + math.sin(roll) * down
    axis_v = math.cos(roll) * down - math.sin(roll) * right
    return direction, axis_v, axis_u


def stack_cameras(views: Sequence[Cameras]) -> Cameras:
    """Cameras of several patients as one batch, leading shape [batch, view].

    Raises:
        ValueError: If view counts or detector sizes differ.
    """
    shapes = {(one.lead, one.num_rows, one.num_cols) for one in views}
    if len(shapes) != 1:
        raise ValueError(f"a batch needs equal view counts and detectors, got {sorted(shapes)}")
    vectors = [torch.stack(vector) for vector in zip(*(one.vectors for one in views), strict=True)]
    return views[0]._with(vectors, torch.stack([one.parallel for one in views]))


def project_points(
    cameras: Cameras, points_mm: Float[Tensor, "... point 3"]
) -> tuple[Float[Tensor, "... point 2"], Float[Tensor, "... point"]]:
    """Where patient points land on the detectors.

    Differentiable in points and cameras. Leading shapes broadcast.

    Args:
        cameras: Cameras with leading shape [*lead].
        points_mm: Points in patient coordinates (LPS, mm), [*lead, point, 3].

    Returns:
        Row and column in pixel indices (0 is the center of the first pixel), and the
        depth in mm along the central ray from the source, for a parallel beam from the
        isocenter. A point at or behind the source has depth <= 0 and no image: its row
        and column are meaningless and mostly far off the detector.
    """
    dtype = points_mm.dtype
    source, origin, step_v, step_u, direction = (
        vector.to(dtype)[..., None, :] for vector in cameras.vectors
    )
    from_source = points_mm - source
    depth = (from_source * direction).sum(-1)
    distance = ((origin - source) * direction).sum(-1)
    magnified = distance / depth.clamp(min=CLOSEST_DEPTH_MM)
    scale = torch.where(cameras.parallel[..., None], torch.ones_like(magnified), magnified)
    from_origin = (source - origin) + from_source * scale[..., None]
    row = (from_origin * step_v).sum(-1) / (step_v * step_v).sum(-1)
    col = (from_origin * step_u).sum(-1) / (step_u * step_u).sum(-1)
    return torch.stack((row, col), dim=-1), depth
