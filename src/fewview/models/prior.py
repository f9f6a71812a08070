"""The condition as tokens that the denoiser's features look up (cross-attention).

XctDiff's paper lets the prior enter this way, its released code by concatenated channels. Tokens
stand for blocks of voxels, so that their number, and the attention's memory with it, is bounded.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fewview.models.layers import group_norm

NUM_FREQUENCIES = 4
"""Of the place code: from half a period over the grid to four."""

PLACE_CHANNELS = 3 * 2 * NUM_FREQUENCIES


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
