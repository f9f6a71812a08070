"""Simultaneous iterative reconstruction (SIRT) from X-rays alone."""

import math

import numpy as np
import torch

from fewview.data.volume import Grid, Volume
from fewview.refine import calibrated_views, sirt_steps
from fewview.xray.attenuation import attenuation_to_hu
from fewview.xray.geometry import ViewGeometry
from fewview.xray.views import Views


def _field_mm(geometry: ViewGeometry) -> float:
    """Longer side of the detector's shadow at the isocenter."""
    magnification = 1.0
    if geometry.sdd_mm is not None and geometry.sod_mm is not None:
        magnification = geometry.sdd_mm / geometry.sod_mm
    pitch_v, pitch_u = geometry.pixel_pitch_mm
    return max(geometry.num_rows * pitch_v, geometry.num_cols * pitch_u) / magnification


def sirt(views: Views, grid: Grid, *, num_steps: int = 40) -> Volume:
    """Reconstruct from an empty volume with `refine.sirt_steps`.

    Where the X-rays see more than the grid, the reconstruction runs on a grid enlarged to
    their field, so that tissue outside is not smeared inside, and is cropped at the end.

    Args:
        views: The views; uncalibrated ones are ignored.
        grid: Where to reconstruct.
        num_steps: SIRT steps over all views. With few views more steps change little but
            the noise.

    Returns:
        The volume in HU; what no ray crosses is air.

    Raises:
        ValueError: If no view is calibrated, or `num_steps` is not positive.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps must be 1 or more, got {num_steps}")
    usable = calibrated_views(views)
    if usable is None:
        raise ValueError("SIRT needs line integrals, but no view is calibrated")
    field_mm = max(_field_mm(geometry) for geometry in usable.geometries)
    margin = [
        max(0, math.ceil(0.5 * (field_mm / spacing - count)))
        for count, spacing in zip(grid.shape, grid.spacing_mm, strict=True)
    ]
    depth, height, width = (n + 2 * m for n, m in zip(grid.shape, margin, strict=True))
    enlarged = grid.voxel_to_patient.copy()
    enlarged[:3, 3] -= enlarged[:3, :3] @ np.array(margin[::-1], dtype=np.float64)
    matrix = torch.from_numpy(enlarged).float()[None]
    mu = sirt_steps(torch.zeros(1, 1, depth, height, width), matrix, usable, num_steps=num_steps)
    inside = tuple(slice(m, m + n) for n, m in zip(grid.shape, margin, strict=True))
    return Volume(attenuation_to_hu(mu)[0, 0].numpy()[inside], grid.voxel_to_patient)
