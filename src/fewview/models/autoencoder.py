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

    linear_path: bool = False
    """Whether a linear code of each block of voxels stands beside the networks, which then add to
    it; stage 1 sets it to the principal components of training bodies before it begins."""

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
        the half-resolution inside is ours. A path without non-linearity around each half: Chen et
        al. (2025), DC-AE, section 3.2, there with fixed weights.
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
        self.linear = LinearCode(config.latent_channels) if config.linear_path else None

    def start_linear_path(self, volumes: Float[Tensor, "batch 1 depth height width"]) -> None:
        """Make the autoencoder the best linear code of these volumes, to learn on from there.

        Does nothing without a linear path, or when the path has been set before.
        """
        if self.linear is None or self.linear.is_set:
            return
        self.linear.fit(volumes)
        for last in (self.encoder[-1], self.decoder[-1]):
            for parameter in last.parameters():
                nn.init.zeros_(parameter)
        moments = self.encoder[-1]
        assert isinstance(moments, nn.Conv3d)
        assert moments.bias is not None
        # The log-variance: far less noise than the weakest channel's spread.
        nn.init.constant_(moments.bias[self.config.latent_channels :], -6.0)

    def encode(self, volume: Float[Tensor, "batch 1 depth height width"]) -> Posterior:
        """Distribution over latents; sizes must be multiples of four."""
        moments = self.encoder(space_to_depth(volume)).float()
        mean, log_variance = moments.chunk(2, dim=1)
        if self.linear is not None:
            mean = mean + self.linear.encode(volume)
        return Posterior(mean, log_variance.clamp(-30.0, 20.0))

    def decode(
        self, latent: Float[Tensor, "batch latent depth_4 height_4 width_4"]
    ) -> Float[Tensor, "batch 1 depth height width"]:
        """Volume in about [-1, 1] (not clipped)."""
        volume = depth_to_space(self.decoder(latent)).float()
        return volume if self.linear is None else volume + self.linear.decode(latent)


class LinearCode(nn.Module):
    """Each block of 4x4x4 voxels to a few numbers and back, linearly; zero until it is fitted."""

    def __init__(self, latent_channels: int) -> None:
        """Build for this many numbers per block."""
        super().__init__()
        self.into = nn.Conv3d(1, latent_channels, BLOCK, stride=BLOCK)
        self.back = nn.ConvTranspose3d(latent_channels, 1, BLOCK, stride=BLOCK)
        for weight in self.parameters():
            nn.init.zeros_(weight)

    @property
    def is_set(self) -> bool:
        """Whether the code has been fitted or learned."""
        return bool(self.back.weight.any())

    @torch.no_grad()
    def fit(self, volumes: Float[Tensor, "batch 1 depth height width"]) -> None:
        """Principal components of the blocks of these volumes, about their mean value.

        A channel's spread becomes the square root of its component's: the strong components stay
        stronger, but the weak ones, which hold the edges, are not lost beside them.
        """
        blocks = volumes.unfold(2, BLOCK, BLOCK).unfold(3, BLOCK, BLOCK).unfold(4, BLOCK, BLOCK)
        flat = blocks.reshape(-1, BLOCK**3).double()
        mean = flat.mean()
        covariance = (flat - mean).T @ (flat - mean) / len(flat)
        variance, components = torch.linalg.eigh(covariance)
        count = self.into.out_channels
        components = components.flip(1)[:, :count].T
        gain = variance.flip(0)[:count].clamp(min=1e-12)[:, None] ** 0.25
        shape = (count, 1, BLOCK, BLOCK, BLOCK)
        self.into.weight.copy_((components / gain).reshape(shape))
        self.back.weight.copy_((components * gain).reshape(shape))
        into_bias, back_bias = self.into.bias, self.back.bias
        assert into_bias is not None
        assert back_bias is not None
        into_bias.copy_(-mean * components.sum(dim=1) / gain[:, 0])
        back_bias.fill_(mean)

    def encode(self, volume: Tensor) -> Tensor:
        """Numbers of each block, in single precision whatever the networks use."""
        with torch.autocast(volume.device.type, enabled=False):
            code: Tensor = self.into(volume.float())
            return code

    def decode(self, latent: Tensor) -> Tensor:
        """Blocks from their numbers, in single precision."""
        with torch.autocast(latent.device.type, enabled=False):
            volume: Tensor = self.back(latent.float())
            return volume
