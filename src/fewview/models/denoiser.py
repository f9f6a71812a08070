"""The denoiser: a noisy latent, its noise level and the condition to the clean part (stage 3).

It knows tensors at the latent's grid only; schedule, loss and sampling are in `diffusion`.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fewview.models.layers import (
    ResidualBlock,
    SelfAttention,
    downsample,
    group_norm,
    sinusoidal_code,
    upsample,
)


@dataclass(frozen=True, kw_only=True)
class DenoiserConfig:
    """Sizes of the compact denoising 3-D U-Net."""

    kind: Literal["compact"] = "compact"

    width: int = 96
    """Channels at the latent's resolution."""

    deep_width: int = 192
    """Channels at half the latent's resolution, where attention works."""

    num_blocks: int = 2
    """Residual blocks at each resolution, on the way down and on the way up."""

    num_heads: int = 4
    """Heads of the self-attention."""

    def __post_init__(self) -> None:
        """Refuse sizes that cannot exist."""
        if min(self.width, self.deep_width, self.num_blocks, self.num_heads) < 1:
            raise ValueError("denoiser sizes must be at least 1")
        if self.deep_width % self.num_heads:
            raise ValueError(
                f"deep_width {self.deep_width} must be divisible by num_heads {self.num_heads}"
            )

    @property
    def coarsest(self) -> int:
        """Voxels of the latent per voxel of the coarsest features, along one axis."""
        return 2


class Denoiser(nn.Module):
    """Isotropic 3-D U-Net on the noisy latent beside the condition (concatenated channels)."""

    def __init__(
        self, config: DenoiserConfig, *, latent_channels: int, condition_channels: int
    ) -> None:
        """Build for latents and conditions of these channel counts."""
        super().__init__()
        width, deep = config.width, config.deep_width
        code = 4 * width
        self.width = width
        self.to_code = nn.Sequential(nn.Linear(width, code), nn.SiLU(), nn.Linear(code, code))
        self.start = nn.Conv3d(latent_channels + condition_channels, width, 3, padding=1)
        self.down = self._blocks(config.num_blocks, width, code)
        self.to_deep = downsample(width, deep)
        self.middle = self._blocks(config.num_blocks, deep, code)
        self.attention = SelfAttention(deep, config.num_heads)
        self.middle_up = self._blocks(config.num_blocks, deep, code)
        self.from_deep = upsample(deep, width)
        self.up = self._blocks(config.num_blocks, width, code)
        self.end = nn.Sequential(
            group_norm(width), nn.SiLU(), nn.Conv3d(width, latent_channels, 3, padding=1)
        )
        nn.init.zeros_(self.end[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.end[-1].bias)  # type: ignore[arg-type]

    @staticmethod
    def _blocks(count: int, width: int, code: int) -> nn.ModuleList:
        return nn.ModuleList([ResidualBlock(width, width, code=code) for _ in range(count)])

    def forward(
        self,
        noisy: Float[Tensor, "batch latent depth height width"],
        time: Float[Tensor, " batch"],
        condition: Float[Tensor, "batch condition depth height width"],
    ) -> Float[Tensor, "batch latent depth height width"]:
        """Predict what the process asks for (`prediction` in `NoiseConfig`).

        Args:
            noisy: Scaled latent with noise.
            time: Time of the process in [0, 1].
            condition: Condition at the latent's grid.
        """
        code = F.silu(self.to_code(sinusoidal_code(1000.0 * time, self.width)))
        hidden = self.start(torch.cat([noisy, condition], dim=1))
        for block in self.down:
            hidden = block(hidden, code)
        deep = self.to_deep(hidden)
        for block in self.middle:
            deep = block(deep, code)
        deep = self.attention(deep)
        for block in self.middle_up:
            deep = block(deep, code)
        hidden = hidden + self.from_deep(deep)
        for block in self.up:
            hidden = block(hidden, code)
        return self.end(hidden).float()
