"""The rays of a camera in the voxel indices of a volume.

Joseph's method walks a ray from plane to plane across one voxel axis. Here a camera in
patient mm becomes, per pixel, a straight line over the plane index. It is worked out in
float64, because a source stands thousands of voxels away, and handed on in the type of
the images.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fewview.xray.geometry import Cameras

IN_PLANE_AXES = ((1, 2), (0, 2), (0, 1))  # voxel axes (col, row) of a plane across x, y, z
TURNED_AWAY = 1e-9  # planes per ray vector; below it the ray never crosses the planes


@dataclass(frozen=True, eq=False)
class Rays:
    """Rays of one view through one volume; indices are voxel indices."""

    axis: int
    """Main axis, across which the planes lie: 0, 1, 2 are voxel x, y, z."""

    first: int
    """First plane in front of the source."""

    last: int
    """One past the last plane in front of the source."""

    at_zero: Float[Tensor, "2 row col"]
    """In-plane index (col, row) where a ray meets plane 0."""

    slope: Float[Tensor, "2 row col"]
    """Change of that index from plane to plane."""

    length: Float[Tensor, "row col"]
    """A ray's path from plane to plane, mm; 0 for a ray that meets none."""

    def to(self, device: torch.device, dtype: torch.dtype) -> "Rays":
        """The same rays on another device and in another floating-point type."""
        at_zero, slope, length = (
            tensor.to(device, dtype) for tensor in (self.at_zero, self.slope, self.length)
        )
        return Rays(self.axis, self.first, self.last, at_zero, slope, length)


def rays_of_batch(
    voxel_to_patient: Float[Tensor, "batch 4 4"],
    cameras: Cameras,
    shape: tuple[int, int, int],
    dtype: torch.dtype,
) -> list[list[Rays]]:
    """Rays per volume and view; a view's main axis is that of its central ray.

    Differentiable in `voxel_to_patient` and the cameras, at a fixed main axis.

    Args:
        voxel_to_patient: Voxel (x, y, z) index to patient mm.
        cameras: Cameras with leading shape [batch, view].
        shape: Voxels (depth, height, width) of the volumes.
        dtype: Type of the rays' tensors.
    """
    device = cameras.source.device
    exact = torch.device("cpu") if device.type == "mps" else device  # MPS has no float64
    in_patient = cameras.to(exact, torch.float64)
    in_voxels = _in_voxels(in_patient, voxel_to_patient.to(exact, torch.float64))
    # One look at all poses: on a GPU every look waits for the device.
    poses = torch.cat((in_voxels.direction, in_voxels.source), dim=-1).detach().tolist()
    parallel = cameras.parallel.tolist()
    return [
        [
            _rays_of_view(
                in_patient[item, view],
                in_voxels[item, view],
                _planes_ahead(poses[item][view], parallel[item][view], shape),
            ).to(device, dtype)
            for view in range(len(parallel[item]))
        ]
        for item in range(len(parallel))
    ]


def _in_voxels(cameras: Cameras, voxel_to_patient: Tensor) -> Cameras:
    """Cameras [batch, view] carried into the voxel index space of their volumes."""
    patient_to_voxel = torch.linalg.inv(voxel_to_patient)[:, None]
    turn, shift = patient_to_voxel[..., :3, :3], patient_to_voxel[..., :3, 3]

    def turned(vectors: Tensor) -> Tensor:
        return (turn @ vectors[..., None])[..., 0]

    return Cameras(
        source=turned(cameras.source) + shift,
        origin=turned(cameras.origin) + shift,
        step_v=turned(cameras.step_v),
        step_u=turned(cameras.step_u),
        direction=turned(cameras.direction),
        parallel=cameras.parallel,
        num_rows=cameras.num_rows,
        num_cols=cameras.num_cols,
    )


def _planes_ahead(
    pose: list[float], parallel: bool, shape: tuple[int, int, int]
) -> tuple[int, float, int, int]:
    """Main axis, sign of the direction along it, first and last + 1 plane ahead of the source."""
    direction, source = pose[:3], pose[3:]
    axis = max(range(3), key=lambda k: abs(direction[k]))
    sign = 1.0 if direction[axis] > 0 else -1.0
    first, last = 0, shape[2 - axis]
    if not parallel and sign > 0:
        first = min(last, max(first, math.floor(source[axis]) + 1))
    elif not parallel:
        last = max(first, min(last, math.ceil(source[axis])))
    return axis, sign, first, last


def _rays_of_view(
    in_patient: Cameras,
    in_voxels: Cameras,
    planes: tuple[int, float, int, int],
) -> Rays:
    """Rays of one camera without leading shape."""
    axis, sign, first, last = planes
    start, along = _lines(in_voxels)
    squares = _lines(in_patient)[1].square()
    steps = sign * along[axis]
    ahead = steps > TURNED_AWAY
    per_plane = torch.where(ahead, steps, torch.ones_like(steps)).reciprocal()
    col_axis, row_axis = IN_PLANE_AXES[axis]
    slope = torch.stack((along[col_axis], along[row_axis])) * (sign * per_plane)
    at_zero = torch.stack((start[col_axis], start[row_axis])) - slope * start[axis]
    length = squares.sum(0).sqrt() * per_plane * ahead
    return Rays(axis, first, last, at_zero, slope, length)


def _lines(camera: Cameras) -> tuple[Tensor, Tensor]:
    """A point on every pixel's ray and a vector along it, each [3, row, col]."""
    device, dtype = camera.origin.device, camera.origin.dtype
    rows = torch.arange(camera.num_rows, device=device, dtype=dtype)
    cols = torch.arange(camera.num_cols, device=device, dtype=dtype)
    down = camera.origin[:, None] + camera.step_v[:, None] * rows
    right = camera.step_u[:, None] * cols
    pixels = down[:, :, None] + right[:, None, :]
    source, direction = camera.source[:, None, None], camera.direction[:, None, None]
    start = torch.where(camera.parallel, pixels, source)
    along = torch.where(camera.parallel, direction, pixels - source)
    return start, along
