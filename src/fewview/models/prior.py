"""How a denoising U-Net is told its condition and its last clean estimate.

The condition enters as channels beside the noisy latent, as XctDiff's released code has it, or as
tokens that the features look up (cross-attention), as its paper has it. Tokens stand for blocks of
voxels, so that their number, and the attention's memory with it, is bounded.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fewview.models.layers import group_norm

NUM_FREQUENCIES = 4
"""Of the place code: from half a period over the grid to four."""

PLACE_CHANNELS = 3 * 2 * NUM_FREQUENCIES


@dataclass(frozen=True, kw_only=True)
class PriorConfig:
    """What a denoising U-Net sees beside the noisy latent, and how."""

    prior: Literal["concatenation", "cross-attention"] = "concatenation"
    """How the condition enters: as channels beside the noisy latent (released code of both
    papers), or as tokens that features look up (XctDiff's paper)."""

    prior_block: int = 4
    """Edge in voxels of the blocks of the condition that become tokens, for cross-attention."""

    self_conditioning: bool = False
    """Whether the last clean estimate is a further input (Chen et al. 2022)."""

    def __post_init__(self) -> None:
        """Refuse blocks that cannot exist."""
        if self.prior_block < 1:
            raise ValueError(f"prior_block must be at least 1, got {self.prior_block}")

    @property
    def attends(self) -> bool:
        """Whether the condition enters as tokens."""
        return self.prior == "cross-attention"

    @property
    def block(self) -> int:
        """The latent's sides must be multiples of it, for tokens; 1 without."""
        return self.prior_block if self.attends else 1

    def num_channels(self, latent_channels: int, condition_channels: int) -> int:
        """Channels that `beside` puts together."""
        latents = latent_channels * (2 if self.self_conditioning else 1)
        return latents + (0 if self.attends else condition_channels)

    def beside(
        self,
        noisy: Float[Tensor, "batch latent depth height width"],
        condition: Float[Tensor, "batch condition depth height width"],
        previous: Float[Tensor, "batch latent depth height width"] | None,
    ) -> Float[Tensor, "batch channel depth height width"]:
        """All that enters as channels; no estimate yet is the same as zeros."""
        seen = [noisy]
        if self.self_conditioning:
            seen.append(torch.zeros_like(noisy) if previous is None else previous)
        return torch.cat(seen if self.attends else [*seen, condition], dim=1)


def place_code(size: list[int], like: Tensor) -> Float[Tensor, "place code"]:
    """Sines and cosines of where each voxel's center lies in the grid, flattened.

    The same place has nearly the same code in grids of different size, so that features of one
    resolution find tokens of another.

    Args:
        size: Voxels of the grid along each axis.
        like: Gives device and type.
    """
    axes = [(torch.arange(count, device=like.device) + 0.5) / count * 2 - 1 for count in size]
    place = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)
    octave = 2.0 ** torch.arange(-1, NUM_FREQUENCIES - 1, device=like.device)
    angle = (math.pi * place[..., None] * octave).flatten(1)
    return torch.cat([angle.sin(), angle.cos()], dim=1).to(like.dtype)


class PriorTokens(nn.Module):
    """A condition to one token for each block of its voxels."""

    def __init__(self, in_channels: int, width: int, block: int) -> None:
        """Build for blocks of `block` voxels along each axis."""
        super().__init__()
        self.blocks = nn.Conv3d(in_channels, width, block, stride=block)
        self.place = nn.Linear(PLACE_CHANNELS, width)
        self.norm = nn.LayerNorm(width)

    def forward(
        self, condition: Float[Tensor, "batch condition depth height width"]
    ) -> Float[Tensor, "batch token feature"]:
        """Tokens; the sides must be multiples of the block's."""
        blocks = self.blocks(condition)
        tokens = blocks.flatten(2).transpose(1, 2)
        normed: Tensor = self.norm(tokens + self.place(place_code([*blocks.shape[2:]], tokens)))
        return normed


class CrossAttention(nn.Module):
    """Multi-head attention of voxels to tokens, fused; starts as the identity."""

    def __init__(self, num_channels: int, num_heads: int, token_width: int) -> None:
        """Build for `num_channels`, divisible by `num_heads`."""
        super().__init__()
        self.num_heads = num_heads
        self.norm = group_norm(num_channels)
        self.place = nn.Linear(PLACE_CHANNELS, num_channels)
        self.to_query = nn.Linear(num_channels, num_channels)
        self.to_key_value = nn.Linear(token_width, 2 * num_channels)
        self.to_out = nn.Linear(num_channels, num_channels)
        nn.init.zeros_(self.to_out.weight)
        nn.init.zeros_(self.to_out.bias)

    def forward(
        self,
        hidden: Float[Tensor, "batch channel depth height width"],
        tokens: Float[Tensor, "batch token feature"],
    ) -> Float[Tensor, "batch channel depth height width"]:
        """Add to each voxel what it finds in the tokens."""
        size = hidden.shape[2:]
        voxels = self.norm(hidden).flatten(2).transpose(1, 2)
        query = self.to_query(voxels + self.place(place_code([*size], voxels)))
        key, value = self.to_key_value(tokens).chunk(2, dim=-1)
        heads = (part.unflatten(-1, (self.num_heads, -1)) for part in (query, key, value))
        mixed = F.scaled_dot_product_attention(*(head.transpose(1, 2) for head in heads))
        added = self.to_out(mixed.transpose(1, 2).flatten(2))
        return hidden + added.transpose(1, 2).unflatten(2, size)
