"""INRR3CT: the CT as a function of position, conditioned on what the views show there."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from fewview.models.lifting import RayGrid

POINTS_AT_ONCE = 65_536
"""Voxels evaluated together when a whole volume is wanted; bounds the memory."""


@dataclass(frozen=True, kw_only=True)
class ImplicitConfig:
    """Sizes of INRR3CT; the defaults are the published ones."""

    kind: Literal["inrr3ct"] = "inrr3ct"

    image_widths: tuple[int, int, int, int] = (64, 128, 256, 512)
    """Channels of the 2-D U-Net at full, half, quarter and eighth resolution."""

    features: int = 128
    """Channels per pixel, and width of the sine networks."""

    omega: float = 50.0
    """Frequency of the sine layers."""

    fourier_spread: float = 9.5
    """Standard deviation of the position code's frequencies, in cycles per unit (the grid is two
    units wide)."""

    num_blocks: int = 3
    """Residual sine blocks of the network per view."""

    num_head_layers: int = 4
    """Sine layers of the head."""

    network_per_view: bool = False
    """Weights of its own for each of two views (published), or one network for any view."""

    def __post_init__(self) -> None:
        """Refuse sizes that cannot exist."""
        if min(*self.image_widths, self.features, self.num_blocks, self.num_head_layers) < 1:
            raise ValueError("inrr3ct sizes must be at least 1")
        if self.omega <= 0.0 or self.fourier_spread <= 0.0:
            raise ValueError("omega and fourier_spread must be positive")


def _double(in_channels: int, out_channels: int) -> nn.Sequential:
    """Two 5x5 convolutions with leaky ReLU, without norm."""
    layers: list[nn.Module] = []
    for channels in (in_channels, out_channels):
        layers += [nn.Conv2d(channels, out_channels, 5, padding=2), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers)


class PlainUNet(nn.Module):
    """A 2-D U-Net without norm, so that calibrated line integrals keep their scale."""

    def __init__(self, widths: tuple[int, int, int, int], out_channels: int) -> None:
        """Build; the full-resolution features are not skipped over, as published."""
        super().__init__()
        full, half, quarter, eighth = widths
        self.at_full, self.at_half = _double(1, full), _double(full, half)
        self.at_quarter, self.at_eighth = _double(half, quarter), _double(quarter, eighth)
        self.to_quarter = nn.ConvTranspose2d(eighth, quarter, 2, stride=2)
        self.quarter_up = _double(2 * quarter, quarter)
        self.to_half = nn.ConvTranspose2d(quarter, half, 2, stride=2)
        self.half_up = _double(2 * half, half)
        self.to_full = nn.ConvTranspose2d(half, out_channels, 2, stride=2)
        self.out = nn.Conv2d(out_channels, out_channels, 5, padding=2)

    def forward(self, image: Float[Tensor, "image 1 row col"]) -> Tensor:
        """Features per pixel; the sides must be multiples of eight."""
        half = self.at_half(F.max_pool2d(self.at_full(image), 2))
        quarter = self.at_quarter(F.max_pool2d(half, 2))
        eighth = self.at_eighth(F.max_pool2d(quarter, 2))
        quarter = self.quarter_up(torch.cat([self.to_quarter(eighth), quarter], dim=1))
        half = self.half_up(torch.cat([self.to_half(quarter), half], dim=1))
        features: Tensor = self.out(self.to_full(half))
        return features


class SineLayer(nn.Module):
    """Linear layer and sine.

    References:
        Sitzmann et al. (2020), section 3.2, for the frequency and the initialization.
    """

    def __init__(self, in_size: int, out_size: int, omega: float, *, first: bool = False) -> None:
        """Build; the first layer of a network is drawn more widely."""
        super().__init__()
        self.omega = omega
        self.linear = nn.Linear(in_size, out_size)
        bound = 1.0 / in_size if first else math.sqrt(6.0 / in_size) / omega
        nn.init.uniform_(self.linear.weight, -bound, bound)

    def forward(self, value: Tensor) -> Tensor:
        """Sine of the scaled linear map."""
        return torch.sin(self.omega * self.linear(value))


class PointNetwork(nn.Module):
    """What one view says of a point: a sine layer, then residual blocks that use a layer twice."""

    def __init__(self, config: ImplicitConfig, in_size: int) -> None:
        """Build for features, position code and, for shared weights, the ray."""
        super().__init__()
        width, omega = config.features, config.omega
        self.first = SineLayer(in_size, width, omega, first=True)
        self.blocks = nn.ModuleList(
            SineLayer(width, width, omega) for _ in range(config.num_blocks)
        )

    def forward(self, value: Tensor) -> Tensor:
        """Embedding of each point."""
        hidden = self.first(value)
        for block in self.blocks:
            assert isinstance(block, SineLayer), "nothing else is put there"
            hidden = torch.sin(hidden + block.omega * block.linear(block(hidden)))
        return hidden


class Implicit(nn.Module):
    """Views to a CT estimate, voxel by voxel.

    Each voxel reads the pixel it projects to in every view (bilinear, along the true ray), with
    a Fourier code of its position; a view that does not see it does not count.

    References:
        Sun et al. (2023), INRR3CT, arXiv 2308.02100.
    """

    frequencies: Tensor

    def __init__(self, config: ImplicitConfig) -> None:
        """Build from a config; the frequencies are drawn once and kept with the weights."""
        super().__init__()
        self.config = config
        self.image_network = PlainUNet(config.image_widths, config.features)
        told = 0 if config.network_per_view else 4
        size = config.features + 9 + told
        self.point_networks = nn.ModuleList(
            PointNetwork(config, size) for _ in range(2 if config.network_per_view else 1)
        )
        head: list[nn.Module] = [
            SineLayer(config.features, config.features, config.omega)
            for _ in range(config.num_head_layers)
        ]
        self.head = nn.Sequential(*head, nn.Linear(config.features, 1))
        generator = torch.Generator().manual_seed(0)
        drawn = torch.randn(3, 3, generator=generator) * config.fourier_spread
        self.register_buffer("frequencies", drawn)

    def forward(
        self, images: Float[Tensor, "batch view 2 row col"], rays: RayGrid
    ) -> Float[Tensor, "batch 1 depth height width"]:
        """Estimate the whole CT in about [-1, 1], chunk by chunk."""
        size = rays.position.shape[2:5]
        features = self.features_of(images)
        voxels = torch.arange(math.prod(size), device=images.device)
        chunks = [self._at(features, rays, chunk) for chunk in voxels.split(POINTS_AT_ONCE)]
        return torch.cat(chunks, dim=1).unflatten(1, size).unsqueeze(1)

    def at(
        self,
        images: Float[Tensor, "batch view 2 row col"],
        rays: RayGrid,
        voxels: Int[Tensor, " voxel"],
    ) -> Float[Tensor, "batch voxel"]:
        """Estimate chosen voxels only, given by their index in the flattened grid."""
        return self._at(self.features_of(images), rays, voxels)

    def features_of(
        self, images: Float[Tensor, "batch view 2 row col"]
    ) -> Float[Tensor, "batch view feature row col"]:
        """Features per pixel of each view; the kind of the image is not used."""
        batch, view = images.shape[:2]
        flat = self.image_network(images[:, :, :1].flatten(0, 1))
        return flat.unflatten(0, (batch, view))

    def _at(self, features: Tensor, rays: RayGrid, voxels: Tensor) -> Tensor:
        num_views = features.shape[1]
        networks = list(self.point_networks)
        if len(networks) > 1 and num_views != len(networks):
            raise ValueError(
                f"this model takes {len(networks)} views, got {num_views}; one with "
                f"network_per_view = false takes any number"
            )
        code = self._position_code(rays, voxels).to(features)
        total, seen = torch.zeros((), device=features.device), torch.zeros((), device=code.device)
        for view in range(num_views):
            position = rays.position[:, view].flatten(1, 3)[:, voxels]
            there = (position.abs() <= 1.0).all(-1, keepdim=True).float()
            sampled = F.grid_sample(
                features[:, view].float(), position[:, None], align_corners=False
            )[:, :, 0].transpose(1, 2)
            parts = [sampled, code.expand(len(sampled), -1, -1)]
            if len(networks) == 1:
                parts.append(rays.ray[:, view].flatten(2)[:, :, voxels].transpose(1, 2))
            network = networks[min(view, len(networks) - 1)]
            total = total + there * network(torch.cat(parts, dim=-1)).float()
            seen = seen + there
        value: Tensor = self.head(total / seen.clamp(min=1.0))
        return value.float()[..., 0]

    def _position_code(self, rays: RayGrid, voxels: Tensor) -> Float[Tensor, "1 voxel 9"]:
        """Position in [-1, 1] and its cosines and sines at the drawn frequencies."""
        axes = [torch.linspace(-1, 1, n, device=voxels.device) for n in rays.position.shape[2:5]]
        place = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)[voxels]
        phase = 2.0 * math.pi * place @ self.frequencies.T
        return torch.cat([place, phase.cos(), phase.sin()], dim=-1)[None]
