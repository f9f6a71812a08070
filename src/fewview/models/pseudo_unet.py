"""The pseudo-3-D denoiser: 2-D convolutions in sagittal planes, 1-D attention from left to right.

XctDiff's denoiser, a network for video whose frames are sagittal planes: fewer operations than full
3-D convolutions, but left and right meet in one-dimensional attention alone. The isotropic networks
are in `unet` and `denoiser`.
"""

import itertools
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewview.models.layers import sinusoidal_code
from fewview.models.prior import CrossAttention, PriorConfig, PriorTokens
from fewview.models.pseudo_layers import (
    NUM_BUCKETS,
    LinearAttention,
    LineAttention,
    PlaneBlock,
    distance_buckets,
)

PRIOR_HEADS = 8
"""Of the attention to tokens; every width is a multiple of it."""


@dataclass(frozen=True, kw_only=True)
class PseudoUnetConfig(PriorConfig):
    """Sizes of the pseudo-3-D U-Net; the defaults are the published ones."""

    kind: Literal["pseudo"]

    width: int = 64
    """Channels of the first level, which has the latent's resolution."""

    multipliers: tuple[int, ...] = (1, 2, 4, 8)
    """Channels of each level in units of `width`; each level has half the resolution of the one
    before in sagittal planes, and as many planes."""

    num_heads: int = 8
    """Heads of every attention, 32 channels each."""

    def __post_init__(self) -> None:
        """Refuse sizes that cannot exist."""
        super().__post_init__()
        if not self.multipliers:
            raise ValueError("multipliers needs at least one level")
        if min(self.width, self.num_heads, *self.multipliers) < 1:
            raise ValueError("denoiser sizes must be at least 1")
        if self.width % 8:
            raise ValueError(f"width must be a multiple of 8, got {self.width}")

    @property
    def coarsest(self) -> int:
        """Voxels of the latent per voxel of the coarsest features, along one axis."""
        return int(2 ** (len(self.multipliers) - 1))


class PseudoLevel(nn.Module):
    """Two blocks, attention in planes, attention across them, and attention to tokens if any."""

    def __init__(self, before: int, after: int, config: PseudoUnetConfig) -> None:
        """Build for `before` to `after` channels."""
        super().__init__()
        code = 4 * config.width
        self.first, self.second = PlaneBlock(before, after, code), PlaneBlock(after, after, code)
        self.within = LinearAttention(after, config.num_heads)
        self.across = LineAttention(after, config.num_heads, across=True)
        self.prior = _prior(config, after)

    def forward(self, hidden: Tensor, code: Tensor, bias: Tensor, tokens: Tensor | None) -> Tensor:
        """Apply one after the other."""
        hidden = self.second(self.first(hidden, code), code)
        mixed: Tensor = self.across(self.within(hidden), bias)
        return mixed if self.prior is None else self.prior(mixed, tokens)


class PseudoUnetDenoiser(nn.Module):
    """U-Net on the noisy latent beside the condition, or with attention to it, pseudo-3-D.

    Differs from the published network by fused attention and an output that starts at zero.

    References:
        XctDiff (arXiv 2406.04679), stage 3; Ho et al. (2022), Video Diffusion Models, section 3;
        Su et al. (2021), RoFormer, section 3.2; Raffel et al. (2020), T5, section 2.1.
    """

    def __init__(
        self, config: PseudoUnetConfig, *, latent_channels: int, condition_channels: int
    ) -> None:
        """Build for latents and conditions of these channel counts."""
        super().__init__()
        self.config = config
        first, heads = config.width, config.num_heads
        widths = [first, *(first * multiplier for multiplier in config.multipliers)]
        pairs = list(itertools.pairwise(widths))
        self.to_code = nn.Sequential(
            nn.Linear(first, 4 * first), nn.GELU(), nn.Linear(4 * first, 4 * first)
        )
        self.distance_bias = nn.Embedding(NUM_BUCKETS, heads)
        channels = config.num_channels(latent_channels, condition_channels)
        self.start = nn.Conv3d(channels, first, (1, 7, 7), padding=(0, 3, 3))
        self.to_tokens = (
            PriorTokens(condition_channels, 4 * first, config.prior_block)
            if config.attends
            else None
        )
        self.start_across = LineAttention(first, heads, across=True)
        self.down = nn.ModuleList(PseudoLevel(*pair, config) for pair in pairs)
        self.coarser = nn.ModuleList(
            nn.Conv3d(after, after, (1, 4, 4), stride=(1, 2, 2), padding=(0, 1, 1))
            for _, after in pairs[:-1]
        )
        deep = widths[-1]
        self.middle_in = PlaneBlock(deep, deep, 4 * first)
        self.middle_within = LineAttention(deep, heads, across=False)
        self.middle_across = LineAttention(deep, heads, across=True)
        self.middle_prior = _prior(config, deep)
        self.middle_out = PlaneBlock(deep, deep, 4 * first)
        self.up = nn.ModuleList(
            PseudoLevel(2 * after, before, config) for before, after in reversed(pairs)
        )
        self.finer = nn.ModuleList(
            nn.ConvTranspose3d(before, before, (1, 4, 4), stride=(1, 2, 2), padding=(0, 1, 1))
            for before, _ in reversed(pairs[1:])
        )
        self.end_block = PlaneBlock(2 * first, first)
        self.end = nn.Conv3d(first, latent_channels, 1)
        nn.init.zeros_(self.end.weight)
        nn.init.zeros_(self.end.bias)  # type: ignore[arg-type]

    def forward(
        self,
        noisy: Float[Tensor, "batch latent depth height width"],
        time: Float[Tensor, " batch"],
        condition: Float[Tensor, "batch condition depth height width"],
        previous: Float[Tensor, "batch latent depth height width"] | None = None,
    ) -> Float[Tensor, "batch latent depth height width"]:
        """Predict what the process asks for (`prediction` in `NoiseConfig`).

        Args:
            noisy: Scaled latent with noise; sides are multiples of the config's `coarsest`.
            time: Time of the process in [0, 1].
            condition: Condition at the latent's grid.
            previous: The last clean estimate, for a network with self-conditioning.
        """
        code = self.to_code(sinusoidal_code(1000.0 * time, self.config.width))
        buckets = distance_buckets(noisy.shape[-1]).to(noisy.device)
        bias = self.distance_bias(buckets).movedim(-1, 0)
        planes = self.config.beside(noisy, condition, previous).movedim(-1, 2)
        tokens = None if self.to_tokens is None else self.to_tokens(condition.movedim(-1, 2))
        early = hidden = self.start_across(self.start(planes), bias)
        skips = []
        for index, level in enumerate(self.down):
            hidden = level(hidden, code, bias, tokens)
            skips.append(hidden)
            if index < len(self.coarser):
                hidden = self.coarser[index](hidden)
        hidden = self.middle_across(self.middle_within(self.middle_in(hidden, code)), bias)
        if self.middle_prior is not None:
            hidden = self.middle_prior(hidden, tokens)
        hidden = self.middle_out(hidden, code)
        for index, level in enumerate(self.up):
            hidden = level(torch.cat([hidden, skips.pop()], dim=1), code, bias, tokens)
            if index < len(self.finer):
                hidden = self.finer[index](hidden)
        output: Tensor = self.end(self.end_block(torch.cat([hidden, early], dim=1)))
        return output.movedim(2, -1).float()


def _prior(config: PseudoUnetConfig, width: int) -> CrossAttention | None:
    if not config.attends:
        return None
    return CrossAttention(width, PRIOR_HEADS, 4 * config.width)
