"""X-ray views to a volume-shaped condition and a CT estimate (stage 2, CLS-DM's alignment network).

Views are encoded in 2-D, lifted along their true rays, fused over any number of views, and refined
in 3-D. Two heads: the condition for the denoiser and the coarse CT itself (the "autoregressive"
reconstruction constraint of CLS-DM).
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fewview.models.layers import ResidualBlock, downsample, group_norm, level_start, upsample
from fewview.models.lifting import RayGrid, coarser, fuse, fused_channels, lift


@dataclass(frozen=True, kw_only=True)
class ViewEncoderConfig:
    """Sizes of the view encoder that lifts along the true rays."""

    kind: Literal["rays"] = "rays"

    image_width: int = 32
    """Channels of the 2-D features at half the detector's resolution."""

    lifted_channels: int = 7
    """Channels per view that are lifted to every voxel of the model grid, beside the image."""

    half_lifted: int = 16
    """Further channels per view that are lifted to the grid at half resolution."""

    deep_lifted: int = 32
    """Further channels per view that are lifted to the grid at quarter resolution, from image
    features that have seen most of the picture. Without these two, all that the views say passes
    through the few channels of the full resolution."""

    fusion: Literal["direction", "max"] = "direction"
    """How the features of all views become one: see `fewview.models.lifting`."""

    template_waves: int = 4
    """Cosines along each axis of the template that every patient's features begin with at half
    resolution; 0 for the plain position of each voxel instead. Views hold no depth: where an organ
    lies along the ray is first of all what it is in everyone."""

    full_width: int = 16
    """3-D channels at the resolution of the model grid."""

    width: int = 48
    """3-D channels at half resolution."""

    deep_width: int = 128
    """3-D channels at quarter resolution, the resolution of the latent."""

    bottom_width: int = 192
    """3-D channels at an eighth of the resolution."""

    num_blocks: int = 2
    """Residual blocks at each resolution below the full one, on the way down and on the way up."""

    condition_channels: int = 16
    """Channels of the condition."""

    reduction: Literal[4, 8, 16] = 4
    """Voxels of the model grid per voxel of the condition along one axis; that of the autoencoder.
    Beyond 4 the heads of condition and detail reduce further."""

    detail_channels: int = 0
    """Further channels for the denoiser, from the features at half resolution that the CT estimate
    is made of; learned with the denoiser. 0 for none."""

    head_norm: bool = True
    """Whether features are normalized before the CT estimate is made of them."""

    def __post_init__(self) -> None:
        """Refuse sizes that cannot exist."""
        sizes = (self.image_width, self.lifted_channels, self.full_width, self.width)
        if min(*sizes, self.deep_width, self.bottom_width, self.num_blocks) < 1:
            raise ValueError("view encoder sizes must be at least 1")
        for name in ("half_lifted", "deep_lifted", "template_waves", "detail_channels"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}")


class ViewEncoding(NamedTuple):
    """What the view encoder says of a set of views."""

    condition: Float[Tensor, "batch condition depth_r height_r width_r"]
    estimate: Float[Tensor, "batch 1 depth height width"]
    detail: Float[Tensor, "batch detail depth_r height_r width_r"]


class ImageEncoder(nn.Module):
    """A small 2-D U-Net, shared by all views: an image to features at three resolutions."""

    def __init__(self, in_channels: int, width: int, out_channels: tuple[int, int, int]) -> None:
        """Build for images of `in_channels`; the sides must be multiples of eight.

        Args:
            in_channels: Of the image.
            width: Channels at half resolution.
            out_channels: Features at the image's own, half and quarter resolution; 0 for none.
        """
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
        own, half, quarter = out_channels
        self.head = nn.Conv2d(width, 4 * own, 1)
        self.half_head = nn.Conv2d(width, half, 1) if half else None
        self.quarter_head = nn.Conv2d(2 * width, quarter, 1) if quarter else None

    def forward(
        self, image: Float[Tensor, "image channel row col"]
    ) -> tuple[Float[Tensor, "image feature row col"], Tensor | None, Tensor | None]:
        """Features of each image at its own, half and quarter resolution."""
        fine = self.fine(self.stem(image))
        middle = self.middle(self.down(fine))
        bottom = self.bottom(self.down_again(middle))
        middle = self.middle_up(middle + self.up(bottom))
        fine = self.fine_up(fine + self.up_again(middle))
        return (
            F.pixel_shuffle(self.head(fine), 2),
            None if self.half_head is None else self.half_head(fine),
            None if self.quarter_head is None else self.quarter_head(middle),
        )


