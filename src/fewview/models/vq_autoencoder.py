"""The autoencoder with a codebook: XctDiff's perceptual compression (stage 1).

It knows voxels in [-1, 1] only. Diffusion samples the latent before quantization; decoding replaces
every vector by its nearest code first, so that samples need not be exact.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fewview.models.codebook import Codebook
from fewview.models.layers import (
    ResidualBlock,
    depth_to_space,
    downsample,
    group_norm,
    space_to_depth,
)


@dataclass(frozen=True, kw_only=True)
class VqAutoencoderConfig:
    """Sizes of the autoencoder with a codebook; the defaults are the published ones for 128^3."""

    kind: Literal["vq"]

    latent_channels: int = 8
    """Channels of the latent and components of a code."""

    bottleneck_channels: int = 4
    """Channels that the latent is made of by a linear map; fewer than `latent_channels` hold the
    latent in a subspace (published)."""

    num_codes: int = 8192
    """Codes of the codebook."""

    width: int = 32
    """Channels of the first level."""

    multipliers: tuple[int, ...] = (1, 2, 4)
    """Channels of each level in units of `width`; each level has half the resolution of the one
    before."""

    num_blocks: int = 2
    """Residual blocks of a level of the encoder; the decoder has one more."""

    fold: Literal[1, 2] = 1
    """Edge of the blocks of voxels that are folded into channels before the first level: 2 leaves
    out the costliest level, that at full resolution; 1 is published."""

    def __post_init__(self) -> None:
        """Refuse sizes that cannot exist."""
        if not self.multipliers:
            raise ValueError("multipliers needs at least one level")
        sizes = (self.latent_channels, self.bottleneck_channels, self.width, self.num_blocks)
        if min(*sizes, *self.multipliers) < 1:
            raise ValueError("autoencoder sizes must be at least 1")
        if self.num_codes < 2:
            raise ValueError(f"num_codes must be at least 2, got {self.num_codes}")

    @property
    def reduction(self) -> int:
        """Voxels of the volume per voxel of the latent along one axis."""
        return int(self.fold * 2 ** (len(self.multipliers) - 1))


class Unquantized(NamedTuple):
    """What the encoder says of a volume: the latent before quantization, without a spread."""

    mean: Float[Tensor, "batch latent depth height width"]


class Doubled(nn.Module):
    """Twice the resolution by trilinear interpolation."""

    def forward(self, hidden: Tensor) -> Tensor:
        """Interpolate."""
        return F.interpolate(hidden, scale_factor=2.0, mode="trilinear")


class VqAutoencoder(nn.Module):
    """Volume in [-1, 1] to a grid of codes, and back, without attention.

    Differs from the published network in the size of the groups that are normalized (about eight
    channels instead of an eighth of them) and in residual branches that start at zero; the number
    of weights is the same.

    References:
        Esser et al. (2021), VQGAN, section 3.1, in 3-D as XctDiff (arXiv 2406.04679) has it.
    """

    def __init__(self, config: VqAutoencoderConfig) -> None:
        """Build from a config."""
        super().__init__()
        self.config = config
        latent, bottleneck = config.latent_channels, config.bottleneck_channels
        folded = config.fold**3
        widths = [config.width * multiplier for multiplier in config.multipliers]
        self.encoder = nn.Sequential(
            nn.Conv3d(folded, widths[0], 3, padding=1),
            *_levels_down(widths, config.num_blocks),
            group_norm(widths[-1]),
            nn.SiLU(),
            nn.Conv3d(widths[-1], bottleneck, 3, padding=1),
            nn.Conv3d(bottleneck, latent, 1),
        )
        self.codebook = Codebook(config.num_codes, latent)
        self.decoder = nn.Sequential(
            nn.Conv3d(latent, bottleneck, 1),
            nn.Conv3d(bottleneck, widths[-1], 3, padding=1),
            group_norm(widths[-1]),
            nn.SiLU(),
            nn.Conv3d(widths[-1], widths[-1], 3, padding=1),
            *_levels_up(widths, config.num_blocks + 1),
            group_norm(widths[0]),
            nn.SiLU(),
            nn.Conv3d(widths[0], folded, 3, padding=1),
        )

    def encode(self, volume: Float[Tensor, "batch 1 depth height width"]) -> Unquantized:
        """Latent before quantization; sizes must be multiples of the reduction."""
        folded = space_to_depth(volume) if self.config.fold == 2 else volume
        return Unquantized(self.encoder(folded).float())

    def decode(
        self, latent: Float[Tensor, "batch latent depth_r height_r width_r"]
    ) -> Float[Tensor, "batch 1 depth height width"]:
        """Volume in about [-1, 1] (not clipped) of the codes nearest to a latent."""
        return self.decode_codes(self.codebook(latent).latent)

    def decode_codes(
        self, codes: Float[Tensor, "batch latent depth_r height_r width_r"]
    ) -> Float[Tensor, "batch 1 depth height width"]:
        """The same of what is quantized already."""
        volume = self.decoder(codes).float()
        return depth_to_space(volume) if self.config.fold == 2 else volume


def _levels_down(widths: list[int], num_blocks: int) -> list[nn.Module]:
    """Residual blocks at each level, and a convolution of disjoint blocks from each to the next."""
    parts: list[nn.Module] = []
    before = widths[0]
    for level, width in enumerate(widths):
        if level:
            parts.append(downsample(before, before))
        for _ in range(num_blocks):
            parts.append(ResidualBlock(before, width))
            before = width
    return parts


def _levels_up(widths: list[int], num_blocks: int) -> list[nn.Module]:
    """Residual blocks at each level, and interpolation and one more block to the finer one."""
    parts: list[nn.Module] = []
    before = widths[-1]
    for level, width in reversed(list(enumerate(widths))):
        for _ in range(num_blocks):
            parts.append(ResidualBlock(before, width))
            before = width
        if level:
            parts += [Doubled(), ResidualBlock(width, width)]
    return parts
