"""Algebraic reconstruction from X-rays alone: back-projection, SIRT and CGLS.

No prior but a nonnegative attenuation. Where the X-rays see more than the grid, all of them
run on a grid enlarged to the X-rays' field, so that tissue outside is not smeared inside,
and crop at the end.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fewview.data.volume import Grid, Volume
from fewview.refine import calibrated_views, sirt_steps
from fewview.xray.attenuation import attenuation_to_hu
from fewview.xray.geometry import ViewGeometry
from fewview.xray.projector import backproject as adjoint
from fewview.xray.projector import project
from fewview.xray.views import Views


class Problem(NamedTuple):
    """Calibrated views and the grid, enlarged to their field, on which they are explained."""

    views: Views
    voxel_to_patient: Float[Tensor, "1 4 4"]
    shape: tuple[int, int, int]
    inside: tuple[slice, slice, slice]
    """Where the wanted grid lies in the enlarged one."""

    grid: Grid

    @property
    def measured(self) -> Float[Tensor, "1 view row col"]:
        """Line integrals."""
        return self.views.images[:, 0].unsqueeze(0)

    def forward(
        self, mu: Float[Tensor, "1 1 depth height width"]
    ) -> Float[Tensor, "1 view row col"]:
        """Line integrals of attenuation in 1/mm."""
        return project(mu, self.voxel_to_patient, self.views.cameras.view(1, -1))

    def transposed(
        self, rays: Float[Tensor, "1 view row col"]
    ) -> Float[Tensor, "1 1 depth height width"]:
        """The exact adjoint of `forward`."""
        return adjoint(rays, self.voxel_to_patient, self.views.cameras.view(1, -1), self.shape)

    def volume(self, mu: Float[Tensor, "1 1 depth height width"]) -> Volume:
        """The wanted part of a result, in HU; negative attenuation becomes air."""
        hu = attenuation_to_hu(mu.clamp(min=0.0))[0, 0].numpy()[self.inside]
        return Volume(hu, self.grid.voxel_to_patient)


def _field_mm(geometry: ViewGeometry) -> float:
    """Longer side of the detector's shadow at the isocenter."""
    magnification = 1.0
    if geometry.sdd_mm is not None and geometry.sod_mm is not None:
        magnification = geometry.sdd_mm / geometry.sod_mm
    pitch_v, pitch_u = geometry.pixel_pitch_mm
    return max(geometry.num_rows * pitch_v, geometry.num_cols * pitch_u) / magnification


def problem(views: Views, grid: Grid, method: str) -> Problem:
    """Set up the reconstruction of a grid.

    Args:
        views: The views; uncalibrated ones are left out.
        grid: Where a result is wanted.
        method: What to call the method in the message.

    Raises:
        ValueError: If no view is calibrated.
    """
    usable = calibrated_views(views)
    if usable is None:
        raise ValueError(f"{method} needs line integrals, but no view is calibrated")
    field_mm = max(_field_mm(geometry) for geometry in usable.geometries)
    margin = [
        max(0, math.ceil(0.5 * (field_mm / spacing - count)))
        for count, spacing in zip(grid.shape, grid.spacing_mm, strict=True)
    ]
    depth, height, width = (n + 2 * m for n, m in zip(grid.shape, margin, strict=True))
    enlarged = grid.voxel_to_patient.copy()
    enlarged[:3, 3] -= enlarged[:3, :3] @ np.array(margin[::-1], dtype=np.float64)
    in_depth, in_height, in_width = (
        slice(m, m + n) for n, m in zip(grid.shape, margin, strict=True)
    )
    return Problem(
        views=usable,
        voxel_to_patient=torch.from_numpy(enlarged).float()[None],
        shape=(depth, height, width),
        inside=(in_depth, in_height, in_width),
        grid=grid,
    )


def sirt(views: Views, grid: Grid, *, num_steps: int = 40) -> Volume:
    """Reconstruct from an empty volume with `refine.sirt_steps`.

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
    _check_steps(num_steps)
    wanted = problem(views, grid, "SIRT")
    empty = torch.zeros(1, 1, *wanted.shape)
    mu = sirt_steps(empty, wanted.voxel_to_patient, wanted.views, num_steps=num_steps)
    return wanted.volume(mu)


def backproject(views: Views, grid: Grid) -> Volume:
    """Unfiltered back-projection: each line integral spread evenly along its ray.

    A voxel takes the mean over the rays that cross it, which is the first step of SIRT.

    Args:
        views: The views; uncalibrated ones are ignored.
        grid: Where to reconstruct.

    Returns:
        The volume in HU; what no ray crosses is air.

    Raises:
        ValueError: If no view is calibrated.
    """
    return sirt(views, grid, num_steps=1)


def cgls(views: Views, grid: Grid, *, num_steps: int = 10) -> Volume:
    """Least squares by conjugate gradients from an empty volume; early stopping regularizes.

    Args:
        views: The views; uncalibrated ones are ignored.
        grid: Where to reconstruct.
        num_steps: Conjugate gradient steps.

    Returns:
        The volume in HU, at least -1000: attenuation below zero is cut off at the end only,
        as the method itself knows no bounds.

    Raises:
        ValueError: If no view is calibrated, or `num_steps` is not positive.

    References:
        Hestenes and Stiefel 1952, section 10; Hansen 1998, algorithm CGLS of section 6.3.
    """
    _check_steps(num_steps)
    wanted = problem(views, grid, "CGLS")
    return wanted.volume(least_squares(wanted, num_steps))


def least_squares(wanted: Problem, num_steps: int) -> Float[Tensor, "1 1 depth height width"]:
    """The conjugate gradient steps of `cgls`: attenuation in 1/mm, of either sign."""
    mu = torch.zeros(1, 1, *wanted.shape)
    residual = wanted.measured.clone()
    gradient = wanted.transposed(residual)
    direction, energy = gradient, gradient.square().sum()
    for _ in range(num_steps):
        if energy <= 0.0:
            break  # the views are explained, or see nothing of the grid
        seen = wanted.forward(direction)
        length = energy / seen.square().sum()
        mu = mu + length * direction
        residual = residual - length * seen
        gradient = wanted.transposed(residual)
        before, energy = energy, gradient.square().sum()
        direction = gradient + (energy / before) * direction
    return mu


def _check_steps(num_steps: int) -> None:
    if num_steps < 1:
        raise ValueError(f"num_steps must be 1 or more, got {num_steps}")
