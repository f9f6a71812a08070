"""X-ray views to a volume-shaped condition and a CT estimate (stage 2, CLS-DM's alignment network).

Views are encoded in 2-D, lifted along their true rays, fused over any number of views, and refined
in 3-D. Two heads: the condition for the denoiser and the coarse CT itself (the "autoregressive"
reconstruction constraint of CLS-DM).
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fewview.models.layers import (
    ResidualBlock,
    depth_to_space,
    downsample,
    group_norm,
    space_to_depth,
    upsample,
)
from fewview.models.lifting import RayGrid, fuse, lift

FULL_WIDTH = 16  # channels of the few convolutions at the full resolution of the model grid


@dataclass(frozen=True, kw_only=True)
class ViewEncoderConfig:
    """Sizes of the view encoder."""

    image_width: int = 32
    """Channels of the 2-D features at half the detector's resolution."""

    lifted_channels: int = 8
    """Channels per view that are lifted to every voxel of the model grid."""

    width: int = 32
    """3-D channels at half resolution."""

    deep_width: int = 96
    """3-D channels at quarter resolution, the resolution of the latent."""

    bottom_width: int = 160
    """3-D channels at an eighth of the resolution."""

    num_blocks: int = 2
    """Residual blocks at each resolution, on the way down and on the way up."""

    condition_channels: int = 16
    """Channels of the condition."""

    def __post_init__(self) -> None:
        """Refuse sizes that cannot exist."""
        if min(self.image_width, self.lifted_channels, self.width, self.num_blocks) < 1:
            raise ValueError("view encoder sizes must be at least 1")


class ViewEncoding(NamedTuple):
    """What the view encoder says of a set of views."""

    condition: Float[Tensor, "batch condition depth_4 height_4 width_4"]
    estimate: Float[Tensor, "batch 1 depth height width"]


class ImageEncoder(nn.Module):
    """A small 2-D U-Net, shared by all views: an image to features at its own resolution."""

    def __init__(self, in_channels: int, width: int, out_channels: int) -> None:
        """Build for images of `in_channels`; the sides must be multiples of eight."""
        super().__init__()
        self.stem = nn.Conv2d(in_channels, width, 4, stride=2, padding=1)
        self.fine = ResidualBlock(width, width, dims=2)
        self.down = downsample(width, 2 * width, dims=2)
        self.middle = ResidualBlock(2 * width, 2 * width, dims=2)
        self.down_again = downsample(2 * width, 4 * width, dims=2)
        self.bottom = nn.Sequential(*[ResidualBlock(4 * width, 4 * width, dims=2) for _ in "ab"])
        self.up = upsample(4 * width, 2 * width, dims=2)
        self.middle_up = ResidualBlock(2 * width, 2 * width, dims=2)
        self.up_again = upsample(2 * width, width, dims=2)
        self.fine_up = ResidualBlock(width, width, dims=2)
        self.head = nn.Conv2d(width, 4 * out_channels, 1)

    def forward(
        self, image: Float[Tensor, "image channel row col"]
    ) -> Float[Tensor, "image feature row col"]:
        """Features of each image."""
        fine = self.fine(self.stem(image))
        middle = self.middle(self.down(fine))
        bottom = self.bottom(self.down_again(middle))
        middle = self.middle_up(middle + self.up(bottom))
        fine = self.fine_up(fine + self.up_again(middle))
        return F.pixel_shuffle(self.head(fine), 2)


