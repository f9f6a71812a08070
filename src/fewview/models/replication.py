"""Lifting by replication: parallel rays along an axis of the grid, as the published systems do.

Right only for a frontal and a lateral view; cone beams are taken for parallel ones.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from fewview.models.lifting import RayGrid


class RayAxis(NamedTuple):
    """The grid axis that a view's rays run along most nearly."""

    axis: int
    """0 depth, 1 height, 2 width."""

    backward: bool
    """Whether they run toward smaller indices."""


def ray_axes(rays: RayGrid) -> list[RayAxis]:
    """For each view the grid axis its rays run along.

    Read from the first case of the batch; all cases of a batch share their set of views.
    """
    direction = rays.ray[0, :, :3].mean(dim=(2, 3, 4)).flip(-1)  # patient z, y, x: the grid's axes
    axes = direction.abs().argmax(dim=1).tolist()
    return [RayAxis(axis, bool(direction[view, axis] < 0)) for view, axis in enumerate(axes)]


def planes_along_rays(
    images: Float[Tensor, "batch view channel row col"], rays: RayGrid
) -> tuple[Float[Tensor, "batch view channel size size"], list[RayAxis]]:
    """Images as seen in the plane through the grid's center, across each view's axis.

    Rows and columns of the result are those of the grid, so no flip is left to do but that along
    the axis itself.

    Args:
        images: Images as measured.
        rays: Where the voxels of the cubic grid project.
    """
    axes, planes = ray_axes(rays), []
    for view, (axis, _) in enumerate(axes):
        position = rays.position[:, view]
        middle = position.shape[1 + axis] // 2
        plane = position.narrow(1 + axis, middle - 1, 2).mean(dim=1 + axis)
        planes.append(F.grid_sample(images[:, view].float(), plane, align_corners=False))
    return torch.stack(planes, dim=1), axes


def central_images(
    images: Float[Tensor, "batch view channel row col"], rays: RayGrid, num_views: int
) -> tuple[Float[Tensor, "batch view channel size size"], list[int]]:
    """The planes of a frontal view, or of a frontal and a lateral one, in this order.

    Args:
        images: Images as measured.
        rays: Where the voxels of the cubic grid project.
        num_views: 1 for a frontal view, 2 for a frontal and a lateral one.

    Returns:
        The planes and the axis along which each is to be replicated.

    Raises:
        ValueError: If the views are not those.
    """
    axes = [one.axis for one in ray_axes(rays)]
    wanted = [1, 2][:num_views]
    if sorted(axes) != wanted:
        raise ValueError(
            f"this model takes {'a frontal view' if num_views == 1 else 'a frontal and a lateral'}"
            f"{'' if num_views == 1 else ' view'} and no other, got {len(axes)} views"
        )
    planes, _ = planes_along_rays(images, rays)
    return planes[:, [axes.index(axis) for axis in wanted]], wanted


def replicate(
    features: Float[Tensor, "batch channel size size"], axis: int
) -> Float[Tensor, "batch channel size size size"]:
    """Copy an image of the central plane along a grid axis (0 depth, 1 height, 2 width)."""
    lifted = features.unsqueeze(2 + axis)
    repeats = [-1] * lifted.ndim
    repeats[2 + axis] = features.shape[-1]
    return lifted.expand(*repeats)
