"""From image features to voxel features: each voxel reads every view where its ray meets it.

This module samples; where a voxel projects is computed by `fewview.xray` and handed in, so that
networks stay free of geometry code.
"""

from dataclasses import dataclass
from functools import reduce
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class RayGrid:
    """Where the voxels of the model grid project, view by view.

    Attributes:
        position: (column, row) of each voxel on the detector, -1 and 1 at the detector's edges.
        ray: Unit direction of the ray through each voxel (patient x, y, z) and its depth: the
            distance past the isocenter along the central ray, in half grid extents.
    """

    position: Float[Tensor, "batch view depth height width 2"]
    ray: Float[Tensor, "batch view 4 depth height width"]

    @property
    def on_detector(self) -> Bool[Tensor, "batch view depth height width"]:
        """Voxels whose ray meets the detector."""
        return (self.position.abs() <= 1.0).all(dim=-1)

    def view(self, index: int) -> "RayGrid":
        """One view alone."""
        chosen = slice(index, index + 1)
        return RayGrid(self.position[:, chosen], self.ray[:, chosen])

    def to(self, device: torch.device | str) -> "RayGrid":
        """The same on another device."""
        return RayGrid(self.position.to(device), self.ray.to(device))


def coarser(rays: RayGrid, factor: int) -> RayGrid:
    """The same for a grid with voxels `factor` times as wide, which must divide the sides."""
    if factor == 1:
        return rays
    batch, view, *size = rays.position.shape[:5]
    position = rays.position.reshape(batch * view, *size, 2).movedim(-1, 1)
    position = F.avg_pool3d(position, factor).movedim(1, -1)
    ray = F.avg_pool3d(rays.ray.flatten(0, 1), factor)
    return RayGrid(position.unflatten(0, (batch, view)), ray.unflatten(0, (batch, view)))


def lift(
    features: Float[Tensor, "batch view channel row col"], rays: RayGrid
) -> Float[Tensor, "batch view channel depth height width"]:
    """Feature of each view at each voxel, bilinear between pixels, zero off the detector."""
    batch, view, channel = features.shape[:3]
    depth, height, width = rays.position.shape[2:5]
    # In single precision: bfloat16 would round positions by an eighth of a pixel.
    sampled = F.grid_sample(
        features.reshape(batch * view, channel, *features.shape[3:]).float(),
        rays.position.reshape(batch * view, depth * height, width, 2),
        padding_mode="zeros",
        align_corners=False,
    )
    return sampled.to(features.dtype).reshape(batch, view, channel, depth, height, width)


def fuse(
    lifted: Float[Tensor, "batch view channel depth height width"],
    rays: RayGrid,
    kind: Literal["direction", "max"] = "direction",
) -> Float[Tensor, "batch fused depth height width"]:
    """The features of all views as one size, for any number and any order of views.

    `max` is mean and maximum over views. `direction` is the mean and two more, weighted by cosine
    and sine of twice the azimuth of each voxel's ray, which are the same from in front and from
    behind: from a frontal and a lateral view the two features can be told apart again.

    Args:
        lifted: Features of each view at each voxel.
        rays: Of the same voxels.
        kind: Which.

    Returns:
        `fused_channels(kind)` times as many channels.
    """
    mean = lifted.mean(dim=1)
    if kind == "max":
        # Pairwise: the gradient of `amax` shares ties and costs several times as much.
        return torch.cat([mean, reduce(torch.maximum, lifted.unbind(1))], dim=1)
    x, y = (rays.ray[:, :, axis, None].to(lifted.dtype) for axis in (0, 1))
    cosine, sine = x.square() - y.square(), 2 * x * y
    weighted = [(lifted * weight).mean(dim=1) for weight in (cosine, sine)]
    return torch.cat([mean, *weighted], dim=1)


def fused_channels(kind: Literal["direction", "max"]) -> int:
    """How many times the channels of a view `fuse` gives."""
    return 2 if kind == "max" else 3
