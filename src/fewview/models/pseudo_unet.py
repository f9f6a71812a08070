"""The pseudo-3-D denoiser: 2-D convolutions in sagittal planes, 1-D attention from left to right.

XctDiff's denoiser, a network for video whose frames are sagittal planes: fewer operations than full
3-D convolutions, but left and right meet in one-dimensional attention alone. The isotropic networks
are in `unet` and `denoiser`.
"""

import itertools
import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from fewview.models.layers import sinusoidal_code

HEAD_CHANNELS = 32
NUM_BUCKETS, FARTHEST = 32, 32
"""Of the distances between planes that attention tells apart."""


@dataclass(frozen=True, kw_only=True)
class PseudoUnetConfig:
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


class PseudoLevel(nn.Module):
    """Two blocks, attention in planes and attention across them."""

    def __init__(self, before: int, after: int, config: PseudoUnetConfig) -> None:
        """Build for `before` to `after` channels."""
        super().__init__()
        code = 4 * config.width
        self.first, self.second = PlaneBlock(before, after, code), PlaneBlock(after, after, code)
        self.within = LinearAttention(after, config.num_heads)
        self.across = LineAttention(after, config.num_heads, across=True)

    def forward(self, hidden: Tensor, code: Tensor, bias: Tensor) -> Tensor:
        """Apply one after the other."""
        hidden = self.second(self.first(hidden, code), code)
        mixed: Tensor = self.across(self.within(hidden), bias)
        return mixed


class PseudoUnetDenoiser(nn.Module):
    """U-Net on the noisy latent beside the condition, pseudo-3-D.

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
        self.start = nn.Conv3d(
            latent_channels + condition_channels, first, (1, 7, 7), padding=(0, 3, 3)
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
    ) -> Float[Tensor, "batch latent depth height width"]:
        """Predict what the process asks for (`prediction` in `NoiseConfig`).

        Args:
            noisy: Scaled latent with noise; sides are multiples of the config's `coarsest`.
            time: Time of the process in [0, 1].
            condition: Condition at the latent's grid.
        """
        code = self.to_code(sinusoidal_code(1000.0 * time, self.config.width))
        buckets = distance_buckets(noisy.shape[-1]).to(noisy.device)
        bias = self.distance_bias(buckets).movedim(-1, 0)
        planes = torch.cat([noisy, condition], dim=1).movedim(-1, 2)
        early = hidden = self.start_across(self.start(planes), bias)
        skips = []
        for index, level in enumerate(self.down):
            hidden = level(hidden, code, bias)
            skips.append(hidden)
            if index < len(self.coarser):
                hidden = self.coarser[index](hidden)
        hidden = self.middle_across(self.middle_within(self.middle_in(hidden, code)), bias)
        hidden = self.middle_out(hidden, code)
        for index, level in enumerate(self.up):
            hidden = level(torch.cat([hidden, skips.pop()], dim=1), code, bias)
            if index < len(self.finer):
                hidden = self.finer[index](hidden)
        output: Tensor = self.end(self.end_block(torch.cat([hidden, early], dim=1)))
        return output.movedim(2, -1).float()


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
