"""The KL autoencoder: a CT volume to a small latent volume and back (stage 1, CLS-DM).

It knows voxels in [-1, 1] only; HU, grids and files are the business of others.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
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

BLOCK = 4
"""Voxels of the volume per voxel of the latent, along each axis."""


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """Sizes of the compact KL autoencoder."""

    kind: Literal["compact"] = "compact"

    latent_channels: int = 8
    """Channels of the latent; its grid has a quarter of the voxels along each axis."""

    width: int = 32
    """Channels at half resolution."""

    deep_width: int = 96
    """Channels at quarter resolution."""

    num_blocks: int = 2
    """Residual blocks at each resolution."""

    def __post_init__(self) -> None:
        """Refuse sizes that cannot exist."""
        if min(self.latent_channels, self.width, self.deep_width, self.num_blocks) < 1:
            raise ValueError("autoencoder sizes must be at least 1")

    @property
    def reduction(self) -> int:
        """Voxels of the volume per voxel of the latent along one axis."""
        return BLOCK


class Posterior(NamedTuple):
    """The encoder's normal distribution over latents."""

    mean: Float[Tensor, "batch latent depth height width"]
    log_variance: Float[Tensor, "batch latent depth height width"]

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draw one latent."""
        noise = torch.empty_like(self.mean).normal_(generator=generator)
        return self.mean + (0.5 * self.log_variance).exp() * noise

    def kl(self) -> Float[Tensor, ""]:
        """Divergence from the standard normal, mean over all latent values."""
        return 0.5 * (self.mean**2 + self.log_variance.exp() - 1 - self.log_variance).mean()


class Autoencoder(nn.Module):
    """Volume in [-1, 1] to a latent of a quarter of its resolution, and back.

    References:
        Perceptual compression of Rombach et al. (2022), section 3.1, as CLS-DM uses it in 3-D;
        the half-resolution inside is ours.
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        """Build from a config."""
        super().__init__()
        self.config = config
        width, deep = config.width, config.deep_width
        self.encoder = nn.Sequential(
            nn.Conv3d(8, width, 3, padding=1),
            *[ResidualBlock(width, width) for _ in range(config.num_blocks)],
            downsample(width, deep),
            *[ResidualBlock(deep, deep) for _ in range(config.num_blocks)],
            group_norm(deep),
            nn.SiLU(),
            nn.Conv3d(deep, 2 * config.latent_channels, 3, padding=1),
        )
        self.decoder = nn.Sequential(
            nn.Conv3d(config.latent_channels, deep, 3, padding=1),
            *[ResidualBlock(deep, deep) for _ in range(config.num_blocks)],
            upsample(deep, width),
            *[ResidualBlock(width, width) for _ in range(config.num_blocks + 1)],
            group_norm(width),
            nn.SiLU(),
            nn.Conv3d(width, 8, 3, padding=1),
        )

    def encode(self, volume: Float[Tensor, "batch 1 depth height width"]) -> Posterior:
        """Distribution over latents; sizes must be multiples of four."""
        moments = self.encoder(space_to_depth(volume)).float()
        mean, log_variance = moments.chunk(2, dim=1)
        return Posterior(mean, log_variance.clamp(-30.0, 20.0))

    def decode(
        self, latent: Float[Tensor, "batch latent depth_4 height_4 width_4"]
    ) -> Float[Tensor, "batch 1 depth height width"]:
        """Volume in about [-1, 1] (not clipped)."""
        return depth_to_space(self.decoder(latent)).float()
