"""Line integrals of an attenuation volume along X-rays, and their exact adjoint.

Joseph's method: take the volume axis along which a view's rays mostly run, sample every
plane across that axis where the ray meets it (bilinear), sum over the planes and multiply
by the ray's path length per plane. The planes are the batch of a two-dimensional
`grid_sample`, whose CPU kernel is vectorized. Any pose, cone or parallel, changes only
where the planes are sampled. Outside the volume there is nothing; a voxel is a hat
function in its plane and a slab across it, so it counts fully at the border too. Rays do
not end at the detector.

`project_plain` is the reference, differentiable in everything. `project` and `backproject`
are its twins with a hand-written gradient in the volume; they work in blocks of planes
that stay in the processor's cache.

References:
    Joseph, An improved algorithm for reprojecting rays through pixel images, IEEE TMI 1982.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from fewview.xray.geometry import Cameras
from fewview.xray.rays import Rays, rays_of_batch

TO_PLANES = ((2, 0, 1), (1, 0, 2), (0, 1, 2))  # [z, y, x] to [plane, row, col] across x, y, z
BLOCK_SAMPLES_CPU = 1 << 17  # samples a block and thread: 0.5 MB for each temporary
BLOCK_SAMPLES_GPU = 1 << 26  # few launches, and at most about 4 GB of temporaries
FLOAT32_COUNTS = 1 << 24  # float32 holds every integer up to here

BatchRays = list[list[Rays]]


def project(
    mu: Float[Tensor, "batch 1 depth height width"],
    voxel_to_patient: Float[Tensor, "batch 4 4"],
    cameras: Cameras,
) -> Float[Tensor, "batch view row col"]:
    """Line integrals of volumes along the rays of their cameras.

    Differentiable in `mu`, by the adjoint, and in the cameras' tensors and
    `voxel_to_patient` where one of them requires a gradient: then the whole view's
    samples are kept for the backward pass. What lies behind a cone's source is not seen.

    Args:
        mu: Attenuation in 1/mm.
        voxel_to_patient: Voxel (x, y, z) index to patient mm, of any orientation,
            anisotropic or oblique.
        cameras: Cameras with leading shape [batch, view].

    Returns:
        Line integrals, without unit, in the type of `mu`.
    """
    if _needs_pose_gradient(voxel_to_patient, cameras):
        return project_plain(mu, voxel_to_patient, cameras)
    rays = rays_of_batch(voxel_to_patient, cameras, _shape(mu), mu.dtype)
    projected: Tensor = _Project.apply(mu, rays)
    return projected


def backproject(
    images: Float[Tensor, "batch view row col"],
    voxel_to_patient: Float[Tensor, "batch 4 4"],
    cameras: Cameras,
    shape: tuple[int, int, int],
) -> Float[Tensor, "batch 1 depth height width"]:
    """Exact adjoint of `project`: smears images back along their rays.

    Differentiable in `images`, not in pose.

    Args:
        images: One value per detector pixel.
        voxel_to_patient: As in `project`.
        cameras: Cameras with leading shape [batch, view].
        shape: Voxels (depth, height, width) of the volume.

    Returns:
        For every voxel the sum over rays of value times the ray's length in the voxel, mm.

    Raises:
        ValueError: If a camera or `voxel_to_patient` requires a gradient.
    """
    if _needs_pose_gradient(voxel_to_patient, cameras):
        raise ValueError("backproject has no gradient in pose; detach cameras and matrix")
    rays = rays_of_batch(voxel_to_patient, cameras, shape, images.dtype)
    volume: Tensor = _Backproject.apply(images, rays, shape)
    return volume


def project_plain(
    mu: Float[Tensor, "batch 1 depth height width"],
    voxel_to_patient: Float[Tensor, "batch 4 4"],
    cameras: Cameras,
) -> Float[Tensor, "batch view row col"]:
    """Reference of `project` in plain differentiable operations, pose included."""
    rays = rays_of_batch(voxel_to_patient, cameras, _shape(mu), mu.dtype)
    return torch.stack(
        [
            torch.stack([_project_view_plain(volume[0], view) for view in views])
            for volume, views in zip(mu, rays, strict=True)
        ]
    )


def _project_view_plain(volume: Tensor, rays: Rays) -> Tensor:
    """Line integrals [row, col] of one volume [depth, height, width] in one view."""
    planes = volume.permute(TO_PLANES[rays.axis])[rays.first : rays.last]
    if not planes.numel():
        return torch.zeros_like(rays.length)
    at_zero, slope = _grid_lines(rays, planes.shape)
    index = torch.arange(rays.first, rays.last, device=volume.device, dtype=volume.dtype)
    grid = at_zero + index[:, None, None, None] * slope
    return _sample(planes, grid).sum(0) * rays.length


def _grid_lines(rays: Rays, planes: torch.Size) -> tuple[Tensor, Tensor]:
    """Rays as [row, col, 2] in the units of `grid_sample`, where a plane spans -1 to 1."""
    size = rays.slope.new_tensor([planes[2], planes[1]])
    at_zero = (2.0 * rays.at_zero.permute(1, 2, 0) + 1.0) / size - 1.0
    slope = 2.0 * rays.slope.permute(1, 2, 0) / size
    return at_zero.contiguous(), slope.contiguous()


def _sample(planes: Tensor, grid: Tensor) -> Tensor:
    """Planes [plane, row, col] at [plane, row, col, 2]; zero outside."""
    return functional.grid_sample(
        planes[:, None], grid, mode="bilinear", padding_mode="zeros", align_corners=False
    )[:, 0]


class _Project(torch.autograd.Function):
    """`project` of a batch; its backward pass is the adjoint."""

    @staticmethod
    def forward(ctx: Any, mu: Tensor, rays: BatchRays) -> Tensor:
        ctx.rays, ctx.shape = rays, _shape(mu)
        images = [
            torch.stack([_project_view(volume[0], view) for view in views])
            for volume, views in zip(mu, rays, strict=True)
        ]
        return torch.stack(images)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        volume: Tensor = _Backproject.apply(gradients[0], ctx.rays, ctx.shape)
        return volume, None


class _Backproject(torch.autograd.Function):
    """`backproject` of a batch; its backward pass is the projection."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, rays: BatchRays, shape: tuple[int, int, int]) -> Tensor:
        ctx.rays = rays
        volumes = images.new_zeros((len(images), 1, *shape))
        for volume, of_volume, views in zip(volumes, images, rays, strict=True):
            for image, view in zip(of_volume, views, strict=True):
                _add_backprojected_view(volume[0], image, view)
        return volumes

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        images: Tensor = _Project.apply(gradients[0], ctx.rays)
        return images, None, None


