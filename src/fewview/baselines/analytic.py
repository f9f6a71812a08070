"""Filtered backprojection of cone and parallel views (FDK).

Exact for a full circle of many views near the central plane. With a handful of views it
shows streaks instead of anatomy, and that is what it is here for: the figure that needs no
prior knowledge at all.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import grid_sample

from fewview.baselines.redundancy import half_scan_weights
from fewview.data.volume import Grid, Volume
from fewview.refine import calibrated_views
from fewview.xray.attenuation import attenuation_to_hu
from fewview.xray.geometry import Cameras, ViewGeometry, project_points
from fewview.xray.views import Views


def angular_weights(angles_deg: Sequence[float]) -> tuple[float, ...]:
    """The share of the half circle, in radians, that each view stands for.

    Opposite views see the same, so angles count modulo 180 degrees. Each view takes half of
    the gap to its neighbor on either side, and views of one angle share theirs. The sum is
    pi, half the circle of Feldkamp et al. 1984, equation 28.
    """
    folded = [angle % 180.0 for angle in angles_deg]
    distinct = sorted(set(folded))
    half_gap = {
        angle: 0.5
        * ((distinct[(i + 1) % len(distinct)] - angle) % 180.0 + (angle - distinct[i - 1]) % 180.0)
        for i, angle in enumerate(distinct)
    }
    if len(distinct) == 1:
        half_gap[distinct[0]] = 180.0
    return tuple(math.radians(half_gap[angle] / folded.count(angle)) for angle in folded)


def ramp_filter(
    images: Float[Tensor, "row col"], pitch_mm: float, cutoff_per_mm: float
) -> Float[Tensor, "row col"]:
    """Ramp-filter every row, rolled off to zero at a cutoff by a Hann window.

    Args:
        images: Weighted line integrals.
        pitch_mm: Column pitch scaled to the isocenter.
        cutoff_per_mm: Where the filter reaches zero, in cycles per mm.

    References:
        Kak and Slaney 1988, chapter 3, equation 61 (the kernel in space, which keeps the
        mean right where a ramp in frequency would lose it).
    """
    num_cols = images.shape[-1]
    length = 2 ** math.ceil(math.log2(2 * num_cols))
    offset = torch.fft.fftfreq(length, 1.0 / length, dtype=torch.float64)
    odd = offset.remainder(2) == 1
    kernel = torch.where(odd, -1.0 / (math.pi * offset * pitch_mm).square(), 0.0)
    kernel[0] = 0.25 / pitch_mm**2
    frequency = torch.fft.rfftfreq(length, pitch_mm, dtype=torch.float64)
    hann = 0.5 + 0.5 * torch.cos(math.pi * (frequency / cutoff_per_mm).clamp(max=1.0))
    response = torch.fft.rfft(kernel).real * hann * pitch_mm
    spectrum = torch.fft.rfft(images.double(), length)
    return torch.fft.irfft(spectrum * response, length)[..., :num_cols].to(images)


def _cosines(cameras: Cameras) -> Float[Tensor, "row col"]:
    """Cosine of the angle between each pixel's ray and the central ray of one view."""
    row = torch.arange(cameras.num_rows).view(-1, 1, 1).to(cameras.origin)
    col = torch.arange(cameras.num_cols).view(1, -1, 1).to(cameras.origin)
    ray = cameras.origin + row * cameras.step_v + col * cameras.step_u - cameras.source
    return (ray @ cameras.direction) / torch.linalg.vector_norm(ray, dim=-1)


def _backproject_view(
    image: Float[Tensor, "row col"],
    geometry: ViewGeometry,
    cameras: Cameras,
    points_mm: Float[Tensor, "voxel 3"],
) -> Float[Tensor, " voxel"]:
    """One view's share of the volume: its filtered value where each voxel projects."""
    sdd_mm, sod_mm = geometry.sdd_mm, geometry.sod_mm
    magnification = 1.0
    if sdd_mm is not None and sod_mm is not None:
        magnification = sdd_mm / sod_mm
        image = image * _cosines(cameras)
    voxel_mm = float(torch.linalg.vector_norm(points_mm[1] - points_mm[0]))
    pitch_mm = geometry.pixel_pitch_mm[1] / magnification
    filtered = ramp_filter(image, pitch_mm, 0.5 / max(pitch_mm, voxel_mm))
    row_col, depth = project_points(cameras, points_mm)
    size = row_col.new_tensor([cameras.num_cols, cameras.num_rows])
    position = (2.0 * row_col.flip(-1) + 1.0) / size - 1.0
    values = grid_sample(filtered[None, None], position[None, None], align_corners=False)[0, 0, 0]
    if sod_mm is not None:
        values = values * (sod_mm / depth).square()
    return values


def fdk(views: Views, grid: Grid) -> Volume:
    """Filtered backprojection with cosine, ramp, distance and half-scan weights.

    Views on an arc of half a circle or more are weighted ray by ray (`half_scan_weights`);
    on a shorter one each stands for its share of the half circle (`angular_weights`).

    The filter stops at the grid's own Nyquist frequency. Rows are filtered along the
    detector's columns direction, as for a circle around the patient's long axis; tilted
    views are taken as they are.

    Args:
        views: The views, cone or parallel; uncalibrated ones are ignored.
        grid: Where to reconstruct.

    Returns:
        The volume in HU, at least -1000.

    Raises:
        ValueError: If no view is calibrated.

    References:
        Feldkamp, Davis and Kress 1984, JOSA A 1(6), equations 27 to 30; Parker 1982, Med Phys 9(2).
    """
    usable = calibrated_views(views)
    if usable is None:
        raise ValueError("FDK needs line integrals, but no view is calibrated")
    matrix = torch.from_numpy(grid.voxel_to_patient).float()
    index = torch.cartesian_prod(*(torch.arange(count).float() for count in grid.shape))
    points_mm = index.flip(-1) @ matrix[:3, :3].T + matrix[:3, 3]
    weights = half_scan_weights(usable.cameras, usable.isocenter_mm)
    if weights is None:
        weights = torch.tensor(angular_weights([g.primary_angle_deg for g in usable.geometries]))
        weights = weights[:, None].expand(-1, usable.cameras.num_cols)
    mu = torch.zeros(len(points_mm))
    for i, (geometry, weight) in enumerate(zip(usable.geometries, weights, strict=True)):
        image = usable.images[i, 0] * weight
        mu += _backproject_view(image, geometry, usable.cameras[i], points_mm)
    hu = attenuation_to_hu(mu.clamp(min=0.0)).reshape(grid.shape)
    return Volume(hu=hu.numpy(), voxel_to_patient=grid.voxel_to_patient)
