"""What the pseudo-3-D denoiser is built of: convolutions and attention in planes and across them.

A plane is sagittal here: tensors are [batch, channel, plane, row, col].
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

HEAD_CHANNELS = 32
NUM_BUCKETS, FARTHEST = 32, 32
"""Of the distances between planes that attention tells apart."""


class PlaneBlock(nn.Module):
    """Convolution in planes, norm and SiLU, twice, plus the input; modulated by a code if any."""

    def __init__(self, before: int, after: int, code: int = 0) -> None:
        """Build for `before` to `after` channels."""
        super().__init__()
        self.conv_in, self.conv_out = _in_plane(before, after), _in_plane(after, after)
        self.norm_in, self.norm_out = nn.GroupNorm(8, after), nn.GroupNorm(8, after)
        self.modulation = nn.Linear(code, 2 * after) if code else None
        self.shortcut = nn.Identity() if before == after else nn.Conv3d(before, after, 1)

    def forward(self, hidden: Tensor, code: Tensor | None = None) -> Tensor:
        """Apply the block."""
        inner = self.norm_in(self.conv_in(hidden))
        if self.modulation is not None and code is not None:
            scale, shift = self.modulation(F.silu(code))[..., None, None, None].chunk(2, dim=1)
            inner = inner * (1 + scale) + shift
        inner = F.silu(self.norm_out(self.conv_out(F.silu(inner))))
        return self.shortcut(hidden) + inner


class ChannelNorm(nn.Module):
    """Every voxel's channels to zero mean and unit variance, with a gain."""

    def __init__(self, num_channels: int) -> None:
        """Build for `num_channels`."""
        super().__init__()
        self.gain = nn.Parameter(torch.ones(num_channels))

    def forward(
        self, hidden: Float[Tensor, "batch channel plane row col"]
    ) -> Float[Tensor, "batch channel plane row col"]:
        """Normalize."""
        last = F.layer_norm(hidden.movedim(1, -1), self.gain.shape, self.gain)
        return last.movedim(-1, 1)


class LinearAttention(nn.Module):
    """Attention within each plane whose cost grows with the voxels and not with their square.

    References:
        Shen et al. (2021), Efficient Attention, section 3.2.
    """

    def __init__(self, num_channels: int, num_heads: int) -> None:
        """Build for `num_channels`."""
        super().__init__()
        self.num_heads, inner = num_heads, num_heads * HEAD_CHANNELS
        self.norm = ChannelNorm(num_channels)
        self.to_qkv = nn.Conv3d(num_channels, 3 * inner, 1, bias=False)
        self.to_out = nn.Conv3d(inner, num_channels, 1)

    def forward(
        self, hidden: Float[Tensor, "batch channel plane row col"]
    ) -> Float[Tensor, "batch channel plane row col"]:
        """Add what each voxel finds in its plane."""
        batch, _, planes, rows, cols = hidden.shape
        heads = self.to_qkv(self.norm(hidden)).reshape(
            batch, 3, self.num_heads, HEAD_CHANNELS, planes, rows * cols
        )
        query, key, value = heads.movedim(4, 2).unbind(1)  # [batch, plane, head, channel, voxel]
        query = query.softmax(dim=-2) * HEAD_CHANNELS**-0.5
        context = value @ key.softmax(dim=-1).transpose(-1, -2)
        mixed = (context @ query).movedim(1, 3).reshape(batch, -1, planes, rows, cols)
        added: Tensor = self.to_out(mixed)
        return hidden + added


class LineAttention(nn.Module):
    """Attention along the planes at each place, or within each plane; told relative distances."""

    def __init__(self, num_channels: int, num_heads: int, *, across: bool) -> None:
        """Build for attention across planes (`across`) or within them."""
        super().__init__()
        self.num_heads, self.across = num_heads, across
        inner = num_heads * HEAD_CHANNELS
        self.norm = ChannelNorm(num_channels)
        self.to_qkv = nn.Linear(num_channels, 3 * inner, bias=False)
        self.to_out = nn.Linear(inner, num_channels, bias=False)

    def forward(
        self,
        hidden: Float[Tensor, "batch channel plane row col"],
        bias: Float[Tensor, "head plane plane"] | None = None,
    ) -> Float[Tensor, "batch channel plane row col"]:
        """Add what each voxel finds along its line or in its plane."""
        _, channel, planes, rows, cols = hidden.shape
        lines = (
            self.norm(hidden).permute(0, 3, 4, 2, 1)
            if self.across
            else (self.norm(hidden).permute(0, 2, 3, 4, 1))
        )
        shape = lines.shape
        lines = lines.reshape(-1, planes if self.across else rows * cols, channel)
        heads = self.to_qkv(lines).unflatten(-1, (3, self.num_heads, HEAD_CHANNELS))
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        if self.across:
            query, key = rotated(query), rotated(key)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        added = self.to_out(mixed.transpose(1, 2).flatten(2)).reshape(shape)
        order = (0, 4, 3, 1, 2) if self.across else (0, 4, 1, 2, 3)
        return hidden + added.permute(order)


def rotated(
    heads: Float[Tensor, "line head place channel"],
) -> Float[Tensor, "line head place channel"]:
    """Pairs of channels turned by angles that grow with the place: products tell the distance."""
    count, channels = heads.shape[-2:]
    place = torch.arange(count, device=heads.device)
    rate = 10_000.0 ** (-torch.arange(0, channels, 2, device=heads.device) / channels)
    angle = (place[:, None] * rate).to(heads.dtype)
    even, odd = heads[..., 0::2], heads[..., 1::2]
    cosine, sine = angle.cos(), angle.sin()
    turned = torch.stack([even * cosine - odd * sine, even * sine + odd * cosine], dim=-1)
    return turned.flatten(-2)


def distance_buckets(count: int) -> Int[Tensor, "place place"]:
    """The bucket of each place's signed distance to each: single steps first, then ever coarser."""
    place = torch.arange(count)
    distance = place[None] - place[:, None]
    half, exact = NUM_BUCKETS // 2, NUM_BUCKETS // 4
    size = distance.abs()
    coarse = (size.clamp(min=exact) / exact).log() / math.log(FARTHEST / exact) * (half - exact)
    bucket = torch.where(size < exact, size, (exact + coarse.long()).clamp(max=half - 1))
    return bucket + half * (distance > 0)


def _in_plane(before: int, after: int) -> nn.Conv3d:
    return nn.Conv3d(before, after, (1, 3, 3), padding=(0, 1, 1))
