"""XctDiff's view encoder: the shape in the view's own plane first, then depth, then volume.

A 2-D network encodes each view in the plane of the grid across its rays (coronal for a frontal
view). Its channels are then read as slices along the rays, mixed along depth, and refined by 3-D
convolutions. The CT estimate is decoded from the condition, so that the condition learns all that
the estimate needs. Each view's axis is read from its rays; cone beams are taken for parallel ones.
"""

import itertools
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from fewview.models.codebook import Codebook
from fewview.models.layers import ResidualBlock, SelfAttention, downsample, group_norm
from fewview.models.lifting import RayGrid
from fewview.models.replication import mean_along_axes, planes_along_rays
from fewview.models.view_encoder import ViewEncoding
from fewview.models.vq_autoencoder import Doubled


@dataclass(frozen=True, kw_only=True)
class ProgressiveEncoderConfig:
    """Sizes of the progressive view encoder; the defaults are the published ones for 128^3."""

    kind: Literal["progressive"]

    width: int = 128
    """Channels of the first 2-D level, which has the grid's resolution."""

    multipliers: tuple[int, ...] = (1, 2, 4)
    """Channels of each 2-D level in units of `width`; each level has half the resolution of the one
    before, and the last that of the latent."""

    num_blocks: int = 2
    """Residual blocks of a 2-D level."""

    slice_channels: int = 16
    """Channels of each slice along the rays; the 2-D features have so many for every slice."""

    lifting: Literal["progressive", "copies"] = "progressive"
    """How slices along the rays come about. `progressive`: out of channels, then mixed along depth.
    `copies`: all slices alike, so that 3-D convolutions alone make depth (for comparison)."""

    condition_channels: int = 8
    """Channels of the condition."""

    codebook: Literal["own", "shared", "none"] = "own"
    """What the condition is quantized by before the CT estimate is decoded from it: a codebook of
    its own (released code), that of the autoencoder (our reading of the paper's homogeneous spatial
    codebook: one bounded space for CT and X-ray), or nothing. The denoiser is told the condition
    before quantization in any case (released code)."""

    num_codes: int = 8192
    """Codes of a codebook of its own."""

    decoder_width: int = 128
    """3-D channels of the first level of the decoder of the CT estimate; half as many at each
    doubling."""

    def __post_init__(self) -> None:
        """Refuse sizes that cannot exist."""
        if not self.multipliers:
            raise ValueError("multipliers needs at least one level")
        sizes = (self.width, self.num_blocks, self.slice_channels, self.condition_channels)
        if min(*sizes, *self.multipliers) < 1 or self.num_codes < 2:
            raise ValueError("view encoder sizes must be at least 1, num_codes at least 2")
        if self.decoder_width < self.reduction:
            raise ValueError(
                f"decoder_width must be at least {self.reduction}, to be halved at each doubling; "
                f"got {self.decoder_width}"
            )

    @property
    def reduction(self) -> int:
        """Voxels of the model grid per voxel of the condition along one axis."""
        return int(2 ** (len(self.multipliers) - 1))

    @property
    def detail_channels(self) -> int:
        """None: nothing but the condition goes to the denoiser."""
        return 0


class PlaneEncoder(nn.Module):
    """An image to features of a fraction of its resolution, with attention at the last level."""

    def __init__(self, config: ProgressiveEncoderConfig, out_channels: int) -> None:
        """Build for features of `out_channels`, at no cost where the last level has so many."""
        super().__init__()
        widths = [config.width * multiplier for multiplier in config.multipliers]
        parts: list[nn.Module] = [nn.Conv2d(1, widths[0], 3, padding=1)]
        before = widths[0]
        for level, width in enumerate(widths):
            if level:
                parts.append(downsample(before, before, dims=2))
            for _ in range(config.num_blocks):
                parts.append(ResidualBlock(before, width, dims=2))
                before = width
        parts.append(ResidualBlock(before, before, dims=2))
        self.levels = nn.Sequential(*parts)
        self.attention = SelfAttention(before, 1)
        self.to_slices = (
            nn.Identity() if before == out_channels else nn.Conv2d(before, out_channels, 1)
        )

    def forward(
        self, image: Float[Tensor, "image 1 row col"]
    ) -> Float[Tensor, "image feature row_r col_r"]:
        """Features of each image; its sides must be multiples of the reduction."""
        features = self.levels(image)
        features = self.attention(features[:, :, None])[:, :, 0]
        mapped: Tensor = self.to_slices(features)
        return mapped