def _project_view(volume: Tensor, rays: Rays) -> Tensor:
    """`_project_view_plain` in blocks of planes."""
    planes = volume.permute(TO_PLANES[rays.axis])
    at_zero, slope = _grid_lines(rays, planes.shape)
    image = torch.zeros_like(rays.length)
    for start, stop in _blocks(rays):
        index = torch.arange(start, stop, device=volume.device, dtype=volume.dtype)
        grid = torch.addcmul(at_zero, index[:, None, None, None], slope)
        block = planes[start:stop]
        if rays.axis == 1:
            block = block.contiguous()  # rows a whole slice apart cost a quarter more to sample
        image += _sample(block, grid).sum(0)
    return image.mul_(rays.length)


def _add_backprojected_view(volume: Tensor, image: Tensor, rays: Rays) -> None:
    """Adds the transpose of `_project_view` of `image` to `volume`, in blocks of planes.

    Every sample hands its value to the four voxels it was interpolated from. Planes get a
    margin, into which samples from outside are moved; it is dropped at the end.
    """
    planes = volume.permute(TO_PLANES[rays.axis])
    num_rows, num_cols = planes.shape[1] + 3, planes.shape[2] + 3
    values = image * rays.length
    col_zero, row_zero = rays.at_zero + 1.0
    col_slope, row_slope = rays.slope
    for start, stop in _blocks(rays, num_rows * num_cols):
        index = torch.arange(start, stop, device=volume.device, dtype=volume.dtype)[:, None, None]
        col = torch.addcmul(col_zero, index, col_slope).clamp_(0.0, num_cols - 2.0)
        row = torch.addcmul(row_zero, index, row_slope).clamp_(0.0, num_rows - 2.0)
        block = _empty_block(rays.axis, (stop - start, num_rows, num_cols), volume)
        _spread(block, col, row, values)
        planes[start:stop] += block[:, 1:-2, 1:-2]


def _empty_block(axis: int, shape: tuple[int, int, int], like: Tensor) -> Tensor:
    """Zeros [plane, row, col], with the planes of x innermost as they are in a volume.

    Otherwise adding the block to the volume would cost as much as filling it.
    """
    if axis == 0:
        count, num_rows, num_cols = shape
        return like.new_zeros((num_rows, num_cols, count)).permute(2, 0, 1)
    return like.new_zeros(shape)


def _spread(block: Tensor, col: Tensor, row: Tensor, values: Tensor) -> None:
    """Adds values [row, col], bilinear, to every plane of a dense block at its col, row.

    Args:
        block: Planes [plane, height, width] that fill their memory in any order.
        col: Column index [plane, row, col], from 0 to width - 2; overwritten.
        row: Row index [plane, row, col], from 0 to height - 2; overwritten.
        values: The same on every plane.
    """
    next_plane, next_row, next_col = block.stride()
    col_floor, row_floor = col.floor(), row.floor()
    right = col.sub_(col_floor)
    lower = row.sub_(row_floor).mul_(values)
    upper = values - lower
    # By way of int32, which is a fifth of the time of float to int64; `_blocks` sees that
    # float32 counts the voxels of a block exactly.
    where = col_floor.mul_(next_col).add_(row_floor, alpha=next_row)
    where += torch.arange(len(block), device=block.device)[:, None, None] * next_plane
    where = where.int().long().flatten()
    lower_right, upper_right = lower * right, upper * right
    flat = block.as_strided((block.numel(),), (1,))
    flat.scatter_add_(0, where, upper.sub_(upper_right).flatten())
    flat[next_col:].scatter_add_(0, where, upper_right.flatten())
    flat[next_row:].scatter_add_(0, where, lower.sub_(lower_right).flatten())
    flat[next_row + next_col :].scatter_add_(0, where, lower_right.flatten())


def _blocks(rays: Rays, plane_size: int = 0) -> Iterator[tuple[int, int]]:
    """Ranges of planes to be worked on at once.

    Few planes keep their temporaries in the cache, many keep all threads busy. With a
    `plane_size`, a block has fewer voxels than float32 can count.
    """
    if rays.length.device.type == "cpu":
        samples = BLOCK_SAMPLES_CPU * torch.get_num_threads()
    else:
        samples = BLOCK_SAMPLES_GPU
    step = samples // rays.length.numel()
    if plane_size:
        step = min(step, FLOAT32_COUNTS // plane_size)
    step = max(1, step)
    for start in range(rays.first, rays.last, step):
        yield start, min(start + step, rays.last)


def _needs_pose_gradient(voxel_to_patient: Tensor, cameras: Cameras) -> bool:
    tensors = (voxel_to_patient, *cameras.vectors)
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def _shape(mu: Tensor) -> tuple[int, int, int]:
    depth, height, width = mu.shape[2:]
    return depth, height, width
