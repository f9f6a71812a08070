"""CLS-DM's view encoder: every view spread along its own axis of the grid, their mean encoded.

For a frontal and a lateral view taken for parallel beams, as published; each view's axis is read
from its rays, so that condition and CT agree (in the published code the two are transposed). A view
between the axes is spread along the nearest, the more falsely the farther it is; the encoder that
follows the true rays is in `view_encoder`.
"""

import itertools
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from fewview.models.layers import group_norm
from fewview.models.lifting import RayGrid
from fewview.models.replication import mean_along_axes, planes_along_rays
from fewview.models.view_encoder import ViewEncoding


@dataclass(frozen=True, kw_only=True)
class ReplicateEncoderConfig:
    """Sizes of the replicating view encoder; the defaults are the published ones for 128^3."""

    kind: Literal["replicate"]

    lifting: Literal["replicate", "channels"] = "replicate"
    """How a view gets its third axis. `replicate`: transposed convolutions copy the image along
    the axis, with a small filter of its own for each slice (CLS-DM). `channels`: the channels of a
    2-D convolution are the slices (as XctDiff takes depth out of channels)."""

    width: int = 16
    """Channels at the resolution of the model grid; twice as many at each halving of it."""

    reduction: Literal[2, 4, 8, 16] = 8
    """Voxels of the model grid per voxel of the condition along one axis; that of the
    autoencoder."""

    condition_channels: int = 16
    """Channels of the condition."""

    def __post_init__(self) -> None:
        """Refuse sizes that cannot exist."""
        if min(self.width, self.condition_channels) < 1:
            raise ValueError("view encoder sizes must be at least 1")

    @property
    def detail_channels(self) -> int:
        """None: nothing but the condition goes to the denoiser."""
        return 0


class PlainBlock(nn.Module):
    """Convolution, group norm and ReLU, twice, plus the input behind the last ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        """Build for `in_channels` to `out_channels`."""
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv3d(in_channels, out_channels, 3, padding=1),
            group_norm(out_channels),
            nn.ReLU(),
            nn.Conv3d(out_channels, out_channels, 3, padding=1),
            group_norm(out_channels),
            nn.ReLU(),
        )
        self.shortcut = (
            nn.Identity()
            if in_channels == out_channels
            else nn.Conv3d(in_channels, out_channels, 1)
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """Apply the block."""
        inner: Tensor = self.layers(hidden)
        return inner + self.shortcut(hidden)


class ReplicatingLift(nn.Module):
    """An image to a volume of `size` slices, each a small learned filtering of it (CLS-DM)."""

    def __init__(self, size: int) -> None:
        """Build for `size` slices, a multiple of four."""
        super().__init__()
        parts: list[nn.Module] = []
        for before, after, times in ((1, 4, size // 4), (4, 8, 2), (8, 4, 2)):
            parts += [
                nn.ConvTranspose3d(
                    before, after, (times, 3, 3), stride=(times, 1, 1), padding=(0, 1, 1)
                ),
                group_norm(after),
                nn.ReLU(),
            ]
        self.layers = nn.Sequential(*parts, nn.Conv3d(4, 1, 1))

    def forward(
        self, image: Float[Tensor, "image 1 size size"]
    ) -> Float[Tensor, "image 1 slice size size"]:
        """Slices from the one nearest to the source to the farthest."""
        volume: Tensor = self.layers(image[:, :, None])
        return volume


class ChannelLift(nn.Module):
    """An image to a volume whose slices are the channels of a small 2-D network."""

    def __init__(self, size: int) -> None:
        """Build for `size` slices."""
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            group_norm(32),
            nn.ReLU(),
            nn.Conv2d(32, size, 3, padding=1),
        )

    def forward(
        self, image: Float[Tensor, "image 1 size size"]
    ) -> Float[Tensor, "image 1 slice size size"]:
        """Slices from the one nearest to the source to the farthest."""
        slices: Tensor = self.layers(image)
        return slices[:, None]


class ReplicateEncoder(nn.Module):
    """Views to a condition and a CT estimate, without skip connections.

    Differs from the published network: group norm instead of batch norm, because batches are small
    and several processes must agree; the lift is trained; the convolutions that no output passes
    through are left out.

    References:
        CLS-DM (arXiv 2507.11152), the conditional network of stage 2.
    """

    detail_head = None
    """There is none: `detail_channels` is 0."""

    codebook = None
    """There is none: the condition is not quantized."""

    def __init__(self, config: ReplicateEncoderConfig, size: int) -> None:
        """Build for a model grid of `size` voxels along each axis."""
        super().__init__()
        self.config = config
        widths = [config.width << level for level in range(config.reduction.bit_length())]
        deep, told = widths[-1], config.condition_channels
        self.lift = ReplicatingLift(size) if config.lifting == "replicate" else ChannelLift(size)
        down: list[nn.Module] = [PlainBlock(1, widths[0])]
        for before, after in itertools.pairwise(widths):
            down += [nn.MaxPool3d(2), PlainBlock(before, after)]
        self.encoder = nn.Sequential(*down, PlainBlock(deep, deep))
        parts: list[nn.Module] = []
        for before, after in ((deep, max(1, deep // 2)), (max(1, deep // 2), told)):
            parts += [nn.Conv3d(before, after, 1), group_norm(after), nn.ReLU()]
        self.condition_head = nn.Sequential(*parts, nn.Conv3d(told, told, 1))
        up: list[nn.Module] = []
        for before, after in itertools.pairwise(reversed(widths)):
            up += [nn.ConvTranspose3d(before, after, 2, stride=2), PlainBlock(after, after)]
        self.estimate_head = nn.Sequential(*up, nn.Conv3d(widths[0], 1, 1))

    def lift_views(
        self, images: Float[Tensor, "batch view 2 row col"], rays: RayGrid
    ) -> Float[Tensor, "batch 1 depth height width"]:
        """The mean over views of their volumes; the kind of the images is not used."""
        planes, axes = planes_along_rays(images[:, :, :1], rays)
        batch, view = planes.shape[:2]
        lifted = self.lift(planes.flatten(0, 1)).unflatten(0, (batch, view))
        return mean_along_axes(lifted, axes)

    def forward(
        self,
        images: Float[Tensor, "batch view 2 row col"],
        rays: RayGrid,
        *,
        with_estimate: bool = True,
    ) -> ViewEncoding:
        """Encode views; without the estimate its head is skipped and an empty tensor returned.

        Args:
            images: Normalized views and their kind (see `fewview.inputs.network_images`).
            rays: Where the voxels of the model grid project.
            with_estimate: Whether the CT estimate is needed.
        """
        deep = self.encoder(self.lift_views(images, rays))
        condition = self.condition_head(deep).float()
        nothing = condition[:, :0]
        if not with_estimate:
            return ViewEncoding(condition, condition.new_empty(len(condition), 1, 0, 0, 0), nothing)
        return ViewEncoding(condition, self.estimate_head(deep).float(), nothing)