class DepthMixing(nn.Module):
    """Every line of slices mixed along depth by two small networks, without a way around them."""

    def __init__(self, depth: int) -> None:
        """Build for `depth` slices."""
        super().__init__()
        self.layers = nn.Sequential(*self._mix(depth), nn.GELU(), *self._mix(depth))

    @staticmethod
    def _mix(depth: int) -> list[nn.Module]:
        return [
            nn.LayerNorm(depth),
            nn.Linear(depth, depth),
            nn.GELU(),
            nn.Linear(depth, depth),
        ]

    def forward(
        self, slices: Float[Tensor, "image channel depth row col"]
    ) -> Float[Tensor, "image channel depth row col"]:
        """Mix."""
        mixed: Tensor = self.layers(slices.movedim(2, -1))
        return mixed.movedim(-1, 2)


class ProgressiveEncoder(nn.Module):
    """Views to a condition, and from the condition to a CT estimate.

    Differs from the published network: any size of the grid; the mean over any number of views,
    each along its own axis; groups of about eight channels are normalized; 2-D residual branches
    and attention start at zero.

    References:
        XctDiff (arXiv 2406.04679), the progressive semantic encoder of stage 2.
    """

    detail_head = None
    """There is none: `detail_channels` is 0."""

    def __init__(
        self, config: ProgressiveEncoderConfig, size: int, shared: Codebook | None = None
    ) -> None:
        """Build for a model grid of `size` voxels along each axis.

        Args:
            config: The sizes.
            size: Of the grid; a multiple of the reduction.
            shared: The codebook of the autoencoder, for `codebook = "shared"`: the same object, so
                that what stage 1 learns is what stage 2 has.
        """
        super().__init__()
        self.config = config
        depth, channels = size // config.reduction, config.slice_channels
        copied = config.lifting == "copies"
        self.depth = depth
        self.planes = PlaneEncoder(config, channels * (1 if copied else depth))
        self.mixing = nn.Identity() if copied else DepthMixing(depth)
        self.volume = _double(channels, channels)
        self.condition_head = nn.Sequential(nn.Conv3d(channels, config.condition_channels, 1))
        self.codebook = _codebook(config, shared)
        widths = [config.decoder_width >> level for level in range(len(config.multipliers))]
        decoder: list[nn.Module] = [
            nn.Conv3d(config.condition_channels, channels, 1),
            nn.Conv3d(channels, widths[0], 3, padding=1),
        ]
        for before, after in itertools.pairwise(widths):
            decoder += [_double(before, after), Doubled()]
        self.estimate_head = nn.Sequential(*decoder, nn.Conv3d(widths[-1], 1, 3, padding=1))

    def lift_views(
        self, images: Float[Tensor, "batch view 2 row col"], rays: RayGrid
    ) -> Float[Tensor, "batch slice depth_r height_r width_r"]:
        """The mean over views of their volumes; the kind of the images is not used."""
        planes, axes = planes_along_rays(images[:, :, :1], rays)
        batch, view = planes.shape[:2]
        features = self.planes(planes.flatten(0, 1))
        slices = features.unflatten(1, (self.config.slice_channels, -1))
        if slices.shape[2] != self.depth:
            slices = slices.expand(-1, -1, self.depth, -1, -1)
        lifted = self.mixing(slices).unflatten(0, (batch, view))
        return mean_along_axes(lifted, axes)

    def forward(
        self,
        images: Float[Tensor, "batch view 2 row col"],
        rays: RayGrid,
        *,
        with_estimate: bool = True,
    ) -> ViewEncoding:
        """Encode views; without the estimate its decoder is skipped and an empty tensor returned.

        Args:
            images: Normalized views and their kind (see `fewview.inputs.network_images`).
            rays: Where the voxels of the model grid project.
            with_estimate: Whether the CT estimate is needed.

        Returns:
            Condition before quantization, CT estimate of its codes in about [-1, 1], no detail.
        """
        condition = self.condition_head(self.volume(self.lift_views(images, rays))).float()
        nothing = condition[:, :0]
        if not with_estimate:
            return ViewEncoding(condition, condition.new_empty(len(condition), 1, 0, 0, 0), nothing)
        told = condition if self.codebook is None else self.codebook(condition).latent
        return ViewEncoding(condition, self.estimate_head(told).float(), nothing)


def _codebook(config: ProgressiveEncoderConfig, shared: Codebook | None) -> Codebook | None:
    match config.codebook:
        case "own":
            return Codebook(config.num_codes, config.condition_channels)
        case "shared":
            assert shared is not None, "SystemConfig lets no other autoencoder through"
            return shared
        case "none":
            return None


def _double(before: int, after: int) -> nn.Sequential:
    """Norm, SiLU, convolution, twice, without a way around."""
    return nn.Sequential(
        group_norm(before),
        nn.SiLU(),
        nn.Conv3d(before, after, 3, padding=1),
        group_norm(after),
        nn.SiLU(),
        nn.Conv3d(after, after, 3, padding=1),
    )
