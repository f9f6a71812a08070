"""Line integrals of an attenuation volume along X-rays, and their exact adjoint.

Joseph's method: take the volume axis along which a view's rays mostly run, sample every
plane across that axis where the ray meets it (bilinear), sum over the planes and multiply
by the ray's path length per plane. Planes are the batch of a two-dimensional
`grid_sample`, whose CPU kernel is vectorized. Any pose, cone or parallel, changes only
the sampling grid. Outside the volume there is nothing; a voxel is a hat function in
plane, so its content counts fully also at the border. Rays do not end at the detector.

References:
    Joseph, An improved algorithm for reprojecting rays through pixel images, IEEE TMI 1982.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from fewview.xray.geometry import Cameras

PLANE_AXES = ((1, 2), (0, 2), (0, 1))  # in-plane (col, row) voxel axes per main axis x, y, z
TO_PLANES = ((2, 0, 1), (1, 0, 2), (0, 1, 2))  # [z, y, x] to [plane, row, col] per main axis


@dataclass(frozen=True)
class _Rays:
    """Rays of one view in voxel indices, as lines over the plane index along `axis`."""

    axis: int
    """Main axis: 0, 1, 2 are voxel x, y, z."""

    planes: tuple[int, int]
    """First and last + 1 plane in front of the source."""

    at_zero: Tensor
    """[row, col, 2]: in-plane (col, row) index where the ray meets plane 0."""

    slope: Tensor
    """[row, col, 2]: change of that index per plane."""

    length: Tensor
    """[row, col]: path in mm per plane."""


def project(
    mu: Float[Tensor, "batch 1 depth height width"],
    voxel_to_patient: Float[Tensor, "batch 4 4"],
    cameras: Cameras,
) -> Float[Tensor, "batch view row col"]:
    """Line integrals of volumes along the rays of their cameras.

    Differentiable in `mu`, and in the cameras' tensors and `voxel_to_patient` when one of
    them requires a gradient. What lies behind a cone's source is not seen.

    Args:
        mu: Attenuation in 1/mm.
        voxel_to_patient: Voxel (x, y, z) index to patient mm, of any orientation,
            anisotropic or oblique.
        cameras: Cameras with leading shape [batch, view].

    Returns:
        Line integrals, without unit, in the type of `mu`.
    """
    return project_plain(mu, voxel_to_patient, cameras)


def backproject(
    images: Float[Tensor, "batch view row col"],
    voxel_to_patient: Float[Tensor, "batch 4 4"],
    cameras: Cameras,
    shape: tuple[int, int, int],
) -> Float[Tensor, "batch 1 depth height width"]:
    """Exact adjoint of `project`: smears images back along their rays.

    Args:
        images: One value per detector pixel.
        voxel_to_patient: As in `project`.
        cameras: Cameras with leading shape [batch, view].
        shape: Voxels (depth, height, width) of the volume.

    Returns:
        For every voxel the sum over rays of value times the ray's length in the voxel, mm.
    """
    with torch.enable_grad():
        mu = images.new_zeros((len(images), 1, *shape), requires_grad=True)
        projected = project_plain(mu, voxel_to_patient, cameras)
        return torch.autograd.grad(projected, mu, images)[0]


def project_plain(
    mu: Float[Tensor, "batch 1 depth height width"],
    voxel_to_patient: Float[Tensor, "batch 4 4"],
    cameras: Cameras,
) -> Float[Tensor, "batch view row col"]:
    """The reference of `project` in plain differentiable operations, gradient in pose included."""
    shape = mu.shape[2:]
    views = _all_rays(voxel_to_patient, cameras, (shape[0], shape[1], shape[2]), mu.dtype)
    images = [
        torch.stack([_project_view(volume[0], rays) for rays in of_volume])
        for volume, of_volume in zip(mu, views, strict=True)
    ]
    return torch.stack(images)


def _project_view(volume: Tensor, rays: _Rays) -> Tensor:
    """Line integrals [row, col] of one volume [depth, height, width] in one view."""
    first, last = rays.planes
    if last <= first:
        return volume.new_zeros(rays.length.shape)
    planes = volume.permute(TO_PLANES[rays.axis])[first:last]
    index = torch.arange(first, last, device=volume.device, dtype=volume.dtype)
    where = rays.at_zero + index[:, None, None, None] * rays.slope
    size = torch.tensor([planes.shape[2], planes.shape[1]], device=volume.device)
    grid = (2.0 * where + 1.0) / size - 1.0
    samples = functional.grid_sample(
        planes[:, None], grid, mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return samples[:, 0].sum(0) * rays.length


def _all_rays(
    voxel_to_patient: Tensor, cameras: Cameras, shape: tuple[int, int, int], dtype: torch.dtype
) -> list[list[_Rays]]:
    """Rays per volume and view; one look at the poses decides all main axes."""
    patient_to_voxel = torch.linalg.inv(voxel_to_patient.double())
    turn = patient_to_voxel[:, None, :3, :3]
    shift = patient_to_voxel[:, None, :3, 3]
    double = cameras.to(dtype=torch.float64)
    direction = _rotate(turn, double.direction)
    source = _rotate(turn, double.source) + shift
    poses = torch.cat((direction, source), dim=-1).detach().tolist()
    parallel = cameras.parallel.tolist()
    return [
        [
            _rays_of_view(
                double[item, view],
                (turn[item, 0], shift[item, 0]),
                _main_planes(poses[item][view], parallel[item][view], shape),
                dtype,
            )
            for view in range(len(parallel[item]))
        ]
        for item in range(len(parallel))
    ]


def _main_planes(
    pose: list[float], parallel: bool, shape: tuple[int, int, int]
) -> tuple[int, float, tuple[int, int]]:
    """Main axis, sign of the direction along it and the planes in front of the source."""
    direction, source = pose[:3], pose[3:]
    axis = max(range(3), key=lambda k: abs(direction[k]))
    sign = 1.0 if direction[axis] > 0 else -1.0
    first, last = 0, shape[2 - axis]
    if not parallel:
        beyond = math.floor(source[axis]) + 1 if sign > 0 else math.ceil(source[axis])
        first, last = (max(first, beyond), last) if sign > 0 else (first, min(last, beyond))
    return axis, sign, (first, last)


def _rays_of_view(
    camera: Cameras,
    to_voxel: tuple[Tensor, Tensor],
    main: tuple[int, float, tuple[int, int]],
    dtype: torch.dtype,
) -> _Rays:
    """Rays of one camera (no leading shape) as lines over the plane index, from float64."""
    axis, sign, planes = main
    turn, shift = to_voxel
    rows = torch.arange(camera.num_rows, device=turn.device, dtype=turn.dtype)[:, None, None]
    cols = torch.arange(camera.num_cols, device=turn.device, dtype=turn.dtype)[:, None]
    pixel = camera.origin + rows * camera.step_v + cols * camera.step_u
    is_parallel = camera.parallel
    along = torch.where(is_parallel, camera.direction.expand_as(pixel), pixel - camera.source)
    start = torch.where(is_parallel, pixel, camera.source.expand_as(pixel))
    along_voxel = _rotate(turn, along)
    start_voxel = _rotate(turn, start) + shift
    steps = along_voxel[..., axis] * sign
    forward = steps > 1e-9  # a ray that turns away from the planes has no samples
    per_plane = torch.where(forward, steps, torch.ones_like(steps)).reciprocal()
    in_plane = list(PLANE_AXES[axis])
    slope = along_voxel[..., in_plane] * (sign * per_plane)[..., None]
    at_zero = start_voxel[..., in_plane] - slope * start_voxel[..., axis, None]
    length = torch.linalg.vector_norm(along, dim=-1) * per_plane * forward
    return _Rays(axis, planes, at_zero.to(dtype), slope.to(dtype), length.to(dtype))


def _rotate(matrix: Tensor, vectors: Tensor) -> Tensor:
    """Matrix [..., 3, 3] applied to vectors [..., 3]."""
    return (matrix @ vectors[..., None])[..., 0]
