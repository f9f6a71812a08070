"""The KL autoencoder with levels of its own choice: CLS-DM's perceptual compression (stage 1).

It knows voxels in [-1, 1] only. Reduction and latent channels together set the compression: at
reduction 8 one latent channel stands for 512 voxels, at reduction 4 for 64.
"""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from fewview.models.autoencoder import Posterior
from fewview.models.layers import (
    ResidualBlock,
    SelfAttention,
    depth_to_space,
    group_norm,
    space_to_depth,
)


@dataclass(frozen=True, kw_only=True)
class LdmAutoencoderConfig:
    """Sizes of the KL autoencoder with levels; the defaults are the published ones for 128^3."""

    kind: Literal["ldm"]

    latent_channels: int = 4
    """Channels of the latent."""

    width: int = 32
    """Channels of the first level."""

    multipliers: tuple[int, ...] = (1, 2, 4, 8)
    """Channels of each level in units of `width`; each level has half the resolution of the one
    before."""

    num_blocks: int = 2
    """Residual blocks of a level of the encoder; the decoder has one more."""

    attention: bool = True
    """Whether the voxels of the last level attend to each other."""

    fold: Literal[1, 2] = 1
    """Edge of the blocks of voxels that are folded into channels before the first level: 2 leaves
    out the costliest level, that at full resolution; 1 is published."""

    def __post_init__(self) -> None:
        """Refuse sizes that cannot exist."""
        if min(self.latent_channels, self.width, self.num_blocks, *self.multipliers, 1) < 1:
            raise ValueError("autoencoder sizes must be at least 1")
        if not self.multipliers:
            raise ValueError("multipliers needs at least one level")

    @property
    def reduction(self) -> int:
        """Voxels of the volume per voxel of the latent along one axis."""
        return self.fold * 2 ** (len(self.multipliers) - 1)


class LdmAutoencoder(nn.Module):
    """Volume in [-1, 1] to a latent, and back, by levels of residual blocks.

    Differs from the published network in the size of the groups that are normalized (about eight
    channels instead of a thirty-second of them, which at 32 channels is one) and in residual
    branches that start at zero.

    References:
        Rombach et al. (2022), section 3.1 and appendix E, in 3-D as CLS-DM has it.
    """

    def __init__(self, config: LdmAutoencoderConfig) -> None:
        """Build from a config."""
        super().__init__()
        self.config = config
        latent, folded = config.latent_channels, config.fold**3
        widths = [config.width * multiplier for multiplier in config.multipliers]
        self.encoder = nn.Sequential(
            nn.Conv3d(folded, widths[0], 3, padding=1),
            *_levels_down(widths, config.num_blocks),
            *_middle(widths[-1], attention=config.attention),
            group_norm(widths[-1]),
            nn.SiLU(),
            nn.Conv3d(widths[-1], 2 * latent, 3, padding=1),
        )
        self.to_moments = nn.Conv3d(2 * latent, 2 * latent, 1)
        self.from_latent = nn.Conv3d(latent, latent, 1)
        self.decoder = nn.Sequential(
            nn.Conv3d(latent, widths[-1], 3, padding=1),
            *_middle(widths[-1], attention=config.attention),
            *_levels_up(widths, config.num_blocks + 1),
            group_norm(widths[0]),
            nn.SiLU(),
            nn.Conv3d(widths[0], folded, 3, padding=1),
        )

    def encode(self, volume: Float[Tensor, "batch 1 depth height width"]) -> Posterior:
        """Distribution over latents; sizes must be multiples of the reduction."""
        folded = space_to_depth(volume) if self.config.fold == 2 else volume
        moments = self.to_moments(self.encoder(folded)).float()
        mean, log_variance = moments.chunk(2, dim=1)
        return Posterior(mean, log_variance.clamp(-30.0, 20.0))

    def decode(
        self, latent: Float[Tensor, "batch latent depth_r height_r width_r"]
    ) -> Float[Tensor, "batch 1 depth height width"]:
        """Volume in about [-1, 1] (not clipped)."""
        volume = self.decoder(self.from_latent(latent)).float()
        return depth_to_space(volume) if self.config.fold == 2 else volume


def _middle(width: int, *, attention: bool) -> list[nn.Module]:
    """Two residual blocks, and between them one head of attention over all voxels."""
    between = [SelfAttention(width, 1)] if attention else []
    return [ResidualBlock(width, width), *between, ResidualBlock(width, width)]


def _levels_down(widths: list[int], num_blocks: int) -> list[nn.Module]:
    """Residual blocks at each level, and a strided convolution from each to the next."""
    parts: list[nn.Module] = []
    before = widths[0]
    for level, width in enumerate(widths):
        if level:
            parts.append(nn.Conv3d(before, before, 3, stride=2, padding=1))
        for _ in range(num_blocks):
            parts.append(ResidualBlock(before, width))
            before = width
    return parts


def _levels_up(widths: list[int], num_blocks: int) -> list[nn.Module]:
    """Residual blocks at each level, and nearest neighbors and a convolution to the finer one."""
    parts: list[nn.Module] = []
    before = widths[-1]
    for level, width in reversed(list(enumerate(widths))):
        for _ in range(num_blocks):
            parts.append(ResidualBlock(before, width))
            before = width
        if level:
            parts += [nn.Upsample(scale_factor=2), nn.Conv3d(width, width, 3, padding=1)]
    return parts