class ViewEncoder(nn.Module):
    """Views and where each voxel projects in them, to a condition and a CT estimate in [-1, 1]."""

    def __init__(self, config: ViewEncoderConfig) -> None:
        """Build from a config."""
        super().__init__()
        self.config = config
        lifted = config.lifted_channels
        self.images = ImageEncoder(2, config.image_width, lifted)
        # Per view and voxel of half resolution: 2x2x2 lifted features and image values, whether
        # the ray meets the detector, its direction and depth.
        self.per_view = nn.Sequential(
            nn.Conv3d(8 * (lifted + 2) + 5, config.width, 1),
            nn.SiLU(),
            nn.Conv3d(config.width, config.width, 1),
        )
        self.start = nn.Conv3d(2 * config.width + 3, config.width, 1)
        self.down = nn.ModuleList([self._blocks(config.width)])
        self.to_deep = downsample(config.width, config.deep_width)
        self.down.append(self._blocks(config.deep_width))
        self.to_bottom = downsample(config.deep_width, config.bottom_width)
        self.bottom = self._blocks(config.bottom_width)
        self.from_bottom = upsample(config.bottom_width, config.deep_width)
        self.deep_up = self._blocks(config.deep_width)
        self.from_deep = upsample(config.deep_width, config.width)
        self.up = self._blocks(config.width)
        self.condition_head = nn.Sequential(
            group_norm(config.deep_width),
            nn.SiLU(),
            nn.Conv3d(config.deep_width, config.condition_channels, 1),
        )
        self.estimate_head = nn.Sequential(
            group_norm(config.width), nn.SiLU(), nn.Conv3d(config.width, 8, 3, padding=1)
        )
        # At full resolution: the estimate, lifted features and detail from the level below.
        detail = max(1, FULL_WIDTH - lifted - 3)
        self.detail_head = nn.Conv3d(config.width, 8 * detail, 1)
        self.sharpen = nn.Sequential(
            nn.Conv3d(1 + lifted + 2 + detail, FULL_WIDTH, 3, padding=1),
            nn.SiLU(),
            nn.Conv3d(FULL_WIDTH, FULL_WIDTH, 3, padding=1),
            nn.SiLU(),
            nn.Conv3d(FULL_WIDTH, 1, 1),
        )
        nn.init.zeros_(self.sharpen[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.sharpen[-1].bias)  # type: ignore[arg-type]

    def _blocks(self, width: int) -> nn.Sequential:
        return nn.Sequential(*[ResidualBlock(width, width) for _ in range(self.config.num_blocks)])

    def lift_views(
        self, images: Float[Tensor, "batch view 2 row col"], rays: RayGrid
    ) -> tuple[
        Float[Tensor, "batch fused depth_2 height_2 width_2"],
        Float[Tensor, "batch lifted depth height width"],
    ]:
        """Fused features of all views: folded into channels, and at full resolution."""
        batch, view = images.shape[:2]
        features = self.images(images.flatten(0, 1)).unflatten(0, (batch, view))
        features = torch.cat([features, images.to(features.dtype)], dim=2)
        lifted = lift(features, rays)
        folded = space_to_depth(lifted.flatten(0, 1))
        known = F.avg_pool3d(rays.on_detector.flatten(0, 1)[:, None].to(folded.dtype), 2)
        ray = F.avg_pool3d(rays.ray.flatten(0, 1), 2).to(folded.dtype)
        per_view = self.per_view(torch.cat([folded, known, ray], dim=1)) * known
        return fuse(per_view.unflatten(0, (batch, view))), lifted.mean(dim=1)

    def forward(
        self,
        images: Float[Tensor, "batch view 2 row col"],
        rays: RayGrid,
        *,
        with_estimate: bool = True,
    ) -> ViewEncoding:
        """Encode views; without the estimate its head is skipped and an empty tensor returned.

        Args:
            images: Normalized views and their kind (see `fewview.bundle.network_images`).
            rays: Where the voxels of the model grid project; sides are multiples of eight.
            with_estimate: Whether the CT estimate is needed.

        Returns:
            Condition at a quarter of the grid's resolution, CT estimate in about [-1, 1].
        """
        fused, lifted = self.lift_views(images, rays)
        fine = self.down[0](self.start(torch.cat([fused, _coordinates(fused)], dim=1)))
        deep = self.down[1](self.to_deep(fine))
        bottom = self.bottom(self.to_bottom(deep))
        deep = self.deep_up(deep + self.from_bottom(bottom))
        condition = self.condition_head(deep).float()
        if not with_estimate:
            return ViewEncoding(condition, condition.new_empty(len(condition), 1, 0, 0, 0))
        fine = self.up(fine + self.from_deep(deep))
        estimate = depth_to_space(self.estimate_head(fine))
        detail = depth_to_space(self.detail_head(fine))
        sharper = self.sharpen(torch.cat([estimate, lifted.to(detail.dtype), detail], dim=1))
        return ViewEncoding(condition, (estimate + sharper).float())


def _coordinates(like: Tensor) -> Float[Tensor, "batch 3 depth height width"]:
    """Position of each voxel in the grid, -1 to 1 along each axis."""
    axes = [torch.linspace(-1, 1, size, device=like.device) for size in like.shape[2:]]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    return grid.to(like.dtype).expand(like.shape[0], -1, -1, -1, -1)


class Projector(nn.Module):
    """Condition to the space of the latent, for the contrastive loss only (CLS-DM, stage 2)."""

    def __init__(self, condition_channels: int, latent_channels: int) -> None:
        """Build one convolution and the learned temperature of the contrast."""
        super().__init__()
        self.project = nn.Conv3d(condition_channels, latent_channels, 3, padding=1)
        self.log_temperature = nn.Parameter(torch.tensor(-2.3))

    def forward(
        self, condition: Float[Tensor, "batch condition depth height width"]
    ) -> Float[Tensor, "batch latent depth height width"]:
        """Aligned latent of the views."""
        return self.project(condition)
