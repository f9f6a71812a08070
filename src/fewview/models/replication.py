"""Lifting by replication: parallel rays along an axis of the grid, as the published systems do.

Right only for a frontal and a lateral view; cone beams are taken for parallel ones.
"""

from collections.abc import Callable
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


Axes = list[list[RayAxis]]
"""Of the views of each case of a batch."""

Cases = slice | list[int]
"""Some cases of a batch."""


def ray_axes(rays: RayGrid) -> list[RayAxis]:
    """For each view of the first case the grid axis its rays run along."""
    direction = rays.ray[0, :, :3].mean(dim=(2, 3, 4)).flip(-1)  # patient z, y, x: the grid's axes
    axes = direction.abs().argmax(dim=1).tolist()
    return [RayAxis(axis, bool(direction[view, axis] < 0)) for view, axis in enumerate(axes)]


def case_axes(rays: RayGrid) -> Axes:
    """The axes of every case: training draws geometries of its own for each."""
    cases = zip(rays.position.split(1), rays.ray.split(1), strict=True)
    return [ray_axes(RayGrid(position, ray)) for position, ray in cases]


def by_axes(axes: Axes, make: Callable[[Cases, list[RayAxis]], Tensor]) -> Tensor:
    """What `make` gives for all cases of each set of axes, in the order of the batch.

    Args:
        axes: Of the batch; usually all cases have the same, and then it is one call.
        make: Takes cases with equal axes, and these.
    """
    cases_of: dict[tuple[RayAxis, ...], list[int]] = {}
    for case, own in enumerate(axes):
        cases_of.setdefault(tuple(own), []).append(case)
    if len(cases_of) == 1:
        return make(slice(None), axes[0])
    made = torch.cat([make(cases, list(own)) for own, cases in cases_of.items()])
    order = torch.tensor([case for cases in cases_of.values() for case in cases])
    return made[order.argsort().to(made.device)]


def planes_along_rays(
    images: Float[Tensor, "batch view channel row col"], rays: RayGrid
) -> tuple[Float[Tensor, "batch view channel size size"], Axes]:
    """Images as seen in the plane through the grid's center, across each view's axis.

    Rows and columns of the result are those of the grid, so no flip is left to do but that along
    the axis itself.

    Args:
        images: Images as measured.
        rays: Where the voxels of the cubic grid project.
    """
    axes = case_axes(rays)

    def across(cases: Cases, own: list[RayAxis]) -> Tensor:
        planes = []
        for view, (axis, _) in enumerate(own):
            position = rays.position[cases, view]
            middle = position.shape[1 + axis] // 2
            plane = position.narrow(1 + axis, middle - 1, 2).mean(dim=1 + axis)
            planes.append(F.grid_sample(images[cases, view].float(), plane, align_corners=False))
        return torch.stack(planes, dim=1)

    return by_axes(axes, across), axes


def mean_along_axes(
    lifted: Float[Tensor, "batch view channel slice row col"], axes: Axes
) -> Float[Tensor, "batch channel depth height width"]:
    """The mean over views of their lifted planes, each laid along its own axis.

    Args:
        lifted: Slices from the one nearest to the source to the farthest.
        axes: As `planes_along_rays` gives them.
    """

    def laid(cases: Cases, own: list[RayAxis]) -> Tensor:
        volumes = []
        for view, (axis, backward) in enumerate(own):
            volume = lifted[cases, view]
            volume = volume.flip(2) if backward else volume
            volumes.append(volume.movedim(2, 2 + axis))
        return sum(volumes[1:], start=volumes[0]) / len(own)

    return by_axes(axes, laid)


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
    planes, axes = planes_along_rays(images, rays)
    wanted = [1, 2][:num_views]
    if any(sorted(one.axis for one in own) != wanted for own in axes):
        raise ValueError(
            f"this model takes {'a frontal view' if num_views == 1 else 'a frontal and a lateral'}"
            f"{'' if num_views == 1 else ' view'} and no other, got {len(axes[0])} views"
        )

    def in_order(cases: Cases, own: list[RayAxis]) -> Tensor:
        found = [one.axis for one in own]
        return planes[cases][:, [found.index(axis) for axis in wanted]]

    return by_axes(axes, in_order), wanted


def replicate(
    features: Float[Tensor, "batch channel size size"], axis: int
) -> Float[Tensor, "batch channel size size size"]:
    """Copy an image of the central plane along a grid axis (0 depth, 1 height, 2 width)."""
    lifted = features.unsqueeze(2 + axis)
    repeats = [-1] * lifted.ndim
    repeats[2 + axis] = features.shape[-1]
    return lifted.expand(*repeats)