class Position(nn.Conv3d):
    """The position of each voxel, -1 to 1 along each axis, by learned weights."""

    def __init__(self, out_channels: int) -> None:
        """Build."""
        super().__init__(3, out_channels, 1)

    def forward(self, like: Tensor) -> Float[Tensor, "batch channel depth height width"]:
        """For a grid as that of some features."""
        axes = [torch.linspace(-1, 1, size, device=like.device) for size in like.shape[2:]]
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij"))
        return super().forward(grid.to(like.dtype).expand(len(like), -1, -1, -1, -1))


class Template(nn.Module):
    """A learned smooth volume that is the same for every patient: a short cosine series.

    Channel c is the sum over i, j, k of weight[c, i, j, k] cos(pi i z) cos(pi j y) cos(pi k x),
    with z, y and x from 0 to 1 over the grid.
    """

    def __init__(self, out_channels: int, num_waves: int) -> None:
        """Build with `num_waves` cosines along each axis, the constant one counted."""
        super().__init__()
        weight = torch.randn(out_channels, num_waves, num_waves, num_waves)
        self.weight = nn.Parameter(weight / num_waves**1.5)

    def forward(self, like: Tensor) -> Float[Tensor, "1 channel depth height width"]:
        """For a grid as that of some features."""
        volume = self.weight
        order = torch.arange(volume.shape[-1], device=like.device)
        # The sum is separable: the first of the remaining axes goes, its voxels come last.
        for size in like.shape[2:]:
            place = (torch.arange(size, device=like.device) + 0.5) / size
            waves = torch.cos(torch.pi * order[:, None] * place).to(volume.dtype)
            volume = torch.tensordot(volume, waves, ([1], [0]))
        return volume[None].to(like.dtype)


