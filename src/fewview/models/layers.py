"""Building blocks shared by the networks: residual blocks, attention, pixel shuffling in 3-D.

Networks here work at half resolution or below: `space_to_depth` folds each 2x2x2 block of voxels
into channels, which removes most of the cost of full-resolution convolutions.
"""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def space_to_depth(
    volume: Float[Tensor, "batch channel depth height width"],
) -> Float[Tensor, "batch channel_8 depth_2 height_2 width_2"]:
    """Fold 2x2x2 voxels into channels; the inverse of `depth_to_space`."""
    batch, channel, depth, height, width = volume.shape
    blocks = volume.reshape(batch, channel, depth // 2, 2, height // 2, 2, width // 2, 2)
    folded = blocks.permute(0, 1, 3, 5, 7, 2, 4, 6)
    return folded.reshape(batch, channel * 8, depth // 2, height // 2, width // 2)


def depth_to_space(
    volume: Float[Tensor, "batch channel_8 depth height width"],
) -> Float[Tensor, "batch channel depth_2 height_2 width_2"]:
    """Unfold channels into 2x2x2 voxels; the inverse of `space_to_depth`."""
    batch, channel, depth, height, width = volume.shape
    blocks = volume.reshape(batch, channel // 8, 2, 2, 2, depth, height, width)
    unfolded = blocks.permute(0, 1, 5, 2, 6, 3, 7, 4)
    return unfolded.reshape(batch, channel // 8, depth * 2, height * 2, width * 2)


def group_norm(num_channels: int) -> nn.GroupNorm:
    """Group norm with groups of about eight channels."""
    groups = max(1, num_channels // 8)
    while num_channels % groups:
        groups -= 1
    return nn.GroupNorm(groups, num_channels, eps=1e-5)


class ResidualBlock(nn.Module):
    """Norm, SiLU, convolution, twice, plus the input; optionally scaled and shifted by a code.

    Works on images (`dims=2`) and volumes (`dims=3`). The last convolution starts at zero, so that
    the block starts as the identity.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        dims: int = 3,
        code: int = 0,
        resample: nn.Module | None = None,
    ) -> None:
        """Build for `in_channels` to `out_channels`.

        Args:
            in_channels: Channels of the input.
            out_channels: Channels of the output.
            dims: 2 for images, 3 for volumes.
            code: Length of the code that modulates the block; 0 for none.
            resample: Changes the resolution of both branches, and has no weights.
        """
        super().__init__()
        conv: type[nn.Module] = nn.Conv2d if dims == 2 else nn.Conv3d
        self.norm_in = group_norm(in_channels)
        self.conv_in = conv(in_channels, out_channels, 3, padding=1)
        self.norm_out = group_norm(out_channels)
        self.conv_out = conv(out_channels, out_channels, 3, padding=1)
        self.shortcut = (
            nn.Identity() if in_channels == out_channels else conv(in_channels, out_channels, 1)
        )
        self.modulation = nn.Linear(code, 2 * out_channels) if code else None
        self.resample = resample
        nn.init.zeros_(self.conv_out.weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.conv_out.bias)  # type: ignore[arg-type]

    def forward(self, hidden: Tensor, code: Tensor | None = None) -> Tensor:
        """Apply the block; `code` is needed when the block was built with one."""
        inner = F.silu(self.norm_in(hidden))
        if self.resample is not None:
            inner, hidden = self.resample(inner), self.resample(hidden)
        inner = self.norm_out(self.conv_in(inner))
        if self.modulation is not None and code is not None:
            scale, shift = self.modulation(code).chunk(2, dim=1)
            shape = scale.shape + (1,) * (inner.ndim - 2)
            inner = inner * (1 + scale.reshape(shape)) + shift.reshape(shape)
        inner = self.conv_out(F.silu(inner))
        return self.shortcut(hidden) + inner


class SelfAttention(nn.Module):
    """Multi-head self-attention over all voxels, fused; starts as the identity."""

    def __init__(self, num_channels: int, num_heads: int = 4) -> None:
        """Build for `num_channels`, divisible by `num_heads`."""
        super().__init__()
        self.num_heads = num_heads
        self.norm = group_norm(num_channels)
        self.to_qkv = nn.Conv3d(num_channels, 3 * num_channels, 1)
        self.to_out = nn.Conv3d(num_channels, num_channels, 1)
        nn.init.zeros_(self.to_out.weight)
        nn.init.zeros_(self.to_out.bias)  # type: ignore[arg-type]

    def forward(
        self, hidden: Float[Tensor, "batch channel depth height width"]
    ) -> Float[Tensor, "batch channel depth height width"]:
        """Mix information between all voxels."""
        batch, channel, *size = hidden.shape
        qkv = self.to_qkv(self.norm(hidden))
        qkv = qkv.reshape(batch, 3, self.num_heads, channel // self.num_heads, -1)
        query, key, value = qkv.transpose(-1, -2).unbind(1)
        mixed = F.scaled_dot_product_attention(query, key, value)
        mixed = mixed.transpose(-1, -2).reshape(batch, channel, *size)
        return hidden + self.to_out(mixed)


def level_start(module: nn.Module) -> None:
    """Start all convolutions so that signals keep their strength on the way through them.

    By torch's default a convolution with no norm behind it weakens its signal to about 0.6: what
    the images say would reach the volume weaker than the position of its voxels. Residual
    branches begin with part of a signal, not at zero: a network of zero branches is linear, and
    cannot tell where two views meet.

    References:
        He et al. (2015), Delving deep into rectifiers, arXiv 1502.01852, section 2.2.
    """
    for part in module.modules():
        if isinstance(part, ResidualBlock):
            _start(part.conv_out, 0.5)
            continue
        layers = list(part.children())
        in_order = isinstance(part, nn.Sequential)
        for layer, after in pairwise([*layers, None]):
            if isinstance(layer, nn.Conv2d | nn.Conv3d):
                _start(layer, 2.0 if in_order and isinstance(after, nn.SiLU) else 1.0)


def _start(convolution: nn.Module, power: float) -> None:
    """Weights that give white input of power 1 this power, or half of it behind a SiLU."""
    assert isinstance(convolution, nn.Conv2d | nn.Conv3d), "nothing else is put there"
    inputs = convolution.weight[0].numel()
    nn.init.normal_(convolution.weight, std=math.sqrt(power / inputs))
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)


def channels_last(module: nn.Module) -> nn.Module:
    """Keep the weights of convolutions with channels innermost; their outputs then follow.

    The values stay; convolutions of few channels on a CPU need fewer copies this way.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv3d):
            part.weight.data = part.weight.data.to(memory_format=torch.channels_last_3d)
        elif isinstance(part, nn.Conv2d):
            part.weight.data = part.weight.data.to(memory_format=torch.channels_last)
    return module


def downsample(in_channels: int, out_channels: int, *, dims: int = 3, factor: int = 2) -> nn.Module:
    """Divide the resolution by `factor`, by a convolution of disjoint blocks."""
    conv = nn.Conv2d if dims == 2 else nn.Conv3d
    return conv(in_channels, out_channels, factor, stride=factor)


def upsample(in_channels: int, out_channels: int, *, dims: int = 3) -> nn.Module:
    """Double the resolution: pointwise convolution, then nearest neighbors."""
    conv = nn.Conv2d if dims == 2 else nn.Conv3d
    return nn.Sequential(conv(in_channels, out_channels, 1), nn.Upsample(scale_factor=2))


def sinusoidal_code(
    position: Float[Tensor, " batch"], length: int, *, max_period: float = 10_000.0
) -> Float[Tensor, "batch length"]:
    """Sines and cosines of a position at geometrically spaced frequencies."""
    half = length // 2
    exponent = torch.arange(half, device=position.device, dtype=torch.float32) / half
    angle = position[:, None].float() * torch.exp(-math.log(max_period) * exponent)
    return torch.cat([angle.cos(), angle.sin()], dim=1)