class ViewEncoder(nn.Module):
    """Views and where each voxel projects in them, to a condition and a CT estimate in [-1, 1]."""

    codebook = None
    """There is none: the condition is not quantized."""

    def __init__(self, config: ViewEncoderConfig) -> None:
        """Build from a config."""
        super().__init__()
        self.config = config
        lifted, full = config.lifted_channels, config.full_width
        width, deep, bottom = config.width, config.deep_width, config.bottom_width
        lifted_at = (lifted, config.half_lifted, config.deep_lifted)
        self.images = ImageEncoder(6, config.image_width, lifted_at)
        # At full resolution there is no norm: it costs as much as a convolution here.
        fused = fused_channels(config.fusion)
        self.full_down = nn.Sequential(
            nn.Conv3d(fused * (lifted + 1), full, 3, padding=1), nn.SiLU()
        )
        waves = config.template_waves
        self.place = Template(width, waves) if waves else Position(width)
        self.join_half = _join(fused * config.half_lifted, width)
        self.join_deep = _join(fused * config.deep_lifted, deep)
        self.to_half = downsample(full, width)
        self.half_down = self._blocks(width)
        self.to_deep = downsample(width, deep)
        self.deep_down = self._blocks(deep)
        self.to_bottom = downsample(deep, bottom)
        self.bottom = self._blocks(bottom)
        self.from_bottom = upsample(bottom, deep)
        self.deep_up = self._blocks(deep)
        self.from_deep = upsample(deep, width)
        self.half_up = self._blocks(width)
        self.from_half = upsample(width, full)
        self.condition_head = nn.Sequential(
            group_norm(deep),
            nn.SiLU(),
            downsample(deep, config.condition_channels, factor=config.reduction // 4),
        )
        self.detail_head = (
            downsample(width, config.detail_channels, factor=config.reduction // 2)
            if config.detail_channels
            else None
        )
        last = nn.Conv3d(full, 1, 3, padding=1)
        self.estimate_head = nn.Sequential(
            *([group_norm(full), nn.SiLU()] if config.head_norm else []),
            nn.Conv3d(full, full, 3, padding=1),
            nn.SiLU(),
            nn.Conv3d(full, full, 3, padding=1),
            nn.SiLU(),
            last,
        )
        level_start(self)
        # Most of the grid is air or lung: the first estimate is nearly that everywhere.
        nn.init.normal_(last.weight, std=0.02)
        nn.init.constant_(last.bias, -0.6)  # type: ignore[arg-type]

    def _blocks(self, width: int) -> nn.Sequential:
        return nn.Sequential(*[ResidualBlock(width, width) for _ in range(self.config.num_blocks)])

    def lift_views(
        self, images: Float[Tensor, "batch view 2 row col"], rays: RayGrid
    ) -> tuple[Float[Tensor, "batch fused depth height width"], Tensor | None, Tensor | None]:
        """Features of all views, fused, on the model grid, and at half and quarter resolution.

        The image encoder is told the direction of each view, so that it can say of a frontal view
        something else than of a lateral one.
        """
        batch, view, _, rows, cols = images.shape
        ray = rays.ray.mean(dim=(3, 4, 5))[..., None, None].expand(-1, -1, -1, rows, cols)
        own, half, quarter = self.images(torch.cat([images, ray], dim=2).flatten(0, 1))
        own = own.unflatten(0, (batch, view))
        own = torch.cat([own, images[:, :, :1].to(own.dtype)], dim=2)

        def fused(features: Tensor, factor: int) -> Tensor:
            seen = coarser(rays, factor)
            return fuse(lift(features, seen), seen, self.config.fusion)

        return (
            fused(own, 1),
            None if half is None else fused(half.unflatten(0, (batch, view)), 2),
            None if quarter is None else fused(quarter.unflatten(0, (batch, view)), 4),
        )

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
            rays: Where the voxels of the model grid project; sides are multiples of eight.
            with_estimate: Whether the CT estimate is needed.

        Returns:
            Condition at the grid's resolution over `reduction`, CT estimate in about [-1, 1], and
            the detail for the denoiser, which is empty where the config has none.
        """
        lifted, lifted_half, lifted_deep = self.lift_views(images, rays)
        full = self.full_down(lifted)
        half = self.to_half(full)
        half = half + self.place(half)
        if self.join_half is not None:
            half = half + self.join_half(lifted_half)
        half = self.half_down(half)
        deep = self.to_deep(half)
        if self.join_deep is not None:
            deep = deep + self.join_deep(lifted_deep)
        deep = self.deep_down(deep)
        bottom = self.bottom(self.to_bottom(deep))
        deep = self.deep_up(deep + self.from_bottom(bottom))
        condition = self.condition_head(deep).float()
        nothing = condition[:, :0]
        if not with_estimate:
            return ViewEncoding(condition, condition.new_empty(len(condition), 1, 0, 0, 0), nothing)
        half = self.half_up(half + self.from_deep(deep))
        detail = nothing if self.detail_head is None else self.detail_head(half).float()
        full = full + self.from_half(half)
        return ViewEncoding(condition, self.estimate_head(full).float(), detail)


def _join(in_channels: int, out_channels: int) -> nn.Module | None:
    """Brings lifted features to the channels of a resolution, if there are any."""
    return nn.Conv3d(in_channels, out_channels, 1) if in_channels else None
